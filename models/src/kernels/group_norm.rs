use burn::prelude::*;
use burn::tensor::activation;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::cuda;
use super::flex::{self, FlexOperation};
use super::parts::{parts, sum_in_order, write_parts};
use super::vector::{sigmoid, widest};

/// Group normalisation over channels-last pictures, followed by silu where asked for; computed in
/// gamma's type, which is 32 bits also where the input has 16.
///
/// # Shapes
/// - input and output: `[b, h, w, c]`
/// - gamma, beta: `[c]`, `groups` divides `c`
pub fn group_norm<B: Backend>(
    input: Tensor<B, 4>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Tensor<B, 4> {
    let on_card = cuda::group_norm(&input, &gamma, &beta, groups, epsilon, silu)
        .or_else(|| cuda::learnt::group_norm(&input, &gamma, &beta, groups, epsilon, silu));
    if let Some(output) = on_card {
        return output;
    }
    let dtype = input.dtype();
    let input = input.cast(gamma.dtype());
    let operation = GroupNormalisation { groups, epsilon: epsilon as f32, silu };
    let inputs = [flex::primitive(&input), flex::primitive(&gamma), flex::primitive(&beta)];
    flex::apply(operation, inputs)
        .unwrap_or_else(|| plain(input, gamma, beta, groups, epsilon, silu))
        .cast(dtype)
}

fn plain<B: Backend>(
    input: Tensor<B, 4>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Tensor<B, 4> {
    let [b, h, w, c] = input.dims();
    let width = c / groups;
    let count = (h * w * width) as f64;
    let sum = |x: Tensor<B, 4>| x.sum_dim(1).sum_dim(3); // [b, hw, g, c/g] -> [b, 1, g, 1]

    let grouped = input.reshape([b, h * w, groups, width]);
    let centred = grouped.clone() - sum(grouped) / count;
    let variance = sum(centred.clone().square()) / count;
    let normal = centred * (variance + epsilon).sqrt().recip();
    let scaled =
        normal * gamma.reshape([1, 1, groups, width]) + beta.reshape([1, 1, groups, width]);
    let output = scaled.reshape([b, h, w, c]);
    if silu { activation::silu(output) } else { output }
}

#[derive(Clone, Debug)]
struct GroupNormalisation {
    groups: usize,
    epsilon: f32,
    silu: bool,
}

/// Mean and sum of squared deviations of some numbers.
#[derive(Clone, Copy, Debug)]
struct Spread {
    count: f32,
    mean: f32,
    squares: f32,
}

impl Spread {
    /// Those of both sets of numbers (Chan et al. 1983).
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        let share = other.count / count;
        Self {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count * share,
        }
    }
}

/// Numbers that one thread takes at a time, about: they stay in the second-level cache. The same
/// whatever the number of threads.
const CHUNK: usize = 1 << 15;

impl GroupNormalisation {
    /// Spreads each group's mean over its channels.
    #[inline(always)]
    fn group_means(&self, sums: &mut [f32], pixels: usize) {
        let width = sums.len() / self.groups;
        for group in sums.chunks_exact_mut(width) {
            let mean = group.iter().sum::<f32>() / (pixels * width) as f32;
            group.fill(mean);
        }
    }

    /// Mean and sum of squared deviations of each group over some pixels.
    #[inline(always)]
    fn spreads(&self, pixels: &[f32], channels: usize) -> Vec<Spread> {
        let count = pixels.len() / channels;
        let width = channels / self.groups;
        let mut means = vec![0.0; channels];
        for pixel in pixels.chunks_exact(channels) {
            for (sum, value) in means.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
        self.group_means(&mut means, count);
        let mut squares = vec![0.0; channels];
        for pixel in pixels.chunks_exact(channels) {
            for ((sum, value), mean) in squares.iter_mut().zip(pixel).zip(&means) {
                let centred = value - mean;
                *sum += centred * centred;
            }
        }
        means
            .chunks_exact(width)
            .zip(squares.chunks_exact(width))
            .map(|(means, squares)| Spread {
                count: (count * width) as f32,
                mean: means[0],
                squares: squares.iter().sum(),
            })
            .collect()
    }

    /// Mean and reciprocal deviation of each channel's group over a sample in parts.
    fn moments(&self, parts: &[Vec<Spread>], channels: usize) -> (Vec<f32>, Vec<f32>) {
        let width = channels / self.groups;
        let whole = parts.iter().cloned().reduce(|mut whole, part| {
            for (whole, part) in whole.iter_mut().zip(part) {
                *whole = whole.merge(part);
            }
            whole
        });
        let groups = whole.into_iter().flatten();
        groups
            .flat_map(|Spread { count, mean, squares }| {
                let scale = 1.0 / (squares / count + self.epsilon).sqrt();
                std::iter::repeat_n((mean, scale), width)
            })
            .unzip()
    }

    /// Writes a sample's gradient to `output` and adds those of gamma and beta to theirs.
    #[inline(always)]
    fn sample_backward(
        &self,
        sample: &[f32],
        gradient: &[f32],
        [gamma, beta]: [&[f32]; 2],
        output: &mut [f32],
        [to_gamma, to_beta]: [&mut [f32]; 2],
    ) {
        let channels = gamma.len();
        let pixels = sample.len() / channels;
        let (mean, scale) = self.moments(&[self.spreads(sample, channels)], channels);
        // First the gradient before the silu, in `output`, and its sums over the pixels, plain and
        // with the normalised values.
        let (mut sums, mut products) = (vec![0.0; channels], vec![0.0; channels]);
        let rows = output
            .chunks_exact_mut(channels)
            .zip(sample.chunks_exact(channels))
            .zip(gradient.chunks_exact(channels));
        let (mean, scale) = (&mean[..channels], &scale[..channels]);
        let (gamma, beta) = (&gamma[..channels], &beta[..channels]);
        let (sums, products) = (&mut sums[..channels], &mut products[..channels]);
        for ((output, pixel), gradient) in rows {
            let (output, pixel) = (&mut output[..channels], &pixel[..channels]);
            let gradient = &gradient[..channels];
            for c in 0..channels {
                let normal = (pixel[c] - mean[c]) * scale[c];
                let mut slope = gradient[c];
                if self.silu {
                    let x = normal * gamma[c] + beta[c];
                    let sigmoid = sigmoid(x);
                    slope *= sigmoid * (1.0 + x * (1.0 - sigmoid));
                }
                output[c] = slope;
                sums[c] += slope;
                products[c] += slope * normal;
            }
        }
        for c in 0..channels {
            to_beta[c] += sums[c];
            to_gamma[c] += products[c];
            sums[c] *= gamma[c];
            products[c] *= gamma[c];
        }
        self.group_means(sums, pixels);
        self.group_means(products, pixels);
        let rows = output.chunks_exact_mut(channels).zip(sample.chunks_exact(channels));
        for (output, pixel) in rows {
            let (output, pixel) = (&mut output[..channels], &pixel[..channels]);
            for c in 0..channels {
                let normal = (pixel[c] - mean[c]) * scale[c];
                output[c] = (output[c] * gamma[c] - sums[c] - normal * products[c]) * scale[c];
            }
        }
    }
}

impl FlexOperation<3> for GroupNormalisation {
    fn forward(&self, [input, gamma, beta]: [&FlexTensor; 3]) -> FlexTensor {
        let [b, h, w, c] = flex::dims(input);
        let (gamma, beta) = (flex::values(gamma), flex::values(beta));
        let (sample, chunk) = (h * w * c, (CHUNK / c).clamp(1, h * w) * c);
        let per_sample = sample.div_ceil(chunk);
        let samples = flex::values(input).chunks(sample);
        let chunks: Vec<&[f32]> = samples.flat_map(|sample| sample.chunks(chunk)).collect();
        let spreads: Vec<Vec<Spread>> =
            chunks.par_iter().map(|chunk| widest!(self.spreads(chunk, c))).collect();
        // Mean and factor of each sample's channels. The mean is taken off first: one addend for mean and beta
        // would cancel most digits of a group whose mean is many deviations.
        let moments = spreads.chunks(per_sample).map(|parts| {
            let (mean, mut scale) = self.moments(parts, c);
            scale.iter_mut().zip(gamma).for_each(|(scale, gamma)| *scale *= gamma);
            (mean, scale)
        });
        let moments: Vec<(Vec<f32>, Vec<f32>)> = moments.collect();

        let lengths = chunks.iter().map(|chunk| chunk.len());
        let output = write_parts(
            lengths,
            || (),
            |(), index, output| {
                let output = output.zeros();
                let (chunk, (mean, scale)) = (chunks[index], &moments[index / per_sample]);
                widest!({
                    for (output, pixel) in output.chunks_exact_mut(c).zip(chunk.chunks_exact(c)) {
                        let weights = mean.iter().zip(scale).zip(beta);
                        for ((output, pixel), ((mean, scale), beta)) in
                            output.iter_mut().zip(pixel).zip(weights)
                        {
                            let x = (pixel - mean) * scale + beta;
                            *output = if self.silu { x * sigmoid(x) } else { x };
                        }
                    }
                });
                output
            },
        );
        flex::tensor(output, [b, h, w, c])
    }

    fn backward(
        &self,
        [input, gamma, beta]: [&FlexTensor; 3],
        gradient: &FlexTensor,
        _wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let [b, h, w, c] = flex::dims(input);
        let size = h * w * c;
        let (input, gradient) = (flex::values(input), flex::values(gradient));
        let weights = [flex::values(gamma), flex::values(beta)];
        let mut output = vec![0.0; b * size];
        let parts = parts(b);
        let part_size = parts.first().map_or(1, |part| part.len() * size);
        let sums: Vec<(Vec<f32>, Vec<f32>)> = output
            .par_chunks_mut(part_size)
            .zip(parts)
            .map(|(output, samples)| {
                let (mut to_gamma, mut to_beta) = (vec![0.0; c], vec![0.0; c]);
                for (output, sample) in output.chunks_exact_mut(size).zip(samples) {
                    let range = sample * size..(sample + 1) * size;
                    let (sample, gradient) = (&input[range.clone()], &gradient[range]);
                    let sums = [to_gamma.as_mut_slice(), to_beta.as_mut_slice()];
                    widest!(self.sample_backward(sample, gradient, weights, output, sums));
                }
                (to_gamma, to_beta)
            })
            .collect();
        let (to_gamma, to_beta): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        [
            Some(flex::tensor(output, [b, h, w, c])),
            Some(flex::tensor(sum_in_order(to_gamma), [c])),
            Some(flex::tensor(sum_in_order(to_beta), [c])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn a_sample_in_several_chunks_is_normalised_as_one() {
        let (b, h, w, c) = (2, 61, 40, 32);
        assert!(h * w * c > 2 * CHUNK);
        let inputs = |norm: fn(_, _, _, _, _, _) -> _| {
            move |[x, gamma, beta]: [Tensor<_, 1>; 3]| {
                norm(x.reshape([b, h, w, c]) + 3.0, gamma, beta, 8, 1e-5, true)
            }
        };
        assert_same([&[b * h * w * c], &[c], &[c]], inputs(group_norm), inputs(plain));
    }

    #[test]
    fn a_mean_of_many_deviations_costs_no_digits() {
        let device = Default::default();
        // Sums are exact: what is off is so by the normalisation.
        let values: Vec<f32> = (0..64)
            .map(|i| if i % 3 == 0 { 1024.0 } else { 1024.0 + (i % 3) as f32 - 1.5 })
            .collect();
        let (mean, count) = (values.iter().map(|&x| f64::from(x)).sum::<f64>() / 64.0, 64.0);
        let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
        let deviation = (squares / count + 1e-5).sqrt();
        let input = Tensor::<burn::backend::Flex, 1>::from_floats(values.as_slice(), &device);
        let vector = |value| Tensor::from_floats([value], &device);
        let output =
            group_norm(input.reshape([1, 8, 8, 1]), vector(1.1), vector(0.3), 1, 1e-5, false);
        for (found, x) in output.into_data().iter::<f64>().zip(values) {
            let expected =
                (f64::from(x) - mean) / deviation * f64::from(1.1_f32) + f64::from(0.3_f32);
            assert!((found - expected).abs() < 2e-6, "{found}, expected {expected}");
        }
    }

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        for silu in [false, true] {
            assert_same(
                [&[11, 3, 2, 6], &[6], &[6]],
                |[x, gamma, beta]| {
                    let x = x.reshape([11, 3, 2, 6]) + 3.0;
                    group_norm(x, gamma, beta, 2, 1e-5, silu)
                },
                |[x, gamma, beta]| {
                    let x = x.reshape([11, 3, 2, 6]) + 3.0;
                    plain(x, gamma, beta, 2, 1e-5, silu)
                },
            );
        }
    }
}
