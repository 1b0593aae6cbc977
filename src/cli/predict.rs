//! `mi2rage predict`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use clap::Args;
use mi2rage_models::precision::Precision;
use serde::Serialize;

use super::InferenceArgs;
use crate::config::experiment::Arm;
use crate::data::tokens::find_span;
use crate::data::words::words;
use crate::data::{Entity, Example, Picture, PictureSource, pictures};
use crate::device::Job;
use crate::exit::UserError;
use crate::experiment::predictor::Predictor;
use crate::experiment::student_files;
use crate::generators::published::is_published;
use crate::generators::{Classifier, EncoderError};
use crate::hub;

/// A trained student, or a published classifier, and what to ask it about.
#[derive(Debug, Args)]
pub struct Predict {
    /// A student's weights, or the run folder that holds them; or a BERT or ViT with a classifier: its
    /// folder as downloaded from Hugging Face, or hf:OWNER/NAME@REVISION.
    #[arg(long, value_name = "FILE|RUN_FOLDER|FOLDER|hf:OWNER/NAME")]
    model: String,
    /// The student of this arm, where a run folder has several, such as ccg-mi.
    #[arg(long, value_parser = arm)]
    arm: Option<Arm>,
    /// The student of this seed, where a run folder has several.
    #[arg(long)]
    seed: Option<u64>,
    /// The sentence; without one only the picture is read.
    #[arg(long, value_name = "SENTENCE", required_unless_present = "picture")]
    text: Option<String>,
    /// The head entity as it stands in the sentence; a student needs both entities.
    #[arg(long, value_name = "NAME", requires = "text", requires = "tail")]
    head: Option<String>,
    /// The tail entity as it stands in the sentence.
    #[arg(long, value_name = "NAME", requires = "text", requires = "head")]
    tail: Option<String>,
    /// The picture, PNG or JPEG; without one only the sentence is read.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Print only the N most probable relations or labels.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Print one JSON object in place of lines.
    #[arg(long)]
    json: bool,
    /// `bundled` or a folder: the encoders whose tokenizer is used, in place of those that the
    /// model names.
    #[arg(long, value_name = "bundled|FOLDER")]
    encoders: Option<String>,
    #[command(flatten)]
    inference: InferenceArgs,
}

fn arm(text: &str) -> Result<Arm, String> {
    let names = || Arm::ALL.map(Arm::name).join(", ");
    let found = Arm::ALL.into_iter().find(|arm| arm.name() == text);
    found.ok_or_else(|| format!("expected one of {}", names()))
}

impl Predict {
    /// Loads the model, asks it and prints its answer.
    pub fn run(&self) -> anyhow::Result<()> {
        let device = self.inference.settle()?;
        let model = hub::resolve(&self.model)?;
        if !model.exists() {
            return Err(UserError(format!(
                "--model {}: no such file or folder; expected a student, a run folder or a published \
                 classifier",
                model.display()
            ))
            .into());
        }
        let (model, mut ranked) = if is_published(&model) {
            let ask = self.classifier(&model)?;
            (model, device.run(ask)??)
        } else {
            let ask = self.student(&model)?;
            (ask.model.clone(), device.run(ask)??)
        };
        ranked.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        ranked.truncate(self.top.unwrap_or(usize::MAX));
        if self.json {
            let answer = Answer { model: &model, relations: &ranked };
            return super::print(&(serde_json::to_string(&answer)? + "\n"));
        }
        let mut lines = String::new();
        for Ranked { relation, probability } in &ranked {
            writeln!(lines, "{probability:.4}  {relation}")?;
        }
        super::print(&lines)
    }

    /// The question to a student: a file, or that of a run folder.
    fn student(&self, model: &Path) -> Result<AskStudent<'_>, UserError> {
        if self.inference.precision != Precision::F32 {
            return Err(UserError("--precision: a student computes in f32".to_owned()));
        }
        if self.text.is_some() && self.head.is_none() {
            return Err(UserError(
                "--text: a student needs --head and --tail beside it".to_owned(),
            ));
        }
        let example = self.example()?;
        let model = match model.is_dir() {
            true => student_files::find(model, self.arm, self.seed)
                .map_err(|error| UserError(error.to_string()))?,
            false => model.to_owned(),
        };
        Ok(AskStudent { model, encoders: self.encoders.as_deref(), example })
    }

    /// The question to a published classifier.
    fn classifier(&self, folder: &Path) -> Result<AskClassifier<'_>, UserError> {
        let of_students = [
            ("--arm", self.arm.is_some()),
            ("--seed", self.seed.is_some()),
            ("--head", self.head.is_some()),
            ("--encoders", self.encoders.is_some()),
        ];
        if let Some((option, _)) = of_students.iter().find(|(_, given)| *given) {
            return Err(UserError(format!("{option}: {} is no student", folder.display())));
        }
        let shown = match (&self.text, &self.picture) {
            (Some(sentence), None) => Shown::Sentence(sentence),
            (None, Some(file)) => Shown::Picture(
                pictures::decode(file).map_err(|error| UserError(error.to_string()))?,
            ),
            _ => {
                let what =
                    "expected a sentence or a picture, of which a published classifier reads one";
                return Err(UserError(format!("--text, --picture: {what}")));
            }
        };
        let precision = self.inference.precision;
        Ok(AskClassifier { folder: folder.to_owned(), precision, shown })
    }

    fn example(&self) -> Result<Example, UserError> {
        let tokens = words(self.text.as_deref().unwrap_or_default());
        if self.text.is_some() && tokens.is_empty() {
            return Err(UserError("--text: expected a sentence, found nothing".to_owned()));
        }
        let entity = |option: &str, name: &Option<String>| match name {
            None => Ok(Entity { name: String::new(), span: 0..0 }),
            Some(name) => match find_span(&tokens, &words(name).join(" ")) {
                Some(span) => Ok(Entity { name: name.clone(), span }),
                None => Err(UserError(format!(
                    "{option} `{name}` is not in the sentence `{}`: expected its words as they \
                     stand there",
                    tokens.join(" ")
                ))),
            },
        };
        Ok(Example {
            id: "asked".to_owned(),
            head: entity("--head", &self.head)?,
            tail: entity("--tail", &self.tail)?,
            tokens: tokens.clone(),
            label: 0,
            picture: self.picture.clone().map(PictureSource::File),
            truth: None,
        })
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a Path,
    relations: &'a [Ranked],
}

#[derive(Serialize)]
struct Ranked {
    relation: String,
    probability: f32,
}

struct AskStudent<'a> {
    model: PathBuf,
    encoders: Option<&'a str>,
    example: Example,
}

impl Job for AskStudent<'_> {
    type Output = anyhow::Result<Vec<Ranked>>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<Vec<Ranked>> {
        // The user named the file, so whatever is wrong with it is theirs to mend.
        let student = Predictor::<B>::load(&self.model, self.encoders, &device)
            .map_err(|error| UserError(error.to_string()))?;
        let probabilities = student.probabilities(&self.example)?;
        Ok(ranked(student.relations().names(), probabilities))
    }
}

struct AskClassifier<'a> {
    folder: PathBuf,
    precision: Precision,
    shown: Shown<'a>,
}

enum Shown<'a> {
    Sentence(&'a str),
    Picture(Picture),
}

impl Job for AskClassifier<'_> {
    type Output = anyhow::Result<Vec<Ranked>>;

    fn run<B: Backend>(self, device: B::Device) -> anyhow::Result<Vec<Ranked>> {
        let mistake = |error: EncoderError| UserError(error.to_string());
        let model =
            Classifier::<B>::load(&self.folder, self.precision, &device).map_err(mistake)?;
        let answer = match &self.shown {
            Shown::Sentence(sentence) => model.sentence(sentence),
            Shown::Picture(picture) => model.picture(picture),
        };
        Ok(ranked(model.labels(), answer.map_err(mistake)?))
    }
}

fn ranked(names: &[String], probabilities: Vec<f32>) -> Vec<Ranked> {
    let ranked = names.iter().cloned().zip(probabilities);
    ranked.map(|(relation, probability)| Ranked { relation, probability }).collect()
}
