//! BERT as an encoder and as a decoder with cross-attention and a cache.
//!
//! Source: [Devlin et al.](https://arxiv.org/abs/1810.04805); structure and names after
//! transformers' `modeling_bert.py` and, for the decoder, BLIP's `modeling_blip_text.py`. Where
//! Rust needs another name: `self` is `self_attn`, `LayerNorm` is `layer_norm`.

mod attention;
mod cache;
mod config;
mod embeddings;
mod head;
mod layer;

pub use attention::{BertAttention, BertSelfAttention, BertSelfOutput};
pub use cache::BertCache;
pub use config::BertConfig;
pub use embeddings::BertEmbeddings;
pub use head::{
    BertForCausalLm, BertForMaskedLm, BertForSequenceClassification, BertLmHead, BertLmHeads,
    BertTransform,
};
pub use layer::{BertIntermediate, BertLayer, BertOutput};

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Bool, Int, Tensor, backend::Backend};

use crate::kernels::linear_of_few;
use crate::layers::attention_bias;

/// What the cross-attention of a decoder reads.
#[derive(Clone, Debug)]
pub struct EncoderStates<B: Backend> {
    /// `[batch, m, encoder_hidden_size]`.
    pub hidden: Tensor<B, 3>,
    /// `[batch, m]`, true where a state may be attended to; `None`: everywhere.
    pub mask: Option<Tensor<B, 2, Bool>>,
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct BertEncoder<B: Backend> {
    /// From the input to the output.
    pub layer: Vec<BertLayer<B>>,
}

/// tanh of a linear layer over the first token's state.
#[derive(Module, Debug)]
pub struct BertPooler<B: Backend> {
    /// `[hidden, hidden]`.
    pub dense: Linear<B>,
}

impl<B: Backend> BertPooler<B> {
    /// # Shapes
    ///
    /// - `hidden`: `[batch, n, hidden]`
    /// - output: `[batch, hidden]`
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 2> {
        let [batch, _, width] = hidden.dims();
        let first = hidden.narrow(1, 0, 1).reshape([batch, width]);
        linear_of_few(&self.dense, first).tanh()
    }
}

/// BERT without a head. Made by [`BertConfig::init`].
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    /// Words, positions, segments.
    pub embeddings: BertEmbeddings<B>,
    /// The layers.
    pub encoder: BertEncoder<B>,
    /// Where the configuration asks for one.
    pub pooler: Option<BertPooler<B>>,
    /// Number of attention heads.
    pub heads: usize,
    /// Whether a token sees only those before it.
    pub is_decoder: bool,
}

impl<B: Backend> Bert<B> {
    /// States of whole sequences, without cross-attention.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`
    /// - `token_type_ids`: `[batch, n]`; `None`: all 0
    /// - `attention_mask`: `[batch, n]`, true at tokens and false at padding; `None`, which is
    ///   cheaper: no padding
    /// - output: `[batch, n, hidden]`
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        token_type_ids: Option<Tensor<B, 2, Int>>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
    ) -> Tensor<B, 3> {
        self.run(input_ids, token_type_ids, attention_mask, None, None)
    }

    /// States of the tokens that follow those in `cache`, or of whole sequences without a cache,
    /// each token seeing what stands before it (in the decoder form) and `encoder`.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`, the new tokens
    /// - `attention_mask`: `[batch, cache.len() + n]`, true at tokens; `None`: no padding
    /// - `encoder`: what the cross-attention reads; once its keys and values are in `cache` only
    ///   its mask is read. Without cross-attention layers it is not read at all.
    /// - output: `[batch, n, hidden]`
    pub fn decode(
        &self,
        input_ids: Tensor<B, 2, Int>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
        encoder: Option<&EncoderStates<B>>,
        cache: Option<&mut BertCache<B>>,
    ) -> Tensor<B, 3> {
        self.run(input_ids, None, attention_mask, encoder, cache)
    }

    /// The pooled output `[batch, hidden]` of `hidden` `[batch, n, hidden]`: the pooler's, or the
    /// first token's state where there is none.
    pub fn pool(&self, hidden: Tensor<B, 3>) -> Tensor<B, 2> {
        match &self.pooler {
            Some(pooler) => pooler.forward(hidden),
            None => {
                let [batch, _, width] = hidden.dims();
                hidden.narrow(1, 0, 1).reshape([batch, width])
            }
        }
    }

    fn run(
        &self,
        input_ids: Tensor<B, 2, Int>,
        token_type_ids: Option<Tensor<B, 2, Int>>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
        encoder: Option<&EncoderStates<B>>,
        mut cache: Option<&mut BertCache<B>>,
    ) -> Tensor<B, 3> {
        let [_, n] = input_ids.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let device = input_ids.device();
        let bias = attention_bias(attention_mask, self.is_decoder, [n, past + n], &device);
        let cross_bias = encoder.and_then(|encoder| encoder.mask.clone()).and_then(|mask| {
            let [_, keys] = mask.dims();
            attention_bias(Some(mask), false, [n, keys], &device)
        });
        let encoder = encoder.map(|encoder| &encoder.hidden);

        let mut hidden = self.embeddings.forward(input_ids, token_type_ids, past);
        for (index, layer) in self.encoder.layer.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| cache.layer(index));
            hidden = layer.forward(hidden, bias.clone(), encoder, cross_bias.clone(), cache);
        }
        if let Some(cache) = cache {
            cache.grow(n);
        }
        hidden
    }
}
