use serde::{Deserialize, Serialize};

use crate::layers::{ConfigError, LAYERS_OF_LEVEL, LEVELS};

/// A kind of block on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks, each followed by a transformer.
    CrossAttnDownBlock2D,
    /// Residual blocks alone.
    DownBlock2D,
}

/// A kind of block on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks alone.
    UpBlock2D,
    /// Residual blocks, each followed by a transformer.
    CrossAttnUpBlock2D,
}

/// The kind of block in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlockType {
    /// A residual block, a transformer, a residual block.
    UNetMidBlock2DCrossAttn,
}

/// One value for all blocks, or one a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same for all.
    All(usize),
    /// From the highest resolution to the lowest.
    Each(Vec<usize>),
}

impl PerBlock {
    /// The value of a block. The config has been checked to have one.
    pub(crate) fn at(&self, block: usize) -> usize {
        match self {
            PerBlock::All(value) => *value,
            PerBlock::Each(values) => values[block],
        }
    }
}

/// The layout of diffusers' `UNet2DConditionModel`, with its keys and defaults
/// (Stable Diffusion 1.5 but for `cross_attention_dim`, which is 768 there).
///
/// Keys of diffusers that are absent here have their default there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetConfig {
    /// Height and width of the sample, in latent pixels, for the caller's use.
    pub sample_size: usize,
    /// Channels of the sample.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shifts the frequencies of the time embedding.
    pub freq_shift: f64,
    /// From the highest resolution to the lowest.
    pub down_block_types: Vec<DownBlockType>,
    /// In the middle.
    pub mid_block_type: MidBlockType,
    /// From the lowest resolution to the highest.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels of each block, from the highest resolution to the lowest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Groups of every normalisation.
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' normalisations.
    pub norm_eps: f64,
    /// Width of the condition.
    pub cross_attention_dim: usize,
    /// Transformer blocks in each transformer.
    pub transformer_layers_per_block: usize,
    /// Despite its name the number of attention heads, not their width: a slip of diffusers' that
    /// all published configs rely on (huggingface/diffusers, issue 2011).
    pub attention_head_dim: PerBlock,
    /// Linear layers instead of 1x1 convolutions around the transformers: the shape of published
    /// weights, nothing else. Both are linear layers here.
    pub use_linear_projection: bool,
}

impl Default for UNetConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            mid_block_type: MidBlockType::UNetMidBlock2DCrossAttn,
            up_block_types: vec![
                UpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
            ],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: 1,
            attention_head_dim: PerBlock::All(8),
            use_linear_projection: false,
        }
    }
}

/// A config that describes no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UNetConfigError {
    /// A list has another length than `block_out_channels`.
    #[error("{key} lists {found} blocks, block_out_channels {expected}")]
    Length {
        /// The list.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The length of `block_out_channels`.
        expected: usize,
    },
    /// A size is zero or beyond reason.
    #[error(transparent)]
    Size(#[from] ConfigError),
    /// A number of channels cannot be divided as asked.
    #[error("block_out_channels[{block}] is {channels}, which {key} ({divisor}) does not divide")]
    Indivisible {
        /// Index of the block.
        block: usize,
        /// Its channels.
        channels: usize,
        /// The key of the divisor.
        key: &'static str,
        /// The divisor.
        divisor: usize,
    },
    /// The time embedding has a sine and a cosine for each frequency.
    #[error(
        "block_out_channels[0] is {channels}; the time embedding needs an even number, and more than {needed}"
    )]
    TimeChannels {
        /// The channels.
        channels: usize,
        /// What they must exceed.
        needed: usize,
    },
}

impl UNetConfig {
    /// Stable Diffusion 1.5: runwayml/stable-diffusion-v1-5, `unet/config.json`.
    pub fn stable_diffusion_1_5() -> Self {
        Self { cross_attention_dim: 768, ..Self::default() }
    }

    /// Stable Diffusion 2.1-base: stabilityai/stable-diffusion-2-1-base, `unet/config.json`.
    pub fn stable_diffusion_2_1_base() -> Self {
        Self {
            cross_attention_dim: 1024,
            attention_head_dim: PerBlock::Each(vec![5, 10, 20, 20]),
            use_linear_projection: true,
            ..Self::default()
        }
    }

    /// Checks what the layout demands of the values.
    ///
    /// # Errors
    /// Names the first key that does not fit.
    pub fn check(&self) -> Result<(), UNetConfigError> {
        let blocks = self.block_out_channels.len();
        let heads = match &self.attention_head_dim {
            PerBlock::All(_) => blocks,
            PerBlock::Each(heads) => heads.len(),
        };
        for (key, found) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
            ("attention_head_dim", heads),
        ] {
            if found != blocks {
                return Err(UNetConfigError::Length { key, found, expected: blocks });
            }
        }
        let widest = self.block_out_channels.iter().copied().max().unwrap_or(0);
        ConfigError::check_sizes(&[
            ("sample_size", self.sample_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("the number of block_out_channels", blocks),
            ("the largest of block_out_channels", widest),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
            ("cross_attention_dim", self.cross_attention_dim),
            ("transformer_layers_per_block", self.transformer_layers_per_block),
        ])?;
        ConfigError::check_limit(&[("sample_size", self.sample_size)], 1 << LEVELS)?;
        ConfigError::check_limit(&[("the number of block_out_channels", blocks)], LEVELS)?;
        let layers = [
            ("layers_per_block", self.layers_per_block),
            ("transformer_layers_per_block", self.transformer_layers_per_block),
        ];
        ConfigError::check_limit(&layers, LAYERS_OF_LEVEL)?;
        for (block, &channels) in self.block_out_channels.iter().enumerate() {
            for (key, divisor) in [
                ("norm_num_groups", self.norm_num_groups),
                ("attention_head_dim", self.attention_head_dim.at(block)),
            ] {
                ConfigError::check_sizes(&[(key, divisor)])?;
                if channels == 0 || !channels.is_multiple_of(divisor) {
                    return Err(UNetConfigError::Indivisible { block, channels, key, divisor });
                }
            }
        }
        let channels = self.block_out_channels[0];
        let half = (channels / 2) as f64;
        if !channels.is_multiple_of(2) || half <= self.freq_shift {
            return Err(UNetConfigError::TimeChannels {
                channels,
                needed: (2.0 * self.freq_shift.max(0.0)) as usize,
            });
        }
        Ok(())
    }
}
