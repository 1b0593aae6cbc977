//! Layer normalisation with its fast path; burn's own has no backward pass of one piece.

use burn::module::{Initializer, Param};
use burn::prelude::*;

use crate::kernels;

/// Layer normalisation (Ba et al. 2016) over the last dimension.
///
/// `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// `[width]`, PyTorch's `weight`.
    pub gamma: Param<Tensor<B, 1>>,
    /// `[width]`, PyTorch's `bias`.
    pub beta: Param<Tensor<B, 1>>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// Ones and zeros.
    pub fn new(width: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: Initializer::Zeros.init([width], device),
            epsilon,
        }
    }

    /// # Shapes
    /// - input and output: `[.., width]`
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        kernels::layer_norm(input, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}
