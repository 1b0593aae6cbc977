use burn::prelude::*;
use burn_cubecl::kernel::into_contiguous;

use super::deferred::exactly;
use super::gemm::{Batches, Left, Pictures, Product};
use super::layout::{self, MatrixLayout, contiguous, is_contiguous};
use super::{CudaOperation, CudaTensor, apply};
use crate::kernels::flex::primitive;
use crate::kernels::linear::Then;

/// A 3x3 convolution over channels-last pictures as a product that gathers its left factor itself.
///
/// # Shapes
/// - input: `[b, h, w, in]`
/// - weight: `[out, in, 3, 3]`, best as `[out, 3, 3, in]` in memory
/// - bias: `[1 or b, out]`
/// - residual, which is added, and output: `[b, h', w', out]`
/// - step, before: the stride, and the zeros before each side; after each there is one
pub(in super::super) fn conv3x3<B: Backend>(
    input: &Tensor<B, 4>,
    weight: &Tensor<B, 4>,
    bias: &Tensor<B, 2>,
    residual: Option<&Tensor<B, 4>>,
    (step, before): (usize, usize),
) -> Option<Tensor<B, 4>> {
    let ([b, h, w, _], [out, ..]) = (input.dims(), weight.dims());
    let size = |side: usize| Some((side + before).checked_sub(2)? / step + 1);
    let output = [b, size(h)?, size(w)?, out];
    // Others would be spread over the output, which the kernel does not do.
    if residual.is_some_and(|residual| residual.dims() != output) {
        return None;
    }
    let mut inputs = vec![primitive(input), primitive(weight), primitive(bias)];
    inputs.extend(residual.map(primitive));
    apply(Convolution { step, before }, inputs, output)
}

#[derive(Debug)]
struct Convolution {
    step: usize,
    before: usize,
}

impl CudaOperation for Convolution {
    fn launch(&self, mut inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let residual = inputs.drain(3..).next();
        let [input, weight, bias] = exactly(inputs);
        let [b, h, w, channels] = layout::dims(&input);
        let [_, out_h, out_w, out] = output.dims();
        let [biases, _] = layout::dims(&bias);
        let Self { step, before } = *self;
        let (input, bias, residual) =
            (contiguous(input), contiguous(bias), residual.map(contiguous));
        let (weight, stride) = taps_first(weight);
        let product = Product {
            sizes: [b * out_h * out_w, out, 9 * channels],
            left: (&input, Left::Pictures(Pictures { h, w, channels, out_h, out_w, step, before })),
            right: (&weight, MatrixLayout { by_columns: true, stride }),
            bias: Some((&bias, if biases == 1 { 0 } else { out_h * out_w })),
            then: Then::Activate(None),
            residual: residual.as_ref(),
            batches: Batches::ONE,
        };
        product.launch(output)
    }
}

/// The weight as `[out, 3, 3, in]` in memory, and the numbers from one output channel to the next; copied
/// where it does not lie so.
fn taps_first(mut weight: CudaTensor) -> (CudaTensor, usize) {
    weight.meta.permute(&[0, 2, 3, 1]).expect("a weight has four dimensions");
    match channel_stride(layout::dims(&weight), &weight.meta.strides) {
        Some(stride) => (weight, stride),
        None => {
            let stride = weight.meta.shape[1..].iter().product();
            (into_contiguous(weight), stride)
        }
    }
}

fn channel_stride(shape: [usize; 4], strides: &[usize]) -> Option<usize> {
    let count = shape[1..].iter().product();
    let stride = if shape[0] == 1 { count } else { strides[0] };
    (is_contiguous(&shape[1..], &strides[1..]) && stride >= count).then_some(stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_read_where_its_channels_are_innermost() {
        let shape = [8, 3, 3, 4];
        assert_eq!(channel_stride(shape, &[36, 12, 4, 1]), Some(36));
        assert_eq!(channel_stride(shape, &[40, 12, 4, 1]), Some(40));
        // PyTorch's order, seen with the channels last.
        assert_eq!(channel_stride(shape, &[36, 3, 1, 9]), None);
        // Of one channel both orders are the same.
        assert_eq!(channel_stride([8, 3, 3, 1], &[9, 3, 1, 9]), Some(9));
    }
}
