use burn::prelude::*;
use burn::tensor::DType;

use super::deferred::exactly;
use super::gemm::{Batches, Left, Product};
use super::layout;
use super::{CudaOperation, CudaTensor, apply_to};
use crate::kernels::flex::primitive;
use crate::kernels::linear::Then;

/// Products of matrices, in 32 bits: sums are not rounded.
///
/// # Shapes
/// - left: `[g, m, k]`, right: `[g, k, n]`, also as transposes of what lies in memory
/// - output: `[g, m, n]`, of 32 bits
pub(in super::super) fn product<B: Backend>(
    left: &Tensor<B, 3>,
    right: &Tensor<B, 3>,
) -> Option<Tensor<B, 3>> {
    let ([g, m, _], [_, _, n]) = (left.dims(), right.dims());
    let inputs = vec![primitive(left), primitive(right)];
    (g <= u16::MAX.into()).then(|| apply_to(Products, inputs, [g, m, n], DType::F32))?
}

#[derive(Debug)]
struct Products;

impl CudaOperation for Products {
    fn launch(&self, inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let [left, right] = exactly(inputs);
        let [g, m, k] = layout::dims(&left);
        let [_, _, n] = layout::dims(&right);
        let (left, left_layout, left_stride) = layout::matrices(left);
        let (right, right_layout, right_stride) = layout::matrices(right);
        let product = Product {
            sizes: [m, n, k],
            left: (&left, Left::Matrix(left_layout)),
            right: (&right, right_layout),
            bias: None,
            then: Then::Activate(None),
            residual: None,
            batches: Batches { count: g, left: left_stride, right: right_stride },
        };
        product.launch_wide(output)
    }
}
