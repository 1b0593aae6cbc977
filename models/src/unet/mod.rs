//! The noise predictor of latent diffusion (Rombach et al. 2022), in the layout of diffusers'
//! `UNet2DConditionModel`.
//!
//! Parameters bear diffusers' names but for two rules: the list `ff.net` has its digit in the name
//! (`ff.net_0`, `ff.net_2`), and every 1x1 convolution (`conv_shortcut`; `proj_in` and `proj_out`
//! where `use_linear_projection` is off) is a linear layer, its weight `[out, in, 1, 1]` read as
//! `[in, out]`.

mod attention;
mod blocks;
mod condition;
mod config;
mod time_embedding;
mod transformer;

pub use attention::{Attention, KeysValues};
pub use blocks::{DownBlock, MidBlock, UpBlock};
pub use condition::{Condition, Conditions};
pub use config::{DownBlockType, MidBlockType, PerBlock, UNetConfig, UNetConfigError, UpBlockType};
pub use time_embedding::{TimestepEmbedding, sinusoidal_embedding};
pub use transformer::{BasicTransformerBlock, FeedForward, Geglu, Transformer, TransformerSizes};

use burn::prelude::*;
use burn::tensor::activation::silu;

use crate::blocks::{
    Convolution3x3, GroupNorm, ResnetSizes, Stride, channels_first, channels_last,
};

/// Predicts noise, velocity or sample from a noisy sample, its timestep and a condition.
#[derive(Module, Debug)]
pub struct UNet<B: Backend> {
    /// Sample to the first block's channels.
    pub conv_in: Convolution3x3<B>,
    /// Sinusoids to four times the first block's channels.
    pub time_embedding: TimestepEmbedding<B>,
    /// From the highest resolution to the lowest.
    pub down_blocks: Vec<DownBlock<B>>,
    /// At the lowest resolution.
    pub mid_block: MidBlock<B>,
    /// From the lowest resolution to the highest.
    pub up_blocks: Vec<UpBlock<B>>,
    /// Before `conv_out`.
    pub conv_norm_out: GroupNorm<B>,
    /// First block's channels to prediction.
    pub conv_out: Convolution3x3<B>,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shifts the frequencies of the time embedding.
    pub freq_shift: f64,
}

impl UNetConfig {
    /// A model with PyTorch's default initialisation.
    ///
    /// # Errors
    /// See [`UNetConfig::check`].
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<UNet<B>, UNetConfigError> {
        self.check()?;
        let channels = &self.block_out_channels;
        let blocks = channels.len();
        let time = 4 * channels[0];
        let resnet = |channels_in, channels_out| ResnetSizes {
            channels_in,
            channels_out,
            time: Some(time),
            groups: self.norm_num_groups,
            epsilon: self.norm_eps,
        };
        let transformer = |block: usize| TransformerSizes {
            channels: channels[block],
            context: self.cross_attention_dim,
            heads: self.attention_head_dim.at(block),
            layers: self.transformer_layers_per_block,
            groups: self.norm_num_groups,
        };

        let down_blocks = (0..blocks).map(|block| {
            let crossed = self.down_block_types[block] == DownBlockType::CrossAttnDownBlock2D;
            DownBlock::new(
                self.layers_per_block,
                resnet(channels[block.saturating_sub(1)], channels[block]),
                crossed.then(|| transformer(block)),
                block + 1 < blocks,
                device,
            )
        });
        let last = blocks - 1;
        let up_blocks = (0..blocks).map(|index| {
            let block = last - index;
            let crossed = self.up_block_types[index] == UpBlockType::CrossAttnUpBlock2D;
            let out = channels[block];
            let previous = channels[(block + 1).min(last)];
            // The last of a block's layers meets what the block above it on the way down got.
            let above = channels[block.saturating_sub(1)];
            let channels_in: Vec<usize> = (0..=self.layers_per_block)
                .map(|layer| {
                    let hidden = if layer == 0 { previous } else { out };
                    let skip = if layer == self.layers_per_block { above } else { out };
                    hidden + skip
                })
                .collect();
            UpBlock::new(
                &channels_in,
                resnet(out, out),
                crossed.then(|| transformer(block)),
                block > 0,
                device,
            )
        });
        Ok(UNet {
            conv_in: Convolution3x3::new(self.in_channels, channels[0], device),
            time_embedding: TimestepEmbedding::new(channels[0], time, device),
            down_blocks: down_blocks.collect(),
            mid_block: MidBlock::new(
                resnet(channels[last], channels[last]),
                transformer(last),
                device,
            ),
            up_blocks: up_blocks.collect(),
            conv_norm_out: GroupNorm::new(channels[0], self.norm_num_groups, self.norm_eps, device),
            conv_out: Convolution3x3::new(channels[0], self.out_channels, device),
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        })
    }
}

impl<B: Backend> UNet<B> {
    /// [`Self::predict`] for a condition that is needed once; see [`Self::condition`].
    ///
    /// # Shapes
    /// - sample, timesteps and output: as there
    /// - encoder_hidden_states: `[b, m, cross_attention_dim]`
    /// - encoder_mask: `[b, m]`
    pub fn forward(
        &self,
        sample: Tensor<B, 4>,
        timesteps: Tensor<B, 1>,
        encoder_hidden_states: Tensor<B, 3>,
        encoder_mask: Option<Tensor<B, 2, Bool>>,
    ) -> Tensor<B, 4> {
        self.predict(sample, timesteps, &self.condition(encoder_hidden_states, encoder_mask))
    }

    /// The output has the sample's type, whatever the weights': a sampler keeps its state in 32 bits.
    ///
    /// # Shapes
    /// - sample: `[b, in_channels, h, w]`, `h` and `w` divisible by 2 for each downsampling
    /// - timesteps: `[b]`, in training steps, in 32 bits
    /// - output: `[b, out_channels, h, w]`
    pub fn predict(
        &self,
        sample: Tensor<B, 4>,
        timesteps: Tensor<B, 1>,
        condition: &Condition<B>,
    ) -> Tensor<B, 4> {
        let (outside, inside) = (sample.dtype(), self.conv_in.weight.dtype());
        let time = self.embed_time(timesteps);
        let conditions = &mut condition.at(&time);
        let sample = channels_last(sample.cast(inside));
        let mut hidden = self.conv_in.forward(sample, Stride::One);
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, conditions, &mut skips);
        }
        hidden = self.mid_block.forward(hidden, conditions);
        for block in &self.up_blocks {
            hidden = block.forward(hidden, conditions, &mut skips);
        }
        let hidden = self.conv_norm_out.forward_silu(hidden);
        channels_first(self.conv_out.forward(hidden, Stride::One)).cast(outside)
    }

    /// The time embedding after the silu that every residual block would apply to it.
    ///
    /// # Shapes
    /// - timesteps: `[b]`
    /// - output: `[b, 4 * block_out_channels[0]]`
    pub fn embed_time(&self, timesteps: Tensor<B, 1>) -> Tensor<B, 2> {
        let channels = self.conv_in.bias.dims()[0];
        let sinusoids =
            sinusoidal_embedding(timesteps, channels, self.flip_sin_to_cos, self.freq_shift);
        // Only now: 16 bits have no digits for the angles, which go up to the training steps.
        let sinusoids = sinusoids.cast(self.conv_in.weight.dtype());
        silu(self.time_embedding.forward(sinusoids))
    }
}
