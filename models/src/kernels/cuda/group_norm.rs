use burn::prelude::*;

use super::deferred::exactly;
use super::launch::{Defines, Kernel};
use super::layout::{self, contiguous};
use super::{CudaOperation, CudaTensor, apply, bits, empty_like, multiprocessors, norm};
use crate::kernels::flex::primitive;

/// Group normalisation over channels-last pictures, computed in 32 bits, followed by silu where asked for.
///
/// # Shapes
/// - input and output: `[b, h, w, c]`
/// - gamma, beta: `[c]`, of 32 bits, `groups` divides `c`
pub(in super::super) fn group_norm<B: Backend>(
    input: &Tensor<B, 4>,
    gamma: &Tensor<B, 1>,
    beta: &Tensor<B, 1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Option<Tensor<B, 4>> {
    let output = input.dims();
    if output[0] > u16::MAX as usize || output[3] > WIDEST || groups > MOST_GROUPS {
        return None;
    }
    let operation = GroupNormalisation { groups, epsilon: epsilon as f32, silu };
    apply(operation, vec![primitive(input), primitive(gamma), primitive(beta)], output)
}

#[derive(Debug)]
struct GroupNormalisation {
    groups: usize,
    epsilon: f32,
    silu: bool,
}

/// Channels and groups whose moments fit the shared memory of any card of compute capability 8.0.
const WIDEST: usize = 8192;
const MOST_GROUPS: usize = 4096;

/// Threads of a block.
const THREADS: usize = 512;

/// Numbers that are worth a block, at least.
const LEAST: usize = 1 << 13;

/// Pixels that a block takes of each of `b` pictures: each reads the moments of all the others, so that there
/// are no more than run at a time.
fn chunk([b, pixels, c]: [usize; 3], multiprocessors: usize) -> usize {
    let blocks = (multiprocessors / b).max(1);
    pixels.div_ceil(blocks).max(LEAST.div_ceil(c)).min(pixels)
}

impl CudaOperation for GroupNormalisation {
    const WIDE: &'static [usize] = &[1, 2];

    fn launch(&self, inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let [input, gamma, beta] = exactly(inputs).map(contiguous);
        let [b, h, w, c] = layout::dims(&input);
        let pixels = h * w;
        let client = &input.client;
        let chunk = chunk([b, pixels, c], multiprocessors(client));
        let chunks = pixels.div_ceil(chunk);
        let output = empty_like(&input, output);
        let sums = client.empty(b * chunks * self.groups * 3 * size_of::<f32>());
        let inputs = [&input, &gamma, &beta];
        let others = Defines::from([("SILU", self.silu.into())]);
        let kernel = norm::kernel("group_norm_sums", THREADS, &inputs, c, others);
        let shared = 8 * c.max(THREADS * norm::width(&kernel));
        let sum = Kernel { shared, ..kernel };
        let shared = 4 * (3 * THREADS.max(self.groups) + 2 * self.groups);
        let normalise = Kernel { entry: "group_norm", shared, ..sum.clone() };
        let sizes = [b, pixels, c, self.groups].map(|size| size as u64);
        let info = [&sizes[..], &[bits(self.epsilon), chunk as u64]].concat();
        let grid = [chunks, b, 1];
        sum.launch(client, grid, &[&input.handle, &sums], info.clone());
        let buffers = [&input.handle, &sums, &gamma.handle, &beta.handle, &output.handle];
        normalise.launch(client, grid, &buffers, info);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_about_a_block_a_multiprocessor() {
        assert_eq!(chunk([1, 4096, 320], 132), 32);
        assert_eq!(chunk([2, 4096, 320], 132), 63);
        // Many pictures, few pixels.
        assert_eq!(chunk([200, 64, 1280], 132), 64);
        assert_eq!(chunk([1, 64, 32], 132), 64);
        assert_eq!(chunk([1, 1, 32], 132), 1);
    }
}
