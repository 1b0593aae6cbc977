//! Latent diffusion, conditioned on a text encoder's states (Ho et al. 2020; Rombach et al. 2022).

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use mi2rage_models::clip::ClipTextModel;
use mi2rage_models::diffusion::NoiseSchedule;
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

/// Latents, their noise and their prompts.
#[derive(Clone, Debug)]
pub struct DiffusionBatch {
    /// Rows, channels, height, width.
    shape: [usize; 4],
    latents: Vec<f32>,
    noise: Vec<f32>,
    timesteps: Vec<usize>,
    ids: Vec<i32>,
    schedule: Arc<NoiseSchedule>,
}

impl DiffusionBatch {
    /// `latents` are scaled to about unit variance, each of `shape` (channels, height, width);
    /// `ids` are prompts of one length. Time steps and noise are the key's, time steps by
    /// [`mode_sample`].
    pub fn new(
        latents: &[&[f32]],
        shape: [usize; 3],
        ids: Vec<i32>,
        schedule: Arc<NoiseSchedule>,
        mode_scale: f64,
        key: &Key,
    ) -> Self {
        let mut rng = key.with("noise", 0).rng();
        let rows = latents.len();
        let steps = schedule.num_train_timesteps();
        let timestep = |row: usize| {
            // Stratified over the batch, which lowers the variance of the loss.
            let place = (row as f64 + rng.random::<f64>()) / rows as f64;
            let place = mode_sample(place, mode_scale);
            ((place * steps as f64) as usize).min(steps - 1)
        };
        let timesteps = (0..rows).map(timestep).collect();
        let [channels, height, width] = shape;
        Self {
            shape: [rows, channels, height, width],
            latents: latents.concat(),
            noise: keyed::normal(&mut rng, rows * channels * height * width),
            timesteps,
            ids,
            schedule,
        }
    }
}

/// "Mode sampling with heavy tails" of Esser et al. 2024 (arXiv 2403.03206, section 3.1): maps a
/// uniform number to one between 0 and 1 that is more often in the middle, where what is drawn is
/// decided. A `scale` of 0 gives 1 - `uniform`; at most 2 / (pi - 2), above which it is no map
/// onto the interval.
pub fn mode_sample(uniform: f64, scale: f64) -> f64 {
    let cosine = (std::f64::consts::FRAC_PI_2 * uniform).cos();
    (1.0 - uniform - scale * (cosine * cosine - 1.0 + uniform)).clamp(0.0, 1.0)
}

impl<B: Backend> TextToLatent<B> {
    fn loss(&self, batch: &DiffusionBatch) -> Tensor<B, 1> {
        let device = &self.devices()[0];
        let tensor = |values: &[f32]| {
            Tensor::<B, 4>::from_data(TensorData::new(values.to_vec(), batch.shape), device)
        };
        let (latents, noise) = (tensor(&batch.latents), tensor(&batch.noise));
        let schedule = &batch.schedule;
        let noisy = schedule.add_noise(latents.clone(), noise.clone(), &batch.timesteps);
        let target = schedule.training_target(latents, noise, &batch.timesteps);
        let ids = tensors::ids(&batch.ids, batch.shape[0], device);
        let context = self.text_model.forward(ids, None);
        let times = batch.timesteps.iter().map(|&step| step as f32).collect();
        let predicted = self.unet.forward(noisy, tensors::floats(times, device), context, None);
        (predicted - target).square().mean()
    }

    fn tally(&self, batch: &DiffusionBatch) -> Tally {
        let count = batch.shape[0] as f64;
        let loss: f64 = self.loss(batch).into_scalar().elem();
        Tally { count, loss: loss * count, ..Tally::default() }
    }
}

learner_steps!(TextToLatent, DiffusionBatch);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_sampling_is_onto_and_favours_the_middle() {
        for scale in [0.0, 0.8, 1.29, 1.75] {
            let samples: Vec<f64> =
                (0..=1000).map(|at| mode_sample(f64::from(at) / 1000.0, scale)).collect();
            assert!((samples[0] - 1.0).abs() < 1e-12 && samples[1000].abs() < 1e-12);
            assert!(samples.windows(2).all(|pair| pair[1] <= pair[0]), "{scale}");
            let middle = samples.iter().filter(|value| (0.25..0.75).contains(*value)).count();
            assert!(middle as f64 / 1001.0 >= 0.499 + 0.1 * scale, "{scale}: {middle}");
        }
    }
}
