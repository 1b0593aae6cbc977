//! What every stage works on: examples of relations, their entities and pictures.

pub mod audit;
pub mod imagefolder;
pub mod jsonl;
pub mod mnre;
pub mod picture_folder;
pub mod pictures;
pub mod published;
pub mod python_literal;
pub mod resize;
pub mod tokens;

mod error;
mod row;
mod split;
mod vocabulary;
pub mod words;

pub use error::DataError;
pub use mi2rage_pictures::Picture;
pub use split::Split;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A named entity and where its tokens stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// The entity's name as written.
    pub name: String,
    /// Token offsets into the sentence, end exclusive; never empty.
    pub span: Range<usize>,
}

/// Where an example's picture is.
#[derive(Clone, Debug, PartialEq)]
pub enum PictureSource {
    /// An image file, decoded when needed.
    File(PathBuf),
    /// Pixels in memory.
    Pixels(Arc<Picture>),
}

/// What the embedded world knows of a post and a model must not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// The relation that the sentence names, if any (a relation's index; never 0).
    pub text_cue: Option<usize>,
    /// The relation that the picture shows, if any (a relation's index; never 0).
    pub picture_cue: Option<usize>,
    /// The visual form that the picture shows, cue or neutral.
    pub form: usize,
    /// The pair of entity types, as the world numbers them.
    pub type_pair: usize,
}

/// A sentence with two entities, its relation and perhaps a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Unique within a dataset.
    pub id: String,
    /// The sentence, split as the dataset splits it.
    pub tokens: Vec<String>,
    /// The head entity.
    pub head: Entity,
    /// The tail entity.
    pub tail: Entity,
    /// Index into [`Relations`]; 0 is `None`.
    pub label: usize,
    /// The picture posted with the sentence.
    pub picture: Option<PictureSource>,
    /// Only for posts of the embedded world.
    pub truth: Option<Truth>,
}

impl Example {
    /// The sentence with a bare letter for each token of its entities (entity masking, Zhang et al.
    /// 2017): who reads it cannot learn the names by heart.
    pub fn with_masked_entities(&self) -> Self {
        let mut masked = self.clone();
        for span in [&self.head.span, &self.tail.span] {
            masked.tokens[span.clone()].fill("x".to_owned());
        }
        masked
    }
}

/// The label set. Index 0 is always `None`, the absence of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relations(Vec<String>);

impl Relations {
    /// The label set with these names beside `None`, in this order.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut all = vec!["None".to_owned()];
        all.extend(names.into_iter().filter(|name| name != "None"));
        Self(all)
    }

    /// Every name, `None` first.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// How many labels there are, `None` included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: `None` is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The index of a name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }
}
