//! What makes one modality from the other.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::folder::FolderError;
use super::plan::SampleKey;
use crate::data::{Entity, Picture};
use crate::keyed::Key;

/// A sentence to draw a picture of.
#[derive(Clone)]
pub struct TextPrompt {
    /// The picture to make.
    pub sample: SampleKey,
    /// Its noise.
    pub key: Key,
    /// The sentence.
    pub tokens: Vec<String>,
    /// The head entity in the sentence.
    pub head: Entity,
    /// The tail entity in the sentence.
    pub tail: Entity,
}

/// A picture to write a sentence about.
#[derive(Clone)]
pub struct PicturePrompt {
    /// The sentence to make.
    pub sample: SampleKey,
    /// Its noise.
    pub key: Key,
    /// The picture.
    pub picture: Arc<Picture>,
    /// The name of the head entity, which the sentence must hold.
    pub head: String,
    /// The name of the tail entity, which the sentence must hold.
    pub tail: String,
}

/// A generated sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caption {
    /// The sentence.
    pub tokens: Vec<String>,
    /// Where the head entity stands; end exclusive, never empty.
    pub head: Range<usize>,
    /// Where the tail entity stands; end exclusive, never empty.
    pub tail: Range<usize>,
}

/// A generator that failed.
#[derive(Debug, Error)]
pub enum GeneratorError {
    /// A folder of pictures did not hold what was asked of it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A model failed.
    #[error("{generator}: {source}")]
    Model {
        /// The generator's name.
        generator: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Draws pictures of sentences.
///
/// Batches of one run all have the same size. A result must depend on its own prompt and key alone,
/// bit for bit, not on its place in the batch or on its neighbours: that makes the chain's outcome
/// independent of order and interruptions.
pub trait TextToImage {
    /// One picture a prompt, in the prompts' order.
    fn draw(&self, prompts: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError>;

    /// A hash of all that the pictures depend on besides the prompts (weights and options).
    fn fingerprint(&self) -> String;
}

/// Writes sentences about pictures; the rules of [`TextToImage`] hold here too.
pub trait ImageToText {
    /// One sentence a prompt, in the prompts' order, holding both names at the spans it gives.
    fn caption(&self, prompts: &[PicturePrompt]) -> Result<Vec<Caption>, GeneratorError>;

    /// A hash of all that the sentences depend on besides the prompts (weights and options).
    fn fingerprint(&self) -> String;
}
