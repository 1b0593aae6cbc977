//! How a convolution's numbers lie, and how they become factors of matrix products.

use std::ops::Range;

use burn_flex::FlexTensor;

use crate::blocks::Stride;
use crate::kernels::flex;
use crate::kernels::matrix::Rows;
use crate::kernels::packed::Packed;
use crate::kernels::parts::write_parts;
use crate::kernels::product::{self, Start};
use crate::kernels::vector::widest;

/// The step and the number of zeros before each side; after each there is one.
pub(super) fn geometry(stride: Stride) -> (usize, usize) {
    match stride {
        Stride::One => (1, 1),
        Stride::Two => (2, 1),
        Stride::TwoPaddedAfter => (2, 0),
    }
}

/// The sizes that gathering needs.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) step: usize,
    pub(super) before: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) channels_in: usize,
    pub(super) out_h: usize,
    pub(super) out_w: usize,
    pub(super) channels_out: usize,
}

/// Output pixels that are computed at once, about: the input that they read stays in the second-level
/// cache.
const PIXELS: usize = 96;

/// Gathered numbers that are multiplied at once: they should stay in the second-level cache.
const GATHERED: usize = 1 << 16;

impl Sizes {
    pub(super) fn new(stride: Stride, input: &FlexTensor, weight: &FlexTensor) -> Self {
        let (step, before) = geometry(stride);
        let [_, h, w, channels_in] = flex::dims(input);
        let [channels_out, ..] = flex::dims::<4>(weight);
        Self {
            step,
            before,
            h,
            w,
            channels_in,
            out_h: (h + before - 2) / step + 1,
            out_w: (w + before - 2) / step + 1,
            channels_out,
        }
    }

    /// The sizes of the input's gradient as a convolution of the output's, for steps of one.
    pub(super) fn back(&self) -> Self {
        Self { channels_in: self.channels_out, channels_out: self.channels_in, ..*self }
    }

    /// Numbers in a gathered row.
    pub(super) fn row(&self) -> usize {
        9 * self.channels_in
    }

    pub(super) fn sample_in(&self) -> usize {
        self.h * self.w * self.channels_in
    }

    pub(super) fn sample_out(&self) -> usize {
        self.out_h * self.out_w * self.channels_out
    }

    /// Lines of output pixels whose gathered rows are multiplied at once.
    pub(super) fn lines_at_once(&self) -> usize {
        (GATHERED / (self.out_w * self.row())).clamp(1, self.out_h)
    }

    /// Calls `visit` with the place of every run of input numbers that a line of output pixels
    /// reads: its start in the gathered line, its start in the sample and its length.
    #[inline(always)]
    fn for_each_run(&self, line: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let c = self.channels_in;
        for kernel_row in 0..3 {
            let Some(y) = (line * self.step + kernel_row).checked_sub(self.before) else {
                continue;
            };
            if y >= self.h {
                continue;
            }
            for x in 0..self.out_w {
                // Columns `left..left + 3`, of which those within the picture.
                let left = x * self.step;
                let skipped = self.before.saturating_sub(left);
                let start = left + skipped - self.before;
                let count = (3 - skipped).min(self.w - start);
                visit(
                    x * self.row() + (3 * kernel_row + skipped) * c,
                    (y * self.w + start) * c,
                    count * c,
                );
            }
        }
    }

    /// Gathers lines of a sample; `gathered` holds them exactly.
    pub(super) fn gather(&self, sample: &[f32], first_line: usize, gathered: &mut [f32]) {
        gathered.fill(0.0);
        for (i, gathered) in gathered.chunks_exact_mut(self.out_w * self.row()).enumerate() {
            self.for_each_run(first_line + i, |to, from, length| {
                gathered[to..to + length].copy_from_slice(&sample[from..from + length]);
            });
        }
    }

    /// Adds gathered lines to where they were gathered from.
    pub(super) fn scatter(&self, gathered: &[f32], first_line: usize, sample: &mut [f32]) {
        widest!({
            for (i, gathered) in gathered.chunks_exact(self.out_w * self.row()).enumerate() {
                self.for_each_run(first_line + i, |from, to, length| {
                    let sums = sample[to..to + length].iter_mut();
                    for (sum, value) in sums.zip(&gathered[from..from + length]) {
                        *sum += value;
                    }
                });
            }
        });
    }

    /// The weight as a right factor, `[9 * in, out]`.
    pub(super) fn packed(&self, weight: &[f32]) -> Packed {
        let c = self.channels_in;
        Packed::of(self.row(), self.channels_out, |columns, width, panel| {
            for channel in 0..c {
                for (j, out) in columns.clone().enumerate() {
                    let taps = &weight[(out * c + channel) * 9..][..9];
                    for (tap, &value) in taps.iter().enumerate() {
                        panel[(tap * c + channel) * width + j] = value;
                    }
                }
            }
        })
    }

    /// The weight of the gradient's way back, `[9 * out, in]`: turned around, channels exchanged.
    pub(super) fn packed_back(&self, weight: &[f32]) -> Packed {
        let c = self.channels_in;
        Packed::of(9 * self.channels_out, c, |columns, width, panel| {
            for out in 0..self.channels_out {
                let weight = &weight[(out * c + columns.start) * 9..][..columns.len() * 9];
                for (j, taps) in weight.chunks_exact(9).enumerate() {
                    for (tap, &value) in taps.iter().enumerate() {
                        panel[((8 - tap) * self.channels_out + out) * width + j] = value;
                    }
                }
            }
        })
    }

    /// Copies a sample's lines from the one at which output line `first` begins to read, into lines of
    /// `length` numbers, as many as `padded` has room for, with zeros around the picture.
    pub(super) fn pad(&self, sample: &[f32], first: usize, length: usize, padded: &mut [f32]) {
        let (left, width) = (self.before * self.channels_in, self.w * self.channels_in);
        padded.fill(0.0);
        for (i, padded) in padded.chunks_exact_mut(length).enumerate() {
            let y = (first * self.step + i).checked_sub(self.before);
            if let Some(y) = y.filter(|&y| y < self.h) {
                padded[left..left + width].copy_from_slice(&sample[y * width..(y + 1) * width]);
            }
        }
    }

    /// Writes lines of a sample's output. The nine pixels under the kernel are three runs of
    /// numbers, one a line, and rows of a left factor as they lie.
    fn convolve(
        &self,
        sample: &[f32],
        lines: Range<usize>,
        weight: &Packed,
        bias: &[f32],
        output: &mut [f32],
        padded: &mut Vec<f32>,
    ) {
        let length = (self.before + self.w + 1) * self.channels_in;
        padded.resize(((lines.len() - 1) * self.step + 3) * length, 0.0);
        self.pad(sample, lines.start, length, padded);
        let run = 3 * self.channels_in;
        let slices = Vec::with_capacity(lines.len() * self.out_w);
        let mut rows = Rows { slices, step: 1 };
        for kernel_row in 0..3 {
            for part in product::blocks(run) {
                rows.slices.clear();
                for line in 0..lines.len() {
                    let line = (line * self.step + kernel_row) * length;
                    rows.slices.extend((0..self.out_w).map(|x| {
                        let first = line + x * self.step * self.channels_in + part.start;
                        &padded[first..first + part.len()]
                    }));
                }
                let depth = kernel_row * run + part.start..kernel_row * run + part.end;
                let start = if depth.start == 0 { Start::Row(bias) } else { Start::Output };
                product::multiply(output, self.channels_out, start, &rows, weight, depth);
            }
        }
    }

    /// The convolution of all samples by a weight of [`Self::packed`]; `bias` gives each sample's.
    pub(super) fn convolve_all<'a>(
        &self,
        samples: &[f32],
        weight: &Packed,
        bias: impl Fn(usize) -> &'a [f32] + Sync,
    ) -> Vec<f32> {
        let lines = (PIXELS / self.out_w).clamp(1, self.out_h);
        self.write_lines(samples, lines, Vec::new, |padded, index, lines, output| {
            let sample = &samples[index * self.sample_in()..][..self.sample_in()];
            self.convolve(sample, lines, weight, bias(index), output, padded);
        })
    }

    /// The output of all samples, of which `write` writes at most `count` lines at a time: it is given
    /// a sample's index, a range of its lines and where they go.
    pub(super) fn write_lines<R>(
        &self,
        samples: &[f32],
        count: usize,
        room: impl Fn() -> R + Send + Sync,
        write: impl Fn(&mut R, usize, Range<usize>, &mut [f32]) + Send + Sync,
    ) -> Vec<f32> {
        let line = self.out_w * self.channels_out;
        let tasks: Vec<(usize, Range<usize>)> = (0..samples.len() / self.sample_in())
            .flat_map(|index| {
                let starts = (0..self.out_h).step_by(count);
                starts.map(move |start| (index, start..(start + count).min(self.out_h)))
            })
            .collect();
        let lengths = tasks.iter().map(|(_, lines)| lines.len() * line);
        write_parts(lengths, room, |room, task, output| {
            let (index, lines) = tasks[task].clone();
            let output = output.zeros();
            write(room, index, lines, output);
            output
        })
    }

    /// `[out, in, 9]` to `[9, in, out]`.
    pub(super) fn as_matrix(&self, weight: &[f32]) -> Vec<f32> {
        let mut matrix = vec![0.0; weight.len()];
        for (out, weight) in weight.chunks_exact(self.row()).enumerate() {
            for (channel, taps) in weight.chunks_exact(9).enumerate() {
                for (tap, &value) in taps.iter().enumerate() {
                    matrix[(tap * self.channels_in + channel) * self.channels_out + out] = value;
                }
            }
        }
        matrix
    }

    /// `[9, in, out]` to `[out, in, 9]`.
    pub(super) fn as_weight(&self, matrix: &[f32]) -> Vec<f32> {
        let mut weight = vec![0.0; matrix.len()];
        for (row, values) in matrix.chunks_exact(self.channels_out).enumerate() {
            let (tap, channel) = (row / self.channels_in, row % self.channels_in);
            for (out, &value) in values.iter().enumerate() {
                weight[out * self.row() + channel * 9 + tap] = value;
            }
        }
        weight
    }
}
