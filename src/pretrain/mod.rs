//! Training of the bundled weights on the world's web corpus: one part a file, each resumable.
//!
//! Nothing here sees a relation label: the generators learn from captioned pictures, BERT from the
//! captions alone, ViT from which scene a picture shows.

mod corpus;
mod parts;
pub mod scores;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Context as _;
use burn::tensor::backend::Backend;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::config::experiment::GeneratorsConfig;
use crate::config::pretrain::PretrainConfig;
use crate::device::{DeviceChoice, Job};
use crate::experiment::folder::{RunFolder, fingerprint};
use crate::experiment::workers;
use crate::train::{Context, CurvePoint};
use corpus::Corpus;

/// What is trained by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The vocabulary.
    Tokenizer,
    /// The autoencoder of pictures.
    Autoencoder,
    /// The vision encoder.
    Vision,
    /// CLIP's text encoder on the vision encoder's states; needs the vision encoder.
    Clip,
    /// The diffusion model; needs the autoencoder and CLIP.
    Diffusion,
    /// The captioner; needs the vision encoder.
    Captioner,
    /// The text encoder.
    Text,
}

impl Part {
    /// In the order of training: what others need comes first, then the longest.
    pub const ALL: [Part; 7] = [
        Part::Tokenizer,
        Part::Vision,
        Part::Autoencoder,
        Part::Clip,
        Part::Diffusion,
        Part::Captioner,
        Part::Text,
    ];

    /// The parts whose files this one reads.
    fn needs(self) -> &'static [Part] {
        match self {
            Part::Tokenizer | Part::Autoencoder | Part::Vision => &[],
            Part::Text => &[Part::Tokenizer],
            Part::Clip | Part::Captioner => &[Part::Tokenizer, Part::Vision],
            Part::Diffusion => &[Part::Tokenizer, Part::Autoencoder, Part::Clip],
        }
    }

    /// The file that the part makes.
    pub fn file(self) -> &'static str {
        match self {
            Part::Tokenizer => bundle::TOKENIZER,
            Part::Autoencoder => bundle::AUTOENCODER,
            Part::Vision => bundle::VISION,
            Part::Text => bundle::TEXT,
            Part::Clip => bundle::CLIP,
            Part::Captioner => bundle::CAPTIONER,
            Part::Diffusion => bundle::DIFFUSION,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned());
        out.write_str(&name.unwrap_or_default())
    }
}

/// How a part came about; kept beside the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Held-out values by name.
    pub scores: BTreeMap<String, f64>,
    /// One point an epoch.
    pub curve: Vec<CurvePoint>,
    /// The hash of the written file.
    pub hash: String,
}

/// What a part's inputs are hashed from: its own section and what it stands on.
fn inputs(config: &PretrainConfig, part: Part) -> String {
    let section = match part {
        Part::Tokenizer => serde_json::json!(config.vocabulary),
        Part::Autoencoder => serde_json::json!(config.autoencoder),
        Part::Vision => serde_json::json!(config.vision),
        Part::Text => serde_json::json!([config.text, config.vocabulary]),
        Part::Captioner => serde_json::json!([config.captioner, config.vision, config.vocabulary]),
        Part::Clip => serde_json::json!([config.clip, config.vision, config.vocabulary]),
        Part::Diffusion => serde_json::json!([
            config.diffusion,
            config.autoencoder,
            config.clip,
            config.vision,
            config.vocabulary
        ]),
    };
    fingerprint(&(part, section, config.seed, &config.world, config.train, config.held_out))
}

struct Pretraining<'a> {
    config: &'a PretrainConfig,
    parts: &'a [Part],
    folder: &'a RunFolder,
    /// Parts that are trained side by side.
    workers: usize,
    context: &'a Context,
}

impl Pretraining<'_> {
    fn part<'c, B: Backend>(
        &self,
        part: Part,
        corpus: impl FnOnce() -> &'c Corpus,
        device: &B::Device,
    ) -> anyhow::Result<()> {
        let stage = format!("pretrain-{part}");
        let inputs = inputs(self.config, part);
        let written = self.folder.path().join(part.file()).exists();
        if written && self.folder.finished::<Training>(&stage, &inputs).is_some() {
            self.context.progress.line(format!("{part}: finished already"));
            return Ok(());
        }
        // A finished record without its file is no finished part.
        self.folder.forget(&stage)?;
        let (training, cost) = self.folder.stage(&stage, &inputs, || {
            parts::train::<B>(part, self.config, corpus(), self.folder, self.context, device)
        })?;
        let scores: Vec<String> =
            training.scores.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        self.context.progress.line(format!("{part}: {:.0} s, {}", cost.seconds, scores.join(", ")));
        Ok(())
    }
}

impl Job for Pretraining<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<()> {
        let corpus = OnceLock::new();
        let corpus = || corpus.get_or_init(|| Corpus::make(self.config, self.context));
        let needs = |part: Part| part.needs().to_vec();
        workers::run_in_turn(self.workers, self.parts, needs, |part| {
            self.part::<B>(part, corpus, &device)
        })?;
        // With every part there, what they can do together is tried once.
        let out = self.folder.path();
        if Part::ALL.iter().all(|part| out.join(part.file()).exists()) {
            let bundle = crate::bundle::Bundle::folder(out)?;
            let options = GeneratorsConfig::default();
            let inputs =
                fingerprint(&(bundle.hashes(), self.config.seed, &self.config.world, options));
            let (scores, _) = self.folder.stage("pretrain-scores", &inputs, || {
                let seed = self.config.seed;
                scores::try_out::<B>(out, &corpus().held_out, seed, self.context, &device)
            })?;
            self.folder.write("scores.json", &serde_json::to_vec_pretty(&scores)?)?;
            self.context.progress.line(format!(
                "drawn {:.1} % of the prompted cues, named {:.1} % of the shown ones (sampled: \
                 {:.1} %)",
                100.0 * scores.drawn,
                100.0 * scores.named_greedy,
                100.0 * scores.named_sampled
            ));
        }
        Ok(())
    }
}

/// Trains the parts that are not finished and writes them to `out`.
///
/// # Errors
///
/// An interrupt, a training that diverges, a folder that cannot be written.
pub fn run(
    config: &PretrainConfig,
    parts: &[Part],
    out: &Path,
    device: DeviceChoice,
    workers: usize,
    context: &Context,
) -> anyhow::Result<()> {
    let folder = RunFolder::open(out)?;
    device
        .run(Pretraining { config, parts, folder: &folder, workers, context })?
        .with_context(|| format!("pretraining into {}", out.display()))
}
