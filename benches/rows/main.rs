//! The models at work, a row each: the published architectures at full size with random weights,
//! and the bundled tiny ones as an experiment uses them.
//!
//!     cargo bench --bench rows               # a table of the lighter rows, with `-- --all` of all
//!     cargo bench --bench rows -- --list     # name, items of one run, what is done
//!     cargo bench --bench rows -- ROW        # serves one row
//!
//! A row that is served prepares its model and then answers lines. For `go` it does its work once
//! and prints `{"seconds": ...}`; for `end`, or where the input ends, it prints the most memory
//! that was resident since, as `{"peak_kib": ...}`. So `benches/compare.py` measures it beside the
//! same row in PyTorch and in candle. `RAYON_NUM_THREADS=1` measures one core.

mod load;
mod published;
mod table;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use burn::backend::Flex;
use burn::tensor::backend::Backend;
use clap::Parser;
use mi2rage::memory;
use serde_json::json;

/// What a row does each time; its model and inputs are inside.
type Work = Box<dyn FnMut()>;

/// One line of the table.
struct Row {
    name: &'static str,
    /// How many of what one run handles.
    items: (usize, &'static str),
    about: &'static str,
    /// Left out of the table unless all rows are asked for.
    heavy: bool,
    /// Makes the work; the folder is for files that it needs.
    prepare: fn(&Path) -> Work,
}

const fn row(
    name: &'static str,
    items: (usize, &'static str),
    about: &'static str,
    prepare: fn(&Path) -> Work,
) -> Row {
    Row { name, items, about, heavy: false, prepare }
}

const fn heavy(row: Row) -> Row {
    Row { heavy: true, ..row }
}

const ROWS: &[Row] = &[
    row("bert", (8, "sentences"), "BERT-base, 8 x 128 tokens: forward", published::bert),
    row(
        "bert-gradients",
        (8, "sentences"),
        "BERT-base, 8 x 128 tokens: forward and backward",
        published::bert_gradients,
    ),
    row("bert-load", (1, "loads"), "BERT-base from its folder to the first output", load::bert),
    row("vit", (8, "pictures"), "ViT-B/16, 8 pictures: forward", published::vit),
    row(
        "vit-gradients",
        (8, "pictures"),
        "ViT-B/16, 8 pictures: forward and backward",
        published::vit_gradients,
    ),
    row("clip-text", (2, "prompts"), "CLIP ViT-L/14, 2 x 77 tokens: forward", published::clip_text),
    row("caption", (20, "tokens"), "BLIP-base, one caption of 20 tokens", published::caption),
    heavy(row("unet-1", (1, "latents"), "Stable Diffusion 1.5, U-Net, 64 x 64", published::unet_1)),
    heavy(row(
        "unet-2",
        (2, "latents"),
        "Stable Diffusion 1.5, U-Net, two of 64 x 64",
        published::unet_2,
    )),
    heavy(row(
        "vae-decode",
        (1, "pictures"),
        "Stable Diffusion 1.5, autoencoder, 512 x 512 decoded",
        published::vae_decode,
    )),
    row(
        "world-unet-step",
        (world::BATCH, "latents"),
        "bundled U-Net, batch of 32: forward, backward, AdamW",
        world::unet_step,
    ),
    row(
        "world-pictures",
        (world::BATCH, "pictures"),
        "bundled diffusion model, 32 prompts, 8 steps with guidance, decoded",
        world::pictures,
    ),
    row(
        "world-captions",
        (world::BATCH, "captions"),
        "bundled captioner, 32 pictures, sampled",
        world::captions,
    ),
    row(
        "world-student-step",
        (world::BATCH, "pairs"),
        "student of bundled encoders, batch of 32: forward, backward, AdamW",
        world::student_step,
    ),
    row(
        "world-student-frozen-step",
        (world::BATCH, "pairs"),
        "the same with frozen encoders",
        world::student_frozen_step,
    ),
];

/// Measures the models at work.
#[derive(Parser)]
struct Options {
    /// The row to serve; a table of all where none is named.
    row: Option<String>,
    /// Lists the rows.
    #[arg(long)]
    list: bool,
    /// The table with the heavy rows too: 6 GB, minutes.
    #[arg(long)]
    all: bool,
    /// Where files are kept that a row needs; a temporary folder by default.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.list {
        for Row { name, items: (count, unit), about, .. } in ROWS {
            println!("{name}\t{count} {unit}\t{about}");
        }
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let work = options.work.as_deref().unwrap_or(temporary.path());
    match &options.row {
        Some(name) => {
            let row = ROWS.iter().find(|row| row.name == name);
            serve(row.with_context(|| format!("{name}: no such row, see --list"))?, work)
        }
        None => table::print(ROWS.iter().filter(|row| options.all || !row.heavy), work),
    }
}

fn serve(row: &Row, work: &Path) -> anyhow::Result<()> {
    Flex::seed(&Default::default(), 1);
    let mut run = (row.prepare)(work);
    memory::reset_peak();
    for line in io::stdin().lines() {
        if line? != "go" {
            break;
        }
        let begun = Instant::now();
        run();
        println!("{}", json!({ "seconds": begun.elapsed().as_secs_f64() }));
    }
    println!("{}", json!({ "peak_kib": memory::peak().map(|bytes| bytes / 1024) }));
    Ok(())
}
