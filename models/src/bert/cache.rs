//! Keys and values of the tokens that were already decoded.

use burn::tensor::{Int, Tensor, backend::Backend};

use super::attention::KeyValue;

/// The cache of one layer.
#[derive(Clone, Debug)]
pub(super) struct LayerCache<B: Backend> {
    own: Option<KeyValue<B>>,
    cross: Option<KeyValue<B>>,
}

impl<B: Backend> LayerCache<B> {
    /// Appends the keys and values of new tokens and returns all of them.
    pub(super) fn extend(&mut self, (key, value): KeyValue<B>) -> KeyValue<B> {
        let all = match self.own.take() {
            Some((keys, values)) => {
                (Tensor::cat(vec![keys, key], 1), Tensor::cat(vec![values, value], 1))
            }
            None => (key, value),
        };
        self.own.insert(all).clone()
    }

    /// The keys and values of the encoder states, which `project` computes the first time.
    pub(super) fn cross_or(&mut self, project: impl FnOnce() -> KeyValue<B>) -> KeyValue<B> {
        self.cross.get_or_insert_with(project).clone()
    }
}

/// Keys and values of every layer: of the tokens decoded so far, and of the encoder states.
///
/// One cache belongs to one batch of sequences; [`Self::select`] follows the batch when rows are
/// reordered, dropped or repeated.
#[derive(Clone, Debug)]
pub struct BertCache<B: Backend> {
    layers: Vec<LayerCache<B>>,
    len: usize,
}

impl<B: Backend> Default for BertCache<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Backend> BertCache<B> {
    /// A cache that holds nothing.
    pub fn new() -> Self {
        Self { layers: Vec::new(), len: 0 }
    }

    /// Number of tokens decoded so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was decoded yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes row i what row `rows[i]` was: the beams that live on, or each row several times.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[new batch]`, indices into the old batch
    pub fn select(&mut self, rows: Tensor<B, 1, Int>) {
        let pick = |(key, value): KeyValue<B>| {
            (key.select(0, rows.clone()), value.select(0, rows.clone()))
        };
        for layer in &mut self.layers {
            layer.own = layer.own.take().map(pick);
            layer.cross = layer.cross.take().map(pick);
        }
    }

    pub(super) fn layer(&mut self, index: usize) -> &mut LayerCache<B> {
        let empty = LayerCache { own: None, cross: None };
        if self.layers.len() <= index {
            self.layers.resize(index + 1, empty);
        }
        &mut self.layers[index]
    }

    pub(super) fn grow(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
