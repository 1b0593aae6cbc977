//! This project's own format: a JSON object a line.
//!
//! ```text
//! {"id": "a1", "tokens": ["Ada", "met", "Bob"], "head": {"name": "Ada", "span": [0, 1]},
//!  "tail": {"name": "Bob", "span": [2, 3]}, "relation": "peer", "file_name": "a1.png"}
//! ```
//!
//! `text` may stand for `tokens` (it is split at white space); `id` and the picture may be left out,
//! and so may a span: the entity is then looked up by its name. `picture` is another name of
//! `file_name`. Other keys are not read. With `file_name` it is the layout of the Hugging Face
//! `datasets` ImageFolder: `DIR/{split}/metadata.jsonl` beside the pictures.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::picture_folder::{PictureFolder, Rows};
use super::row::{self, RawRow, row_error};
use super::tokens::find_span;
use super::{DataError, Entity, Relations, Split};

/// The labels of the training split: `None` first, the others sorted.
///
/// # Errors
/// As [`read_split`], for the training split.
pub fn relations(folder: &Path) -> Result<Relations, DataError> {
    let path = file_of(folder, Split::Train)?;
    Ok(row::relations(&rows(&path)?))
}

/// The rows of `folder/{split}/metadata.jsonl` or `folder/{split}.jsonl`. Rows without an id are
/// named by their place (`train-0`). Without a folder of pictures the examples have none.
///
/// # Errors
/// [`DataError`] naming file and line: no file for the split, a line that is no such object, an
/// empty or outlying span, an entity that is not found by its name, a relation not in `relations`,
/// an id used twice, a missing picture that must be there.
pub fn read_split(
    folder: &Path,
    split: Split,
    relations: &Relations,
    pictures: Option<&PictureFolder>,
) -> Result<Rows, DataError> {
    let path = file_of(folder, split)?;
    row::examples(&path, split, rows(&path)?, relations, pictures)
}

/// A row as JSON holds it.
#[derive(Deserialize)]
pub(crate) struct Record {
    pub id: Option<String>,
    pub tokens: Option<Vec<String>>,
    pub text: Option<String>,
    pub head: Mention,
    pub tail: Mention,
    pub relation: String,
    #[serde(alias = "picture")]
    pub file_name: Option<String>,
}

/// An entity as JSON holds it.
#[derive(Deserialize)]
pub(crate) struct Mention {
    pub name: String,
    pub span: Option<(usize, usize)>,
}

/// The file of a split.
pub(crate) fn file_of(folder: &Path, split: Split) -> Result<PathBuf, DataError> {
    let candidates = || {
        split
            .names()
            .iter()
            .flat_map(|name| [format!("{name}/metadata.jsonl"), format!("{name}.jsonl")])
    };
    candidates().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        DataError::NoSplit {
            folder: folder.to_owned(),
            split,
            looked_for: candidates().collect::<Vec<_>>().join(", "),
        }
    })
}

/// Every record of a file with its line.
pub(crate) fn records(path: &Path) -> Result<Vec<(usize, Record)>, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::read(path))?;
    row::lines(path, &bytes)
        .map(|line| {
            let (line, text) = line?;
            let record = serde_json::from_str(text).map_err(|error| {
                let message = error.to_string();
                // serde_json ends its messages with the place in the text it was given: the line.
                let end = message.rfind(" at line ").unwrap_or(message.len());
                DataError::Syntax {
                    path: path.to_owned(),
                    line,
                    column: text
                        .get(..error.column())
                        .map_or(error.column(), |before| before.chars().count())
                        .max(1),
                    message: message[..end].to_owned(),
                }
            })?;
            Ok((line, record))
        })
        .collect()
}

fn rows(path: &Path) -> Result<Vec<RawRow>, DataError> {
    records(path)?
        .into_iter()
        .map(|(line, record)| {
            raw_row(line, record).map_err(|message| row_error(path, line, message))
        })
        .collect()
}

fn raw_row(line: usize, record: Record) -> Result<RawRow, String> {
    let tokens = match (record.tokens, record.text) {
        (Some(tokens), _) => tokens,
        (None, Some(text)) => text.split_whitespace().map(str::to_owned).collect(),
        (None, None) => return Err("the key `tokens` (or `text`) is missing".to_owned()),
    };
    Ok(RawRow {
        line,
        id: record.id,
        head: entity("head", record.head, &tokens)?,
        tail: entity("tail", record.tail, &tokens)?,
        tokens,
        relation: record.relation,
        picture: record.file_name,
    })
}

fn entity(role: &str, mention: Mention, tokens: &[String]) -> Result<Entity, String> {
    let span: Range<usize> = match mention.span {
        Some((start, end)) => start..end,
        None => find_span(tokens, &mention.name).ok_or_else(|| {
            format!("the {role} `{}` has no span and its name is not in the sentence", mention.name)
        })?,
    };
    row::entity(role, mention.name, span, tokens.len())
}
