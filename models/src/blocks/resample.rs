use burn::prelude::*;

use super::{Convolution3x3, Stride};

/// Halves height and width by a convolution of stride 2 (diffusers' `Downsample2D`).
#[derive(Module, Debug)]
pub struct Downsample<B: Backend> {
    /// Stride 2; the padding is the caller's.
    pub conv: Convolution3x3<B>,
}

impl<B: Backend> Downsample<B> {
    /// Keeps the number of channels.
    pub fn new(channels: usize, device: &B::Device) -> Self {
        Self { conv: Convolution3x3::new(channels, channels, device) }
    }

    /// # Shapes
    /// - input: `[b, h, w, c]`
    /// - output: `[b, h/2, w/2, c]`
    pub fn forward(&self, input: Tensor<B, 4>, stride: Stride) -> Tensor<B, 4> {
        self.conv.forward(input, stride)
    }
}

/// Doubles height and width by repeating pixels, then convolves (diffusers' `Upsample2D`).
#[derive(Module, Debug)]
pub struct Upsample<B: Backend> {
    /// Stride 1.
    pub conv: Convolution3x3<B>,
}

impl<B: Backend> Upsample<B> {
    /// Keeps the number of channels.
    pub fn new(channels: usize, device: &B::Device) -> Self {
        Self { conv: Convolution3x3::new(channels, channels, device) }
    }

    /// # Shapes
    /// - input: `[b, h, w, c]`
    /// - output: `[b, 2h, 2w, c]`
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let [b, h, w, c] = input.dims();
        // Concatenation, because an expanded tensor is made contiguous one number at a time.
        let lines = Tensor::cat(vec![input.clone(), input], 3).reshape([b, h, 2 * w * c]);
        let doubled = Tensor::cat(vec![lines.clone(), lines], 2).reshape([b, 2 * h, 2 * w, c]);
        self.conv.forward(doubled, Stride::One)
    }
}
