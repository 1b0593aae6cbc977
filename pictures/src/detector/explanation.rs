//! How much of a picture a form at some place and size explains.

use pulp::{Simd, WithSimd};

use crate::forms::CATALOGUE;

/// Each pixel of a template covers a square of this side, in pixels: generated pictures are soft at the edges.
const SOFTNESS: f32 = 2.0;

/// How many pixels beyond the border a form's square may reach, and what fills its rows up to whole vectors.
const PADDING: usize = 16;
/// The areas of a form's inks.
#[derive(Debug)]
pub(super) struct Template {
    /// Pixels along a row, whole vectors.
    width: usize,
    /// The side's part to the left of and above the centre.
    before: usize,
    main: Vec<f32>,
    second: Vec<f32>,
    /// Their sum.
    area: Vec<f32>,
    /// The sums of `area * main`, `area * second` and `area * area` of each row, then zeros up to whole
    /// vectors.
    rows: [Vec<f32>; 3],
    /// The sums of `main * main`, `main * second`, `second * second`.
    gram: [f32; 3],
}

/// The numbers of this machine's widest vectors.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

impl Template {
    /// Form `form`, its half side `half` pixels, its centre `offset` right of and below a pixel corner; rows
    /// of vectors of `lanes`.
    pub(super) fn new(form: usize, half: f32, offset: [f32; 2], lanes: usize) -> Self {
        let before = half.ceil() as usize + 1;
        let height = 2 * before + 1;
        let width = height.next_multiple_of(lanes);
        let step = 1.0 / half;
        let (mut main, mut second) = (Vec::new(), Vec::new());
        for row in 0..height {
            for column in 0..width {
                let at = |index: usize, offset: f32| (index as f32 - before as f32 - offset) * step;
                let soft = (SOFTNESS - 1.0) / 2.0 * step;
                let [m, s] = CATALOGUE[form].coverage(
                    at(column, offset[0]) - soft,
                    at(row, offset[1]) - soft,
                    step * SOFTNESS,
                );
                main.push(m);
                second.push(s);
            }
        }
        let mut gram = [0.0; 3];
        for (m, s) in main.iter().zip(&second) {
            for (sum, term) in gram.iter_mut().zip([m * m, m * s, s * s]) {
                *sum += term;
            }
        }
        let area: Vec<f32> = main.iter().zip(&second).map(|(m, s)| m + s).collect();
        let rows = [&main, &second, &area].map(|ink| {
            let products = area.chunks_exact(width).zip(ink.chunks_exact(width));
            let mut sums: Vec<f32> = products
                .map(|(area, ink)| area.iter().zip(ink).map(|(area, ink)| area * ink).sum())
                .collect();
            sums.resize(width, 0.0);
            sums
        });
        Self { width, before, main, second, area, rows, gram }
    }
}

/// A picture with its background taken off.
pub(super) struct Field {
    /// Pixels along a row, padding included.
    stride: usize,
    /// Per channel: the pixel less its row's background; then, summed over the channels, twice the
    /// background times that. 0 in the padding.
    planes: [Vec<f32>; 4],
    /// Of each row: each channel's background, then the sum of their squares.
    background: [Vec<f32>; 4],
    /// The sum of the squared differences.
    energy: f32,
}

impl Field {
    /// `rgb`: `side * side` pixels, 0 to 1.
    pub(super) fn new(rgb: &[[f32; 3]], side: usize) -> Self {
        let stride = side + 2 * PADDING;
        let border = side / 8;
        let mut planes = [(); 4].map(|()| vec![0.0; stride * stride]);
        let mut background = [(); 4].map(|()| vec![0.0; stride]);
        let mut energy = 0.0;
        let [backgrounds @ .., squares] = &mut background;
        for (channel, backgrounds) in backgrounds.iter_mut().enumerate() {
            for (row, (background, square)) in backgrounds.iter_mut().zip(&mut *squares).enumerate()
            {
                let inside = row.clamp(PADDING, PADDING + side - 1) - PADDING;
                let pixels = &rgb[inside * side..][..side];
                let mut edge: Vec<f32> = (0..border)
                    .chain(side - border..side)
                    .map(|column| pixels[column][channel])
                    .collect();
                edge.sort_by(f32::total_cmp);
                let back = (edge[border - 1] + edge[border]) / 2.0;
                *background = back;
                *square += back * back;
                if row == inside + PADDING {
                    for (column, pixel) in pixels.iter().enumerate() {
                        let (at, value) = (row * stride + PADDING + column, pixel[channel] - back);
                        planes[channel][at] = value;
                        planes[3][at] += 2.0 * back * value;
                        energy += value * value;
                    }
                }
            }
        }
        Self { stride, planes, background, energy }
    }

    /// How much of the picture's energy `template` explains with its centre at the pixel corner `centre`.
    #[inline(always)]
    pub(super) fn explained<S: Simd>(
        &self,
        simd: S,
        template: &Template,
        centre: [usize; 2],
    ) -> f32 {
        let [left, top] = centre.map(|at| at + PADDING - template.before);
        let width = template.width;
        let [mm, ms, ss] = template.gram;
        let has_second = ss >= 0.5;
        let none = simd.splat_f32s(0.0);
        let mut sums = Sums { main: [none; 3], second: [none; 3], area: none };
        // The background's part: what is the same for all pixels of a row needs the row's sums alone.
        let background = self.background.each_ref().map(|rows| &rows[top..top + width]);
        sums.add(simd, background, template.rows.each_ref().map(|sums| &sums[..]), has_second);
        let inks = [&template.main, &template.second, &template.area];
        for row in 0..template.main.len() / width {
            let from = (top + row) * self.stride + left;
            let planes = self.planes.each_ref().map(|plane| &plane[from..from + width]);
            let inks = inks.map(|ink| &ink[row * width..(row + 1) * width]);
            sums.add(simd, planes, inks, has_second);
        }
        let squares = simd.reduce_sum_f32s(sums.area);
        let determinant = mm * ss - ms * ms;
        let mut fitted = 0.0;
        for channel in 0..3 {
            let tm = simd.reduce_sum_f32s(sums.main[channel]);
            fitted += if has_second {
                let ts = simd.reduce_sum_f32s(sums.second[channel]);
                (ss * tm * tm - 2.0 * ms * tm * ts + mm * ts * ts) / determinant
            } else {
                tm * tm / mm
            };
        }
        (fitted - squares) / self.energy.max(ENERGY_FLOOR)
    }
}

/// A picture with less energy than this (a pixel or two of faint colour) is empty.
const ENERGY_FLOOR: f32 = 1.0;

/// Of products of the picture with the inks, by channel, and of the last plane with their area.
struct Sums<S: Simd> {
    main: [S::f32s; 3],
    second: [S::f32s; 3],
    area: S::f32s,
}

impl<S: Simd> Sums<S> {
    /// `planes` and `inks` are whole vectors of the same length.
    #[inline(always)]
    fn add(&mut self, simd: S, planes: [&[f32]; 4], inks: [&[f32]; 3], has_second: bool) {
        let [red, green, blue, last] = planes.map(|plane| S::as_simd_f32s(plane).0);
        let [main, second, area] = inks.map(|ink| S::as_simd_f32s(ink).0);
        let planes = red.iter().zip(green).zip(blue).zip(last);
        // One loop for all sums: each waits for its own last one alone.
        for ((((&r, &g), &b), &last), ((&m, &s), &a)) in
            planes.zip(main.iter().zip(second).zip(area))
        {
            self.main[0] = simd.mul_add_e_f32s(r, m, self.main[0]);
            self.main[1] = simd.mul_add_e_f32s(g, m, self.main[1]);
            self.main[2] = simd.mul_add_e_f32s(b, m, self.main[2]);
            self.area = simd.mul_add_e_f32s(last, a, self.area);
            if has_second {
                self.second[0] = simd.mul_add_e_f32s(r, s, self.second[0]);
                self.second[1] = simd.mul_add_e_f32s(g, s, self.second[1]);
                self.second[2] = simd.mul_add_e_f32s(b, s, self.second[2]);
            }
        }
    }
}
