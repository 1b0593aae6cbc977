use burn::module::{Initializer, Param};
use burn::prelude::*;

use crate::kernels;

/// How a 3x3 convolution moves over the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// Stride 1, one zero on every side: the size stays.
    One,
    /// Stride 2, one zero on every side, as the U-Net downsamples.
    Two,
    /// Stride 2, one zero on the right and at the bottom only, as the autoencoder downsamples.
    TwoPaddedAfter,
}

/// A 3x3 convolution with bias, `[b, h, w, in]` to `[b, h', w', out]`.
#[derive(Module, Debug)]
pub struct Convolution3x3<B: Backend> {
    /// `[out, in, 3, 3]`.
    pub weight: Param<Tensor<B, 4>>,
    /// `[out]`.
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Convolution3x3<B> {
    /// PyTorch's default initialisation: uniform within `1 / sqrt(fan in)`.
    pub fn new(channels_in: usize, channels_out: usize, device: &B::Device) -> Self {
        let (fan_in, fan_out) = (Some(9 * channels_in), Some(9 * channels_out));
        let initializer =
            Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false };
        let shape = [channels_out, channels_in, 3, 3];
        Self {
            weight: initializer.init_with(shape, fan_in, fan_out, device),
            bias: initializer.init_with([channels_out], fan_in, fan_out, device),
        }
    }

    /// # Shapes
    /// - input: `[b, h, w, in]`
    /// - output: `[b, h', w', out]`, `h' = h` for [`Stride::One`], else half of it
    pub fn forward(&self, input: Tensor<B, 4>, stride: Stride) -> Tensor<B, 4> {
        let bias = self.bias.val().unsqueeze();
        kernels::conv3x3(input, self.weight.val(), bias, stride)
    }

    /// The convolution of stride 1, added to `residual`.
    ///
    /// # Shapes
    /// - input: `[b, h, w, in]`
    /// - residual and output: `[b, h, w, out]`
    pub fn forward_onto(&self, input: Tensor<B, 4>, residual: Tensor<B, 4>) -> Tensor<B, 4> {
        kernels::conv3x3_onto(input, self.weight.val(), self.bias.val().unsqueeze(), residual)
    }

    /// The convolution of stride 1 with `shift` added to every pixel of a sample.
    ///
    /// # Shapes
    /// - input: `[b, h, w, in]`
    /// - shift: `[b, out]`
    /// - output: `[b, h, w, out]`
    pub fn forward_shifted(&self, input: Tensor<B, 4>, shift: Tensor<B, 2>) -> Tensor<B, 4> {
        let bias = self.bias.val().unsqueeze::<2>() + shift;
        kernels::conv3x3(input, self.weight.val(), bias, Stride::One)
    }
}
