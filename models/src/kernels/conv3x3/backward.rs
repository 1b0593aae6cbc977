//! The gradients of input, weight and bias.

use rayon::prelude::*;

use super::sizes::Sizes;
use super::winograd;
use crate::kernels::matrix::{Matrix, multiply};
use crate::kernels::parts::{parts, sum_in_order};
use crate::kernels::vector::widest;

/// The gradient of the weight, `[out, in, 3, 3]`.
pub(super) fn to_weight(sizes: &Sizes, samples: &[f32], gradients: &[f32]) -> Vec<f32> {
    let (row, out, lines) = (sizes.row(), sizes.channels_out, sizes.lines_at_once());
    let blocks = sizes.out_h.div_ceil(lines);
    // Blocks of lines of all samples, so that one large picture keeps more than a thread busy.
    let matrices = parts(samples.len() / sizes.sample_in() * blocks)
        .into_par_iter()
        .map(|part| {
            let mut matrix = vec![0.0; row * out];
            let mut gathered = vec![0.0; lines * sizes.out_w * row];
            for (index, block) in part.map(|at| (at / blocks, at % blocks)) {
                let sample = &samples[index * sizes.sample_in()..][..sizes.sample_in()];
                let gradient = &gradients[index * sizes.sample_out()..][..sizes.sample_out()];
                let gradient = &gradient[block * lines * sizes.out_w * out..];
                let pixels = (lines * sizes.out_w).min(gradient.len() / out);
                let gathered = &mut gathered[..pixels * row];
                sizes.gather(sample, block * lines, gathered);
                let gathered = Matrix::new(gathered, pixels, row).transpose();
                let gradient = Matrix::new(&gradient[..pixels * out], pixels, out);
                multiply(&mut matrix, out, true, 1.0, gathered, gradient);
            }
            matrix
        })
        .collect();
    sizes.as_weight(&sum_in_order(matrices))
}

/// The gradient of the input where the convolution steps by one: a convolution of the output's.
pub(super) fn to_input(sizes: &Sizes, weight: &[f32], gradients: &[f32]) -> Vec<f32> {
    let back = sizes.back();
    let zeros = vec![0.0; back.channels_out];
    if winograd::pays(&back, gradients.len() / sizes.sample_out()) {
        let factor = winograd::factor_back(sizes, weight);
        winograd::convolve_all(&back, gradients, &factor, |_| &zeros)
    } else {
        back.convolve_all(gradients, &sizes.packed_back(weight), |_| &zeros)
    }
}

/// The gradient of the input where the convolution steps by two.
pub(super) fn to_strided_input(sizes: &Sizes, weight: &[f32], gradients: &[f32]) -> Vec<f32> {
    let (row, out, lines) = (sizes.row(), sizes.channels_out, sizes.lines_at_once());
    let matrix = sizes.as_matrix(weight);
    let mut output = vec![0.0; gradients.len() / sizes.sample_out() * sizes.sample_in()];
    output
        .par_chunks_exact_mut(sizes.sample_in())
        .zip(gradients.par_chunks_exact(sizes.sample_out()))
        .for_each_init(Vec::new, |gathered, (output, gradient)| {
            for (i, gradient) in gradient.chunks(lines * sizes.out_w * out).enumerate() {
                let pixels = gradient.len() / out;
                gathered.resize(pixels * row, 0.0);
                let gradient = Matrix::new(gradient, pixels, out);
                let matrix = Matrix::new(&matrix, row, out).transpose();
                multiply(gathered, row, false, 1.0, gradient, matrix);
                sizes.scatter(gathered, i * lines, output);
            }
        });
    output
}

/// The gradient of the bias, of `rows` rows: one for all samples, or one each.
pub(super) fn to_bias(sizes: &Sizes, gradients: &[f32], rows: usize) -> Vec<f32> {
    let out = sizes.channels_out;
    let each: Vec<Vec<f32>> = gradients
        .par_chunks_exact(sizes.sample_out())
        .map(|gradient| {
            let mut sums = vec![0.0; out];
            widest!({
                for pixel in gradient.chunks_exact(out) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += value;
                    }
                }
            });
            sums
        })
        .collect();
    if rows == 1 { sum_in_order(each) } else { each.concat() }
}
