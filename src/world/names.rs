//! Names that are made up, and tell what kind of thing bears them.
//!
//! A name is built on stems of one or two syllables. Every stem belongs to exactly one pool, by its hash, so that the
//! splits and the web share no name and not even a part of one.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::lexicon::EntityType;

/// Who may use a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Posts of the training split.
    Train,
    /// Posts of the validation split.
    Validation,
    /// Posts of the test split.
    Test,
    /// Captions.
    Web,
}

const POOLS: [Pool; 4] = [Pool::Train, Pool::Validation, Pool::Test, Pool::Web];

/// How a name is written in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Full,
    /// In lower-case letters.
    Lower,
    /// One token that begins with `@`.
    Handle,
}

#[rustfmt::skip]
const ONSETS: [&str; 23] = [
    "b", "br", "c", "d", "dr", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "w", "z",
];
const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
const CODAS: [&str; 10] = ["l", "n", "r", "s", "d", "v", "nd", "rl", "th", "lm"];
const ORGANISATION_SUFFIXES: [&str; 4] = ["ex", "ico", "anta", "omax"];
const FIRST_ENDINGS: [&str; 8] = ["a", "o", "ia", "us", "y", "ette", "ric", "ine"];
const LAST_ENDINGS: [&str; 6] = ["son", "ski", "ez", "er", "ov", "ini"];
const PLACE_ENDINGS: [&str; 8] = ["ville", "burg", "ton", "port", "ford", "stad", "dale", "mouth"];
const PLACE_PREFIXES: [&str; 4] = ["North", "Saint", "Lake", "New"];
const ORGANISATION_ENDINGS: [&str; 8] =
    ["FC", "Records", "Group", "United", "Inc", "Society", "Foundation", "Union"];
const OTHER_ENDINGS: [&str; 4] = ["ium", "eon", "yx", "ora"];
const OTHER_NUMBERS: [&str; 6] = ["II", "III", "IV", "7", "9", "X"];

/// A name of this type that only `pool` uses: one to three words, capitalised.
pub fn name(kind: EntityType, pool: Pool, rng: &mut impl Rng) -> Vec<String> {
    match kind {
        EntityType::Person => vec![
            capital(&(stem(pool, rng) + pick(&FIRST_ENDINGS, rng))),
            capital(&(stem(pool, rng) + pick(&LAST_ENDINGS, rng))),
        ],
        EntityType::Organisation => vec![
            capital(&(stem(pool, rng) + pick(&ORGANISATION_SUFFIXES, rng))),
            pick(&ORGANISATION_ENDINGS, rng).to_owned(),
        ],
        EntityType::Place => {
            let town = capital(&(stem(pool, rng) + pick(&PLACE_ENDINGS, rng)));
            if rng.random_bool(0.25) {
                vec![pick(&PLACE_PREFIXES, rng).to_owned(), town]
            } else {
                vec![town]
            }
        }
        EntityType::Other => {
            let thing = capital(&(stem(pool, rng) + pick(&OTHER_ENDINGS, rng)));
            if rng.random() {
                vec!["The".to_owned(), thing]
            } else {
                vec![thing, pick(&OTHER_NUMBERS, rng).to_owned()]
            }
        }
    }
}

/// The tokens of a name in this style.
pub fn written(words: &[String], style: Style) -> Vec<String> {
    match style {
        Style::Full => words.to_vec(),
        Style::Lower => words.iter().map(|word| word.to_lowercase()).collect(),
        Style::Handle => vec![format!("@{}", words.concat())],
    }
}

/// One or two syllables whose hash belongs to `pool`.
fn stem(pool: Pool, rng: &mut impl Rng) -> String {
    loop {
        let mut stem = String::new();
        if rng.random_bool(0.6) {
            stem += pick(&ONSETS, rng);
            stem += pick(&VOWELS, rng);
        }
        stem += pick(&ONSETS, rng);
        stem += pick(&VOWELS, rng);
        stem += pick(&CODAS, rng);
        if pool_of(&stem) == pool {
            return stem;
        }
    }
}

fn pick(from: &[&'static str], rng: &mut impl Rng) -> &'static str {
    from.choose(rng).expect("every list of name parts is filled")
}

/// FNV-1a, as stable as the names must be.
fn pool_of(stem: &str) -> Pool {
    let hash = stem.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    POOLS[(hash >> 32) as usize % POOLS.len()]
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::keyed::Key;

    #[test]
    fn pools_share_no_name_and_each_is_open() {
        let kinds =
            [EntityType::Person, EntityType::Organisation, EntityType::Place, EntityType::Other];
        for kind in kinds {
            let drawn: Vec<HashSet<Vec<String>>> = POOLS
                .into_iter()
                .map(|pool| {
                    let mut rng = Key::new(1).with("pool", format!("{pool:?}")).rng();
                    (0..3000).map(|_| name(kind, pool, &mut rng)).collect()
                })
                .collect();
            for (index, names) in drawn.iter().enumerate() {
                assert!(names.len() > 2200, "{kind:?}: {}", names.len());
                for others in &drawn[index + 1..] {
                    assert!(names.is_disjoint(others));
                }
            }
        }
    }

    #[test]
    fn the_type_can_be_read_off_the_ending() {
        let mut rng = Key::new(2).rng();
        for _ in 0..500 {
            let place = name(EntityType::Place, Pool::Test, &mut rng);
            let town = place.last().unwrap();
            assert!(PLACE_ENDINGS.iter().any(|ending| town.ends_with(ending)));
            let person = name(EntityType::Person, Pool::Test, &mut rng);
            assert_eq!(person.len(), 2);
            assert!(FIRST_ENDINGS.iter().any(|ending| person[0].ends_with(ending)));
        }
    }

    #[test]
    fn a_handle_is_one_token() {
        let words = ["Mira".to_owned(), "Kolden".to_owned()];
        assert_eq!(written(&words, Style::Handle), ["@MiraKolden"]);
        assert_eq!(written(&words, Style::Lower), ["mira", "kolden"]);
    }
}
