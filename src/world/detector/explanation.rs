//! How much of a picture a form at some place and size explains.

use pulp::{Simd, WithSimd};

use crate::world::forms::CATALOGUE;

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
    /// Per row, the sums of `area * main`, `area * second` and `area * area`.
    rows: Vec<[f32; 3]>,
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
        let mut rows = vec![[0.0; 3]; height];
        for (index, area) in area.iter().enumerate() {
            let terms = [area * main[index], area * second[index], area * area];
            for (sum, term) in rows[index / width].iter_mut().zip(terms) {
                *sum += term;
            }
        }
        Self { width, before, main, second, area, rows, gram }
    }
}

/// A picture with its background taken off.
pub(super) struct Field {
    /// Pixels along a row, padding included.
    stride: usize,
    /// Per channel: the pixel less its row's background; then, summed over the channels, the background
    /// times that. 0 in the padding.
    planes: [Vec<f32>; 4],
    /// Per row, each channel's background and the sum of their squares.
    background: Vec<[f32; 4]>,
    /// The sum of the squared differences.
    energy: f32,
}

impl Field {
    /// `rgb`: `side * side` pixels, 0 to 1.
    pub(super) fn new(rgb: &[[f32; 3]], side: usize) -> Self {
        let stride = side + 2 * PADDING;
        let border = side / 8;
        let mut planes = [(); 4].map(|()| vec![0.0; stride * stride]);
        let mut background = vec![[0.0; 4]; stride];
        let mut energy = 0.0;
        for channel in 0..3 {
            for (row, background) in background.iter_mut().enumerate() {
                let inside = row.clamp(PADDING, PADDING + side - 1) - PADDING;
                let pixels = &rgb[inside * side..][..side];
                let mut edge: Vec<f32> = (0..border)
                    .chain(side - border..side)
                    .map(|column| pixels[column][channel])
                    .collect();
                edge.sort_by(f32::total_cmp);
                let back = (edge[border - 1] + edge[border]) / 2.0;
                background[channel] = back;
                background[3] += back * back;
                if row == inside + PADDING {
                    for (column, pixel) in pixels.iter().enumerate() {
                        let (at, value) = (row * stride + PADDING + column, pixel[channel] - back);
                        planes[channel][at] = value;
                        planes[3][at] += back * value;
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
        let (width, none) = (template.width, simd.splat_f32s(0.0));
        // Sums of products with the inks of each channel, and with their area of the last plane.
        let (mut with_main, mut with_second, mut with_area) = ([none; 3], [none; 3], none);
        let (mut tm, mut ts, mut squares) = ([0.0; 3], [0.0; 3], 0.0);
        for (row, &[am, as_, aa]) in template.rows.iter().enumerate() {
            let from = (top + row) * self.stride + left;
            let ink = row * width..(row + 1) * width;
            let (main, _) = S::as_simd_f32s(&template.main[ink.clone()]);
            let (second, _) = S::as_simd_f32s(&template.second[ink.clone()]);
            let (area, _) = S::as_simd_f32s(&template.area[ink]);
            for channel in 0..3 {
                let (pixels, _) = S::as_simd_f32s(&self.planes[channel][from..from + width]);
                for (&pixels, (&main, &second)) in pixels.iter().zip(main.iter().zip(second)) {
                    with_main[channel] = simd.mul_add_e_f32s(pixels, main, with_main[channel]);
                    with_second[channel] =
                        simd.mul_add_e_f32s(pixels, second, with_second[channel]);
                }
            }
            let (pixels, _) = S::as_simd_f32s(&self.planes[3][from..from + width]);
            for (&pixels, &area) in pixels.iter().zip(area) {
                with_area = simd.mul_add_e_f32s(pixels, area, with_area);
            }
            let back = self.background[top + row];
            for channel in 0..3 {
                tm[channel] += back[channel] * am;
                ts[channel] += back[channel] * as_;
            }
            squares += back[3] * aa;
        }
        squares += 2.0 * simd.reduce_sum_f32s(with_area);
        let [mm, ms, ss] = template.gram;
        let determinant = mm * ss - ms * ms;
        let mut fitted = 0.0;
        for channel in 0..3 {
            let tm = tm[channel] + simd.reduce_sum_f32s(with_main[channel]);
            let ts = ts[channel] + simd.reduce_sum_f32s(with_second[channel]);
            fitted += if ss < 0.5 {
                tm * tm / mm
            } else {
                (ss * tm * tm - 2.0 * ms * tm * ts + mm * ts * ts) / determinant
            };
        }
        (fitted - squares) / self.energy.max(ENERGY_FLOOR)
    }
}

/// A picture with less energy than this (a pixel or two of faint colour) is empty.
const ENERGY_FLOOR: f32 = 1.0;
