//! Scores of predictions and how sure they are: metrics, intervals, rank statistics, information.
//!
//! Everything here is a function of plain numbers; what is random takes its generator.

mod auroc;
mod bootstrap;
mod comparison;
mod information;
mod metrics;
mod student_t;
mod threshold;

pub use auroc::{auroc, auroc_estimate};
pub use bootstrap::{Bootstrap, Estimate, Interval, Over, TestSets};
pub use comparison::{ENOUGH_SEEDS, Outcome, Paired, Summary, Verdict, compare, summarise};
pub use information::{Bound, entropy, information_bound};
pub use metrics::{
    ClassScore, Counts, Evaluation, Prediction, Scores, counts_by_cell, counts_where, evaluate,
};
pub use student_t::{mean_interval, student_t_quantile};
pub use threshold::f1_threshold;

/// Why something cannot be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// There is nothing to compute a figure from.
    #[error("{what}: nothing to evaluate, expected at least one entry")]
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// A gold label that the probabilities do not cover.
    #[error("prediction `{id}`: label {label}, expected one of the {classes} classes")]
    Label {
        /// The prediction's item.
        id: String,
        /// The label found.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// Predictions of different models, or a cut file.
    #[error("prediction `{id}`: {found} probabilities, expected {expected} as in the first one")]
    Classes {
        /// The prediction's item.
        id: String,
        /// How many probabilities it has.
        found: usize,
        /// How many the first prediction has.
        expected: usize,
    },
    /// Not a probability.
    #[error(
        "prediction `{id}`: probability {value} of class {class}, expected a number from 0 to 1"
    )]
    Probability {
        /// The prediction's item.
        id: String,
        /// The class.
        class: usize,
        /// The value found.
        value: f32,
    },
    /// Two lists that describe the same things differ in length.
    #[error("{what}: {found} entries, expected {expected}")]
    Length {
        /// The list that does not fit.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that it must have.
        expected: usize,
    },
    /// A score that is not a number, or infinite.
    #[error("{what} number {position} is {value}, expected a finite number")]
    NotFinite {
        /// The list.
        what: &'static str,
        /// The position in it, from 0.
        position: usize,
        /// The value found.
        value: f64,
    },
    /// A ranking needs both positives and negatives.
    #[error("AUROC needs positives and negatives, found {positives} of {items} positive")]
    OneClass {
        /// How many are positive.
        positives: usize,
        /// How many there are.
        items: usize,
    },
    /// A spread cannot be estimated from one value.
    #[error("an interval over seeds needs at least two seeds, found {found}")]
    Seeds {
        /// How many there are.
        found: usize,
    },
    /// A confidence level that is none.
    #[error("confidence level {level}, expected a number between 0 and 1, both excluded")]
    Level {
        /// The level asked for.
        level: f64,
    },
    /// Nothing to take quantiles of.
    #[error("a bootstrap of no resamples, expected at least one")]
    Resamples,
}

/// That a confidence level lies strictly between 0 and 1.
fn check_level(level: f64) -> Result<(), EvalError> {
    if level > 0.0 && level < 1.0 { Ok(()) } else { Err(EvalError::Level { level }) }
}

/// That two lists describe the same things.
fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), EvalError> {
    if found == expected { Ok(()) } else { Err(EvalError::Length { what, found, expected }) }
}

/// That every value is a finite number.
fn check_finite(what: &'static str, values: &[f64]) -> Result<(), EvalError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(position) => Err(EvalError::NotFinite { what, position, value: values[position] }),
    }
}
