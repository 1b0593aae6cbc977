use std::any::Any;

use burn::tensor::DType;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

use super::numbers::{ELEMENTWISE, Info, each};
use super::{CudaTensor, Deferred, Launches, defer, empty, exactly, fit};
use crate::kernels::adamw::AdamWUpdate;
use crate::kernels::cuda::layout::contiguous;

/// The parameter and the moments of its gradient after the update, where they are the CUDA backend's; what was given
/// elsewhere, and where shapes differ. In place where nobody else holds them: cubecl orders streams by what was allocated,
/// so whoever reads the outcome on another thread than that of the updates waits for them first.
pub(in crate::kernels) fn adamw<B: Backend>(
    update: AdamWUpdate,
    tensors: [FloatTensor<B>; 4],
) -> Result<[FloatTensor<B>; 3], [FloatTensor<B>; 4]> {
    let tensors: Box<dyn Any> = Box::new(tensors);
    let tensors = match tensors.downcast::<[Deferred; 4]>() {
        Ok(tensors) if fit(tensors.each_ref()) && are_alike(&tensors) => *tensors,
        Ok(tensors) => return Err(*given(tensors)),
        Err(tensors) => return Err(*given(tensors)),
    };
    let output = (tensors[0].shape.clone(), DType::F32);
    let outputs = defer(Update(update), tensors.into(), vec![output; 3]);
    let outputs: [Deferred; 3] = exactly(outputs);
    Ok(*given(Box::new(outputs)))
}

fn are_alike(tensors: &[Deferred; 4]) -> bool {
    tensors.iter().all(|tensor| tensor.shape == tensors[0].shape)
}

/// Tensors under their backend's name of them.
fn given<T: 'static>(tensors: Box<dyn Any>) -> Box<T> {
    tensors.downcast().expect("what was taken from a backend is given back to it")
}

#[derive(Debug)]
struct Update(AdamWUpdate);

impl Launches for Update {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [weight, first, second, gradient] = exactly(inputs).map(contiguous);
        let (by_first, by_second) = self.0.corrections();
        let AdamWUpdate { learning_rate, beta_1, beta_2, epsilon, .. } = self.0;
        let kept = self.0.kept() as f32;
        let info = Info {
            count: weight.meta.shape.num_elements(),
            epsilon,
            adamw: [learning_rate as f32, beta_1, beta_2, kept, by_first, by_second],
            ..Info::default()
        };
        let before = [weight, first, second];
        let after = before.each_ref().map(|tensor| match tensor.can_mut() {
            true => None,
            false => Some(empty(tensor, tensor.meta.shape.clone(), DType::F32)),
        });
        let [weight, first, second] = &before;
        let [to_weight, to_first, to_second] =
            std::array::from_fn(|i| &after[i].as_ref().unwrap_or(&before[i]).handle);
        let buffers = [
            &weight.handle,
            &first.handle,
            &second.handle,
            &gradient.handle,
            to_weight,
            to_first,
            to_second,
        ];
        each((&ELEMENTWISE, "adamw"), None, &gradient.client, &buffers, info);
        before.into_iter().zip(after).map(|(before, after)| after.unwrap_or(before)).collect()
    }
}
