use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{Info, each};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer_one, dims, empty};
use crate::kernels::cuda::layout::{self, contiguous};
use crate::kernels::flex::primitive;
use crate::layers::Activation;

/// The first half of the last dimension times gelu of the second.
///
/// # Shapes
/// - input: `[b, n, 2c]`
/// - output: `[b, n, c]`
pub(in crate::kernels) fn geglu<B: Backend>(input: &Tensor<B, 3>) -> Option<Tensor<B, 3>> {
    apply(Geglu, [primitive(input)])
}

#[derive(Clone, Debug)]
struct Geglu;

impl Learnt<1> for Geglu {
    fn forward(&self, [input]: [Deferred; 1]) -> (Deferred, Vec<Deferred>) {
        let [b, n, double] = dims(&input);
        (defer_one(Forward, vec![input.clone()], Shape::new([b, n, double / 2])), vec![input])
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        _wanted: [bool; 1],
    ) -> [Option<Deferred>; 1] {
        let shape = kept[0].shape.clone();
        kept.push(gradient);
        [Some(defer_one(Backward, kept, shape))]
    }
}

/// The gate's.
const GELU: Option<Activation> = Some(Activation::Gelu);

fn info([b, n, c]: [usize; 3]) -> Info {
    Info { c, count: b * n * c, ..Info::default() }
}

#[derive(Debug)]
struct Forward;

impl Launches for Forward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input] = super::exactly(inputs).map(contiguous);
        let [b, n, double] = layout::dims(&input);
        let shape = [b, n, double / 2];
        let output = empty(&input, Shape::new(shape), DType::F32);
        each("gate", GELU, &input.client, &[&input.handle, &output.handle], info(shape));
        vec![output]
    }
}

#[derive(Debug)]
struct Backward;

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gradient] = super::exactly(inputs).map(contiguous);
        let output = empty(&input, input.meta.shape.clone(), DType::F32);
        let buffers = [&input.handle, &gradient.handle, &output.handle];
        each("gate_backward", GELU, &input.client, &buffers, info(layout::dims(&gradient)));
        vec![output]
    }
}
