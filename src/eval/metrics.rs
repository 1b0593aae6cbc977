//! Precision, recall and F1 as relation extraction reports them: `None` (index 0) is no hit.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::{EvalError, check_length};

/// What a model says about one test item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The item.
    pub id: String,
    /// The gold label, an index into the relations; 0 is `None`.
    pub label: usize,
    /// One probability for each label.
    pub probabilities: Vec<f32>,
    /// A relation is predicted where its probability is at least this; without it, the most
    /// probable label is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

impl Prediction {
    /// The predicted label; of several equally probable ones the first.
    pub fn predicted(&self) -> usize {
        let first = usize::from(self.threshold.is_some()).min(self.probabilities.len());
        let mut best = first;
        for (class, probability) in self.probabilities.iter().enumerate().skip(first) {
            if *probability > self.probabilities[best] {
                best = class;
            }
        }
        match self.threshold {
            Some(least) if self.probabilities.get(best).is_none_or(|found| *found < least) => 0,
            _ => best,
        }
    }

    /// The gold label's log-probability in nats, with the probability raised to at least the
    /// resolution of an `f32`, as scikit-learn does, so that one sure mistake is not infinite.
    pub fn log_likelihood(&self) -> f64 {
        let probability = self.probabilities.get(self.label).copied().unwrap_or(0.0);
        f64::from(probability.clamp(f32::EPSILON, 1.0)).ln()
    }
}

/// The sufficient counts of micro-F1: of one item, or summed over many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Relations found: predicted as gold, and gold is not `None`.
    pub hits: u32,
    /// Relations claimed: predicted is not `None`.
    pub predicted: u32,
    /// Relations there are: gold is not `None`.
    pub gold: u32,
}

impl Counts {
    /// Of a gold and a predicted label.
    pub fn of(gold: usize, predicted: usize) -> Self {
        Self {
            hits: u32::from(gold != 0 && gold == predicted),
            predicted: u32::from(predicted != 0),
            gold: u32::from(gold != 0),
        }
    }

    /// One entry an item, in the order of the predictions; what the bootstrap resamples.
    pub fn per_item(predictions: &[Prediction]) -> Vec<Self> {
        predictions
            .iter()
            .map(|prediction| Self::of(prediction.label, prediction.predicted()))
            .collect()
    }

    /// The share of claimed relations that are right; 0 where none is claimed.
    pub fn precision(&self) -> f64 {
        ratio(self.hits, self.predicted)
    }

    /// The share of gold relations that are found; 0 where there are none.
    pub fn recall(&self) -> f64 {
        ratio(self.hits, self.gold)
    }

    /// The harmonic mean of precision and recall; 0 where nothing is claimed and nothing is there.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.hits, self.predicted + self.gold)
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            predicted: self.predicted + other.predicted,
            gold: self.gold + other.gold,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

fn ratio(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

/// One class against the rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The share of its predictions that are right.
    pub precision: f64,
    /// The share of its items that are found.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// How many items have it as gold label.
    pub support: usize,
}

/// The figures of a test split, all as fractions but the log-loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// How many items were scored.
    pub items: usize,
    /// Micro precision without `None`.
    pub precision: f64,
    /// Micro recall without `None`.
    pub recall: f64,
    /// Micro-F1 without `None`.
    pub micro_f1: f64,
    /// Mean F1 of the relations (without `None`) that occur in gold.
    pub macro_f1: f64,
    /// The share of all items, `None` among them, that are right.
    pub accuracy: f64,
    /// Mean negative log-probability of the gold label, in nats.
    pub log_loss: f64,
}

/// Everything that follows from a list of predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The figures over all items.
    pub scores: Scores,
    /// One entry a label, `None` first.
    pub per_class: Vec<ClassScore>,
    /// `confusion[gold][predicted]`, in items.
    pub confusion: Vec<Vec<usize>>,
}

/// Scores predictions.
///
/// # Errors
/// If there are none, or one has another number of classes than the first, a label outside them, or a
/// probability that is none.
pub fn evaluate(predictions: &[Prediction]) -> Result<Evaluation, EvalError> {
    let classes = check(predictions)?;
    let mut confusion = vec![vec![0; classes]; classes];
    for prediction in predictions {
        confusion[prediction.label][prediction.predicted()] += 1;
    }
    let per_class: Vec<ClassScore> =
        (0..classes).map(|class| class_score(&confusion, class)).collect();
    let occurring: Vec<f64> =
        per_class[1..].iter().filter(|class| class.support > 0).map(|class| class.f1).collect();
    let counts: Counts = Counts::per_item(predictions).into_iter().sum();
    let items = predictions.len();
    let right: usize = (0..classes).map(|class| confusion[class][class]).sum();
    let log_likelihood: f64 = predictions.iter().map(Prediction::log_likelihood).sum();
    Ok(Evaluation {
        scores: Scores {
            items,
            precision: counts.precision(),
            recall: counts.recall(),
            micro_f1: counts.f1(),
            macro_f1: occurring.iter().sum::<f64>() / occurring.len().max(1) as f64,
            accuracy: right as f64 / items as f64,
            log_loss: -log_likelihood / items as f64,
        },
        per_class,
        confusion,
    })
}

/// The counts of the items that the mask marks, such as those whose head stands before the tail.
///
/// # Errors
/// If the mask has another length than the predictions.
pub fn counts_where(predictions: &[Prediction], mask: &[bool]) -> Result<Counts, EvalError> {
    check_length("mask of the subset", mask.len(), predictions.len())?;
    Ok(Counts::per_item(predictions)
        .into_iter()
        .zip(mask)
        .filter_map(|(counts, marked)| marked.then_some(counts))
        .sum())
}

/// The counts of each cell, such as (sentence names a cue, picture shows one).
///
/// # Errors
/// If there is not exactly one cell a prediction.
pub fn counts_by_cell<K: Ord + Clone>(
    predictions: &[Prediction],
    cells: &[K],
) -> Result<BTreeMap<K, Counts>, EvalError> {
    check_length("cells of the items", cells.len(), predictions.len())?;
    let mut sums = BTreeMap::new();
    for (counts, cell) in Counts::per_item(predictions).into_iter().zip(cells) {
        let sum: &mut Counts = sums.entry(cell.clone()).or_default();
        *sum = *sum + counts;
    }
    Ok(sums)
}

/// The number of classes that all predictions agree on.
fn check(predictions: &[Prediction]) -> Result<usize, EvalError> {
    let classes = match predictions.first() {
        Some(first) if !first.probabilities.is_empty() => first.probabilities.len(),
        _ => {
            return Err(EvalError::Empty { what: "predictions" });
        }
    };
    for prediction in predictions {
        let id = || prediction.id.clone();
        if prediction.probabilities.len() != classes {
            return Err(EvalError::Classes {
                id: id(),
                found: prediction.probabilities.len(),
                expected: classes,
            });
        }
        if prediction.label >= classes {
            return Err(EvalError::Label { id: id(), label: prediction.label, classes });
        }
        // A softmax in f32 may end a rounding above one.
        let wrong =
            prediction.probabilities.iter().position(|value| !(0.0..=1.0 + 1e-4).contains(value));
        if let Some(class) = wrong {
            return Err(EvalError::Probability {
                id: id(),
                class,
                value: prediction.probabilities[class],
            });
        }
    }
    Ok(classes)
}

fn class_score(confusion: &[Vec<usize>], class: usize) -> ClassScore {
    let hits = confusion[class][class];
    let support: usize = confusion[class].iter().sum();
    let predicted: usize = confusion.iter().map(|row| row[class]).sum();
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    ClassScore {
        precision: share(hits, predicted),
        recall: share(hits, support),
        f1: share(2 * hits, predicted + support),
        support,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fixture() -> (Vec<Prediction>, Value) {
        let fixture: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
        let predictions = serde_json::from_value(fixture["predictions"].clone()).unwrap();
        (predictions, fixture["expected"].clone())
    }

    fn close(found: f64, expected: &Value, what: &str) {
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() < 1e-6, "{what}: {found} instead of {expected}");
    }

    fn prediction(label: usize, probabilities: &[f32]) -> Prediction {
        Prediction { id: "x".into(), label, probabilities: probabilities.to_vec(), threshold: None }
    }

    #[test]
    fn every_figure_is_the_one_of_scikit_learn() {
        let (predictions, expected) = fixture();
        let found = evaluate(&predictions).unwrap();
        close(found.scores.precision, &expected["micro"][0], "precision");
        close(found.scores.recall, &expected["micro"][1], "recall");
        close(found.scores.micro_f1, &expected["micro"][2], "micro-F1");
        close(found.scores.macro_f1, &expected["macro_f1"], "macro-F1");
        close(found.scores.accuracy, &expected["accuracy"], "accuracy");
        close(found.scores.log_loss, &expected["log_loss"], "log-loss");
        for (class, score) in found.per_class.iter().enumerate() {
            let expected = &expected["per_class"];
            close(score.precision, &expected[0][class], "class precision");
            close(score.recall, &expected[1][class], "class recall");
            close(score.f1, &expected[2][class], "class F1");
            assert_eq!(Some(score.support as u64), expected[3][class].as_u64());
        }
        let confusion: Vec<Vec<usize>> =
            serde_json::from_value(expected["confusion"].clone()).unwrap();
        assert_eq!(found.confusion, confusion);
    }

    #[test]
    fn the_fixture_holds_what_could_go_wrong() {
        // A relation that gold lacks, one that is never predicted, and a gold label of probability 0.
        let (predictions, _) = fixture();
        let found = evaluate(&predictions).unwrap();
        assert!(found.per_class[1..].iter().any(|class| class.support == 0));
        assert!((1..found.confusion.len()).any(|class| {
            found.per_class[class].support > 0 && found.confusion.iter().all(|row| row[class] == 0)
        }));
        assert!(predictions.iter().any(|p| p.probabilities[p.label] == 0.0));
    }

    #[test]
    fn none_is_no_hit() {
        let right_none = Counts::of(0, 0);
        assert_eq!(right_none, Counts::default());
        let false_alarm = Counts::of(0, 2);
        let miss = Counts::of(2, 0);
        let hit = Counts::of(2, 2);
        let total = right_none + false_alarm + miss + hit;
        assert_eq!((total.precision(), total.recall(), total.f1()), (0.5, 0.5, 0.5));
        assert_eq!(Counts::default().f1(), 0.0);
    }

    #[test]
    fn a_mask_and_cells_split_the_items_without_loss() {
        let (predictions, _) = fixture();
        let mask: Vec<bool> = (0..predictions.len()).map(|i| i % 3 == 0).collect();
        let inverse: Vec<bool> = mask.iter().map(|marked| !marked).collect();
        let total: Counts = Counts::per_item(&predictions).into_iter().sum();
        let marked = counts_where(&predictions, &mask).unwrap();
        let rest = counts_where(&predictions, &inverse).unwrap();
        assert_eq!(marked + rest, total);
        let cells = counts_by_cell(&predictions, &mask).unwrap();
        assert_eq!(cells[&true], marked);
        assert_eq!(cells[&false], rest);
        assert!(counts_where(&predictions, &mask[1..]).is_err());
    }

    #[test]
    fn what_is_no_prediction_is_refused_with_its_item() {
        let good = prediction(0, &[0.5, 0.5]);
        assert!(evaluate(&[]).is_err());
        for (bad, says) in [
            (prediction(0, &[1.0]), "expected 2"),
            (prediction(2, &[0.5, 0.5]), "label 2"),
            (prediction(0, &[0.5, f32::NAN]), "NaN of class 1"),
            (prediction(0, &[1.5, 0.0]), "1.5 of class 0"),
        ] {
            let error = evaluate(&[good.clone(), bad]).unwrap_err().to_string();
            assert!(error.contains("`x`") && error.contains(says), "{error}");
        }
    }
}
