//! From what a file's row says to a checked [`Example`], for every format alike.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::picture_folder::{MissingPicture, PictureFolder, Rows, stays_below};
use super::{DataError, Entity, Example, PictureSource, Relations, Split};

/// One row as a file holds it, before its label and picture are looked up.
pub(crate) struct RawRow {
    /// From 1.
    pub line: usize,
    /// The file's own name for the row; without one it is called after its place in the split.
    pub id: Option<String>,
    pub tokens: Vec<String>,
    pub head: Entity,
    pub tail: Entity,
    pub relation: String,
    pub picture: Option<String>,
}

/// An error of one row.
pub(crate) fn row_error(path: &Path, line: usize, message: impl Into<String>) -> DataError {
    DataError::Row { path: path.to_owned(), line, message: message.into() }
}

/// The entity at a span, or what is wrong with the span.
pub(crate) fn entity(
    role: &str,
    name: String,
    span: Range<usize>,
    tokens: usize,
) -> Result<Entity, String> {
    if span.start >= span.end {
        return Err(format!("the {role} `{name}` has the empty span {}..{}", span.start, span.end));
    }
    if span.end > tokens {
        return Err(format!(
            "the {role} `{name}` has the span {}..{}, outside the sentence of {tokens} tokens",
            span.start, span.end
        ));
    }
    Ok(Entity { name, span })
}

/// The text of a file, line by line with numbers from 1, blank lines left out.
///
/// # Errors
/// [`DataError::Read`]; a line that is not UTF-8 is an error of its own when it is reached.
pub(crate) fn lines<'b>(
    path: &'b Path,
    bytes: &'b [u8],
) -> impl Iterator<Item = Result<(usize, &'b str), DataError>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes
        .split(|&byte| byte == b'\n')
        .enumerate()
        .map(move |(index, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match std::str::from_utf8(line) {
                Ok(text) => Ok((index + 1, text)),
                Err(error) => Err(DataError::Syntax {
                    path: path.to_owned(),
                    line: index + 1,
                    column: String::from_utf8_lossy(&line[..error.valid_up_to()]).chars().count()
                        + 1,
                    message: "expected UTF-8 text".to_owned(),
                }),
            }
        })
        .filter(|line| !matches!(line, Ok((_, text)) if text.trim().is_empty()))
}

/// The label set of the training rows: `None` first, the others sorted.
pub(crate) fn relations(rows: &[RawRow]) -> Relations {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.relation.as_str()).collect();
    Relations::new(names.into_iter().map(str::to_owned))
}

/// Checks labels and identifiers and looks the pictures up.
///
/// # Errors
/// [`DataError::Empty`]; [`DataError::Row`] for a label not in `relations`, an identifier used
/// twice, a picture name that leads out of the folder or a missing picture that must be there.
pub(crate) fn examples(
    path: &Path,
    split: Split,
    rows: Vec<RawRow>,
    relations: &Relations,
    pictures: Option<&PictureFolder>,
) -> Result<Rows, DataError> {
    if rows.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    let mut known = BTreeSet::new();
    let mut examples = Vec::with_capacity(rows.len());
    let mut missing_pictures = 0;
    for (index, row) in rows.into_iter().enumerate() {
        let fail = |message: String| row_error(path, row.line, message);
        let Some(label) = relations.index(&row.relation) else {
            return Err(fail(unknown_label(&row.relation, relations)));
        };
        let id = row.id.unwrap_or_else(|| format!("{split}-{index}"));
        if !known.insert(id.clone()) {
            return Err(fail(format!("the id `{id}` is used by an earlier row")));
        }
        let mut picture = None;
        if let (Some(folder), Some(name)) = (pictures, &row.picture) {
            if !stays_below(name) {
                return Err(fail(format!(
                    "the picture `{name}` is no file name below the folder of pictures"
                )));
            }
            picture = folder.find(split, name).map(PictureSource::File);
        }
        if pictures.is_some_and(|_| picture.is_none()) {
            missing_pictures += 1;
            match pictures.map(|folder| (folder.missing, &folder.path)) {
                Some((MissingPicture::DropRow, _)) => continue,
                Some((MissingPicture::Refuse, folder)) => {
                    return Err(fail(match &row.picture {
                        Some(name) => {
                            format!("the picture `{name}` is not in {}", folder.display())
                        }
                        None => "the row names no picture".to_owned(),
                    }));
                }
                _ => {}
            }
        }
        examples.push(Example {
            id,
            tokens: row.tokens,
            head: row.head,
            tail: row.tail,
            label,
            picture,
            truth: None,
        });
    }
    if examples.is_empty() {
        let folder = pictures.map_or(path, |folder| &folder.path);
        return Err(row_error(
            path,
            1,
            format!(
                "no row is left: every row names a picture that is not in {}",
                folder.display()
            ),
        ));
    }
    Ok(Rows { examples, missing_pictures })
}

fn unknown_label(label: &str, relations: &Relations) -> String {
    let nearest =
        relations.names().iter().min_by_key(|name| strsim::damerau_levenshtein(name, label));
    let hint = match nearest {
        Some(name) if strsim::damerau_levenshtein(name, label) <= 3 => {
            format!("; the nearest is `{name}`")
        }
        _ => String::new(),
    };
    format!("the relation `{label}` is none of the {} of the training split{hint}", relations.len())
}
