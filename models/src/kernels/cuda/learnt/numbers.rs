//! Launches of kernels that have `common.cu` before them.

use std::sync::LazyLock;

use burn::cubecl::server::Handle;
use burn::prelude::*;
use burn::tensor::DType;

use super::{DROPOUT, FACTOR, empty};
use crate::dropout::KeyedMask;
use crate::kernels::cuda::gemm::act;
use crate::kernels::cuda::launch::{Defines, Kernel, Piece};
use crate::kernels::cuda::{ACTIVATION, Client, CudaTensor, PRELUDE, bits};
use crate::kernels::linear::Then;
use crate::layers::Activation;

static COMMON: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("common.cu")));

/// What comes after it.
pub(super) static ELEMENTWISE: Text = LazyLock::new(|| Piece::new(include_str!("elementwise.cu")));
pub(super) static NORM: Text = LazyLock::new(|| Piece::new(include_str!("norm.cu")));
pub(super) static CONV3X3: Text = LazyLock::new(|| Piece::new(include_str!("conv3x3.cu")));

/// A file of kernels.
pub(super) type Text = LazyLock<Piece>;

/// The numbers of `struct Info`; those that a kernel does not read are 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Info {
    pub(super) rows: usize,
    pub(super) c: usize,
    pub(super) chunk: usize,
    pub(super) count: usize,
    pub(super) groups: usize,
    pub(super) epsilon: f32,
    /// Learning rate, decay of both moments, what is kept of the weights, what the moments are divided by.
    pub(super) adamw: [f32; 6],
    /// Lines and columns of the input and of the output, the stride, and the zeros before each side.
    pub(super) pictures: [usize; 6],
    pub(super) mask: Option<KeyedMask>,
}

/// The key of a mask, how many of 2^16 numbers it drops, and what it multiplies the others by.
pub(super) fn of_mask(mask: Option<KeyedMask>) -> [u64; 3] {
    mask.map_or([0; 3], |mask| [mask.key, mask.dropped.into(), bits(mask.keep())])
}

impl Info {
    fn numbers(&self) -> Vec<u64> {
        let Self { rows, c, chunk, count, groups, epsilon, adamw, pictures, mask } = *self;
        let sizes = [rows, c, chunk, count, groups].into_iter().map(|size| size as u64);
        let numbers = sizes.chain([bits(epsilon)]).chain(adamw.map(bits));
        numbers.chain(pictures.map(|size| size as u64)).chain(of_mask(mask)).collect()
    }
}

/// Numbers of a block of the kernels that take each for itself.
const EACH: usize = 1024;

/// Columns of a block of those that sum them.
const COLUMNS: usize = 32;

/// Launches a kernel for each of `info.count` numbers.
pub(super) fn each(
    (text, entry): (&'static Text, &'static str),
    activation: Option<Activation>,
    client: &Client,
    buffers: &[&Handle],
    info: Info,
) {
    let grid = [info.count.div_ceil(EACH), 1, 1];
    launch((text, entry, 256), activation, client, grid, buffers, info);
}

/// Launches a kernel of so many threads a block.
pub(super) fn launch(
    (text, entry, threads): (&'static Text, &'static str, usize),
    activation: Option<Activation>,
    client: &Client,
    grid: [usize; 3],
    buffers: &[&Handle],
    info: Info,
) {
    let defines = Defines::from([("HALF", 0), ("ACT", act(Then::Activate(activation)))]);
    let pieces = vec![*PRELUDE, *ACTIVATION, *COMMON, *DROPOUT, **text];
    let kernel = Kernel { entry, pieces, defines, threads, shared: 0 };
    kernel.launch(client, grid, buffers, info.numbers());
}

/// Tensor without gaps, rounded to factors of a product.
pub(super) fn rounded(numbers: &CudaTensor) -> CudaTensor {
    let output = empty(numbers, numbers.meta.shape.clone(), FACTOR);
    let info = Info { count: numbers.meta.shape.num_elements(), ..Info::default() };
    let buffers = [&numbers.handle, &output.handle];
    each((&ELEMENTWISE, "round_numbers"), None, &numbers.client, &buffers, info);
    output
}

/// A gradient of `[rows, c]` numbers without gaps, behind the activation that was given what is `kept`, as a factor of a
/// product; and the sums of its columns over every `chunk` rows, `[chunks, c]`.
pub(super) fn rounded_with_sums(
    gradient: &CudaTensor,
    behind: Option<(Activation, &CudaTensor)>,
    [rows, c]: [usize; 2],
    chunk: usize,
) -> (CudaTensor, CudaTensor) {
    let output = empty(gradient, gradient.meta.shape.clone(), FACTOR);
    let chunks = rows.div_ceil(chunk);
    let sums = empty(gradient, Shape::new([chunks, c]), DType::F32);
    // Without an activation nothing is read there.
    let kept = behind.map_or(&output.handle, |(_, kept)| &kept.handle);
    let buffers = [&gradient.handle, kept, &output.handle, &sums.handle];
    let info = Info { rows, c, chunk, ..Info::default() };
    let activation = behind.map(|(activation, _)| activation);
    let kernel = (&ELEMENTWISE, "round_columns");
    columns(kernel, activation, &gradient.client, chunks, &buffers, info);
    (output, sums)
}

/// Rows that are summed one after the other: few enough for many blocks, and at most [`CHUNKS`] parts.
pub(super) fn chunk(rows: usize) -> usize {
    rows.div_ceil(CHUNKS).max(64)
}

const CHUNKS: usize = 128;

/// The sum of what all chunks have, `[chunks, ..]` to this shape.
pub(super) fn added(sums: &CudaTensor, shape: Shape) -> CudaTensor {
    let count = shape.num_elements();
    let output = empty(sums, shape, DType::F32);
    let chunk = sums.meta.shape.num_elements() / count;
    let info = Info { chunk, count, ..Info::default() };
    let buffers = [&sums.handle, &output.handle];
    let kernel = (&ELEMENTWISE, "add_chunks", 256);
    launch(kernel, None, &sums.client, [count.div_ceil(256), 1, 1], &buffers, info);
    output
}

/// Launches a kernel of sums of columns over chunks.
pub(super) fn columns(
    (text, entry): (&'static Text, &'static str),
    activation: Option<Activation>,
    client: &Client,
    chunks: usize,
    buffers: &[&Handle],
    info: Info,
) {
    let grid = [info.c.div_ceil(COLUMNS), chunks, 1];
    launch((text, entry, 256), activation, client, grid, buffers, info);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_taken_in_few_parts_of_many_rows() {
        assert_eq!(chunk(1), 64);
        assert_eq!(chunk(4096), 64);
        assert_eq!(chunk(40_000), 313);
        assert!(40_000_usize.div_ceil(chunk(40_000)) <= CHUNKS);
    }
}
