use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{Info, added, chunk, columns, launch};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer, empty, exactly, placed};
use crate::kernels::cuda::layout::{self, contiguous};
use crate::kernels::flex::primitive;

/// Layer normalisation over the last dimension.
///
/// # Shapes
/// - input and output: `[.., c]`
/// - gamma, beta: `[c]`
pub(in crate::kernels) fn layer_norm<B: Backend, const D: usize>(
    input: &Tensor<B, D>,
    gamma: &Tensor<B, 1>,
    beta: &Tensor<B, 1>,
    epsilon: f64,
) -> Option<Tensor<B, D>> {
    let c = input.dims()[D - 1];
    if gamma.dims() != [c] || beta.dims() != [c] {
        return None;
    }
    let operation = LayerNormalisation { epsilon: epsilon as f32 };
    apply(operation, [primitive(input), primitive(gamma), primitive(beta)])
}

#[derive(Clone, Debug)]
struct LayerNormalisation {
    epsilon: f32,
}

/// Rows of a block, a warp's each.
const ROWS: usize = 4;

fn rows(input: &Shape) -> usize {
    let (_, rows) = input.split_last().expect("an input has a last dimension");
    rows.iter().product()
}

impl Learnt<3> for LayerNormalisation {
    fn forward(&self, inputs: [Deferred; 3]) -> (Deferred, Vec<Deferred>) {
        let [input, gamma, _] = &inputs;
        let mut kept = vec![input.clone(), gamma.clone()];
        let shape = input.shape.clone();
        let moments = Shape::new([rows(&shape), 2]);
        let outputs = vec![(shape, DType::F32), (moments, DType::F32)];
        let [output, moments] = exactly(defer(self.clone(), inputs.into(), outputs));
        kept.push(moments);
        (output, kept)
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        wanted: [bool; 3],
    ) -> [Option<Deferred>; 3] {
        let [input, parameter] = [kept[0].shape.clone(), kept[1].shape.clone()];
        kept.push(gradient);
        let [wants_input, wants_gamma, wants_beta] = wanted;
        // The sums of both parameters are one kernel's.
        let learns = wants_gamma || wants_beta;
        let mut outputs = Vec::new();
        outputs.extend(wants_input.then_some((input, DType::F32)));
        if learns {
            outputs.extend([(parameter.clone(), DType::F32), (parameter, DType::F32)]);
        }
        let outputs = defer(Backward { wants_input, learns }, kept, outputs);
        placed([wants_input, learns, learns], outputs)
    }
}

impl Launches for LayerNormalisation {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gamma, beta] = exactly(inputs).map(contiguous);
        let [c] = layout::dims(&gamma);
        let shape = input.meta.shape.clone();
        let rows = rows(&shape);
        let output = empty(&input, shape, DType::F32);
        let moments = empty(&input, Shape::new([rows, 2]), DType::F32);
        let buffers = [&input.handle, &gamma.handle, &beta.handle, &output.handle, &moments.handle];
        let info = Info { rows, c, epsilon: self.epsilon, ..Info::default() };
        let grid = [rows.div_ceil(ROWS), 1, 1];
        launch(("norm_forward", 32 * ROWS), None, &input.client, grid, &buffers, info);
        vec![output, moments]
    }
}

#[derive(Debug)]
struct Backward {
    wants_input: bool,
    /// Gamma and beta.
    learns: bool,
}

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gamma, moments, gradient] = exactly(inputs).map(contiguous);
        let [c] = layout::dims(&gamma);
        let (client, rows) = (&input.client, rows(&input.meta.shape));
        let info = Info { rows, c, chunk: chunk(rows), ..Info::default() };
        let mut outputs = Vec::new();
        if self.wants_input {
            let output = empty(&input, input.meta.shape.clone(), DType::F32);
            let buffers =
                [&input.handle, &gamma.handle, &moments.handle, &gradient.handle, &output.handle];
            let grid = [rows.div_ceil(ROWS), 1, 1];
            launch(("norm_backward", 32 * ROWS), None, client, grid, &buffers, info);
            outputs.push(output);
        }
        if self.learns {
            let chunks = rows.div_ceil(info.chunk);
            let sums = empty(&input, Shape::new([chunks, 2, c]), DType::F32);
            let buffers = [&input.handle, &moments.handle, &gradient.handle, &sums.handle];
            columns("norm_columns", None, client, chunks, &buffers, info);
            outputs.extend(super::halves(added(&sums, Shape::new([2, c]))));
        }
        outputs
    }
}
