use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{ELEMENTWISE, Info, each};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer_one, empty};
use crate::kernels::cuda::layout::contiguous;
use crate::kernels::flex::primitive;
use crate::layers::Activation;

/// An activation function of each number.
///
/// # Shapes
/// - input and output: any
pub(in crate::kernels) fn activate<B: Backend>(
    activation: Activation,
    input: &Tensor<B, 1>,
) -> Option<Tensor<B, 1>> {
    apply(Elementwise { activation }, [primitive(input)])
}

#[derive(Clone, Debug)]
struct Elementwise {
    activation: Activation,
}

impl Learnt for Elementwise {
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        let output = (inputs[0].shape.clone(), DType::F32);
        let forward = Forward { activation: self.activation };
        (defer_one(forward, inputs.clone(), output), inputs)
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        _wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        let output = (gradient.shape.clone(), DType::F32);
        kept.push(gradient);
        vec![Some(defer_one(Backward { activation: self.activation }, kept, output))]
    }
}

#[derive(Debug)]
struct Forward {
    activation: Activation,
}

impl Launches for Forward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        vec![of_each("activate", self.activation, inputs)]
    }
}

#[derive(Debug)]
struct Backward {
    activation: Activation,
}

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        vec![of_each("activate_backward", self.activation, inputs)]
    }
}

/// A number for each of the inputs', which are of one shape.
fn of_each(entry: &'static str, activation: Activation, inputs: Vec<CudaTensor>) -> CudaTensor {
    let inputs: Vec<_> = inputs.into_iter().map(contiguous).collect();
    let shape = inputs[0].meta.shape.clone();
    let info = Info { count: shape.num_elements(), ..Info::default() };
    let output = empty(&inputs[0], shape, inputs[0].dtype);
    let mut buffers: Vec<_> = inputs.iter().map(|input| &input.handle).collect();
    buffers.push(&output.handle);
    each((&ELEMENTWISE, entry), Some(activation), &output.client, &buffers, info);
    output
}
