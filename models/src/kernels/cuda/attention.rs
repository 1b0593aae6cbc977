use std::sync::LazyLock;

use burn::prelude::*;

use super::deferred::exactly;
use super::launch::{Kernel, Piece};
use super::layout::{self, contiguous, positions};
use super::{CudaOperation, CudaTensor, PRELUDE, apply, bits};
use super::{defines, empty_like, multiprocessors, shared_limit};
use crate::kernels::flex::primitive;

static ATTENTION: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("attention.cu")));

/// The widest head whose sums a block keeps in registers.
const WIDEST: usize = 256;

/// The most blocks of a grid's second and third dimension.
const MOST: usize = u16::MAX as usize;

/// Multi-head attention without dropout.
///
/// # Shapes
/// - query: `[b, n, c]`, `heads` divides `c`
/// - key, value: `[b, m, c]`
/// - bias: `[1 or b, 1 or n, m]`, of 32 bits
/// - output: `[b, n, c]`
pub(in super::super) fn attention<B: Backend>(
    [query, key, value]: [&Tensor<B, 3>; 3],
    heads: usize,
    bias: Option<&Tensor<B, 3>>,
) -> Option<Tensor<B, 3>> {
    let output = query.dims();
    let [b, _, c] = output;
    let width = c / heads;
    if !width.is_multiple_of(8) || width > WIDEST || b > MOST || heads > MOST {
        return None;
    }
    let mut inputs: Vec<_> = [query, key, value].map(primitive).into();
    inputs.extend(bias.map(primitive));
    apply(Attention { heads }, inputs, output)
}

#[derive(Debug)]
struct Attention {
    heads: usize,
}

impl CudaOperation for Attention {
    const WIDE: &'static [usize] = &[3];

    fn launch(&self, mut inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor {
        let bias = inputs.drain(3..).next().map(in_rows);
        let inputs: [_; 3] = exactly(inputs);
        let [b, n, c] = layout::dims(&inputs[0]);
        let [_, m, _] = layout::dims(&inputs[1]);
        let width = c / self.heads;
        let [(query, q_row), (key, k_row), (value, v_row)] = inputs.map(|x| positions(x, 8));
        let client = &query.client;
        let output = empty_like(&query, output);
        let blocks = n * self.heads * b;
        let card = (multiprocessors(client), shared_limit(client));
        let blocks = Blocks::of(width, n, blocks, bias.is_some(), card);
        let Blocks { rows, keys, of_warp } = blocks;
        let kernel = Kernel {
            entry: "attention",
            pieces: vec![*PRELUDE, *ATTENTION],
            defines: defines(
                &query,
                [
                    ("D", width),
                    ("BIAS", bias.is_some().into()),
                    ("ROWS", rows),
                    ("KEYS", keys),
                    ("WARP_ROWS", of_warp),
                ],
            ),
            threads: rows / of_warp * 32,
            shared: blocks.shared(width),
        };
        let [bias_batch, bias_row] = bias.as_ref().map_or([0; 2], |bias| {
            let sizes = layout::dims::<3>(bias);
            [0, 1].map(|i| if sizes[i] == 1 { 0 } else { bias.meta.strides[i] })
        });
        let scale = bits(1.0 / (width as f32).sqrt());
        let [n_, m_, heads, q_row, k_row, v_row, bias_batch, bias_row] =
            [n, m, self.heads, q_row, k_row, v_row, bias_batch, bias_row].map(|x| x as u64);
        let info = vec![n_, m_, heads, q_row, k_row, v_row, scale, bias_batch, bias_row];
        let bias = bias.as_ref().map_or(&query.handle, |bias| &bias.handle);
        let buffers = [&query.handle, &key.handle, &value.handle, bias, &output.handle];
        kernel.launch(client, [n.div_ceil(rows), self.heads, b], &buffers, info);
        output
    }
}

/// A bias whose rows of numbers have no gaps; copied where they have. The rows may lie anywhere.
fn in_rows(bias: CudaTensor) -> CudaTensor {
    let [_, _, m] = layout::dims(&bias);
    if m == 1 || bias.meta.strides[2] == 1 { bias } else { contiguous(bias) }
}

/// Queries of a block, keys of a step, and queries of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blocks {
    rows: usize,
    keys: usize,
    of_warp: usize,
}

impl Blocks {
    /// The fastest of those that were timed (`benches/cuda/attention_norms.py`), fit the shared memory and leave no
    /// multiprocessor without a block; `all` are the queries of all heads of all samples.
    fn of(
        width: usize,
        n: usize,
        all: usize,
        biased: bool,
        (multiprocessors, shared_limit): (usize, usize),
    ) -> Self {
        let many = n > 64 && all >= 128 * multiprocessors;
        // Twice the queries read a key half as often, where registers hold them.
        let long = many && n >= 1024 && !biased && (40..=128).contains(&width);
        let kinds = [
            (long, [128, 64, 32]),
            (many && width <= 80, [128, 64, 16]),
            (true, [64, 64, 16]),
            (true, [64, 32, 16]),
        ];
        kinds
            .into_iter()
            .filter(|(fits, _)| *fits)
            .map(|(_, [rows, keys, of_warp])| Self { rows, keys, of_warp })
            .find(|blocks| blocks.shared(width) <= shared_limit)
            .expect("the smallest block fits any card of compute capability 8.0")
    }

    /// Bytes of shared memory: two steps' keys and values, and the queries where registers do not hold them.
    fn shared(&self, width: usize) -> usize {
        let queries = if width * self.of_warp > 2048 { self.rows } else { 0 };
        (4 * self.keys + queries) * (32 * width.div_ceil(16) + 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_the_shared_memory() {
        for width in (8..=WIDEST).step_by(8) {
            for card in [(132, 232_448), (28, 101_376)] {
                for (n, biased) in [(1, false), (77, true), (4096, false), (4096, true)] {
                    let blocks = Blocks::of(width, n, 16 * n, biased, card);
                    assert!(blocks.shared(width) <= card.1, "{width}: {blocks:?}");
                    assert!(blocks.rows <= 2 * blocks.keys);
                }
            }
        }
        let of = |n, biased| {
            let Blocks { rows, keys, of_warp } = Blocks::of(64, n, 64 * n, biased, (132, 232_448));
            [rows, keys, of_warp]
        };
        assert_eq!(of(4096, false), [128, 64, 32]);
        assert_eq!(of(4096, true), [128, 64, 16]);
        assert_eq!(of(64, false), [64, 64, 16]);
    }
}
