//! The configuration of an experiment: what a TOML file of `configs/` says, and what it must say.

mod data;
mod problem;

use std::path::PathBuf;

use mi2rage_models::bert::BertConfig;
use mi2rage_models::precision::Precision;
use serde::{Deserialize, Serialize};

use crate::chain::{ChainConfig, Setting};
use crate::select::{OnDrop, Policy, Score};
use crate::train::Recipe;
use crate::world::WorldConfig;

/// One way of making training pairs, see section "The arms of an experiment" of the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The real modality alone: the floor.
    RealUnimodal,
    /// One round, n chains, no selection: the paper's baseline.
    Direct,
    /// One round, n * k chains: as many samples as `ccg`.
    DirectMatched,
    /// k rounds, n chains, no selection.
    Ccg,
    /// `direct-matched`, selected.
    DirectMi,
    /// `ccg`, selected: the method.
    CcgMi,
    /// `ccg` with the same counts per class dropped at random.
    CcgRandom,
    /// Real text with real pictures: what the method has to beat.
    RealPairs,
}

impl Arm {
    /// Every arm, in the order of the report.
    pub const ALL: [Arm; 8] = [
        Arm::RealUnimodal,
        Arm::Direct,
        Arm::DirectMatched,
        Arm::Ccg,
        Arm::DirectMi,
        Arm::CcgMi,
        Arm::CcgRandom,
        Arm::RealPairs,
    ];

    /// The name in configs, files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Arm::RealUnimodal => "real-unimodal",
            Arm::Direct => "direct",
            Arm::DirectMatched => "direct-matched",
            Arm::Ccg => "ccg",
            Arm::DirectMi => "direct-mi",
            Arm::CcgMi => "ccg-mi",
            Arm::CcgRandom => "ccg-random",
            Arm::RealPairs => "real-pairs",
        }
    }

    /// What the arm trains on, in words.
    pub fn trains_on(self) -> &'static str {
        match self {
            Arm::RealUnimodal => "the real modality alone",
            Arm::Direct => "one round of generation, n chains",
            Arm::DirectMatched => "one round of generation, as many samples as ccg",
            Arm::Ccg => "k rounds of generation, n chains",
            Arm::DirectMi => "direct-matched, selected",
            Arm::CcgMi => "ccg, selected",
            Arm::CcgRandom => "ccg, the same numbers dropped at random",
            Arm::RealPairs => "real pairs of sentence and picture",
        }
    }
}

/// Where the examples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", try_from = "data::Keys")]
pub enum DataConfig {
    /// The embedded world.
    World {
        /// Training posts of each seed.
        train: usize,
        /// Validation posts of each seed.
        validation: usize,
        /// Test posts, the same for every seed.
        test: usize,
    },
    /// MNRE-2 in its authors' format.
    Mnre {
        /// The folder of the text files.
        folder: PathBuf,
        /// The folder of the real pictures, if there is one. Without it every picture, those of
        /// the test split included, is generated from the sentence.
        pictures: Option<PathBuf>,
        /// Use only the first rows of each split.
        limit: Option<usize>,
    },
    /// Own data: `train`, `validation` and `test` folders, each with a `metadata.jsonl`.
    Jsonl {
        /// The folder of the three.
        folder: PathBuf,
        /// Use only the first rows of each split.
        limit: Option<usize>,
    },
}

/// Who makes the missing modality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneratorsConfig {
    /// `bundled`, or a folder as `mi2rage pretrain` writes it.
    pub weights: String,
    /// A published Stable Diffusion that draws in place of those: a folder as downloaded from Hugging
    /// Face, or hf:OWNER/NAME@REVISION.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pictures: Option<String>,
    /// A published BLIP that describes in place of those: a folder, or hf:OWNER/NAME@REVISION.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captions: Option<String>,
    /// Width and height of a published model's pictures; by default those of its training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture_size: Option<usize>,
    /// The type of the generators' weights and states. Training is in 32 bits.
    pub precision: Precision,
    /// Draw pictures by the world's own renderer with this fidelity (the chance that it draws the
    /// cue which the sentence names) in place of the diffusion model. Only for the world.
    pub oracle_fidelity: Option<f64>,
    /// The sampler of the diffusion model.
    pub sampler: mi2rage_models::diffusion::SamplerKind,
    /// Its steps.
    pub steps: usize,
    /// The scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// Pictures a batch.
    pub batch: usize,
    /// Nucleus sampling of captions: the probability mass that is kept. 0 is greedy.
    pub top_p: f64,
    /// The temperature of nucleus sampling.
    pub temperature: f64,
    /// The longest caption in tokens, the prompt's included.
    pub caption_tokens: usize,
}

impl Default for GeneratorsConfig {
    fn default() -> Self {
        Self {
            weights: "bundled".to_owned(),
            pictures: None,
            captions: None,
            picture_size: None,
            precision: Precision::F32,
            oracle_fidelity: None,
            sampler: mi2rage_models::diffusion::SamplerKind::DpmSolverPlusPlus2M,
            steps: 8,
            guidance: 3.0,
            batch: 32,
            top_p: 0.9,
            temperature: 1.0,
            caption_tokens: 32,
        }
    }
}

/// The teacher that scores pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Folds of the cross-fitting.
    pub folds: usize,
    /// The part of a fold's training items that calibrates the temperature.
    pub calibration: f64,
    /// The chance that a training pair shows the teacher only one of its halves.
    pub modality_masking: f64,
    /// How each fold's teacher is trained.
    pub recipe: Recipe,
}

/// What is kept of the generated pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectConfig {
    /// The score that ranks pairs.
    pub score: Score,
    /// Which scores are kept.
    pub policy: Policy,
    /// What a dropped pair loses.
    pub on_drop: OnDrop,
}

/// A part of the classifier that can be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoder {
    /// BERT.
    Text,
    /// ViT.
    Vision,
}

/// How a label follows from the probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The most probable label.
    #[default]
    MostProbable,
    /// The most probable relation where it reaches the threshold with the highest micro-F1 on the
    /// arm's validation pairs; the ceiling is that of such a rule.
    F1Threshold,
}

/// The classifier that is trained in each arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// `bundled`, or a folder as `mi2rage pretrain` writes it.
    #[serde(default = "bundled")]
    pub encoders: String,
    /// A published BERT in place of the bundle's text encoder: a folder as downloaded from Hugging
    /// Face, or hf:OWNER/NAME@REVISION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<String>,
    /// A published ViT in place of the bundle's vision encoder: a folder, or hf:OWNER/NAME@REVISION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision_encoder: Option<String>,
    /// A text encoder of the data's own in place of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_text: Option<OwnTextConfig>,
    /// Chances of masking one half of a training pair; with several, each arm takes the one that
    /// validates best on the first seed.
    pub modality_dropout: Vec<f64>,
    /// Dropout inside the classifier's head; encoders keep the one that they came with.
    #[serde(default)]
    pub dropout: f64,
    /// Encoders that are not trained further.
    #[serde(default)]
    pub freeze: Vec<Encoder>,
    /// Show the entities' tokens as unknown names (entity masking, Zhang et al. 2017): a small
    /// encoder would learn the names by heart.
    #[serde(default)]
    pub mask_entities: bool,
    /// The chance of hiding a token of a training sentence, markers aside.
    #[serde(default)]
    pub token_dropout: f64,
    /// Whether sentences of about the same length are trained on together, so that little is padded.
    #[serde(default)]
    pub group_by_length: bool,
    /// How a label follows from the probabilities.
    #[serde(default)]
    pub decision: Decision,
    /// The longest sentence in tokens.
    pub max_tokens: usize,
    /// How it is trained; the same number of updates for every arm.
    pub recipe: Recipe,
}

/// A text encoder whose vocabulary is counted on the training sentences and which is pretrained on
/// them by masked language modelling: for data whose words the bundled encoder has never seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnTextConfig {
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// The encoder's sizes; `vocab_size` is set by the vocabulary.
    pub model: BertConfig,
    /// How it is pretrained.
    pub recipe: Recipe,
}

fn bundled() -> String {
    "bundled".to_owned()
}

/// The statistics of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Bootstrap resamples.
    pub resamples: usize,
    /// The level of every interval.
    pub level: f64,
    /// Chains shown in the report.
    pub gallery: usize,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { resamples: 2000, level: 0.95, gallery: 8 }
    }
}

/// A whole experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// Names the run folder.
    pub name: String,
    /// What it shows, in a sentence.
    pub purpose: String,
    /// Which modality is missing in training.
    pub setting: Setting,
    /// One repetition a seed, each with its own draw of data, chain noise and initialisation.
    pub seeds: Vec<u64>,
    /// The arms, by default all.
    #[serde(default = "all_arms")]
    pub arms: Vec<Arm>,
    /// `auto`, `flex`, `ndarray`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// Trainings and generations side by side, each on its share of the cores. 0: one a core on a
    /// CPU, one on CUDA.
    #[serde(default)]
    pub workers: usize,
    /// Where the examples come from.
    pub data: DataConfig,
    /// The embedded world, where that is the source.
    #[serde(default)]
    pub world: WorldConfig,
    /// Who makes the missing modality.
    #[serde(default)]
    pub generators: GeneratorsConfig,
    /// The chains.
    pub chain: ChainConfig,
    /// The teacher.
    pub teacher: TeacherConfig,
    /// The selection.
    pub select: SelectConfig,
    /// The student.
    pub student: StudentConfig,
    /// The statistics.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// The same in other worlds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<GridConfig>,
}

/// A grid of worlds. Each point is an experiment of its own, in which the world's renderer draws the
/// pictures, so that the fidelity of the generator is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridConfig {
    /// The chances that a sentence names the relation.
    pub p_text: Vec<f64>,
    /// The chances that a picture shows it.
    pub p_picture: Vec<f64>,
    /// The chances that a generated picture shows what the sentence names.
    pub fidelity: Vec<f64>,
    /// The seeds of every point.
    pub seeds: Vec<u64>,
    /// The arms of every point.
    pub arms: Vec<Arm>,
}

fn all_arms() -> Vec<Arm> {
    Arm::ALL.to_vec()
}

fn auto() -> String {
    "auto".to_owned()
}
