//! `mi2rage sample`

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::Args;
use mi2rage_models::diffusion::SamplerKind;

use super::{DeviceArgs, WeightsArgs};
use crate::bundle::{Bundle, DIFFUSION};
use crate::data::{DataError, Picture, pictures};
use crate::device::Job;
use crate::exit::UserError;
use crate::generators::{DrawOptions, LatentDiffusion, known_words};
use crate::keyed::Key;
use crate::train::Context;

/// Pictures a batch. The last batch is filled up, so that a picture does not depend on how many
/// are asked for.
const BATCH: usize = 8;
/// Pictures side by side on a sheet, before the next row begins.
const COLUMNS: usize = 8;
/// Pixels between the pictures of a sheet.
const GAP: usize = 2;

/// What to draw, and how.
#[derive(Debug, Args)]
pub struct Sample {
    /// What the pictures should show.
    prompt: String,
    /// How many pictures.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Names the noise: the same seed, prompt and options give the same pictures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of the sampler.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// The scale of classifier-free guidance; 1 is none.
    #[arg(long, default_value_t = 3.0, value_parser = super::finite)]
    guidance: f64,
    /// ddpm, ddim, dpmpp_2m, euler or pndm.
    #[arg(long, default_value = "dpmpp_2m")]
    sampler: SamplerKind,
    /// What the pictures should not show.
    #[arg(long, value_name = "PROMPT", default_value = "")]
    negative: String,
    /// The file to write; several pictures become NAME-0.png, NAME-1.png and so on.
    #[arg(short, long, value_name = "NAME.png", default_value = "out.png")]
    out: PathBuf,
    /// Write several pictures side by side into one file.
    #[arg(long)]
    sheet: bool,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Sample {
    /// Draws, writes the files and prints their names.
    pub fn run(&self, context: &Context) -> anyhow::Result<()> {
        let png =
            |name: &Path| name.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("png"));
        if !png(&self.out) {
            let message =
                format!("--out {}: expected a name that ends in .png", self.out.display());
            return Err(UserError(message).into());
        }
        let bundle = self.weights.open()?;
        self.device.settle()?.run(Draw { options: self, bundle: &bundle, context })?
    }

    fn file(&self, index: usize) -> PathBuf {
        if self.count == 1 {
            return self.out.clone();
        }
        let stem = self.out.file_stem().unwrap_or_default().to_string_lossy();
        self.out.with_file_name(format!("{stem}-{index}.png"))
    }

    /// Writes a picture with what made it, and prints the file's name.
    fn write(&self, file: &Path, picture: &Picture, of: &str, weights: &str) -> anyhow::Result<()> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|source| DataError::Write { path: folder.to_owned(), source })?;
        }
        let texts = [
            ("prompt", self.prompt.clone()),
            ("negative", self.negative.clone()),
            ("seed", self.seed.to_string()),
            ("index", of.to_owned()),
            ("sampler", self.sampler.name().to_owned()),
            ("steps", self.steps.to_string()),
            ("guidance", self.guidance.to_string()),
            ("weights", weights.to_owned()),
        ];
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(key, value)| (*key, value.as_str())).collect();
        pictures::save_png(file, picture, &texts)?;
        super::print(&format!("{}\n", file.display()))
    }
}

struct Draw<'a> {
    options: &'a Sample,
    bundle: &'a Bundle,
    context: &'a Context,
}

impl Job for Draw<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self { options, bundle, context } = self;
        let split =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let prompt = split(&options.prompt);
        if !prompt.is_empty() && known_words(&bundle.tokenizer()?, &prompt)?.is_empty() {
            context.progress.line("note: the model knows none of the prompt's words");
        }
        let draw = DrawOptions {
            sampler: options.sampler,
            steps: options.steps,
            guidance: options.guidance,
            negative: split(&options.negative),
        };
        let model = LatentDiffusion::<B>::load(bundle, draw, bundle.picture_size()?, &device)?;
        let weights = bundle.hash(DIFFUSION);
        let count = options.count as usize;
        let task = context.progress.task("drawing", u64::from(options.count), "pictures");
        let mut sheet = Vec::new();
        for start in (0..count).step_by(BATCH) {
            if context.stop.load(Ordering::Relaxed) {
                bail!("interrupted after {start} of {count} pictures");
            }
            let key = |index: usize| Key::new(options.seed).with("sample", index);
            let prompts: Vec<(&[String], Key)> =
                (start..start + BATCH).map(|index| (prompt.as_slice(), key(index))).collect();
            let drawn = model.sample(&prompts)?;
            for (index, picture) in (start..count).zip(drawn) {
                if options.sheet {
                    sheet.push(picture);
                } else {
                    let file = options.file(index);
                    options.write(&file, &picture, &index.to_string(), &weights)?;
                }
                task.advance(1);
            }
        }
        task.finish();
        if options.sheet {
            let of = format!("0 to {}", count - 1);
            options.write(&options.out, &side_by_side(&sheet), &of, &weights)?;
        }
        Ok(())
    }
}

/// Pictures of one size in rows, on black.
fn side_by_side(pictures: &[Picture]) -> Picture {
    let (w, h) = pictures.first().map_or((0, 0), |picture| (picture.width, picture.height));
    let columns = pictures.len().min(COLUMNS);
    let rows = pictures.len().div_ceil(COLUMNS);
    let length = |count: usize, size: usize| (count * (size + GAP)).saturating_sub(GAP);
    let (width, height) = (length(columns, w), length(rows, h));
    let mut rgb = vec![0; 3 * width * height];
    for (index, picture) in pictures.iter().enumerate() {
        let (left, top) = (index % COLUMNS * (w + GAP), index / COLUMNS * (h + GAP));
        for y in 0..h {
            let to = 3 * ((top + y) * width + left);
            rgb[to..to + 3 * w].copy_from_slice(&picture.rgb[3 * y * w..3 * (y + 1) * w]);
        }
    }
    Picture { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_holds_every_picture_at_its_place() {
        let picture = |value: u8| Picture { width: 2, height: 1, rgb: vec![value; 6] };
        let sheet = side_by_side(&(1..=9).map(picture).collect::<Vec<_>>());
        assert_eq!((sheet.width, sheet.height), (8 * 4 - 2, 2 + GAP));
        assert_eq!(sheet.rgb[..15], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 2]);
        let second_row = 3 * 3 * sheet.width;
        assert_eq!(sheet.rgb[second_row..second_row + 7], [9, 9, 9, 9, 9, 9, 0]);
        let one = side_by_side(&[picture(5)]);
        assert_eq!((one.width, one.height, one.rgb), (2, 1, vec![5; 6]));
    }
}
