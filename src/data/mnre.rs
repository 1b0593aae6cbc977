//! MNRE-2 in its authors' format: one Python dict a line.
//!
//! Zheng et al., "MNRE: A Challenge Multimodal Dataset for Neural Relation Extraction with Visual
//! Evidence in Social Media Posts", ICME 2021; <https://github.com/thecharm/MNRE>.
//!
//! ```text
//! {'token': ['Bill', 'Cosby', ...], 'h': {'name': 'Bill Cosby', 'pos': [0, 2]},
//!  't': {'name': ..., 'pos': [8, 12]}, 'img_id': 'twitter_19.jpg', 'relation': '/per/misc/present_in'}
//! ```

use std::path::{Path, PathBuf};

use super::picture_folder::{PictureFolder, Rows};
use super::python_literal::{Literal, parse};
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

/// The rows of a split, named `train-0`, `train-1` and so on by their place in the file. Without a
/// folder of pictures the examples have none.
///
/// # Errors
/// [`DataError`] naming file and line: no file for the split, a line that is no Python dict, a key
/// that is missing or of another type, an empty or outlying span, a relation not in `relations`, a
/// missing picture that must be there.
pub fn read_split(
    folder: &Path,
    split: Split,
    relations: &Relations,
    pictures: Option<&PictureFolder>,
) -> Result<Rows, DataError> {
    let path = file_of(folder, split)?;
    row::examples(&path, split, rows(&path)?, relations, pictures)
}

/// `mnre_train.txt` as the authors publish it (the validation file's name holds a space), or
/// `ours_train.txt` as HVPNeT and its successors do; in the folder or in its `txt/`.
fn file_of(folder: &Path, split: Split) -> Result<PathBuf, DataError> {
    let mut looked_for = Vec::new();
    for below in ["", "txt"] {
        for prefix in ["mnre", "ours"] {
            for name in split.names() {
                for end in [".txt", " .txt"] {
                    let name = format!("{prefix}_{name}{end}");
                    let path = folder.join(below).join(&name);
                    if path.is_file() {
                        return Ok(path);
                    }
                    looked_for.push(name);
                }
            }
        }
    }
    looked_for.truncate(looked_for.len() / 2);
    looked_for.retain(|name| !name.contains(' '));
    Err(DataError::NoSplit {
        folder: folder.to_owned(),
        split,
        looked_for: format!("{}, also in txt/", looked_for.join(", ")),
    })
}

fn rows(path: &Path) -> Result<Vec<RawRow>, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::read(path))?;
    row::lines(path, &bytes)
        .map(|line| {
            let (line, text) = line?;
            let literal = parse(text).map_err(|error| DataError::Syntax {
                path: path.to_owned(),
                line,
                column: error.column,
                message: format!("expected {}, found {}", error.expected, error.found),
            })?;
            raw_row(line, &literal).map_err(|message| row_error(path, line, message))
        })
        .collect()
}

fn raw_row(line: usize, row: &Literal) -> Result<RawRow, String> {
    if !matches!(row, Literal::Dict(_)) {
        return Err(format!("expected a dict, found {}", row.type_name()));
    }
    let tokens = match value(row, "token")? {
        Literal::List(items) => items
            .iter()
            .map(|item| match item {
                Literal::Str(token) => Ok(token.clone()),
                other => Err(wrong_type("token", "a list of str", other)),
            })
            .collect::<Result<Vec<_>, _>>()?,
        other => return Err(wrong_type("token", "a list of str", other)),
    };
    Ok(RawRow {
        line,
        id: None,
        head: entity(row, "h", "head", tokens.len())?,
        tail: entity(row, "t", "tail", tokens.len())?,
        tokens,
        relation: string(row, "relation")?,
        picture: Some(string(row, "img_id")?),
    })
}

fn entity(row: &Literal, key: &str, role: &str, tokens: usize) -> Result<Entity, String> {
    let entity = value(row, key)?;
    let below = |message| format!("in `{key}`: {message}");
    if !matches!(entity, Literal::Dict(_)) {
        return Err(wrong_type(key, "a dict", entity));
    }
    let name = string(entity, "name").map_err(below)?;
    let span = match value(entity, "pos").map_err(below)? {
        Literal::List(bounds) => match bounds[..] {
            [Literal::Int(start), Literal::Int(end)] if start >= 0 && end >= 0 => {
                start as usize..end as usize
            }
            _ => {
                return Err(below(
                    "`pos` must be two token offsets [start, end], neither negative".to_owned(),
                ));
            }
        },
        other => return Err(below(wrong_type("pos", "a list of two int", other))),
    };
    row::entity(role, name, span, tokens)
}

fn value<'l>(dict: &'l Literal, key: &str) -> Result<&'l Literal, String> {
    dict.get(key).ok_or_else(|| format!("the key `{key}` is missing"))
}

fn string(dict: &Literal, key: &str) -> Result<String, String> {
    match value(dict, key)? {
        Literal::Str(text) => Ok(text.clone()),
        other => Err(wrong_type(key, "str", other)),
    }
}

fn wrong_type(key: &str, expected: &str, found: &Literal) -> String {
    format!("`{key}` must be {expected}, found {}", found.type_name())
}
