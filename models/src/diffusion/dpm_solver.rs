use burn::prelude::*;

use super::sampler::{NoiseSource, as_floats, check_steps};
use super::{DiffusionError, FinalSigma, NoiseSchedule, Sampler, SamplerConfig, SamplerKind};

/// DPM-Solver++ 2M (Lu et al. 2022, algorithm 2) in its midpoint form: a second-order multistep
/// solver over the predicted sample, its first step of first order.
#[derive(Clone, Debug)]
pub struct DpmSolver<B: Backend> {
    schedule: NoiseSchedule,
    times: Vec<f64>,
    /// Signal and noise before each step, and after the last.
    levels: Vec<Level>,
    /// Where the last step leads to no noise, only the first order is finite.
    first_order_final: bool,
    previous: Option<Tensor<B, 4>>,
}

/// How much signal and how much noise a sample holds.
#[derive(Clone, Copy, Debug)]
struct Level {
    alpha: f64,
    sigma: f64,
}

impl Level {
    /// Half the logarithm of the signal-to-noise ratio.
    fn lambda(self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }
}

impl<B: Backend> DpmSolver<B> {
    /// # Errors
    /// Where there are no steps, as many as training steps or more, or the offset is too large.
    pub fn new(
        schedule: &NoiseSchedule,
        config: &SamplerConfig,
        steps: usize,
    ) -> Result<Self, DiffusionError> {
        let train = schedule.num_train_timesteps();
        check_steps(SamplerKind::DpmSolverPlusPlus2M, steps, 1, train.saturating_sub(1))?;
        // One step more than asked for, of which the last, at timestep 0, is left out: diffusers
        // does so but with the trailing spacing.
        let count = match config.timestep_spacing {
            super::TimestepSpacing::Trailing => steps,
            _ => steps + 1,
        };
        let mut timesteps =
            config.timestep_spacing.offset_timesteps(train, count, config.steps_offset)?;
        timesteps.truncate(steps);
        let level = |alpha: f64| Level { alpha: alpha.sqrt(), sigma: (1.0 - alpha).sqrt() };
        let mut levels: Vec<Level> =
            timesteps.iter().map(|&timestep| level(schedule.alpha_cumprod(timestep))).collect();
        let to_zero = config.final_sigmas_type == FinalSigma::Zero;
        levels.push(level(if to_zero { 1.0 } else { schedule.alpha_cumprod(0) }));
        Ok(Self {
            schedule: schedule.clone(),
            times: as_floats(&timesteps),
            levels,
            first_order_final: to_zero || (config.lower_order_final && steps < 15),
            previous: None,
        })
    }
}

impl<B: Backend> Sampler<B> for DpmSolver<B> {
    fn timesteps(&self) -> &[f64] {
        &self.times
    }

    fn step(
        &mut self,
        model_output: Tensor<B, 4>,
        step: usize,
        sample: Tensor<B, 4>,
        _noise: NoiseSource<'_, B>,
    ) -> Tensor<B, 4> {
        let (from, to) = (self.levels[step], self.levels[step + 1]);
        let original =
            self.schedule.denoise(model_output, sample.clone(), from.alpha.powi(2)).original;
        let last = self.first_order_final && step + 1 == self.times.len();
        let previous = self.previous.replace(original.clone());
        let (Some(previous), false) = (previous, last || step == 0) else {
            // alpha_t (1 - exp(-h)) with h = lambda_t - lambda_s, written so that it is finite at
            // no noise.
            let weight = to.alpha - to.sigma * from.alpha / from.sigma;
            return sample * (to.sigma / from.sigma) + original * weight;
        };
        let h = to.lambda() - from.lambda();
        let h_previous = from.lambda() - self.levels[step - 1].lambda();
        let slope = 0.5 * h / h_previous;
        let weight = to.alpha * -(-h).exp_m1();
        sample * (to.sigma / from.sigma) + original * (weight * (1.0 + slope))
            - previous * (weight * slope)
    }
}
