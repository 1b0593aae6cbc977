//! The autoencoder of latent diffusion (Rombach et al. 2022), in the layout of diffusers'
//! `AutoencoderKL`.
//!
//! Parameters bear diffusers' names; the 1x1 convolutions (`conv_shortcut`, `quant_conv`,
//! `post_quant_conv`) are linear layers, their weight `[out, in, 1, 1]` read as `[in, out]`.

mod blocks;
mod config;

pub use blocks::{DownEncoderBlock, MidAttention, MidBlock, UpDecoderBlock};
pub use config::{DownBlockType, UpBlockType, VaeConfig, VaeConfigError};

use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use crate::blocks::{
    Convolution3x3, GroupNorm, ResnetSizes, Stride, channels_first, channels_last,
};
use crate::kernels::linear;
use blocks::EPSILON;

/// Picture to the moments of its latent.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    /// Picture to the first block's channels.
    pub conv_in: Convolution3x3<B>,
    /// From the highest resolution to the lowest.
    pub down_blocks: Vec<DownEncoderBlock<B>>,
    /// At the lowest resolution.
    pub mid_block: MidBlock<B>,
    /// Before `conv_out`.
    pub conv_norm_out: GroupNorm<B>,
    /// Last block's channels to twice the latent's.
    pub conv_out: Convolution3x3<B>,
}

/// Latent to picture.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// Latent to the last block's channels.
    pub conv_in: Convolution3x3<B>,
    /// At the lowest resolution.
    pub mid_block: MidBlock<B>,
    /// From the lowest resolution to the highest.
    pub up_blocks: Vec<UpDecoderBlock<B>>,
    /// Before `conv_out`.
    pub conv_norm_out: GroupNorm<B>,
    /// First block's channels to the picture's.
    pub conv_out: Convolution3x3<B>,
}

/// Picture to latent and back, with a Gaussian latent (Kingma and Welling 2014).
#[derive(Module, Debug)]
pub struct AutoencoderKl<B: Backend> {
    /// Picture to moments.
    pub encoder: Encoder<B>,
    /// Latent to picture.
    pub decoder: Decoder<B>,
    /// After the encoder: a 1x1 convolution.
    pub quant_conv: Option<Linear<B>>,
    /// Before the decoder: a 1x1 convolution.
    pub post_quant_conv: Option<Linear<B>>,
}

/// A diagonal Gaussian over latents.
#[derive(Clone, Debug)]
pub struct LatentDistribution<B: Backend> {
    /// `[b, latent_channels, h, w]`.
    pub mean: Tensor<B, 4>,
    /// `[b, latent_channels, h, w]`, within -30 and 20 as in diffusers.
    pub logvar: Tensor<B, 4>,
}

impl<B: Backend> LatentDistribution<B> {
    /// `mean + exp(logvar / 2) * noise`.
    ///
    /// # Shapes
    /// - noise and output: `[b, latent_channels, h, w]`
    pub fn sample(&self, noise: Tensor<B, 4>) -> Tensor<B, 4> {
        self.mean.clone() + (self.logvar.clone() * 0.5).exp() * noise
    }

    /// Kullback-Leibler divergence from the standard Gaussian, in nats, summed over each latent.
    ///
    /// # Shapes
    /// - output: `[b]`
    pub fn kl(&self) -> Tensor<B, 1> {
        let [b, ..] = self.mean.dims();
        let terms =
            self.mean.clone().square() + self.logvar.clone().exp() - 1.0 - self.logvar.clone();
        let summed: Tensor<B, 2> = terms.reshape([b as i32, -1]).sum_dim(1) * 0.5;
        summed.squeeze_dim(1)
    }
}

impl VaeConfig {
    /// A model with PyTorch's default initialisation.
    ///
    /// # Errors
    /// See [`VaeConfig::check`].
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<AutoencoderKl<B>, VaeConfigError> {
        self.check()?;
        let latent = self.latent_channels;
        Ok(AutoencoderKl {
            encoder: self.encoder(device),
            decoder: self.decoder(device),
            quant_conv: self
                .use_quant_conv
                .then(|| LinearConfig::new(2 * latent, 2 * latent).init(device)),
            post_quant_conv: self
                .use_post_quant_conv
                .then(|| LinearConfig::new(latent, latent).init(device)),
        })
    }

    fn resnet(&self, channels_in: usize, channels_out: usize) -> ResnetSizes {
        ResnetSizes {
            channels_in,
            channels_out,
            time: None,
            groups: self.norm_num_groups,
            epsilon: EPSILON,
        }
    }

    fn encoder<B: Backend>(&self, device: &B::Device) -> Encoder<B> {
        let channels = &self.block_out_channels;
        let last = channels.len() - 1;
        Encoder {
            conv_in: Convolution3x3::new(self.in_channels, channels[0], device),
            down_blocks: (0..=last)
                .map(|block| {
                    let sizes = self.resnet(channels[block.saturating_sub(1)], channels[block]);
                    DownEncoderBlock::new(sizes, self.layers_per_block, block < last, device)
                })
                .collect(),
            mid_block: self.mid_block(device),
            conv_norm_out: GroupNorm::new(channels[last], self.norm_num_groups, EPSILON, device),
            conv_out: Convolution3x3::new(channels[last], 2 * self.latent_channels, device),
        }
    }

    fn decoder<B: Backend>(&self, device: &B::Device) -> Decoder<B> {
        let channels = &self.block_out_channels;
        let last = channels.len() - 1;
        Decoder {
            conv_in: Convolution3x3::new(self.latent_channels, channels[last], device),
            mid_block: self.mid_block(device),
            up_blocks: (0..=last)
                .rev()
                .map(|block| {
                    let sizes = self.resnet(channels[(block + 1).min(last)], channels[block]);
                    UpDecoderBlock::new(sizes, self.layers_per_block + 1, block > 0, device)
                })
                .collect(),
            conv_norm_out: GroupNorm::new(channels[0], self.norm_num_groups, EPSILON, device),
            conv_out: Convolution3x3::new(channels[0], self.out_channels, device),
        }
    }

    fn mid_block<B: Backend>(&self, device: &B::Device) -> MidBlock<B> {
        let channels = self.block_out_channels[self.block_out_channels.len() - 1];
        MidBlock::new(self.resnet(channels, channels), self.mid_block_add_attention, device)
    }
}

impl<B: Backend> Encoder<B> {
    /// # Shapes
    /// - pictures: `[b, h, w, in_channels]`
    /// - output: `[b, h', w', 2 * latent_channels]`
    pub fn forward(&self, pictures: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = self.conv_in.forward(pictures, Stride::One);
        for block in &self.down_blocks {
            hidden = block.forward(hidden);
        }
        let hidden = self.conv_norm_out.forward_silu(self.mid_block.forward(hidden));
        self.conv_out.forward(hidden, Stride::One)
    }
}

impl<B: Backend> Decoder<B> {
    /// # Shapes
    /// - latents: `[b, h, w, latent_channels]`
    /// - output: `[b, h', w', out_channels]`
    pub fn forward(&self, latents: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = self.mid_block.forward(self.conv_in.forward(latents, Stride::One));
        for block in &self.up_blocks {
            hidden = block.forward(hidden);
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(hidden), Stride::One)
    }
}

impl<B: Backend> AutoencoderKl<B> {
    /// The latents are not scaled: the caller multiplies by `scaling_factor`. They have the pictures'
    /// type, whatever the weights'.
    ///
    /// # Shapes
    /// - pictures: `[b, in_channels, h, w]`, values in -1 to 1, `h` and `w` divisible by
    ///   [`VaeConfig::downsampling`]
    /// - output: `[b, latent_channels, h', w']`, twice
    pub fn encode(&self, pictures: Tensor<B, 4>) -> LatentDistribution<B> {
        let (outside, inside) = (pictures.dtype(), self.encoder.conv_in.weight.dtype());
        let moments = self.encoder.forward(channels_last(pictures.cast(inside)));
        let moments = match &self.quant_conv {
            Some(layer) => linear(layer, moments),
            None => moments,
        };
        let [mean, logvar] = channels_first(moments.cast(outside))
            .chunk(2, 1)
            .try_into()
            .expect("two chunks of an even number of channels");
        LatentDistribution { mean, logvar: logvar.clamp(-30.0, 20.0) }
    }

    /// The caller has divided the latents by `scaling_factor`. The pictures have their type, whatever
    /// the weights'.
    ///
    /// # Shapes
    /// - latents: `[b, latent_channels, h', w']`
    /// - output: `[b, out_channels, h, w]`
    pub fn decode(&self, latents: Tensor<B, 4>) -> Tensor<B, 4> {
        let (outside, inside) = (latents.dtype(), self.decoder.conv_in.weight.dtype());
        let latents = channels_last(latents.cast(inside));
        let latents = match &self.post_quant_conv {
            Some(layer) => linear(layer, latents),
            None => latents,
        };
        channels_first(self.decoder.forward(latents)).cast(outside)
    }
}
