use burn::nn::Embedding;
use burn::prelude::*;
use burn_flex::FlexTensor;

use super::flex::{self, FlexOperation};

/// The rows of a table at the ids.
///
/// burn-flex's backward pass writes a gradient of the whole table twice, on one thread, however few the
/// ids are: with BERT's 30,522 words a twentieth of a forward and backward pass.
///
/// # Shapes
/// - ids: `[batch, tokens]`
/// - output: `[batch, tokens, width]`
pub fn embedding<B: Backend>(table: &Embedding<B>, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    if !flex::is_flex::<B>() {
        return table.forward(ids);
    }
    let dims = ids.dims();
    let lookup = Lookup { rows: ids.to_data().iter::<i64>().map(|id| id as usize).collect() };
    match flex::apply(lookup, [flex::primitive(&table.weight.val())]) {
        Some(rows) => Tensor::<B, 2>::reshape(rows, [dims[0] as i32, dims[1] as i32, -1]),
        None => table.forward(ids),
    }
}

/// Rows of a matrix, each as often as its index comes.
#[derive(Clone, Debug)]
struct Lookup {
    rows: Vec<usize>,
}

impl FlexOperation<1> for Lookup {
    fn forward(&self, [table]: [&FlexTensor; 1]) -> FlexTensor {
        let [_, width] = flex::dims(table);
        let table = flex::values(table);
        let mut output = Vec::with_capacity(self.rows.len() * width);
        for row in &self.rows {
            output.extend_from_slice(&table[row * width..][..width]);
        }
        flex::tensor(output, [self.rows.len(), width])
    }

    fn backward(
        &self,
        [table]: [&FlexTensor; 1],
        gradient: &FlexTensor,
        _wanted: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let [count, width] = flex::dims(table);
        // Pages of a large one that nothing is added to are never written.
        let mut sums = vec![0.0; count * width];
        for (row, gradient) in self.rows.iter().zip(flex::values(gradient).chunks_exact(width)) {
            for (sum, value) in sums[row * width..][..width].iter_mut().zip(gradient) {
                *sum += value;
            }
        }
        [Some(flex::tensor(sums, [count, width]))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;
    use burn::module::{Param, ParamId};

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        // Ids that come twice, and a row that none asks for.
        for ids in [vec![3], vec![4, 0, 4, 1, 4, 2]] {
            let tokens = ids.len();
            assert_same(
                [&[5, 7]],
                |[table]| {
                    let weight = Param::initialized(ParamId::from(0), table.reshape([5, 7]));
                    let ids = TensorData::new(ids.clone(), [1, tokens]);
                    embedding(&Embedding { weight }, Tensor::from_data(ids, &Default::default()))
                },
                |[table]| {
                    let ids = TensorData::new(ids.clone(), [tokens]);
                    let ids = Tensor::<_, 1, Int>::from_data(ids, &Default::default());
                    table.reshape([5, 7]).select(0, ids).unsqueeze::<3>()
                },
            );
        }
    }
}
