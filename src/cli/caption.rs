//! `mi2rage caption`

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::Args;

use super::{InferenceArgs, Weights, WeightsArgs};
use crate::chain::{ImageToText, Modality, PicturePrompt, SampleKey};
use crate::config::experiment::GeneratorsConfig;
use crate::data::pictures::{Fit, decode, load};
use crate::data::resize::Filter;
use crate::data::{Picture, PictureSource};
use crate::device::Job;
use crate::generators::{CaptionOptions, CaptionWriter, published};
use crate::keyed::Key;
use crate::train::Context;

/// The pictures to describe, and how.
#[derive(Debug, Args)]
pub struct Caption {
    /// The pictures, PNG or JPEG.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A first entity that the sentence must name.
    #[arg(long, value_name = "NAME", requires = "tail")]
    head: Option<String>,
    /// A second entity that the sentence must name.
    #[arg(long, value_name = "NAME", requires = "head")]
    tail: Option<String>,
    /// Draw each word from the likeliest that hold this probability together; 0 takes the likeliest.
    #[arg(long, default_value_t = 0.0, value_parser = super::fraction)]
    top_p: f64,
    /// Keep this many beginnings of a sentence and take the likeliest sentence; 1 keeps one.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "top_p",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    beams: u8,
    /// The most tokens of a sentence, those of given names included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4..=512))]
    max_tokens: Option<u16>,
    /// Above 1 the words are drawn more evenly, below 1 less so.
    #[arg(long, default_value_t = 1.0, value_parser = super::positive)]
    temperature: f64,
    /// Names the draws: the same seed, picture and options give the same sentence.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    inference: InferenceArgs,
}

impl Caption {
    /// Prints one sentence a picture; with several pictures, behind the file's name.
    pub fn run(&self, context: &Context) -> anyhow::Result<()> {
        let device = self.inference.settle()?;
        let weights = self.weights.open()?;
        // All are read before the first is described: a broken one is told at once.
        let read = |file: &PathBuf| match &weights {
            Weights::Bundle(bundle) => {
                let source = PictureSource::File(file.clone());
                Ok(load(&source, bundle.picture_size()?, Fit::Squash, Filter::Bicubic)?)
            }
            Weights::Published(_) => Ok(decode(file)?),
        };
        let pictures = self.files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        let job = Describe { options: self, weights: &weights, pictures, context };
        device.run(job)?
    }
}

struct Describe<'a> {
    options: &'a Caption,
    weights: &'a Weights,
    pictures: Vec<Picture>,
    context: &'a Context,
}

impl Job for Describe<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<()> {
        let options = self.options;
        let decoding = CaptionOptions {
            top_p: options.top_p,
            temperature: options.temperature,
            beams: usize::from(options.beams),
            max_tokens: options
                .max_tokens
                .map_or(GeneratorsConfig::default().caption_tokens, usize::from),
        };
        let precision = options.inference.precision;
        let writer = match self.weights {
            Weights::Bundle(bundle) => {
                CaptionWriter::<B>::load(bundle, decoding, precision, &device)?
            }
            Weights::Published(folder) => {
                let hash = published::hash(folder)?;
                CaptionWriter::load_published(folder, &hash, decoding, precision, &device)?
            }
        };
        for (file, picture) in options.files.iter().zip(self.pictures) {
            if self.context.stop.load(Ordering::Relaxed) {
                bail!("interrupted before {}", file.display());
            }
            // Keyed by the picture, so that a sentence does not depend on the other files.
            let picture_hash = blake3::hash(&picture.rgb).to_hex();
            let key = Key::new(options.seed).with("caption", picture_hash);
            let sentence = match (&options.head, &options.tail) {
                (Some(head), Some(tail)) => {
                    let prompt = PicturePrompt {
                        sample: SampleKey {
                            item: file.display().to_string(),
                            chain: 0,
                            round: 1,
                            modality: Modality::Text,
                        },
                        key,
                        picture: Arc::new(picture),
                        head: head.clone(),
                        tail: tail.clone(),
                    };
                    let captions = writer.caption(&[prompt])?;
                    captions
                        .into_iter()
                        .flat_map(|caption| caption.tokens)
                        .collect::<Vec<_>>()
                        .join(" ")
                }
                _ => writer.describe(&[(&picture, key)])?.concat(),
            };
            let line = match options.files.len() {
                1 => format!("{sentence}\n"),
                _ => format!("{}: {sentence}\n", file.display()),
            };
            super::print(&line)?;
        }
        Ok(())
    }
}
