//! The stage that makes the missing modality, and what the world says of the outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::Context as _;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, real_picture};
use super::folder::FolderError;
use super::{Lab, workers};
use crate::chain::run::{Progress, Run};
use crate::chain::{ChainConfig, Fingerprint, Modality, Payload, SampleKey, Store, TextToImage};
use crate::data::Example;
use crate::generators::{CaptionOptions, CaptionWriter, DrawOptions, LatentDiffusion, Oracle};
use crate::report::RoundQuality;
use crate::world::detector::Detector;
use crate::world::lexicon::{cue_word, text_cue};

/// What the stage leaves beside the samples themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generated {
    /// Samples in the store.
    pub samples: usize,
    /// What the detector finds in each generated picture of the world: the relation, if any.
    pub picture_cues: Vec<(SampleKey, Option<usize>)>,
    /// Quality by round, where the truth is known.
    pub rounds: Vec<RoundQuality>,
}

/// The store of one seed's samples.
pub fn open_store(lab: &Lab<'_>, dataset: &Dataset, seed: u64) -> anyhow::Result<Store> {
    let generators = &lab.config.generators;
    let parts = BTreeMap::from([
        ("generators".to_owned(), super::folder::fingerprint(generators)),
        ("weights".to_owned(), super::folder::fingerprint(&lab.generator_hashes())),
        ("data".to_owned(), dataset.fingerprint()),
    ]);
    let fingerprint = Fingerprint::new(lab.config.setting, seed, &parts);
    Ok(Store::open(&lab.folder.path().join("samples"), fingerprint)?)
}

/// Which chains an experiment needs, for which items.
fn plans<'d>(lab: &Lab<'_>, dataset: &'d Dataset) -> Vec<(Vec<&'d Example>, ChainConfig)> {
    let chain = &lab.config.chain;
    let one = ChainConfig { chains: NonZeroUsize::MIN, ..chain.direct() };
    let train: Vec<&Example> = dataset.train.iter().collect();
    let mut plans = Vec::new();
    if lab.needs_ccg() {
        plans.push((train.clone(), chain.clone()));
    }
    if lab.needs_direct() {
        plans.push((train, chain.direct_matched()));
    }
    if lab.validates_on_samples() {
        plans.push((dataset.validation.iter().collect(), one.clone()));
    }
    if !dataset.tested_on_real_pictures && lab.tests_on_pairs() {
        plans.push((dataset.test.iter().collect(), one));
    }
    plans
}

/// Makes every sample that is not in the store yet.
pub fn generate<B: Backend>(
    lab: &Lab<'_>,
    dataset: &Dataset,
    seed: u64,
    device: &B::Device,
) -> anyhow::Result<Generated> {
    let plans = plans(lab, dataset);
    let total: usize = plans
        .iter()
        .map(|(items, chain)| {
            items.len() * chain.chains.get() * chain.steps(lab.config.setting).len()
        })
        .sum();
    let task = lab.context.progress.task(format!("generate, seed {seed}"), total as u64, "samples");
    // Every worker takes its own items, writes its own segment of the store and has its own models: of
    // published ones there is one copy, on all cores.
    let published = &lab.published;
    let large = published.pictures.is_some() || published.captions.is_some();
    let workers = if large { 1 } else { lab.workers };
    let shards: Vec<usize> = (0..workers).collect();
    workers::run(workers, shards, |shard| -> anyhow::Result<()> {
        let painter = painter::<B>(lab, dataset, device)?;
        let writer = writer::<B>(lab, device)?;
        let mut store = open_store(lab, dataset, seed)?;
        for (items, chain) in &plans {
            let own: Vec<Example> =
                items.iter().skip(shard).step_by(workers).map(|&item| item.clone()).collect();
            let run = Run {
                setting: lab.config.setting,
                config: chain,
                seed,
                text_to_image: painter.as_ref(),
                image_to_text: &writer,
                load_picture: &|example| {
                    real_picture(example, lab.picture_size).map_err(Into::into)
                },
                batch: NonZeroUsize::new(lab.config.generators.batch).unwrap_or(NonZeroUsize::MIN),
                interrupt: &lab.context.stop,
            };
            let mut seen = None;
            run.generate(&own, &mut store, &mut |Progress { done, held, .. }| {
                let before = seen.replace(done).unwrap_or_else(|| {
                    // What an earlier run has left.
                    task.leave_out(held as u64);
                    held
                });
                task.advance((done - before) as u64);
            })?;
        }
        Ok(())
    })?;
    task.finish();
    let store = open_store(lab, dataset, seed)?;
    let mut generated = Generated { samples: store.len(), ..Generated::default() };
    if dataset.world.is_some() {
        look(lab, dataset, &store, &mut generated)?;
    }
    Ok(generated)
}

/// G, as the configuration has it.
fn painter<B: Backend>(
    lab: &Lab<'_>,
    dataset: &Dataset,
    device: &B::Device,
) -> anyhow::Result<Box<dyn TextToImage>> {
    let config = &lab.config.generators;
    if let (Some(keep), Some(world)) = (config.oracle_fidelity, &dataset.world) {
        return Ok(Box::new(Oracle::new(world.clone(), keep)));
    }
    let options = DrawOptions {
        sampler: config.sampler,
        steps: config.steps,
        guidance: config.guidance,
        negative: Vec::new(),
    };
    let size = lab.picture_size;
    let model = match &lab.published.pictures {
        None => {
            LatentDiffusion::<B>::load(&lab.generators, options, size, config.precision, device)
        }
        Some(folder) => LatentDiffusion::load_published(
            &folder.path,
            &folder.hash,
            options,
            Some(size),
            config.precision,
            device,
        ),
    };
    Ok(Box::new(model.context("loading the diffusion model")?))
}

/// C, as the configuration has it.
fn writer<B: Backend>(lab: &Lab<'_>, device: &B::Device) -> anyhow::Result<CaptionWriter<B>> {
    let config = &lab.config.generators;
    let options = CaptionOptions {
        top_p: config.top_p,
        beams: 1,
        temperature: config.temperature,
        max_tokens: config.caption_tokens,
    };
    let writer = match &lab.published.captions {
        None => CaptionWriter::load(&lab.generators, options, config.precision, device),
        Some(folder) => CaptionWriter::load_published(
            &folder.path,
            &folder.hash,
            options,
            config.precision,
            device,
        ),
    };
    writer.context("loading the captioner")
}

/// What one item's samples add to the quality of a round.
#[derive(Default)]
struct Quality {
    samples: usize,
    prompts_with_cue: usize,
    drawn: usize,
    pictures_with_cue: usize,
    named: usize,
    forms_of_item: BTreeMap<String, BTreeSet<usize>>,
    forms_of_word: BTreeMap<(usize, usize), BTreeSet<usize>>,
}

/// Reads every sample of the training items by the world's own detector and lexicon.
fn look(
    lab: &Lab<'_>,
    dataset: &Dataset,
    store: &Store,
    generated: &mut Generated,
) -> anyhow::Result<()> {
    let detector = Arc::new(Detector::new());
    let setting = lab.config.setting;
    let task = lab.context.progress.task("look", dataset.train.len() as u64, "items");
    let shards: Vec<usize> = (0..lab.workers).collect();
    type Seen = Vec<(SampleKey, usize, Option<usize>)>;
    let seen: Vec<Seen> = workers::run(lab.workers, shards, |shard| -> anyhow::Result<Seen> {
        let mut seen = Vec::new();
        for item in dataset.train.iter().skip(shard).step_by(lab.workers) {
            for key in store.samples_of(&item.id, setting) {
                if let Payload::Picture(picture) = &store.read(key)?.payload {
                    let detection = detector.detect(picture);
                    seen.push((key.clone(), detection.form, detection.cue));
                }
            }
            task.advance(1);
        }
        Ok(seen)
    })?;
    task.finish();
    let seen: BTreeMap<SampleKey, (usize, Option<usize>)> =
        seen.into_iter().flatten().map(|(key, form, cue)| (key, (form, cue))).collect();
    let mut rounds: BTreeMap<usize, Quality> = BTreeMap::new();
    for item in &dataset.train {
        for key in store.samples_of(&item.id, setting) {
            // Longer chains than direct-matched's have their rounds; its own are all round 1.
            if key.chain >= lab.config.chain.chains.get() {
                continue;
            }
            let quality = rounds.entry(key.round).or_default();
            quality.samples += usize::from(key.modality == setting.missing());
            let parent = key.parent(setting);
            match key.modality {
                Modality::Picture => {
                    let words = match &parent {
                        None => item.tokens.clone(),
                        Some(parent) => match store.read(parent)?.payload {
                            Payload::Caption(caption) => caption.tokens,
                            Payload::Picture(_) => continue,
                        },
                    };
                    let Some(&(form, cue)) = seen.get(key) else { continue };
                    if let Some((relation, word)) = cue_word(&words) {
                        quality.prompts_with_cue += 1;
                        quality.drawn += usize::from(cue == Some(relation));
                        if cue == Some(relation) {
                            let forms = quality.forms_of_word.entry((relation, word)).or_default();
                            forms.insert(form);
                        }
                    }
                    quality.forms_of_item.entry(item.id.clone()).or_default().insert(form);
                }
                Modality::Text => {
                    let Payload::Caption(caption) = store.read(key)?.payload else { continue };
                    let shown = match &parent {
                        Some(parent) => seen.get(parent).and_then(|&(_, cue)| cue),
                        None => item.truth.as_ref().and_then(|truth| truth.picture_cue),
                    };
                    if let Some(shown) = shown {
                        quality.pictures_with_cue += 1;
                        quality.named += usize::from(text_cue(&caption.tokens) == Some(shown));
                    }
                }
            }
        }
    }
    generated.picture_cues = seen.into_iter().map(|(key, (_, cue))| (key, cue)).collect();
    generated.rounds = cumulative(rounds);
    Ok(())
}

/// Forms are counted up to each round: what a chain adds shows as growth.
fn cumulative(rounds: BTreeMap<usize, Quality>) -> Vec<RoundQuality> {
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let mut items: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut words: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
    let mut table = Vec::new();
    for (round, quality) in rounds {
        for (item, forms) in quality.forms_of_item {
            items.entry(item).or_default().extend(forms);
        }
        for (word, forms) in quality.forms_of_word {
            words.entry(word).or_default().extend(forms);
        }
        let mean = |count: usize, of: usize| (of > 0).then(|| count as f64 / of as f64);
        table.push(RoundQuality {
            round,
            samples: quality.samples,
            fidelity: share(quality.drawn, quality.prompts_with_cue),
            forms_per_item: mean(items.values().map(BTreeSet::len).sum(), items.len()),
            forms_per_word: mean(words.values().map(BTreeSet::len).sum(), words.len()),
            caption_naming: share(quality.named, quality.pictures_with_cue),
        });
    }
    table
}

/// Writes the samples' index for readers outside this program.
pub fn write_index(lab: &Lab<'_>, seed: u64, generated: &Generated) -> Result<(), FolderError> {
    let lines = generated
        .picture_cues
        .iter()
        .map(|(key, cue)| serde_json::json!({ "sample": key, "detected": cue }));
    lab.folder.write_lines(&format!("seed-{seed}/pictures.jsonl"), lines)?;
    Ok(())
}
