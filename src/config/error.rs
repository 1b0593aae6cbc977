//! What can be wrong with a configuration.

use std::path::PathBuf;

/// An error of reading a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("{path}: no such file")]
    Missing { path: PathBuf },
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// A key that the configuration does not have.
    #[error("{place}: unknown key `{key}`{}; allowed are {}", hint(nearest), allowed.join(", "))]
    UnknownKey {
        /// `file:line`, or the override.
        place: String,
        /// The dotted key.
        key: String,
        /// The allowed key that is spelt most alike, if one is near.
        nearest: Option<String>,
        /// What may stand there.
        allowed: Vec<String>,
    },
    /// A value of another type or out of its choices, a missing key, or no TOML at all.
    #[error("{place}: {}{message}", of(key))]
    Value {
        /// `file:line`, or the override.
        place: String,
        /// The dotted key, where it is known.
        key: Option<String>,
        /// What was expected.
        message: String,
    },
    /// An override that is not `section.key=value` for a section of the file.
    #[error("{place}: {message}")]
    Override {
        /// The override as given.
        place: String,
        /// What was expected.
        message: String,
    },
    /// A configuration that TOML cannot hold.
    #[error("the configuration cannot be written as TOML: {message}")]
    Unwritable { message: String },
}

impl ConfigError {
    /// Sorts out what serde says: its messages are the only place where the allowed names stand.
    pub(super) fn explain(place: String, key: Option<String>, message: &str) -> Self {
        let unknown = |kind: &str| {
            let (name, allowed) = message.strip_prefix(kind)?.split_once('`')?;
            let allowed: Vec<String> =
                allowed.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Some((name.to_owned(), allowed))
        };
        if let Some((name, allowed)) = unknown("unknown field `") {
            // The span may be that of the whole table: then its key is the place, not the name.
            let key = match key {
                Some(key) if key == name || key.ends_with(&format!(".{name}")) => key,
                Some(section) => format!("{section}.{name}"),
                None => name.clone(),
            };
            return Self::UnknownKey { place, key, nearest: nearest(&name, &allowed), allowed };
        }
        let mut message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((name, allowed)) = unknown("unknown variant `") {
            message += &hint(&nearest(&name, &allowed));
        }
        Self::Value { place, key, message }
    }
}

fn nearest(name: &str, allowed: &[String]) -> Option<String> {
    let distance = |other: &String| strsim::damerau_levenshtein(name, other);
    allowed
        .iter()
        .min_by_key(|other| distance(other))
        .filter(|other| distance(other) <= other.len().max(3) / 2)
        .cloned()
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(", did you mean `{name}`?"),
        None => String::new(),
    }
}

fn of(key: &Option<String>) -> String {
    match key {
        Some(key) => format!("`{key}`: "),
        None => String::new(),
    }
}
