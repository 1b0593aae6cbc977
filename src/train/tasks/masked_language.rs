//! Masked language modelling (Devlin et al. 2018, section 3.1).

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use mi2rage_models::bert::BertForMaskedLm;
use rand::Rng;

use super::learner_steps;
use crate::data::tokens::Padded;
use crate::keyed::Key;
use crate::tensors;
use crate::train::Tally;

/// Fraction of the tokens that are to be predicted.
const CHOSEN: f64 = 0.15;
/// Of the chosen: shown as `[MASK]`, and (after these) shown as a random token.
const MASKED: f64 = 0.8;
const REPLACED: f64 = 0.1;

/// The model in training.
#[derive(Module, Debug)]
pub struct MaskedLanguage<B: Backend> {
    /// The encoder with its head.
    pub model: BertForMaskedLm<B>,
}

/// Sentences with holes.
#[derive(Clone, Debug)]
pub struct MaskedBatch {
    rows: usize,
    ids: Vec<i32>,
    mask: Vec<bool>,
    /// Flat positions of the chosen tokens, and what stood there.
    chosen: Vec<usize>,
    targets: Vec<usize>,
}

/// What masking needs to know of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary {
    /// Number of ids.
    pub size: u32,
    /// Ids below this are special: never chosen, never put in.
    pub first_ordinary: u32,
    /// The id of `[MASK]`.
    pub mask: u32,
}

impl MaskedBatch {
    /// Hides tokens of padded sentences, as the key says.
    pub fn new(padded: Padded, vocabulary: Vocabulary, key: &Key) -> Self {
        let mut rng = key.with("masking", 0).rng();
        let Padded { mut ids, mask, rows, .. } = padded;
        let (mut chosen, mut targets) = (Vec::new(), Vec::new());
        let ordinary: Vec<usize> =
            (0..ids.len()).filter(|&at| mask[at] && ids[at] >= vocabulary.first_ordinary).collect();
        // At least one, so that a batch always has a loss.
        let forced = ordinary.get(rng.random_range(0..ordinary.len().max(1))).copied();
        for &at in &ordinary {
            if Some(at) != forced && !rng.random_bool(CHOSEN) {
                continue;
            }
            chosen.push(at);
            targets.push(ids[at] as usize);
            let shown: f64 = rng.random();
            if shown < MASKED {
                ids[at] = vocabulary.mask;
            } else if shown < MASKED + REPLACED {
                ids[at] = rng.random_range(vocabulary.first_ordinary..vocabulary.size);
            }
        }
        let ids = ids.into_iter().map(|id| id as i32).collect();
        Self { rows, ids, mask, chosen, targets }
    }
}

impl<B: Backend> MaskedLanguage<B> {
    /// Logits `[chosen, vocabulary]` at the hidden tokens, and the loss of each.
    fn predict(&self, batch: &MaskedBatch) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = &self.devices()[0];
        let states = self.model.bert.forward(
            tensors::ids(&batch.ids, batch.rows, device),
            None,
            tensors::mask(&batch.mask, batch.rows, device),
        );
        let [rows, n, width] = states.dims();
        let chosen = tensors::indices(batch.chosen.iter().copied(), device);
        let logits = self.model.logits(states.reshape([rows * n, width]).select(0, chosen));
        let targets = tensors::indices(batch.targets.iter().copied(), device);
        let losses = tensors::negative_log_likelihood(logits.clone(), targets);
        (logits, losses)
    }

    fn loss(&self, batch: &MaskedBatch) -> Tensor<B, 1> {
        self.predict(batch).1.mean()
    }

    fn tally(&self, batch: &MaskedBatch) -> Tally {
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

learner_steps!(MaskedLanguage, MaskedBatch);
