//! The program `mi2rage`: a thin shell around the library.

#[global_allocator]
static ALLOCATOR: mi2rage::memory::LargePages = mi2rage::memory::LargePages;

fn main() {
    mi2rage::memory::keep_freed();
    std::process::exit(mi2rage::cli::main());
}
