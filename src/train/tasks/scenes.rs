//! Classification of scenes: the vision encoder learns what is shown, never a relation.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use mi2rage_models::vit::ViTForImageClassification;

use super::learner_steps;
use crate::data::Picture;
use crate::tensors;
use crate::train::Tally;

/// The model in training.
#[derive(Module, Debug)]
pub struct Scenes<B: Backend> {
    /// The encoder with its head.
    pub model: ViTForImageClassification<B>,
}

/// Pictures and the number of what each shows.
#[derive(Clone, Debug)]
pub struct SceneBatch {
    /// All of one size.
    pub pictures: Vec<Arc<Picture>>,
    /// The class of each.
    pub classes: Vec<usize>,
}

impl<B: Backend> Scenes<B> {
    fn predict(&self, batch: &SceneBatch) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = &self.devices()[0];
        let size = batch.pictures[0].width;
        let pictures = batch.pictures.iter().map(Arc::as_ref);
        // Every state is trained to know the scene, not the class token's alone: those who attend
        // to the patches later find it there.
        let state = self.model.vit.pool_mean(tensors::pictures(pictures, size, device));
        let logits = self.model.classifier.forward(state);
        let classes = tensors::indices(batch.classes.iter().copied(), device);
        let losses = tensors::negative_log_likelihood(logits.clone(), classes);
        (logits, losses)
    }

    fn loss(&self, batch: &SceneBatch) -> Tensor<B, 1> {
        self.predict(batch).1.mean()
    }

    fn tally(&self, batch: &SceneBatch) -> Tally {
        let (logits, losses) = self.predict(batch);
        let count = batch.classes.len() as f64;
        Tally {
            count,
            loss: losses.sum().into_scalar().elem(),
            hits: super::right(logits, &batch.classes),
            predicted: count,
            actual: count,
        }
    }
}

learner_steps!(Scenes, SceneBatch);
