//! Latent diffusion with a text encoder trained alongside (Ho et al. 2020; Rombach et al. 2022).

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use mi2rage_models::clip::ClipTextModel;
use mi2rage_models::diffusion::Schedule;
use mi2rage_models::unet::UNet;
use rand::Rng;

use super::learner_steps;
use crate::keyed::{self, Key};
use crate::tensors;
use crate::train::Tally;

/// The models in training. Also what is saved: the U-Net is of no use without its text encoder.
#[derive(Module, Debug)]
pub struct TextToLatent<B: Backend> {
    /// Encodes the prompt.
    pub text_model: ClipTextModel<B>,
    /// Predicts what the schedule asks for.
    pub unet: UNet<B>,
}

/// Noisy latents, their prompts and what is to be predicted.
#[derive(Clone, Debug)]
pub struct DiffusionBatch {
    rows: usize,
    /// Channels, height, width of a latent.
    shape: [usize; 3],
    noisy: Vec<f32>,
    target: Vec<f32>,
    timesteps: Vec<f32>,
    ids: Vec<i32>,
}

impl DiffusionBatch {
    /// `latents` are scaled to about unit variance; `ids` are prompts of one length. Time steps
    /// and noise are the key's.
    pub fn new(
        latents: &[&[f32]],
        shape: [usize; 3],
        ids: Vec<i32>,
        schedule: &Schedule,
        key: &Key,
    ) -> Self {
        let mut rng = key.with("noise", 0).rng();
        let (mut noisy, mut target, mut timesteps) = (Vec::new(), Vec::new(), Vec::new());
        for (row, latent) in latents.iter().enumerate() {
            // Stratified over the batch, which lowers the variance of the loss.
            let place = (row as f64 + rng.random::<f64>()) / latents.len() as f64;
            let step = ((place * schedule.steps() as f64) as usize).min(schedule.steps() - 1);
            let noise = keyed::normal(&mut rng, latent.len());
            let (signal, sigma) = schedule.signal_and_noise(step);
            for (&latent, &noise) in latent.iter().zip(&noise) {
                let (x, e) = (f64::from(latent), f64::from(noise));
                noisy.push((signal * x + sigma * e) as f32);
                target.push(schedule.prediction().target(x, e, signal, sigma) as f32);
            }
            timesteps.push(step as f32);
        }
        Self { rows: latents.len(), shape, noisy, target, timesteps, ids }
    }
}

impl<B: Backend> TextToLatent<B> {
    fn loss(&self, batch: &DiffusionBatch) -> Tensor<B, 1> {
        let device = &self.devices()[0];
        let [channels, height, width] = batch.shape;
        let shape = [batch.rows, channels, height, width];
        let latents =
            |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), shape), device);
        let context = self.text_model.forward(tensors::ids(&batch.ids, batch.rows, device), None);
        let timesteps = tensors::floats(batch.timesteps.clone(), device);
        let predicted = self.unet.forward(latents(&batch.noisy), timesteps, context, None);
        (predicted - latents(&batch.target)).square().mean()
    }

    fn tally(&self, batch: &DiffusionBatch) -> Tally {
        let count = batch.rows as f64;
        let loss: f64 = self.loss(batch).into_scalar().elem();
        Tally { count, loss: loss * count, ..Tally::default() }
    }
}

learner_steps!(TextToLatent, DiffusionBatch);
