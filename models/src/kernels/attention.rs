use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::flex::{self, FlexOperation};
use super::matrix::{Matrix, multiply};
use super::vector::{exp, largest, sum, widest};

/// Multi-head scaled dot-product attention (Vaswani et al. 2017),
/// `softmax(q k^T / sqrt(c / heads) + bias) v` for each head.
///
/// The bias masks: it gets no gradient.
///
/// # Shapes
/// - query: `[b, n, c]`, `heads` divides `c`
/// - key, value: `[b, m, c]`
/// - bias: `[1 or b, 1 or n, m]`, added to the logits of every head
/// - output: `[b, n, c]`
pub fn attention<B: Backend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    heads: usize,
    bias: Option<Tensor<B, 3>>,
) -> Tensor<B, 3> {
    let bias =
        bias.map_or_else(|| Tensor::zeros([1, 1, key.dims()[1]], &query.device()), Tensor::detach);
    let inputs = [
        flex::primitive(&query),
        flex::primitive(&key),
        flex::primitive(&value),
        flex::primitive(&bias),
    ];
    flex::apply(Attention { heads }, inputs)
        .unwrap_or_else(|| plain(query, key, value, heads, bias))
}

fn plain<B: Backend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    heads: usize,
    bias: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let [b, n, c] = query.dims();
    let width = c / heads;
    let split = |x: Tensor<B, 3>| {
        let length = x.dims()[1];
        x.reshape([b, length, heads, width]).swap_dims(1, 2) // [b, heads, length, width]
    };
    let query = split(query * (width as f64).powf(-0.5));
    let logits = query.matmul(split(key).transpose()) + bias.unsqueeze_dim(1); // [b, heads, n, m]
    let attended = softmax(logits, 3).matmul(split(value)); // [b, heads, n, width]
    attended.swap_dims(1, 2).reshape([b, n, c])
}

#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
}

/// One sample's queries, keys, values and bias, and the sizes.
struct Sample<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    bias: &'a [f32],
    m: usize,
    c: usize,
    width: usize,
}

impl<'a> Sample<'a> {
    fn new(heads: usize, inputs: [&'a FlexTensor; 4], index: usize) -> Self {
        let [query, key, value, bias] = inputs.map(flex::values);
        let [_, n, c] = flex::dims(inputs[0]);
        let [_, m, _] = flex::dims::<3>(inputs[1]);
        let [biases, bias_rows, _] = flex::dims::<3>(inputs[3]);
        let bias_index = if biases == 1 { 0 } else { index };
        Self {
            query: &query[index * n * c..][..n * c],
            key: &key[index * m * c..][..m * c],
            value: &value[index * m * c..][..m * c],
            bias: &bias[bias_index * bias_rows * m..][..bias_rows * m],
            m,
            c,
            width: c / heads,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// A head's part of rows of all heads.
    fn head<'b>(&self, rows: &'b [f32], head: usize) -> Matrix<'b> {
        let count = rows.len() / self.c;
        Matrix::within(&rows[head * self.width..], count, self.width, self.c)
    }

    /// Writes a head's attention weights, `[n, m]`.
    fn weights(&self, head: usize, weights: &mut [f32]) {
        let (query, key) = (self.head(self.query, head), self.head(self.key, head));
        multiply(weights, self.m, false, self.scale(), query, key.transpose());
        // One row of biases serves all rows of weights, or each has its own.
        let biases = self.bias.chunks_exact(self.m).cycle();
        widest(|| {
            for (row, bias) in weights.chunks_exact_mut(self.m).zip(biases) {
                for (logit, bias) in row.iter_mut().zip(bias) {
                    *logit += bias;
                }
                let largest = largest(row);
                for value in row.iter_mut() {
                    *value = exp(*value - largest);
                }
                let inverse = 1.0 / sum(row);
                for value in row {
                    *value *= inverse;
                }
            }
        });
    }
}

/// Turns the gradients of the attention weights, row by row, into those of the logits.
/// `products` is room for one row.
fn logit_gradients(slopes: &mut [f32], weights: &[f32], products: &mut [f32]) {
    let m = products.len();
    widest(|| {
        let rows = slopes.chunks_exact_mut(m).zip(weights.chunks_exact(m));
        for (slopes, weights) in rows {
            for ((product, slope), weight) in products.iter_mut().zip(&*slopes).zip(weights) {
                *product = slope * weight;
            }
            let mean = sum(products);
            for (slope, weight) in slopes.iter_mut().zip(weights) {
                *slope = (*slope - mean) * weight;
            }
        }
    });
}

impl FlexOperation<4> for Attention {
    fn forward(&self, inputs: [&FlexTensor; 4]) -> FlexTensor {
        let [b, n, c] = flex::dims(inputs[0]);
        let [_, m, _] = flex::dims::<3>(inputs[1]);
        let mut output = vec![0.0; b * n * c];
        output.par_chunks_exact_mut(n * c).enumerate().for_each_init(
            || vec![0.0; n * m],
            |weights, (index, output)| {
                let sample = Sample::new(self.heads, inputs, index);
                for head in 0..self.heads {
                    sample.weights(head, weights);
                    let weights = Matrix::new(weights, n, m);
                    let value = sample.head(sample.value, head);
                    multiply(&mut output[head * sample.width..], c, false, 1.0, weights, value);
                }
            },
        );
        flex::tensor(output, [b, n, c])
    }

    fn backward(
        &self,
        inputs: [&FlexTensor; 4],
        gradient: &FlexTensor,
        _wanted: [bool; 4],
    ) -> [Option<FlexTensor>; 4] {
        let [b, n, c] = flex::dims(inputs[0]);
        let [_, m, _] = flex::dims::<3>(inputs[1]);
        let gradient = flex::values(gradient);
        let mut to_query = vec![0.0; b * n * c];
        let (mut to_key, mut to_value) = (vec![0.0; b * m * c], vec![0.0; b * m * c]);
        to_query
            .par_chunks_exact_mut(n * c)
            .zip(to_key.par_chunks_exact_mut(m * c))
            .zip(to_value.par_chunks_exact_mut(m * c))
            .enumerate()
            .for_each_init(
                || (vec![0.0; n * m], vec![0.0; n * m], vec![0.0; m]),
                |(weights, slopes, products), (index, ((to_query, to_key), to_value))| {
                    let sample = Sample::new(self.heads, inputs, index);
                    let gradient = &gradient[index * n * c..][..n * c];
                    for head in 0..self.heads {
                        let first = head * sample.width;
                        sample.weights(head, weights);
                        let gradient = sample.head(gradient, head);
                        let value = sample.head(sample.value, head);
                        let attended = Matrix::new(weights, n, m).transpose();
                        multiply(&mut to_value[first..], c, false, 1.0, attended, gradient);
                        // The gradient of the weights, then of the logits.
                        multiply(slopes, m, false, 1.0, gradient, value.transpose());
                        logit_gradients(slopes, weights, products);
                        let slopes = Matrix::new(slopes, n, m);
                        let scale = sample.scale();
                        let key = sample.head(sample.key, head);
                        let query = sample.head(sample.query, head);
                        multiply(&mut to_query[first..], c, false, scale, slopes, key);
                        multiply(&mut to_key[first..], c, false, scale, slopes.transpose(), query);
                    }
                },
            );
        [
            Some(flex::tensor(to_query, [b, n, c])),
            Some(flex::tensor(to_key, [b, m, c])),
            Some(flex::tensor(to_value, [b, m, c])),
            None,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;
    use burn::backend::{Autodiff, Flex};

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        type Floats<const D: usize> = Tensor<Autodiff<Flex>, D>;
        let (b, n, m, c) = (3, 5, 4, 12);
        for (heads, bias_shape) in [(1, [1, 1, m]), (3, [b, 1, m]), (4, [1, n, m]), (2, [b, n, m])]
        {
            let count = bias_shape.iter().product::<usize>() as i64;
            // Every third position is all but masked.
            let bias: Floats<3> = Tensor::<_, 1, Int>::arange(0..count, &Default::default())
                .float()
                .reshape(bias_shape)
                .remainder_scalar(3.0)
                .equal_elem(1.0)
                .float()
                * -1e4;
            let split = |[q, k, v]: [Floats<1>; 3]| {
                (q.reshape([b, n, c]), k.reshape([b, m, c]), v.reshape([b, m, c]))
            };
            assert_same(
                [&[b, n, c], &[b, m, c], &[b, m, c]],
                |inputs| {
                    let (q, k, v) = split(inputs);
                    attention(q, k, v, heads, Some(bias.clone()))
                },
                |inputs| {
                    let (q, k, v) = split(inputs);
                    plain(q, k, v, heads, bias.clone())
                },
            );
        }
    }
}
