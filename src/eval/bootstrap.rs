//! Percentile bootstrap of micro-F1 over test items, over seeds, and over both.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Counts, EvalError, check_finite, check_length, check_level};

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The confidence level, such as 0.95.
    pub level: f64,
}

impl Interval {
    /// Whether a value lies inside, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure on the data as they are.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
}

/// What a bootstrap draws anew; the rest is taken as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Test items: another test set, the same trained models.
    Items,
    /// Seeds, and the items of each: other models and another test set.
    SeedsAndItems,
}

/// How the test sets of several seeds relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestSets {
    /// One test set for all: an item drawn is drawn for every seed.
    Shared,
    /// Each seed has its own: items are drawn within their seed. The spread between seeds then holds
    /// the items' share once already, so the interval over both is a little too wide, never too
    /// narrow on that account.
    OwnPerSeed,
}

/// How many resamples to draw, and how sure the interval is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// How often the data are resampled.
    pub resamples: usize,
    /// The confidence level, such as 0.95.
    pub level: f64,
}

impl Default for Bootstrap {
    /// 2,000 resamples, 95 %.
    fn default() -> Self {
        Self { resamples: 2000, level: 0.95 }
    }
}

impl Bootstrap {
    /// The interval of the micro-F1 of `runs`: one list of per-item counts a seed, averaged over
    /// seeds.
    ///
    /// # Errors
    /// If there is no run, a run is empty, or shared test sets differ in length.
    pub fn f1(
        &self,
        runs: &[Vec<Counts>],
        over: Over,
        tests: TestSets,
        rng: &mut impl Rng,
    ) -> Result<Interval, EvalError> {
        let arms = [runs];
        check_runs(&arms, tests)?;
        let mut drawn = Vec::new();
        self.percentiles(|| Some(mean_f1(&arms, over, tests, &mut drawn, rng)[0]))
    }

    /// The interval of the difference of two arms' micro-F1, `a` minus `b`; the items and seeds drawn
    /// are the same for both, so what they share cancels.
    ///
    /// # Errors
    /// As [`Bootstrap::f1`], and if the arms differ in seeds or in items.
    pub fn f1_difference(
        &self,
        a: &[Vec<Counts>],
        b: &[Vec<Counts>],
        over: Over,
        tests: TestSets,
        rng: &mut impl Rng,
    ) -> Result<Interval, EvalError> {
        let arms = [a, b];
        check_runs(&arms, tests)?;
        let mut drawn = Vec::new();
        self.percentiles(|| {
            let [a, b] = mean_f1(&arms, over, tests, &mut drawn, rng);
            Some(a - b)
        })
    }

    /// The interval of the mean of one value a seed. With few seeds it is too narrow (three values
    /// have ten different resamples); [`super::mean_interval`] is not.
    ///
    /// # Errors
    /// If there are fewer than two values, or one is not finite.
    pub fn mean(&self, values: &[f64], rng: &mut impl Rng) -> Result<Interval, EvalError> {
        check_finite("value of a seed", values)?;
        if values.len() < 2 {
            return Err(EvalError::Seeds { found: values.len() });
        }
        let mut drawn = Vec::new();
        self.percentiles(|| {
            draw(values.len(), &mut drawn, rng);
            let sum: f64 = drawn.iter().map(|&seed| values[seed]).sum();
            Some(sum / values.len() as f64)
        })
    }

    /// The percentiles of a replicated statistic; a replicate that has no value is left out.
    pub(super) fn percentiles(
        &self,
        mut replicate: impl FnMut() -> Option<f64>,
    ) -> Result<Interval, EvalError> {
        check_level(self.level)?;
        let mut values: Vec<f64> = (0..self.resamples).filter_map(|_| replicate()).collect();
        if values.is_empty() {
            return Err(EvalError::Resamples);
        }
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        Ok(Interval {
            low: quantile(&values, tail),
            high: quantile(&values, 1.0 - tail),
            level: self.level,
        })
    }
}

/// Draws `n` of `n` positions with replacement.
pub(super) fn draw(n: usize, drawn: &mut Vec<usize>, rng: &mut impl Rng) {
    drawn.clear();
    drawn.extend((0..n).map(|_| rng.random_range(0..n)));
}

/// The positions that belong to each item, items in the order of their first position: what a
/// bootstrap has to draw together.
pub(super) fn clusters<K: Ord>(items: &[K]) -> Vec<Vec<usize>> {
    let mut known = std::collections::BTreeMap::new();
    let mut clusters: Vec<Vec<usize>> = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let cluster = *known.entry(item).or_insert(clusters.len());
        if cluster == clusters.len() {
            clusters.push(Vec::new());
        }
        clusters[cluster].push(position);
    }
    clusters
}

/// One replicate: each arm's micro-F1, averaged over the seeds drawn.
fn mean_f1<const ARMS: usize>(
    arms: &[&[Vec<Counts>]; ARMS],
    over: Over,
    tests: TestSets,
    drawn: &mut Vec<usize>,
    rng: &mut impl Rng,
) -> [f64; ARMS] {
    let seeds = arms[0].len();
    if tests == TestSets::Shared {
        draw(arms[0][0].len(), drawn, rng);
    }
    let mut sums = [0.0; ARMS];
    for position in 0..seeds {
        let seed = match over {
            Over::Items => position,
            Over::SeedsAndItems => rng.random_range(0..seeds),
        };
        if tests == TestSets::OwnPerSeed {
            draw(arms[0][seed].len(), drawn, rng);
        }
        for (sum, runs) in sums.iter_mut().zip(arms) {
            let total: Counts = drawn.iter().map(|&item| runs[seed][item]).sum();
            *sum += total.f1();
        }
    }
    sums.map(|sum| sum / seeds as f64)
}

fn check_runs(arms: &[&[Vec<Counts>]], tests: TestSets) -> Result<(), EvalError> {
    let first = arms[0];
    if first.is_empty() || first.iter().any(Vec::is_empty) {
        return Err(EvalError::Empty { what: "counts of a run" });
    }
    for runs in arms {
        check_length("seeds of an arm", runs.len(), first.len())?;
        for (seed, run) in runs.iter().enumerate() {
            let expected = match tests {
                TestSets::Shared => first[0].len(),
                TestSets::OwnPerSeed => first[seed].len(),
            };
            check_length("items of a run", run.len(), expected)?;
        }
    }
    Ok(())
}

/// The quantile of sorted values, linear between neighbours (numpy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor();
    let above = (below as usize + 1).min(sorted.len() - 1);
    let low = sorted[below as usize];
    low + (sorted[above] - low) * (position - below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;
    use rand_chacha::ChaCha8Rng;

    const FAST: Bootstrap = Bootstrap { resamples: 300, level: 0.9 };

    /// An item of a test set on which a model finds a relation with probability `skill`.
    fn item(skill: f64, rng: &mut ChaCha8Rng) -> Counts {
        let gold = usize::from(rng.random_bool(0.4));
        let right = rng.random_bool(skill);
        Counts::of(gold, if right { gold } else { 1 - gold })
    }

    fn run(skill: f64, items: usize, rng: &mut ChaCha8Rng) -> Vec<Counts> {
        (0..items).map(|_| item(skill, rng)).collect()
    }

    /// The F1 of [`item`] on infinitely many items: precision and recall from the probabilities.
    fn true_f1(skill: f64) -> f64 {
        let hits = 0.4 * skill;
        2.0 * hits / (hits + 0.6 * (1.0 - skill) + 0.4)
    }

    /// How often the interval that `interval` makes from trial `n`'s numbers holds its truth.
    fn coverage(trials: usize, interval: impl Fn(&mut ChaCha8Rng) -> (Interval, f64)) -> f64 {
        let held = (0..trials)
            .filter(|trial| {
                let mut rng = Key::new(3).with("trial", trial).rng();
                let (interval, truth) = interval(&mut rng);
                interval.contains(truth)
            })
            .count();
        held as f64 / trials as f64
    }

    #[test]
    fn the_interval_over_items_covers_at_its_level() {
        let covered = coverage(600, |rng| {
            let runs = [run(0.75, 200, rng)];
            let interval = FAST.f1(&runs, Over::Items, TestSets::Shared, rng);
            (interval.unwrap(), true_f1(0.75))
        });
        // 0.9 with a binomial standard error of 0.012.
        assert!((0.86..0.94).contains(&covered), "{covered}");
    }

    #[test]
    fn the_paired_interval_over_items_covers_and_is_narrower_than_an_unpaired_one() {
        // Both arms are wrong on the same hard items; `b` is wrong on some more.
        let arms = |rng: &mut ChaCha8Rng| {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let gold = usize::from(rng.random_bool(0.4));
                let easy = rng.random_bool(0.75);
                let slip = rng.random_bool(0.1);
                a.push(Counts::of(gold, if easy { gold } else { 1 - gold }));
                let right = easy && !slip;
                b.push(Counts::of(gold, if right { gold } else { 1 - gold }));
            }
            ([a], [b])
        };
        let truth = true_f1(0.75) - true_f1(0.75 * 0.9);
        let covered = coverage(600, |rng| {
            let (a, b) = arms(rng);
            let interval = FAST.f1_difference(&a, &b, Over::Items, TestSets::Shared, rng);
            (interval.unwrap(), truth)
        });
        assert!((0.86..0.94).contains(&covered), "{covered}");

        let mut rng = Key::new(4).rng();
        let (a, b) = arms(&mut rng);
        let width = |interval: Interval| interval.high - interval.low;
        let paired = FAST.f1_difference(&a, &b, Over::Items, TestSets::Shared, &mut rng);
        let alone = FAST.f1(&a, Over::Items, TestSets::Shared, &mut rng);
        assert!(width(paired.unwrap()) < width(alone.unwrap()));
    }

    #[test]
    fn the_interval_over_seeds_and_items_covers_when_both_vary() {
        // Each seed's model has a skill of its own; the truth is the mean over skills.
        let skills: Vec<f64> = (0..400).map(|step| 0.65 + 0.2 * f64::from(step) / 399.0).collect();
        let truth = skills.iter().map(|&skill| true_f1(skill)).sum::<f64>() / 400.0;
        let runs = |rng: &mut ChaCha8Rng| -> Vec<Vec<Counts>> {
            (0..12)
                .map(|_| {
                    let skill = skills[rng.random_range(0..skills.len())];
                    run(skill, 150, rng)
                })
                .collect()
        };
        let both = coverage(300, |rng| {
            let runs = runs(rng);
            let interval = FAST.f1(&runs, Over::SeedsAndItems, TestSets::OwnPerSeed, rng);
            (interval.unwrap(), truth)
        });
        let items_alone = coverage(300, |rng| {
            let runs = runs(rng);
            let interval = FAST.f1(&runs, Over::Items, TestSets::OwnPerSeed, rng);
            (interval.unwrap(), truth)
        });
        assert!(both > 0.87, "{both}");
        assert!(items_alone < 0.8, "{items_alone}: seeds do vary here");
    }

    #[test]
    fn one_shared_test_set_is_one_source_of_luck_however_many_seeds_share_it() {
        // Ten seeds that agree on every item know no more about other items than one does.
        let mut rng = Key::new(5).rng();
        let one = run(0.75, 200, &mut rng);
        let ten = vec![one.clone(); 10];
        let width = |runs: &[Vec<Counts>], tests| {
            let mut rng = Key::new(6).rng();
            let interval = Bootstrap::default().f1(runs, Over::Items, tests, &mut rng);
            interval.map(|found| found.high - found.low).unwrap()
        };
        let alone = width(&[one], TestSets::Shared);
        assert!((width(&ten, TestSets::Shared) - alone).abs() < 1e-12);
        assert!(width(&ten, TestSets::OwnPerSeed) < 0.5 * alone);
    }

    #[test]
    fn the_same_key_gives_the_same_interval() {
        let runs = [run(0.7, 100, &mut Key::new(8).rng())];
        let interval = |seed| {
            let mut rng = Key::new(seed).rng();
            FAST.f1(&runs, Over::Items, TestSets::Shared, &mut rng)
        };
        assert_eq!(interval(1), interval(1));
        assert_ne!(interval(1), interval(2));
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0.025, 0.5, 0.975])
        let values = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.025, 1.075), (0.5, 3.0), (0.975, 7.7), (1.0, 8.0)] {
            assert!((quantile(&values, share) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn the_mean_over_seeds_lies_inside_its_interval() {
        let values = [0.5, 0.52, 0.55, 0.51, 0.6];
        let interval = FAST.mean(&values, &mut Key::new(1).rng()).unwrap();
        assert!(interval.contains(0.536) && interval.low > 0.5 && interval.high < 0.6);
    }

    #[test]
    fn runs_that_do_not_match_are_refused() {
        let mut rng = Key::new(9).rng();
        let short = vec![run(0.7, 10, &mut rng)];
        let long = vec![run(0.7, 11, &mut rng)];
        let both = [short[0].clone(), long[0].clone()];
        let mut check = |a: &[Vec<Counts>], b: &[Vec<Counts>], tests| {
            FAST.f1_difference(a, b, Over::Items, tests, &mut rng)
        };
        assert!(check(&short, &long, TestSets::OwnPerSeed).is_err());
        assert!(check(&both, &both, TestSets::OwnPerSeed).is_ok());
        assert!(check(&both, &both, TestSets::Shared).is_err());
        assert!(check(&both, &short, TestSets::OwnPerSeed).is_err());
        assert!(check(&[], &[], TestSets::Shared).is_err());
        let nothing = Bootstrap { resamples: 0, level: 0.95 };
        let nonsense = Bootstrap { resamples: 10, level: 95.0 };
        for bootstrap in [nothing, nonsense] {
            let interval = bootstrap.f1(&short, Over::Items, TestSets::Shared, &mut rng);
            assert!(interval.is_err());
        }
    }
}
