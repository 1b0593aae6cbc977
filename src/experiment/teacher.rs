//! The stage that scores every generated pair by a teacher that has not seen its item.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::pairs::NamedPair;
use super::{Lab, classifier, dataset, workers};
use crate::chain::Modality;
use crate::data::pictures::{Fit, square};
use crate::data::resize::Filter;
use crate::data::{Example, Picture};
use crate::generators::Similarity;
use crate::select::calibration::log_probabilities;
use crate::select::folds::fit_and_calibration;
use crate::select::scores::label_prior;
use crate::select::{Calibration, Folds, ScoredPair, Scorer, TeacherOutputs, fit_temperature};
use crate::train::tasks::relations::Pair;

/// A scored set of pairs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scored {
    /// One entry a pair.
    pub pairs: Vec<ScoredPair>,
    /// Calibrated log q(y|x) of each pair's label, in the pairs' order: from the generated half, the
    /// pair, the real half.
    pub log_likelihoods: Vec<[f64; 3]>,
    /// The temperatures, a fold a line, for the same three views.
    pub temperatures: Vec<[f64; 3]>,
}

/// What a teacher is shown.
fn views(missing: Modality, pair: &Pair) -> [Pair; 3] {
    let (without_text, without_picture) = (pair.without_text(), pair.without_picture());
    match missing {
        Modality::Picture => [without_text, pair.clone(), without_picture],
        Modality::Text => [without_picture, pair.clone(), without_text],
    }
}

/// Trains one teacher a fold and scores the pairs that it has not seen.
pub fn score<B: Backend>(
    lab: &Lab<'_>,
    set: &str,
    seed: u64,
    items: &[Example],
    labels: usize,
    pairs: &[NamedPair],
    device: &B::Device,
) -> anyhow::Result<Scored> {
    let config = &lab.config.teacher;
    let key = dataset::seed_key(seed).with("teacher", set);
    let label_of: BTreeMap<&str, usize> =
        items.iter().map(|item| (item.id.as_str(), item.label)).collect();
    let folds = Folds::new(
        label_of.iter().map(|(&id, &label)| (id, label)),
        config.folds,
        &mut key.with("folds", 0).rng(),
    )?;
    let prior = label_prior(&items.iter().map(|item| item.label).collect::<Vec<_>>(), labels);
    let scorer = Scorer::new(&prior, key.with("random score", 0))?;
    let missing = lab.config.setting.missing();
    type Fold = (Vec<(usize, TeacherOutputs)>, [f64; 3]);
    let jobs: Vec<usize> = (0..folds.count()).collect();
    let done: Vec<Fold> = workers::run(lab.workers, jobs, |fold| -> anyhow::Result<Fold> {
        let key = key.with("fold", fold);
        let split = fit_and_calibration(
            folds.training(fold).map(|id| (id, label_of[id])),
            config.calibration,
            &mut key.with("calibration", 0).rng(),
        )?;
        let of = |ids: &[String]| -> Vec<Pair> {
            let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
            let own = pairs.iter().filter(|named| ids.contains(named.id.item.as_str()));
            own.map(|named| named.pair.clone()).collect()
        };
        let (fit, calibration) = (of(&split.fit), of(&split.calibration));
        let fresh = classifier::fresh::<B>(lab, labels, &key, device)?;
        let frozen = fresh.frozen;
        let name = format!("teacher {set}, seed {seed}, fold {}", fold + 1);
        let trained = classifier::fit(
            lab,
            &name,
            fresh,
            &config.recipe,
            (fit, calibration.clone()),
            config.modality_masking,
            &key,
        )?;
        let model = trained.model;
        let ask = |view: usize, pairs: &[&Pair]| {
            let shown = pairs.iter().map(|pair| views(missing, pair)[view].clone()).collect();
            classifier::ask(lab, &model, frozen, shown)
        };
        let calibration: Vec<&Pair> = calibration.iter().collect();
        let truth: Vec<usize> = calibration.iter().map(|pair| pair.label).collect();
        let mut temperatures = [1.0; 3];
        for (view, temperature) in temperatures.iter_mut().enumerate() {
            let fitted: Calibration = fit_temperature(&ask(view, &calibration), &truth)?;
            *temperature = fitted.temperature;
        }
        let held_out: Vec<usize> =
            (0..pairs.len()).filter(|&at| folds.of(&pairs[at].id.item) == Some(fold)).collect();
        let shown: Vec<&Pair> = held_out.iter().map(|&at| &pairs[at].pair).collect();
        let [generated, pair, real] = [0, 1, 2].map(|view| {
            let logits = ask(view, &shown);
            let calibrated = |logits: Vec<f32>| log_probabilities(&logits, temperatures[view]);
            logits.into_iter().map(calibrated).collect::<Vec<_>>()
        });
        let outputs = generated.into_iter().zip(pair).zip(real);
        let outputs =
            outputs.map(|((generated, pair), real)| TeacherOutputs { generated, pair, real });
        Ok((held_out.into_iter().zip(outputs).collect(), temperatures))
    })?;
    let temperatures = done.iter().map(|(_, temperatures)| *temperatures).collect();
    let mut outputs: BTreeMap<usize, TeacherOutputs> = BTreeMap::new();
    outputs.extend(done.into_iter().flat_map(|(outputs, _)| outputs));
    let similarity = similarities::<B>(lab, pairs, device)?;
    let mut scored = Scored { pairs: Vec::new(), log_likelihoods: Vec::new(), temperatures };
    for (at, named) in pairs.iter().enumerate() {
        let output = outputs.get(&at).with_context(|| format!("{}: no fold has it", named.id))?;
        let label = named.pair.label;
        let fold = folds.of(&named.id.item).unwrap_or_default();
        scored.pairs.push(scorer.score(named.id.clone(), label, fold, output, similarity[at])?);
        scored.log_likelihoods.push(
            [&output.generated, &output.pair, &output.real].map(|view| f64::from(view[label])),
        );
    }
    Ok(scored)
}

/// CLIP's cosine of each pair that has both halves.
fn similarities<'p, B: Backend>(
    lab: &Lab<'_>,
    pairs: &'p [NamedPair],
    device: &B::Device,
) -> anyhow::Result<Vec<Option<f64>>> {
    let clip = Similarity::<B>::load(&lab.generators, device)?;
    let mut all = vec![None; pairs.len()];
    let both = |at: &usize| pairs[*at].pair.text.is_some() && pairs[*at].pair.picture.is_some();
    let places: Vec<usize> = (0..pairs.len()).filter(both).collect();
    // It is the bundled CLIP that is asked, whatever draws and whoever learns.
    let side = lab.generators.picture_size()?;
    let small = |picture: &'p Picture| match (picture.width, picture.height) == (side, side) {
        true => Cow::Borrowed(picture),
        false => Cow::Owned(square(picture, side, Fit::Squash, Filter::Bicubic)),
    };
    let pictures: Vec<Cow<'p, Picture>> = places
        .iter()
        .filter_map(|&at| Some(small(&pairs[at].pair.picture.as_ref()?.picture)))
        .collect();
    let words = places.iter().map(|&at| &*pairs[at].words);
    let halves: Vec<(&[String], &Picture)> =
        words.zip(pictures.iter().map(|picture| &**picture)).collect();
    for (&at, cosine) in places.iter().zip(clip.cosines(&halves)?) {
        all[at] = Some(cosine);
    }
    Ok(all)
}
