use burn::prelude::*;

/// Classifier-free guidance (Ho and Salimans 2022): away from the unconditional prediction, or
/// from that of a negative prompt, which takes its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// 1 is the conditional prediction alone; Stable Diffusion's default is 7.5.
    pub scale: f64,
}

impl Guidance {
    /// Both conditions in one batch: the unconditional or negative half first.
    ///
    /// # Shapes
    /// - negative, positive: `[b, ..]`
    /// - output: `[2b, ..]`
    pub fn condition<B: Backend, const D: usize, K: burn::tensor::BasicOps<B>>(
        negative: Tensor<B, D, K>,
        positive: Tensor<B, D, K>,
    ) -> Tensor<B, D, K> {
        Tensor::cat(vec![negative, positive], 0)
    }

    /// `negative + scale * (positive - negative)`.
    ///
    /// # Shapes
    /// - output of the model: `[2b, c, h, w]`
    /// - output: `[b, c, h, w]`
    pub fn combine<B: Backend>(self, output: Tensor<B, 4>) -> Tensor<B, 4> {
        let half = output.dims()[0] / 2;
        let negative = output.clone().narrow(0, 0, half);
        let positive = output.narrow(0, half, half);
        negative * (1.0 - self.scale) + positive * self.scale
    }
}
