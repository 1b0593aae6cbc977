//! The stages of an experiment, seed by seed.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::dataset::Dataset;
use super::folder::{Cost, fingerprint};
use super::generate::{self, Generated};
use super::pairs::{Assembler, NamedPair};
use super::students::{self, Material, Student};
use super::teacher::{self, Scored};
use super::{Lab, Stage, dataset, results, workers};
use crate::chain::PairId;
use crate::config::experiment::{Arm, StudentConfig};
use crate::select::Selection;

/// A stage's name in the report, whose it is, and what it took.
pub struct Spent {
    /// The stage.
    pub stage: String,
    /// Whose.
    pub arm: Option<String>,
    /// Of which seed.
    pub seed: u64,
    /// What it took.
    pub cost: Cost,
    /// What it handled, where that is worth a rate.
    pub items: Option<usize>,
}

/// Everything that one seed brought.
pub struct SeedOutcome {
    /// The seed.
    pub seed: u64,
    /// Its examples.
    pub dataset: Dataset,
    /// What the generation found.
    pub generated: Generated,
    /// Teachers' scores by the arm whose pairs they are (`ccg`, `direct-matched`).
    pub scored: BTreeMap<Arm, Scored>,
    /// What each selecting arm keeps.
    pub kept: BTreeMap<Arm, BTreeMap<PairId, bool>>,
    /// The students.
    pub students: BTreeMap<Arm, Student>,
    /// The generated half of each pair.
    pub pairs: BTreeMap<Arm, Vec<(PairId, crate::chain::SampleKey, usize)>>,
}

/// Runs every seed, then the report.
pub fn run<B: Backend>(
    lab: &Lab<'_>,
    last: Option<Stage>,
    mut spent: Vec<Spent>,
    device: &B::Device,
) -> anyhow::Result<()> {
    let mut outcomes: Vec<SeedOutcome> = Vec::new();
    let mut dropouts: BTreeMap<Arm, f64> = BTreeMap::new();
    for &seed in &lab.config.seeds {
        let outcome = one_seed::<B>(lab, seed, last, &mut dropouts, &mut spent, device)?;
        outcomes.push(outcome);
        lab.features.end_seed();
    }
    if last.is_some_and(|last| last < Stage::Evaluate) {
        lab.context.progress.line(format!("finished: {}", lab.folder.path().display()));
        return Ok(());
    }
    results::write(lab, &outcomes, &spent, last)
}

/// Runs the stages of one seed.
fn one_seed<B: Backend>(
    lab: &Lab<'_>,
    seed: u64,
    last: Option<Stage>,
    dropouts: &mut BTreeMap<Arm, f64>,
    spent: &mut Vec<Spent>,
    device: &B::Device,
) -> anyhow::Result<SeedOutcome> {
    let config = lab.config;
    let dataset = Dataset::load(config, seed)?;
    let base = fingerprint(&(
        dataset.fingerprint(),
        seed,
        config.setting,
        &config.chain,
        &config.generators,
        lab.generator_hashes(),
    ));
    let (generated, cost) = lab.folder.stage(
        &format!("seed-{seed}/generate"),
        &fingerprint(&(
            &base,
            [lab.needs_ccg(), lab.needs_direct()],
            [lab.validates_on_samples(), lab.tests_on_pairs()],
        )),
        || generate::generate::<B>(lab, &dataset, seed, device),
    )?;
    generate::write_index(lab, seed, &generated)?;
    spent.push(Spent {
        stage: "generate".to_owned(),
        arm: None,
        seed,
        cost,
        items: Some(generated.samples),
    });
    let mut outcome = SeedOutcome {
        seed,
        dataset,
        generated,
        scored: BTreeMap::new(),
        kept: BTreeMap::new(),
        students: BTreeMap::new(),
        pairs: BTreeMap::new(),
    };
    if last == Some(Stage::Generate) {
        return Ok(outcome);
    }
    let store = generate::open_store(lab, &outcome.dataset, seed)?;
    let assembler = Assembler::new(lab, &store);
    let train = &outcome.dataset.train;
    let ccg = if lab.needs_ccg() { assembler.chains(train, &config.chain)? } else { Vec::new() };
    let direct = if lab.needs_direct() {
        assembler.chains(train, &config.chain.direct_matched())?
    } else {
        Vec::new()
    };
    let sets = [
        (Arm::Ccg, &ccg, lab.has(&[Arm::CcgMi, Arm::CcgRandom])),
        (Arm::DirectMatched, &direct, lab.has(&[Arm::DirectMi])),
    ];
    for (set, pairs, wanted) in sets {
        outcome.pairs.insert(set, identities(pairs));
        if !wanted {
            continue;
        }
        // A teacher is built and fed as a student is, but trained by its own recipe.
        let built = StudentConfig {
            modality_dropout: Vec::new(),
            recipe: config.teacher.recipe.clone(),
            ..config.student.clone()
        };
        let inputs = (&base, &config.teacher, &built, lab.encoder_hashes(), set);
        let inputs = fingerprint(&inputs);
        let labels = outcome.dataset.relations.len();
        let (scored, cost) =
            lab.folder.stage(&format!("seed-{seed}/score-{}", set.name()), &inputs, || {
                teacher::score::<B>(lab, set.name(), seed, train, labels, pairs, device)
            })?;
        lab.folder
            .write_lines(&format!("seed-{seed}/scores-{}.jsonl", set.name()), &scored.pairs)?;
        spent.push(Spent {
            stage: "score".to_owned(),
            arm: Some(set.name().to_owned()),
            seed,
            cost,
            items: Some(scored.pairs.len()),
        });
        outcome.scored.insert(set, scored);
    }
    if last == Some(Stage::Score) {
        return Ok(outcome);
    }
    select(lab, &mut outcome)?;
    if last == Some(Stage::Select) {
        return Ok(outcome);
    }
    let material = Material {
        dataset: &outcome.dataset,
        assembler: &assembler,
        ccg: &ccg,
        direct: &direct,
        kept: &outcome.kept,
    };
    outcome.students = train_students::<B>(lab, seed, &base, &material, dropouts, spent, device)?;
    Ok(outcome)
}

fn identities(pairs: &[NamedPair]) -> Vec<(PairId, crate::chain::SampleKey, usize)> {
    let of = |named: &NamedPair| (named.id.clone(), named.generated.clone(), named.pair.label);
    pairs.iter().map(of).collect()
}

/// What the selecting arms keep.
fn select(lab: &Lab<'_>, outcome: &mut SeedOutcome) -> anyhow::Result<()> {
    let config = &lab.config.select;
    let random = dataset::seed_key(outcome.seed).with("random control", 0);
    for (arm, set) in
        [(Arm::CcgMi, Arm::Ccg), (Arm::CcgRandom, Arm::Ccg), (Arm::DirectMi, Arm::DirectMatched)]
    {
        let Some(scored) = outcome.scored.get(&set).filter(|_| lab.has(&[arm])) else { continue };
        let mut selection: Selection = config.policy.select(config.score, &scored.pairs)?;
        if arm == Arm::CcgRandom {
            selection = selection.random_matched(&random);
        }
        let name = format!("seed-{}/selection-{}.jsonl", outcome.seed, arm.name());
        lab.folder.write_lines(&name, selection.decisions())?;
        let kept = selection.decisions().iter().map(|one| (one.pair.clone(), one.keep)).collect();
        outcome.kept.insert(arm, kept);
    }
    Ok(())
}

/// What a student's stage is hashed from, beside what all stages of the seed share.
#[derive(Serialize)]
struct StudentInputs<'a> {
    base: &'a str,
    student: &'a StudentConfig,
    teacher: Option<&'a crate::config::experiment::TeacherConfig>,
    select: Option<&'a crate::config::experiment::SelectConfig>,
    encoders: BTreeMap<String, String>,
    arm: Arm,
    modality_dropout: String,
}

fn train_students<B: Backend>(
    lab: &Lab<'_>,
    seed: u64,
    base: &str,
    material: &Material<'_>,
    dropouts: &mut BTreeMap<Arm, f64>,
    spent: &mut Vec<Spent>,
    device: &B::Device,
) -> anyhow::Result<BTreeMap<Arm, Student>> {
    let config = lab.config;
    let mut jobs = Vec::new();
    for &arm in &config.arms {
        if arm == Arm::RealPairs && !material.dataset.has_real_pairs {
            continue;
        }
        // A single modality has nothing to mask; elsewhere the first seed chooses for all.
        let candidates = match dropouts.get(&arm) {
            Some(&chosen) => vec![chosen],
            None if arm == Arm::RealUnimodal => vec![0.0],
            None => config.student.modality_dropout.clone(),
        };
        jobs.extend(candidates.into_iter().map(|dropout| (arm, dropout)));
    }
    let done = workers::run(lab.workers, jobs, |(arm, dropout)| -> anyhow::Result<_> {
        let selects = matches!(arm, Arm::DirectMi | Arm::CcgMi | Arm::CcgRandom);
        let inputs = StudentInputs {
            base,
            student: &config.student,
            teacher: selects.then_some(&config.teacher),
            select: selects.then_some(&config.select),
            encoders: lab.encoder_hashes(),
            arm,
            modality_dropout: dropout.to_string(),
        };
        let name = format!("seed-{seed}/student-{}-dropout-{dropout}", arm.name());
        let (student, cost) = lab.folder.stage(&name, &fingerprint(&inputs), || {
            students::train::<B>(lab, material, arm, seed, dropout, device)
        })?;
        Ok((arm, student, cost))
    })?;
    let mut best: BTreeMap<Arm, Student> = BTreeMap::new();
    for (arm, student, cost) in done {
        spent.push(Spent {
            stage: "train".to_owned(),
            arm: Some(arm.name().to_owned()),
            seed,
            cost,
            items: Some(config.student.recipe.updates * config.student.recipe.batch),
        });
        if best.get(&arm).is_none_or(|other| student.validation_f1 > other.validation_f1) {
            best.insert(arm, student);
        }
    }
    for (&arm, student) in &best {
        dropouts.entry(arm).or_insert(student.modality_dropout);
        let lines = &student.predictions;
        let name = format!("seed-{seed}/predictions-{}.jsonl", arm.name());
        lab.folder.write_lines(&name, lines)?;
    }
    Ok(best)
}
