use burn::prelude::*;
use burn::tensor::module::conv2d;
use burn::tensor::ops::PaddedConvOptions;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::flex::{self, FlexOperation};
use super::matrix::{Matrix, multiply};
use super::vector::widest;
use super::{parts, sum_in_order};
use crate::blocks::Stride;

/// A 3x3 convolution over channels-last pictures.
///
/// # Shapes
/// - input: `[b, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[1, out]`, or `[b, out]` for one a sample
/// - output: `[b, h', w', out]`
pub fn conv3x3<B: Backend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 2>,
    stride: Stride,
) -> Tensor<B, 4> {
    let inputs = [flex::primitive(&input), flex::primitive(&weight), flex::primitive(&bias)];
    flex::apply(Convolution { stride }, inputs)
        .unwrap_or_else(|| plain(input, weight, bias, stride))
}

fn plain<B: Backend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 2>,
    stride: Stride,
) -> Tensor<B, 4> {
    let (step, before) = geometry(stride);
    let options = PaddedConvOptions::asymmetric([step; 2], [before; 2], [1; 2], [1; 2], 1);
    let output = conv2d(input.permute([0, 3, 1, 2]), weight, None, options);
    let [rows, channels] = bias.dims();
    output.permute([0, 2, 3, 1]) + bias.reshape([rows, 1, 1, channels])
}

/// The step and the number of zeros before each side; after each there is one.
fn geometry(stride: Stride) -> (usize, usize) {
    match stride {
        Stride::One => (1, 1),
        Stride::Two => (2, 1),
        Stride::TwoPaddedAfter => (2, 0),
    }
}

/// The convolution as matrix products: each output pixel's nine input pixels are gathered into a
/// row of `9 * in` numbers, and those rows multiply a `[9 * in, out]` matrix.
#[derive(Clone, Debug)]
struct Convolution {
    stride: Stride,
}

/// The sizes that gathering needs.
#[derive(Clone, Copy)]
struct Sizes {
    step: usize,
    before: usize,
    h: usize,
    w: usize,
    channels_in: usize,
    out_h: usize,
    out_w: usize,
    channels_out: usize,
}

/// Gathered numbers that are multiplied at once: they should stay in the second-level cache.
const GATHERED: usize = 1 << 16;

impl Sizes {
    fn new(stride: Stride, input: &FlexTensor, weight: &FlexTensor) -> Self {
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

    /// Numbers in a gathered row.
    fn row(&self) -> usize {
        9 * self.channels_in
    }

    fn sample_in(&self) -> usize {
        self.h * self.w * self.channels_in
    }

    fn sample_out(&self) -> usize {
        self.out_h * self.out_w * self.channels_out
    }

    /// Lines of output pixels whose gathered rows are multiplied at once.
    fn lines_at_once(&self) -> usize {
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
    fn gather(&self, sample: &[f32], first_line: usize, gathered: &mut [f32]) {
        gathered.fill(0.0);
        for (i, gathered) in gathered.chunks_exact_mut(self.out_w * self.row()).enumerate() {
            self.for_each_run(first_line + i, |to, from, length| {
                gathered[to..to + length].copy_from_slice(&sample[from..from + length]);
            });
        }
    }

    /// Adds gathered lines to where they were gathered from.
    fn scatter(&self, gathered: &[f32], first_line: usize, sample: &mut [f32]) {
        widest(|| {
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

    /// `[out, in, 9]` to `[9, in, out]`.
    fn as_matrix(&self, weight: &[f32]) -> Vec<f32> {
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
    fn as_weight(&self, matrix: &[f32]) -> Vec<f32> {
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

impl FlexOperation<3> for Convolution {
    fn forward(&self, [input, weight, bias]: [&FlexTensor; 3]) -> FlexTensor {
        let sizes = Sizes::new(self.stride, input, weight);
        let [b, ..] = flex::dims::<4>(input);
        let (row, out) = (sizes.row(), sizes.channels_out);
        let matrix = sizes.as_matrix(flex::values(weight));
        let shared = flex::dims::<2>(bias)[0] == 1;
        let mut output = vec![0.0; b * sizes.sample_out()];
        output
            .par_chunks_exact_mut(sizes.sample_out())
            .zip(flex::values(input).par_chunks_exact(sizes.sample_in()))
            .enumerate()
            .for_each_init(
                || vec![0.0; sizes.lines_at_once() * sizes.out_w * row],
                |gathered, (index, (output, sample))| {
                    let index = if shared { 0 } else { index };
                    let bias = &flex::values(bias)[index * out..(index + 1) * out];
                    let lines = sizes.lines_at_once();
                    for (part, output) in output.chunks_mut(lines * sizes.out_w * out).enumerate() {
                        let pixels = output.len() / out;
                        let gathered = &mut gathered[..pixels * row];
                        sizes.gather(sample, part * lines, gathered);
                        for pixel in output.chunks_exact_mut(out) {
                            pixel.copy_from_slice(bias);
                        }
                        let gathered = Matrix::new(gathered, pixels, row);
                        multiply(output, out, true, 1.0, gathered, Matrix::new(&matrix, row, out));
                    }
                },
            );
        flex::tensor(output, [b, sizes.out_h, sizes.out_w, out])
    }

    fn backward(
        &self,
        [input, weight, bias]: [&FlexTensor; 3],
        gradient: &FlexTensor,
        [wants_input, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let sizes = Sizes::new(self.stride, input, weight);
        let [b, h, w, channels_in] = flex::dims(input);
        let [bias_rows, _] = flex::dims::<2>(bias);
        let (row, out) = (sizes.row(), sizes.channels_out);
        let matrix = sizes.as_matrix(flex::values(weight));
        let (samples, gradients) = (flex::values(input), flex::values(gradient));

        let mut to_input = vec![0.0; if wants_input { b * sizes.sample_in() } else { 0 }];
        let mut to_bias = vec![0.0; b * out];
        let parts = parts(b);
        let longest = parts.first().map_or(1, |part| part.len());
        let mut inputs = to_input.chunks_mut(longest * sizes.sample_in());
        let work: Vec<_> = parts
            .into_iter()
            .zip(to_bias.chunks_mut(longest * out))
            .map(|(part, to_bias)| (part, inputs.next().unwrap_or_default(), to_bias))
            .collect();
        let to_matrix: Vec<Vec<f32>> = work
            .into_par_iter()
            .map(|(part, to_input, to_bias)| {
                let mut to_matrix = vec![0.0; if wants_weight { matrix.len() } else { 0 }];
                let lines = sizes.lines_at_once();
                let mut gathered = vec![0.0; lines * sizes.out_w * row];
                let mut to_input = to_input.chunks_exact_mut(sizes.sample_in());
                for (index, to_bias) in part.zip(to_bias.chunks_exact_mut(out)) {
                    let sample = &samples[index * sizes.sample_in()..][..sizes.sample_in()];
                    let gradient = &gradients[index * sizes.sample_out()..][..sizes.sample_out()];
                    let mut to_sample = to_input.next();
                    for pixel in gradient.chunks_exact(out) {
                        for (sum, value) in to_bias.iter_mut().zip(pixel) {
                            *sum += value;
                        }
                    }
                    for (i, gradient) in gradient.chunks(lines * sizes.out_w * out).enumerate() {
                        let pixels = gradient.len() / out;
                        let gathered = &mut gathered[..pixels * row];
                        let gradient = Matrix::new(gradient, pixels, out);
                        if wants_weight {
                            sizes.gather(sample, i * lines, gathered);
                            let rows = Matrix::new(gathered, pixels, row).transpose();
                            multiply(&mut to_matrix, out, true, 1.0, rows, gradient);
                        }
                        if let Some(to_sample) = &mut to_sample {
                            let matrix = Matrix::new(&matrix, row, out).transpose();
                            multiply(gathered, row, false, 1.0, gradient, matrix);
                            sizes.scatter(gathered, i * lines, to_sample);
                        }
                    }
                }
                to_matrix
            })
            .collect();

        let to_bias = if bias_rows == 1 {
            sum_in_order(to_bias.chunks_exact(out).map(<[f32]>::to_vec).collect())
        } else {
            to_bias
        };
        [
            wants_input.then(|| flex::tensor(to_input, [b, h, w, channels_in])),
            wants_weight.then(|| {
                let weight = sizes.as_weight(&sum_in_order(to_matrix));
                flex::tensor(weight, [out, channels_in, 3, 3])
            }),
            wants_bias.then(|| flex::tensor(to_bias, [bias_rows, out])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn the_fast_path_equals_the_convolution_of_burn_with_its_gradients() {
        // 3x40x24 pixels take several parts of gathered lines.
        for (b, h, w, channels_in, channels_out) in [(11, 6, 4, 3, 5), (3, 40, 24, 12, 2)] {
            for stride in [Stride::One, Stride::Two, Stride::TwoPaddedAfter] {
                for bias_rows in [1, b] {
                    let function = |convolve: fn(_, _, _, _) -> _| {
                        move |[x, weight, bias]: [Tensor<_, 1>; 3]| {
                            let x = x.reshape([b, h, w, channels_in]);
                            let weight = weight.reshape([channels_out, channels_in, 3, 3]);
                            let bias = bias.reshape([bias_rows, channels_out]);
                            convolve(x, weight, bias, stride)
                        }
                    };
                    assert_same(
                        [
                            &[b, h, w, channels_in],
                            &[channels_out, channels_in, 3, 3],
                            &[bias_rows, channels_out],
                        ],
                        function(conv3x3),
                        function(plain),
                    );
                }
            }
        }
    }
}
