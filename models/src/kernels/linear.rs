use burn::nn::Linear;
use burn::prelude::*;

/// A linear layer over the last dimension, as one matrix product.
///
/// burn's own, given more than two dimensions, multiplies in batches, and its backward pass then
/// makes a gradient of the weight for each before it sums them.
///
/// # Shapes
/// - input: `[.., in]`
/// - output: `[.., out]`
pub fn linear<B: Backend, const D: usize>(layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D> {
    let mut dims = input.dims();
    let [channels_in, channels_out] = layer.weight.dims();
    dims[D - 1] = channels_out;
    let rows: Tensor<B, 2> = input.reshape([-1, channels_in as i32]);
    layer.forward(rows).reshape(dims)
}
