use burn::module::{Initializer, Param};
use burn::prelude::*;

use crate::kernels;

/// Group normalisation (Wu and He 2018) over channels-last pictures.
///
/// `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`, mean and variance over the height,
/// the width and the channels of a group.
#[derive(Module, Debug)]
pub struct GroupNorm<B: Backend> {
    /// `[c]`, PyTorch's `weight`.
    pub gamma: Param<Tensor<B, 1>>,
    /// `[c]`, PyTorch's `bias`.
    pub beta: Param<Tensor<B, 1>>,
    /// Number of groups; divides the number of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

impl<B: Backend> GroupNorm<B> {
    /// Ones and zeros. The caller's config has checked that `groups` divides `channels`.
    pub fn new(channels: usize, groups: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            groups,
            epsilon,
        }
    }

    /// # Shapes
    /// - input and output: `[b, h, w, c]`
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        self.apply(input, false)
    }

    /// The normalisation followed by `silu(x) = x * sigmoid(x)`, as every residual block needs it.
    ///
    /// # Shapes
    /// - input and output: `[b, h, w, c]`
    pub fn forward_silu(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        self.apply(input, true)
    }

    fn apply(&self, input: Tensor<B, 4>, silu: bool) -> Tensor<B, 4> {
        kernels::group_norm(
            input,
            self.gamma.val(),
            self.beta.val(),
            self.groups,
            self.epsilon,
            silu,
        )
    }
}
