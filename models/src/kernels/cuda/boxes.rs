//! What Hopper's copy engine (TMA) is told of the factors of a product: it brings boxes of a tensor by itself, in
//! the pattern that `wgmma` reads.

use burn::cubecl::prelude::{
    OobFill, TensorMapFormat, TensorMapInterleave, TensorMapPrefetch, TensorMapSwizzle, TiledArgs,
};
use burn::cubecl::server::{TensorMapBinding, TensorMapMeta};
use burn::cubecl::zspace::Strides;
use burn::cubecl::zspace::metadata::Metadata;
use burn::prelude::*;

use super::CudaTensor;
use super::gemm::Pictures;
use super::layout::MatrixLayout;
use super::tile::Tile;

/// Numbers of a line of a box: 128 bytes.
const LINE: usize = 64;

/// A tensor's sizes, the numbers from one to the next of each, and how many of each a box has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boxes<const D: usize> {
    shape: [usize; D],
    strides: [usize; D],
    sizes: [usize; D],
}

impl<const D: usize> Boxes<D> {
    /// The map of a tensor that lies so.
    pub(super) fn of(self, tensor: &CudaTensor) -> TensorMapBinding {
        let map = TensorMapMeta {
            format: TensorMapFormat::Tiled(TiledArgs { tile_size: Shape::new(self.sizes) }),
            metadata: Metadata::new(Shape::new(self.shape), Strides::from(self.strides.to_vec())),
            elem_stride: Strides::from(vec![1; D]),
            interleave: TensorMapInterleave::None,
            swizzle: TensorMapSwizzle::B128,
            prefetch: TensorMapPrefetch::B128,
            oob_fill: OobFill::Zero,
            storage_ty: tensor.dtype.into(),
        };
        TensorMapBinding { binding: tensor.handle.clone().binding(), map }
    }
}

impl Boxes<3> {
    /// Those of as many factors, `step` numbers apart.
    pub(super) fn batched(self, count: usize, step: usize) -> Self {
        match count {
            1 => self,
            _ => {
                let ([_, rows, columns], [_, row, column]) = (self.shape, self.strides);
                Self { shape: [count, rows, columns], strides: [step, row, column], ..self }
            }
        }
    }
}

/// Those of `count` lines of a factor, which are the left one's rows or the right one's columns, each of `depth`
/// numbers; `apart` says whether the lines lie one after the other, instead of side by side.
fn lines(count: usize, depth: usize, stride: usize, apart: bool, at_once: usize) -> Boxes<3> {
    let (shape, sizes) = match apart {
        true => ([1, count, depth], [1, at_once, LINE]),
        false => ([1, depth, count], [1, LINE, LINE]),
    };
    Boxes { shape, strides: [shape[1] * stride, stride, 1], sizes }
}

/// Those of a left factor of `[m, k]`.
pub(super) fn left([m, k]: [usize; 2], layout: MatrixLayout, tile: Tile) -> Boxes<3> {
    lines(m, k, layout.stride, !layout.by_columns, tile.bm)
}

/// Those of a right factor of `[k, n]`; `None` where a tile has columns of two places that are less than a box
/// apart. `gated`: its second half of columns gates the first.
pub(super) fn right(
    [k, n]: [usize; 2],
    layout: MatrixLayout,
    tile: Tile,
    gated: bool,
) -> Option<Boxes<3>> {
    let columns = if gated { tile.bn / 2 } else { tile.bn };
    let fits = layout.by_columns && columns >= LINE || columns.is_multiple_of(LINE);
    fits.then(|| lines(n, k, layout.stride, layout.by_columns, columns))
}

/// Those of `b` pictures as a left factor, if the pixels of a tile's rows are a box for any tap.
pub(super) fn pictures(b: usize, pictures: Pictures, tile: Tile) -> Option<Boxes<4>> {
    let Pictures { h, w, channels, out_h, out_w, step, .. } = pictures;
    let across = out_w.min(tile.bm);
    let lines = out_h.min(tile.bm / across);
    let samples = tile.bm / (across * lines);
    let fits = step == 1
        && channels.is_multiple_of(LINE)
        && across * lines * samples == tile.bm
        && out_w.is_multiple_of(across)
        && out_h.is_multiple_of(lines)
        // Several lines are whole ones, several samples are whole ones.
        && (lines == 1 || across == out_w)
        && (samples == 1 || (across, lines) == (out_w, out_h));
    fits.then(|| Boxes {
        shape: [b, h, w, channels],
        strides: [h * w * channels, w * channels, channels, 1],
        sizes: [samples, lines, across, LINE],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILE: Tile = Tile { bm: 128, bn: 128, stages: 3, splits: 1, k_per_split: 64 };

    #[test]
    fn a_tile_of_pixels_is_a_box_or_is_gathered() {
        let sizes = |b, h, w, channels, step| {
            let size = |side: usize| (side - 1) / step + 1;
            let (out_h, out_w) = (size(h), size(w));
            let of = Pictures { h, w, channels, out_h, out_w, step, before: 1 };
            pictures(b, of, TILE).map(|boxes| boxes.sizes)
        };
        assert_eq!(sizes(1, 64, 64, 320, 1), Some([1, 2, 64, 64]));
        assert_eq!(sizes(1, 512, 512, 128, 1), Some([1, 1, 128, 64]));
        assert_eq!(sizes(3, 8, 8, 1280, 1), Some([2, 8, 8, 64]));
        // Half a picture is a box of its own.
        assert_eq!(sizes(3, 16, 16, 1280, 1), Some([1, 8, 16, 64]));
        for (h, w, channels, step) in
            [(64, 64, 4, 1), (64, 64, 320, 2), (48, 48, 64, 1), (3, 64, 64, 1)]
        {
            assert_eq!(sizes(2, h, w, channels, step), None);
        }
    }

    #[test]
    fn a_factor_is_cut_along_its_lines() {
        let rows = MatrixLayout { by_columns: false, stride: 72 };
        let boxes = Boxes { shape: [1, 77, 64], strides: [77 * 72, 72, 1], sizes: [1, 128, 64] };
        assert_eq!(left([77, 64], rows, TILE), boxes);
        let boxes = Boxes { shape: [1, 64, 72], strides: [64 * 72, 72, 1], sizes: [1, 64, 64] };
        assert_eq!(right([64, 72], rows, TILE, false), Some(boxes));
        let columns = MatrixLayout { by_columns: true, stride: 64 };
        let boxes = Boxes { shape: [1, 72, 64], strides: [72 * 64, 64, 1], sizes: [1, 64, 64] };
        assert_eq!(right([64, 72], columns, TILE, true), Some(boxes));
        assert_eq!(right([64, 72], columns, Tile { bn: 64, ..TILE }, true), None);
        let wide = Tile { bn: 192, ..TILE };
        assert!(right([64, 400], columns, wide, true).is_some_and(|boxes| boxes.sizes[1] == 96));
        assert_eq!(right([64, 400], rows, wide, true), None);
    }
}
