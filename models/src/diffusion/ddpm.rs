use burn::prelude::*;

use super::sampler::{NoiseSource, as_floats, check_steps};
use super::{DiffusionError, NoiseSchedule, Sampler, SamplerConfig, SamplerKind};

/// Ancestral sampling (Ho et al. 2020, algorithm 2) with the smaller of the paper's variances.
#[derive(Clone, Debug)]
pub struct Ddpm {
    schedule: NoiseSchedule,
    timesteps: Vec<usize>,
    times: Vec<f64>,
    clip: Option<f64>,
}

impl Ddpm {
    /// # Errors
    /// Where there are no steps, more than training steps, or the offset is too large.
    pub fn new(
        schedule: &NoiseSchedule,
        config: &SamplerConfig,
        steps: usize,
    ) -> Result<Self, DiffusionError> {
        let train = schedule.num_train_timesteps();
        check_steps(SamplerKind::Ddpm, steps, 1, train)?;
        let timesteps =
            config.timestep_spacing.offset_timesteps(train, steps, config.steps_offset)?;
        Ok(Self {
            schedule: schedule.clone(),
            times: as_floats(&timesteps),
            timesteps,
            clip: config.clip_sample_range,
        })
    }
}

impl<B: Backend> Sampler<B> for Ddpm {
    fn timesteps(&self) -> &[f64] {
        &self.times
    }

    fn step(
        &mut self,
        model_output: Tensor<B, 4>,
        step: usize,
        sample: Tensor<B, 4>,
        noise: NoiseSource<'_, B>,
    ) -> Tensor<B, 4> {
        let alpha = self.schedule.alpha_cumprod(self.timesteps[step]);
        let previous = self.timesteps.get(step + 1);
        let alpha_previous = previous.map_or(1.0, |&t| self.schedule.alpha_cumprod(t));
        let alpha_step = alpha / alpha_previous;
        let beta_step = 1.0 - alpha_step;
        let beta = 1.0 - alpha;
        let beta_previous = 1.0 - alpha_previous;

        let mut original = self.schedule.denoise(model_output, sample.clone(), alpha).original;
        if let Some(range) = self.clip {
            original = original.clamp(-range, range);
        }
        // Equation 7.
        let mean = original * (alpha_previous.sqrt() * beta_step / beta)
            + sample * (alpha_step.sqrt() * beta_previous / beta);
        let variance = beta_previous / beta * beta_step;
        if variance > 0.0 { mean + noise(step) * variance.sqrt() } else { mean }
    }
}
