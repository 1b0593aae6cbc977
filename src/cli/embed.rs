//! `mi2rage embed`

use std::path::PathBuf;

use burn::tensor::backend::Backend;
use clap::Args;
use mi2rage_models::precision::Precision;
use serde::Serialize;

use super::InferenceArgs;
use crate::data::{Picture, pictures};
use crate::device::Job;
use crate::exit::UserError;
use crate::generators::{Embedder, EncoderError};
use crate::hub;

/// What to embed, and by which encoder.
#[derive(Debug, Args)]
pub struct Embed {
    /// Sentences.
    #[arg(value_name = "SENTENCE", required_unless_present_any = ["file", "picture"])]
    sentences: Vec<String>,
    /// A file with one sentence a line.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A picture, PNG or JPEG; may be repeated.
    #[arg(long, value_name = "FILE")]
    picture: Vec<PathBuf>,
    /// A BERT, sentence-transformers, CLIP or ViT folder as downloaded from Hugging Face, or
    /// hf:OWNER/NAME@REVISION.
    #[arg(long, value_name = "FOLDER|hf:OWNER/NAME")]
    weights: String,
    #[command(flatten)]
    inference: InferenceArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Of<'a> {
    Text(&'a str),
    Picture(String),
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    of: Of<'a>,
    embedding: &'a [f32],
}

impl Embed {
    /// Prints one JSON object a sentence or picture, in the order given.
    pub fn run(&self) -> anyhow::Result<()> {
        let device = self.inference.settle()?;
        let mut sentences = self.sentences.clone();
        if let Some(file) = &self.file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| UserError(format!("{}: {error}", file.display())))?;
            sentences.extend(text.lines().map(str::to_owned));
        }
        let read = |file: &PathBuf| pictures::decode(file);
        let shown = self.picture.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let ask = Ask {
            folder: hub::resolve(&self.weights)?,
            precision: self.inference.precision,
            sentences: &sentences,
            pictures: &shown,
        };
        let (texts, seen) = device.run(ask)?.map_err(|error| UserError(error.to_string()))?;
        let texts = sentences.iter().map(|text| Of::Text(text)).zip(&texts);
        let seen =
            self.picture.iter().map(|file| Of::Picture(file.display().to_string())).zip(&seen);
        for (of, embedding) in texts.chain(seen) {
            super::print(&(serde_json::to_string(&Line { of, embedding })? + "\n"))?;
        }
        Ok(())
    }
}

struct Ask<'a> {
    folder: PathBuf,
    precision: Precision,
    sentences: &'a [String],
    pictures: &'a [Picture],
}

impl Job for Ask<'_> {
    type Output = Result<(Vec<Vec<f32>>, Vec<Vec<f32>>), EncoderError>;

    fn run<B: Backend>(self, device: B::Device) -> Self::Output {
        let model = Embedder::<B>::load(&self.folder, self.precision, &device)?;
        let sentences = match self.sentences {
            [] => Vec::new(),
            sentences => model.sentences(sentences)?,
        };
        let pictures = match self.pictures {
            [] => Vec::new(),
            pictures => model.pictures(pictures)?,
        };
        Ok((sentences, pictures))
    }
}
