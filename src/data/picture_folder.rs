//! A folder of picture files, and what becomes of rows whose picture is not there.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Example, Split};

/// What becomes of a row whose picture file is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingPicture {
    /// Reading fails and names the row.
    Refuse,
    /// The row is left out and counted.
    DropRow,
    /// The row stays, without a picture, and is counted.
    KeepRow,
}

/// Where the pictures of a dataset are.
#[derive(Clone, Debug)]
pub struct PictureFolder {
    /// The folder, with the files in it or in a folder for each split.
    pub path: PathBuf,
    /// What becomes of rows whose file is missing.
    pub missing: MissingPicture,
}

/// The rows of one split.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The examples, in the file's order.
    pub examples: Vec<Example>,
    /// How many rows name a picture that is not in the folder, dropped or not.
    pub missing_pictures: usize,
}

impl PictureFolder {
    /// The file of a picture, in the folder or in its folder for the split.
    pub(crate) fn find(&self, split: Split, name: &str) -> Option<PathBuf> {
        let in_split = split.names().iter().map(|split| self.path.join(split));
        std::iter::once(self.path.clone())
            .chain(in_split)
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    }
}

/// Whether a name leads to a file below the folder it is looked up in: data must not name others.
pub(crate) fn stays_below(name: &str) -> bool {
    let path = Path::new(name);
    path.components().next().is_some()
        && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_folder_are_followed() {
        assert!(stays_below("a.jpg") && stays_below("train/a.jpg"));
        for name in ["", "..", "../a.jpg", "/etc/passwd", "a/../../b.jpg", "./a"] {
            assert!(!stays_below(name), "{name}");
        }
    }

    #[test]
    fn pictures_are_found_in_the_folder_and_in_the_folder_of_the_split() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("val")).unwrap();
        std::fs::write(folder.path().join("a.jpg"), "").unwrap();
        std::fs::write(folder.path().join("val/b.jpg"), "").unwrap();
        let pictures =
            PictureFolder { path: folder.path().to_owned(), missing: MissingPicture::KeepRow };
        assert!(pictures.find(Split::Test, "a.jpg").is_some());
        assert!(pictures.find(Split::Validation, "b.jpg").is_some());
        assert!(pictures.find(Split::Test, "b.jpg").is_none());
        assert!(pictures.find(Split::Test, "val").is_none());
    }
}
