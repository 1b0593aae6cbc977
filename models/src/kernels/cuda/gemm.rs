//! Launches `gemm.cu` on the tiles of `tiles.cu`: products of matrices, of which the left one may be the pixels
//! under a kernel.

use std::sync::LazyLock;

use burn::cubecl::server::{Handle, TensorMapBinding};
use burn::prelude::*;
use burn::tensor::DType;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;

use super::launch::{Kernel, Piece};
use super::layout::MatrixLayout;
use super::tile::{Tile, tile, whole};
use super::{ACTIVATION, Client, CudaTensor, PRELUDE, boxes, wgmma};
use super::{defines, empty_like, is_hopper, multiprocessors, shared_limit};
use crate::kernels::linear::Then;
use crate::layers::Activation;

static HOPPER: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("hopper.cu")));
static TILES: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("tiles.cu")));
static GEMM: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("gemm.cu")));

/// Threads of a block, of both kernels.
const THREADS: usize = 256;

/// `left * right + bias` and what follows, as one operation.
pub(super) struct Product<'a> {
    /// Rows and columns of the product, and what is summed over.
    pub(super) sizes: [usize; 3],
    pub(super) left: (&'a CudaTensor, Left),
    pub(super) right: (&'a CudaTensor, MatrixLayout),
    /// Its rows, and how many rows of the product one of them serves; 0: all. Of 32 bits where the product has them.
    pub(super) bias: Option<(&'a CudaTensor, usize)>,
    pub(super) then: Then,
    /// Added to what comes of that; without gaps.
    pub(super) residual: Option<&'a CudaTensor>,
    pub(super) batches: Batches,
}

/// As many products at once, and the numbers from one's factor to the next one's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batches {
    pub(super) count: usize,
    pub(super) left: usize,
    pub(super) right: usize,
}

impl Batches {
    pub(super) const ONE: Self = Self { count: 1, left: 0, right: 0 };
}

/// How the left matrix is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    Matrix(MatrixLayout),
    /// A row is the nine pixels that a pixel of the output is computed from.
    Pictures(Pictures),
}

/// Channels-last pictures without gaps, and how a 3x3 kernel moves over them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pictures {
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) channels: usize,
    pub(super) out_h: usize,
    pub(super) out_w: usize,
    pub(super) step: usize,
    /// Zeros above and on the left.
    pub(super) before: usize,
}

impl Product<'_> {
    /// The product, of this shape.
    pub(super) fn launch(&self, shape: Shape) -> CudaTensor {
        debug_assert!(self.bias.is_none_or(|(bias, _)| bias.dtype == self.left.0.dtype));
        let client = &self.left.0.client;
        let output = empty_like(self.left.0, shape);
        let [m, n, _] = self.sizes;
        let tile = tile(self.sizes, multiprocessors(client), shared_limit(client));
        if tile.splits == 1 {
            self.multiply(tile, &output.handle, None);
            return output;
        }
        let parts = self.batches.count * tile.splits;
        let partial = client.empty(parts * m * n * size_of::<f32>());
        self.multiply(tile, &output.handle, Some(&partial));
        let gemm = self.kernel(client, tile, false, true);
        let finish = Kernel { entry: "finish", shared: 0, ..gemm };
        let grid = [self.numbers_of_one().div_ceil(THREADS), 1, self.batches.count];
        let buffers = [&partial, self.bias(), self.residual(), &output.handle];
        finish.launch(client, grid, &buffers, self.info(tile));
        output
    }

    /// The product and a bias of 32 bits, without what follows, in 32 bits.
    pub(super) fn launch_wide(&self, shape: Shape) -> CudaTensor {
        debug_assert!(self.bias.is_none_or(|(bias, _)| bias.dtype == DType::F32));
        let a = self.left.0;
        let (client, device) = (a.client.clone(), a.device.clone());
        let output = empty_device_contiguous_dtype(client, device, shape, DType::F32);
        let tile = whole(self.sizes, multiprocessors(&a.client), shared_limit(&a.client));
        // One part of the sums is all of them.
        self.multiply(tile, &output.handle, Some(&output.handle));
        output
    }

    /// Launches the product: what was computed goes to `output`, or where there is room for parts of the
    /// sums, those go there.
    fn multiply(&self, tile: Tile, output: &Handle, partial: Option<&Handle>) {
        let (a, b) = (self.left.0, self.right.0);
        let (bias, residual) = (self.bias(), self.residual());
        let maps = self.maps(&a.client, tile);
        let tile = match maps {
            // NVRTC serialises `wgmma` where three stages are copied by all threads.
            None if is_hopper(&a.client) => Tile { stages: tile.stages.max(4), ..tile },
            _ => tile,
        };
        let gemm = self.kernel(&a.client, tile, maps.is_some(), partial.is_some());
        let [m, n, _] = self.sizes;
        let tiles = m.div_ceil(tile.bm) * n.div_ceil(tile.bn);
        let (grid, info) = ([tiles, tile.splits, self.batches.count], self.info(tile));
        // Without parts nothing is written there.
        let partial = partial.unwrap_or(output);
        match maps {
            Some(maps) => {
                let buffers = [bias, residual, output, partial, &a.handle, &b.handle];
                gemm.launch_mapped(&a.client, grid, maps.into(), &buffers, info);
            }
            None => {
                let buffers = [&a.handle, &b.handle, bias, residual, output, partial];
                gemm.launch(&a.client, grid, &buffers, info);
            }
        }
    }

    /// Numbers of the output of one product.
    fn numbers_of_one(&self) -> usize {
        let [m, n, _] = self.sizes;
        if matches!(self.then, Then::Gate) { m * (n / 2) } else { m * n }
    }

    /// The bias, or something in its place that is not read.
    fn bias(&self) -> &Handle {
        self.bias.map_or(&self.left.0.handle, |(bias, _)| &bias.handle)
    }

    /// The residual, or something in its place that is not read.
    fn residual(&self) -> &Handle {
        self.residual.map_or(&self.left.0.handle, |residual| &residual.handle)
    }

    /// Those of both factors, where Hopper's copy engine can bring all tiles.
    fn maps(&self, client: &Client, tile: Tile) -> Option<[TensorMapBinding; 2]> {
        if !is_hopper(client) || !self.lies_in_eights() {
            return None;
        }
        let [m, n, k] = self.sizes;
        let ((a, left), (b, right)) = (self.left, self.right);
        let gated = matches!(self.then, Then::Gate);
        let Batches { count, left: left_step, right: right_step } = self.batches;
        let right = boxes::right([k, n], right, tile, gated)?.batched(count, right_step).of(b);
        let left = match left {
            Left::Matrix(layout) => {
                boxes::left([m, k], layout, tile).batched(count, left_step).of(a)
            }
            Left::Pictures(of) => boxes::pictures(m / (of.out_h * of.out_w), of, tile)?.of(a),
        };
        Some([left, right])
    }

    fn kernel(&self, client: &Client, tile: Tile, mapped: bool, parts: bool) -> Kernel {
        let a_kind = match self.left.1 {
            Left::Matrix(MatrixLayout { by_columns, .. }) => usize::from(by_columns),
            Left::Pictures(_) => 2,
        };
        let b_kind = usize::from(!self.right.1.by_columns);
        let (hopper, blocks) = (is_hopper(client), tile.blocks(shared_limit(client)));
        let wide = self.bias.is_some_and(|(bias, _)| bias.dtype == DType::F32);
        let defines = defines(
            self.left.0,
            [
                ("BM", tile.bm),
                ("BN", tile.bn),
                ("STAGES", tile.stages),
                ("BLOCKS", blocks),
                ("A_KIND", a_kind),
                ("B_KIND", b_kind),
                ("BIAS", (self.bias.is_some() && !wide).into()),
                ("WIDE_BIAS", (self.bias.is_some() && wide).into()),
                ("RESIDUAL", self.residual.is_some().into()),
                ("ACT", act(self.then)),
                ("SPLIT", parts.into()),
                ("VECTOR", self.lies_in_eights().into()),
                ("WGMMA", hopper.into()),
                ("TMA", mapped.into()),
            ],
        );
        let mut pieces = vec![*PRELUDE];
        if hopper {
            pieces.push(*HOPPER);
            pieces.push(wgmma::piece(wgmma::Form {
                columns: tile.bn,
                half: defines["HALF"] == 1,
                a_by_columns: a_kind == 1,
                b_by_rows: b_kind == 1,
            }));
        }
        pieces.extend([*TILES, *ACTIVATION, *GEMM]);
        let threads = if mapped { THREADS + bringing(blocks) } else { THREADS };
        Kernel { entry: "gemm", pieces, defines, threads, shared: tile.shared() }
    }

    /// Whether every eight numbers that are copied at once begin at a multiple of 16 bytes and are of one row.
    fn lies_in_eights(&self) -> bool {
        let [m, n, k] = self.sizes;
        let (left, right) = (self.left.1, self.right.1);
        let of_left = match left {
            Left::Matrix(MatrixLayout { by_columns, stride }) => {
                [stride, if by_columns { m } else { k }]
            }
            Left::Pictures(Pictures { channels, .. }) => [channels; 2],
        };
        let of_right = [right.stride, if right.by_columns { k } else { n }];
        let steps = match self.batches {
            Batches { count: 1, .. } => [0; 2],
            Batches { left, right, .. } => [left, right],
        };
        // A tile has as many columns of the second half as of the first.
        let halves = if matches!(self.then, Then::Gate) { n / 2 } else { 0 };
        let numbers = [k, halves].into_iter().chain(of_left).chain(of_right).chain(steps);
        let begin = |tensor: &CudaTensor| tensor.handle.offset_start.unwrap_or(0);
        numbers.into_iter().all(|number| number.is_multiple_of(8))
            && [self.left.0, self.right.0]
                .into_iter()
                .all(|tensor| begin(tensor).is_multiple_of(16))
    }

    /// The numbers of `struct Info`, in its order.
    fn info(&self, tile: Tile) -> Vec<u64> {
        let [m, n, k] = self.sizes;
        let (lda, pictures) = match self.left.1 {
            Left::Matrix(MatrixLayout { stride, .. }) => (stride, [0; 8]),
            Left::Pictures(Pictures { h, w, channels, out_h, out_w, step, before }) => {
                (channels, [h, w, channels, out_h * out_w, out_w, step, before, 3])
            }
        };
        let batches = [self.batches.left, self.batches.right, self.numbers_of_one()];
        let rows_per_bias = self.bias.map_or(0, |(_, rows)| rows);
        let mut info = vec![m, n, k, lda, self.right.1.stride];
        info.extend(batches);
        info.extend([rows_per_bias, tile.k_per_split]);
        info.extend(pictures);
        info.push(tile.splits);
        info.into_iter().map(|number| number as u64).collect()
    }
}

/// Threads that have tiles brought: a warp where two blocks share a multiprocessor, else four, which can leave
/// the others their registers.
fn bringing(blocks: usize) -> usize {
    if blocks == 2 { 32 } else { 128 }
}

/// The number of what follows the product.
pub(super) fn act(then: Then) -> usize {
    match then {
        Then::Activate(None) => 0,
        Then::Activate(Some(Activation::Gelu)) => 1,
        Then::Activate(Some(Activation::GeluNew)) => 2,
        Then::Activate(Some(Activation::QuickGelu)) => 3,
        Then::Activate(Some(Activation::Relu)) => 4,
        Then::Activate(Some(Activation::Silu)) => 5,
        Then::Gate => 6,
    }
}
