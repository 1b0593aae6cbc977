//! `mi2rage experiment`, and the commands that stop at one of its stages.

use std::path::PathBuf;

use clap::Args;

use crate::config;
use crate::config::experiment::ExperimentConfig;
use crate::device::{DeviceChoice, DeviceError};
use crate::exit::UserError;
use crate::experiment::{self, Stage};
use crate::train::Context;

/// An experiment's configuration and what the command line changes of it.
#[derive(Debug, Args)]
pub struct Run {
    /// The experiment's TOML file.
    config: PathBuf,
    /// auto, flex, ndarray, cuda or cuda:N, in place of the config's.
    #[arg(long)]
    device: Option<String>,
    /// Run with this seed alone; may be repeated.
    #[arg(long = "seed", value_name = "SEED")]
    seeds: Vec<u64>,
    /// The data's folder, in place of the config's.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The folder of the real pictures of MNRE-2.
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// Use only the first N rows of each split.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The run folder [default: experiments/runs/NAME].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Trainings and generations side by side (0: one a core on a CPU).
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Change any key, as in `--set student.recipe.updates=200`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Run {
    fn overrides(&self) -> Result<Vec<(String, String)>, UserError> {
        let mut overrides = super::key_values(&self.set)?;
        let quoted = |path: &PathBuf| toml::Value::String(path.display().to_string()).to_string();
        let mut push = |key: &str, value: Option<String>| {
            overrides.extend(value.map(|value| (key.to_owned(), value)));
        };
        push("device", self.device.as_ref().map(|name| format!("{name:?}")));
        push("data.folder", self.data.as_ref().map(quoted));
        push("data.pictures", self.pictures.as_ref().map(quoted));
        push("data.limit", self.limit.map(|limit| limit.to_string()));
        push("workers", self.workers.map(|workers| workers.to_string()));
        if !self.seeds.is_empty() {
            push("seeds", Some(format!("{:?}", self.seeds)));
        }
        Ok(overrides)
    }

    /// Runs the experiment, wholly or up to a stage.
    pub fn until(&self, last: Option<Stage>, context: &Context) -> anyhow::Result<()> {
        let config: ExperimentConfig = config::load(&self.config, &self.overrides()?)?;
        if let Some(problem) = config.problem() {
            return Err(super::unsound(&self.config, &self.overrides()?, &problem).into());
        }
        let device: DeviceChoice = config.device.parse()?;
        match device.check(config.generators.precision) {
            Err(error @ DeviceError::Precision { .. }) => {
                let problem = format!("generators.precision: {error}");
                return Err(super::unsound(&self.config, &self.overrides()?, &problem).into());
            }
            checked => checked?,
        }
        let out = self.out.clone().unwrap_or_else(|| super::default_runs().join(&config.name));
        experiment::run(&config, &out, last, context)
    }
}
