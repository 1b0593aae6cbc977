//! Temperature scaling (Guo et al. 2017, arXiv 1706.04599): one number that makes a classifier as
//! confident as it is right.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The temperatures that are considered.
///
/// Logits that separate the calibration data have no best temperature: the loss falls towards 0
/// without end. The lower bound keeps such a teacher's log-probabilities finite.
pub const TEMPERATURES: (f64, f64) = (0.1, 10.0);

/// Bins of equal width for the calibration error, as in the paper.
const BINS: usize = 15;

/// Logits that nothing can be fitted to.
#[derive(Debug, Error, PartialEq)]
pub enum CalibrationError {
    /// No rows.
    #[error("no held-out logits to fit the temperature to")]
    Empty,
    /// Rows and labels do not match.
    #[error("{rows} rows of logits for {labels} labels")]
    Length {
        /// Rows of logits.
        rows: usize,
        /// Labels.
        labels: usize,
    },
    /// A label outside its row.
    #[error("row {row}: label {label} among {columns} logits")]
    Label {
        /// The row, from 0.
        row: usize,
        /// Its label.
        label: usize,
        /// Its logits.
        columns: usize,
    },
    /// A logit that is infinite or not a number.
    #[error("row {row}: a logit is not finite")]
    NotFinite {
        /// The row, from 0.
        row: usize,
    },
}

/// A fitted temperature and what it changed on the data that it was fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What logits are divided by.
    pub temperature: f64,
    /// Mean negative log-likelihood in nats at temperature 1.
    pub nll_before: f64,
    /// The same at the fitted temperature; never more.
    pub nll_after: f64,
    /// Expected calibration error at temperature 1.
    pub ece_before: f64,
    /// The same at the fitted temperature.
    pub ece_after: f64,
}

/// The temperature within [`TEMPERATURES`] that minimises the negative log-likelihood.
///
/// That likelihood is convex in the inverse temperature, so its minimum is where its slope changes
/// sign, found by bisection in the log-temperature; the search works on flat, separable and
/// hopeless data alike.
///
/// # Errors
/// If there are no rows, a label has no logit, or a logit is not finite.
pub fn fit_temperature(
    logits: &[Vec<f32>],
    labels: &[usize],
) -> Result<Calibration, CalibrationError> {
    check(logits, labels)?;
    let (mut low, mut high) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    let slope = |log_temperature: f64| slope(logits, labels, (-log_temperature).exp());
    // Each halving wins a bit; 60 reach the precision of f64.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if slope(middle) < 0.0 {
            high = middle; // sharper is better
        } else {
            low = middle;
        }
    }
    let fitted = (0.5 * (low + high)).exp().clamp(TEMPERATURES.0, TEMPERATURES.1);
    let nll_before = negative_log_likelihood(logits, labels, 1.0);
    let nll_fitted = negative_log_likelihood(logits, labels, fitted);
    // Where the loss is flat, only rounding tells temperatures apart, and 1 is as good.
    let rounding = 1e-12 * (1.0 + nll_before);
    let (temperature, nll_after) =
        if nll_fitted < nll_before - rounding { (fitted, nll_fitted) } else { (1.0, nll_before) };
    Ok(Calibration {
        temperature,
        nll_before,
        nll_after,
        ece_before: expected_calibration_error(logits, labels, 1.0),
        ece_after: expected_calibration_error(logits, labels, temperature),
    })
}

/// Log-probabilities of logits at a temperature.
pub fn log_probabilities(logits: &[f32], temperature: f64) -> Vec<f32> {
    let scaled: Vec<f64> = scaled(logits, 1.0 / temperature).collect();
    let normaliser = log_sum_exp(&scaled);
    scaled.iter().map(|logit| (logit - normaliser) as f32).collect()
}

fn check(logits: &[Vec<f32>], labels: &[usize]) -> Result<(), CalibrationError> {
    if logits.is_empty() {
        return Err(CalibrationError::Empty);
    }
    if logits.len() != labels.len() {
        return Err(CalibrationError::Length { rows: logits.len(), labels: labels.len() });
    }
    for (row, (logits, &label)) in logits.iter().zip(labels).enumerate() {
        if label >= logits.len() {
            return Err(CalibrationError::Label { row, label, columns: logits.len() });
        }
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(CalibrationError::NotFinite { row });
        }
    }
    Ok(())
}

fn scaled(logits: &[f32], inverse_temperature: f64) -> impl Iterator<Item = f64> {
    logits.iter().map(move |&logit| f64::from(logit) * inverse_temperature)
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + values.iter().map(|value| (value - top).exp()).sum::<f64>().ln()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn negative_log_likelihood(logits: &[Vec<f32>], labels: &[usize], temperature: f64) -> f64 {
    mean(logits.iter().zip(labels).map(|(logits, &label)| {
        let scaled: Vec<f64> = scaled(logits, 1.0 / temperature).collect();
        log_sum_exp(&scaled) - scaled[label]
    }))
}

/// The likelihood's derivative by the inverse temperature: mean of E_p\[z\] - z_y.
fn slope(logits: &[Vec<f32>], labels: &[usize], inverse_temperature: f64) -> f64 {
    mean(logits.iter().zip(labels).map(|(logits, &label)| {
        let scaled: Vec<f64> = scaled(logits, inverse_temperature).collect();
        let normaliser = log_sum_exp(&scaled);
        // As a sum of differences, which keeps its sign where the probability of y nears 1.
        let correct = f64::from(logits[label]);
        scaled
            .iter()
            .zip(logits)
            .map(|(scaled, &logit)| (scaled - normaliser).exp() * (f64::from(logit) - correct))
            .sum()
    }))
}

/// The mean distance between confidence and accuracy over bins of the confidence.
fn expected_calibration_error(logits: &[Vec<f32>], labels: &[usize], temperature: f64) -> f64 {
    let mut bins = [(0.0, 0.0); BINS]; // sums of confidence, of hits
    for (logits, &label) in logits.iter().zip(labels) {
        let log_probabilities = log_probabilities(logits, temperature);
        let (predicted, confidence) = log_probabilities.iter().enumerate().fold(
            (0, f32::NEG_INFINITY),
            |best, (at, &value)| {
                if value > best.1 { (at, value) } else { best }
            },
        );
        let confidence = f64::from(confidence).exp();
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(predicted == label));
    }
    let gap: f64 = bins.iter().map(|(confidence, hits)| f64::abs(confidence - hits)).sum();
    gap / logits.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;
    use proptest::prelude::*;
    use rand::Rng;

    /// Logits whose labels are drawn from their own softmax, then multiplied.
    fn drawn(rows: usize, times: f32) -> (Vec<Vec<f32>>, Vec<usize>) {
        let mut rng = Key::new(11).rng();
        let mut logits = Vec::new();
        let mut labels = Vec::new();
        for _ in 0..rows {
            let row: Vec<f32> = (0..4).map(|_| rng.random_range(-2.0..2.0)).collect();
            let mut left: f32 = rng.random();
            let label = log_probabilities(&row, 1.0)
                .iter()
                .position(|log| {
                    left -= log.exp();
                    left < 0.0
                })
                .unwrap_or(3);
            logits.push(row.iter().map(|logit| logit * times).collect());
            labels.push(label);
        }
        (logits, labels)
    }

    #[test]
    fn logits_that_are_three_times_too_large_get_temperature_three() {
        let (logits, labels) = drawn(20_000, 3.0);
        let fitted = fit_temperature(&logits, &labels).unwrap();
        assert!((fitted.temperature - 3.0).abs() < 0.1, "{fitted:?}");
        assert!(fitted.nll_after < fitted.nll_before);
        assert!(fitted.ece_before > 0.15 && fitted.ece_after < 0.02);
    }

    #[test]
    fn the_temperature_of_two_outcomes_is_the_closed_form() {
        // Right three times of four at a margin of 2: sigmoid(2 / T) = 3/4, so T = 2 / ln 3.
        let logits = vec![vec![2.0, 0.0]; 4];
        let fitted = fit_temperature(&logits, &[0, 0, 0, 1]).unwrap();
        assert!((fitted.temperature - 2.0 / 3f64.ln()).abs() < 1e-9);
        let before = (3.0 * (1.0 + (-2f64).exp()).ln() + (1.0 + 2f64.exp()).ln()) / 4.0;
        assert!((fitted.nll_before - before).abs() < 1e-12);
        let after = -(3.0 * 0.75f64.ln() + 0.25f64.ln()) / 4.0;
        assert!((fitted.nll_after - after).abs() < 1e-9);
        let confidence = 1.0 / (1.0 + (-2f64).exp());
        assert!((fitted.ece_before - (confidence - 0.75)).abs() < 1e-6);
        assert!(fitted.ece_after < 1e-6);
    }

    #[test]
    fn separable_hopeless_and_flat_data_stay_within_the_bounds() {
        let fit = |row: [f32; 2], label| fit_temperature(&vec![row.to_vec(); 5], &[label; 5]);
        let separable = fit([1.0, 0.0], 0).unwrap();
        assert!((separable.temperature - TEMPERATURES.0).abs() < 1e-9);
        assert!(separable.nll_after.is_finite());
        let hopeless = fit([1.0, 0.0], 1).unwrap();
        assert!((hopeless.temperature - TEMPERATURES.1).abs() < 1e-9);
        assert_eq!(fit([0.5, 0.5], 0).unwrap().temperature, 1.0);
        let extreme = fit([1e30, -1e30], 1).unwrap();
        assert!(extreme.nll_after.is_finite());
        assert_eq!(fit([1e30, -1e30], 0).unwrap().nll_after, 0.0);
    }

    #[test]
    fn what_nothing_can_be_fitted_to_is_refused() {
        assert_eq!(fit_temperature(&[], &[]), Err(CalibrationError::Empty));
        let row = vec![0.0f32, 1.0];
        assert_eq!(
            fit_temperature(std::slice::from_ref(&row), &[0, 1]),
            Err(CalibrationError::Length { rows: 1, labels: 2 })
        );
        assert_eq!(
            fit_temperature(&[row.clone(), row], &[0, 2]),
            Err(CalibrationError::Label { row: 1, label: 2, columns: 2 })
        );
        assert_eq!(
            fit_temperature(&[vec![f32::NAN]], &[0]),
            Err(CalibrationError::NotFinite { row: 0 })
        );
    }

    proptest! {
        #[test]
        fn the_fit_is_never_worse_than_temperature_one_nor_than_its_neighbours(
            rows in prop::collection::vec((prop::collection::vec(-8f32..8.0, 3), 0usize..3), 1..30),
        ) {
            let (logits, labels): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let fitted = fit_temperature(&logits, &labels).unwrap();
            prop_assert!(fitted.nll_after <= fitted.nll_before);
            for factor in [0.8, 0.99, 1.01, 1.25] {
                let other = (fitted.temperature * factor).clamp(TEMPERATURES.0, TEMPERATURES.1);
                let there = negative_log_likelihood(&logits, &labels, other);
                prop_assert!(fitted.nll_after <= there + 1e-9);
            }
            let sum: f32 = log_probabilities(&logits[0], fitted.temperature)
                .iter()
                .map(|log| log.exp())
                .sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
        }
    }
}
