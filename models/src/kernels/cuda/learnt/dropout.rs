use burn::prelude::*;

use super::numbers::{Info, each};
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
    fn of(&self, input: Deferred) -> Deferred {
        let shape = input.shape.clone();
        defer_one(self.clone(), vec![input], shape)
    }
}

impl Learnt<1> for Masked {
    fn forward(&self, [input]: [Deferred; 1]) -> (Deferred, Vec<Deferred>) {
        (self.of(input), Vec::new())
    }

    fn backward(
        &self,
        _kept: Vec<Deferred>,
        gradient: Deferred,
        _wanted: [bool; 1],
    ) -> [Option<Deferred>; 1] {
        [Some(self.of(gradient))]
    }
}

impl Launches for Masked {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input] = exactly(inputs).map(contiguous);
        let shape = input.meta.shape.clone();
        let info = Info { count: shape.num_elements(), mask: Some(self.0), ..Info::default() };
        let output = empty(&input, shape, input.dtype);
        each("drop", None, &input.client, &[&input.handle, &output.handle], info);
        vec![output]
    }
}
