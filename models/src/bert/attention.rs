//! Self-attention and cross-attention.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};

use super::cache::LayerCache;
use crate::dropout::Dropout;
use crate::kernels::{attention, linear};
use crate::layer_norm::LayerNorm;
use crate::layers::add_sublayer;

/// Keys and values, each `[batch, n, hidden]`.
pub(super) type KeyValue<B> = (Tensor<B, 3>, Tensor<B, 3>);

/// Multi-head attention from `hidden` to itself, or to encoder states.
#[derive(Module, Debug)]
pub struct BertSelfAttention<B: Backend> {
    /// `[hidden, hidden]`.
    pub query: Linear<B>,
    /// `[hidden, hidden]`, in cross-attention `[encoder_hidden_size, hidden]`.
    pub key: Linear<B>,
    /// As `key`.
    pub value: Linear<B>,
    /// On the attention weights.
    pub dropout: Dropout,
    /// Number of heads.
    pub heads: usize,
}

impl<B: Backend> BertSelfAttention<B> {
    /// # Shapes
    ///
    /// - `source`: `[batch, m, width]`
    /// - output: `[batch, m, hidden]` twice
    fn key_value(&self, source: Tensor<B, 3>) -> KeyValue<B> {
        (linear(&self.key, source.clone()), linear(&self.value, source))
    }

    fn attend(
        &self,
        hidden: Tensor<B, 3>,
        (key, value): KeyValue<B>,
        bias: Option<Tensor<B, 3>>,
    ) -> Tensor<B, 3> {
        let query = linear(&self.query, hidden);
        attention(query, key, value, self.heads, bias, &self.dropout)
    }
}

/// What follows the attention: projection, dropout, residual, layer norm.
#[derive(Module, Debug)]
pub struct BertSelfOutput<B: Backend> {
    /// `[hidden, hidden]`.
    pub dense: Linear<B>,
    /// Over the sum with the residual.
    pub layer_norm: LayerNorm<B>,
    /// After the projection.
    pub dropout: Dropout,
}

/// Attention with its output block.
#[derive(Module, Debug)]
pub struct BertAttention<B: Backend> {
    /// `attention.self` of transformers.
    pub self_attn: BertSelfAttention<B>,
    /// Projection and residual.
    pub output: BertSelfOutput<B>,
}

impl<B: Backend> BertAttention<B> {
    /// Attention of `hidden` `[batch, n, hidden]` to itself and to what the cache holds.
    pub(super) fn forward(
        &self,
        hidden: Tensor<B, 3>,
        bias: Option<Tensor<B, 3>>,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 3> {
        let new = self.self_attn.key_value(hidden.clone());
        let all = match cache {
            Some(cache) => cache.extend(new),
            None => new,
        };
        self.finish(hidden, all, bias)
    }

    /// Attention of `hidden` `[batch, n, hidden]` to `states` `[batch, m, width]`, whose keys and
    /// values are computed once a cache.
    ///
    /// # Shapes
    ///
    /// - `bias`: `[1 or batch, 1 or n, m]`, see [`crate::layers::attention_bias`]
    /// - output: `[batch, n, hidden]`
    pub(super) fn cross(
        &self,
        hidden: Tensor<B, 3>,
        states: &Tensor<B, 3>,
        bias: Option<Tensor<B, 3>>,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 3> {
        let project = || self.self_attn.key_value(states.clone());
        let all = match cache {
            Some(cache) => cache.cross_or(project),
            None => project(),
        };
        self.finish(hidden, all, bias)
    }

    fn finish(
        &self,
        hidden: Tensor<B, 3>,
        key_value: KeyValue<B>,
        bias: Option<Tensor<B, 3>>,
    ) -> Tensor<B, 3> {
        let attended = self.self_attn.attend(hidden.clone(), key_value, bias);
        let output = &self.output;
        output.layer_norm.forward(add_sublayer(&output.dense, &output.dropout, attended, hidden))
    }
}
