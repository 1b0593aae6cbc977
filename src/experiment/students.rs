//! The stage that trains a student for each arm and asks it about the test split.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use mi2rage_models::weights::{self, Precision};
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use super::own_text::OWN;
use super::pairs::{Assembler, NamedPair, keep};
use super::{Lab, classifier, dataset};
use crate::chain::{PairId, Setting};
use crate::config::experiment::{Arm, Decision};
use crate::data::Example;
use crate::eval::{Prediction, f1_threshold};
use crate::select::OnDrop;
use crate::select::calibration::log_probabilities;
use crate::train::CurvePoint;
use crate::train::tasks::relations::Pair;

/// A trained student.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Student {
    /// Training pairs.
    pub pairs: usize,
    /// The chance of masking a half that it was trained with.
    pub modality_dropout: f64,
    /// Held-out F1 of the kept epoch.
    pub validation_f1: f64,
    /// Its learning curve.
    pub curve: Vec<CurvePoint>,
    /// The test split.
    pub predictions: Vec<Prediction>,
}

/// The pairs that the arms of one seed draw from.
pub struct Material<'a> {
    /// The examples.
    pub dataset: &'a Dataset,
    /// Reads samples and real halves.
    pub assembler: &'a Assembler<'a>,
    /// Pairs of `ccg`.
    pub ccg: &'a [NamedPair],
    /// Pairs of `direct-matched`; those of `direct` are among them.
    pub direct: &'a [NamedPair],
    /// What each selecting arm keeps.
    pub kept: &'a BTreeMap<Arm, BTreeMap<PairId, bool>>,
}

impl Material<'_> {
    /// What an arm trains on.
    pub fn train(&self, lab: &Lab<'_>, arm: Arm) -> anyhow::Result<Vec<Pair>> {
        let train = &self.dataset.train;
        let all = |pairs: &[NamedPair]| pairs.iter().map(|named| named.pair.clone()).collect();
        let selected = |pairs: &[NamedPair], on_drop: OnDrop| {
            let kept = self.kept.get(&arm);
            let part = |id: &PairId| {
                on_drop.part(kept.and_then(|kept| kept.get(id)).copied().unwrap_or(false))
            };
            let missing = lab.config.setting.missing();
            pairs.iter().filter_map(|named| keep(&named.pair, part(&named.id), missing)).collect()
        };
        Ok(match arm {
            Arm::RealUnimodal => self.real_halves(lab.config.setting, train)?,
            Arm::RealPairs => self.assembler.real(train)?,
            Arm::Direct => {
                let chains = lab.config.chain.chains.get();
                let own = self.direct.iter().filter(|named| named.id.chain < chains);
                own.map(|named| named.pair.clone()).collect()
            }
            Arm::DirectMatched => all(self.direct),
            Arm::Ccg => all(self.ccg),
            Arm::DirectMi => selected(self.direct, lab.config.select.on_drop),
            Arm::CcgMi | Arm::CcgRandom => selected(self.ccg, lab.config.select.on_drop),
        })
    }

    /// What an arm's epochs are chosen on: what it could have at training time.
    pub fn validation(&self, lab: &Lab<'_>, arm: Arm) -> anyhow::Result<Vec<Pair>> {
        let validation = &self.dataset.validation;
        match arm {
            Arm::RealUnimodal => self.real_halves(lab.config.setting, validation),
            Arm::RealPairs => self.assembler.real(validation),
            _ => {
                let one = lab.single_chain();
                let pairs = self.assembler.chains(validation, &one)?;
                Ok(pairs.into_iter().map(|named| named.pair).collect())
            }
        }
    }

    /// What an arm is tested on; the floor sees only the modality that it was trained on.
    pub fn test(&self, lab: &Lab<'_>, arm: Arm) -> anyhow::Result<Vec<Pair>> {
        match arm {
            Arm::RealUnimodal => self.real_halves(lab.config.setting, &self.dataset.test),
            _ => self.assembler.test(self.dataset),
        }
    }

    fn real_halves(
        &self,
        setting: Setting,
        items: &[crate::data::Example],
    ) -> anyhow::Result<Vec<Pair>> {
        match setting {
            Setting::MissingImage => self.assembler.texts(items),
            Setting::MissingText => self.assembler.pictures(items),
        }
    }
}

/// Trains one arm's student with one chance of masking, and keeps its weights.
pub fn train<B: Backend>(
    lab: &Lab<'_>,
    material: &Material<'_>,
    arm: Arm,
    seed: u64,
    modality_dropout: f64,
    device: &B::Device,
) -> anyhow::Result<Student> {
    // The same key for every arm: they differ in what they train on, not in what is drawn.
    let key = dataset::seed_key(seed).with("student", 0);
    let labels = material.dataset.relations.len();
    let fresh = classifier::fresh::<B>(lab, labels, &key, device)?;
    let (config, frozen) = (fresh.config.clone(), fresh.frozen);
    let pairs = material.train(lab, arm)?;
    let count = pairs.len();
    let trained = classifier::fit(
        lab,
        &format!("student {}, seed {seed}", arm.name()),
        fresh,
        &lab.config.student.recipe,
        (pairs, material.validation(lab, arm)?),
        modality_dropout,
        &key,
    )?;
    let validation_f1 = trained.kept().validation_f1;
    let student = &lab.config.student;
    let encoders = match (&student.own_text, &student.text_encoder) {
        (Some(_), _) => OWN,
        (None, Some(published)) => published,
        (None, None) => &student.encoders,
    };
    let metadata = BTreeMap::from([
        ("config".to_owned(), serde_json::to_string(&config)?),
        ("relations".to_owned(), serde_json::to_string(&material.dataset.relations)?),
        ("max_tokens".to_owned(), lab.config.student.max_tokens.to_string()),
        ("preprocessor".to_owned(), serde_json::to_string(&lab.preprocessor)?),
        ("encoders".to_owned(), encoders.to_owned()),
        ("mask_entities".to_owned(), lab.config.student.mask_entities.to_string()),
    ]);
    let bytes = weights::to_bytes(&trained.model, Precision::F32, &metadata)?;
    lab.folder.write(&weights_file(arm, seed, modality_dropout), &bytes)?;
    let dataset = material.dataset;
    let ask = |pairs: Vec<Pair>, examples: &[Example]| -> Vec<Prediction> {
        let logits = classifier::ask(lab, &trained.model, frozen, pairs);
        let answer = |(example, logits): (&Example, Vec<f32>)| Prediction {
            id: example.id.clone(),
            label: example.label,
            probabilities: log_probabilities(&logits, 1.0).into_iter().map(f32::exp).collect(),
            threshold: None,
        };
        examples.iter().zip(logits).map(answer).collect()
    };
    let threshold = match lab.config.student.decision {
        Decision::MostProbable => None,
        Decision::F1Threshold => {
            let pairs = material.validation(lab, arm)?;
            f1_threshold(&ask(pairs, &dataset.validation))
        }
    };
    let mut predictions = ask(material.test(lab, arm)?, &dataset.test);
    predictions.iter_mut().for_each(|one| one.threshold = threshold);
    Ok(Student { pairs: count, modality_dropout, validation_f1, curve: trained.curve, predictions })
}

/// Where a student's weights are, relative to the run folder.
pub fn weights_file(arm: Arm, seed: u64, modality_dropout: f64) -> String {
    format!("seed-{seed}/students/{}-dropout-{modality_dropout}.safetensors", arm.name())
}
