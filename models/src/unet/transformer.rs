use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use super::{Attention, Conditions};
use crate::blocks::GroupNorm;
use crate::kernels::{linear, linear_geglu, linear_onto};
use crate::layer_norm::LayerNorm;

/// The first layer of the feed-forward network: a gated linear unit with gelu
/// (Shazeer 2020; diffusers' `GEGLU`).
#[derive(Module, Debug)]
pub struct Geglu<B: Backend> {
    /// To twice the inner width: values, then gates.
    pub proj: Linear<B>,
}

/// Feed-forward network with four times the width inside.
///
/// diffusers keeps its layers in one list: `net_0` here is `net.0` there, `net_2` is `net.2`
/// (`net.1` is a dropout).
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    /// diffusers' `net.0`.
    pub net_0: Geglu<B>,
    /// diffusers' `net.2`.
    pub net_2: Linear<B>,
}

impl<B: Backend> FeedForward<B> {
    fn new(channels: usize, device: &B::Device) -> Self {
        Self {
            net_0: Geglu { proj: LinearConfig::new(channels, 8 * channels).init(device) },
            net_2: LinearConfig::new(4 * channels, channels).init(device),
        }
    }

    /// The output is added to `residual`.
    ///
    /// # Shapes
    /// - input, residual and output: `[b, n, c]`
    pub fn forward(&self, input: Tensor<B, 3>, residual: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = linear_geglu(&self.net_0.proj, input); // [b, n, 4c]
        linear_onto(&self.net_2, inner, residual)
    }
}

/// Self-attention, cross-attention, feed-forward, each normalised and around a residual
/// (diffusers' `BasicTransformerBlock`).
#[derive(Module, Debug)]
pub struct BasicTransformerBlock<B: Backend> {
    /// Before `attn1`.
    pub norm1: LayerNorm<B>,
    /// Self-attention.
    pub attn1: Attention<B>,
    /// Before `attn2`.
    pub norm2: LayerNorm<B>,
    /// Cross-attention to the condition.
    pub attn2: Attention<B>,
    /// Before `ff`.
    pub norm3: LayerNorm<B>,
    /// Feed-forward network.
    pub ff: FeedForward<B>,
}

impl<B: Backend> BasicTransformerBlock<B> {
    fn new(channels: usize, context: usize, heads: usize, device: &B::Device) -> Self {
        let norm = || LayerNorm::new(channels, 1e-5, device); // diffusers' default
        Self {
            norm1: norm(),
            attn1: Attention::new(channels, channels, heads, device),
            norm2: norm(),
            attn2: Attention::new(channels, context, heads, device),
            norm3: norm(),
            ff: FeedForward::new(channels, device),
        }
    }

    /// # Shapes
    /// - hidden and output: `[b, n, c]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        conditions: &mut Conditions<'_, B>,
    ) -> Tensor<B, 3> {
        let normal = self.norm1.forward(hidden.clone());
        let own = self.attn1.keys_values(normal.clone());
        let hidden = self.attn1.forward(normal, own, None, hidden);
        let normal = self.norm2.forward(hidden.clone());
        let context = conditions.next_context();
        let hidden = self.attn2.forward(normal, context, conditions.bias, hidden);
        self.ff.forward(self.norm3.forward(hidden.clone()), hidden)
    }
}

/// Transformer blocks over the positions of a picture (diffusers' `Transformer2DModel`).
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    /// Over the picture.
    pub norm: GroupNorm<B>,
    /// Into the blocks.
    pub proj_in: Linear<B>,
    /// One after the other.
    pub transformer_blocks: Vec<BasicTransformerBlock<B>>,
    /// Out of the blocks.
    pub proj_out: Linear<B>,
}

/// The sizes of a [`Transformer`].
#[derive(Clone, Copy, Debug)]
pub struct TransformerSizes {
    /// Channels in and out.
    pub channels: usize,
    /// Width of the condition.
    pub context: usize,
    /// Attention heads.
    pub heads: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Groups of the normalisation.
    pub groups: usize,
}

impl<B: Backend> Transformer<B> {
    /// A transformer of these sizes.
    pub fn new(sizes: TransformerSizes, device: &B::Device) -> Self {
        let TransformerSizes { channels, context, heads, layers, groups } = sizes;
        Self {
            // diffusers fixes this epsilon, whatever `norm_eps` is.
            norm: GroupNorm::new(channels, groups, 1e-6, device),
            proj_in: LinearConfig::new(channels, channels).init(device),
            transformer_blocks: (0..layers)
                .map(|_| BasicTransformerBlock::new(channels, context, heads, device))
                .collect(),
            proj_out: LinearConfig::new(channels, channels).init(device),
        }
    }

    /// # Shapes
    /// - input and output: `[b, h, w, c]`
    pub fn forward(&self, input: Tensor<B, 4>, conditions: &mut Conditions<'_, B>) -> Tensor<B, 4> {
        let [b, h, w, c] = input.dims();
        let positions = self.norm.forward(input.clone()).reshape([b, h * w, c]);
        let mut hidden = linear(&self.proj_in, positions);
        for block in &self.transformer_blocks {
            hidden = block.forward(hidden, conditions);
        }
        linear_onto(&self.proj_out, hidden.reshape([b, h, w, c]), input)
    }
}
