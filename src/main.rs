//! The program `mi2rage`: a thin shell around the library.

fn main() {
    mi2rage::memory::keep_freed();
    std::process::exit(mi2rage::cli::main());
}
