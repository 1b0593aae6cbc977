//! Masked language modelling (Devlin et al. 2018, section 3.1), and which scene a caption is of.
//!
//! The second task, where scenes are known, does for the text encoder what the classification of scenes does for the vision
//! encoder: the states of the entity markers, which a relation is read from later, learn to gather
//! what the sentence is about. It sees captions and scenes, never a relation.

use std::sync::Arc;

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
use crate::train::{Items, Tally};

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
    /// Flat positions that scenes are read from, two each, and the scenes.
    readout: Vec<usize>,
    scenes: Vec<usize>,
}

/// A sentence to learn from.
#[derive(Clone, Debug)]
pub struct Sentence {
    /// The sentence's ids with its markers, if it has any.
    pub ids: Vec<u32>,
    /// What the sentence is about, where that is known.
    pub scene: Option<SceneOf>,
}

/// The scene of a caption.
#[derive(Clone, Copy, Debug)]
pub struct SceneOf {
    /// Where it is read from: the entity markers, or the first token twice.
    pub readout: [usize; 2],
    /// Its number.
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

impl Vocabulary {
    /// Of a tokenizer that was trained, whose special tokens come first.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        Self {
            size: tokenizer.vocabulary_size() as u32,
            first_ordinary: tokenizer.first_ordinary(),
            mask: tokenizer.special().mask,
        }
    }
}

/// Sentences as the items of a training.
pub fn items(sentences: Vec<Sentence>, tokenizer: &Tokenizer) -> Items<MaskedBatch> {
    let (tokenizer, vocabulary) = (tokenizer.clone(), Vocabulary::of(tokenizer));
    Items {
        len: sentences.len(),
        lengths: None,
        collate: Arc::new(move |at: &[usize], key: &Key| {
            let chosen: Vec<&Sentence> = at.iter().map(|&at| &sentences[at]).collect();
            MaskedBatch::new(&chosen, &tokenizer, vocabulary, key)
        }),
    }
}

impl MaskedBatch {
    /// Hides tokens of the sentences, as the key says.
    pub fn new(
        texts: &[&Sentence],
        tokenizer: &Tokenizer,
        vocabulary: Vocabulary,
        key: &Key,
    ) -> Self {
        let mut rng = key.with("masking", 0).rng();
        let sequences: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let Padded { mut ids, mask, rows, length } = tokenizer.pad(&sequences, usize::MAX);
        let (mut readout, mut scenes) = (Vec::new(), Vec::new());
        for (row, text) in texts.iter().enumerate() {
            let Some(of) = text.scene else { continue };
            readout.extend(of.readout.map(|at| row * length + at));
            scenes.push(of.scene);
        }
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

/// The logits of the words, and the sum of both tasks' mean losses.
fn total<B: Backend>(
    ((words, losses), scenes): (Predicted<B>, Option<Predicted<B>>),
) -> Predicted<B> {
    let scenes = scenes.map(|(_, losses)| losses.mean());
    (words, scenes.into_iter().fold(losses.mean(), |sum, loss| sum + loss))
}

impl<B: Backend> MaskedLanguage<B> {
    /// At the hidden tokens, `[chosen, vocabulary]`; and of the scenes, `[captions, scenes]`, if any
    /// sentence has one.
    fn predict(&self, batch: &MaskedBatch) -> (Predicted<B>, Option<Predicted<B>>) {
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
        let words = self.model.logits(states.clone().select(0, at(&batch.chosen)));
        let scenes = (!batch.scenes.is_empty()).then(|| {
            let read = states.select(0, at(&batch.readout));
            let read = read.reshape([batch.scenes.len(), 2, width]).mean_dim(1).squeeze_dim::<2>(1);
            loss(self.scenes.forward(read), &batch.scenes)
        });
        (loss(words, &batch.targets), scenes)
    }

    fn loss(&self, batch: &MaskedBatch) -> Tensor<B, 1> {
        total(self.predict(batch)).1
    }

    /// The loss is that of both tasks, the hits are those of the hidden tokens.
    fn tally(&self, batch: &MaskedBatch) -> Tally {
        let (words, loss) = total(self.predict(batch));
        let count = batch.targets.len() as f64;
        let loss: f64 = loss.into_scalar().elem();
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
