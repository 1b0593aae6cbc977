use burn::prelude::*;

use super::deferred::exactly;
use super::layout::{self, contiguous};
use super::{CudaOperation, CudaTensor, apply, empty_like, norm};
use crate::kernels::flex::primitive;

/// The first half of the last dimension times gelu of the second.
///
/// # Shapes
/// - input: `[b, n, 2c]`
/// - output: `[b, n, c]`
pub(in super::super) fn geglu<B: Backend>(input: &Tensor<B, 3>) -> Option<Tensor<B, 3>> {
    let [b, n, double] = input.dims();
    let output = [b, n, double / 2];
    // Threads are counted in 32 bits.
    if output.iter().product::<usize>() > u32::MAX as usize / 2 {
        return None;
    }
    apply(Geglu, vec![primitive(input)], output)
}

#[derive(Debug)]
struct Geglu;

/// Threads of a block.
const THREADS: usize = 256;

impl CudaOperation for Geglu {
    fn launch(&self, inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let [input] = exactly(inputs).map(contiguous);
        let [b, n, c] = output.dims();
        let [_, _, double] = layout::dims(&input);
        debug_assert_eq!(double, 2 * c);
        let output = empty_like(&input, output);
        let kernel = norm::kernel("geglu", THREADS, &[&input], c, Default::default());
        let grid = [(b * n * c).div_ceil(THREADS * norm::width(&kernel)), 1, 1];
        let info = vec![(b * n) as u64, c as u64];
        kernel.launch(&input.client, grid, &[&input.handle, &output.handle], info);
        output
    }
}
