//! What an experiment found, as `results.json` holds it and the report reads it.
//!
//! Precision, recall, F1 and shares are fractions from 0 to 1; entropies, information and losses are
//! in nats. Whatever an experiment may lack is optional or an empty list, and left out of the report.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{ReportError, write_beside};
use crate::eval::{ClassScore, Counts, Estimate, Paired, Scores, Summary};

/// The version of the format; a change that old files do not fit raises it.
pub const VERSION: u32 = 1;

/// An experiment's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`VERSION`].
    pub version: u32,
    /// The experiment's name.
    pub name: String,
    /// What it is meant to show, in a sentence.
    pub purpose: String,
    /// Which modality was generated.
    pub setting: Setting,
    /// The arm that is the method under test; the headline is about it.
    pub method: Option<String>,
    /// What the reader must know to read the figures rightly, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Where it ran.
    pub environment: Environment,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// Hashes of data and weights.
    #[serde(default)]
    pub hashes: Vec<Fact>,
    /// The label names, `None` first: what the indices of classes mean.
    pub relations: Vec<String>,
    /// What each stage cost, in the order of the run.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// The best that any model could reach, where the truth is known.
    pub ceiling: Option<Ceiling>,
    /// The arms, in the order of the method's table.
    pub arms: Vec<Arm>,
    /// Pairs of arms.
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// What the scores of the generated pairs are worth.
    #[serde(default)]
    pub selection: Vec<Selection>,
    /// How the trainings went.
    #[serde(default)]
    pub curves: Vec<Curve>,
    /// How good the generated samples are.
    pub generation: Option<Generation>,
    /// Some chains to look at.
    #[serde(default)]
    pub gallery: Vec<ShownChain>,
    /// What an audit of the data found.
    #[serde(default)]
    pub audit: Vec<Fact>,
    /// Whatever else the experiment measured, such as a grid over the world's probabilities.
    #[serde(default)]
    pub tables: Vec<Table>,
}

/// Which modality is real at training, and which one the chain generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Real sentences, generated pictures.
    MissingImage,
    /// Real pictures, generated sentences.
    MissingText,
}

/// A name and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value, with its unit.
    pub value: String,
}

/// The program and the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Versions of the program, the framework, the compiler.
    pub versions: Vec<Fact>,
    /// The device as the program names it.
    pub device: String,
    /// The host's processor cores.
    pub host_cores: usize,
    /// The day of the run, as ISO 8601.
    pub date: String,
}

/// What one stage cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The stage.
    pub name: String,
    /// The arm it was for, if for one.
    pub arm: Option<String>,
    /// The seed it was for, if for one.
    pub seed: Option<u64>,
    /// Wall-clock time.
    pub seconds: f64,
    /// The process's peak resident memory up to its end.
    pub peak_memory_bytes: Option<u64>,
    /// How many items it handled.
    pub items: Option<u64>,
    /// How many a second.
    pub items_per_second: Option<f64>,
    /// Whether it was found complete and not run again; its cost is that of the run that made it.
    pub reused: bool,
}

/// The best reachable scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// From the sentence alone.
    pub text: Reachable,
    /// From the picture alone.
    pub picture: Reachable,
    /// From both.
    pub pair: Reachable,
    /// H(Y), in nats.
    pub label_entropy: f64,
    /// Whether this is exact or a bound, in a sentence.
    pub exactness: String,
}

/// The best that can be made of one input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reachable {
    /// Micro-F1 by the F1-optimal decision rule.
    pub micro_f1: f64,
    /// Log-loss of the true posterior, in nats.
    pub log_loss: f64,
    /// Mutual information of input and label, in nats.
    pub mutual_information: f64,
}

/// One way of training, over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// What it trains on, in a few words.
    pub trains_on: String,
    /// Training pairs, averaged over seeds.
    pub pairs: usize,
    /// Optimiser updates of one training.
    pub updates: usize,
    /// Its micro-F1 over all seeds.
    pub micro_f1: Summary,
    /// One entry a seed.
    pub runs: Vec<Run>,
}

/// One training of an arm and its test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Micro-F1 on validation, at the epoch that was kept.
    pub validation_f1: f64,
    /// The modality dropout chosen on validation.
    pub modality_dropout: Option<f64>,
    /// The test split.
    pub test: Scores,
    /// One entry a label, `None` first.
    pub per_class: Vec<ClassScore>,
    /// `confusion[gold][predicted]`, in items.
    pub confusion: Vec<Vec<usize>>,
    /// The test items whose head stands before the tail.
    pub head_first: Option<Counts>,
    /// By what sentence and picture show, where that is known.
    #[serde(default)]
    pub cells: Vec<Cell>,
    /// The estimated bound on the information that this arm's training pairs hold, in nats.
    pub bound: Option<f64>,
}

/// The test items of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Whether the sentence names the relation.
    pub text_cue: bool,
    /// Whether the picture shows it.
    pub picture_cue: bool,
    /// How many items there are, `None` among them.
    pub items: usize,
    /// What was found and claimed.
    pub counts: Counts,
}

/// Two arms, `a` minus `b`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first arm.
    pub a: String,
    /// The second arm.
    pub b: String,
    /// The difference in micro-F1.
    pub paired: Paired,
}

/// One score of the generated pairs of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// The arm whose pairs were scored.
    pub arm: String,
    /// The score's name.
    pub score: String,
    /// How well it tells pairs whose generated half truly carries the label's cue.
    pub auroc: Option<Estimate>,
    /// The share of kept pairs that truly do.
    pub kept_true: Option<f64>,
    /// The share of dropped pairs that truly do.
    pub dropped_true: Option<f64>,
    /// How the score falls; absent where nothing was kept or dropped by it.
    pub histogram: Option<Histogram>,
    /// The teacher's bound on the information that the scored input holds on the label, in nats.
    pub bound: Option<Estimate>,
    /// The true information, where it is known, in nats.
    pub true_information: Option<f64>,
}

/// How a score falls among kept and dropped pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The left edge of the first bin.
    pub low: f64,
    /// The width of a bin.
    pub width: f64,
    /// Kept pairs a bin.
    pub kept: Vec<usize>,
    /// Dropped pairs a bin; as many bins.
    pub dropped: Vec<usize>,
}

impl Histogram {
    /// Counts the finite scores in `bins` bins of equal width over their whole range; nothing where
    /// there is no finite score or no bin.
    pub fn of(kept: &[f64], dropped: &[f64], bins: usize) -> Option<Self> {
        let finite = || kept.iter().chain(dropped).filter(|score| score.is_finite());
        let low = finite().copied().reduce(f64::min)?;
        let high = finite().copied().reduce(f64::max)?;
        if bins == 0 {
            return None;
        }
        let width = if high > low { (high - low) / bins as f64 } else { 1.0 };
        let count = |scores: &[f64]| {
            let mut counts = vec![0; bins];
            for score in scores.iter().filter(|score| score.is_finite()) {
                counts[(((score - low) / width) as usize).min(bins - 1)] += 1;
            }
            counts
        };
        Some(Self { low, width, kept: count(kept), dropped: count(dropped) })
    }
}

/// One training, epoch by epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The arm.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// In the order of training.
    pub points: Vec<Point>,
}

/// The state of a training at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Optimiser updates so far.
    pub step: usize,
    /// Mean training loss of the epoch, in nats.
    pub train_loss: f64,
    /// Validation loss, in nats.
    pub validation_loss: Option<f64>,
    /// Validation micro-F1.
    pub validation_f1: Option<f64>,
}

/// How good the generated samples are, against the truth where it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// One entry a round.
    pub rounds: Vec<RoundQuality>,
    /// How this was measured, in a sentence.
    pub measured: String,
}

/// The samples of one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundQuality {
    /// The round, from 1.
    pub round: usize,
    /// How many samples were generated.
    pub samples: usize,
    /// The share of pictures that show the cue of their prompt.
    pub fidelity: Option<f64>,
    /// Different visual forms among one item's pictures up to this round, on average.
    pub forms_per_item: Option<f64>,
    /// Different visual forms shown for one cue word up to this round, on average.
    pub forms_per_word: Option<f64>,
    /// The share of captions that name the cue their picture shows.
    pub caption_naming: Option<f64>,
}

/// A chain in the gallery: what it started from, and its rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownChain {
    /// The item.
    pub item: String,
    /// The relation's name.
    pub label: String,
    /// The head entity's name.
    pub head: String,
    /// The tail entity's name.
    pub tail: String,
    /// The real sentence (missing image).
    pub text: Option<String>,
    /// The real picture (missing text).
    pub picture: Option<ShownPicture>,
    /// In order.
    pub rounds: Vec<ShownRound>,
}

/// One round of a chain in the gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownRound {
    /// The generated picture.
    pub picture: Option<ShownPicture>,
    /// The generated sentence.
    pub text: Option<String>,
    /// The teacher's score of the generated half.
    pub score: Option<f64>,
    /// Whether the policy kept it.
    pub kept: Option<bool>,
    /// Whether it truly carries the label's cue, where that is known.
    pub carries_cue: Option<bool>,
}

/// A PNG picture of the gallery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShownPicture {
    /// A file, relative to the run folder.
    File(PathBuf),
    /// The file's bytes in base64, so that the results stand for themselves.
    Png(String),
}

impl ShownPicture {
    /// Holds a PNG file's bytes.
    pub fn from_png(bytes: &[u8]) -> Self {
        Self::Png(BASE64.encode(bytes))
    }

    /// The picture as a `data:` address; nothing where its file is no longer there.
    pub(super) fn data_uri(&self, run_folder: &Path) -> Result<Option<String>, ReportError> {
        let encoded = match self {
            Self::Png(encoded) => encoded.clone(),
            Self::File(file) => {
                let path = run_folder.join(file);
                match fs::read(&path) {
                    Ok(bytes) => BASE64.encode(bytes),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(source) => return Err(ReportError::Read { path, source }),
                }
            }
        };
        Ok(Some(format!("data:image/png;base64,{encoded}")))
    }
}

/// A table as it is to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What it shows; its title.
    pub caption: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// As many cells a row as there are columns.
    pub rows: Vec<Row>,
    /// What to know when reading it; may be empty.
    #[serde(default)]
    pub note: String,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its head, with the unit.
    pub name: String,
    /// Whether it holds numbers, which stand on the right.
    pub numeric: bool,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The cells; the first one names the row.
    pub cells: Vec<String>,
    /// Whether it stands out.
    #[serde(default)]
    pub strong: bool,
}

impl Results {
    /// Reads a `results.json`.
    ///
    /// # Errors
    /// If it cannot be read, is not such a file, or is of another version.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        let read = |source| ReportError::Read { path: path.to_owned(), source };
        let parse = |source| ReportError::Parse { path: path.to_owned(), source };
        /// The version is looked at first: a file of another one need not fit at all.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let Versioned { version } = serde_json::from_str(&text).map_err(parse)?;
        if version != VERSION {
            return Err(ReportError::Version { path: path.to_owned(), found: version });
        }
        serde_json::from_str(&text).map_err(parse)
    }

    /// Writes a `results.json`, beside and then renamed.
    ///
    /// # Errors
    /// If it cannot be written, or holds a number that JSON cannot.
    pub fn save(&self, path: &Path) -> Result<(), ReportError> {
        let parse = |source| ReportError::Parse { path: path.to_owned(), source };
        let mut text = serde_json::to_string_pretty(self).map_err(parse)?;
        // JSON has no infinity and no NaN; they become `null`, which is refused here and not later.
        serde_json::from_str::<Self>(&text).map_err(parse)?;
        text.push('\n');
        write_beside(path, &text)
    }

    /// The arm of this name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// The arm under test; the first one where none is named so.
    pub fn method_arm(&self) -> Option<&Arm> {
        let named = self.method.as_ref().and_then(|name| self.arm(name));
        named.or(self.arms.first())
    }

    /// How many seeds the arms have, at the least.
    pub fn seeds(&self) -> usize {
        self.arms.iter().map(|arm| arm.runs.len()).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{example, html, markdown};

    #[test]
    fn results_that_were_written_and_read_again_make_the_same_report() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let results = example::results();
        results.save(&path).unwrap();
        let again = Results::load(&path).unwrap();
        // A float may come back with another last bit; nothing that is shown has that many digits.
        let folder = Path::new(".");
        assert!(html::render(&again, folder).unwrap() == html::render(&results, folder).unwrap());
        assert_eq!(markdown::render(&again), markdown::render(&results));
    }

    #[test]
    fn a_number_that_json_lacks_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let mut results = example::results();
        results.curves[0].points[0].train_loss = f64::NAN;
        assert!(results.save(&path).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_none_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Results::load(&path).unwrap_err().to_string()
        };
        assert!(load("{\"version\": 1,\n oops").contains("line 2"));
        assert!(load("{\"version\": 99}").contains("version 99"));
        assert!(load("{\"version\": 1}").contains("name"));
        let nowhere = Results::load(&folder.path().join("none.json")).unwrap_err();
        assert!(nowhere.to_string().contains("none.json"));
    }

    #[test]
    fn a_histogram_counts_every_finite_score_once() {
        let histogram = Histogram::of(&[0.0, 1.0, 2.0, f64::NAN], &[-2.0, 0.1], 4).unwrap();
        assert_eq!((histogram.low, histogram.width), (-2.0, 1.0));
        assert_eq!(histogram.kept, [0, 0, 1, 2]);
        assert_eq!(histogram.dropped, [1, 0, 1, 0]);
        let constant = Histogram::of(&[3.0; 5], &[], 2).unwrap();
        assert_eq!(constant.kept, [5, 0]);
        assert_eq!(Histogram::of(&[], &[f64::NAN], 4), None);
    }
}
