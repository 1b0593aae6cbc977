use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use super::{Convolution3x3, GroupNorm, Stride};
use crate::kernels;

/// Two normalised convolutions around a residual, with the time added between them
/// (diffusers' `ResnetBlock2D`; the autoencoder's have no time).
#[derive(Module, Debug)]
pub struct ResnetBlock<B: Backend> {
    /// Over the input's channels.
    pub norm1: GroupNorm<B>,
    /// Input to output channels.
    pub conv1: Convolution3x3<B>,
    /// Time embedding to output channels.
    pub time_emb_proj: Option<Linear<B>>,
    /// Over the output's channels.
    pub norm2: GroupNorm<B>,
    /// Output to output channels.
    pub conv2: Convolution3x3<B>,
    /// Present where the number of channels changes: a 1x1 convolution.
    pub conv_shortcut: Option<Linear<B>>,
}

/// The sizes of a [`ResnetBlock`].
#[derive(Clone, Copy, Debug)]
pub struct ResnetSizes {
    /// Channels in.
    pub channels_in: usize,
    /// Channels out.
    pub channels_out: usize,
    /// Width of the time embedding, where there is one.
    pub time: Option<usize>,
    /// Groups of both normalisations.
    pub groups: usize,
    /// Epsilon of both normalisations.
    pub epsilon: f64,
}

impl<B: Backend> ResnetBlock<B> {
    /// A block of these sizes.
    pub fn new(sizes: ResnetSizes, device: &B::Device) -> Self {
        let ResnetSizes { channels_in, channels_out, time, groups, epsilon } = sizes;
        Self {
            norm1: GroupNorm::new(channels_in, groups, epsilon, device),
            conv1: Convolution3x3::new(channels_in, channels_out, device),
            time_emb_proj: time.map(|time| LinearConfig::new(time, channels_out).init(device)),
            norm2: GroupNorm::new(channels_out, groups, epsilon, device),
            conv2: Convolution3x3::new(channels_out, channels_out, device),
            conv_shortcut: (channels_in != channels_out)
                .then(|| LinearConfig::new(channels_in, channels_out).init(device)),
        }
    }

    /// `time` is the time embedding after its silu, which is the same for all blocks and so is
    /// applied once, outside.
    ///
    /// # Shapes
    /// - input: `[b, h, w, in]`
    /// - time: `[b, t]`
    /// - output: `[b, h, w, out]`
    pub fn forward(&self, input: Tensor<B, 4>, time: Option<&Tensor<B, 2>>) -> Tensor<B, 4> {
        let hidden = self.norm1.forward_silu(input.clone());
        let hidden = match (&self.time_emb_proj, time) {
            (Some(project), Some(time)) => {
                let shift = kernels::linear_of_few(project, time.clone()); // [b, out]
                self.conv1.forward_shifted(hidden, shift)
            }
            _ => self.conv1.forward(hidden, Stride::One),
        }; // [b, h, w, out]
        let hidden = self.norm2.forward_silu(hidden);
        match &self.conv_shortcut {
            Some(shortcut) => {
                let hidden = self.conv2.forward(hidden, Stride::One);
                kernels::linear_onto(shortcut, input, hidden)
            }
            None => self.conv2.forward_onto(hidden, input),
        }
    }
}
