use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{ELEMENTWISE, Info, each};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer_one, dims, empty, exactly};
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

impl Learnt for Geglu {
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        let [b, n, double] = dims(&inputs[0]);
        let shape = Shape::new([b, n, double / 2]);
        (defer_one(Forward, inputs.clone(), (shape, DType::F32)), inputs)
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        _wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        let shape = kept[0].shape.clone();
        kept.push(gradient);
        vec![Some(defer_one(Backward, kept, (shape, DType::F32)))]
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
        let [input] = exactly(inputs).map(contiguous);
        let [b, n, double] = layout::dims(&input);
        let shape = [b, n, double / 2];
        let output = empty(&input, Shape::new(shape), DType::F32);
        each(
            (&ELEMENTWISE, "gate"),
            GELU,
            &input.client,
            &[&input.handle, &output.handle],
            info(shape),
        );
        vec![output]
    }
}

#[derive(Debug)]
struct Backward;

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, gradient] = exactly(inputs).map(contiguous);
        let output = empty(&input, input.meta.shape.clone(), DType::F32);
        let buffers = [&input.handle, &gradient.handle, &output.handle];
        each(
            (&ELEMENTWISE, "gate_backward"),
            GELU,
            &input.client,
            &buffers,
            info(layout::dims(&gradient)),
        );
        vec![output]
    }
}
