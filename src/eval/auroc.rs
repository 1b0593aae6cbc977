//! Area under the ROC curve: how well a score ranks positives above negatives.

use rand::Rng;

use super::bootstrap::{clusters, draw};
use super::{Bootstrap, Estimate, EvalError, check_finite, check_length};

/// The probability that a positive scores above a negative, ties counted half (Mann and Whitney).
///
/// # Errors
/// If the lists differ in length, a score is not finite, or one class is missing.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Result<f64, EvalError> {
    let ranking = Ranking::new(scores, positive)?;
    ranking.auroc(&vec![1; scores.len()]).ok_or(EvalError::OneClass {
        positives: positive.iter().filter(|&&positive| positive).count(),
        items: positive.len(),
    })
}

/// [`auroc`] with a bootstrap interval that draws whole items: `items` names each score's item, and
/// the samples of one item are not independent. A resample in which one class is missing is left out.
///
/// # Errors
/// As [`auroc`], and if `items` differs in length.
pub fn auroc_estimate<K: Ord>(
    scores: &[f64],
    positive: &[bool],
    items: &[K],
    bootstrap: &Bootstrap,
    rng: &mut impl Rng,
) -> Result<Estimate, EvalError> {
    let value = auroc(scores, positive)?;
    check_length("items of the scores", items.len(), scores.len())?;
    let ranking = Ranking::new(scores, positive)?;
    let clusters = clusters(items);
    let mut weights = vec![0; scores.len()];
    let mut drawn = Vec::new();
    let interval = bootstrap.percentiles(|| {
        draw(clusters.len(), &mut drawn, rng);
        weights.fill(0);
        for &cluster in &drawn {
            for &position in &clusters[cluster] {
                weights[position] += 1;
            }
        }
        ranking.auroc(&weights)
    })?;
    Ok(Estimate { value, interval })
}

/// Scores sorted once, so that each resample costs one pass.
struct Ranking<'a> {
    scores: &'a [f64],
    positive: &'a [bool],
    /// Positions from the lowest score to the highest.
    ascending: Vec<usize>,
}

impl<'a> Ranking<'a> {
    fn new(scores: &'a [f64], positive: &'a [bool]) -> Result<Self, EvalError> {
        check_length("truth of the scores", positive.len(), scores.len())?;
        check_finite("score", scores)?;
        let mut ascending: Vec<usize> = (0..scores.len()).collect();
        ascending.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        Ok(Self { scores, positive, ascending })
    }

    /// The statistic with each position counted `weights` times; nothing where a class is missing.
    fn auroc(&self, weights: &[u32]) -> Option<f64> {
        let (mut negatives, mut positives, mut above) = (0.0, 0.0, 0.0);
        // `==` and not the bits: -0 and 0 are tied.
        for tied in self.ascending.chunk_by(|&a, &b| self.scores[a] == self.scores[b]) {
            let (mut tied_positives, mut tied_negatives) = (0.0, 0.0);
            for &position in tied {
                let weight = f64::from(weights[position]);
                if self.positive[position] {
                    tied_positives += weight;
                } else {
                    tied_negatives += weight;
                }
            }
            above += tied_positives * (negatives + 0.5 * tied_negatives);
            positives += tied_positives;
            negatives += tied_negatives;
        }
        (positives > 0.0 && negatives > 0.0).then(|| above / (positives * negatives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;

    #[test]
    fn it_is_the_one_of_scikit_learn_ties_and_all() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
        let fixture = &fixture["auroc"];
        let scores: Vec<f64> = serde_json::from_value(fixture["scores"].clone()).unwrap();
        let positive: Vec<bool> = serde_json::from_value(fixture["positive"].clone()).unwrap();
        let found = auroc(&scores, &positive).unwrap();
        assert!((found - fixture["expected"].as_f64().unwrap()).abs() < 1e-12);
        let mut distinct = scores.clone();
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        assert!(distinct.len() < scores.len(), "the fixture has ties");
    }

    #[test]
    fn a_perfect_ranking_is_one_its_reverse_zero_and_a_constant_half() {
        let positive = [false, false, true, true];
        assert_eq!(auroc(&[1.0, 2.0, 3.0, 4.0], &positive), Ok(1.0));
        assert_eq!(auroc(&[4.0, 3.0, 2.0, 1.0], &positive), Ok(0.0));
        assert_eq!(auroc(&[0.0, -0.0, 0.0, -0.0], &positive), Ok(0.5));
    }

    #[test]
    fn what_cannot_be_ranked_is_refused() {
        assert!(auroc(&[1.0, 2.0], &[true, true]).is_err());
        assert!(auroc(&[1.0, f64::NAN], &[true, false]).is_err());
        assert!(auroc(&[1.0], &[true, false]).is_err());
        assert!(auroc(&[], &[]).is_err());
    }

    #[test]
    fn the_interval_covers_when_the_samples_of_an_item_hang_together() {
        // Six copies of one draw an item: the interval must be as wide as the items are few.
        let bootstrap = Bootstrap { resamples: 200, level: 0.9 };
        let held = |clustered: bool| {
            (0..300)
                .filter(|trial| {
                    let mut rng = Key::new(13).with("trial", trial).rng();
                    let (mut scores, mut positive, mut items) = (vec![], vec![], vec![]);
                    for item in 0..60 {
                        let truth = rng.random_bool(0.5);
                        // Uniform on [0, 1], shifted by 0.3: P(above) = 1 - 0.7^2 / 2.
                        let score = rng.random::<f64>() + if truth { 0.3 } else { 0.0 };
                        for copy in 0..6 {
                            scores.push(score);
                            positive.push(truth);
                            items.push(if clustered { item } else { item * 6 + copy });
                        }
                    }
                    auroc_estimate(&scores, &positive, &items, &bootstrap, &mut rng)
                        .unwrap()
                        .interval
                        .contains(1.0 - 0.245)
                })
                .count()
        };
        let with = held(true);
        assert!((255..288).contains(&with), "{with} of 300");
        let without = held(false);
        assert!(without < 200, "{without} of 300: copies are no evidence");
    }
}
