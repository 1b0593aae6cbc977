//! JSON Lines files: one record a line, written beside and renamed.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A records file that cannot be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a record.
    #[error("{path}:{line}: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What was expected.
        source: serde_json::Error,
    },
}

pub(super) fn write<T: Serialize>(path: &Path, records: &[T]) -> Result<(), RecordError> {
    let io = |source| RecordError::Io { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    let mut lines = BufWriter::new(beside.as_file_mut());
    for record in records {
        serde_json::to_writer(&mut lines, record).map_err(|error| io(error.into()))?;
        lines.write_all(b"\n").map_err(io)?;
    }
    lines.flush().map_err(io)?;
    drop(lines);
    beside.as_file().sync_all().map_err(io)?;
    beside.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RecordError> {
    let io = |source| RecordError::Io { path: path.to_owned(), source };
    let lines = BufReader::new(File::open(path).map_err(io)?).lines();
    lines
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(&line.map_err(io)?).map_err(|source| RecordError::Line {
                path: path.to_owned(),
                line: number + 1,
                source,
            })
        })
        .collect()
}
