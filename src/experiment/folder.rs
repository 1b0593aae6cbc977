//! The run folder: what is finished is found again, what is not leaves nothing under a final name.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::memory;

/// Why a run folder could not be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process works in it.
    #[error("{0}: another run is using this folder")]
    Busy(PathBuf),
    /// A result could not be written as JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        source: serde_json::Error,
    },
}

/// Names the system's refusal by the path it concerns.
fn at(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError + '_ {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// A short hash of anything serialisable: equal inputs, equal text.
///
/// # Panics
///
/// Never for the plain data this program hashes: maps have string keys.
pub fn fingerprint(inputs: &impl Serialize) -> String {
    let text = serde_json::to_vec(inputs).expect("plain data is always JSON");
    blake3::hash(&text).to_hex()[..32].to_owned()
}

/// A finished stage's file.
#[derive(Debug, Serialize, Deserialize)]
struct Record<T> {
    inputs: String,
    cost: Cost,
    output: T,
}

/// What a stage took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Highest resident memory in bytes while it ran, where the system tells.
    pub peak_memory: Option<u64>,
    /// Whether this run found it finished.
    #[serde(skip)]
    pub reused: bool,
}

/// What a file is called until it is whole.
const UNFINISHED: &str = ".unfinished-";

/// A file for bytes that are to be renamed to their final name.
fn beside(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    // Temporary files are private by default; a result is not (the umask still applies).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Removes what a killed run was writing. The caller holds the folder's lock.
fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// One run's folder, locked while the value lives.
pub struct RunFolder {
    root: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Opens the folder, making it where it is missing.
    ///
    /// # Errors
    ///
    /// The folder cannot be made, or another process has it open.
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        std::fs::create_dir_all(root.join("stages")).map_err(at(root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(at(&path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => FolderError::Busy(root.to_owned()),
            TryLockError::Error(source) => at(&path)(source),
        })?;
        remove_unfinished(root).map_err(at(root))?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Writes a file beside its place, then renames it.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, FolderError> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let mut file = beside(folder).map_err(at(folder))?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(at(&path))?;
        file.persist(&path).map_err(|error| at(&path)(error.error))?;
        Ok(path)
    }

    /// Writes values as one JSON object a line.
    ///
    /// # Errors
    ///
    /// The system refuses, or a value has no JSON form.
    pub fn write_lines<T: Serialize>(
        &self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Result<PathBuf, FolderError> {
        let mut bytes = Vec::new();
        for value in values {
            serde_json::to_writer(&mut bytes, &value)
                .map_err(|source| FolderError::Json { path: self.root.join(name), source })?;
            bytes.push(b'\n');
        }
        self.write(name, &bytes)
    }

    /// The finished output of a stage for these inputs, if there is one. A file that cannot be
    /// read, or belongs to other inputs, is no output: the stage runs again.
    pub fn finished<T: DeserializeOwned>(&self, stage: &str, inputs: &str) -> Option<(T, Cost)> {
        let bytes = std::fs::read(self.root.join(format!("stages/{stage}.json"))).ok()?;
        let record: Record<T> = serde_json::from_slice(&bytes).ok()?;
        (record.inputs == inputs).then_some((record.output, Cost { reused: true, ..record.cost }))
    }

    /// Forgets a stage, so that it runs again.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn forget(&self, stage: &str) -> Result<(), FolderError> {
        let path = self.root.join(format!("stages/{stage}.json"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The stage's output: found where it is finished for the same inputs, else made and kept.
    ///
    /// # Errors
    ///
    /// The work's, or the folder's.
    pub fn stage<T, E>(
        &self,
        stage: &str,
        inputs: &str,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, Cost), E>
    where
        T: Serialize + DeserializeOwned,
        E: From<FolderError>,
    {
        if let Some(found) = self.finished(stage, inputs) {
            return Ok(found);
        }
        memory::reset_peak();
        let started = Instant::now();
        let output = work()?;
        let seconds = started.elapsed().as_secs_f64();
        let cost = Cost { seconds, peak_memory: memory::peak(), reused: false };
        let record = Record { inputs: inputs.to_owned(), cost, output };
        let name = format!("stages/{stage}.json");
        let json = |source| FolderError::Json { path: self.root.join(&name), source };
        let bytes = serde_json::to_vec_pretty(&record).map_err(json)?;
        // A number may come back from JSON with another last bit: what is read from the text is
        // what a later run, which finds the stage finished, goes on with.
        let record: Record<T> = serde_json::from_slice(&bytes).map_err(json)?;
        self.write(&name, &bytes)?;
        Ok((record.output, cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_runs_once_for_the_same_inputs_and_again_for_others() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path()).unwrap();
        let mut runs = 0;
        let mut stage = |inputs: &str| {
            let done = folder.stage("a/b", inputs, || {
                runs += 1;
                Ok::<_, FolderError>(runs)
            });
            let (output, cost) = done.unwrap();
            (output, cost.reused)
        };
        assert_eq!(stage("x"), (1, false));
        assert_eq!(stage("x"), (1, true));
        assert_eq!(stage("y"), (2, false));
        assert_eq!(stage("x"), (3, false));
    }

    #[test]
    fn a_stage_gives_the_same_bits_made_and_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path()).unwrap();
        let numbers: Vec<f64> = (1..2000).map(|n| 1.0 / f64::from(n)).collect();
        let bits = |(numbers, _): (Vec<f64>, Cost)| -> Vec<u64> {
            numbers.into_iter().map(f64::to_bits).collect()
        };
        let made = folder.stage("a", "x", || Ok::<_, FolderError>(numbers)).unwrap();
        assert_eq!(bits(made), bits(folder.finished("a", "x").unwrap()));
    }

    #[test]
    fn a_torn_stage_file_is_no_output() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path()).unwrap();
        folder.write("stages/a.json", b"{\"inputs\": \"x\", \"out").unwrap();
        assert!(folder.finished::<u32>("a", "x").is_none());
    }

    #[test]
    fn what_a_killed_run_was_writing_is_gone_when_the_folder_is_opened_again() {
        let root = tempfile::tempdir().unwrap();
        drop(RunFolder::open(root.path()).unwrap());
        let torn = root.path().join("stages").join(format!("{UNFINISHED}x"));
        std::fs::write(&torn, "half").unwrap();
        let _folder = RunFolder::open(root.path()).unwrap();
        assert!(!torn.exists());
    }

    #[test]
    fn a_second_run_in_the_same_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let _first = RunFolder::open(root.path()).unwrap();
        assert!(matches!(RunFolder::open(root.path()), Err(FolderError::Busy(_))));
    }
}
