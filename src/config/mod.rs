//! From a TOML file and the command line to a checked configuration, and back.

mod error;
pub mod experiment;
mod overrides;
pub mod pretrain;

pub use error::ConfigError;

use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use overrides::Overrides;

/// Reads a configuration; `overrides` (`("training.epochs", "3")`) stand in for what the file says.
///
/// `T` must be of structs with `#[serde(deny_unknown_fields)]`, or misspelt keys pass unseen.
/// (`flatten` and untagged or internally tagged enums lose the line of an error.) An override's value
/// is TOML, or a string if it is none: `flex` is `"flex"`.
///
/// # Errors
/// [`ConfigError`], naming file and line, or the override, that is at fault.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ConfigError::Value {
                place: line_of(path, valid),
                key: None,
                message: "expected UTF-8 text".to_owned(),
            }
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConfigError::Missing { path: path.to_owned() });
        }
        Err(source) => {
            return Err(ConfigError::Read { path: path.to_owned(), source });
        }
    };
    parse(path, &text, overrides)
}

/// As [`load`], from the file's text; `path` is for messages.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let overrides = Overrides::new(text.len(), overrides)?;
    let mut table = DeTable::parse(text).map_err(|error| ConfigError::Value {
        place: line_of(path, before(text, error.span())),
        key: None,
        message: one_line(error.message()),
    })?;
    overrides.merge_into(table.get_mut())?;
    let document = table.clone();
    T::deserialize(toml::de::Deserializer::from(table)).map_err(|error| {
        let place = match error.span().and_then(|span| overrides.at(span.start)) {
            Some(name) => name,
            None => line_of(path, before(text, error.span())),
        };
        let key = error.span().and_then(|span| key_at(document.get_ref(), &span));
        ConfigError::explain(place, key, error.message())
    })
}

/// A configuration as TOML, as [`load`] reads it.
///
/// # Errors
/// [`ConfigError::Unwritable`] for what TOML cannot hold, a `None` in a list for example.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string_pretty(config)
        .map_err(|error| ConfigError::Unwritable { message: one_line(&error.to_string()) })
}

/// What is wrong with a value, `section.key: what was expected`, with the file and, where the key
/// stands in it, the line.
pub fn placed(path: &Path, problem: &str) -> String {
    let end = problem.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    let key = &problem[..end.unwrap_or(problem.len())];
    let line = std::fs::read_to_string(path).ok().and_then(|text| {
        let table = DeTable::parse(&text).ok()?;
        let span = span_of(table.get_ref(), key)?;
        Some(line_of(path, before(&text, Some(span))))
    });
    format!("{}: {problem}", line.unwrap_or_else(|| path.display().to_string()))
}

/// Where the name of a dotted key stands.
fn span_of(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    if rest.is_empty() { Some(name.span()) } else { span_of(value.get_ref().as_table()?, rest) }
}

fn before(text: &str, span: Option<Range<usize>>) -> &[u8] {
    let end = span.map_or(0, |span| span.start).min(text.len());
    &text.as_bytes()[..end]
}

/// `file:line` of the place that follows `before`.
fn line_of(path: &Path, before: &[u8]) -> String {
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    format!("{}:{line}", path.display())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The dotted key whose name or value stands at a span, the innermost one.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if key.span() == *span {
            return Some(name.to_owned());
        }
        let inner = match value.get_ref() {
            DeValue::Table(table) => key_at(table, span),
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| item.get_ref().as_table())
                .find_map(|table| key_at(table, span)),
            _ => None,
        };
        if let Some(inner) = inner {
            return Some(format!("{name}.{inner}"));
        }
        if contains(value, span) {
            return Some(name.to_owned());
        }
    }
    None
}

fn contains(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let around = value.span();
    around.start <= span.start && span.end <= around.end && !around.is_empty()
}

#[cfg(test)]
mod tests;
