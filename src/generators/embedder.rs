//! Published encoders as makers of embeddings: one vector a sentence or picture.

use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use mi2rage_models::bert::Bert;
use mi2rage_models::clip::{ClipModel, unit_rows};
use mi2rage_models::precision::Precision;
use mi2rage_models::published::{Architecture, PublishedError, architecture, bert, clip, vit};
use mi2rage_models::vit::Vit;
use thiserror::Error;

use super::origin::Origin;
use crate::data::published::{Pooling, Preprocessor, PublishedTokenizer, SentencePooling};
use crate::data::{DataError, Picture};
use crate::tensors;

/// Sentences or pictures a batch.
const BATCH: usize = 16;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum EncoderError {
    /// The weights or their configuration are unusable.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// The tokenizer, the preprocessor or the pooling is.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The folder holds a model without a classifier.
    #[error(
        "{folder}: a {architecture}, expected a BertForSequenceClassification or \
         ViTForImageClassification"
    )]
    NoClassifier {
        /// The folder.
        folder: String,
        /// Its model.
        architecture: &'static str,
    },
    /// The model does not read what it was asked about.
    #[error("{folder}: a {architecture} does not read {what}")]
    Modality {
        /// The folder.
        folder: String,
        /// Its model.
        architecture: &'static str,
        /// Sentences or pictures, or both.
        what: &'static str,
    },
}

/// A published encoder with what prepares its input and pools its output.
pub struct Embedder<B: Backend> {
    model: Encoder<B>,
    origin: Origin,
    device: B::Device,
}

enum Encoder<B: Backend> {
    Bert {
        model: Box<Bert<B>>,
        tokenizer: Box<PublishedTokenizer>,
        pooling: SentencePooling,
        limit: usize,
    },
    Clip {
        model: Box<ClipModel<B>>,
        tokenizer: Box<PublishedTokenizer>,
        preprocessor: Preprocessor,
        length: usize,
    },
    Vit {
        model: Box<Vit<B>>,
        preprocessor: Preprocessor,
    },
}

impl<B: Backend> Embedder<B> {
    /// Loads the BERT, CLIP or ViT in `folder`. A BERT is pooled as the folder says
    /// (sentence-transformers), else by the mean over its tokens.
    ///
    /// # Errors
    ///
    /// The folder holds another model, or a file of it is unusable.
    pub fn load(
        folder: &Path,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self, EncoderError> {
        use Architecture as A;
        let kind = architecture(folder)?;
        let model = match kind {
            A::Bert | A::BertForMaskedLm | A::BertForSequenceClassification => {
                let tokenizer = PublishedTokenizer::load(folder)?;
                let pooling = SentencePooling::load(folder)?.unwrap_or(SentencePooling {
                    pooling: Pooling::Mean,
                    normalise: false,
                    max_length: None,
                });
                let (config, model) = bert::load_encoder(folder, precision, device)?;
                tokenizer.check_fits(config.vocab_size)?;
                let limits = [pooling.max_length, tokenizer.max_length()];
                let limit =
                    limits.into_iter().flatten().fold(config.max_position_embeddings, usize::min);
                Encoder::Bert {
                    model: Box::new(model),
                    tokenizer: Box::new(tokenizer),
                    pooling,
                    limit,
                }
            }
            A::Clip => {
                let tokenizer = PublishedTokenizer::load(folder)?;
                let (config, model) = clip::load_model(folder, precision, device)?;
                tokenizer.check_fits(config.text_config.vocab_size)?;
                let preprocessor = Preprocessor::load_for(folder, config.vision_config.patch_size)?;
                let length = config.text_config.max_position_embeddings;
                Encoder::Clip {
                    model: Box::new(model),
                    tokenizer: Box::new(tokenizer),
                    preprocessor,
                    length,
                }
            }
            A::Vit | A::VitForImageClassification => {
                let (config, model) = vit::load_encoder(folder, precision, device)?;
                let preprocessor = Preprocessor::load_for(folder, config.patch_size)?;
                Encoder::Vit { model: Box::new(model), preprocessor }
            }
            other => {
                return Err(EncoderError::Modality {
                    folder: folder.display().to_string(),
                    architecture: other.name(),
                    what: "sentences or pictures",
                });
            }
        };
        Ok(Self { model, origin: Origin::published(folder, precision), device: device.clone() })
    }

    /// One embedding a sentence: pooled states (BERT), or the projection, of length 1 (CLIP).
    /// Sentences that are too long are cut, with a warning.
    ///
    /// # Errors
    ///
    /// The model reads pictures alone; the tokenizer is unusable; something that is no number comes out.
    pub fn sentences(&self, sentences: &[String]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let mut embeddings = vec![Vec::new(); sentences.len()];
        let mut encoded = Vec::with_capacity(sentences.len());
        for (index, sentence) in sentences.iter().enumerate() {
            let one = match &self.model {
                Encoder::Bert { tokenizer, limit, .. } => tokenizer.encode(sentence, *limit)?,
                Encoder::Clip { tokenizer, length, .. } => {
                    tokenizer.encode_padded(sentence, *length)?
                }
                Encoder::Vit { .. } => return Err(self.refuse("sentences")),
            };
            if one.truncated {
                tracing::warn!("cut to {} tokens: {sentence}", one.ids.len());
            }
            encoded.push((index, one.ids));
        }
        // Sentences of one length side by side need no padding.
        encoded.sort_by_key(|(_, ids)| ids.len());
        for batch in encoded.chunks(BATCH) {
            let rows = match &self.model {
                Encoder::Bert { model, tokenizer, pooling, .. } => {
                    self.pooled(model, batch, tokenizer.special().pad, pooling)
                }
                Encoder::Clip { model, .. } => {
                    let ids: Vec<i32> =
                        batch.iter().flat_map(|(_, ids)| ids.iter().map(|&id| id as i32)).collect();
                    model.text_features(tensors::ids(&ids, batch.len(), &self.device))
                }
                Encoder::Vit { .. } => return Err(self.refuse("sentences")),
            };
            let [_, width] = rows.dims();
            let values = self.origin.finite("embeddings", tensors::to_vec(rows))?;
            for ((index, _), row) in batch.iter().zip(values.chunks_exact(width)) {
                embeddings[*index] = row.to_vec();
            }
        }
        Ok(embeddings)
    }

    fn pooled(
        &self,
        model: &Bert<B>,
        batch: &[(usize, Vec<u32>)],
        pad: u32,
        pooling: &SentencePooling,
    ) -> Tensor<B, 2> {
        let length = batch.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0);
        let at = |row: &[u32], at: usize| row.get(at).copied().unwrap_or(pad) as i32;
        let ids: Vec<i32> =
            batch.iter().flat_map(|(_, ids)| (0..length).map(|place| at(ids, place))).collect();
        let seen: Vec<bool> =
            batch.iter().flat_map(|(_, ids)| (0..length).map(|place| place < ids.len())).collect();
        let rows = batch.len();
        let ids = tensors::ids(&ids, rows, &self.device);
        let hidden = model.forward(ids, None, tensors::mask(&seen, rows, &self.device));
        let hidden = hidden.cast(DType::F32);
        let [_, _, width] = hidden.dims();
        let pooled = match pooling.pooling {
            Pooling::Cls => hidden.narrow(1, 0, 1).reshape([rows, width]),
            Pooling::Mean => {
                let share: Vec<f32> = batch
                    .iter()
                    .flat_map(|(_, ids)| {
                        let share = 1.0 / ids.len() as f32;
                        (0..length).map(move |place| if place < ids.len() { share } else { 0.0 })
                    })
                    .collect();
                let share = TensorData::new(share, [rows, 1, length]);
                let share = Tensor::<B, 3>::from_data(share, (&self.device, DType::F32));
                share.matmul(hidden).reshape([rows, width])
            }
        };
        if pooling.normalise { unit_rows(pooled) } else { pooled }
    }

    /// One embedding a picture: the pooled state (ViT), or the projection, of length 1 (CLIP).
    ///
    /// # Errors
    ///
    /// The model reads sentences alone; something that is no number comes out.
    pub fn pictures(&self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let mut embeddings = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(BATCH) {
            let rows = match &self.model {
                Encoder::Clip { model, preprocessor, .. } => {
                    let pixels = tensors::preprocessed(batch.iter(), preprocessor, &self.device);
                    model.image_features(pixels)
                }
                Encoder::Vit { model, preprocessor } => {
                    let pixels = tensors::preprocessed(batch.iter(), preprocessor, &self.device);
                    model.pool(model.forward(pixels))
                }
                Encoder::Bert { .. } => return Err(self.refuse("pictures")),
            };
            let [_, width] = rows.dims();
            let values = self.origin.finite("embeddings", tensors::to_vec(rows))?;
            embeddings.extend(values.chunks_exact(width).map(<[f32]>::to_vec));
        }
        Ok(embeddings)
    }

    fn refuse(&self, what: &'static str) -> EncoderError {
        let architecture = match &self.model {
            Encoder::Bert { .. } => "BERT",
            Encoder::Clip { .. } => "CLIP",
            Encoder::Vit { .. } => "ViT",
        };
        EncoderError::Modality { folder: self.origin.name(), architecture, what }
    }
}
