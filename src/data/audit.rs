//! What a report must say of a dataset before any model's figure: its size and its artefacts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Example, PictureSource, Relations, Split};

/// The facts of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The facts of each split, in the order given.
    pub splits: Vec<SplitAudit>,
    /// For each two splits, what stands in both.
    pub shared: Vec<Shared>,
}

/// The facts of one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitAudit {
    /// Which split.
    pub split: Split,
    /// Its rows.
    pub rows: usize,
    /// Rows of each relation, in the order of the label set; a relation without rows has 0.
    pub labels: Vec<(String, usize)>,
    /// Tokens of the shortest, the mean and the longest sentence.
    pub tokens: (usize, f64, usize),
    /// How many (sentence, head, tail) keys stand in more than one row.
    pub repeated_keys: usize,
    /// How many of them have more than one relation: no text decides between these.
    pub conflicting_keys: usize,
    /// The share of the `None` rows whose tail begins before their head; absent without such rows.
    pub tail_first_none: Option<f64>,
    /// The share of the other rows whose tail begins before their head; absent without such rows.
    pub tail_first_positive: Option<f64>,
    /// Different picture files; pictures in memory count each.
    pub pictures: usize,
    /// Picture files whose rows have more than one relation: no picture decides between these.
    pub pictures_of_several_relations: usize,
    /// Rows without a picture.
    pub rows_without_picture: usize,
}

/// What two splits have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shared {
    /// The one split.
    pub first: Split,
    /// The other.
    pub second: Split,
    /// Different sentences (compared token by token) that stand in both.
    pub sentences: usize,
    /// Picture files that stand in both.
    pub pictures: usize,
}

/// Counts everything once.
pub fn audit(relations: &Relations, splits: &[(Split, &[Example])]) -> Audit {
    let mut shared = Vec::new();
    for (index, &(first, left)) in splits.iter().enumerate() {
        for &(second, right) in &splits[index + 1..] {
            shared.push(Shared {
                first,
                second,
                sentences: sentences(left).intersection(&sentences(right)).count(),
                pictures: files(left).intersection(&files(right)).count(),
            });
        }
    }
    Audit {
        splits: splits
            .iter()
            .map(|&(split, examples)| audit_split(relations, split, examples))
            .collect(),
        shared,
    }
}

fn audit_split(relations: &Relations, split: Split, examples: &[Example]) -> SplitAudit {
    let mut labels: Vec<(String, usize)> =
        relations.names().iter().map(|name| (name.clone(), 0)).collect();
    let mut keys: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    let mut pictures: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    let mut in_memory = 0;
    let mut without = 0;
    for example in examples {
        if let Some(label) = labels.get_mut(example.label) {
            label.1 += 1;
        }
        let span = |span: &std::ops::Range<usize>| (span.start, span.end);
        let key = (&example.tokens, span(&example.head.span), span(&example.tail.span));
        keys.entry(key).or_default().push(example.label);
        match &example.picture {
            Some(PictureSource::File(path)) => {
                pictures.entry(path).or_default().insert(example.label);
            }
            Some(PictureSource::Pixels(_)) => in_memory += 1,
            None => without += 1,
        }
    }
    let repeated: Vec<_> = keys.values().filter(|labels| labels.len() > 1).collect();
    let lengths = || examples.iter().map(|example| example.tokens.len());
    SplitAudit {
        split,
        rows: examples.len(),
        labels,
        tokens: (
            lengths().min().unwrap_or(0),
            lengths().sum::<usize>() as f64 / examples.len().max(1) as f64,
            lengths().max().unwrap_or(0),
        ),
        repeated_keys: repeated.len(),
        conflicting_keys: repeated
            .iter()
            .filter(|labels| labels.iter().any(|label| *label != labels[0]))
            .count(),
        tail_first_none: tail_first(examples, |label| label == 0),
        tail_first_positive: tail_first(examples, |label| label != 0),
        pictures: pictures.len() + in_memory,
        pictures_of_several_relations: pictures.values().filter(|labels| labels.len() > 1).count(),
        rows_without_picture: without,
    }
}

fn tail_first(examples: &[Example], wanted: impl Fn(usize) -> bool) -> Option<f64> {
    let rows: Vec<_> = examples.iter().filter(|example| wanted(example.label)).collect();
    let first =
        rows.iter().filter(|example| example.tail.span.start < example.head.span.start).count();
    (!rows.is_empty()).then(|| first as f64 / rows.len() as f64)
}

fn sentences(examples: &[Example]) -> BTreeSet<&[String]> {
    examples.iter().map(|example| example.tokens.as_slice()).collect()
}

fn files(examples: &[Example]) -> BTreeSet<&std::path::Path> {
    examples
        .iter()
        .filter_map(|example| match &example.picture {
            Some(PictureSource::File(path)) => Some(path.as_path()),
            _ => None,
        })
        .collect()
}
