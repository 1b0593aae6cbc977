//! Chains to look at, and what the world knows of their samples.

use std::collections::BTreeMap;

use super::Lab;
use super::dataset::real_picture;
use super::generate::open_store;
use super::stages::SeedOutcome;
use crate::chain::{Modality, PairId, PairKind, Payload, SampleKey, Setting, Store};
use crate::config::experiment::Arm;
use crate::data::Picture;
use crate::report::{ShownChain, ShownPicture, ShownRound};
use crate::select::Score;
use crate::world::lexicon::text_cue;

/// Answers whether a generated sample carries a label's cue.
pub struct Truth<'a> {
    pictures: BTreeMap<&'a SampleKey, Option<usize>>,
    store: Option<Store>,
    known: bool,
}

impl<'a> Truth<'a> {
    /// The truth of one seed's samples; unknown outside the world.
    pub fn of(lab: &Lab<'_>, outcome: &'a SeedOutcome) -> Self {
        let known = outcome.dataset.world.is_some();
        let pictures = outcome.generated.picture_cues.iter().map(|(key, cue)| (key, *cue));
        let needs_store = known && lab.config.setting == Setting::MissingText;
        let store = needs_store.then(|| open_store(lab, &outcome.dataset, outcome.seed).ok());
        Self { pictures: pictures.collect(), store: store.flatten(), known }
    }

    /// Whether the sample shows or names relation `label`; `None` where nobody knows.
    pub fn carries(&self, sample: &SampleKey, label: usize) -> anyhow::Result<Option<bool>> {
        if !self.known {
            return Ok(None);
        }
        Ok(match (sample.modality, &self.store) {
            (Modality::Picture, _) => self.pictures.get(sample).map(|cue| *cue == Some(label)),
            (Modality::Text, Some(store)) => match store.read(sample)?.payload {
                Payload::Caption(caption) => Some(text_cue(&caption.tokens) == Some(label)),
                Payload::Picture(_) => None,
            },
            (Modality::Text, None) => None,
        })
    }
}

/// The first chains of the first items, positives before the others.
pub fn chains(lab: &Lab<'_>, outcome: &SeedOutcome) -> anyhow::Result<Vec<ShownChain>> {
    if !lab.needs_ccg() {
        return Ok(Vec::new());
    }
    let dataset = &outcome.dataset;
    let store = open_store(lab, dataset, outcome.seed)?;
    let truth = Truth::of(lab, outcome);
    let setting = lab.config.setting;
    let count = lab.config.evaluation.gallery;
    let with_relation = dataset.train.iter().filter(|item| item.label != 0);
    let without = dataset.train.iter().filter(|item| item.label == 0);
    let items = with_relation.take(count - count / 4).chain(without.take(count / 4));
    let scores: BTreeMap<&PairId, f64> = outcome
        .scored
        .get(&Arm::Ccg)
        .map(|scored| {
            let score = |pair: &'_ crate::select::ScoredPair| {
                pair.scores.get(&Score::PmiGenerated).copied()
            };
            scored.pairs.iter().filter_map(|one| Some((&one.pair, score(one)?))).collect()
        })
        .unwrap_or_default();
    let kept = outcome.kept.get(&Arm::CcgMi);
    let mut shown = Vec::new();
    for item in items {
        let mut rounds: BTreeMap<usize, ShownRound> = BTreeMap::new();
        for key in store.samples_of(&item.id, setting).into_iter().filter(|key| key.chain == 0) {
            if key.round > lab.config.chain.rounds.get() {
                continue;
            }
            let round = rounds.entry(key.round).or_insert_with(|| {
                let pair = PairId {
                    item: item.id.clone(),
                    chain: 0,
                    round: key.round,
                    kind: PairKind::Anchor,
                };
                ShownRound {
                    picture: None,
                    text: None,
                    score: scores.get(&pair).copied(),
                    kept: kept.and_then(|kept| kept.get(&pair)).copied(),
                    carries_cue: None,
                }
            });
            if key.modality == setting.missing() && item.label != 0 {
                round.carries_cue = truth.carries(key, item.label)?;
            }
            match store.read(key)?.payload {
                Payload::Picture(picture) => round.picture = Some(show(&picture)?),
                Payload::Caption(caption) => round.text = Some(caption.tokens.join(" ")),
            }
        }
        let real = match setting {
            Setting::MissingImage => None,
            Setting::MissingText => Some(show(&*real_picture(item, lab.picture_size)?)?),
        };
        shown.push(ShownChain {
            item: item.id.clone(),
            label: dataset.relations.names()[item.label].clone(),
            head: item.head.name.clone(),
            tail: item.tail.name.clone(),
            text: (setting == Setting::MissingImage).then(|| item.tokens.join(" ")),
            picture: real,
            rounds: rounds.into_values().collect(),
        });
    }
    Ok(shown)
}

fn show(picture: &Picture) -> anyhow::Result<ShownPicture> {
    Ok(ShownPicture::from_png(&crate::data::pictures::to_png(picture, &[])?))
}
