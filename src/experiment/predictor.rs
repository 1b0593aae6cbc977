//! A trained student, read back from its weights file and asked about one example.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::backend::Backend;
use mi2rage_models::fusion::FusionConfig;
use mi2rage_models::weights::{self, WeightsError};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::own_text::OWN;
use crate::bundle::{Bundle, BundleError, TOKENIZER};
use crate::data::published::Preprocessor;
use crate::data::tokens::Tokenizer;
use crate::data::{DataError, Example, Relations};
use crate::generators::published::is_published;
use crate::hub;
use crate::tensors;
use crate::train::tasks::relations::{Pair, PairBatch, RelationTask};

/// Why a file could not be used as a student.
#[derive(Debug, Error)]
pub enum PredictorError {
    /// The file cannot be read, is no weights file, or its weights do not fit its configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file does not say what a student's file says.
    #[error("{path}: no student's weights: {what}; expected a file of a run's students folder")]
    NoStudent {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
    /// The encoders, whose tokenizer the student reads with, are unusable.
    #[error("{path}: its encoders `{encoders}` cannot be used: {source}")]
    Encoders {
        /// The student's file.
        path: PathBuf,
        /// `bundled` or the folder.
        encoders: String,
        /// Why.
        source: Box<BundleError>,
    },
    /// The tokenizer is not the one that the student was trained with.
    #[error(
        "{path}: the tokenizer of the encoders `{encoders}` has {found} entries, the student's \
         has {expected}"
    )]
    OtherTokenizer {
        /// The student's file.
        path: PathBuf,
        /// `bundled` or the folder.
        encoders: String,
        /// The tokenizer's entries.
        found: usize,
        /// What the student has embeddings for.
        expected: usize,
    },
}

/// A student with everything that it reads and answers with.
pub struct Predictor<B: Backend> {
    task: RelationTask<B>,
    tokenizer: Tokenizer,
    relations: Relations,
    max_tokens: usize,
    mask_entities: bool,
    preprocessor: Preprocessor,
}

impl<B: Backend> Predictor<B> {
    /// Reads the weights file of a student. `encoders` (`bundled` or a folder) stands in for the
    /// encoders that the file names, whose tokenizer is used.
    ///
    /// # Errors
    ///
    /// See [`PredictorError`].
    pub fn load(
        path: &Path,
        encoders: Option<&str>,
        device: &B::Device,
    ) -> Result<Self, PredictorError> {
        let bytes = std::fs::read(path)
            .map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
        let origin = path.display().to_string();
        let metadata = weights::metadata_of(&bytes, &origin)?;
        let no_student = |what: String| PredictorError::NoStudent { path: path.to_owned(), what };
        let text = |key: &str| {
            metadata.get(key).ok_or_else(|| no_student(format!("its metadata has no `{key}`")))
        };
        let config: FusionConfig = value("config", text("config")?).map_err(no_student)?;
        let relations: Relations = value("relations", text("relations")?).map_err(no_student)?;
        let max_tokens: usize = value("max_tokens", text("max_tokens")?).map_err(no_student)?;
        // Required: a student that is shown names which it has never seen answers something else.
        let mask_entities: bool =
            value("mask_entities", text("mask_entities")?).map_err(no_student)?;
        let preprocessor: Preprocessor =
            value("preprocessor", text("preprocessor")?).map_err(no_student)?;
        if let Some(problem) = problem(&config, &relations, max_tokens, &preprocessor) {
            return Err(no_student(problem));
        }
        let encoders = encoders.unwrap_or(text("encoders")?);
        let tokenizer = match encoders {
            // The run's own: `RUN/own-text` beside `RUN/seed-N/students/FILE`.
            OWN => path.ancestors().nth(3).map_or_else(
                || Err(DataError::read(path)(std::io::ErrorKind::NotFound.into()).into()),
                |run| Ok(Tokenizer::load(&run.join(OWN).join(TOKENIZER))?),
            ),
            name => open_tokenizer(name),
        };
        let tokenizer = tokenizer.map_err(|source| PredictorError::Encoders {
            path: path.to_owned(),
            encoders: encoders.to_owned(),
            source: Box::new(source),
        })?;
        let (found, expected) = (tokenizer.vocabulary_size(), config.text.vocab_size);
        if found > expected {
            return Err(PredictorError::OtherTokenizer {
                path: path.to_owned(),
                encoders: encoders.to_owned(),
                found,
                expected,
            });
        }
        let model = weights::from_bytes(config.init::<B>(device), &bytes, &origin, device)?;
        let task = RelationTask { model };
        Ok(Self { task, tokenizer, relations, max_tokens, mask_entities, preprocessor })
    }

    /// The labels, in the order of [`probabilities`](Self::probabilities).
    pub fn relations(&self) -> &Relations {
        &self.relations
    }

    /// The probability of each relation. The sentence is masked where the example has no tokens,
    /// the picture where it has none; the example's label is not read.
    ///
    /// # Errors
    ///
    /// The picture cannot be decoded.
    pub fn probabilities(&self, example: &Example) -> Result<Vec<f32>, DataError> {
        let mut text = None;
        if !example.tokens.is_empty() {
            let encoded = if self.mask_entities {
                self.tokenizer.encode_example(&example.with_masked_entities(), self.max_tokens)?
            } else {
                self.tokenizer.encode_example(example, self.max_tokens)?
            };
            if encoded.truncated {
                tracing::warn!(
                    "the sentence has more than {} pieces; what is far from the entities is left \
                     out",
                    self.max_tokens
                );
            }
            text = Some(Arc::new(encoded));
        }
        let mut picture = None;
        if let Some(source) = &example.picture {
            picture = Some(Arc::new(self.preprocessor.see_source(source)?));
        }
        let pair = Pair::new(text, picture, 0);
        let logits = self.task.logits(&PairBatch::new(vec![pair]));
        let rows = tensors::log_probabilities(logits);
        Ok(rows.into_iter().flatten().map(f32::exp).collect())
    }
}

/// The tokenizer of a bundle, or of a published folder.
fn open_tokenizer(name: &str) -> Result<Tokenizer, BundleError> {
    if name != "bundled" {
        let folder = hub::resolve(name).map_err(|error| BundleError::Unfit {
            origin: name.to_owned(),
            what: error.to_string(),
        })?;
        if is_published(&folder) {
            return Ok(Tokenizer::from_published(&folder)?.0);
        }
    }
    Bundle::open(name)?.tokenizer()
}

fn value<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("its metadata's `{key}`: {error}"))
}

/// What does not fit together in a file's metadata.
fn problem(
    config: &FusionConfig,
    relations: &Relations,
    max_tokens: usize,
    preprocessor: &Preprocessor,
) -> Option<String> {
    if let Err(error) = config.check() {
        return Some(format!("its metadata's `config`: {error}"));
    }
    let (labels, names) = (config.num_labels, relations.len());
    let [height, width] = preprocessor.output_size();
    let (positions, patch) = (config.text.max_position_embeddings, config.vision.patch_size);
    if labels != names {
        Some(format!("it has {labels} labels and {names} relations"))
    } else if max_tokens.next_multiple_of(4) > positions {
        // Batches are padded to a multiple of four.
        Some(format!("it reads {max_tokens} tokens and has {positions} positions"))
    } else if !preprocessor.is_sound() {
        Some("its metadata's `preprocessor` gives pictures of no one size".to_owned())
    } else if [height, width].iter().any(|side| !side.is_multiple_of(patch)) {
        Some(format!("its pictures have {width} x {height} pixels, its patches {patch}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_parts_do_not_fit_together_is_no_student() {
        let relations = Relations::new(["a".to_owned(), "b".to_owned()]);
        let config = FusionConfig { num_labels: 3, ..FusionConfig::default() };
        let (positions, side) = (config.text.max_position_embeddings, config.vision.image_size);
        let problem = |labels, tokens, size| {
            let config = FusionConfig { num_labels: labels, ..config.clone() };
            problem(&config, &relations, tokens, &Preprocessor::square(size))
        };
        assert_eq!(problem(3, positions, side), None);
        assert!(problem(4, positions, side).unwrap().contains("4 labels and 3 relations"));
        assert!(problem(3, positions + 1, side).unwrap().contains("positions"));
        assert!(problem(3, positions, side + 1).unwrap().contains("pixels"));
        assert!(problem(3, positions, 0).unwrap().contains("no one size"));
        assert!(problem(0, positions, side).unwrap().contains("config"));
    }
}
