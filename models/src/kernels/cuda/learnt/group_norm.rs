use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{Info, added, columns, launch};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer, dims, empty, exactly, placed};
use crate::kernels::cuda::layout::{self, contiguous};
use crate::kernels::flex::primitive;
use crate::layers::Activation;

/// Group normalisation over channels-last pictures, followed by silu where asked for.
///
/// # Shapes
/// - input and output: `[b, h, w, c]`
/// - gamma, beta: `[c]`, `groups` divides `c`
pub(in crate::kernels) fn group_norm<B: Backend>(
    input: &Tensor<B, 4>,
    gamma: &Tensor<B, 1>,
    beta: &Tensor<B, 1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Option<Tensor<B, 4>> {
    let [b, _, _, c] = input.dims();
    let fits = gamma.dims() == [c] && beta.dims() == [c] && c.is_multiple_of(groups);
    // The grid's second dimension.
    if !fits || b > u16::MAX as usize {
        return None;
    }
    let then = silu.then_some(Activation::Silu);
    let operation = GroupNormalisation { groups, epsilon: epsilon as f32, then };
    apply(operation, [primitive(input), primitive(gamma), primitive(beta)])
}

#[derive(Clone, Debug)]
struct GroupNormalisation {
    groups: usize,
    epsilon: f32,
    then: Option<Activation>,
}

/// Threads of a block.
const THREADS: usize = 256;

impl GroupNormalisation {
    fn info(&self, [_, h, w, c]: [usize; 4]) -> Info {
        let Self { groups, epsilon, .. } = *self;
        Info { rows: h * w, c, groups, epsilon, ..Info::default() }
    }
}

impl Learnt<3> for GroupNormalisation {
    fn forward(&self, inputs: [Deferred; 3]) -> (Deferred, Vec<Deferred>) {
        let mut kept = inputs.to_vec();
        let [b, ..] = dims::<4>(&inputs[0]);
        let shape = inputs[0].shape.clone();
        let moments = Shape::new([b, self.groups, 2]);
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
        let learns = wants_gamma || wants_beta;
        let mut outputs = Vec::new();
        outputs.extend(wants_input.then_some((input, DType::F32)));
        if learns {
            outputs.extend([(parameter.clone(), DType::F32), (parameter, DType::F32)]);
        }
        let backward = Backward { of: self.clone(), wants_input, learns };
        placed([wants_input, learns, learns], defer(backward, kept, outputs))
    }
}

impl Launches for GroupNormalisation {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gamma, beta] = exactly(inputs).map(contiguous);
        let sizes = layout::dims(&input);
        let output = empty(&input, input.meta.shape.clone(), DType::F32);
        let moments = empty(&input, Shape::new([sizes[0], self.groups, 2]), DType::F32);
        let buffers = [&input.handle, &gamma.handle, &beta.handle, &output.handle, &moments.handle];
        let (grid, info) = ([self.groups, sizes[0], 1], self.info(sizes));
        launch(("group_forward", THREADS), self.then, &input.client, grid, &buffers, info);
        vec![output, moments]
    }
}

#[derive(Debug)]
struct Backward {
    of: GroupNormalisation,
    wants_input: bool,
    /// Gamma and beta.
    learns: bool,
}

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gamma, beta, moments, gradient] = exactly(inputs).map(contiguous);
        let sizes @ [b, _, _, c] = layout::dims(&input);
        let (client, info, then) = (&input.client, self.of.info(sizes), self.of.then);
        let given = [&input.handle, &gamma.handle, &beta.handle, &moments.handle, &gradient.handle];
        let mut outputs = Vec::new();
        if self.wants_input {
            let output = empty(&input, input.meta.shape.clone(), DType::F32);
            let grid = [self.of.groups, b, 1];
            let kernel = ("group_backward", THREADS);
            launch(kernel, then, client, grid, &[&given[..], &[&output.handle]].concat(), info);
            outputs.push(output);
        }
        if self.learns {
            let sums = empty(&input, Shape::new([b, 2, c]), DType::F32);
            columns(
                "group_columns",
                then,
                client,
                b,
                &[&given[..], &[&sums.handle]].concat(),
                info,
            );
            outputs.extend(super::halves(added(&sums, Shape::new([2, c]))));
        }
        outputs
    }
}
