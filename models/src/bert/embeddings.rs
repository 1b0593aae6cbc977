//! From token ids to the first states.

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Int, Tensor, backend::Backend};

use crate::dropout::Dropout;
use crate::kernels::embedding;
use crate::layer_norm::LayerNorm;
use crate::layers::add_to_each;

/// Sum of the embeddings of word, position and segment, normalised.
#[derive(Module, Debug)]
pub struct BertEmbeddings<B: Backend> {
    /// `[vocab_size, hidden]`.
    pub word_embeddings: Embedding<B>,
    /// `[max_position_embeddings, hidden]`.
    pub position_embeddings: Embedding<B>,
    /// `[type_vocab_size, hidden]`; none where that is 0, as in BLIP's decoder.
    pub token_type_embeddings: Option<Embedding<B>>,
    /// Over the sum.
    pub layer_norm: LayerNorm<B>,
    /// After the norm.
    pub dropout: Dropout,
}

impl<B: Backend> BertEmbeddings<B> {
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`, standing at the positions `past` to `past + n`, which must lie
    ///   below `max_position_embeddings`
    /// - `token_type_ids`: `[batch, n]`; `None`: all 0
    /// - output: `[batch, n, hidden]`
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        token_type_ids: Option<Tensor<B, 2, Int>>,
        past: usize,
    ) -> Tensor<B, 3> {
        let [_, n] = input_ids.dims();
        let words = embedding(&self.word_embeddings, input_ids);
        let positions = self.position_embeddings.weight.val().narrow(0, past, n); // [n, hidden]
        let sum = match (&self.token_type_embeddings, token_type_ids) {
            (None, _) => add_to_each(words, positions),
            (Some(segments), Some(ids)) => add_to_each(words + embedding(segments, ids), positions),
            (Some(segments), None) => {
                let segment = segments.weight.val().narrow(0, 0, 1); // [1, hidden]
                add_to_each(words, positions + segment)
            }
        };
        self.dropout.forward(self.layer_norm.forward(sum))
    }
}
