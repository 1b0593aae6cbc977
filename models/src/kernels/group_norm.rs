use burn::prelude::*;
use burn::tensor::activation;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::flex::{self, FlexOperation};
use super::vector::{sigmoid, widest};
use super::{parts, sum_in_order};

/// Group normalisation over channels-last pictures, followed by silu where asked for.
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
    let operation = GroupNormalisation { groups, epsilon: epsilon as f32, silu };
    let inputs = [flex::primitive(&input), flex::primitive(&gamma), flex::primitive(&beta)];
    flex::apply(operation, inputs)
        .unwrap_or_else(|| plain(input, gamma, beta, groups, epsilon, silu))
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

    /// Mean and reciprocal deviation of a sample, for each channel.
    #[inline(always)]
    fn moments(&self, sample: &[f32], channels: usize) -> (Vec<f32>, Vec<f32>) {
        let pixels = sample.len() / channels;
        let mut mean = vec![0.0; channels];
        for pixel in sample.chunks_exact(channels) {
            for (sum, value) in mean.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
        self.group_means(&mut mean, pixels);
        let mut scale = vec![0.0; channels];
        for pixel in sample.chunks_exact(channels) {
            for ((sum, value), mean) in scale.iter_mut().zip(pixel).zip(&mean) {
                let centred = value - mean;
                *sum += centred * centred;
            }
        }
        self.group_means(&mut scale, pixels);
        for value in &mut scale {
            *value = 1.0 / (*value + self.epsilon).sqrt();
        }
        (mean, scale)
    }

    /// Writes a sample's output.
    #[inline(always)]
    fn sample_forward(&self, sample: &[f32], gamma: &[f32], beta: &[f32], output: &mut [f32]) {
        let channels = gamma.len();
        let (mut shift, mut scale) = self.moments(sample, channels);
        for c in 0..channels {
            scale[c] *= gamma[c];
            shift[c] = beta[c] - shift[c] * scale[c];
        }
        let rows = output.chunks_exact_mut(channels).zip(sample.chunks_exact(channels));
        for (output, pixel) in rows {
            let weights = scale.iter().zip(&shift);
            for ((output, pixel), (scale, shift)) in output.iter_mut().zip(pixel).zip(weights) {
                let x = pixel * scale + shift;
                *output = if self.silu { x * sigmoid(x) } else { x };
            }
        }
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
        let (mean, scale) = self.moments(sample, channels);
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
        let mut output = vec![0.0; b * h * w * c];
        output.par_chunks_mut(h * w * c).zip(flex::values(input).par_chunks(h * w * c)).for_each(
            |(output, sample)| {
                widest(|| self.sample_forward(sample, gamma, beta, output));
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
                    widest(|| self.sample_backward(sample, gradient, weights, output, sums));
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
