//! The program `mi2rage`: a thin shell around the library.

fn main() {
    std::process::exit(mi2rage::cli::main());
}
