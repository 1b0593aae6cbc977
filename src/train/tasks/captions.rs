//! Captioning by teacher forcing: each token from the picture and the tokens before it.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use mi2rage_models::bert::EncoderStates;
use mi2rage_models::captioner::Captioner;

use super::learner_steps;
use crate::data::Picture;
use crate::tensors;
use crate::train::Tally;

/// The model in training.
#[derive(Module, Debug)]
pub struct Captions<B: Backend> {
    /// The captioner.
    pub model: Captioner<B>,
    /// Whether the vision encoder keeps its weights.
    pub freeze_vision: bool,
}

/// Pictures with their captions.
#[derive(Clone, Debug)]
pub struct CaptionBatch {
    pictures: Vec<Arc<Picture>>,
    /// `[rows][n]`, all tokens but the last, padded.
    inputs: Vec<i32>,
    /// Flat positions whose next token is to be predicted, and that token.
    counted: Vec<usize>,
    targets: Vec<usize>,
}

impl CaptionBatch {
    /// Captions with their first and last special tokens; nothing is predicted before token
    /// `prompt` of each (at least 1: the first token is always given).
    pub fn new(captions: Vec<(Arc<Picture>, Vec<u32>, usize)>, pad: u32) -> Self {
        let longest = captions.iter().map(|(_, ids, _)| ids.len()).max().unwrap_or(2);
        // No token sees what stands after it, so padding at the end needs no mask.
        let n = (longest - 1).next_multiple_of(4);
        let (mut inputs, mut counted, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (_, ids, prompt)) in captions.iter().enumerate() {
            let shown = &ids[..ids.len() - 1];
            inputs.extend(shown.iter().map(|&id| id as i32));
            inputs.extend(std::iter::repeat_n(pad as i32, n - shown.len()));
            for (at, &id) in ids.iter().enumerate().skip((*prompt).max(1)) {
                counted.push(row * n + at - 1);
                targets.push(id as usize);
            }
        }
        let pictures = captions.into_iter().map(|(picture, ..)| picture).collect();
        Self { pictures, inputs, counted, targets }
    }
}

impl<B: Backend> Captions<B> {
    /// Logits `[counted, vocabulary]` and the loss of each.
    fn predict(&self, batch: &CaptionBatch) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = &self.devices()[0];
        let size = batch.pictures[0].width;
        let pictures = tensors::pictures(batch.pictures.iter().map(Arc::as_ref), size, device);
        let mut hidden = self.model.encode(pictures);
        if self.freeze_vision {
            hidden = hidden.detach();
        }
        let encoder = EncoderStates { hidden, mask: None };
        let ids = tensors::ids(&batch.inputs, batch.pictures.len(), device);
        let decoder = &self.model.text_decoder;
        let states = decoder.bert.decode(ids, None, Some(&encoder), None);
        let [rows, n, width] = states.dims();
        // Only the states that predict something pass the head: it is the largest layer.
        let counted = tensors::indices(batch.counted.iter().copied(), device);
        let logits = decoder.logits(states.reshape([rows * n, width]).select(0, counted));
        let targets = tensors::indices(batch.targets.iter().copied(), device);
        let losses = tensors::negative_log_likelihood(logits.clone(), targets);
        (logits, losses)
    }

    fn loss(&self, batch: &CaptionBatch) -> Tensor<B, 1> {
        self.predict(batch).1.mean()
    }

    fn tally(&self, batch: &CaptionBatch) -> Tally {
        let (logits, losses) = self.predict(batch);
        let count = batch.targets.len() as f64;
        Tally {
            count,
            loss: losses.sum().into_scalar().elem(),
            hits: super::right(logits, &batch.targets),
            predicted: count,
            actual: count,
        }
    }
}

learner_steps!(Captions, CaptionBatch);
