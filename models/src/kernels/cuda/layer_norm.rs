use burn::prelude::*;

use super::deferred::exactly;
use super::layout::{self, contiguous};
use super::{CudaOperation, CudaTensor, apply, bits, empty_like, norm};
use crate::kernels::flex::primitive;

/// Layer normalisation over the last dimension, computed in 32 bits.
///
/// # Shapes
/// - input and output: `[.., c]`
/// - gamma, beta: `[c]`, of 32 bits
pub(in super::super) fn layer_norm<B: Backend, const D: usize>(
    input: &Tensor<B, D>,
    gamma: &Tensor<B, 1>,
    beta: &Tensor<B, 1>,
    epsilon: f64,
) -> Option<Tensor<B, D>> {
    let output = input.dims();
    let inputs = vec![primitive(input), primitive(gamma), primitive(beta)];
    apply(LayerNormalisation { epsilon: epsilon as f32 }, inputs, output)
}

#[derive(Debug)]
struct LayerNormalisation {
    epsilon: f32,
}

/// Rows of a block, a warp's each.
const ROWS: usize = 4;

impl CudaOperation for LayerNormalisation {
    const WIDE: &'static [usize] = &[1, 2];

    fn launch(&self, inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let [input, gamma, beta] = exactly(inputs).map(contiguous);
        let [c] = layout::dims(&gamma);
        let rows = output.num_elements() / c;
        let output = empty_like(&input, output);
        let inputs = [&input, &gamma, &beta];
        let kernel = norm::kernel("layer_norm", 32 * ROWS, &inputs, c, Default::default());
        let buffers = [&input.handle, &gamma.handle, &beta.handle, &output.handle];
        let info = vec![rows as u64, c as u64, bits(self.epsilon)];
        kernel.launch(&input.client, [rows.div_ceil(ROWS), 1, 1], &buffers, info);
        output
    }
}
