use burn::prelude::*;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::cuda;
use super::flex::{self, FlexOperation};
use super::parts::{parts, sum_in_order, write_pieces};
use super::vector::{sum, widest};

/// Layer normalisation (Ba et al. 2016) over the last dimension,
/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`; computed in gamma's type, which is 32 bits
/// also where the input has 16.
///
/// # Shapes
/// - input and output: `[.., c]`
/// - gamma, beta: `[c]`
pub fn layer_norm<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, D> {
    let on_card = cuda::layer_norm(&input, &gamma, &beta, epsilon)
        .or_else(|| cuda::learnt::layer_norm(&input, &gamma, &beta, epsilon));
    if let Some(output) = on_card {
        return output;
    }
    let (dims, dtype) = (input.dims(), input.dtype());
    let [channels] = gamma.dims();
    let rows: Tensor<B, 2> = input.cast(gamma.dtype()).reshape([-1, channels as i32]);
    let operation = LayerNormalisation { epsilon: epsilon as f32 };
    let inputs = [flex::primitive(&rows), flex::primitive(&gamma), flex::primitive(&beta)];
    flex::apply(operation, inputs)
        .unwrap_or_else(|| plain(rows, gamma, beta, epsilon))
        .reshape(dims)
        .cast(dtype)
}

fn plain<B: Backend>(
    input: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, 2> {
    let centred = input.clone() - input.mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    let normal = centred * (variance + epsilon).sqrt().recip();
    normal * gamma.unsqueeze() + beta.unsqueeze()
}

#[derive(Clone, Debug)]
struct LayerNormalisation {
    epsilon: f32,
}

/// Rows that one thread takes at a time.
const ROWS: usize = 16;

impl LayerNormalisation {
    /// Mean and reciprocal deviation; `room` is as long as the row.
    #[inline(always)]
    fn moments(&self, row: &[f32], room: &mut [f32]) -> (f32, f32) {
        let count = row.len() as f32;
        let mean = sum(row) / count;
        for (square, value) in room.iter_mut().zip(row) {
            let centred = value - mean;
            *square = centred * centred;
        }
        (mean, 1.0 / (sum(room) / count + self.epsilon).sqrt())
    }
}

impl FlexOperation<3> for LayerNormalisation {
    fn forward(&self, [input, gamma, beta]: [&FlexTensor; 3]) -> FlexTensor {
        let dims = flex::dims::<2>(input);
        let channels = dims[1];
        let (gamma, beta) = (flex::values(gamma), flex::values(beta));
        let values = flex::values(input);
        let output = write_pieces(values.len(), ROWS * channels, |index, output| {
            let output = output.zeros();
            let input = &values[index * ROWS * channels..][..output.len()];
            widest!({
                let rows = output.chunks_exact_mut(channels);
                for (output, row) in rows.zip(input.chunks_exact(channels)) {
                    let (mean, scale) = self.moments(row, output);
                    let weights = gamma.iter().zip(beta);
                    for ((output, value), (gamma, beta)) in output.iter_mut().zip(row).zip(weights)
                    {
                        *output = (value - mean) * scale * gamma + beta;
                    }
                }
            });
            output
        });
        flex::tensor(output, dims)
    }

    fn backward(
        &self,
        [input, gamma, _]: [&FlexTensor; 3],
        gradient: &FlexTensor,
        _wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let dims = flex::dims::<2>(input);
        let [rows, channels] = dims;
        let (input, gamma, gradient) =
            (flex::values(input), flex::values(gamma), flex::values(gradient));
        let mut output = vec![0.0; rows * channels];
        let parts = parts(rows);
        let part_size = parts.first().map_or(1, |part| part.len() * channels);
        let (to_gamma, to_beta): (Vec<_>, Vec<_>) = output
            .par_chunks_mut(part_size)
            .zip(input.par_chunks(part_size).zip(gradient.par_chunks(part_size)))
            .map(|(output, (input, gradient))| {
                let mut to_gamma = vec![0.0; channels];
                let mut to_beta = vec![0.0; channels];
                let mut products = vec![0.0; channels];
                widest!({
                    let rows = output
                        .chunks_exact_mut(channels)
                        .zip(input.chunks_exact(channels))
                        .zip(gradient.chunks_exact(channels));
                    for ((output, row), gradient) in rows {
                        let (mean, scale) = self.moments(row, output);
                        // The gradient before gamma, in `output`, and its product with the normal
                        // values.
                        let weights = gamma.iter().zip(&mut to_gamma).zip(&mut to_beta);
                        let numbers = output.iter_mut().zip(&mut products).zip(row).zip(gradient);
                        for ((((output, product), value), slope), ((gamma, to_gamma), to_beta)) in
                            numbers.zip(weights)
                        {
                            let normal = (value - mean) * scale;
                            *to_gamma += slope * normal;
                            *to_beta += slope;
                            *output = slope * gamma;
                            *product = *output * normal;
                        }
                        let count = channels as f32;
                        let (shift, tilt) = (sum(output) / count, sum(&products) / count);
                        for (output, value) in output.iter_mut().zip(row) {
                            let normal = (value - mean) * scale;
                            *output = (*output - shift - normal * tilt) * scale;
                        }
                    }
                });
                (to_gamma, to_beta)
            })
            .unzip();
        [
            Some(flex::tensor(output, dims)),
            Some(flex::tensor(sum_in_order(to_gamma), [channels])),
            Some(flex::tensor(sum_in_order(to_beta), [channels])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        for (rows, channels) in [(1, 5), (37, 20), (3, 131)] {
            let function = |norm: fn(_, _, _, _) -> _| {
                move |[x, gamma, beta]: [Tensor<_, 1>; 3]| {
                    norm(x.reshape([rows, channels]), gamma, beta, 1e-5)
                }
            };
            assert_same(
                [&[rows, channels], &[channels], &[channels]],
                function(layer_norm),
                function(plain),
            );
        }
    }
}
