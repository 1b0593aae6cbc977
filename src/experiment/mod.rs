//! An experiment: a sequence of stages over seeds and arms, from the data to the report.
//!
//! Each stage writes one file of the run folder and is skipped where that file was made from the
//! same inputs, so an interrupted run goes on where it was.

mod classifier;
mod dataset;
mod date;
mod features;
pub mod folder;
mod gallery;
mod generate;
pub mod grid;
mod own_text;
mod pairs;
pub mod predictor;
mod published;
mod results;
mod stages;
pub mod student_files;
mod students;
mod teacher;
pub mod workers;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use burn::tensor::backend::Backend;

use crate::bundle::Bundle;
use crate::chain::ChainConfig;
use crate::config::experiment::{Arm, ExperimentConfig};
use crate::data::published::Preprocessor;
use crate::data::tokens::Tokenizer;
use crate::device::{DeviceChoice, Job};
use crate::train::Context;
use features::Features;
use folder::RunFolder;
use published::Published;
use stages::Spent;

/// The last stage to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The missing modality is made.
    Generate,
    /// Teachers score the pairs.
    Score,
    /// Pairs are kept or dropped.
    Select,
    /// Students are trained and asked about the test split.
    Train,
    /// Predictions are scored.
    Evaluate,
}

/// Everything that the stages share.
pub struct Lab<'a> {
    config: &'a ExperimentConfig,
    folder: &'a RunFolder,
    context: &'a Context,
    /// The weights of G and C.
    generators: Bundle,
    /// The weights that students and teachers start from.
    encoders: Bundle,
    /// The published folders that stand in for some of both.
    published: Published,
    /// The encoders' tokenizer.
    tokenizer: Tokenizer,
    /// What frozen encoders have said.
    features: Features,
    /// Jobs side by side.
    workers: usize,
    /// Height and width of every generated picture.
    picture_size: usize,
    /// How students and teachers see pictures.
    preprocessor: Preprocessor,
    /// The device's name.
    device: DeviceChoice,
}

impl Lab<'_> {
    fn has(&self, arms: &[Arm]) -> bool {
        self.config.arms.iter().any(|arm| arms.contains(arm))
    }

    /// Hashes of what generates.
    fn generator_hashes(&self) -> BTreeMap<String, String> {
        let mut hashes = self.generators.hashes();
        hashes.extend(self.published.generators());
        hashes
    }

    /// Hashes of what students and teachers start from.
    fn encoder_hashes(&self) -> BTreeMap<String, String> {
        let mut hashes = self.encoders.hashes();
        hashes.extend(self.published.encoders());
        hashes
    }

    fn needs_ccg(&self) -> bool {
        self.has(&[Arm::Ccg, Arm::CcgMi, Arm::CcgRandom])
    }

    fn needs_direct(&self) -> bool {
        self.has(&[Arm::Direct, Arm::DirectMatched, Arm::DirectMi])
    }

    /// Whether an arm's epochs are chosen on generated pairs: not where all know real data alone.
    fn validates_on_samples(&self) -> bool {
        self.config.arms.iter().any(|arm| !matches!(arm, Arm::RealUnimodal | Arm::RealPairs))
    }

    /// Whether an arm is tested on both halves of a pair.
    fn tests_on_pairs(&self) -> bool {
        self.config.arms.iter().any(|&arm| arm != Arm::RealUnimodal)
    }

    /// One round, one chain: what validation and generated test pictures are.
    fn single_chain(&self) -> ChainConfig {
        ChainConfig { chains: NonZeroUsize::MIN, ..self.config.chain.direct() }
    }
}

struct Experiment<'a> {
    lab: Lab<'a>,
    last: Option<Stage>,
}

impl Job for Experiment<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(mut self, device: B::Device) -> anyhow::Result<()> {
        let mut spent = Vec::new();
        let Lab { config, folder, context, .. } = self.lab;
        if let Some(own) =
            config.student.own_text.as_ref().filter(|_| self.last != Some(Stage::Generate))
        {
            let bundle = self.lab.encoders.clone();
            let (encoders, cost) =
                own_text::replace::<B>(bundle, own, config, folder, context, &device)?;
            self.lab.tokenizer = encoders.tokenizer()?;
            self.lab.encoders = encoders;
            spent.push(Spent {
                stage: "own text encoder".to_owned(),
                arm: None,
                seed: config.seeds[0],
                cost,
                items: Some(own.recipe.updates * own.recipe.batch),
            });
        }
        stages::run::<B>(&self.lab, self.last, spent, &device)
    }
}

/// Runs an experiment in the folder `out`, up to `last` or to the report.
///
/// # Errors
///
/// What any stage says; finished stages stay.
pub fn run(
    config: &ExperimentConfig,
    out: &Path,
    last: Option<Stage>,
    context: &Context,
) -> anyhow::Result<()> {
    let (device, note) = config.device.parse::<DeviceChoice>()?.settle()?;
    if let Some(note) = note {
        context.progress.line(note);
    }
    let folder = RunFolder::open(out)?;
    folder.write("config.toml", crate::config::to_toml(config)?.as_bytes())?;
    let generators = Bundle::open(&config.generators.weights)?;
    let encoders = Bundle::open(&config.student.encoders)?;
    let published = Published::open(config)?;
    let tokenizer = match &published.text {
        Some(folder) => Tokenizer::from_published(&folder.path)?.0,
        None => encoders.tokenizer()?,
    };
    let picture_size = match (config.generators.picture_size, published.picture_size()?) {
        (Some(size), _) | (None, Some(size)) => size,
        (None, None) => generators.picture_size()?,
    };
    let preprocessor = match &published.vision {
        Some(folder) => published::preprocessor(folder)?,
        None => Preprocessor::square(encoders.picture_size()?),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = match (config.workers, device) {
        (0, DeviceChoice::Cuda(_)) => 1,
        (0, _) => cores,
        (workers, _) => workers,
    };
    let lab = Lab {
        config,
        folder: &folder,
        context,
        tokenizer,
        features: Features::default(),
        picture_size,
        preprocessor,
        published,
        generators,
        encoders,
        workers,
        device,
    };
    device.run(Experiment { lab, last })??;
    drop(folder);
    grid::run(config, out, last, context)
}
