//! What an experiment may say of an arm, and of two.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Bootstrap, Counts, EvalError, Interval, Over, TestSets, mean_interval};

/// The seeds from which on a verdict is more than an indication: paired differences spread by 1 to 4
/// F1 between seeds.
pub const ENOUGH_SEEDS: usize = 10;

/// An arm's micro-F1 over its seeds, as fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The mean over seeds.
    pub mean: f64,
    /// Student's t interval of that mean; absent with one seed.
    pub over_seeds: Option<Interval>,
    /// The bootstrap interval over test items, the trained models given.
    pub over_items: Interval,
}

/// Sums up one arm: one list of per-item counts a seed.
///
/// # Errors
/// As [`Bootstrap::f1`].
pub fn summarise(
    runs: &[Vec<Counts>],
    tests: TestSets,
    bootstrap: &Bootstrap,
    rng: &mut impl Rng,
) -> Result<Summary, EvalError> {
    let over_items = bootstrap.f1(runs, Over::Items, tests, rng)?;
    let values = f1_per_seed(runs);
    Ok(Summary {
        mean: mean(&values),
        over_seeds: interval_of(&values, bootstrap.level)?,
        over_items,
    })
}

/// Which of two arms is shown to be the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The first: both intervals lie above zero.
    Higher,
    /// The second: both lie below.
    Lower,
    /// Neither: an interval holds zero, or there is only one seed.
    Undecided,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which arm is the better one.
    pub outcome: Outcome,
    /// Fewer than [`ENOUGH_SEEDS`] seeds: an indication, no more.
    pub indicative: bool,
}

/// Two arms on the same seeds and test items; differences in micro-F1 as fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The mean of the first minus the mean of the second.
    pub difference: f64,
    /// The difference in each seed.
    pub per_seed: Vec<f64>,
    /// The paired t interval over seeds; absent with one seed.
    pub over_seeds: Option<Interval>,
    /// The paired bootstrap interval over seeds and items.
    pub over_seeds_and_items: Interval,
    /// What follows from both.
    pub verdict: Verdict,
}

/// Compares two arms, `a` minus `b`: one list of per-item counts a seed, the same items in the same
/// order.
///
/// # Errors
/// As [`Bootstrap::f1_difference`].
pub fn compare(
    a: &[Vec<Counts>],
    b: &[Vec<Counts>],
    tests: TestSets,
    bootstrap: &Bootstrap,
    rng: &mut impl Rng,
) -> Result<Paired, EvalError> {
    let over_seeds_and_items = bootstrap.f1_difference(a, b, Over::SeedsAndItems, tests, rng)?;
    let per_seed: Vec<f64> =
        f1_per_seed(a).into_iter().zip(f1_per_seed(b)).map(|(a, b)| a - b).collect();
    let over_seeds = interval_of(&per_seed, bootstrap.level)?;
    let verdict = Verdict {
        outcome: outcome(over_seeds, over_seeds_and_items),
        indicative: per_seed.len() < ENOUGH_SEEDS,
    };
    Ok(Paired { difference: mean(&per_seed), per_seed, over_seeds, over_seeds_and_items, verdict })
}

/// The t interval is right for few seeds and blind to a shared test set's luck; the bootstrap sees
/// that and is too narrow for few seeds. So both have to agree.
fn outcome(over_seeds: Option<Interval>, over_seeds_and_items: Interval) -> Outcome {
    let Some(over_seeds) = over_seeds else {
        return Outcome::Undecided;
    };
    if over_seeds.low > 0.0 && over_seeds_and_items.low > 0.0 {
        Outcome::Higher
    } else if over_seeds.high < 0.0 && over_seeds_and_items.high < 0.0 {
        Outcome::Lower
    } else {
        Outcome::Undecided
    }
}

fn interval_of(values: &[f64], level: f64) -> Result<Option<Interval>, EvalError> {
    match values {
        [_] => Ok(None),
        _ => mean_interval(values, level).map(Some),
    }
}

fn f1_per_seed(runs: &[Vec<Counts>]) -> Vec<f64> {
    runs.iter().map(|run| run.iter().copied().sum::<Counts>().f1()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;

    /// Seeds of 100 relations each, of which so many are found.
    fn runs(found: &[usize]) -> Vec<Vec<Counts>> {
        let run =
            |&found: &usize| (0..100).map(move |item| Counts::of(1, usize::from(item < found)));
        found.iter().map(|found| run(found).collect()).collect()
    }

    fn verdict(a: &[usize], b: &[usize]) -> Verdict {
        let mut rng = Key::new(1).rng();
        let bootstrap = Bootstrap { resamples: 300, level: 0.95 };
        compare(&runs(a), &runs(b), TestSets::OwnPerSeed, &bootstrap, &mut rng).unwrap().verdict
    }

    #[test]
    fn a_steady_lead_over_ten_seeds_is_a_verdict_and_over_three_an_indication() {
        let better: Vec<usize> = (0..10).map(|seed| 70 + seed % 3).collect();
        let worse = vec![50; 10];
        let higher = Verdict { outcome: Outcome::Higher, indicative: false };
        assert_eq!(verdict(&better, &worse), higher);
        let lower = Verdict { outcome: Outcome::Lower, ..higher };
        assert_eq!(verdict(&worse, &better), lower);
        let few = verdict(&better[..3], &worse[..3]);
        assert_eq!((few.outcome, few.indicative), (Outcome::Higher, true));
    }

    #[test]
    fn a_lead_that_changes_sides_or_rests_on_one_seed_decides_nothing() {
        assert_eq!(verdict(&[60, 40, 60], &[50, 50, 50]).outcome, Outcome::Undecided);
        assert_eq!(verdict(&[90], &[10]).outcome, Outcome::Undecided);
    }

    #[test]
    fn a_lead_within_the_luck_of_the_test_set_decides_nothing_however_steady_over_seeds() {
        // Both seeds agree on +1 item of 100; another hundred items might well say -1.
        let paired = compare(
            &runs(&[51; 10]),
            &runs(&[50; 10]),
            TestSets::Shared,
            &Bootstrap::default(),
            &mut Key::new(2).rng(),
        )
        .unwrap();
        assert!(paired.over_seeds.unwrap().low > 0.0);
        assert_eq!(paired.verdict.outcome, Outcome::Undecided);
    }

    #[test]
    fn a_summary_is_the_mean_over_seeds_with_both_intervals() {
        let runs = runs(&[60, 70]);
        let mut rng = Key::new(3).rng();
        let summary = |runs: &[Vec<Counts>], rng: &mut _| {
            summarise(runs, TestSets::OwnPerSeed, &Bootstrap::default(), rng).unwrap()
        };
        let both = summary(&runs, &mut rng);
        let expected = (2.0 * 60.0 / 160.0 + 2.0 * 70.0 / 170.0) / 2.0;
        assert!((both.mean - expected).abs() < 1e-12);
        assert!(both.over_items.contains(both.mean));
        assert!(both.over_seeds.unwrap().contains(both.mean));
        assert_eq!(summary(&runs[..1], &mut rng).over_seeds, None);
    }
}
