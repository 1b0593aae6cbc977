//! AdamW as an optimiser of burn's, in place where the backend allows it.

use burn::optim::{LearningRate, SimpleOptimizer};
use burn::record::Record;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::kernels::AdamWUpdate;

/// AdamW (Loshchilov and Hutter 2019) with PyTorch's default decays of the moments, 0.9 and 0.999, and
/// epsilon, 1e-8.
#[derive(Clone)]
pub struct AdamW {
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// The running moments of a parameter's gradient.
#[derive(Record, Clone)]
pub struct Moments<B: Backend, const D: usize> {
    /// Updates done.
    pub time: usize,
    /// Of the gradient.
    pub first: Tensor<B, D>,
    /// Of its square.
    pub second: Tensor<B, D>,
}

impl<B: Backend> SimpleOptimizer<B> for AdamW {
    type State<const D: usize> = Moments<B, D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        weight: Tensor<B, D>,
        gradient: Tensor<B, D>,
        state: Option<Moments<B, D>>,
    ) -> (Tensor<B, D>, Option<Moments<B, D>>) {
        let Moments { time, first, second } = state.unwrap_or_else(|| Moments {
            time: 0,
            first: weight.zeros_like(),
            second: weight.zeros_like(),
        });
        let time = time + 1;
        let update = AdamWUpdate {
            learning_rate,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: self.weight_decay,
            time: time as i32,
        };
        let [weight, first, second] = update.step([weight, first, second], gradient);
        (weight, Some(Moments { time, first, second }))
    }

    fn to_device<const D: usize>(state: Moments<B, D>, device: &B::Device) -> Moments<B, D> {
        Moments {
            time: state.time,
            first: state.first.to_device(device),
            second: state.second.to_device(device),
        }
    }
}
