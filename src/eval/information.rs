//! How much a model shows that its input says about the label, in nats.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::bootstrap::{clusters, draw};
use super::{Bootstrap, Estimate, EvalError, check_finite, check_length};

/// The entropy of the distribution with these counts, in nats; 0 where nothing was counted.
pub fn entropy(counts: &[usize]) -> f64 {
    let total: usize = counts.iter().sum();
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = count as f64 / total as f64;
            -share * share.ln()
        })
        .sum()
}

/// The bound of Barber and Agakov (2003): I(X;Y) >= H(Y) + E[log q(y|x)] for any q.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// H(Y), in nats.
    pub label_entropy: f64,
    /// -E[log q(y|x)], in nats.
    pub cross_entropy: f64,
    /// Their difference, with its interval.
    pub information: Estimate,
}

/// The bound from samples that q has not been fitted to.
///
/// `labels` and `log_probabilities` (log q(y|x) of the label, in nats) hold one entry a sample, `items`
/// names the item it comes from: the interval draws whole items. Where `label_entropy` is not known,
/// it is estimated from the labels, in each resample anew; the estimate is low by about (classes - 1) /
/// (2 samples).
///
/// # Errors
/// If there is no sample, the lists differ in length, or a log-probability is not finite.
pub fn information_bound<K: Ord>(
    labels: &[usize],
    log_probabilities: &[f64],
    items: &[K],
    label_entropy: Option<f64>,
    bootstrap: &Bootstrap,
    rng: &mut impl Rng,
) -> Result<Bound, EvalError> {
    let samples = labels.len();
    let Some(&highest) = labels.iter().max() else {
        return Err(EvalError::Empty { what: "samples of the bound" });
    };
    check_length("log-probabilities", log_probabilities.len(), samples)?;
    check_length("items of the samples", items.len(), samples)?;
    check_finite("log-probability", log_probabilities)?;

    let mut counts = vec![0; highest + 1];
    let mut parts = |positions: &mut dyn Iterator<Item = usize>| {
        counts.fill(0);
        let (mut sum, mut drawn) = (0.0, 0usize);
        for position in positions {
            counts[labels[position]] += 1;
            sum -= log_probabilities[position];
            drawn += 1;
        }
        let entropy = label_entropy.unwrap_or_else(|| entropy(&counts));
        (entropy, sum / drawn as f64)
    };
    let (label_entropy, cross_entropy) = parts(&mut (0..samples));

    let clusters = clusters(items);
    let mut drawn = Vec::new();
    let interval = bootstrap.percentiles(|| {
        draw(clusters.len(), &mut drawn, rng);
        let mut positions = drawn.iter().flat_map(|&item| &clusters[item]).copied();
        let (entropy, cross_entropy) = parts(&mut positions);
        Some(entropy - cross_entropy)
    })?;
    Ok(Bound {
        label_entropy,
        cross_entropy,
        information: Estimate { value: label_entropy - cross_entropy, interval },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;

    const FAST: Bootstrap = Bootstrap { resamples: 300, level: 0.9 };

    /// A channel: the label is one of two, the observation shows it with probability 0.9.
    fn channel(samples: usize, seed: u64) -> (Vec<usize>, Vec<bool>) {
        let mut rng = Key::new(seed).rng();
        (0..samples).map(|_| (usize::from(rng.random_bool(0.5)), rng.random_bool(0.9))).unzip()
    }

    fn log_probabilities(shown: &[bool], belief: f64) -> Vec<f64> {
        let of = |&shown: &bool| if shown { belief } else { 1.0 - belief };
        shown.iter().map(|shown| of(shown).ln()).collect()
    }

    #[test]
    fn entropy_is_that_of_the_shares() {
        assert_eq!(entropy(&[]), 0.0);
        assert_eq!(entropy(&[0, 5]), 0.0);
        assert!((entropy(&[3, 3, 0, 3, 3]) - 4f64.ln()).abs() < 1e-12);
        // 0.25 ln 4 + 0.75 ln (4 / 3)
        assert!((entropy(&[1, 3]) - 0.5623351446188083).abs() < 1e-12);
    }

    #[test]
    fn the_true_posterior_reaches_the_mutual_information_and_another_stays_below() {
        // I(X;Y) = ln 2 - H(0.9)
        let truth = 2f64.ln() + 0.9 * 0.9f64.ln() + 0.1 * 0.1f64.ln();
        let (labels, shown) = channel(20_000, 1);
        let items: Vec<usize> = (0..labels.len()).collect();
        let bound = |belief| {
            let log_q = log_probabilities(&shown, belief);
            information_bound(&labels, &log_q, &items, None, &FAST, &mut Key::new(2).rng()).unwrap()
        };
        let exact = bound(0.9);
        assert!((exact.information.value - truth).abs() < 0.015);
        assert!(bound(0.7).information.value < truth - 0.05);
        assert!(bound(0.99).information.value < truth - 0.05);
    }

    #[test]
    fn its_interval_covers() {
        let truth = 2f64.ln() + 0.9 * 0.9f64.ln() + 0.1 * 0.1f64.ln();
        let held = (0..300)
            .filter(|&trial| {
                let (labels, shown) = channel(300, 100 + trial);
                let items: Vec<usize> = (0..labels.len()).collect();
                let log_q = log_probabilities(&shown, 0.9);
                let mut rng = Key::new(trial).rng();
                information_bound(&labels, &log_q, &items, Some(2f64.ln()), &FAST, &mut rng)
                    .unwrap()
                    .information
                    .interval
                    .contains(truth)
            })
            .count();
        assert!((252..288).contains(&held), "{held} of 300");
    }

    #[test]
    fn lists_that_do_not_match_are_refused() {
        let mut rng = Key::new(1).rng();
        let mut bound = |labels: &[usize], log_q: &[f64], items: &[u8]| {
            information_bound(labels, log_q, items, None, &FAST, &mut rng).map(|_| ())
        };
        assert!(bound(&[], &[], &[]).is_err());
        assert!(bound(&[0, 1], &[-0.1], &[0, 1]).is_err());
        assert!(bound(&[0, 1], &[-0.1, -0.2], &[0]).is_err());
        assert!(bound(&[0, 1], &[-0.1, f64::NEG_INFINITY], &[0, 1]).is_err());
        assert!(bound(&[0, 1], &[-0.1, -0.2], &[0, 1]).is_ok());
    }
}
