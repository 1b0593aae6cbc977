use burn::prelude::*;

use super::deferred::exactly;
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
    let operation = Linear { then, biased: bias.is_some() };
    let mut inputs = vec![primitive(input), primitive(weight)];
    inputs.extend(bias.map(primitive));
    inputs.extend(residual.map(primitive));
    apply(operation, inputs, output)
}

#[derive(Debug)]
struct Linear {
    then: Then,
    /// Whether there is a bias before the residual.
    biased: bool,
}

impl CudaOperation for Linear {
    fn launch(&self, inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let mut rest = inputs.into_iter();
        let [input, weight] = exactly(rest.by_ref().take(2).collect());
        let bias = if self.biased { rest.next() } else { None }.map(contiguous);
        let residual = rest.next().map(contiguous);
        let (input, left, m) = layout::rows(input);
        let [k, n] = layout::dims(&weight);
        let (weight, right) = layout::matrix(weight);
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
