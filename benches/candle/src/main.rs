//! The rows of `benches/rows` that candle has the model for, served in the same way.
//!
//!     cargo build --release --locked          # in this folder, for its .cargo/config.toml
//!     target/release/mi2rage-candle --list
//!     target/release/mi2rage-candle ROW --work DIR
//!
//! Forward passes alone: the layer norm and the softmax over the last axis that candle's models use
//! have no backward pass.

mod rows;

use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => {
            for (name, _) in rows::ROWS {
                println!("{name}");
            }
            Ok(())
        }
        [name, "--work", folder] => serve(name, Path::new(folder)),
        _ => bail!("expected --list, or ROW --work DIR"),
    }
}

fn serve(name: &str, folder: &Path) -> anyhow::Result<()> {
    let row = rows::ROWS.iter().find(|(row, _)| *row == name);
    let (_, prepare) = row.with_context(|| format!("{name}: no such row, see --list"))?;
    let mut run = prepare(folder)?;
    // Resets VmHWM, see proc(5).
    std::fs::write("/proc/self/clear_refs", "5")?;
    for line in io::stdin().lines() {
        if line? != "go" {
            break;
        }
        let begun = Instant::now();
        run()?;
        println!("{}", json!({ "seconds": begun.elapsed().as_secs_f64() }));
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: Option<u64> = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
    println!("{}", json!({ "peak_kib": peak }));
    Ok(())
}
