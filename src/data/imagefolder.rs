//! Pictures with a relation and the names of two entities, for the setting in which text is missing.
//!
//! It reads the layout of [`super::jsonl`], `DIR/{split}/metadata.jsonl` beside the pictures, and of
//! each row only `file_name`, `head`, `tail`, `relation` and `id`: any sentence there is not seen.

use std::path::Path;

use super::jsonl::{Mention, file_of, records};
use super::picture_folder::{MissingPicture, PictureFolder, Rows};
use super::row::{self, RawRow, row_error};
use super::{DataError, Entity, Relations, Split};

/// The labels of the training split: `None` first, the others sorted.
///
/// # Errors
/// As [`read_split`], for the training split.
pub fn relations(folder: &Path) -> Result<Relations, DataError> {
    let path = file_of(folder, Split::Train)?;
    Ok(row::relations(&rows(&path)?))
}

/// The pictures of a split. In place of a sentence stand the two names, the head's before the
/// tail's, so that the entity pair has tokens and spans.
///
/// # Errors
/// [`DataError`] naming file and line: as [`super::jsonl::read_split`], and every picture must be
/// there.
pub fn read_split(folder: &Path, split: Split, relations: &Relations) -> Result<Rows, DataError> {
    let path = file_of(folder, split)?;
    let pictures = PictureFolder {
        path: path.parent().unwrap_or(folder).to_owned(),
        missing: MissingPicture::Refuse,
    };
    row::examples(&path, split, rows(&path)?, relations, Some(&pictures))
}

fn rows(path: &Path) -> Result<Vec<RawRow>, DataError> {
    records(path)?
        .into_iter()
        .map(|(line, record)| {
            let mut tokens = Vec::new();
            let mut name = |role: &str, mention: Mention| {
                let start = tokens.len();
                tokens.extend(mention.name.split_whitespace().map(str::to_owned));
                if tokens.len() == start {
                    return Err(row_error(path, line, format!("the {role} has no name")));
                }
                Ok(Entity { name: mention.name, span: start..tokens.len() })
            };
            let head = name("head", record.head)?;
            let tail = name("tail", record.tail)?;
            Ok(RawRow {
                line,
                id: record.id,
                tokens,
                head,
                tail,
                relation: record.relation,
                picture: record.file_name,
            })
        })
        .collect()
}
