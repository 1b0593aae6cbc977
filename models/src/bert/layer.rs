//! One layer: attention, cross-attention in a decoder, feed-forward.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};

use super::attention::BertAttention;
use super::cache::LayerCache;
use crate::dropout::Dropout;
use crate::kernels::linear_activated;
use crate::layer_norm::LayerNorm;
use crate::layers::{Activation, add_sublayer};

/// The wide half of the feed-forward part.
#[derive(Module, Debug)]
pub struct BertIntermediate<B: Backend> {
    /// `[hidden, intermediate]`.
    pub dense: Linear<B>,
    /// After `dense`.
    pub activation: Activation,
}

/// The narrow half of the feed-forward part, with the residual.
#[derive(Module, Debug)]
pub struct BertOutput<B: Backend> {
    /// `[intermediate, hidden]`.
    pub dense: Linear<B>,
    /// Over the sum with the residual.
    pub layer_norm: LayerNorm<B>,
    /// After `dense`.
    pub dropout: Dropout,
}

/// One layer.
#[derive(Module, Debug)]
pub struct BertLayer<B: Backend> {
    /// To the tokens.
    pub attention: BertAttention<B>,
    /// To the encoder states, where the configuration adds it.
    pub crossattention: Option<BertAttention<B>>,
    /// Feed-forward, first half.
    pub intermediate: BertIntermediate<B>,
    /// Feed-forward, second half.
    pub output: BertOutput<B>,
}

impl<B: Backend> BertLayer<B> {
    /// Cross-attention is skipped where there are no encoder states.
    pub(super) fn forward(
        &self,
        hidden: Tensor<B, 3>,
        bias: Option<Tensor<B, 3>>,
        encoder: Option<&Tensor<B, 3>>,
        cross_bias: Option<Tensor<B, 3>>,
        mut cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 3> {
        let mut hidden = self.attention.forward(hidden, bias, cache.as_deref_mut());
        if let (Some(attention), Some(states)) = (&self.crossattention, encoder) {
            hidden = attention.cross(hidden, states, cross_bias, cache);
        }
        self.feed_forward(hidden)
    }

    fn feed_forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let BertIntermediate { dense, activation } = &self.intermediate;
        let wide = linear_activated(dense, *activation, hidden.clone());
        let BertOutput { dense, dropout, layer_norm } = &self.output;
        layer_norm.forward(add_sublayer(dense, dropout, wide, hidden))
    }
}
