//! The report of an experiment: `report.md` and a `report.html` that needs nothing beside itself.
//!
//! It reads results and nothing else.

#[cfg(test)]
mod example;
mod figures;
mod gallery;
mod html;
mod markdown;
mod plots;
mod results;
mod tables;
mod verdict;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use results::{
    Arm, Ceiling, Cell, Column, Comparison, Curve, Environment, Fact, Generation, Histogram, Point,
    Reachable, Results, RoundQuality, Row, Run, Selection, Setting, ShownChain, ShownPicture,
    ShownRound, Stage, Table, VERSION,
};

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that does not hold results.
    #[error("{}: expected results: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was expected, with line and column.
        source: serde_json::Error,
    },
    /// Results that another program wrote.
    #[error("{}: results of version {found}, expected version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// A file that cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A plot that cannot be drawn.
    #[error("plot `{plot}`: {message}")]
    Plot {
        /// The plot.
        plot: &'static str,
        /// Why.
        message: String,
    },
}

/// Writes `report.md` and `report.html` into the run folder, from which files of the gallery are read.
///
/// # Errors
/// If a plot cannot be drawn or a file cannot be read or written; what was there before then stays.
pub fn render(results: &Results, run_folder: &Path) -> Result<(), ReportError> {
    let markdown = markdown::render(results);
    let html = html::render(results, run_folder)?;
    write_beside(&run_folder.join("report.md"), &markdown)?;
    write_beside(&run_folder.join("report.html"), &html)
}

/// Writes a file under another name and renames it, so that nothing partial ever has its name.
fn write_beside(path: &Path, text: &str) -> Result<(), ReportError> {
    let mut name = OsString::from(path);
    name.push(".partial");
    let partial = PathBuf::from(name);
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|source| {
        // The first error is the one to tell; what is left over may not exist at all.
        let _ = fs::remove_file(&partial);
        ReportError::Write { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reports_are_written_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        render(&example::results(), folder.path()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["report.html", "report.md"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nowhere");
        let error = render(&example::results(), &nowhere).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}
