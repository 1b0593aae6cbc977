use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use crate::dropout::Dropout;
use crate::kernels::{attention, linear, linear_onto};

/// Multi-head attention of picture positions to themselves or to the condition
/// (diffusers' `Attention`).
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Queries, without bias.
    pub to_q: Linear<B>,
    /// Keys, without bias.
    pub to_k: Linear<B>,
    /// Values, without bias.
    pub to_v: Linear<B>,
    /// One layer, with bias: a list because diffusers names it `to_out.0`, before a dropout.
    pub to_out: Vec<Linear<B>>,
    /// Number of heads; divides the channels.
    pub heads: usize,
}

impl<B: Backend> Attention<B> {
    /// Queries of width `channels`, keys and values from width `context`.
    pub fn new(channels: usize, context: usize, heads: usize, device: &B::Device) -> Self {
        let projection = |width| LinearConfig::new(width, channels).with_bias(false).init(device);
        Self {
            to_q: projection(channels),
            to_k: projection(context),
            to_v: projection(context),
            to_out: vec![LinearConfig::new(channels, channels).init(device)],
            heads,
        }
    }

    /// What the context is attended to by.
    ///
    /// # Shapes
    /// - context: `[b, m, context]`
    pub fn keys_values(&self, context: Tensor<B, 3>) -> KeysValues<B> {
        KeysValues {
            keys: linear(&self.to_k, context.clone()),
            values: linear(&self.to_v, context),
        }
    }

    /// `bias` is added to the attention's logits, before the softmax, and the output to `residual`.
    ///
    /// # Shapes
    /// - hidden: `[b, n, channels]`
    /// - bias: `[b, 1, m]`
    /// - residual and output: `[b, n, channels]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        context: KeysValues<B>,
        bias: Option<&Tensor<B, 3>>,
        residual: Tensor<B, 3>,
    ) -> Tensor<B, 3> {
        let query = linear(&self.to_q, hidden);
        let KeysValues { keys, values } = context;
        let attended =
            attention(query, keys, values, self.heads, bias.cloned(), &Dropout::new(0.0));
        linear_onto(&self.to_out[0], attended, residual)
    }
}

/// What an [`Attention`] makes of a context.
#[derive(Clone, Debug)]
pub struct KeysValues<B: Backend> {
    /// `[b, m, channels]`.
    pub keys: Tensor<B, 3>,
    /// `[b, m, channels]`.
    pub values: Tensor<B, 3>,
}
