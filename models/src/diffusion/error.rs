/// The longest schedule: a thousand times those that models are trained with.
pub(super) const MOST_TRAINING_STEPS: usize = 1_000_000;

/// What can be wrong with a schedule or a sampler's settings.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DiffusionError {
    /// A schedule needs at least one step, and not more than its tables can hold.
    #[error("num_train_timesteps is {0}, expected 1 to {MOST_TRAINING_STEPS}")]
    TrainingSteps(usize),
    /// Betas are variances of a step that leaves something of the sample.
    #[error("betas must rise within 0 and 1: beta_start is {beta_start}, beta_end is {beta_end}")]
    Betas {
        /// The first.
        beta_start: f64,
        /// The last.
        beta_end: f64,
    },
    /// More or fewer steps than the sampler can take.
    #[error("{kind} takes {least} to {most} steps, not {steps}")]
    Steps {
        /// Name of the sampler.
        kind: &'static str,
        /// The steps asked for.
        steps: usize,
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
    },
    /// The offset moves the first timestep out of the schedule.
    #[error(
        "steps_offset {offset} moves the first of {steps} steps to timestep {timestep}; the schedule ends at {last}"
    )]
    Offset {
        /// `steps_offset`.
        offset: usize,
        /// The steps asked for.
        steps: usize,
        /// The timestep that came of it.
        timestep: usize,
        /// The last timestep of the schedule.
        last: usize,
    },
    /// The sampler has no form for what the model predicts.
    #[error("{kind} does not know the prediction type {prediction}")]
    Prediction {
        /// Name of the sampler.
        kind: &'static str,
        /// Name of the prediction type.
        prediction: &'static str,
    },
    /// Where the schedule ends in noise alone, the predicted noise says nothing of the sample, and
    /// PNDM has no form for such a schedule.
    #[error(
        "{kind} cannot sample with the prediction type {prediction} from a schedule rescaled to zero signal"
    )]
    ZeroSignal {
        /// Name of the sampler.
        kind: &'static str,
        /// Name of the prediction type.
        prediction: &'static str,
    },
    /// The strength is out of range or leaves no step.
    #[error(
        "strength must be within 0 and 1 and leave at least one step: {strength} of {steps} steps"
    )]
    Strength {
        /// The strength asked for.
        strength: f64,
        /// The steps asked for.
        steps: usize,
    },
    /// The sampler has to start from noise.
    #[error("{kind} with Runge-Kutta steps starts from noise only; set skip_prk_steps")]
    LateStart {
        /// Name of the sampler.
        kind: &'static str,
    },
    /// No such sampler.
    #[error("no sampler is named {name:?}; known are ddpm, ddim, dpmpp_2m, euler, pndm")]
    UnknownSampler {
        /// The name.
        name: String,
    },
}
