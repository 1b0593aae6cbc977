//! The table: every row in a process of its own, so that its peak of memory is its own too.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use burn::tensor::backend::Backend;
use serde_json::Value;

use super::Row;

/// Runs that are measured, after one that is not.
const ROUNDS: usize = 5;

/// Measures the rows one after the other and prints each; `setting` is the device and the precision.
pub fn print<B: Backend>(
    rows: impl Iterator<Item = Row<B>>,
    setting: &[String; 2],
    work: &Path,
) -> anyhow::Result<()> {
    println!("| row | work | median | a second | peak memory |\n|---|---|---|---|---|");
    for row in rows {
        let (seconds, peak) =
            measure(row.name, setting, work).with_context(|| row.name.to_owned())?;
        let (count, unit) = row.items;
        let rate = count as f64 / seconds;
        let (name, about) = (row.name, row.about);
        println!("| {name} | {about} | {seconds:.4} s | {rate:.2} {unit} | {peak:.0} MiB |");
    }
    Ok(())
}

/// The median of the seconds, and the peak in MiB.
fn measure(
    row: &str,
    [device, precision]: &[String; 2],
    work: &Path,
) -> anyhow::Result<(f64, f64)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([row, "--device", device, "--precision", precision, "--work"])
        .arg(work)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = child.stdin.take().context("the input is piped")?;
    lines.write_all("go\n".repeat(1 + ROUNDS).as_bytes())?;
    drop(lines);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    let answers: Vec<Value> =
        output.stdout.split(|&byte| byte == b'\n').flat_map(serde_json::from_slice).collect();
    let mut seconds: Vec<f64> =
        answers.iter().skip(1).filter_map(|answer| answer["seconds"].as_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let peak = answers.iter().find_map(|answer| answer["peak_kib"].as_f64());
    Ok((seconds[seconds.len() / 2], peak.unwrap_or(f64::NAN) / 1024.0))
}
