use burn::prelude::*;

use super::gemm::{Batches, Left, Product};
use super::layout::{self, contiguous};
use super::{CudaOperation, CudaTensor, apply};
use crate::kernels::flex::primitive;
use crate::kernels::linear::Then;

/// A linear layer over the last dimension, what follows it, and what is added to that.
///
/// # Shapes
/// - input: `[.., in]`
/// - weight: `[in, n]`, also as the transpose of what lies in memory
/// - bias: `[n]`
/// - residual and output: `[.., n]`, or `[.., n / 2]` where the second half of the columns gates the first
pub(in super::super) fn linear<B: Backend, const D: usize>(
    input: &Tensor<B, D>,
    weight: &Tensor<B, 2>,
    bias: Option<&Tensor<B, 1>>,
    then: Then,
    residual: Option<&Tensor<B, D>>,
) -> Option<Tensor<B, D>> {
    let [_, n] = weight.dims();
    let mut output = input.dims();
    output[D - 1] = match then {
        Then::Activate(_) => n,
        Then::Gate => n / 2,
    };
    // Others would be spread over the output, which the kernel does not do.
    if residual.is_some_and(|residual| residual.dims() != output) {
        return None;
    }
    let operation = Linear { then };
    let (input, weight) = (primitive(input), primitive(weight));
    match (bias.map(primitive), residual.map(primitive)) {
        (Some(bias), Some(residual)) => apply(operation, [input, weight, bias, residual], output),
        (Some(bias), None) => apply(operation, [input, weight, bias], output),
        (None, None) => apply(operation, [input, weight], output),
        (None, Some(_)) => None,
    }
}

#[derive(Debug)]
struct Linear {
    then: Then,
}

impl Linear {
    fn multiply(
        &self,
        [input, weight]: [CudaTensor; 2],
        [bias, residual]: [Option<CudaTensor>; 2],
        output: Shape,
    ) -> CudaTensor {
        let (input, left, m) = layout::rows(input);
        let [k, n] = layout::dims(&weight);
        let (weight, right) = layout::matrix(weight);
        let (bias, residual) = (bias.map(contiguous), residual.map(contiguous));
        let product = Product {
            sizes: [m, n, k],
            left: (&input, Left::Matrix(left)),
            right: (&weight, right),
            bias: bias.as_ref().map(|bias| (bias, 0)),
            then: self.then,
            residual: residual.as_ref(),
            batches: Batches::ONE,
        };
        product.launch(output)
    }
}

impl CudaOperation<2> for Linear {
    const WIDE: [bool; 2] = [false; 2];

    fn launch(&self, inputs: [CudaTensor; 2], output: Shape) -> CudaTensor {
        self.multiply(inputs, [None, None], output)
    }
}

impl CudaOperation<3> for Linear {
    const WIDE: [bool; 3] = [false; 3];

    fn launch(&self, [input, weight, bias]: [CudaTensor; 3], output: Shape) -> CudaTensor {
        self.multiply([input, weight], [Some(bias), None], output)
    }
}

impl CudaOperation<4> for Linear {
    const WIDE: [bool; 4] = [false; 4];

    fn launch(&self, inputs: [CudaTensor; 4], output: Shape) -> CudaTensor {
        let [input, weight, bias, residual] = inputs;
        self.multiply([input, weight], [Some(bias), Some(residual)], output)
    }
}
