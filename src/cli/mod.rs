//! The command line: one file a command, each parses, calls and prints.

mod caption;
mod devices;
mod embed;
mod experiment;
mod predict;
mod pretrain;
mod report;
mod sample;
mod weights;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand};
use mi2rage_models::precision::Precision;
use mi2rage_models::published::refuse_pickled;

use crate::bundle::Bundle;
use crate::config;
use crate::device::DeviceChoice;
use crate::exit::UserError;
use crate::generators::published::is_published;
use crate::hub;
use crate::progress::Progress;
use crate::train::Context;

/// Multimodal relation extraction from unimodal data: generate the missing modality in chains,
/// keep what carries label information, train, and report.
#[derive(Debug, Parser)]
#[command(name = "mi2rage", version, about, long_about = None, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error (once: details, twice: everything).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an experiment from its data to its report; finished stages are reused.
    Experiment(experiment::Run),
    /// Run an experiment up to its generated samples.
    Generate(experiment::Run),
    /// Run an experiment up to the teacher's scores.
    Score(experiment::Run),
    /// Run an experiment up to the selection.
    Select(experiment::Run),
    /// Run an experiment up to the trained students.
    Train(experiment::Run),
    /// Run an experiment up to the predictions on the test split.
    Evaluate(experiment::Run),
    /// Write report.md and report.html again from a run folder's results.json.
    Report(report::Report),
    /// Train the bundled tiny weights on the world's web corpus, part by part.
    Pretrain(pretrain::Pretrain),
    /// Ask a trained student for the relation of two entities.
    Predict(predict::Predict),
    /// Draw pictures of a prompt.
    Sample(sample::Sample),
    /// Describe pictures, one sentence each.
    Caption(caption::Caption),
    /// Look into the embedded world: its posts, its pictures, its ceiling.
    #[command(subcommand)]
    World(world::Command),
    /// Turn sentences or pictures into vectors by a published BERT, CLIP or ViT.
    Embed(embed::Embed),
    /// Look into published weights.
    #[command(subcommand)]
    Weights(weights::Command),
    /// List the backends and devices of this build and machine.
    Devices,
}

/// The choice of a device, the same for every command that computes.
#[derive(Debug, Args)]
struct DeviceArgs {
    /// auto, flex (fast CPU), ndarray (portable CPU), cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl DeviceArgs {
    fn settle(&self) -> anyhow::Result<DeviceChoice> {
        let choice: DeviceChoice = self.device.parse()?;
        let (choice, note) = choice.settle()?;
        if let Some(note) = note {
            eprintln!("{note}");
        }
        Ok(choice)
    }
}

/// Device and precision, for commands that ask models and train none.
#[derive(Debug, Args)]
struct InferenceArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// f32, f16 or bf16: the type of weights and states. Half the memory; on CUDA faster, on a CPU
    /// slower.
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
}

impl InferenceArgs {
    /// The device, which computes in the precision.
    fn settle(&self) -> anyhow::Result<DeviceChoice> {
        let device = self.device.settle()?;
        device.check(self.precision)?;
        Ok(device)
    }
}

/// The choice of the generators' weights.
#[derive(Debug, Args)]
struct WeightsArgs {
    /// `bundled`, a folder as `mi2rage pretrain` writes it, or a published one: a folder as downloaded
    /// from Hugging Face, or hf:OWNER/NAME@REVISION.
    #[arg(long, value_name = "bundled|FOLDER|hf:OWNER/NAME", default_value = "bundled")]
    weights: String,
}

/// Where a command's weights lie.
enum Weights {
    Bundle(Box<Bundle>),
    Published(PathBuf),
}

impl WeightsArgs {
    fn open(&self) -> anyhow::Result<Weights> {
        if self.weights != "bundled" {
            let folder = hub::resolve(&self.weights)?;
            if is_published(&folder) {
                return Ok(Weights::Published(folder));
            }
            refuse_pickled(&folder).map_err(|error| UserError(error.to_string()))?;
        }
        Ok(Weights::Bundle(Box::new(Bundle::open(&self.weights)?)))
    }
}

/// Parses the process's arguments, does what they say and returns the exit code: 0, 1 for a
/// failure, 2 for the user's mistake, 130 for an interrupt.
pub fn main() -> i32 {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level)),
        )
        .init();
    let stop = Arc::new(AtomicBool::new(false));
    let context = Context { progress: Progress::stderr(), stop: stop.clone() };
    let handler = ctrlc::set_handler(move || {
        // The second interrupt does not wait: everything on disk is whole at any moment.
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping at the next safe point; interrupt again to stop at once");
    });
    if let Err(error) = handler {
        tracing::warn!("interrupts are not handled: {error}");
    }
    let result = match cli.command {
        Command::Experiment(run) => run.until(None, &context),
        Command::Generate(run) => run.until(Some(crate::experiment::Stage::Generate), &context),
        Command::Score(run) => run.until(Some(crate::experiment::Stage::Score), &context),
        Command::Select(run) => run.until(Some(crate::experiment::Stage::Select), &context),
        Command::Train(run) => run.until(Some(crate::experiment::Stage::Train), &context),
        Command::Evaluate(run) => run.until(Some(crate::experiment::Stage::Evaluate), &context),
        Command::Report(report) => report.run(),
        Command::Pretrain(pretrain) => pretrain.run(&context),
        Command::Predict(predict) => predict.run(),
        Command::Sample(sample) => sample.run(&context),
        Command::Embed(embed) => embed.run(),
        Command::Weights(command) => command.run(),
        Command::Caption(caption) => caption.run(&context),
        Command::World(command) => command.run(),
        Command::Devices => devices::run(),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            if context.stop.load(Ordering::Relaxed) {
                130
            } else {
                i32::from(crate::exit::code(&error))
            }
        }
    }
}

/// The whole chain of causes in one line.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line.replace('\n', " ")
}

/// `KEY=VALUE` arguments as overrides of a configuration.
fn key_values(arguments: &[String]) -> Result<Vec<(String, String)>, UserError> {
    let split = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(UserError(format!("--set {text}: expected KEY=VALUE, as in chain.rounds=2"))),
    };
    arguments.iter().map(split).collect()
}

/// What is wrong with a value of a configuration, with the line that it stands in, unless the command
/// line has changed it.
fn unsound(path: &Path, overrides: &[(String, String)], problem: &str) -> UserError {
    let changed = overrides.iter().any(|(key, _)| problem.starts_with(key.as_str()));
    UserError(if changed {
        format!("{}: {problem}", path.display())
    } else {
        config::placed(path, problem)
    })
}

/// Writes results to the standard output. That nobody reads them to their end is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("standard output"))
        }
        _ => Ok(()),
    }
}

/// A number from 0 to 1.
fn fraction(text: &str) -> Result<f64, String> {
    number(text, "a number from 0 to 1", |value| (0.0..=1.0).contains(&value))
}

/// A finite number above 0.
fn positive(text: &str) -> Result<f64, String> {
    number(text, "a number above 0", |value| value > 0.0)
}

/// A finite number.
fn finite(text: &str) -> Result<f64, String> {
    number(text, "a finite number", |_| true)
}

fn number(text: &str, expected: &str, fits: impl Fn(f64) -> bool) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && fits(*value));
    value.ok_or_else(|| format!("expected {expected}"))
}

/// The default place of run folders.
fn default_runs() -> PathBuf {
    PathBuf::from("experiments/runs")
}
