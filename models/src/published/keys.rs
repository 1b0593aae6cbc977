//! Strict reading of published configurations: what this crate does not compute is refused by name.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A value of a configuration that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file holds something other than an object.
    #[error("expected an object of keys and values")]
    NotAnObject,
    /// A key that this crate does not know and whose value switches something on.
    #[error("`{key}` = {value} is not supported: this key is unknown here")]
    Unknown {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A key whose value this crate does not compute.
    #[error("`{key}` = {value} is not supported, expected {expected}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What is supported.
        expected: String,
    },
    /// A value of the wrong type, or one that describes no model.
    #[error("{0}")]
    Invalid(String),
}

/// What a configuration may say besides the keys that this crate's own structure reads.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Keys that change the computation, each with the values (as JSON) that stand for what is
    /// computed here.
    pub fixed: &'static [(&'static str, &'static [&'static str])],
    /// Keys that do not change it.
    pub ignored: &'static [&'static str],
}

/// Reads `json` as a configuration.
///
/// `C` must take any of its keys alone (`#[serde(default)]`); they are those that its default
/// serialises to; a `null` there is taken where the default is one.
/// Every other key must be in `accepted`, begin with `_`, or be `null`, `false`, empty: off.
///
/// # Errors
///
/// Names the first key that is not supported.
pub fn read<C: DeserializeOwned + Serialize + Default>(
    json: &Value,
    accepted: &[Accepted],
) -> Result<C, KeyError> {
    let Value::Object(keys) = json else { return Err(KeyError::NotAnObject) };
    let own = match serde_json::to_value(C::default()) {
        Ok(Value::Object(own)) => own,
        _ => Map::new(),
    };
    let mut kept = Map::new();
    for (key, value) in keys {
        match own.get(key) {
            // In Python `None` is a value of its own, seldom the default.
            Some(default) if value.is_null() && !default.is_null() => {
                return Err(KeyError::Unsupported {
                    key: key.clone(),
                    value: value.to_string(),
                    expected: format!("one such as {default}"),
                });
            }
            Some(_) => {
                kept.insert(key.clone(), value.clone());
            }
            None => check(key, value, accepted)?,
        }
    }
    // The key that is to blame is the one that fails alone, beside defaults.
    let alone = |key: &String, value: &Value| {
        let one = Map::from_iter([(key.clone(), value.clone())]);
        serde_json::from_value::<C>(Value::Object(one)).err()
    };
    let blame = kept.iter().find_map(|(key, value)| Some((key, value, alone(key, value)?)));
    if let Some((key, value, error)) = blame {
        return Err(KeyError::Invalid(format!("`{key}` = {value}: {error}")));
    }
    serde_json::from_value(Value::Object(kept))
        .map_err(|error| KeyError::Invalid(error.to_string()))
}

fn check(key: &str, value: &Value, accepted: &[Accepted]) -> Result<(), KeyError> {
    let fixed = accepted.iter().flat_map(|accepted| accepted.fixed).find(|(name, _)| *name == key);
    if let Some((_, values)) = fixed {
        let same = |text: &&str| {
            serde_json::from_str::<Value>(text).is_ok_and(|expected| equal(&expected, value))
        };
        if values.iter().any(same) {
            return Ok(());
        }
        return Err(KeyError::Unsupported {
            key: key.to_owned(),
            value: value.to_string(),
            expected: values.join(" or "),
        });
    }
    let ignored = accepted.iter().any(|accepted| accepted.ignored.contains(&key));
    if ignored || key.starts_with('_') || is_off(value) {
        return Ok(());
    }
    Err(KeyError::Unknown { key: key.to_owned(), value: value.to_string() })
}

/// Equality in which 1 and 1.0 are the same.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Sizes {
        width: usize,
        depth: usize,
    }

    impl Default for Sizes {
        fn default() -> Self {
            Self { width: 4, depth: 2 }
        }
    }

    const ACCEPTED: [Accepted; 1] = [Accepted {
        fixed: &[("kind", &["\"absolute\""]), ("kernel", &["3"])],
        ignored: &["version"],
    }];

    #[test]
    fn own_keys_are_read_and_the_others_must_be_off_known_or_of_no_matter() {
        let json = json!({
            "width": 8, "kind": "absolute", "kernel": 3.0, "version": "4.1",
            "_name": "x", "gate": false, "extra": null, "pruned": {},
        });
        assert_eq!(read::<Sizes>(&json, &ACCEPTED), Ok(Sizes { width: 8, depth: 2 }));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let message = |json| read::<Sizes>(&json, &ACCEPTED).unwrap_err().to_string();
        assert_eq!(
            message(json!({"kind": "rotary"})),
            "`kind` = \"rotary\" is not supported, expected \"absolute\""
        );
        assert_eq!(
            message(json!({"window": 7})),
            "`window` = 7 is not supported: this key is unknown here"
        );
        assert!(message(json!({"width": "wide"})).contains("`width` = \"wide\""));
        assert_eq!(
            message(json!({"depth": null})),
            "`depth` = null is not supported, expected one such as 2"
        );
        assert!(message(json!([1])).contains("object"));
    }
}
