use std::f64::consts::FRAC_PI_2;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::DiffusionError;
use super::error::MOST_TRAINING_STEPS;

/// How the noise grows over the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Betas rise evenly (Ho et al. 2020).
    Linear,
    /// Square roots of betas rise evenly (Rombach et al. 2022).
    ScaledLinear,
    /// The product of alphas falls as a squared cosine, betas at most 0.999
    /// (Nichol and Dhariwal 2021). Does not use `beta_start` and `beta_end`.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// What the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// `sqrt(a) * noise - sqrt(1 - a) * sample` (Salimans and Ho 2022).
    VPrediction,
    /// The sample without noise.
    Sample,
}

impl PredictionType {
    pub(super) fn name(self) -> &'static str {
        match self {
            PredictionType::Epsilon => "epsilon",
            PredictionType::VPrediction => "v_prediction",
            PredictionType::Sample => "sample",
        }
    }
}

/// A noise schedule, with the keys of diffusers' `scheduler_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleConfig {
    /// Number of training steps.
    pub num_train_timesteps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// From the first to the last.
    pub beta_schedule: BetaSchedule,
    /// What the model predicts.
    pub prediction_type: PredictionType,
    /// The last training step leaves nothing of the sample (Lin et al. 2023, algorithm 1).
    pub rescale_betas_zero_snr: bool,
}

impl Default for ScheduleConfig {
    /// Stable Diffusion's: runwayml/stable-diffusion-v1-5, `scheduler/scheduler_config.json`.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
        }
    }
}

/// How much of the sample is left at each training step, and what the model predicts.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
    betas: BetaSchedule,
    prediction: PredictionType,
}

/// What stands for a signal of nothing where noise is measured relative to it, as in diffusers: the
/// smallest number of 16 bits.
const LEAST_SIGNAL: f64 = 1.0 / (1 << 24) as f64;

impl ScheduleConfig {
    /// The schedule of these values.
    ///
    /// # Errors
    /// Where there is no step or there are too many, or a beta is not within 0 and 1.
    pub fn init(&self) -> Result<NoiseSchedule, DiffusionError> {
        let steps = self.num_train_timesteps;
        if steps == 0 || steps > MOST_TRAINING_STEPS {
            return Err(DiffusionError::TrainingSteps(steps));
        }
        let (start, end) = (self.beta_start, self.beta_end);
        let uses_range = self.beta_schedule != BetaSchedule::SquaredCosine;
        if uses_range && !(0.0 < start && start <= end && end < 1.0) {
            return Err(DiffusionError::Betas { beta_start: start, beta_end: end });
        }
        let beta = |step: usize| match self.beta_schedule {
            BetaSchedule::Linear => between(start, end, step, steps),
            BetaSchedule::ScaledLinear => between(start.sqrt(), end.sqrt(), step, steps).powi(2),
            BetaSchedule::SquaredCosine => {
                let product = |step: usize| {
                    let time = step as f64 / steps as f64;
                    ((time + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)
                };
                (1.0 - product(step + 1) / product(step)).min(0.999)
            }
        };
        let mut product = 1.0;
        let mut alphas_cumprod: Vec<f64> = (0..steps)
            .map(|step| {
                product *= 1.0 - beta(step);
                product
            })
            .collect();
        if self.rescale_betas_zero_snr {
            rescale_to_zero(&mut alphas_cumprod);
        }
        Ok(NoiseSchedule {
            alphas_cumprod,
            betas: self.beta_schedule,
            prediction: self.prediction_type,
        })
    }
}

/// Moves and stretches the square roots so that the first stays and the last is 0.
fn rescale_to_zero(alphas_cumprod: &mut [f64]) {
    let first = alphas_cumprod.first().map_or(1.0, |alpha| alpha.sqrt());
    let last = alphas_cumprod.last().map_or(0.0, |alpha| alpha.sqrt());
    // A single step is both.
    let stretch = if first > last { first / (first - last) } else { 1.0 };
    for alpha in alphas_cumprod {
        *alpha = ((alpha.sqrt() - last) * stretch).powi(2);
    }
}

/// The `index`th of `count` evenly spaced numbers, both ends included.
fn between(start: f64, end: f64, index: usize, count: usize) -> f64 {
    if count == 1 {
        return start;
    }
    start + (end - start) * index as f64 / (count - 1) as f64
}

impl NoiseSchedule {
    /// Number of training steps.
    pub fn num_train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// What the model predicts.
    pub fn prediction(&self) -> PredictionType {
        self.prediction
    }

    /// The share of the sample's variance that is left at a timestep.
    ///
    /// A timestep past the end stands for the last: some samplers look half a step ahead.
    pub fn alpha_cumprod(&self, timestep: usize) -> f64 {
        self.alphas_cumprod[timestep.min(self.alphas_cumprod.len() - 1)]
    }

    /// How the betas grow.
    pub(super) fn betas(&self) -> BetaSchedule {
        self.betas
    }

    /// Whether the last training step leaves nothing of the sample.
    pub(super) fn ends_without_signal(&self) -> bool {
        self.alphas_cumprod.last() == Some(&0.0)
    }

    /// `sqrt((1 - a) / a)` at a timestep, linearly interpolated between two; always finite.
    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let below = timestep.floor();
        let (low, high) = (self.sigma_at(below as usize), self.sigma_at(below as usize + 1));
        low + (high - low) * (timestep - below)
    }

    /// [`NoiseSchedule::sigma`] at a training step.
    pub(super) fn sigma_at(&self, timestep: usize) -> f64 {
        let alpha = self.alpha_cumprod(timestep);
        let alpha = if alpha == 0.0 { LEAST_SIGNAL } else { alpha };
        ((1.0 - alpha) / alpha).sqrt()
    }

    /// The sample with noise as it stands at a timestep, in the variance-preserving form.
    pub(super) fn noisy<B: Backend>(
        &self,
        sample: Tensor<B, 4>,
        noise: Tensor<B, 4>,
        timestep: usize,
    ) -> Tensor<B, 4> {
        let alpha = self.alpha_cumprod(timestep);
        sample * alpha.sqrt() + noise * (1.0 - alpha).sqrt()
    }

    /// The sample without noise and the noise, as the model's output implies them.
    ///
    /// `alpha` is the product of alphas where `sample` stands.
    pub(super) fn denoise<B: Backend>(
        &self,
        output: Tensor<B, 4>,
        sample: Tensor<B, 4>,
        alpha: f64,
    ) -> Denoised<B> {
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        match self.prediction {
            PredictionType::Epsilon => {
                Denoised { original: (sample - output.clone() * noise) / signal, epsilon: output }
            }
            PredictionType::VPrediction => Denoised {
                original: sample.clone() * signal - output.clone() * noise,
                epsilon: output * signal + sample * noise,
            },
            PredictionType::Sample => {
                Denoised { epsilon: (sample - output.clone() * signal) / noise, original: output }
            }
        }
    }
}

/// What a model's output implies.
pub(super) struct Denoised<B: Backend> {
    pub(super) original: Tensor<B, 4>,
    pub(super) epsilon: Tensor<B, 4>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_schedule_divides_as_floats() {
        // By integer division every product but the last would be that of time 0, every beta 0.
        let config =
            ScheduleConfig { beta_schedule: BetaSchedule::SquaredCosine, ..Default::default() };
        let schedule = config.init().unwrap();
        assert!((schedule.alpha_cumprod(499) - 0.4938).abs() < 1e-3);
        assert!(schedule.alpha_cumprod(999) < 1e-6);
    }

    #[test]
    fn a_rescaled_schedule_keeps_its_first_product_and_ends_in_noise_alone() {
        let plain = ScheduleConfig::default();
        let rescaled = ScheduleConfig { rescale_betas_zero_snr: true, ..plain.clone() };
        let (plain, rescaled) = (plain.init().unwrap(), rescaled.init().unwrap());
        assert!((plain.alpha_cumprod(0) - rescaled.alpha_cumprod(0)).abs() < 1e-12);
        assert_eq!(rescaled.alpha_cumprod(999), 0.0);
        assert!(rescaled.ends_without_signal() && !plain.ends_without_signal());
        assert!((rescaled.sigma(999.0) - 4096.0).abs() < 1e-3);
        let single = ScheduleConfig {
            num_train_timesteps: 1,
            rescale_betas_zero_snr: true,
            ..Default::default()
        };
        assert_eq!(single.init().unwrap().alpha_cumprod(0), 0.0);
    }

    #[test]
    fn a_schedule_without_steps_or_with_wild_betas_is_refused() {
        let empty = ScheduleConfig { num_train_timesteps: 0, ..Default::default() };
        assert_eq!(empty.init(), Err(DiffusionError::TrainingSteps(0)));
        let wild = ScheduleConfig { beta_end: 1.5, ..Default::default() };
        assert!(matches!(wild.init(), Err(DiffusionError::Betas { .. })));
    }
}
