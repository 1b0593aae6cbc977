//! Published classifiers of sentences (BERT) or pictures (ViT), with the names of their labels.

use std::path::Path;

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use mi2rage_models::bert::BertForSequenceClassification;
use mi2rage_models::precision::Precision;
use mi2rage_models::published::{
    Architecture, KeyError, PublishedError, architecture, bert, load_labels, read_json, vit,
};
use mi2rage_models::vit::ViTForImageClassification;
use serde_json::Value;

use super::embedder::EncoderError;
use super::origin::Origin;
use crate::data::Picture;
use crate::data::published::{Preprocessor, PublishedTokenizer};
use crate::tensors;

/// A classifier with what prepares its input.
pub struct Classifier<B: Backend> {
    model: Model<B>,
    labels: Vec<String>,
    /// Whether each label is a question of its own.
    apart: bool,
    origin: Origin,
    device: B::Device,
}

enum Model<B: Backend> {
    Bert {
        model: Box<BertForSequenceClassification<B>>,
        tokenizer: Box<PublishedTokenizer>,
        limit: usize,
    },
    Vit {
        model: Box<ViTForImageClassification<B>>,
        preprocessor: Preprocessor,
    },
}

impl<B: Backend> Classifier<B> {
    /// Loads the BertForSequenceClassification or ViTForImageClassification in `folder`.
    ///
    /// # Errors
    ///
    /// The folder holds another model, or a file of it is unusable.
    pub fn load(
        folder: &Path,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self, EncoderError> {
        let model = match architecture(folder)? {
            Architecture::BertForSequenceClassification => {
                let tokenizer = PublishedTokenizer::load(folder)?;
                let (config, model) = bert::load_classifier(folder, precision, device)?;
                tokenizer.check_fits(config.vocab_size)?;
                let positions = config.max_position_embeddings;
                let limit = tokenizer.max_length().map_or(positions, |most| most.min(positions));
                Model::Bert { model: Box::new(model), tokenizer: Box::new(tokenizer), limit }
            }
            Architecture::VitForImageClassification => {
                let (config, model) = vit::load_classifier(folder, precision, device)?;
                let preprocessor = Preprocessor::load_for(folder, config.patch_size)?;
                Model::Vit { model: Box::new(model), preprocessor }
            }
            other => {
                return Err(EncoderError::NoClassifier {
                    folder: folder.display().to_string(),
                    architecture: other.name(),
                });
            }
        };
        let labels = load_labels(folder)?;
        let apart = labels.len() == 1 || asks_each_label(folder)?;
        let (origin, device) = (Origin::published(folder, precision), device.clone());
        Ok(Self { model, labels, apart, origin, device })
    }

    /// The names of the labels, in the order of the probabilities.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The probability of each label for a sentence. One that is too long is cut, with a warning.
    ///
    /// # Errors
    ///
    /// The model reads pictures; the tokenizer is unusable; something that is no number comes out.
    pub fn sentence(&self, sentence: &str) -> Result<Vec<f32>, EncoderError> {
        let Model::Bert { model, tokenizer, limit } = &self.model else {
            return Err(self.refuse("sentences"));
        };
        let encoded = tokenizer.encode(sentence, *limit)?;
        if encoded.truncated {
            tracing::warn!("cut to {} tokens: {sentence}", encoded.ids.len());
        }
        let ids: Vec<i32> = encoded.ids.into_iter().map(|id| id as i32).collect();
        self.probabilities(model.forward(tensors::ids(&ids, 1, &self.device), None, None))
    }

    /// The probability of each label for a picture.
    ///
    /// # Errors
    ///
    /// The model reads sentences; something that is no number comes out.
    pub fn picture(&self, picture: &Picture) -> Result<Vec<f32>, EncoderError> {
        let Model::Vit { model, preprocessor } = &self.model else {
            return Err(self.refuse("pictures"));
        };
        let pixels = tensors::preprocessed([picture].into_iter(), preprocessor, &self.device);
        self.probabilities(model.forward(pixels))
    }

    /// As transformers' pipelines have them.
    fn probabilities(&self, logits: Tensor<B, 2>) -> Result<Vec<f32>, EncoderError> {
        let logits = logits.cast(DType::F32);
        self.origin.finite("logits", tensors::to_vec(logits.clone()))?;
        Ok(tensors::to_vec(if self.apart { sigmoid(logits) } else { softmax(logits, 1) }))
    }

    fn refuse(&self, what: &'static str) -> EncoderError {
        let architecture = match &self.model {
            Model::Bert { .. } => Architecture::BertForSequenceClassification,
            Model::Vit { .. } => Architecture::VitForImageClassification,
        };
        EncoderError::Modality {
            folder: self.origin.name(),
            architecture: architecture.name(),
            what,
        }
    }
}

/// Whether the configuration says that several labels may hold at once.
fn asks_each_label(folder: &Path) -> Result<bool, PublishedError> {
    let path = folder.join("config.json");
    let json: Value = read_json(&path)?;
    match json.get("problem_type") {
        None | Some(Value::Null) => Ok(false),
        Some(kind) => match kind.as_str() {
            Some("single_label_classification") => Ok(false),
            Some("multi_label_classification") => Ok(true),
            _ => {
                let source = KeyError::Unsupported {
                    key: "problem_type".to_owned(),
                    value: kind.to_string(),
                    expected: "single_label_classification or multi_label_classification"
                        .to_owned(),
                };
                Err(PublishedError::Config { path, source })
            }
        },
    }
}
