//! Cross-fitting: folds of items, so that no pair is scored by a teacher that has seen its item.
//!
//! A teacher that trained on a pair has memorised it, and so finds every label informative. All
//! pairs of an item therefore stand in one fold, and folds are stratified by label.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// Items that cannot be divided as asked.
#[derive(Debug, Error, PartialEq)]
pub enum FoldError {
    /// Fewer than two folds: some item would be scored by a teacher that saw it.
    #[error("{folds} folds: cross-fitting takes at least 2")]
    TooFewFolds {
        /// The folds asked for.
        folds: usize,
    },
    /// A fold would be empty.
    #[error("{items} items cannot fill {folds} folds")]
    TooFewItems {
        /// The items given.
        items: usize,
        /// The folds asked for.
        folds: usize,
    },
    /// The same id twice.
    #[error("two items have the id {id:?}")]
    DuplicateItem {
        /// The id.
        id: String,
    },
    /// Not a fraction between 0 and 1.
    #[error("calibration fraction {fraction}: expected more than 0 and less than 1")]
    Fraction {
        /// What was given.
        fraction: f64,
    },
    /// No item is left for calibration when each label keeps one to train on.
    #[error("{items} items leave none for calibration at a fraction of {fraction}")]
    NoCalibration {
        /// The items given.
        items: usize,
        /// The fraction asked for.
        fraction: f64,
    },
}

/// The fold of every item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folds {
    fold_of: BTreeMap<String, usize>,
    folds: usize,
}

impl Folds {
    /// Divides items, given by id and label, into folds whose sizes, and whose counts of each
    /// label, differ by at most one. The order of the items does not matter.
    ///
    /// # Errors
    /// If there are fewer than two folds, fewer items than folds, or an id twice.
    pub fn new<'a>(
        items: impl IntoIterator<Item = (&'a str, usize)>,
        folds: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, FoldError> {
        if folds < 2 {
            return Err(FoldError::TooFewFolds { folds });
        }
        let by_label = shuffled_by_label(items, rng)?;
        let items = by_label.values().map(Vec::len).sum();
        if items < folds {
            return Err(FoldError::TooFewItems { items, folds });
        }
        // Dealt in one round over all labels, so that small labels do not all begin in fold 0.
        let fold_of = by_label
            .into_values()
            .flatten()
            .enumerate()
            .map(|(place, id)| (id.to_owned(), place % folds))
            .collect();
        Ok(Self { fold_of, folds })
    }

    /// How many folds there are.
    pub fn count(&self) -> usize {
        self.folds
    }

    /// The fold of an item, if it is one of those divided.
    pub fn of(&self, item: &str) -> Option<usize> {
        self.fold_of.get(item).copied()
    }

    /// The items that the teacher of a fold scores, in the order of their ids.
    pub fn held_out(&self, fold: usize) -> impl Iterator<Item = &str> {
        self.items().filter(move |&(_, at)| at == fold).map(|(id, _)| id)
    }

    /// The items that the teacher of a fold may train on, in the order of their ids.
    pub fn training(&self, fold: usize) -> impl Iterator<Item = &str> {
        self.items().filter(move |&(_, at)| at != fold).map(|(id, _)| id)
    }

    fn items(&self) -> impl Iterator<Item = (&str, usize)> {
        self.fold_of.iter().map(|(id, &fold)| (id.as_str(), fold))
    }
}

/// A fold's training items, divided once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitCalibration {
    /// What the teacher is fitted to, in the order of the ids.
    pub fit: Vec<String>,
    /// What its temperature is fitted to, in the order of the ids.
    pub calibration: Vec<String>,
}

/// Sets a fraction of the items aside for calibration, stratified by label. Every label keeps at
/// least one item to be fitted to. The order of the items does not matter.
///
/// # Errors
/// If the fraction is not between 0 and 1, an id stands twice, or nothing would be set aside.
pub fn fit_and_calibration<'a>(
    items: impl IntoIterator<Item = (&'a str, usize)>,
    fraction: f64,
    rng: &mut ChaCha8Rng,
) -> Result<FitCalibration, FoldError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(FoldError::Fraction { fraction });
    }
    let by_label = shuffled_by_label(items, rng)?;
    let (mut fit, mut calibration) = (Vec::new(), Vec::new());
    let mut seen = 0;
    for ids in by_label.into_values() {
        // What rounding took from one label is made up for in the next.
        seen += ids.len();
        let wanted = (fraction * seen as f64).round() as usize;
        let aside = wanted.saturating_sub(calibration.len()).min(ids.len() - 1);
        let (set_aside, kept) = ids.split_at(aside);
        calibration.extend(set_aside.iter().map(|&id| id.to_owned()));
        fit.extend(kept.iter().map(|&id| id.to_owned()));
    }
    if calibration.is_empty() {
        return Err(FoldError::NoCalibration { items: seen, fraction });
    }
    fit.sort();
    calibration.sort();
    Ok(FitCalibration { fit, calibration })
}

/// Ids by label, sorted before they are shuffled, so that the order given does not matter.
fn shuffled_by_label<'a>(
    items: impl IntoIterator<Item = (&'a str, usize)>,
    rng: &mut ChaCha8Rng,
) -> Result<BTreeMap<usize, Vec<&'a str>>, FoldError> {
    let mut label_of = BTreeMap::new();
    for (id, label) in items {
        if label_of.insert(id, label).is_some() {
            return Err(FoldError::DuplicateItem { id: id.to_owned() });
        }
    }
    let mut by_label: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (id, label) in label_of {
        by_label.entry(label).or_default().push(id);
    }
    for ids in by_label.values_mut() {
        ids.shuffle(rng);
    }
    Ok(by_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;
    use proptest::prelude::*;

    fn named(labels: &[usize]) -> Vec<(String, usize)> {
        labels.iter().enumerate().map(|(number, &label)| (format!("item{number}"), label)).collect()
    }

    fn view(items: &[(String, usize)]) -> impl Iterator<Item = (&str, usize)> {
        items.iter().map(|(id, label)| (id.as_str(), *label))
    }

    proptest! {
        #[test]
        fn folds_are_even_in_all_and_in_every_label_whatever_the_order(
            labels in prop::collection::vec(0usize..5, 6..80),
            folds in 2usize..6,
            seed in any::<u64>(),
        ) {
            let mut items = named(&labels);
            let key = Key::new(seed);
            let divided = Folds::new(view(&items), folds, &mut key.rng()).unwrap();
            for label in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
                let mut counts = vec![0; folds];
                for (id, of) in &items {
                    if label.is_none_or(|label| label == *of) {
                        counts[divided.of(id).unwrap()] += 1;
                    }
                }
                let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
                prop_assert!(spread <= 1, "{:?}", counts);
            }
            for fold in 0..folds {
                let held_out = divided.held_out(fold).count();
                prop_assert_eq!(held_out + divided.training(fold).count(), items.len());
                prop_assert!(divided.training(fold).all(|id| divided.of(id) != Some(fold)));
            }
            items.reverse();
            prop_assert_eq!(Folds::new(view(&items), folds, &mut key.rng()).unwrap(), divided);
        }

        #[test]
        fn calibration_takes_its_share_and_leaves_each_label_an_item(
            labels in prop::collection::vec(0usize..5, 20..80),
            fraction in 0.1f64..0.9,
            seed in any::<u64>(),
        ) {
            let mut items = named(&labels);
            let key = Key::new(seed);
            let split = fit_and_calibration(view(&items), fraction, &mut key.rng()).unwrap();
            let mut all = [split.fit.clone(), split.calibration.clone()].concat();
            all.sort();
            let mut ids: Vec<_> = items.iter().map(|(id, _)| id.clone()).collect();
            ids.sort();
            prop_assert_eq!(all, ids);
            for label in &labels {
                let fitted = items.iter().any(|(id, of)| of == label && split.fit.contains(id));
                prop_assert!(fitted);
            }
            // Off by rounding, and by the labels too small to give their share.
            let wanted = fraction * items.len() as f64;
            prop_assert!((split.calibration.len() as f64 - wanted).abs() <= 5.5);
            items.reverse();
            let again = fit_and_calibration(view(&items), fraction, &mut key.rng()).unwrap();
            prop_assert_eq!(again, split);
        }
    }

    #[test]
    fn another_key_divides_otherwise() {
        let items = named(&[0; 40]);
        let one = Folds::new(view(&items), 2, &mut Key::new(1).rng()).unwrap();
        let two = Folds::new(view(&items), 2, &mut Key::new(2).rng()).unwrap();
        assert_ne!(one, two);
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        let mut rng = Key::new(0).rng();
        let mut folds = |items: &[(&str, usize)], count| {
            Folds::new(items.iter().copied(), count, &mut rng).unwrap_err()
        };
        assert_eq!(folds(&[("a", 0)], 1), FoldError::TooFewFolds { folds: 1 });
        assert_eq!(folds(&[("a", 0)], 2), FoldError::TooFewItems { items: 1, folds: 2 });
        assert_eq!(folds(&[("a", 0), ("a", 1)], 2), FoldError::DuplicateItem { id: "a".into() });
        let mut split =
            |fraction| fit_and_calibration([("a", 0), ("b", 1)], fraction, &mut rng).unwrap_err();
        assert_eq!(split(1.0), FoldError::Fraction { fraction: 1.0 });
        assert_eq!(split(0.5), FoldError::NoCalibration { items: 2, fraction: 0.5 });
    }
}
