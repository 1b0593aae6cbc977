//! Which of the scored pairs are kept, and what a dropped one loses.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::records::{self, RecordError};
use super::scores::{Score, ScoredPair, uniform};
use crate::chain::PairId;
use crate::keyed::Key;

/// How pairs are chosen by one score. Of equal scores, the lesser pair id goes first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The best fraction of all pairs, to the nearest number, at least one.
    TopFraction(f64),
    /// The best fraction of each label's pairs, to the nearest number, at least one.
    TopFractionPerClass(f64),
    /// The best so many pairs of each item.
    BestOfItem(NonZeroUsize),
    /// Every pair whose score is at least this.
    Threshold(f64),
}

/// What a dropped pair loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDrop {
    /// All of it: the student never sees the pair.
    Pair,
    /// Its generated half, which is masked; the real half stays.
    GeneratedHalf,
}

/// What the student sees of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Both halves.
    Pair,
    /// The real half; the generated one is masked.
    RealHalf,
    /// Nothing.
    Nothing,
}

impl OnDrop {
    /// What the student sees of a pair that is kept or dropped.
    pub fn part(self, keep: bool) -> Part {
        match (keep, self) {
            (true, _) => Part::Pair,
            (false, Self::GeneratedHalf) => Part::RealHalf,
            (false, Self::Pair) => Part::Nothing,
        }
    }
}

/// Pairs that cannot be chosen from as asked.
#[derive(Debug, Error, PartialEq)]
pub enum PolicyError {
    /// Not a fraction of something.
    #[error("policy fraction {0}: expected more than 0 and at most 1")]
    Fraction(f64),
    /// Not a number.
    #[error("policy threshold {0}: expected a finite number")]
    Threshold(f64),
    /// A pair without the score that decides.
    #[error("{pair}: has no finite score {score:?}")]
    NoScore {
        /// The pair.
        pair: PairId,
        /// The score.
        score: Score,
    },
    /// The same pair twice.
    #[error("{pair}: stands twice among the scored pairs")]
    DuplicatePair {
        /// The pair.
        pair: PairId,
    },
}

/// The fate of a pair: a line of `selection.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The pair.
    pub pair: PairId,
    /// The label of its item.
    pub label: usize,
    /// The score that decided.
    pub score: f64,
    /// Whether it is kept.
    pub keep: bool,
}

/// The fate of every pair, in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection(Vec<Decision>);

impl Policy {
    /// Whether the policy's number makes sense.
    ///
    /// # Errors
    /// If a fraction is not in (0, 1], or a threshold is not finite.
    pub fn check(self) -> Result<(), PolicyError> {
        match self {
            Self::TopFraction(fraction) | Self::TopFractionPerClass(fraction) => {
                if !(fraction > 0.0 && fraction <= 1.0) {
                    return Err(PolicyError::Fraction(fraction));
                }
            }
            Self::Threshold(threshold) if !threshold.is_finite() => {
                return Err(PolicyError::Threshold(threshold));
            }
            Self::Threshold(_) | Self::BestOfItem(_) => {}
        }
        Ok(())
    }

    /// Keeps or drops each pair by a score. The pairs' order does not matter.
    ///
    /// # Errors
    /// If the policy's number makes no sense, a pair stands twice, or one lacks the score.
    pub fn select(self, score: Score, pairs: &[ScoredPair]) -> Result<Selection, PolicyError> {
        self.check()?;
        let mut decisions = by_id(score, pairs)?;
        let kept = match self {
            Self::TopFraction(fraction) => best(&decisions, |_| (), |of| share(fraction, of)),
            Self::TopFractionPerClass(fraction) => {
                best(&decisions, |pair| pair.label, |of| share(fraction, of))
            }
            Self::BestOfItem(count) => best(&decisions, |pair| &pair.pair.item, |_| count.get()),
            Self::Threshold(threshold) => {
                (0..decisions.len()).filter(|&at| decisions[at].score >= threshold).collect()
            }
        };
        for at in kept {
            decisions[at].keep = true;
        }
        Ok(Selection(decisions))
    }
}

impl Selection {
    /// Every pair's fate, in the order of their ids.
    pub fn decisions(&self) -> &[Decision] {
        &self.0
    }

    /// The control: of each label as many pairs dropped as here, but at random.
    ///
    /// What is drawn for a pair depends on key and pair alone; it stands as the pair's score.
    pub fn random_matched(&self, key: &Key) -> Self {
        let mut kept_of = BTreeMap::new();
        for decision in &self.0 {
            *kept_of.entry(decision.label).or_insert(0) += usize::from(decision.keep);
        }
        let mut drawn: Vec<_> = self
            .0
            .iter()
            .map(|decision| Decision {
                score: uniform(key, &decision.pair),
                keep: false,
                ..decision.clone()
            })
            .collect();
        for (label, kept) in kept_of {
            let mut of_label: Vec<_> =
                (0..drawn.len()).filter(|&at| drawn[at].label == label).collect();
            sort_best_first(&mut of_label, &drawn);
            for at in of_label.into_iter().take(kept) {
                drawn[at].keep = true;
            }
        }
        Self(drawn)
    }

    /// Writes `selection.jsonl`.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing stands under its name that did not before.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        records::write(path, &self.0)
    }

    /// Reads `selection.jsonl`.
    ///
    /// # Errors
    /// If the file cannot be read or a line is no decision.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let mut decisions: Vec<Decision> = records::read(path)?;
        decisions.sort_by(|one, two| one.pair.cmp(&two.pair));
        Ok(Self(decisions))
    }
}

/// All pairs dropped, in the order of their ids.
fn by_id(score: Score, pairs: &[ScoredPair]) -> Result<Vec<Decision>, PolicyError> {
    let mut seen = BTreeSet::new();
    let mut decisions = Vec::with_capacity(pairs.len());
    for pair in pairs {
        if !seen.insert(&pair.pair) {
            return Err(PolicyError::DuplicatePair { pair: pair.pair.clone() });
        }
        let value = pair.scores.get(&score).copied();
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return Err(PolicyError::NoScore { pair: pair.pair.clone(), score });
        };
        decisions.push(Decision {
            pair: pair.pair.clone(),
            label: pair.label,
            score: value,
            keep: false,
        });
    }
    decisions.sort_by(|one, two| one.pair.cmp(&two.pair));
    Ok(decisions)
}

/// The places of each group's best pairs; `count` says how many of a group of that size.
fn best<'d, G: Ord>(
    decisions: &'d [Decision],
    group: impl Fn(&'d Decision) -> G,
    count: impl Fn(usize) -> usize,
) -> Vec<usize> {
    let mut groups: BTreeMap<G, Vec<usize>> = BTreeMap::new();
    for (at, decision) in decisions.iter().enumerate() {
        groups.entry(group(decision)).or_default().push(at);
    }
    let mut kept = Vec::new();
    for mut group in groups.into_values() {
        sort_best_first(&mut group, decisions);
        kept.extend(group.iter().take(count(group.len())));
    }
    kept
}

/// The decisions are in the order of their ids, so their places break ties.
fn sort_best_first(places: &mut [usize], decisions: &[Decision]) {
    places.sort_by(|&one, &two| {
        // Adding 0 makes a negative zero equal to a positive one.
        (decisions[two].score + 0.0).total_cmp(&(decisions[one].score + 0.0)).then(one.cmp(&two))
    });
}

fn share(fraction: f64, of: usize) -> usize {
    ((fraction * of as f64).round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::PairKind;
    use proptest::prelude::*;

    fn scored(item: usize, chain: usize, label: usize, score: f64) -> ScoredPair {
        ScoredPair {
            pair: PairId { item: format!("i{item}"), chain, round: 1, kind: PairKind::Anchor },
            label,
            fold: 0,
            scores: BTreeMap::from([(Score::PmiGenerated, score)]),
        }
    }

    fn select(policy: Policy, pairs: &[ScoredPair]) -> Selection {
        policy.select(Score::PmiGenerated, pairs).unwrap()
    }

    fn kept(selection: &Selection) -> Vec<&PairId> {
        let decisions = selection.decisions().iter();
        decisions.filter(|one| one.keep).map(|one| &one.pair).collect()
    }

    /// Kept and all, by label.
    fn counts(selection: &Selection) -> BTreeMap<usize, (usize, usize)> {
        let mut counts = BTreeMap::new();
        for decision in selection.decisions() {
            let count: &mut (usize, usize) = counts.entry(decision.label).or_default();
            count.0 += usize::from(decision.keep);
            count.1 += 1;
        }
        counts
    }

    /// Items of three pairs each, with coarse scores, so that ties are many.
    fn some_pairs() -> impl Strategy<Value = Vec<ScoredPair>> {
        prop::collection::vec((0usize..4, prop::array::uniform3(-3i32..4)), 1..20).prop_map(
            |items| {
                let mut pairs = Vec::new();
                for (item, (label, scores)) in items.into_iter().enumerate() {
                    for (chain, score) in scores.into_iter().enumerate() {
                        pairs.push(scored(item, chain, label, f64::from(score) / 2.0));
                    }
                }
                pairs
            },
        )
    }

    fn some_policy() -> impl Strategy<Value = Policy> {
        prop_oneof![
            (0.01f64..=1.0).prop_map(Policy::TopFraction),
            (0.01f64..=1.0).prop_map(Policy::TopFractionPerClass),
            (1usize..5).prop_map(|count| Policy::BestOfItem(NonZeroUsize::new(count).unwrap())),
            (-2.0f64..2.0).prop_map(Policy::Threshold),
        ]
    }

    proptest! {
        #[test]
        fn fractions_are_honoured_per_class_and_each_keeps_one(
            pairs in some_pairs(), fraction in 0.01f64..=1.0,
        ) {
            let selection = select(Policy::TopFractionPerClass(fraction), &pairs);
            for (kept, all) in counts(&selection).into_values() {
                let wanted = fraction * all as f64;
                prop_assert!(kept >= 1 && kept <= all);
                prop_assert!((kept as f64 - wanted).abs() <= 0.5 || kept == 1);
            }
            let all = select(Policy::TopFraction(fraction), &pairs);
            let wanted = fraction * pairs.len() as f64;
            let kept = kept(&all).len();
            prop_assert!((kept as f64 - wanted).abs() <= 0.5 || kept == 1);
        }

        #[test]
        fn the_order_of_the_pairs_does_not_matter(
            (pairs, shuffled) in some_pairs().prop_flat_map(|pairs| {
                (Just(pairs.clone()), Just(pairs).prop_shuffle())
            }),
            policy in some_policy(),
        ) {
            prop_assert_eq!(select(policy, &pairs), select(policy, &shuffled));
        }

        #[test]
        fn no_dropped_pair_is_better_than_a_kept_one_of_its_group(
            pairs in some_pairs(), policy in some_policy(),
        ) {
            let selection = select(policy, &pairs);
            for kept in selection.decisions().iter().filter(|one| one.keep) {
                for dropped in selection.decisions().iter().filter(|one| !one.keep) {
                    let same = match policy {
                        Policy::TopFractionPerClass(_) => kept.label == dropped.label,
                        Policy::BestOfItem(_) => kept.pair.item == dropped.pair.item,
                        Policy::TopFraction(_) | Policy::Threshold(_) => true,
                    };
                    let ahead = kept.score > dropped.score
                        || (kept.score == dropped.score && kept.pair < dropped.pair);
                    prop_assert!(!same || ahead);
                }
            }
        }

        #[test]
        fn a_higher_threshold_and_a_smaller_fraction_keep_a_subset(
            pairs in some_pairs(), bounds in (0.01f64..=1.0, 0.01f64..=1.0),
        ) {
            let (low, high) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            for (few, many) in [
                (Policy::Threshold(high), Policy::Threshold(low)),
                (Policy::TopFraction(low), Policy::TopFraction(high)),
                (Policy::TopFractionPerClass(low), Policy::TopFractionPerClass(high)),
            ] {
                let (few, many) = (select(few, &pairs), select(many, &pairs));
                let many = kept(&many);
                prop_assert!(kept(&few).iter().all(|pair| many.contains(pair)));
            }
        }

        #[test]
        fn the_random_control_drops_the_same_counts_whatever_the_scores(
            pairs in some_pairs(), policy in some_policy(), seed in any::<u64>(),
        ) {
            let selection = select(policy, &pairs);
            let control = selection.random_matched(&Key::new(seed));
            prop_assert_eq!(counts(&control), counts(&selection));
            prop_assert_eq!(selection.random_matched(&Key::new(seed)), control);
        }

        #[test]
        fn best_of_item_keeps_so_many_of_each_item(pairs in some_pairs(), count in 1usize..5) {
            let policy = Policy::BestOfItem(NonZeroUsize::new(count).unwrap());
            let selection = select(policy, &pairs);
            prop_assert_eq!(kept(&selection).len(), pairs.len() / 3 * count.min(3));
        }
    }

    #[test]
    fn of_equal_scores_the_lesser_id_is_kept_and_zeros_are_equal() {
        let pairs = [
            scored(1, 0, 0, 0.0),
            scored(0, 1, 0, -0.0),
            scored(0, 0, 0, -0.0),
            scored(2, 0, 0, -1.0),
        ];
        let selection = select(Policy::TopFraction(0.5), &pairs);
        assert_eq!(kept(&selection), [&pairs[2].pair, &pairs[1].pair]);
    }

    #[test]
    fn the_random_control_is_not_the_selection_and_depends_on_its_key() {
        let pairs: Vec<_> = (0..60).map(|item| scored(item, 0, item % 2, item as f64)).collect();
        let selection = select(Policy::TopFractionPerClass(0.5), &pairs);
        let control = |seed| selection.random_matched(&Key::new(seed));
        assert_ne!(kept(&control(1)), kept(&selection));
        assert_ne!(kept(&control(1)), kept(&control(2)));
    }

    #[test]
    fn a_dropped_pair_loses_what_on_drop_says() {
        assert_eq!(OnDrop::Pair.part(false), Part::Nothing);
        assert_eq!(OnDrop::GeneratedHalf.part(false), Part::RealHalf);
        assert_eq!(OnDrop::Pair.part(true), Part::Pair);
        assert_eq!(OnDrop::GeneratedHalf.part(true), Part::Pair);
    }

    #[test]
    fn what_cannot_be_chosen_from_is_refused() {
        let pairs = [scored(0, 0, 0, 1.0), scored(0, 0, 0, 2.0)];
        let error = |policy: Policy, score, pairs| policy.select(score, pairs).unwrap_err();
        let pair = pairs[0].pair.clone();
        assert_eq!(
            error(Policy::Threshold(0.0), Score::PmiGenerated, &pairs),
            PolicyError::DuplicatePair { pair: pair.clone() }
        );
        assert_eq!(
            error(Policy::Threshold(0.0), Score::Similarity, &pairs[..1]),
            PolicyError::NoScore { pair, score: Score::Similarity }
        );
        for fraction in [0.0, -0.5, 1.5] {
            assert_eq!(
                error(Policy::TopFraction(fraction), Score::PmiGenerated, &[]),
                PolicyError::Fraction(fraction)
            );
        }
        assert!(Policy::TopFractionPerClass(f64::NAN).check().is_err());
        assert!(Policy::Threshold(f64::INFINITY).check().is_err());
        assert!(select(Policy::TopFraction(0.5), &[]).decisions().is_empty());
    }

    #[test]
    fn policies_and_selections_are_written_and_read_as_they_were() {
        for (policy, text) in [
            (Policy::TopFraction(0.25), r#"{"top_fraction":0.25}"#),
            (Policy::TopFractionPerClass(0.5), r#"{"top_fraction_per_class":0.5}"#),
            (Policy::BestOfItem(NonZeroUsize::MIN), r#"{"best_of_item":1}"#),
            (Policy::Threshold(0.0), r#"{"threshold":0.0}"#),
        ] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), text);
            assert_eq!(serde_json::from_str::<Policy>(text).unwrap(), policy);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("selection.jsonl");
        let pairs = [scored(0, 0, 0, 0.1), scored(0, 1, 0, 0.2)];
        let selection = select(Policy::TopFraction(0.5), &pairs);
        selection.write(&path).unwrap();
        assert_eq!(Selection::read(&path).unwrap(), selection);
        std::fs::write(&path, "{\"pair\":1}\n").unwrap();
        let error = Selection::read(&path).unwrap_err().to_string();
        assert!(error.contains("selection.jsonl:1"), "{error}");
    }
}
