use serde::{Deserialize, Serialize};

use crate::layers::{ConfigError, LAYERS_OF_LEVEL, LEVELS};

/// A kind of block of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks and a downsampling.
    DownEncoderBlock2D,
}

/// A kind of block of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks and an upsampling.
    UpDecoderBlock2D,
}

/// The layout of diffusers' `AutoencoderKL`, with its keys. The defaults are Stable Diffusion's.
///
/// Keys of diffusers that are absent here have their default there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of the picture.
    pub in_channels: usize,
    /// Channels of the decoded picture.
    pub out_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// From the highest resolution to the lowest.
    pub down_block_types: Vec<DownBlockType>,
    /// From the lowest resolution to the highest.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels of each block, from the highest resolution to the lowest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block of the encoder; one more in the decoder's.
    pub layers_per_block: usize,
    /// Groups of every normalisation.
    pub norm_num_groups: usize,
    /// Latents times this have about unit variance; for the caller's use.
    pub scaling_factor: f64,
    /// Self-attention between the two residual blocks in the middle.
    pub mid_block_add_attention: bool,
    /// A 1x1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// A 1x1 convolution before the decoder.
    pub use_post_quant_conv: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            down_block_types: vec![DownBlockType::DownEncoderBlock2D; 4],
            up_block_types: vec![UpBlockType::UpDecoderBlock2D; 4],
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            mid_block_add_attention: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
        }
    }
}

/// A config that describes no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VaeConfigError {
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
    /// The groups of the normalisations do not divide the channels of a block.
    #[error(
        "block_out_channels[{block}] is {channels}, which norm_num_groups ({groups}) does not divide"
    )]
    Groups {
        /// Index of the block.
        block: usize,
        /// Its channels.
        channels: usize,
        /// The groups.
        groups: usize,
    },
}

impl VaeConfig {
    /// Checks what the layout demands of the values.
    ///
    /// # Errors
    /// Names the first key that does not fit.
    pub fn check(&self) -> Result<(), VaeConfigError> {
        let expected = self.block_out_channels.len();
        for (key, found) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            if found != expected {
                return Err(VaeConfigError::Length { key, found, expected });
            }
        }
        let widest = self.block_out_channels.iter().copied().max().unwrap_or(0);
        ConfigError::check_sizes(&[
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("the number of block_out_channels", expected),
            ("the largest of block_out_channels", widest),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
        ])?;
        ConfigError::check_limit(&[("the number of block_out_channels", expected)], LEVELS)?;
        let layers = [("layers_per_block", self.layers_per_block)];
        ConfigError::check_limit(&layers, LAYERS_OF_LEVEL)?;
        let groups = self.norm_num_groups;
        for (block, &channels) in self.block_out_channels.iter().enumerate() {
            if channels == 0 || !channels.is_multiple_of(groups) {
                return Err(VaeConfigError::Groups { block, channels, groups });
            }
        }
        Ok(())
    }

    /// How many pixels one latent pixel stands for, along one side.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}
