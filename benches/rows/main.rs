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

mod diffusion;
mod load;
mod machine;
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
use mi2rage::device::{DeviceChoice, Job};
use mi2rage::memory;
use mi2rage_models::precision::{Precision, in_mixed_precision};
use serde_json::json;

/// What a row does each time; its model and inputs are inside.
type Work = Box<dyn FnMut()>;

/// What a row is prepared for.
struct Setting<'a, B: Backend> {
    device: B::Device,
    /// Of weights and states where nothing is learnt; what learns does so in mixed precision unless it is 32 bits.
    precision: Precision,
    /// For files that a row needs.
    folder: &'a Path,
}

/// Computes what is learnt, with weights in 32 bits.
fn learn<T>(precision: Precision, f: impl FnOnce() -> T) -> T {
    if precision == Precision::F32 { f() } else { in_mixed_precision(f) }
}

/// One line of the table.
struct Row<B: Backend> {
    name: &'static str,
    /// How many of what one run handles.
    items: (usize, &'static str),
    about: &'static str,
    /// Left out of the table unless all rows are asked for.
    heavy: bool,
    prepare: fn(&Setting<'_, B>) -> Work,
}

fn rows<B: Backend>() -> Vec<Row<B>> {
    let row = |name, items, about, prepare| Row { name, items, about, heavy: false, prepare };
    let heavy = |name, items, about, prepare| Row { name, items, about, heavy: true, prepare };
    vec![
        row(
            "machine-operations",
            (machine::OPERATIONS, "GFLOP"),
            "multiply-adds of 32 bits in registers: the most that any row can reach",
            machine::operations,
        ),
        row("machine-memory", (machine::BYTES, "MiB"), "memory read once", machine::memory),
        row("bert", (8, "sentences"), "BERT-base, 8 x 128 tokens: forward", published::bert),
        row(
            "bert-gradients",
            (8, "sentences"),
            "BERT-base, 8 x 128 tokens: forward and backward",
            published::bert_gradients,
        ),
        heavy(
            "bert-training",
            (32, "sentences"),
            "BERT-base, 32 x 128 tokens: forward, backward, AdamW",
            published::bert_training,
        ),
        row("bert-load", (1, "loads"), "BERT-base from its folder to the first output", load::bert),
        row("vit", (8, "pictures"), "ViT-B/16, 8 pictures: forward", published::vit),
        row(
            "vit-gradients",
            (8, "pictures"),
            "ViT-B/16, 8 pictures: forward and backward",
            published::vit_gradients,
        ),
        heavy(
            "vit-training",
            (32, "pictures"),
            "ViT-B/16, 32 pictures: forward, backward, AdamW",
            published::vit_training,
        ),
        row(
            "clip-text",
            (2, "prompts"),
            "CLIP ViT-L/14, 2 x 77 tokens: forward",
            published::clip_text,
        ),
        row("caption", (20, "tokens"), "BLIP-base, one caption of 20 tokens", published::caption),
        heavy("unet-1", (1, "latents"), "Stable Diffusion 1.5, U-Net, 64 x 64", diffusion::unet_1),
        heavy(
            "unet-2",
            (2, "latents"),
            "Stable Diffusion 1.5, U-Net, two of 64 x 64",
            diffusion::unet_2,
        ),
        heavy(
            "unet-16",
            (16, "latents"),
            "Stable Diffusion 1.5, U-Net, 16 of 64 x 64",
            diffusion::unet_16,
        ),
        heavy(
            "vae-decode",
            (1, "pictures"),
            "Stable Diffusion 1.5, autoencoder, 512 x 512 decoded",
            diffusion::vae_decode,
        ),
        heavy(
            "pictures-1",
            (1, "pictures"),
            "Stable Diffusion 1.5, one of 512 x 512, 20 DPM-Solver++ steps with guidance",
            diffusion::pictures_1,
        ),
        heavy("pictures-8", (8, "pictures"), "the same, 8 at once", diffusion::pictures_8),
        heavy("pictures-16", (16, "pictures"), "the same, 16 at once", diffusion::pictures_16),
        heavy(
            "product",
            (diffusion::PRODUCTS, "products"),
            "matrices of 4096 x 4096, one product after another",
            diffusion::product,
        ),
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
    ]
}

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
    /// flex, ndarray, cuda or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Flex)]
    device: DeviceChoice,
    /// f32, f16 or bf16, of what does not learn.
    #[arg(long, default_value_t)]
    precision: Precision,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    memory::keep_freed();
    let options = Options::parse();
    if options.list {
        for Row { name, items: (count, unit), about, .. } in rows::<Flex>() {
            println!("{name}\t{count} {unit}\t{about}");
        }
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let folder = options.work.as_deref().unwrap_or(temporary.path());
    let (device, precision) = (options.device, options.precision);
    device.check(precision)?;
    match &options.row {
        Some(name) => device.run(Serve { name, precision, folder })?,
        None => {
            let rows = rows::<Flex>().into_iter().filter(|row| options.all || !row.heavy);
            table::print(rows, &[device.to_string(), precision.to_string()], folder)
        }
    }
}

struct Serve<'a> {
    name: &'a str,
    precision: Precision,
    folder: &'a Path,
}

impl Job for Serve<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self { name, precision, folder } = self;
        let row = rows::<B>().into_iter().find(|row| row.name == name);
        let row = row.with_context(|| format!("{name}: no such row, see --list"))?;
        B::seed(&device, 1);
        let setting = Setting::<B> { device, precision, folder };
        let mut run = (row.prepare)(&setting);
        memory::reset_peak();
        for line in io::stdin().lines() {
            if line? != "go" {
                break;
            }
            let begun = Instant::now();
            run();
            // A card may still be at work.
            B::sync(&setting.device)?;
            println!("{}", json!({ "seconds": begun.elapsed().as_secs_f64() }));
        }
        println!("{}", json!({ "peak_kib": memory::peak().map(|bytes| bytes / 1024) }));
        Ok(())
    }
}
