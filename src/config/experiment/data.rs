//! How the section `[data]` is read.
//!
//! serde reads an internally tagged enum from a buffer, in which the places of the keys are lost. Read
//! as a plain table first, a wrong key or value keeps its line.

use std::path::PathBuf;

use serde::Deserialize;

use super::DataConfig;

/// Every key of the section.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    source: Source,
    train: Option<usize>,
    validation: Option<usize>,
    test: Option<usize>,
    folder: Option<PathBuf>,
    pictures: Option<PathBuf>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    World,
    Mnre,
    Jsonl,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Mnre => "mnre",
            Self::Jsonl => "jsonl",
        }
    }
}

impl TryFrom<Keys> for DataConfig {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let source = keys.source;
        let given = [
            ("train", keys.train.is_some(), source == Source::World),
            ("validation", keys.validation.is_some(), source == Source::World),
            ("test", keys.test.is_some(), source == Source::World),
            ("folder", keys.folder.is_some(), source != Source::World),
            ("pictures", keys.pictures.is_some(), source == Source::Mnre),
            ("limit", keys.limit.is_some(), source != Source::World),
        ];
        if let Some((key, ..)) = given.iter().find(|(_, given, allowed)| *given && !allowed) {
            return Err(format!("`{key}` is no key of source = \"{}\"", source.name()));
        }
        let missing =
            |key| format!("`{key}` is missing, which source = \"{}\" needs", source.name());
        let count = |key: &'static str, value: Option<usize>| value.ok_or_else(|| missing(key));
        let folder = || keys.folder.clone().ok_or_else(|| missing("folder"));
        Ok(match source {
            Source::World => Self::World {
                train: count("train", keys.train)?,
                validation: count("validation", keys.validation)?,
                test: count("test", keys.test)?,
            },
            Source::Mnre => {
                Self::Mnre { folder: folder()?, pictures: keys.pictures, limit: keys.limit }
            }
            Source::Jsonl => Self::Jsonl { folder: folder()?, limit: keys.limit },
        })
    }
}
