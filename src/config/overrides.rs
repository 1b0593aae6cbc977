//! `section.key=value` from the command line, merged into the file's tables before they are checked.
//!
//! Each override is parsed behind as many blanks as text precedes it (the file's, then the other
//! overrides'), so that the spans of its keys and values name it alone in whatever error comes later.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Overrides in order; a later one wins.
pub(super) struct Overrides(Vec<Override>);

struct Override {
    /// `key=value` as given, for messages.
    shown: String,
    /// `key = value` as TOML, behind the blanks.
    text: String,
    /// The spans that belong to it.
    span: Range<usize>,
    /// How many keys its dotted key has.
    depth: usize,
}

impl Overrides {
    /// Takes `(key, value)` pairs as if they stood behind a file of `start` bytes.
    pub fn new(mut start: usize, pairs: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut overrides = Vec::new();
        for (key, value) in pairs {
            let shown = format!("{key}={value}");
            // A bare word is a string, and so is anything that is no TOML value.
            let value = match DeValue::parse(value) {
                Ok(_) => value.clone(),
                Err(_) => toml::Value::from(value.as_str()).to_string(),
            };
            let text = format!("{}{key} = {value}", " ".repeat(start));
            let Some(depth) = depth(key) else {
                return Err(ConfigError::Override {
                    place: shown,
                    message: "expected a key such as section.key before the `=`".to_owned(),
                });
            };
            let end = text.len() + 1;
            overrides.push(Override { shown, text, span: start..end, depth });
            start = end;
        }
        Ok(Self(overrides))
    }

    /// The override that a byte offset belongs to.
    pub fn at(&self, offset: usize) -> Option<String> {
        self.0.iter().find(|item| item.span.contains(&offset)).map(|item| item.shown.clone())
    }

    /// Sets every overridden key; sections that are not there are added.
    pub fn merge_into<'o>(&'o self, table: &mut DeTable<'o>) -> Result<(), ConfigError> {
        for item in &self.0 {
            let fail =
                |message: String| ConfigError::Override { place: item.shown.clone(), message };
            let parsed =
                DeTable::parse(&item.text).map_err(|error| fail(error.message().to_owned()))?;
            merge(table, parsed.into_inner(), item.depth)
                .map_err(|key| fail(format!("`{key}` is a value in the file, not a section")))?;
        }
        Ok(())
    }
}

/// How many parts a dotted key has; absent if it is no key.
fn depth(key: &str) -> Option<usize> {
    if key.contains(['=', '#', '\n']) {
        return None;
    }
    let text = format!("{key} = 0");
    let table = DeTable::parse(&text).ok()?.into_inner();
    let mut table = &table;
    let mut depth = 0;
    loop {
        depth += 1;
        match table.values().next()?.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(depth),
        }
    }
}

/// Moves the value at the end of a path of `depth` keys into a table.
fn merge<'o>(into: &mut DeTable<'o>, from: DeTable<'o>, depth: usize) -> Result<(), String> {
    for (key, value) in from {
        if depth == 1 {
            into.insert(key, value);
            continue;
        }
        let Some(old) = into.get_mut(key.get_ref().as_ref()) else {
            into.insert(key, value);
            continue;
        };
        match (old.get_mut(), value.into_inner()) {
            (DeValue::Table(old), DeValue::Table(new)) => merge(old, new, depth - 1)?,
            _ => return Err(key.into_inner().into_owned()),
        }
    }
    Ok(())
}
