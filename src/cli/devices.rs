//! `mi2rage devices`

use crate::device::{DeviceChoice, probe_cuda};

/// Prints every backend of this build and whether it can be used here.
pub fn run() -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("flex     CPU, {cores} threads (the default without CUDA)");
    println!("ndarray  CPU, portable, slow");
    match probe_cuda() {
        Ok(()) => println!("cuda     found"),
        Err(why) => println!("cuda     not available: {why}"),
    }
    let (choice, _) = DeviceChoice::Auto.settle()?;
    println!("auto is {choice}");
    Ok(())
}
