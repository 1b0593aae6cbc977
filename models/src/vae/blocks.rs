use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use crate::blocks::{Downsample, GroupNorm, ResnetBlock, ResnetSizes, Stride, Upsample};
use crate::dropout::Dropout;
use crate::kernels::{attention, linear, linear_onto};

/// diffusers fixes the epsilon of all the autoencoder's normalisations.
pub(super) const EPSILON: f64 = 1e-6;

/// Residual blocks, then a downsampling but in the last (diffusers' `DownEncoderBlock2D`).
#[derive(Module, Debug)]
pub struct DownEncoderBlock<B: Backend> {
    /// Residual blocks without time.
    pub resnets: Vec<ResnetBlock<B>>,
    /// One or none.
    pub downsamplers: Vec<Downsample<B>>,
}

/// Residual blocks, then an upsampling but in the last (diffusers' `UpDecoderBlock2D`).
#[derive(Module, Debug)]
pub struct UpDecoderBlock<B: Backend> {
    /// Residual blocks without time.
    pub resnets: Vec<ResnetBlock<B>>,
    /// One or none.
    pub upsamplers: Vec<Upsample<B>>,
}

/// Self-attention with one head over the positions of a picture, around a residual.
#[derive(Module, Debug)]
pub struct MidAttention<B: Backend> {
    /// Before the projections.
    pub group_norm: GroupNorm<B>,
    /// Queries, with bias.
    pub to_q: Linear<B>,
    /// Keys, with bias.
    pub to_k: Linear<B>,
    /// Values, with bias.
    pub to_v: Linear<B>,
    /// One layer: a list because diffusers names it `to_out.0`, before a dropout.
    pub to_out: Vec<Linear<B>>,
}

/// Two residual blocks, with self-attention between them or not (diffusers' `UNetMidBlock2D`).
#[derive(Module, Debug)]
pub struct MidBlock<B: Backend> {
    /// Two.
    pub resnets: Vec<ResnetBlock<B>>,
    /// One or none.
    pub attentions: Vec<MidAttention<B>>,
}

impl<B: Backend> DownEncoderBlock<B> {
    pub(super) fn new(
        sizes: ResnetSizes,
        layers: usize,
        downsample: bool,
        device: &B::Device,
    ) -> Self {
        Self {
            resnets: resnets(sizes, layers, device),
            downsamplers: (0..usize::from(downsample))
                .map(|_| Downsample::new(sizes.channels_out, device))
                .collect(),
        }
    }

    /// # Shapes
    /// - input: `[b, h, w, in]`
    /// - output: `[b, h', w', out]`
    pub fn forward(&self, mut hidden: Tensor<B, 4>) -> Tensor<B, 4> {
        for resnet in &self.resnets {
            hidden = resnet.forward(hidden, None);
        }
        for downsample in &self.downsamplers {
            hidden = downsample.forward(hidden, Stride::TwoPaddedAfter);
        }
        hidden
    }
}

impl<B: Backend> UpDecoderBlock<B> {
    pub(super) fn new(
        sizes: ResnetSizes,
        layers: usize,
        upsample: bool,
        device: &B::Device,
    ) -> Self {
        Self {
            resnets: resnets(sizes, layers, device),
            upsamplers: (0..usize::from(upsample))
                .map(|_| Upsample::new(sizes.channels_out, device))
                .collect(),
        }
    }

    /// # Shapes
    /// - input: `[b, h, w, in]`
    /// - output: `[b, h', w', out]`
    pub fn forward(&self, mut hidden: Tensor<B, 4>) -> Tensor<B, 4> {
        for resnet in &self.resnets {
            hidden = resnet.forward(hidden, None);
        }
        for upsample in &self.upsamplers {
            hidden = upsample.forward(hidden);
        }
        hidden
    }
}

impl<B: Backend> MidBlock<B> {
    pub(super) fn new(sizes: ResnetSizes, attention: bool, device: &B::Device) -> Self {
        Self {
            resnets: resnets(sizes, 2, device),
            attentions: (0..usize::from(attention))
                .map(|_| MidAttention::new(sizes.channels_out, sizes.groups, device))
                .collect(),
        }
    }

    /// # Shapes
    /// - input and output: `[b, h, w, c]`
    pub fn forward(&self, hidden: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = self.resnets[0].forward(hidden, None);
        for attention in &self.attentions {
            hidden = attention.forward(hidden);
        }
        self.resnets[1].forward(hidden, None)
    }
}

impl<B: Backend> MidAttention<B> {
    fn new(channels: usize, groups: usize, device: &B::Device) -> Self {
        let projection = || LinearConfig::new(channels, channels).init(device);
        Self {
            group_norm: GroupNorm::new(channels, groups, EPSILON, device),
            to_q: projection(),
            to_k: projection(),
            to_v: projection(),
            to_out: vec![projection()],
        }
    }

    /// # Shapes
    /// - input and output: `[b, h, w, c]`
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let [b, h, w, c] = input.dims();
        let hidden = self.group_norm.forward(input.clone()).reshape([b, h * w, c]);
        let query = linear(&self.to_q, hidden.clone());
        let key = linear(&self.to_k, hidden.clone());
        let value = linear(&self.to_v, hidden);
        let attended = attention(query, key, value, 1, None, &Dropout::new(0.0)); // [b, hw, c]
        linear_onto(&self.to_out[0], attended.reshape([b, h, w, c]), input)
    }
}

fn resnets<B: Backend>(
    sizes: ResnetSizes,
    layers: usize,
    device: &B::Device,
) -> Vec<ResnetBlock<B>> {
    (0..layers)
        .map(|layer| {
            let channels_in = if layer == 0 { sizes.channels_in } else { sizes.channels_out };
            ResnetBlock::new(ResnetSizes { channels_in, ..sizes }, device)
        })
        .collect()
}
