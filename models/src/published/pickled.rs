//! Weights that Python has pickled, which are not read.

use std::path::{Path, PathBuf};

use super::PublishedError;

/// Endings of files that Python pickles weights into.
const ENDINGS: [&str; 4] = ["bin", "ckpt", "pt", "pth"];

/// Whether a file of this name holds weights that Python has pickled.
pub fn is_pickled(name: &Path) -> bool {
    name.extension().is_some_and(|extension| ENDINGS.iter().any(|ending| extension == *ending))
}

/// Says how to convert weights where they are pickled: in the file `path`, or in that folder where it
/// holds no safetensors files beside them.
///
/// # Errors
///
/// [`PublishedError::Pickled`].
pub fn refuse_pickled(path: &Path) -> Result<(), PublishedError> {
    let safe = |path: &Path| path.extension().is_some_and(|end| end == "safetensors");
    let entries = path.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.chain([path.to_owned()]).filter(|file| file.is_file());
    let files: Vec<PathBuf> = files.collect();
    if files.iter().any(|file| safe(file)) {
        return Ok(());
    }
    match files.into_iter().filter(|file| is_pickled(file)).min() {
        Some(path) => Err(PublishedError::Pickled { path }),
        None => Ok(()),
    }
}

/// The Python that turns pickled weights into a file or a folder that is read.
pub(super) fn conversion(path: &Path) -> String {
    let shown = path.display();
    if path.extension().is_some_and(|extension| extension == "ckpt") {
        return format!(
            "diffusers: StableDiffusionPipeline.from_single_file(\"{shown}\").save_pretrained(\"FOLDER\")"
        );
    }
    format!(
        "torch and safetensors: save_file({{name: x.clone() for name, x in torch.load(\"{shown}\", \
         weights_only=True).items()}}, \"model.safetensors\")"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::{Archive, read_json};
    use serde_json::Value;
    use std::fs;

    #[test]
    fn pickled_weights_are_refused_with_the_way_to_convert_them() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| Archive::open(path).unwrap_err().to_string();
        assert!(message(folder.path()).contains("no weights"));
        for (name, way) in [("pytorch_model.bin", "save_file"), ("sd.ckpt", "from_single_file")] {
            let path = folder.path().join(name);
            fs::write(&path, b"PK\x03\x04").unwrap();
            for given in [path.as_path(), folder.path()] {
                let message = message(given);
                assert!(message.starts_with(&format!("{}: pickled", path.display())), "{message}");
                assert!(message.contains(way), "{message}");
            }
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_missing_file_is_named_unless_there_are_pickled_weights_alone() {
        let folder = tempfile::tempdir().unwrap();
        let message =
            || read_json::<Value>(&folder.path().join("config.json")).unwrap_err().to_string();
        assert!(message().contains("config.json"), "{}", message());
        fs::write(folder.path().join("pytorch_model.bin"), b"PK\x03\x04").unwrap();
        assert!(message().contains("pytorch_model.bin: pickled"), "{}", message());
        fs::write(folder.path().join("model.safetensors"), b"").unwrap();
        assert!(message().contains("config.json"), "{}", message());
    }
}
