mod portable;

use std::ops::Range;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use self::portable::{fused, fused_pays, plain};
use super::flex::{self, FlexOperation};
use super::matrix::{self, Matrix};
use super::packed::Packed;
use super::parts::{pieces, write_parts, write_pieces};
use super::product::{self, Start};
use super::vector::{exp, largest, sum, widest};
use super::{awake, cuda, learns_on_card};
use crate::dropout::Dropout;
use crate::precision::is_mixed;

/// Multi-head scaled dot-product attention (Vaswani et al. 2017),
/// `softmax(q k^T / sqrt(c / heads) + bias) v` for each head, with dropout on the softmax.
///
/// The bias masks: it gets no gradient. Logits and softmax are computed in 32 bits where the tensors
/// have 16: the logits of some published models overflow them.
/// The matrix of weights of all queries never exists at once on burn-flex, nor on CUDA in 16 bits for heads of up to
/// 256 channels, a multiple of 8, without dropout, nor there in mixed precision for heads of up to 128, a multiple of 4, nor on
/// a card where burn's own kernel serves.
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
    dropout: &Dropout,
) -> Tensor<B, 3> {
    let [b, n, _] = query.dims();
    let [_, m, _] = key.dims();
    let bias = bias.map(|bias| bias.detach().cast(DType::F32));
    if is_mixed() {
        // Of other backends' masks nothing is drawn here.
        let mask = learns_on_card::<B>().then(|| dropout.keyed_mask()).flatten();
        let inputs = [&query, &key, &value];
        if let Some(output) = cuda::learnt::attention(inputs, heads, bias.as_ref(), mask) {
            return output;
        }
    }
    let kept = dropout.mask::<B>(b * heads * n * m, &query.device()).map(Arc::new);
    if kept.is_none()
        && let Some(output) = cuda::attention([&query, &key, &value], heads, bias.as_ref())
    {
        return output;
    }
    if bias.is_none() && fused_pays(&query, m) {
        return fused(query, key, value, heads);
    }
    let none = || Tensor::zeros([1, 1, m], (&query.device(), DType::F32));
    let bias = bias.unwrap_or_else(none);
    let inputs = [
        flex::primitive(&query),
        flex::primitive(&key),
        flex::primitive(&value),
        flex::primitive(&bias),
    ];
    flex::apply(Attention { heads, kept: kept.clone() }, inputs)
        .unwrap_or_else(|| plain(query, key, value, heads, bias, kept))
}

#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
    /// Dropout's factors of the weights, `[b, heads, n, m]`.
    kept: Option<Arc<Vec<f32>>>,
}

/// Numbers of a block of attention weights: they stay in the second-level cache.
const BLOCK: usize = 1 << 16;

/// Queries up to which keys and values are read where they lie, as in decoding.
const FEW_QUERIES: usize = 4;

/// One head of one sample.
struct Head<'a> {
    /// `[n, width]`.
    query: Matrix<'a>,
    /// `[m, width]`.
    key: Matrix<'a>,
    /// `[m, width]`.
    value: Matrix<'a>,
    /// `[1 or n, m]`.
    bias: &'a [f32],
    /// `[n, m]`.
    kept: Option<&'a [f32]>,
    n: usize,
    m: usize,
    /// Numbers from one row of weights to the next: `m` and what fills up the last vector.
    stride: usize,
    width: usize,
    scale: f32,
}

/// A row of weights is a multiple of this long: what is left of a vector would be computed number by
/// number, which takes most of the time where keys are few.
const LANES: usize = 16;

impl Attention {
    /// The head of all samples' heads at `index`.
    fn head<'a>(&'a self, inputs: [&'a FlexTensor; 4], index: usize) -> Head<'a> {
        let (sample, head) = (index / self.heads, index % self.heads);
        let [_, n, c] = flex::dims(inputs[0]);
        let [_, m, _] = flex::dims::<3>(inputs[1]);
        let [biases, bias_rows, _] = flex::dims::<3>(inputs[3]);
        let bias_of = if biases == 1 { 0 } else { sample };
        let width = c / self.heads;
        let part = |tensor, rows| part(flex::values(tensor), sample, head, [rows, c, width]);
        Head {
            query: part(inputs[0], n),
            key: part(inputs[1], m),
            value: part(inputs[2], m),
            bias: &flex::values(inputs[3])[bias_of * bias_rows * m..][..bias_rows * m],
            kept: self.kept.as_ref().map(|kept| &kept[index * n * m..][..n * m]),
            n,
            m,
            stride: m.next_multiple_of(LANES),
            width,
            scale: 1.0 / (width as f32).sqrt(),
        }
    }
}

/// A head's `[rows, width]` of a sample's `[rows, c]`.
fn part(values: &[f32], sample: usize, head: usize, [rows, c, width]: [usize; 3]) -> Matrix<'_> {
    let sample = &values[sample * rows * c..][..rows * c];
    Matrix::within(&sample[head * width..], rows, width, c)
}

impl Head<'_> {
    /// Queries whose weights are computed at once: whole tiles, and at most one block of the depth, which
    /// they are in the gradients of key and value.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tiles = BLOCK / self.stride / product::TILE;
        let (n, block) = (self.n, (tiles * product::TILE).clamp(product::TILE, product::DEPTH));
        (0..n).step_by(block).map(move |start| start..(start + block).min(n))
    }

    /// Writes the softmax of some queries, `[queries, stride]`; `key` is the transposed key. What lies
    /// beyond the keys is nothing's weight.
    fn weights(&self, queries: Range<usize>, key: Option<&Packed>, weights: &mut [f32]) {
        let query = self.query.narrow(queries.clone());
        match key {
            Some(key) => self.times(weights, query, key),
            None => {
                let key = self.key.transpose();
                matrix::multiply(weights, self.stride, false, 1.0, query, key);
            }
        }
        let bias_at = if self.bias.len() == self.m { 0 } else { queries.start * self.m };
        // One row of biases serves all rows of weights, or each has its own.
        let biases = self.bias[bias_at..].chunks_exact(self.m).cycle();
        widest!({
            for (row, bias) in weights.chunks_exact_mut(self.stride).zip(biases) {
                for (logit, bias) in row.iter_mut().zip(bias) {
                    *logit = *logit * self.scale + bias;
                }
                row[self.m..].fill(f32::NEG_INFINITY);
                let row = row.as_chunks_mut::<LANES>().0.as_flattened_mut();
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

    /// Writes `left * right` for some queries, `[queries, stride]`, `right` having `m` columns.
    fn times(&self, output: &mut [f32], left: Matrix<'_>, right: &Packed) {
        product::multiply_rows(output, self.stride, Start::Zero, left, right, &mut Vec::new());
    }

    /// The matrix of some queries' weights, or of their gradients.
    fn matrix<'a>(&self, weights: &'a [f32]) -> Matrix<'a> {
        Matrix::within(weights, weights.len() / self.stride, self.m, self.stride)
    }

    /// Multiplies the weights of some queries, or their gradients, by dropout's factors.
    fn drop(&self, queries: Range<usize>, weights: &mut [f32]) {
        if let Some(kept) = self.kept {
            let kept = kept[queries.start * self.m..queries.end * self.m].chunks_exact(self.m);
            for (weights, kept) in weights.chunks_exact_mut(self.stride).zip(kept) {
                for (weight, kept) in weights.iter_mut().zip(kept) {
                    *weight *= kept;
                }
            }
        }
    }

    /// Writes the output of all queries, `[n, width]`, whose rows begin `stride` numbers apart.
    fn attend(&self, weights: &mut Vec<f32>, output: &mut [f32], stride: usize) {
        let many = self.n > FEW_QUERIES;
        let key = many.then(|| Packed::new(self.key.transpose()));
        let value = many.then(|| Packed::new(self.value));
        for queries in self.blocks() {
            weights.resize(queries.len() * self.stride, 0.0);
            self.weights(queries.clone(), key.as_ref(), weights);
            self.drop(queries.clone(), weights);
            let output = &mut output[queries.start * stride..];
            let weights = self.matrix(weights);
            match &value {
                Some(value) => {
                    let room = &mut Vec::new();
                    product::multiply_rows(output, stride, Start::Zero, weights, value, room);
                }
                None => matrix::multiply(output, stride, false, 1.0, weights, self.value),
            }
        }
    }

    /// Writes the gradients of query, key and value, `[n or m, width]`, from that of the output.
    fn gradients(
        &self,
        gradient: Matrix<'_>,
        [to_query, to_key, to_value]: [&mut [f32]; 3],
        room: &mut [Vec<f32>; 3],
    ) {
        let [weights, slopes, products] = room;
        products.resize(self.stride, 0.0);
        let key_transposed = Packed::new(self.key.transpose());
        let value_transposed = Packed::new(self.value.transpose());
        let key = Packed::new(self.key);
        for queries in self.blocks() {
            let start = if queries.start == 0 { Start::Zero } else { Start::Output };
            weights.resize(queries.len() * self.stride, 0.0);
            slopes.resize(queries.len() * self.stride, 0.0);
            let gradient = gradient.narrow(queries.clone());
            self.weights(queries.clone(), Some(&key_transposed), weights);
            // The gradient of the weights, then of the logits.
            self.times(slopes, gradient, &value_transposed);
            self.drop(queries.clone(), slopes);
            self.logit_gradients(slopes, weights, products);
            self.drop(queries.clone(), weights);
            let weights = self.matrix(weights);
            times(to_value, start, weights.transpose(), &Packed::new(gradient));
            let slopes = self.matrix(slopes);
            let to_query = &mut to_query[queries.start * self.width..queries.end * self.width];
            times(to_query, Start::Zero, slopes, &key);
            let query = Packed::new(self.query.narrow(queries));
            times(to_key, start, slopes.transpose(), &query);
        }
    }

    /// Turns the gradients of the attention weights, row by row, into those of the products of
    /// queries and keys. `products` is room for one row.
    fn logit_gradients(&self, slopes: &mut [f32], weights: &[f32], products: &mut [f32]) {
        widest!({
            let rows = slopes.chunks_exact_mut(self.stride).zip(weights.chunks_exact(self.stride));
            for (slopes, weights) in rows {
                slopes[self.m..].fill(0.0);
                for ((product, slope), weight) in products.iter_mut().zip(&*slopes).zip(weights) {
                    *product = slope * weight;
                }
                let mean = sum(products);
                for (slope, weight) in slopes.iter_mut().zip(weights) {
                    *slope = (*slope - mean) * weight * self.scale;
                }
            }
        });
    }
}

/// Writes `start + left * right`, the rows one after the other.
fn times(output: &mut [f32], start: Start<'_>, left: Matrix<'_>, right: &Packed) {
    product::multiply_rows(output, right.columns(), start, left, right, &mut Vec::new());
}

/// `[b, heads, rows, width]` to `[b, rows, heads * width]`.
fn merge(values: &[f32], [b, rows, c]: [usize; 3], heads: usize) -> FlexTensor {
    let width = c / heads;
    let output = write_pieces(b * rows * c, rows * c, |sample, output| {
        let output = output.zeros();
        let values = &values[sample * rows * c..][..rows * c];
        for (head, values) in values.chunks_exact(rows * width).enumerate() {
            let rows = output.chunks_exact_mut(c).zip(values.chunks_exact(width));
            for (row, values) in rows {
                row[head * width..(head + 1) * width].copy_from_slice(values);
            }
        }
        output
    });
    flex::tensor(output, [b, rows, c])
}

impl FlexOperation<4> for Attention {
    fn forward(&self, inputs: [&FlexTensor; 4]) -> FlexTensor {
        let dims = flex::dims::<3>(inputs[0]);
        let [b, n, c] = dims;
        let width = c / self.heads;
        let threads = rayon::current_num_threads();
        // Small samples as a whole, written where they belong, unless a thread would wait for another.
        if n * c <= BLOCK && (b.is_multiple_of(threads) || b > 4 * threads) {
            let output = write_parts(pieces(b * n * c, n * c), Vec::new, |room, sample, output| {
                let output = output.zeros();
                for head in 0..self.heads {
                    let output = &mut output[head * width..];
                    self.head(inputs, sample * self.heads + head).attend(room, output, c);
                }
                output
            });
            return flex::tensor(output, dims);
        }
        let output = write_parts(pieces(b * n * c, n * width), Vec::new, |room, index, output| {
            let output = output.zeros();
            self.head(inputs, index).attend(room, output, width);
            output
        });
        merge(&output, dims, self.heads)
    }

    fn backward(
        &self,
        inputs: [&FlexTensor; 4],
        gradient: &FlexTensor,
        _wanted: [bool; 4],
    ) -> [Option<FlexTensor>; 4] {
        let (dims, key_dims) = (flex::dims::<3>(inputs[0]), flex::dims::<3>(inputs[1]));
        let [b, n, c] = dims;
        let [_, m, _] = key_dims;
        let width = c / self.heads;
        let gradient = flex::values(gradient);
        let mut to_query = vec![0.0; b * n * c];
        let (mut to_key, mut to_value) = (vec![0.0; b * m * c], vec![0.0; b * m * c]);
        awake::others();
        to_query
            .par_chunks_exact_mut(n * width)
            .zip(to_key.par_chunks_exact_mut(m * width))
            .zip(to_value.par_chunks_exact_mut(m * width))
            .enumerate()
            .for_each_init(
                || [const { Vec::new() }; 3],
                |room, (index, ((to_query, to_key), to_value))| {
                    let (sample, head) = (index / self.heads, index % self.heads);
                    let gradient = part(gradient, sample, head, [n, c, width]);
                    let outputs = [to_query, to_key, to_value];
                    let head = self.head(inputs, index);
                    awake::at_work(|| head.gradients(gradient, outputs, room));
                },
            );
        [
            Some(merge(&to_query, dims, self.heads)),
            Some(merge(&to_key, key_dims, self.heads)),
            Some(merge(&to_value, key_dims, self.heads)),
            None,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;
    use burn::backend::{Autodiff, Flex};

    type Floats<const D: usize> = Tensor<Autodiff<Flex>, D>;

    /// Compares both paths, forward and backward, at `[b, n, m, c]`.
    fn compare([b, n, m, c]: [usize; 4], heads: usize, bias_shape: [usize; 3], drop: bool) {
        let count = bias_shape.iter().product::<usize>() as i64;
        // Every third position is all but masked.
        let bias: Floats<3> = Tensor::<_, 1, Int>::arange(0..count, &Default::default())
            .float()
            .reshape(bias_shape)
            .remainder_scalar(3.0)
            .equal_elem(1.0)
            .float()
            * -1e4;
        let kept = drop.then(|| {
            let count = b * heads * n * m;
            Arc::new((0..count).map(|i| if i % 5 == 0 { 0.0 } else { 1.25 }).collect::<Vec<f32>>())
        });
        let split = |[q, k, v]: [Floats<1>; 3]| {
            (q.reshape([b, n, c]), k.reshape([b, m, c]), v.reshape([b, m, c]))
        };
        assert_same(
            [&[b, n, c], &[b, m, c], &[b, m, c]],
            |inputs| {
                let (q, k, v) = split(inputs);
                let inputs = [&q, &k, &v, &bias].map(flex::primitive);
                flex::apply(Attention { heads, kept: kept.clone() }, inputs).expect("burn-flex")
            },
            |inputs| {
                let (q, k, v) = split(inputs);
                plain(q, k, v, heads, bias.clone(), kept.clone())
            },
        );
    }

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        let (b, n, m, c) = (3, 5, 4, 12);
        for (heads, bias) in [(1, [1, 1, m]), (3, [b, 1, m]), (4, [1, n, m]), (2, [b, n, m])] {
            compare([b, n, m, c], heads, bias, heads % 2 == 0);
            compare([b, 2, m, c], heads, [bias[0], bias[1].min(2), m], false);
        }
    }

    #[test]
    fn queries_in_several_blocks_are_as_those_in_one() {
        for drop in [false, true] {
            compare([1, 53, 3000, 8], 2, [1, 53, 3000], drop);
        }
    }
}
