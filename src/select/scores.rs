//! How much a pair says about its label, by the teacher's probabilities.
//!
//! For any q, I(X;Y) >= H(Y) + E\[log q(y|x)\] (Barber and Agakov 2003), so a pair's pointwise term
//! log q(y|x) - log p(y) is its share of what the teacher can prove. All scores are in nats, higher
//! is better.

use std::collections::BTreeMap;
use std::path::Path;

use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::records::{self, RecordError};
use crate::chain::PairId;
use crate::keyed::Key;

/// A rating of pairs; x is a pair, y its label, g its generated half, r its real half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// log q(y|g) - log p(y): does the generated half itself carry the label.
    PmiGenerated,
    /// log q(y|x) - log p(y): does the pair carry it.
    PmiPair,
    /// log q(y|x) - log q(y|r): what the generated half adds.
    ConditionalPmi,
    /// log q(y|x): the plain form.
    CrossEntropy,
    /// Uniform in [0, 1], a function of key and pair id: a control.
    Random,
    /// Cosine of the embeddings of text and picture: a control.
    Similarity,
}

impl Score {
    /// Every score.
    pub const ALL: [Self; 6] = [
        Self::PmiGenerated,
        Self::PmiPair,
        Self::ConditionalPmi,
        Self::CrossEntropy,
        Self::Random,
        Self::Similarity,
    ];
}

/// Calibrated log-probabilities of all labels, by a teacher that has not seen the item.
///
/// In a pair of two generated halves, the half of the modality that is real in training takes the
/// real half's part.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherOutputs {
    /// Given the generated half alone.
    pub generated: Vec<f32>,
    /// Given both halves.
    pub pair: Vec<f32>,
    /// Given the real half alone.
    pub real: Vec<f32>,
}

/// A pair that cannot be scored.
#[derive(Debug, Error, PartialEq)]
pub enum ScoreError {
    /// A label's prior is no probability.
    #[error("prior of label {label} is {value}: expected 0 to 1")]
    Prior {
        /// The label.
        label: usize,
        /// Its prior.
        value: f64,
    },
    /// A label that the prior says never occurs.
    #[error("{pair}: label {label} has no prior probability")]
    Label {
        /// The pair.
        pair: PairId,
        /// Its label.
        label: usize,
    },
    /// Outputs over another label set.
    #[error("{pair}: the teacher gives {found} log-probabilities for {view}, expected {expected}")]
    Length {
        /// The pair.
        pair: PairId,
        /// Which of the teacher's views.
        view: &'static str,
        /// How many it gave.
        found: usize,
        /// How many labels there are.
        expected: usize,
    },
    /// A score that is infinite or not a number.
    #[error("{pair}: the score {score:?} is {value}")]
    NotFinite {
        /// The pair.
        pair: PairId,
        /// The score.
        score: Score,
        /// Its value.
        value: f64,
    },
}

/// A pair and all its scores: a line of `scores.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredPair {
    /// The pair.
    pub pair: PairId,
    /// The label of its item.
    pub label: usize,
    /// The fold whose teacher scored it.
    pub fold: usize,
    /// Its scores, to a billionth; similarity only where there was one.
    pub scores: BTreeMap<Score, f64>,
}

impl ScoredPair {
    /// Writes `scores.jsonl`.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing stands under its name that did not before.
    pub fn write_all(path: &Path, pairs: &[Self]) -> Result<(), RecordError> {
        records::write(path, pairs)
    }

    /// Reads `scores.jsonl`.
    ///
    /// # Errors
    /// If the file cannot be read or a line is no scored pair.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, RecordError> {
        records::read(path)
    }
}

/// The share of each of `count` labels, p(y). Labels of `count` and above are left out.
pub fn label_prior(labels: &[usize], count: usize) -> Vec<f64> {
    let mut prior = vec![0.0; count];
    for &label in labels {
        if let Some(share) = prior.get_mut(label) {
            *share += 1.0 / labels.len() as f64;
        }
    }
    prior
}

/// Scores pairs against one prior.
pub struct Scorer {
    log_prior: Vec<f64>,
    random: Key,
}

impl Scorer {
    /// A scorer with the prior p(y) of each label, and the key of [`Score::Random`].
    ///
    /// # Errors
    /// If a prior is no probability. Zero is one, but its label cannot be scored.
    pub fn new(prior: &[f64], random: Key) -> Result<Self, ScoreError> {
        if let Some((label, &value)) =
            prior.iter().enumerate().find(|(_, share)| !(0.0..=1.0 + 1e-9).contains(*share))
        {
            return Err(ScoreError::Prior { label, value });
        }
        Ok(Self { log_prior: prior.iter().map(|share| share.ln()).collect(), random })
    }

    /// All scores of a pair.
    ///
    /// # Errors
    /// If the outputs are over another number of labels, the label is none of them or has no
    /// prior, or a score is not finite.
    pub fn score(
        &self,
        pair: PairId,
        label: usize,
        fold: usize,
        outputs: &TeacherOutputs,
        similarity: Option<f64>,
    ) -> Result<ScoredPair, ScoreError> {
        let Some(&log_prior) = self.log_prior.get(label).filter(|prior| prior.is_finite()) else {
            return Err(ScoreError::Label { pair, label });
        };
        let mut log_q = [0.0; 3];
        let views = [
            ("the generated half", &outputs.generated),
            ("the pair", &outputs.pair),
            ("the real half", &outputs.real),
        ];
        for (log_q, (view, output)) in log_q.iter_mut().zip(views) {
            if output.len() != self.log_prior.len() {
                return Err(ScoreError::Length {
                    pair,
                    view,
                    found: output.len(),
                    expected: self.log_prior.len(),
                });
            }
            *log_q = f64::from(output[label]);
        }
        let [generated, both, real] = log_q;
        let mut scores = BTreeMap::from([
            (Score::PmiGenerated, to_a_billionth(generated - log_prior)),
            (Score::PmiPair, to_a_billionth(both - log_prior)),
            (Score::ConditionalPmi, to_a_billionth(both - real)),
            (Score::CrossEntropy, to_a_billionth(both)),
            (Score::Random, uniform(&self.random, &pair)),
        ]);
        scores.extend(similarity.map(|cosine| (Score::Similarity, to_a_billionth(cosine))));
        if let Some((&score, &value)) = scores.iter().find(|(_, value)| !value.is_finite()) {
            return Err(ScoreError::NotFinite { pair, score, value });
        }
        Ok(ScoredPair { pair, label, fold, scores })
    }
}

/// Drops the digits that a JSON reader may get wrong: serde_json reads some decimals of 17 digits as
/// a neighbour, so that a selection from `scores.jsonl` might not be that from memory.
fn to_a_billionth(score: f64) -> f64 {
    (score * 1e9).round() / 1e9
}

/// A number in [0, 1] that depends on key and pair alone.
pub(super) fn uniform(key: &Key, pair: &PairId) -> f64 {
    let number = key
        .with("item", &pair.item)
        .with("chain", pair.chain)
        .with("round", pair.round)
        .with("kind", format!("{:?}", pair.kind))
        .rng()
        .random();
    to_a_billionth(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::PairKind;
    use proptest::prelude::*;

    fn pair(item: &str) -> PairId {
        PairId { item: item.into(), chain: 1, round: 2, kind: PairKind::Anchor }
    }

    fn outputs() -> TeacherOutputs {
        let logs = |of: [f32; 3]| of.map(f32::ln).to_vec();
        TeacherOutputs {
            generated: logs([0.5, 0.25, 0.25]),
            pair: logs([0.1, 0.8, 0.1]),
            real: logs([0.3, 0.4, 0.3]),
        }
    }

    fn scorer() -> Scorer {
        Scorer::new(&[0.5, 0.2, 0.3], Key::new(1)).unwrap()
    }

    #[test]
    fn scores_are_those_computed_by_hand() {
        let scored = scorer().score(pair("a"), 1, 3, &outputs(), Some(0.25)).unwrap();
        let expected = [
            (Score::PmiGenerated, (0.25f64 / 0.2).ln()), // 0.2231
            (Score::PmiPair, 4f64.ln()),                 // 1.3863
            (Score::ConditionalPmi, 2f64.ln()),          // 0.6931
            (Score::CrossEntropy, 0.8f64.ln()),          // -0.2231
            (Score::Similarity, 0.25),
        ];
        for (score, value) in expected {
            assert!((scored.scores[&score] - value).abs() < 1e-6, "{score:?}");
        }
        assert!((0.0..1.0).contains(&scored.scores[&Score::Random]));
        assert_eq!(scored.scores.len(), Score::ALL.len());
        assert_eq!((scored.label, scored.fold), (1, 3));
    }

    #[test]
    fn the_random_score_depends_on_key_and_pair_alone() {
        let random = |key, item, similarity| {
            let scorer = Scorer::new(&[0.5, 0.2, 0.3], Key::new(key)).unwrap();
            let scored = scorer.score(pair(item), 0, 0, &outputs(), similarity);
            scored.unwrap().scores[&Score::Random]
        };
        assert_eq!(random(1, "a", None), random(1, "a", Some(0.5)));
        assert_ne!(random(1, "a", None), random(2, "a", None));
        assert_ne!(random(1, "a", None), random(1, "b", None));
    }

    #[test]
    fn what_cannot_be_scored_is_refused_and_named() {
        assert_eq!(
            Scorer::new(&[0.5, -0.5], Key::new(1)).err(),
            Some(ScoreError::Prior { label: 1, value: -0.5 })
        );
        let no_prior = Scorer::new(&[1.0, 0.0, 0.0], Key::new(1)).unwrap();
        for (scorer, label) in [(no_prior, 1), (scorer(), 3)] {
            assert_eq!(
                scorer.score(pair("a"), label, 0, &outputs(), None),
                Err(ScoreError::Label { pair: pair("a"), label })
            );
        }
        let mut short = outputs();
        short.real.pop();
        let error = scorer().score(pair("a"), 1, 0, &short, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "anchor pair of round 2, chain 1, item a: \
             the teacher gives 2 log-probabilities for the real half, expected 3"
        );
        let mut infinite = outputs();
        infinite.generated[1] = f32::NEG_INFINITY;
        assert!(matches!(
            scorer().score(pair("a"), 1, 0, &infinite, None),
            Err(ScoreError::NotFinite { score: Score::PmiGenerated, .. })
        ));
    }

    #[test]
    fn the_prior_is_the_share_of_each_label() {
        assert_eq!(label_prior(&[0, 0, 2, 0], 4), [0.75, 0.0, 0.25, 0.0]);
        assert_eq!(label_prior(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn scores_are_written_and_read_as_they_were_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        let pairs =
            ["a", "b"].map(|item| scorer().score(pair(item), 1, 0, &outputs(), None).unwrap());
        ScoredPair::write_all(&path, &pairs).unwrap();
        assert_eq!(ScoredPair::read_all(&path).unwrap(), pairs);
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = r#"{"pair":{"item":"a","chain":1,"round":2,"kind":"anchor"},"label":1,"fold":0,"scores":{"pmi_generated":"#;
        assert!(text.starts_with(expected), "{text}");

        std::fs::write(&path, text + "{}\n").unwrap();
        let error = ScoredPair::read_all(&path).unwrap_err();
        assert!(matches!(error, RecordError::Line { line: 3, .. }));
        let nowhere = folder.path().join("none").join("scores.jsonl");
        let error = ScoredPair::write_all(&nowhere, &pairs).unwrap_err();
        assert!(error.to_string().contains("scores.jsonl"), "{error}");
    }

    proptest! {
        #[test]
        fn a_score_read_back_is_the_same_to_the_last_bit(score in -200f64..200.0) {
            let score = to_a_billionth(score);
            let text = serde_json::to_string(&score).unwrap();
            prop_assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), score.to_bits());
        }
    }

    #[test]
    fn scores_are_named_as_in_the_method() {
        let names = Score::ALL.map(|score| serde_json::to_value(score).unwrap());
        assert_eq!(
            names,
            [
                "pmi_generated",
                "pmi_pair",
                "conditional_pmi",
                "cross_entropy",
                "random",
                "similarity"
            ]
        );
    }
}
