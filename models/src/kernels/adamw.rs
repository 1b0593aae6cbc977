use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::vector::widest;
use super::{cuda, flex};

/// One update by AdamW (Loshchilov and Hutter 2019); every factor in the order of burn-optim's own.
#[derive(Clone, Copy, Debug)]
pub struct AdamWUpdate {
    /// The learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the second moment's root.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// The number of this update, from 1.
    pub time: i32,
}

/// A parameter with the first and the second moment of its gradient.
pub type WithMoments<B, const D: usize> = [Tensor<B, D>; 3];

impl AdamWUpdate {
    /// The parameter and the moments after the update. On burn-flex and on CUDA it is one pass, in
    /// place where nobody else holds them.
    pub fn step<B: Backend, const D: usize>(
        &self,
        state: WithMoments<B, D>,
        gradient: Tensor<B, D>,
    ) -> WithMoments<B, D> {
        let [weight, first, second] = state.map(|tensor| tensor.into_primitive().tensor());
        let gradient = gradient.into_primitive().tensor();
        let tensor = |tensor| Tensor::from_primitive(TensorPrimitive::Float(tensor));
        let updated = match flex::take::<B, 4>([weight, first, second, gradient]) {
            Ok(tensors) => Ok(flex::give::<B, 3>(self.in_place(tensors))),
            Err(tensors) => cuda::learnt::adamw::<B>(*self, tensors),
        };
        match updated {
            Ok(tensors) => tensors.map(tensor),
            Err(tensors) => self.plain(tensors.map(tensor)),
        }
    }

    /// What the moments are divided by.
    pub(super) fn corrections(&self) -> (f32, f32) {
        (1.0 - self.beta_1.powi(self.time), 1.0 - self.beta_2.powi(self.time))
    }

    /// What the weights are multiplied by.
    pub(super) fn kept(&self) -> f64 {
        1.0 - self.learning_rate * f64::from(self.weight_decay)
    }

    fn plain<B: Backend, const D: usize>(
        &self,
        [weight, first, second, gradient]: [Tensor<B, D>; 4],
    ) -> WithMoments<B, D> {
        let first = first * self.beta_1 + gradient.clone() * (1.0 - self.beta_1);
        let second = second * self.beta_2 + gradient.square() * (1.0 - self.beta_2);
        let (by_first, by_second) = self.corrections();
        let root = (second.clone() / by_second).sqrt() + self.epsilon;
        let step = first.clone() / by_first / root * self.learning_rate;
        [weight * self.kept() - step, first, second]
    }

    fn in_place(
        &self,
        [mut weight, mut first, mut second, gradient]: [FlexTensor; 4],
    ) -> [FlexTensor; 3] {
        let (by_first, by_second) = self.corrections();
        let (kept, rate) = (self.kept() as f32, self.learning_rate as f32);
        let (beta_1, beta_2, epsilon) = (self.beta_1, self.beta_2, self.epsilon);
        weight
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(first.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(second.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(flex::values(&gradient).par_chunks(CHUNK))
            .for_each(|(((weight, first), second), gradient)| {
                widest!({
                    let moments = first.iter_mut().zip(second);
                    for ((weight, (first, second)), &slope) in
                        weight.iter_mut().zip(moments).zip(gradient)
                    {
                        *first = *first * beta_1 + slope * (1.0 - beta_1);
                        *second = *second * beta_2 + slope * slope * (1.0 - beta_2);
                        let root = (*second / by_second).sqrt() + epsilon;
                        *weight = *weight * kept - *first / by_first / root * rate;
                    }
                });
            });
        [weight, first, second]
    }
}

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn the_pass_in_place_equals_the_plain_operations() {
        let count = CHUNK + 5;
        let numbers = |seed: f32| {
            let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37 + seed).sin()).collect();
            Tensor::<Flex, 1>::from_floats(values.as_slice(), &Default::default())
        };
        let update = AdamWUpdate {
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.05,
            time: 7,
        };
        let [weight, first, second] = [numbers(0.0), numbers(1.0), numbers(2.0).square()];
        let gradient = numbers(3.0);
        let kept = weight.clone();
        let fast = update.step([weight.clone(), first.clone(), second.clone()], gradient.clone());
        let plain = update.plain([weight, first, second, gradient]);
        for (fast, plain) in fast.into_iter().zip(plain) {
            assert_eq!(fast.into_data(), plain.into_data());
        }
        // Whoever else holds the weights still has the old ones.
        assert_eq!(kept.into_data(), numbers(0.0).into_data());
    }
}
