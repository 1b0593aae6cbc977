use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{ELEMENTWISE, Info, each};
use super::{CudaTensor, Deferred, Launches, Learnt, apply, defer_one, empty, exactly};
use crate::dropout::KeyedMask;
use crate::kernels::cuda::layout::contiguous;
use crate::kernels::flex::primitive;

/// What a mask makes of the numbers; the backward pass makes it again.
///
/// # Shapes
/// - input and output: any
pub(in crate::kernels) fn dropout<B: Backend, const D: usize>(
    input: &Tensor<B, D>,
    mask: KeyedMask,
) -> Option<Tensor<B, D>> {
    apply(Masked(mask), [primitive(input)])
}

#[derive(Clone, Debug)]
struct Masked(KeyedMask);

impl Masked {
    fn of(&self, inputs: Vec<Deferred>) -> Deferred {
        let output = (inputs[0].shape.clone(), DType::F32);
        defer_one(self.clone(), inputs, output)
    }
}

impl Learnt for Masked {
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        (self.of(inputs), Vec::new())
    }

    fn backward(
        &self,
        _kept: Vec<Deferred>,
        gradient: Deferred,
        _wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        vec![Some(self.of(vec![gradient]))]
    }
}

impl Launches for Masked {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input] = exactly(inputs).map(contiguous);
        let shape = input.meta.shape.clone();
        let info = Info { count: shape.num_elements(), mask: Some(self.0), ..Info::default() };
        let output = empty(&input, shape, input.dtype);
        each((&ELEMENTWISE, "drop"), None, &input.client, &[&input.handle, &output.handle], info);
        vec![output]
    }
}
