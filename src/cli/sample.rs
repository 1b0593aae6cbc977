//! `mi2rage sample`

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::Args;
use mi2rage_models::diffusion::SamplerKind;
use mi2rage_models::published::Archive;

use super::{InferenceArgs, Weights, WeightsArgs};
use crate::bundle::DIFFUSION;
use crate::data::pictures::{self, Fit};
use crate::data::resize::Filter;
use crate::data::{DataError, Picture};
use crate::device::Job;
use crate::exit::UserError;
use crate::generators::{DrawOptions, LatentDiffusion, Start, known_words, published};
use crate::keyed::Key;
use crate::train::Context;

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
    /// Steps of the sampler [default: 10; 50 with published weights].
    #[arg(long)]
    steps: Option<usize>,
    /// The scale of classifier-free guidance; 1 is none [default: 3; 7.5 with published weights].
    #[arg(long, value_parser = super::finite)]
    guidance: Option<f64>,
    /// ddpm, ddim, dpmpp_2m, euler or pndm [default: dpmpp_2m; that of the published weights].
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// What the pictures should not show.
    #[arg(long, value_name = "PROMPT", default_value = "")]
    negative: String,
    /// The file to write; several pictures become NAME-0.png, NAME-1.png and so on.
    #[arg(short, long, value_name = "NAME.png", default_value = "out.png")]
    out: PathBuf,
    /// Write several pictures side by side into one file.
    #[arg(long)]
    sheet: bool,
    /// Width and height in pixels, for published weights [default: that of their training].
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Pictures that are drawn at once [default: 8; 1 with published weights].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: Option<u32>,
    /// Begin with the tensor `latents` [N, channels, height, width] of this file, standard normal
    /// numbers, in place of noise of the seed: for comparison with other programs.
    #[arg(long, value_name = "FILE.safetensors")]
    latents: Option<PathBuf>,
    /// Begin with this picture, its largest centred square in the size of the output, and noise. Of the
    /// picture's latents the mean is taken, where diffusers draws from their distribution.
    #[arg(long, value_name = "FILE", requires = "strength")]
    image: Option<PathBuf>,
    /// How much of the picture is drawn anew, above 0, at most 1.
    #[arg(long, requires = "image", value_parser = super::fraction)]
    strength: Option<f64>,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    inference: InferenceArgs,
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
        let device = self.inference.settle()?;
        let weights = self.weights.open()?;
        if let (Weights::Bundle(_), Some(_)) = (&weights, self.size) {
            return Err(UserError("--size: the bundled model draws in one size".to_owned()).into());
        }
        let sampler = match (&weights, self.sampler) {
            (_, Some(sampler)) => sampler,
            (Weights::Bundle(_), None) => SamplerKind::DpmSolverPlusPlus2M,
            (Weights::Published(folder), None) => published::scheduler(folder)?.sampler,
        };
        let bundled = matches!(weights, Weights::Bundle(_));
        let options = DrawOptions {
            sampler,
            steps: self.steps.unwrap_or(if bundled { 10 } else { 50 }),
            guidance: self.guidance.unwrap_or(if bundled { 3.0 } else { 7.5 }),
            negative: split(&self.negative),
        };
        let latents = self.latents.as_deref().map(read_latents).transpose()?;
        let image = self.image.as_deref().map(pictures::decode).transpose()?;
        let batch = self.batch.unwrap_or(if bundled { 8 } else { 1 }) as usize;
        let draw = Draw { arguments: self, weights, options, latents, image, batch, context };
        device.run(draw)?
    }

    fn file(&self, index: usize) -> PathBuf {
        if self.count == 1 {
            return self.out.clone();
        }
        let stem = self.out.file_stem().unwrap_or_default().to_string_lossy();
        self.out.with_file_name(format!("{stem}-{index}.png"))
    }
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The numbers of the tensor `latents`, and its shape.
fn read_latents(path: &Path) -> Result<(Vec<f32>, Vec<usize>), UserError> {
    let wrong = |what: &dyn std::fmt::Display| UserError(format!("{}: {what}", path.display()));
    let archive = Archive::open(path).map_err(|error| UserError(error.to_string()))?;
    let shape = archive.entries().get("latents").map(|entry| entry.shape.clone());
    let shape = shape.filter(|shape| shape.len() == 4).ok_or_else(|| {
        wrong(&"expected a tensor `latents` of shape [count, channels, height, width]")
    })?;
    let numbers = archive.check_numbers().and_then(|()| archive.numbers("latents"));
    let numbers = numbers.map_err(|error| UserError(error.to_string()))?;
    Ok((numbers, shape))
}

struct Draw<'a> {
    arguments: &'a Sample,
    weights: Weights,
    options: DrawOptions,
    /// Numbers and shape.
    latents: Option<(Vec<f32>, Vec<usize>)>,
    image: Option<Picture>,
    /// Pictures a batch. The last batch is filled up, so that a picture does not depend on how many
    /// are asked for.
    batch: usize,
    context: &'a Context,
}

impl Job for Draw<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self { arguments, context, .. } = self;
        let prompt = split(&arguments.prompt);
        let (model, weights) = self.load::<B>(&prompt, &device)?;
        let count = arguments.count as usize;
        if let Some((_, shape)) = &self.latents {
            let [channels, height, width] = model.latent_shape();
            let expected = [count, channels, height, width];
            if shape[..] != expected {
                let message = format!("--latents: {shape:?}, expected {expected:?}");
                return Err(UserError(message).into());
            }
        }
        let image = self
            .image
            .as_ref()
            .map(|image| pictures::square(image, model.size(), Fit::Crop, Filter::Bicubic));
        let task = context.progress.task("drawing", u64::from(arguments.count), "pictures");
        let mut sheet = Vec::new();
        for first in (0..count).step_by(self.batch) {
            if context.stop.load(Ordering::Relaxed) {
                bail!("interrupted after {first} of {count} pictures");
            }
            let key = |index: usize| Key::new(arguments.seed).with("sample", index);
            let rows = first..first + self.batch;
            let prompts: Vec<(&[String], Key)> =
                rows.clone().map(|index| (prompt.as_slice(), key(index))).collect();
            let given = self.latents.as_ref().map(|(numbers, _)| {
                let each = numbers.len() / count;
                // What fills the last batch up is not looked at.
                let row = |index: usize| &numbers[index % count * each..][..each];
                rows.flat_map(row).copied().collect::<Vec<f32>>()
            });
            let start = Start {
                latents: given.as_deref(),
                picture: image.as_ref().zip(arguments.strength),
            };
            let drawn = model.sample_from(&prompts, start)?;
            for (index, picture) in (first..count).zip(drawn) {
                if arguments.sheet {
                    sheet.push(picture);
                } else {
                    let file = arguments.file(index);
                    self.write(&file, &picture, &index.to_string(), &weights)?;
                }
                task.advance(1);
            }
        }
        task.finish();
        if arguments.sheet {
            let of = format!("0 to {}", count - 1);
            self.write(&arguments.out, &side_by_side(&sheet), &of, &weights)?;
        }
        Ok(())
    }
}

impl Draw<'_> {
    /// The model, and the hash of its weights.
    fn load<B: Backend>(
        &self,
        prompt: &[String],
        device: &B::Device,
    ) -> anyhow::Result<(LatentDiffusion<B>, String)> {
        let options = self.options.clone();
        let precision = self.arguments.inference.precision;
        match &self.weights {
            Weights::Bundle(bundle) => {
                if !prompt.is_empty() && known_words(&bundle.tokenizer()?, prompt)?.is_empty() {
                    let note = "note: the model knows none of the prompt's words";
                    self.context.progress.line(note);
                }
                let size = bundle.picture_size()?;
                let model = LatentDiffusion::load(bundle, options, size, precision, device)?;
                Ok((model, bundle.hash(DIFFUSION)))
            }
            Weights::Published(folder) => {
                let hash = published::hash(folder)?;
                let model = LatentDiffusion::load_published(
                    folder,
                    &hash,
                    options,
                    self.arguments.size,
                    precision,
                    device,
                )?;
                Ok((model, hash))
            }
        }
    }

    /// Writes a picture with what made it, and prints the file's name.
    fn write(&self, file: &Path, picture: &Picture, of: &str, weights: &str) -> anyhow::Result<()> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|source| DataError::Write { path: folder.to_owned(), source })?;
        }
        let Sample { prompt, negative, seed, strength, latents, image, inference, .. } =
            self.arguments;
        let name = |path: &Path| path.display().to_string();
        let mut texts = vec![
            ("prompt", prompt.clone()),
            ("negative", negative.clone()),
            ("seed", seed.to_string()),
            ("index", of.to_owned()),
            ("sampler", self.options.sampler.name().to_owned()),
            ("steps", self.options.steps.to_string()),
            ("guidance", self.options.guidance.to_string()),
            ("precision", inference.precision.to_string()),
            ("weights", weights.to_owned()),
        ];
        texts.extend(latents.as_deref().map(|path| ("latents", name(path))));
        texts.extend(image.as_deref().map(|path| ("image", name(path))));
        texts.extend(strength.map(|strength| ("strength", strength.to_string())));
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(key, value)| (*key, value.as_str())).collect();
        pictures::save_png(file, picture, &texts)?;
        super::print(&format!("{}\n", file.display()))
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
