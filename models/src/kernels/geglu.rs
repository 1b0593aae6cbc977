use burn::prelude::*;
use burn::tensor::activation::gelu;
use burn_flex::FlexTensor;

use super::cuda;
use super::flex::{self, FlexOperation};
use super::parts::write_pieces;
use super::vector::{normal, widest};

/// The first half of the last dimension times gelu of the second (Shazeer 2020), with the exact
/// gelu, `x * Phi(x)`.
///
/// # Shapes
/// - input: `[b, n, 2c]`
/// - output: `[b, n, c]`
pub fn geglu<B: Backend>(input: Tensor<B, 3>) -> Tensor<B, 3> {
    cuda::geglu(&input)
        .or_else(|| flex::apply(Geglu, [flex::primitive(&input)]))
        .or_else(|| cuda::learnt::geglu(&input))
        .unwrap_or_else(|| plain(input))
}

fn plain<B: Backend>(input: Tensor<B, 3>) -> Tensor<B, 3> {
    let width = input.dims()[2] / 2;
    let values = input.clone().narrow(2, 0, width);
    values * gelu(input.narrow(2, width, width))
}

/// Multiplies values by gelu of their gates.
pub(super) fn gate(values: &mut [f32], gates: &[f32]) {
    widest!({
        for (value, &gate) in values.iter_mut().zip(gates) {
            *value = *value * gate * normal(gate).0;
        }
    });
}

/// The same for rows of `width` values and as many gates, on all threads.
pub(super) fn gate_rows(input: &[f32], width: usize) -> Vec<f32> {
    let rows = rows(width);
    write_pieces(input.len() / 2, rows * width, |index, output| {
        let output = output.zeros();
        let input = &input[index * rows * 2 * width..][..2 * output.len()];
        for (output, input) in output.chunks_exact_mut(width).zip(input.chunks_exact(2 * width)) {
            let (values, gates) = input.split_at(width);
            output.copy_from_slice(values);
            gate(output, gates);
        }
        output
    })
}

#[derive(Clone, Debug)]
struct Geglu;

impl FlexOperation<1> for Geglu {
    fn forward(&self, [input]: [&FlexTensor; 1]) -> FlexTensor {
        let [b, n, double] = flex::dims(input);
        let width = double / 2;
        let output = gate_rows(flex::values(input), width);
        flex::tensor(output, [b, n, width])
    }

    fn backward(
        &self,
        [input]: [&FlexTensor; 1],
        gradient: &FlexTensor,
        _wanted: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let [b, n, double] = flex::dims(input);
        let width = double / 2;
        let rows = rows(width);
        let (input, gradient) = (flex::values(input), flex::values(gradient));
        let output = write_pieces(b * n * double, rows * double, |index, output| {
            let output = output.zeros();
            let input = &input[index * rows * double..][..output.len()];
            let gradient = &gradient[index * rows * width..][..output.len() / 2];
            widest!({
                let rows = output
                    .chunks_exact_mut(double)
                    .zip(input.chunks_exact(double))
                    .zip(gradient.chunks_exact(width));
                for ((output, input), gradient) in rows {
                    let (to_values, to_gates) = output.split_at_mut(width);
                    let (values, gates) = input.split_at(width);
                    let outputs = to_values.iter_mut().zip(to_gates);
                    let inputs = values.iter().zip(gates).zip(gradient);
                    for ((to_value, to_gate), ((&value, &gate), &slope)) in outputs.zip(inputs) {
                        let (phi, density) = normal(gate);
                        *to_value = slope * gate * phi;
                        *to_gate = slope * value * (phi + gate * density);
                    }
                }
            });
            output
        });
        [Some(flex::tensor(output, [b, n, double]))]
    }
}

/// Rows that one thread takes at a time.
fn rows(width: usize) -> usize {
    (CHUNK / width).max(1)
}

/// Numbers of those rows, about.
const CHUNK: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        assert_same(
            [&[2, 3001, 10]],
            |[x]| geglu(x.reshape([2, 3001, 10])),
            |[x]| plain(x.reshape([2, 3001, 10])),
        );
    }
}
