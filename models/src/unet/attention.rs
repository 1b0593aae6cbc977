use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::softmax;

use crate::kernels::linear;

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
        let projection = |width| {
            LinearConfig::new(width, channels)
                .with_bias(false)
                .init(device)
        };
        Self {
            to_q: projection(channels),
            to_k: projection(context),
            to_v: projection(context),
            to_out: vec![LinearConfig::new(channels, channels).init(device)],
            heads,
        }
    }

    /// `bias` is added to the attention's logits, before the softmax.
    ///
    /// # Shapes
    /// - hidden: `[b, n, channels]`
    /// - context: `[b, m, context]`
    /// - bias: `[b, 1, 1, m]`
    /// - output: `[b, n, channels]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        context: Tensor<B, 3>,
        bias: Option<&Tensor<B, 4>>,
    ) -> Tensor<B, 3> {
        let [b, n, channels] = hidden.dims();
        let width = channels / self.heads;
        let split = |x: Tensor<B, 3>| {
            let length = x.dims()[1];
            x.reshape([b, length, self.heads, width]).swap_dims(1, 2) // [b, heads, length, width]
        };
        // The scale goes to the queries: they are smaller than the logits wherever it matters.
        let query = split(linear(&self.to_q, hidden) * (width as f64).powf(-0.5));
        let key = split(linear(&self.to_k, context.clone()));
        let value = split(linear(&self.to_v, context));

        let mut logits = query.matmul(key.transpose()); // [b, heads, n, m]
        if let Some(bias) = bias {
            logits = logits + bias.clone();
        }
        let attended = softmax(logits, 3).matmul(value); // [b, heads, n, width]
        linear(
            &self.to_out[0],
            attended.swap_dims(1, 2).reshape([b, n, channels]),
        )
    }
}
