use burn::cubecl::server::Handle;
use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{Info, NORM, added, chunk, columns, launch};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer, empty, exactly, placed};
use crate::kernels::cuda::layout::contiguous;
use crate::kernels::flex::primitive;
use crate::layers::Activation;

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
    let operation = Normalisation { epsilon: epsilon as f32, of: Of::Rows };
    apply(operation, [primitive(input), primitive(gamma), primitive(beta)])
}

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
    let of = Of::Groups { groups, silu };
    let operation = Normalisation { epsilon: epsilon as f32, of };
    apply(operation, [primitive(input), primitive(gamma), primitive(beta)])
}

#[derive(Clone, Debug)]
struct Normalisation {
    epsilon: f32,
    of: Of,
}

/// What has a mean and a variance.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The last dimension.
    Rows,
    /// Groups of a picture's channels; silu may follow.
    Groups { groups: usize, silu: bool },
}

/// How the kernels are launched for an input.
struct Plan {
    /// The forward pass, the input's gradient, and the sums of the parameters'.
    kernels: [&'static str; 3],
    then: Option<Activation>,
    threads: usize,
    /// Of the first two.
    grid: [usize; 3],
    /// Means, each with its factor.
    moments: usize,
    /// Parts that the parameters' gradients are summed in.
    chunks: usize,
    info: Info,
}

/// Rows of a block, a warp's each.
const ROWS: usize = 4;

impl Normalisation {
    fn plan(&self, input: &Shape) -> Plan {
        let (&c, before) = input.split_last().expect("an input has a last dimension");
        let info = Info { c, epsilon: self.epsilon, ..Info::default() };
        match self.of {
            Of::Rows => {
                let rows = before.iter().product();
                let chunk = chunk(rows);
                Plan {
                    kernels: ["layer_forward", "layer_backward", "layer_columns"],
                    then: None,
                    threads: 32 * ROWS,
                    grid: [rows.div_ceil(ROWS), 1, 1],
                    moments: rows,
                    chunks: rows.div_ceil(chunk),
                    info: Info { rows, chunk, ..info },
                }
            }
            Of::Groups { groups, silu } => {
                let (&b, pixels) = before.split_first().expect("a picture has four dimensions");
                Plan {
                    kernels: ["group_forward", "group_backward", "group_columns"],
                    then: silu.then_some(Activation::Silu),
                    threads: 256,
                    grid: [groups, b, 1],
                    moments: b * groups,
                    chunks: b,
                    info: Info { rows: pixels.iter().product(), groups, ..info },
                }
            }
        }
    }
}

impl Learnt for Normalisation {
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        let mut kept = inputs.clone();
        let shape = inputs[0].shape.clone();
        let moments = Shape::new([self.plan(&shape).moments, 2]);
        let outputs = vec![(shape, DType::F32), (moments, DType::F32)];
        let [output, moments] = exactly(defer(self.clone(), inputs, outputs));
        kept.push(moments);
        (output, kept)
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        let [input, parameter] = [kept[0].shape.clone(), kept[1].shape.clone()];
        kept.push(gradient);
        let wants_input = wanted[0];
        // The sums of both parameters are one kernel's.
        let learns = wanted[1] || wanted[2];
        let mut outputs = Vec::new();
        outputs.extend(wants_input.then_some((input, DType::F32)));
        if learns {
            outputs.extend([(parameter.clone(), DType::F32), (parameter, DType::F32)]);
        }
        let backward = Backward { of: self.clone(), wants_input, learns };
        placed(&[wants_input, learns, learns], defer(backward, kept, outputs))
    }
}

impl Launches for Normalisation {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gamma, beta] = exactly(inputs).map(contiguous);
        let shape = input.meta.shape.clone();
        let Plan { kernels: [kernel, ..], then, threads, grid, moments, info, .. } =
            self.plan(&shape);
        let output = empty(&input, shape, DType::F32);
        let moments = empty(&input, Shape::new([moments, 2]), DType::F32);
        let buffers = [&input.handle, &gamma.handle, &beta.handle, &output.handle, &moments.handle];
        launch((&NORM, kernel, threads), then, &input.client, grid, &buffers, info);
        vec![output, moments]
    }
}

#[derive(Debug)]
struct Backward {
    of: Normalisation,
    wants_input: bool,
    /// Gamma and beta.
    learns: bool,
}

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let inputs: Vec<_> = inputs.into_iter().map(contiguous).collect();
        let [input, ..] = &inputs[..] else { unreachable!("an input comes first") };
        let (client, shape) = (&input.client, input.meta.shape.clone());
        let Plan { kernels, then, threads, grid, chunks, info, .. } = self.of.plan(&shape);
        let [_, to_input, to_parameters] = kernels;
        let given: Vec<&Handle> = inputs.iter().map(|input| &input.handle).collect();
        let mut outputs = Vec::new();
        if self.wants_input {
            let output = empty(input, shape, DType::F32);
            let kernel = (&NORM, to_input, threads);
            launch(kernel, then, client, grid, &[&given[..], &[&output.handle]].concat(), info);
            outputs.push(output);
        }
        if self.learns {
            let sums = empty(input, Shape::new([chunks, 2, info.c]), DType::F32);
            let kernel = (&NORM, to_parameters);
            columns(kernel, then, client, chunks, &[&given[..], &[&sums.handle]].concat(), info);
            outputs.extend(super::halves(added(&sums, Shape::new([2, info.c]))));
        }
        outputs
    }
}
