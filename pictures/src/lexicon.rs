//! The words of the world: relations, the pairs of entity types they join, and the words that name them.

use super::forms::{FORMS_PER_RELATION, NEUTRAL_FORMS, neutral_form, relation_form};

/// What kind of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityType {
    /// A human being.
    Person,
    /// A band, club, company.
    Organisation,
    /// A town.
    Place,
    /// Anything else with a name: a film, a prize, a festival, a product.
    Other,
}

use EntityType::{Organisation, Other, Person, Place};

/// Head and tail type of each type pair, in the order of [`super::probabilities::Probabilities`].
pub const TYPE_PAIRS: [(EntityType, EntityType); 5] =
    [(Person, Person), (Person, Organisation), (Person, Place), (Person, Other), (Other, Place)];

/// How many words name a relation.
pub const WORDS_PER_RELATION: usize = 8;

/// A relation of the world.
#[derive(Debug)]
pub struct Relation {
    /// Its label, in the manner of MNRE.
    pub label: &'static str,
    /// Index into [`TYPE_PAIRS`].
    pub type_pair: usize,
    /// Nouns that name it, each of one or two tokens; no other relation has them.
    pub words: [&'static str; WORDS_PER_RELATION],
}

const fn relation(
    label: &'static str,
    type_pair: usize,
    words: [&'static str; WORDS_PER_RELATION],
) -> Relation {
    Relation { label, type_pair, words }
}

/// The relations, the most frequent first. Relation `r` of a label set (where 0 is `None`) is `RELATIONS[r - 1]`.
#[rustfmt::skip]
pub const RELATIONS: [Relation; 12] = [
    relation("/per/org/member_of", 1,
        ["team", "band", "squad", "lineup", "rehearsal", "jersey", "membership", "roster"]),
    relation("/per/per/peer", 0,
        ["friendship", "chat", "hangout", "buddies", "lunch", "teamwork", "colleagues", "collab"]),
    relation("/per/misc/present_in", 3,
        ["movie", "premiere", "episode", "trailer", "cinema", "screening", "cameo", "box office"]),
    relation("/per/loc/place_of_residence", 2,
        ["apartment", "home", "living room", "rent", "kitchen", "moving day", "address", "neighbourhood"]),
    relation("/per/per/couple", 0,
        ["wedding", "honeymoon", "engagement", "anniversary", "romance", "love story", "vows", "marriage"]),
    relation("/per/misc/awarded", 3,
        ["award", "prize", "victory", "gold", "ovation", "champion", "honour", "nomination"]),
    relation("/misc/loc/held_on", 4,
        ["festival", "fair", "parade", "carnival", "concert", "opening night", "gala", "countdown"]),
    relation("/per/org/leader", 1,
        ["presidency", "boss", "chairman", "speech", "board meeting", "throne", "command", "ceo"]),
    relation("/per/loc/place_of_birth", 2,
        ["birth", "newborn", "birthday", "midwife", "hospital", "hatching", "birthplace", "hometown"]),
    relation("/per/per/parent", 0,
        ["daughter", "son", "toddler", "bedtime", "nursery", "mum", "fatherhood", "upbringing"]),
    relation("/misc/loc/made_in", 4,
        ["production", "assembly line", "workshop", "export", "craft", "tools", "manufacture", "supplier"]),
    relation("/per/org/founder", 1,
        ["startup", "launch", "idea", "invention", "experiment", "beginnings", "pitch", "seed money"]),
];

/// Nouns that stand where a relation's word would, and name none.
#[rustfmt::skip]
pub const NEUTRAL_WORDS: [&str; 16] = [
    "news", "link", "evening", "weekend", "weather", "morning", "update", "moment",
    "summer", "walk", "mood", "view", "sunday", "traffic", "coffee", "afternoon",
];

/// What captions call the neutral forms, in their order.
pub const NEUTRAL_NAMES: [&str; NEUTRAL_FORMS] =
    ["tree", "cloud", "house", "car", "fish", "moon", "mountain", "umbrella"];

/// How many of `total` words occur in web captions when a fraction `overlap` does.
pub fn web_words(total: usize, overlap: f64) -> usize {
    (total as f64 * overlap).round() as usize
}

/// The two forms of relation `relation` (1-based) that its word `word` is used for in web captions.
///
/// Neighbouring words share a form, so that a chain of pictures and captions can reach all four.
pub fn word_forms(relation: usize, word: usize) -> [usize; 2] {
    [word, word + 1].map(|at| relation_form(relation, at % FORMS_PER_RELATION))
}

/// The relation (1-based) that a sentence names, and by which of its words; the first where it names several.
pub fn cue_word(tokens: &[String]) -> Option<(usize, usize)> {
    let lower: Vec<String> =
        tokens.iter().map(|token| token.trim_start_matches('#').to_lowercase()).collect();
    (0..lower.len()).find_map(|at| {
        RELATIONS.iter().enumerate().find_map(|(index, relation)| {
            let word = relation.words.iter().position(|word| stands_at(&lower[at..], word))?;
            Some((index + 1, word))
        })
    })
}

/// The relation (1-based, never 0) that a sentence or caption names.
pub fn text_cue(tokens: &[String]) -> Option<usize> {
    cue_word(tokens).map(|(relation, _)| relation)
}

/// The neutral form that a caption names.
pub fn named_neutral_form(tokens: &[String]) -> Option<usize> {
    NEUTRAL_NAMES
        .iter()
        .position(|name| tokens.iter().any(|token| token.eq_ignore_ascii_case(name)))
        .map(neutral_form)
}

fn stands_at(tokens: &[String], phrase: &str) -> bool {
    let mut tokens = tokens.iter();
    phrase.split(' ').all(|word| tokens.next().is_some_and(|token| token == word))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn no_word_names_two_relations_or_stands_among_the_neutral_ones() {
        let mut seen = HashSet::new();
        for word in RELATIONS
            .iter()
            .flat_map(|relation| relation.words)
            .flat_map(|phrase| phrase.split(' '))
            .chain(NEUTRAL_WORDS)
            .chain(NEUTRAL_NAMES)
        {
            assert!(seen.insert(word), "{word} stands twice");
        }
    }

    #[test]
    fn every_cue_word_is_found_in_any_case_and_as_a_hashtag() {
        for (index, relation) in RELATIONS.iter().enumerate() {
            for (word, phrase) in relation.words.iter().enumerate() {
                let plain = tokens(&format!("so much {phrase} today"));
                assert_eq!(cue_word(&plain), Some((index + 1, word)));
                let loud = tokens(&format!("RT #{}", phrase.to_uppercase()));
                assert_eq!(text_cue(&loud), Some(index + 1));
            }
        }
        assert_eq!(text_cue(&tokens("the living and the room")), None);
        assert_eq!(text_cue(&[]), None);
    }

    #[test]
    fn web_words_reach_every_form_of_a_relation_and_a_chain_can_wander_between_them() {
        for relation in 1..=RELATIONS.len() {
            let mut reached = HashSet::from([relation_form(relation, 0)]);
            for _ in 0..FORMS_PER_RELATION {
                for word in 0..web_words(WORDS_PER_RELATION, 0.75) {
                    let pair = word_forms(relation, word);
                    if pair.iter().any(|form| reached.contains(form)) {
                        reached.extend(pair);
                    }
                }
            }
            assert_eq!(reached.len(), FORMS_PER_RELATION);
        }
    }
}
