//! Tiles of pixels to their 16 places and back, for all channels of a picture's tiles at once.
//!
//! Written with explicit vectors: a loop over the channels of 16 places is more slices than the
//! compiler proves apart.

use pulp::{Simd, WithSimd};

use super::PLACES;

/// How the tiles of lines of a picture lie.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Lines of tiles.
    pub(super) down: usize,
    /// Tiles in a line.
    pub(super) across: usize,
    pub(super) channels: usize,
    /// From one place's numbers to the next one's.
    pub(super) stride: usize,
}

impl Grid {
    /// That places of `count` numbers hold every tile.
    fn assert_places(self, count: usize, lanes: usize) {
        let place = self.down * self.across * self.channels;
        assert!(lanes <= self.channels, "a vector holds no more than the channels");
        assert!((PLACES - 1) * self.stride + place <= count, "the places hold all tiles");
    }
}

/// `B^T d B` of each channel of each tile.
pub(super) struct Transform<'a> {
    pub(super) grid: Grid,
    /// `[2 * down + 2, 2 * across + 2, channels]`.
    pub(super) padded: &'a [f32],
    /// `[16, stride]`, of which each place's first numbers are `[down, across, channels]`.
    pub(super) places: &'a mut [f32],
}

impl WithSimd for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { grid, padded, places } = self;
        let Grid { down, across, channels, stride } = grid;
        let line = (2 * across + 2) * channels;
        assert_eq!(padded.len(), (2 * down + 2) * line, "the lines hold all tiles");
        grid.assert_places(places.len(), S::F32_LANES);
        let lanes = S::F32_LANES;
        for tile in 0..down * across {
            let (y, x) = (2 * (tile / across), 2 * (tile % across));
            for c in (0..channels).step_by(lanes) {
                // The last vector may overlap the one before it.
                let c = c.min(channels - lanes);
                // SAFETY: the pixels (y, x) to (y + 3, x + 3) are some of the (2 down + 2) by
                // (2 across + 2) of which `padded` holds `channels` numbers each, as asserted, and
                // `c + lanes <= channels`.
                let d = unsafe {
                    let first = padded.as_ptr().add(y * line + x * channels + c);
                    load::<S, 4, 4>(first, line, channels)
                };
                let mut t = d;
                for j in 0..4 {
                    t[0][j] = simd.sub_f32s(d[0][j], d[2][j]);
                    t[1][j] = simd.add_f32s(d[1][j], d[2][j]);
                    t[2][j] = simd.sub_f32s(d[2][j], d[1][j]);
                    t[3][j] = simd.sub_f32s(d[1][j], d[3][j]);
                }
                for (i, [a, b, c_, d]) in t.into_iter().enumerate() {
                    let row = [
                        simd.sub_f32s(a, c_),
                        simd.add_f32s(b, c_),
                        simd.sub_f32s(c_, b),
                        simd.sub_f32s(b, d),
                    ];
                    for (j, value) in row.into_iter().enumerate() {
                        // SAFETY: it was asserted that 15 strides and a number for each channel of
                        // each tile lie within `places`, and `c + lanes <= channels`.
                        unsafe {
                            let at = tile * channels + c + (4 * i + j) * stride;
                            places.as_mut_ptr().add(at).cast::<S::f32s>().write_unaligned(value);
                        }
                    }
                }
            }
        }
    }
}

/// The vectors that begin at `first` and on, `N` lines and `M` columns of them.
///
/// # Safety
///
/// A vector can be read at each of those places.
#[inline(always)]
unsafe fn load<S: Simd, const N: usize, const M: usize>(
    first: *const f32,
    line: usize,
    column: usize,
) -> [[S::f32s; M]; N] {
    let mut values = [[unsafe { first.cast::<S::f32s>().read_unaligned() }; M]; N];
    for (i, values) in values.iter_mut().enumerate() {
        for (j, value) in values.iter_mut().enumerate() {
            *value = unsafe { first.add(i * line + j * column).cast::<S::f32s>().read_unaligned() };
        }
    }
    values
}

/// `A^T m A` of each channel of each tile, added to the bias.
pub(super) struct TransformBack<'a> {
    pub(super) grid: Grid,
    /// `[16, stride]`, of which each place's first numbers are `[down, across, channels]`.
    pub(super) places: &'a [f32],
    /// `[channels]`.
    pub(super) bias: &'a [f32],
    /// `[lines, width, channels]`: the last line and column of tiles may be half outside.
    pub(super) output: &'a mut [f32],
    pub(super) width: usize,
}

impl WithSimd for TransformBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { grid, places, bias, output, width } = self;
        let Grid { down, across, channels, stride } = grid;
        let line = width * channels;
        let lines = output.len() / line;
        assert!(lines.div_ceil(2) == down && width.div_ceil(2) == across, "tiles cover the output");
        assert_eq!(bias.len(), channels, "a number a channel");
        grid.assert_places(places.len(), S::F32_LANES);
        let lanes = S::F32_LANES;
        for tile in 0..down * across {
            let (y, x) = (2 * (tile / across), 2 * (tile % across));
            let (below, right) = (y + 1 < lines, x + 1 < width);
            for c in (0..channels).step_by(lanes) {
                // The last vector may overlap the one before it.
                let c = c.min(channels - lanes);
                // SAFETY: it was asserted that 15 strides and a number for each channel of each tile
                // lie within `places`, and as many numbers as channels in the bias;
                // `c + lanes <= channels`.
                let (m, bias) = unsafe {
                    let first = places.as_ptr().add(tile * channels + c);
                    let bias = bias.as_ptr().add(c).cast::<S::f32s>().read_unaligned();
                    (load::<S, 4, 4>(first, 4 * stride, stride), bias)
                };
                let mut t = [m[0], m[0]];
                for j in 0..4 {
                    t[0][j] = simd.add_f32s(simd.add_f32s(m[0][j], m[1][j]), m[2][j]);
                    t[1][j] = simd.sub_f32s(simd.sub_f32s(m[1][j], m[2][j]), m[3][j]);
                }
                for (i, [a, b, c_, d]) in t.into_iter().enumerate() {
                    let row = [
                        simd.add_f32s(simd.add_f32s(a, b), c_),
                        simd.sub_f32s(simd.sub_f32s(b, c_), d),
                    ];
                    for (j, value) in row.into_iter().enumerate() {
                        if (i == 0 || below) && (j == 0 || right) {
                            let at = (y + i) * line + (x + j) * channels + c;
                            // SAFETY: pixel (y + i, x + j) is one of `lines` by `width` of which
                            // `output` holds `channels` numbers each, and `c + lanes <= channels`.
                            unsafe {
                                let at = output.as_mut_ptr().add(at).cast::<S::f32s>();
                                at.write_unaligned(simd.add_f32s(value, bias));
                            }
                        }
                    }
                }
            }
        }
    }
}
