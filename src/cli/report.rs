//! `mi2rage report`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::exit::UserError;
use crate::report;

/// A run folder to report on.
#[derive(Debug, Args)]
pub struct Report {
    /// The run folder, or one of experiments/recorded.
    folder: PathBuf,
}

impl Report {
    /// Reads the folder's results and writes its reports.
    pub fn run(&self) -> anyhow::Result<()> {
        let path = self.folder.join("results.json");
        let bytes = std::fs::read(&path).map_err(|error| {
            UserError(format!("{}: {error}; expected a finished run's folder", path.display()))
        })?;
        let results = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not this version's results", path.display()))?;
        report::render(&results, &self.folder)?;
        println!("{}", self.folder.join("report.html").display());
        Ok(())
    }
}
