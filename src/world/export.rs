//! Posts as files: one folder a split, with pictures as PNG and `metadata.jsonl`.
//!
//! It is the layout of Hugging Face's `imagefolder` (`load_dataset("imagefolder", data_dir=...)`), and
//! `pandas.read_json(".../metadata.jsonl", lines=True)` reads it too.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::posts::World;
use crate::data::Split;
use crate::data::{Entity, Example, Picture, PictureSource, Truth};

/// A post could not be written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A folder of a split is there already.
    #[error("{0} exists already; name another folder or remove it")]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A picture could not be encoded.
    #[error("cannot write {path}: {source}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
}

/// A line of `metadata.jsonl`.
#[derive(Serialize)]
struct Row<'a> {
    file_name: String,
    id: &'a str,
    tokens: &'a [String],
    head: Mention<'a>,
    tail: Mention<'a>,
    relation: &'a str,
    label_index: usize,
    truth: Option<&'a Truth>,
}

#[derive(Serialize)]
struct Mention<'a> {
    name: &'a str,
    /// First token and the one after the last.
    span: [usize; 2],
}

impl<'a> From<&'a Entity> for Mention<'a> {
    fn from(entity: &'a Entity) -> Self {
        Self { name: &entity.name, span: [entity.span.start, entity.span.end] }
    }
}

/// Writes the posts of `seed` to `folder/train`, `folder/validation` and `folder/test`, as many as `sizes` says.
///
/// A split appears under its name only when it is complete; a split of no posts is left out.
///
/// # Errors
///
/// Where a split's folder exists, or something cannot be written.
pub fn export(
    world: &World,
    seed: u64,
    sizes: [usize; 3],
    folder: &Path,
) -> Result<(), ExportError> {
    let labels = world.relations();
    let splits = || Split::ALL.into_iter().zip(sizes).filter(|(_, size)| *size > 0);
    for (split, _) in splits() {
        let target = folder.join(split.to_string());
        if target.exists() {
            return Err(ExportError::Exists(target));
        }
    }
    for (split, size) in splits() {
        let partial = folder.join(format!(".{split}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(cannot_write(&partial))?;
        }
        fs::create_dir_all(&partial).map_err(cannot_write(&partial))?;
        let metadata = partial.join("metadata.jsonl");
        let mut lines = BufWriter::new(File::create(&metadata).map_err(cannot_write(&metadata))?);
        for post in world.posts(split, seed, size) {
            let file_name = format!("{}.png", post.id);
            if let Some(PictureSource::Pixels(picture)) = &post.picture {
                write_png(picture, &partial.join(&file_name))?;
            }
            let line = row(&post, file_name, &labels.names()[post.label]);
            serde_json::to_writer(&mut lines, &line)
                .map_err(io::Error::from)
                .and_then(|()| lines.write_all(b"\n"))
                .map_err(cannot_write(&metadata))?;
        }
        lines.flush().map_err(cannot_write(&metadata))?;
        let target = folder.join(split.to_string());
        fs::rename(&partial, &target).map_err(cannot_write(&target))?;
    }
    Ok(())
}

fn row<'a>(post: &'a Example, file_name: String, label: &'a str) -> Row<'a> {
    Row {
        file_name,
        id: &post.id,
        tokens: &post.tokens,
        head: (&post.head).into(),
        tail: (&post.tail).into(),
        relation: label,
        label_index: post.label,
        truth: post.truth.as_ref(),
    }
}

/// Writes a picture as PNG.
///
/// # Errors
///
/// Where it cannot be written.
pub fn write_png(picture: &Picture, path: &Path) -> Result<(), ExportError> {
    image::save_buffer(
        path,
        &picture.rgb,
        picture.width as u32,
        picture.height as u32,
        image::ExtendedColorType::Rgb8,
    )
    .map_err(|source| ExportError::Encode { path: path.to_owned(), source })
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::config::WorldConfig;

    fn world() -> World {
        World::new(WorldConfig::default()).unwrap()
    }

    #[test]
    fn every_line_names_a_picture_that_holds_the_posts_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let world = world();
        export(&world, 1, [12, 0, 5], folder.path()).unwrap();
        let test = folder.path().join("test");
        let text = fs::read_to_string(test.join("metadata.jsonl")).unwrap();
        let posts = world.posts(Split::Test, 1, 5);
        assert_eq!(text.lines().count(), posts.len());
        for (line, post) in text.lines().zip(&posts) {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let image = image::open(test.join(row["file_name"].as_str().unwrap())).unwrap();
            let Some(PictureSource::Pixels(picture)) = &post.picture else {
                panic!("no pixels");
            };
            assert_eq!(image.to_rgb8().as_raw(), &picture.rgb);
            let span = &row["head"]["span"];
            let at = |index: usize| span[index].as_u64().unwrap() as usize;
            let tokens: Vec<&str> = row["tokens"].as_array().unwrap()[at(0)..at(1)]
                .iter()
                .map(|token| token.as_str().unwrap())
                .collect();
            assert_eq!(tokens.join(" "), row["head"]["name"].as_str().unwrap());
            assert_eq!(row["label_index"], post.label);
        }
        assert!(folder.path().join("train").exists());
        assert!(!folder.path().join("validation").exists());
        assert!(!folder.path().join(".test.partial").exists());
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("test")).unwrap();
        let error = export(&world(), 1, [1, 1, 1], folder.path()).unwrap_err();
        assert!(error.to_string().contains("test exists already"), "{error}");
        assert!(!folder.path().join("train").exists());
    }

    #[test]
    fn an_unusable_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = export(&world(), 1, [1, 0, 0], &file).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
