use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::silu;

use crate::kernels::linear_of_few;

/// Sines and cosines of a timestep at geometrically spaced frequencies (Vaswani et al. 2017, as
/// diffusers' `get_timestep_embedding`): `sin(t * 10000^(-i / (d/2 - shift)))` and the cosines.
///
/// # Shapes
/// - timesteps: `[b]`
/// - output: `[b, channels]`, `channels` even
pub fn sinusoidal_embedding<B: Backend>(
    timesteps: Tensor<B, 1>,
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
) -> Tensor<B, 2> {
    let half = channels / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| (-(10000f64.ln()) * i as f64 / (half as f64 - freq_shift)).exp() as f32)
        .collect();
    let frequencies =
        Tensor::<B, 1>::from_data(TensorData::from(frequencies.as_slice()), &timesteps.device());
    let angles = timesteps.unsqueeze_dim::<2>(1) * frequencies.unsqueeze_dim::<2>(0); // [b, d/2]
    let (sines, cosines) = (angles.clone().sin(), angles.cos());
    if flip_sin_to_cos {
        Tensor::cat(vec![cosines, sines], 1)
    } else {
        Tensor::cat(vec![sines, cosines], 1)
    }
}

/// Two linear layers with a silu between them (diffusers' `TimestepEmbedding`).
#[derive(Module, Debug)]
pub struct TimestepEmbedding<B: Backend> {
    /// Sinusoids to embedding.
    pub linear_1: Linear<B>,
    /// Embedding to embedding.
    pub linear_2: Linear<B>,
}

impl<B: Backend> TimestepEmbedding<B> {
    /// `channels` sinusoids to an embedding of `width`.
    pub fn new(channels: usize, width: usize, device: &B::Device) -> Self {
        Self {
            linear_1: LinearConfig::new(channels, width).init(device),
            linear_2: LinearConfig::new(width, width).init(device),
        }
    }

    /// # Shapes
    /// - input: `[b, channels]`
    /// - output: `[b, width]`
    pub fn forward(&self, sinusoids: Tensor<B, 2>) -> Tensor<B, 2> {
        linear_of_few(&self.linear_2, silu(linear_of_few(&self.linear_1, sinusoids)))
    }
}
