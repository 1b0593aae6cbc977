//! `mi2rage pretrain`

use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;
use crate::config;
use crate::config::pretrain::PretrainConfig;
use crate::pretrain::{self, Part};
use crate::train::Context;

/// The configuration of the bundled weights and which parts to train.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// The TOML file, such as configs/pretrain.toml.
    config: PathBuf,
    /// Only this part; may be repeated. Finished parts are skipped.
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// Where the weights go.
    #[arg(long, value_name = "FOLDER", default_value = "models/assets")]
    out: PathBuf,
    /// Change any key, as in `--set diffusion.recipe.updates=2000`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Parts trained side by side, each on its share of the cores.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Pretrain {
    /// Trains the parts in their order.
    pub fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config: PretrainConfig = config::load(&self.config, &super::key_values(&self.set)?)?;
        if let Some(problem) = config.problem() {
            return Err(
                super::unsound(&self.config, &super::key_values(&self.set)?, &problem).into()
            );
        }
        let wanted = |part: &Part| self.parts.is_empty() || self.parts.contains(part);
        let parts: Vec<Part> = Part::ALL.into_iter().filter(wanted).collect();
        pretrain::run(&config, &parts, &self.out, self.device.settle()?, self.workers, context)
    }
}
