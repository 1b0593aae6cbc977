//! What the U-Net and the autoencoder are both built of.
//!
//! Pictures are channels-last here, `[b, h, w, c]`: a 3x3 convolution is then one matrix product
//! over gathered rows, a 1x1 convolution and the attention's projections are plain linear layers
//! without a copy, and nothing is transposed between a residual block and a transformer block.
//! The 3x3 weights keep PyTorch's layout `[out, in, 3, 3]`; a 1x1 convolution is a linear layer.

mod convolution;
mod group_norm;
mod resample;
mod resnet;

pub use convolution::{Convolution3x3, Stride};
pub use group_norm::GroupNorm;
pub use resample::{Downsample, Upsample};
pub use resnet::{ResnetBlock, ResnetSizes};

use burn::prelude::*;

/// `[b, c, h, w]` to `[b, h, w, c]`.
pub(crate) fn channels_last<B: Backend>(pictures: Tensor<B, 4>) -> Tensor<B, 4> {
    pictures.permute([0, 2, 3, 1])
}

/// `[b, h, w, c]` to `[b, c, h, w]`.
pub(crate) fn channels_first<B: Backend>(pictures: Tensor<B, 4>) -> Tensor<B, 4> {
    pictures.permute([0, 3, 1, 2])
}
