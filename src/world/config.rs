//! How the world is set up.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The world's probabilities and sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// The chance that the sentence of a related pair names the relation.
    pub p_text: f64,
    /// The chance that the picture of a related pair shows the relation.
    pub p_picture: f64,
    /// The share of posts without a relation.
    pub p_none: f64,
    /// The chance that the sentence of an unrelated pair names a relation that its entity types allow.
    pub distract_text: f64,
    /// The chance that the picture of an unrelated pair shows a relation that its entity types allow.
    pub distract_picture: f64,
    /// The frequency of the n-th relation is proportional to `n^-prior_skew`.
    pub prior_skew: f64,
    /// Pixels along each side of a picture.
    pub picture_size: usize,
    /// The share of each relation's words, and of the neutral nouns, that web captions use too.
    pub web_overlap: f64,
    /// The share of web pictures that show no relation.
    pub web_neutral: f64,
    /// The share of web captions that begin with two names.
    pub web_names: f64,
    /// The seed of the web, which all experiments share.
    pub web_seed: u64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            p_text: 0.5,
            p_picture: 0.6,
            p_none: 0.6,
            distract_text: 0.1,
            distract_picture: 0.1,
            prior_skew: 0.5,
            picture_size: 32,
            web_overlap: 0.75,
            web_neutral: 0.25,
            web_names: 0.4,
            web_seed: 20,
        }
    }
}

/// A world that cannot be.
#[derive(Debug, Error, PartialEq)]
pub enum WorldConfigError {
    /// A probability outside 0 to 1.
    #[error("world.{key} is {value}, but must be between 0 and 1")]
    Probability {
        /// The key in the configuration.
        key: &'static str,
        /// What it says.
        value: f64,
    },
    /// No post would have a relation, or none would lack one.
    #[error("world.p_none is {0}, but must lie strictly between 0 and 1")]
    NoneShare(f64),
    /// A skew that is negative or no number.
    #[error("world.prior_skew is {0}, but must be between 0 and 4")]
    Skew(f64),
    /// A resolution that the forms are not made for.
    #[error("world.picture_size is {0}, but must be 32 or 64")]
    PictureSize(usize),
    /// Too few web words for every form to be captioned.
    #[error(
        "world.web_overlap is {0}, but must be at least 0.5, so that every form has a word on the web"
    )]
    Overlap(f64),
}

impl WorldConfig {
    /// Checks every value.
    pub fn check(&self) -> Result<(), WorldConfigError> {
        for (key, value) in [
            ("p_text", self.p_text),
            ("p_picture", self.p_picture),
            ("distract_text", self.distract_text),
            ("distract_picture", self.distract_picture),
            ("web_overlap", self.web_overlap),
            ("web_neutral", self.web_neutral),
            ("web_names", self.web_names),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(WorldConfigError::Probability { key, value });
            }
        }
        if !(self.p_none > 0.0 && self.p_none < 1.0) {
            return Err(WorldConfigError::NoneShare(self.p_none));
        }
        if !(0.0..=4.0).contains(&self.prior_skew) {
            return Err(WorldConfigError::Skew(self.prior_skew));
        }
        if ![32, 64].contains(&self.picture_size) {
            return Err(WorldConfigError::PictureSize(self.picture_size));
        }
        if self.web_overlap < 0.5 {
            return Err(WorldConfigError::Overlap(self.web_overlap));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_world_is_sound_and_bad_values_are_named() {
        assert_eq!(WorldConfig::default().check(), Ok(()));
        let bad = WorldConfig { p_text: 1.5, ..WorldConfig::default() };
        assert_eq!(
            bad.check().unwrap_err().to_string(),
            "world.p_text is 1.5, but must be between 0 and 1"
        );
        let bad = WorldConfig { picture_size: 33, ..WorldConfig::default() };
        assert_eq!(bad.check(), Err(WorldConfigError::PictureSize(33)));
        let bad = WorldConfig { p_none: f64::NAN, ..WorldConfig::default() };
        assert!(bad.check().is_err());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<WorldConfig>("p_txt = 0.5").unwrap_err();
        assert!(error.to_string().contains("p_txt"));
    }
}
