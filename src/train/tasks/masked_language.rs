//! Masked language modelling (Devlin et al. 2018, section 3.1), and which scene a caption is of.
//!
//! The second task does for the text encoder what the classification of scenes does for the vision
//! encoder: the states of the entity markers, which a relation is read from later, learn to gather
//! what the sentence is about. It sees captions and scenes, never a relation.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use mi2rage_models::bert::BertForMaskedLm;
use rand::Rng;

use super::learner_steps;
use crate::data::tokens::{Padded, Tokenizer};
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
    /// From a state to the scenes, `[hidden, scenes]`; not kept.
    pub scenes: Linear<B>,
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
    /// Flat positions that the scene is read from, two a row, and each row's scene.
    readout: Vec<usize>,
    scenes: Vec<usize>,
}

/// A caption to learn from.
#[derive(Clone, Debug)]
pub struct ScenedText {
    /// The caption's ids with its markers, if it has any.
    pub ids: Vec<u32>,
    /// Where the scene is read from: the entity markers, or the first token twice.
    pub readout: [usize; 2],
    /// The scene.
    pub scene: usize,
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
    /// Hides tokens of the captions, as the key says.
    pub fn new(
        texts: &[&ScenedText],
        tokenizer: &Tokenizer,
        vocabulary: Vocabulary,
        key: &Key,
    ) -> Self {
        let mut rng = key.with("masking", 0).rng();
        let sequences: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let Padded { mut ids, mask, rows, length } = tokenizer.pad(&sequences, usize::MAX);
        let place = |(row, text): (usize, &&ScenedText)| text.readout.map(|at| row * length + at);
        let readout = texts.iter().enumerate().flat_map(place).collect();
        let scenes = texts.iter().map(|text| text.scene).collect();
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
        Self { rows, ids, mask, chosen, targets, readout, scenes }
    }
}

/// Logits and the loss of each prediction.
type Predicted<B> = (Tensor<B, 2>, Tensor<B, 1>);

impl<B: Backend> MaskedLanguage<B> {
    /// At the hidden tokens, `[chosen, vocabulary]`; and of the scenes, `[rows, scenes]`.
    fn predict(&self, batch: &MaskedBatch) -> (Predicted<B>, Predicted<B>) {
        let device = &self.devices()[0];
        let states = self.model.bert.forward(
            tensors::ids(&batch.ids, batch.rows, device),
            None,
            tensors::mask(&batch.mask, batch.rows, device),
        );
        let [rows, n, width] = states.dims();
        let states = states.reshape([rows * n, width]);
        let loss = |logits: Tensor<B, 2>, targets: &[usize]| {
            let targets = tensors::indices(targets.iter().copied(), device);
            let losses = tensors::negative_log_likelihood(logits.clone(), targets);
            (logits, losses)
        };
        let at = |places: &[usize]| tensors::indices(places.iter().copied(), device);
        let read = states.clone().select(0, at(&batch.readout)).reshape([rows, 2, width]);
        let scenes = self.scenes.forward(read.mean_dim(1).squeeze_dim::<2>(1));
        let words = self.model.logits(states.select(0, at(&batch.chosen)));
        (loss(words, &batch.targets), loss(scenes, &batch.scenes))
    }

    fn loss(&self, batch: &MaskedBatch) -> Tensor<B, 1> {
        let ((_, words), (_, scenes)) = self.predict(batch);
        words.mean() + scenes.mean()
    }

    /// The loss is that of both tasks, the hits are those of the hidden tokens.
    fn tally(&self, batch: &MaskedBatch) -> Tally {
        let ((words, word_losses), (_, scene_losses)) = self.predict(batch);
        let count = batch.targets.len() as f64;
        let loss: f64 = (word_losses.mean() + scene_losses.mean()).into_scalar().elem();
        Tally {
            count,
            loss: loss * count,
            hits: super::right(words, &batch.targets),
            predicted: count,
            actual: count,
        }
    }
}

learner_steps!(MaskedLanguage, MaskedBatch);
