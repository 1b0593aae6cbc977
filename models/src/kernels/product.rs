//! The product of a matrix of 32-bit floats with a packed one, on one thread: what linear layers,
//! convolutions and attention are made of here.
//!
//! After Goto and van de Geijn (2008): the right factor lies in panels as wide as a tile, so that a
//! tile's innermost loop reads it in order; a tile of the output stays in registers over a block of
//! the depth. The left factor is given row by row, wherever the rows lie: those of a matrix, by rows or
//! by columns, copied tile by tile, or the pixels that a convolution reads.
//!
//! Each number of the output is summed over the depth in one order, whatever the number of rows,
//! their place and the number of threads.

use std::ops::Range;
use std::slice;

use pulp::{Arch, Simd, WithSimd};

use super::matrix::{Matrix, Rows};
use super::packed::{Packed, tile, tile_height};
use super::parts::Blank;
use super::vector::prefetch;

/// The longest block of the depth: the longer, the seldomer the output is read and written again. A tile's
/// part of the left factor, which each panel of a block of columns meets, is 12 KiB of it at most.
pub(super) const DEPTH: usize = 384;

/// Rows of a share: a block of columns comes once for all of them from beyond the second-level cache.
pub(super) const ROWS: usize = 240;

/// Shares of rows are multiples of this, so that few tiles have fewer rows than they could: a tile has
/// 6 rows where there are 16 registers, 8 where there are 32.
pub(super) const TILE: usize = 24;

/// Rows of a panel that the innermost loop asks for ahead of its own: processors with vectors of 512 bits
/// do not by themselves bring a panel in time from the second-level cache, which cost a twentieth.
const AHEAD: usize = 16;

/// Numbers of the largest tile: 8 rows of 3 vectors of 512 bits.
const TILE_NUMBERS: usize = 8 * TILE_COLUMNS;
const TILE_COLUMNS: usize = 48;

/// Equal blocks of a depth, each at most [`DEPTH`] long.
pub(super) fn blocks(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let size = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
    (0..depth).step_by(size).map(move |start| start..(start + size).min(depth))
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Nothing: it replaces the output.
    Zero,
    /// The same row of numbers in each row.
    Row(&'a [f32]),
    /// What the output holds.
    Output,
}

/// Writes `start + left * right` over a range of the right factor's rows, whose length
/// is at most some hundreds ([`blocks`]); `left` holds that part of each row, and the output's rows
/// begin `stride` apart.
pub(super) fn multiply(
    output: &mut [f32],
    stride: usize,
    start: Start<'_>,
    left: &Rows<'_>,
    right: &Packed,
    depth: Range<usize>,
) {
    assert!(depth.end <= right.depth() && right.columns() <= stride, "the factors fit");
    assert!(left.have(depth.len()), "rows are as long as the depth");
    if let Start::Row(row) = start {
        assert_eq!(row.len(), right.columns(), "a number a column");
    }
    let Some(before) = left.slices.len().checked_sub(1) else { return };
    assert!(before * stride + right.columns() <= output.len(), "the rows lie within the output");
    let output = output.as_mut_ptr();
    Arch::new().dispatch(Product { output, stride, start, left, right, depth });
}

/// [`multiply`] for all columns and any depth; `room` is for parts of the left factor.
pub(super) fn multiply_rows(
    output: &mut [f32],
    stride: usize,
    start: Start<'_>,
    left: Matrix<'_>,
    right: &Packed,
    room: &mut Vec<f32>,
) {
    for_each_block(start, left, right, room, |start, left, depth| {
        multiply(output, stride, start, left, right, depth);
    });
}

/// Calls `multiply` for each block of the depth, in order.
fn for_each_block<'a>(
    start: Start<'a>,
    left: Matrix<'_>,
    right: &Packed,
    room: &mut Vec<f32>,
    mut multiply: impl FnMut(Start<'a>, &Rows<'_>, Range<usize>),
) {
    for depth in blocks(right.depth()) {
        let start = if depth.start == 0 { start } else { Start::Output };
        let left = left.rows_of_block(depth.clone(), tile_height(), room);
        multiply(start, &left, depth);
    }
}

/// [`multiply_rows`] to where there are no numbers yet, the rows one after the other.
pub(super) fn write_rows<'a>(
    output: Blank<'a>,
    start: Start<'_>,
    left: Matrix<'_>,
    right: &Packed,
    room: &mut Vec<f32>,
) -> &'a mut [f32] {
    let stride = right.columns();
    assert!(left.columns() == right.depth() && right.depth() > 0, "the factors fit");
    assert_eq!(output.len(), left.rows() * stride, "a number for each row and column");
    match start {
        Start::Zero => {}
        Start::Row(row) => assert_eq!(row.len(), stride, "a number a column"),
        Start::Output => unreachable!("there is nothing to add to"),
    }
    let write = |output: *mut f32| {
        for_each_block(start, left, right, room, |start, left, depth| {
            assert!(left.have(depth.len()), "rows are as long as the depth");
            Arch::new().dispatch(Product { output, stride, start, left, right, depth });
        });
    };
    // SAFETY: a product's first block of the depth, which there is, writes all columns in each row.
    unsafe { output.written_by(write) }
}

/// What is asserted where one is made: the rows lie within what `output` may write, have numbers where the
/// start is the output's own, and the factors fit.
struct Product<'a> {
    output: *mut f32,
    stride: usize,
    start: Start<'a>,
    left: &'a Rows<'a>,
    right: &'a Packed,
    depth: Range<usize>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile(S::REGISTER_COUNT).0 {
            8 => self.run::<S, 8>(simd),
            _ => self.run::<S, 6>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize>(self, simd: S) {
        // With each tile comes a part of the next block's panels.
        let step = self.right.width().div_ceil(self.left.slices.len().div_ceil(M).max(1));
        for columns in self.right.column_blocks() {
            let (mut rows, mut output) = (&self.left.slices[..], self.output);
            let mut ahead = Ahead { from: self.block_after(&columns), step };
            while rows.len() >= M {
                self.tiles::<S, M>(simd, output, &rows[..M], columns.clone(), ahead);
                rows = &rows[M..];
                output = output.wrapping_add(M * self.stride);
                ahead.from = ahead.from.wrapping_add(self.depth.len() * step);
            }
            match rows.len() {
                0 => {}
                1 => self.tiles::<S, 1>(simd, output, rows, columns, ahead),
                2 => self.tiles::<S, 2>(simd, output, rows, columns, ahead),
                3 => self.tiles::<S, 3>(simd, output, rows, columns, ahead),
                4 => self.tiles::<S, 4>(simd, output, rows, columns, ahead),
                5 => self.tiles::<S, 5>(simd, output, rows, columns, ahead),
                6 if M > 6 => self.tiles::<S, 6>(simd, output, rows, columns, ahead),
                _ if M > 6 => self.tiles::<S, 7>(simd, output, rows, columns, ahead),
                _ => unreachable!("fewer rows are left than a tile has"),
            }
        }
    }

    /// Where the panels lie that follow a block of columns: the next columns', or the next depth's first.
    #[inline(always)]
    fn block_after(&self, columns: &Range<usize>) -> *const f32 {
        let (next, depth) = match columns.end < self.right.columns() {
            true => (columns.end, self.depth.start),
            false => (0, self.depth.end),
        };
        self.right.place(next, depth)
    }

    /// The tiles of `M` rows over a block of columns; the first row begins at `output`.
    #[inline(always)]
    fn tiles<S: Simd, const M: usize>(
        &self,
        simd: S,
        output: *mut f32,
        rows: &[&[f32]],
        columns: Range<usize>,
        mut ahead: Ahead,
    ) {
        for (columns, panel) in self.right.panels(columns, self.depth.clone()) {
            let (depth, step, count) = (self.depth.len(), self.left.step, columns.len());
            let tile = Tile { simd, depth, step, panel, stride: self.stride, count, ahead };
            let output = output.wrapping_add(columns.start);
            let start = match self.start {
                Start::Row(row) => Start::Row(&row[columns]),
                start => start,
            };
            tile.wide::<M>(output, rows, start);
            ahead.from = ahead.from.wrapping_add(self.right.depth() * self.right.width());
        }
    }
}

/// Numbers that are asked for into the second-level cache, one vector or less for each number of the depth.
#[derive(Clone, Copy)]
struct Ahead {
    /// Any address.
    from: *const f32,
    /// From one to the next.
    step: usize,
}

/// Tiles of the output over one panel.
struct Tile<'a, S> {
    simd: S,
    depth: usize,
    /// From one number of a row to the next.
    step: usize,
    /// `[depth, vectors * lanes]`.
    panel: &'a [f32],
    stride: usize,
    /// Columns that are written.
    count: usize,
    ahead: Ahead,
}

impl<S: Simd> Tile<'_, S> {
    /// A tile of `M` rows.
    #[inline(always)]
    fn wide<const M: usize>(&self, output: *mut f32, rows: &[&[f32]], start: Start<'_>) {
        match self.count.div_ceil(S::F32_LANES) {
            1 => self.run::<M, 1>(output, rows, start),
            3 if S::REGISTER_COUNT >= 32 => self.run::<M, 3>(output, rows, start),
            _ => self.run::<M, 2>(output, rows, start),
        }
    }

    /// A tile of `M` rows and `V` vectors, of which the last one may be written in part: then by way of a
    /// tile that is written whole.
    #[inline(always)]
    fn run<const M: usize, const V: usize>(
        &self,
        output: *mut f32,
        rows: &[&[f32]],
        start: Start<'_>,
    ) {
        let (width, count) = (V * S::F32_LANES, self.count);
        if count == width {
            return self.whole::<M, V>(output, self.stride, rows, start);
        }
        let (mut tile, mut line) = ([0.0; TILE_NUMBERS], [0.0; TILE_COLUMNS]);
        let start = match start {
            Start::Zero => Start::Zero,
            Start::Row(row) => {
                line[..count].copy_from_slice(row);
                Start::Row(&line[..width])
            }
            Start::Output => {
                for (i, tile) in tile.chunks_mut(width).take(M).enumerate() {
                    // SAFETY: as asserted where the product was made, here and below.
                    let line = unsafe { slice::from_raw_parts(output.add(i * self.stride), count) };
                    tile[..count].copy_from_slice(line);
                }
                Start::Output
            }
        };
        self.whole::<M, V>(tile.as_mut_ptr(), width, rows, start);
        for (i, tile) in tile.chunks(width).take(M).enumerate() {
            // SAFETY: as above; where there are no numbers yet, nothing is read.
            unsafe { output.add(i * self.stride).copy_from_nonoverlapping(tile.as_ptr(), count) };
        }
    }

    /// A tile of `M` rows, which begin `stride` apart, and `V` whole vectors. Loops of constant lengths that
    /// nothing leaves early: only then all sums stay in registers.
    #[inline(always)]
    fn whole<const M: usize, const V: usize>(
        &self,
        output: *mut f32,
        stride: usize,
        rows: &[&[f32]],
        start: Start<'_>,
    ) {
        let (simd, lanes) = (self.simd, S::F32_LANES);
        // That the rows are long enough is asserted of all of them where the product was made; here it would
        // take a twentieth of a shallow product.
        assert!(self.panel.len() == self.depth * V * lanes && rows.len() == M);
        let pointers: [*const f32; M] = std::array::from_fn(|i| rows[i].as_ptr());
        let lines: [*mut f32; M] = std::array::from_fn(|i| output.wrapping_add(i * stride));
        // SAFETY, of this and of all that follows here: it was asserted, of the output where the product was
        // made, that a line of it, a start's row and a row of the panel have `V` vectors of numbers, which
        // may begin anywhere.
        let load = |from: *const f32| -> [S::f32s; V] {
            std::array::from_fn(|v| unsafe {
                from.add(v * lanes).cast::<S::f32s>().read_unaligned()
            })
        };
        if let Start::Output = start {
            for line in lines {
                for v in 0..V {
                    prefetch::<1>(line.wrapping_add(v * lanes));
                }
            }
        }
        let mut sums = [[simd.splat_f32s(0.0); V]; M];
        let mut panel = self.panel.as_ptr();
        let mut ahead = self.ahead.from;
        let mut at = 0;
        for _ in 0..self.depth {
            prefetch::<2>(ahead);
            ahead = ahead.wrapping_add(self.ahead.step);
            for v in 0..V {
                prefetch::<1>(panel.wrapping_add((AHEAD * V + v) * lanes));
            }
            let right = load(panel);
            panel = panel.wrapping_add(V * lanes);
            for i in 0..M {
                // SAFETY: each row has a number at every multiple of `step` below `depth` of them, as
                // asserted where the product was made.
                let left = simd.splat_f32s(unsafe { *pointers[i].add(at) });
                for v in 0..V {
                    sums[i][v] = simd.mul_add_e_f32s(left, right[v], sums[i][v]);
                }
            }
            at += self.step;
        }
        // To begin with what the output holds would wait for it.
        match start {
            Start::Zero => {}
            Start::Row(row) => {
                let row = load(row[..V * lanes].as_ptr());
                for sums in &mut sums {
                    for v in 0..V {
                        sums[v] = simd.add_f32s(row[v], sums[v]);
                    }
                }
            }
            Start::Output => {
                for i in 0..M {
                    let line = load(lines[i]);
                    for v in 0..V {
                        sums[i][v] = simd.add_f32s(line[v], sums[i][v]);
                    }
                }
            }
        }
        for (line, sums) in lines.into_iter().zip(sums) {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { line.add(v * lanes).cast::<S::f32s>().write_unaligned(sum) };
            }
        }
    }
}
