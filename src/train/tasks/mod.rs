//! What each model is trained to do: one file a task, each a batch, a loss and a held-out tally.

pub mod autoencoder;
pub mod captions;
pub mod contrastive;
pub mod diffusion;
pub mod masked_language;
pub mod relations;
pub mod scenes;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Implements burn-train's two steps by a task's inherent
/// `loss(&self, &Batch) -> Tensor<B, 1>` and `tally(&self, &Batch) -> Tally`.
macro_rules! learner_steps {
    ($task:ident, $batch:ty) => {
        impl<B: burn::tensor::backend::AutodiffBackend> burn::train::TrainStep for $task<B> {
            type Input = $batch;
            type Output = crate::train::StepLoss<B::InnerBackend>;

            fn step(&self, batch: $batch) -> burn::train::TrainOutput<Self::Output> {
                let loss = self.loss(&batch);
                let grads = loss.backward();
                let loss = crate::train::StepLoss(loss.inner());
                burn::train::TrainOutput::new(self, grads, loss)
            }
        }

        impl<B: burn::tensor::backend::Backend> burn::train::InferenceStep for $task<B> {
            type Input = $batch;
            type Output = crate::train::Tally;

            fn step(&self, batch: $batch) -> crate::train::Tally {
                self.tally(&batch)
            }
        }
    };
}
pub(crate) use learner_steps;

/// How many rows of `[rows, classes]` have their largest logit at the target.
fn right<B: Backend>(logits: Tensor<B, 2>, targets: &[usize]) -> f64 {
    let best = logits.argmax(1).into_data();
    best.iter::<i64>().zip(targets).filter(|(best, target)| *best == **target as i64).count() as f64
}
