//! The web: pictures with plain captions, which the generators learn from.
//!
//! It knows no relations and no posts, only concepts. The world's assumption on it: a concept (what a relation is
//! about, or something neutral) has several forms and several words, and a caption names a concept, never a form.
//! A word goes with two neighbouring forms of four ([`word_forms`]), and each form goes with several words; so what
//! is drawn for a word is one of two forms, a caption of that picture may choose a neighbouring word, and a
//! chain of pictures and captions wanders over the forms that a single step would not reach. In posts the picture's
//! form is independent of the sentence's word. A stated share of the words that posts use is found here
//! ([`WebOverlap`]).

use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::config::WorldConfig;
use super::forms::{FORMS_PER_RELATION, NEUTRAL_FORMS, cue_of, neutral_form, relation_form};
use super::grammar::agree;
use super::lexicon::{
    EntityType, NEUTRAL_NAMES, NEUTRAL_WORDS, RELATIONS, TYPE_PAIRS, WORDS_PER_RELATION, web_words,
    word_forms,
};
use super::names::{Pool, Style, name, written};

use super::renderer::Scene;
use crate::data::{Picture, Split};
use crate::keyed::Key;

/// A picture and its caption.
#[derive(Clone, Debug, PartialEq)]
pub struct WebItem {
    /// The caption, in lower-case letters.
    pub caption: Vec<String>,
    /// How many of the caption's first tokens are the names and the colon; 0 where it has no names.
    pub names: usize,
    /// The picture.
    pub picture: Picture,
    /// The form that it shows.
    pub form: usize,
    /// The relation that the form is about; `None` where it is neutral.
    pub concept: Option<usize>,
}

/// How much of the posts' vocabulary for what matters the web has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebOverlap {
    /// How many words of each relation occur in captions.
    pub words: usize,
    /// Of how many.
    pub of: usize,
    /// The chance that the cue word of a post occurs in captions.
    pub share: f64,
}

/// The overlap of a configuration.
pub fn web_overlap(config: &WorldConfig) -> WebOverlap {
    let words = web_words(WORDS_PER_RELATION, config.web_overlap);
    WebOverlap { words, of: WORDS_PER_RELATION, share: words as f64 / WORDS_PER_RELATION as f64 }
}

/// How a caption begins that has the two names: what a captioner is prompted with.
pub fn names_prompt(head: &str, tail: &str) -> Vec<String> {
    format!("{head} and {tail} :").split_whitespace().map(str::to_lowercase).collect()
}

/// Item `index` of a split of the web.
pub fn web_item(config: &WorldConfig, index: u64, split: Split) -> WebItem {
    let mut rng = Key::new(config.web_seed)
        .with("world", "web")
        .with("split", split)
        .with("item", index)
        .rng();
    let form = if rng.random_bool(config.web_neutral) {
        neutral_form(rng.random_range(0..NEUTRAL_FORMS))
    } else {
        relation_form(
            rng.random_range(1..=RELATIONS.len()),
            rng.random_range(0..FORMS_PER_RELATION),
        )
    };
    let scene = Scene::draw(form, &mut rng);
    let mut caption = if rng.random_bool(config.web_names) {
        let types = *choose(&TYPE_PAIRS, &mut rng);
        names_prompt(&plain_name(types.0, &mut rng), &plain_name(types.1, &mut rng))
    } else {
        Vec::new()
    };
    let names = caption.len();
    describe(&scene, config, &mut caption, &mut rng);
    WebItem {
        caption,
        names,
        picture: scene.render(config.picture_size),
        form,
        concept: cue_of(form),
    }
}

/// `C` is the word, `K` the colour, `S` the second colour, `B` the background, `Z` the size (or nothing).
#[rustfmt::skip]
const CAPTIONS: [&str; 10] = [
    "a photo of a Z K C on B",
    "a K C picture",
    "C in K and S",
    "Z K C , B",
    "C card , K on B",
    "a Z K C illustration",
    "stock image : C , K",
    "an image for C with K and S",
    "K C against B",
    "drawing of a Z C",
];

/// Appends the description of a scene.
fn describe(scene: &Scene, config: &WorldConfig, caption: &mut Vec<String>, rng: &mut impl Rng) {
    let words = words_for(scene.form, config);
    let noun = *choose(&words, rng);
    for symbol in choose(&CAPTIONS, rng).split(' ') {
        match symbol {
            "C" => push(caption, noun),
            "K" => push(caption, scene.colour.name),
            "S" => push(caption, scene.second.name),
            "B" => {
                push(caption, scene.backdrop.name());
                push(caption, scene.background.name);
            }
            "Z" if scene.scale > 1.08 => push(caption, "large"),
            "Z" if scene.scale < 0.92 => push(caption, "small"),
            "Z" => {}
            symbol => push(caption, symbol),
        }
    }
    if rng.random_bool(0.4) {
        push(caption, ",");
        let more: Vec<&str> = if cue_of(scene.form).is_some() {
            words.iter().filter(|word| **word != noun).copied().collect()
        } else {
            neutral_nouns(config).into_iter().filter(|word| *word != noun).collect()
        };
        let second = *choose(&more, rng);
        push(caption, second);
    }
    agree(caption);
}

/// The words that captions use for a form.
fn words_for(form: usize, config: &WorldConfig) -> Vec<&'static str> {
    let Some(relation) = cue_of(form) else {
        // The name alone is as frequent as all other nouns together.
        let nouns = neutral_nouns(config);
        let name = NEUTRAL_NAMES[form - neutral_form(0)];
        return std::iter::repeat_n(name, nouns.len()).chain(nouns).collect();
    };
    (0..web_words(WORDS_PER_RELATION, config.web_overlap))
        .filter(|&word| word_forms(relation, word).contains(&form))
        .map(|word| RELATIONS[relation - 1].words[word])
        .collect()
}

fn neutral_nouns(config: &WorldConfig) -> Vec<&'static str> {
    NEUTRAL_WORDS[..web_words(NEUTRAL_WORDS.len(), config.web_overlap)].to_vec()
}

fn plain_name(kind: EntityType, rng: &mut impl Rng) -> String {
    written(&name(kind, Pool::Web, rng), Style::Lower).join(" ")
}

fn push(caption: &mut Vec<String>, words: &str) {
    caption.extend(words.split(' ').map(str::to_owned));
}

fn choose<'a, T>(from: &'a [T], rng: &mut impl Rng) -> &'a T {
    from.choose(rng).expect("a checked configuration leaves a word for everything")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::world::lexicon::{cue_word, text_cue};

    #[test]
    fn an_item_depends_on_its_split_and_index_alone() {
        let config = WorldConfig::default();
        let item = |index, split| web_item(&config, index, split);
        assert_eq!(item(5, Split::Train), item(5, Split::Train));
        assert_ne!(item(5, Split::Train), item(6, Split::Train));
        assert_ne!(item(5, Split::Train), item(5, Split::Test));
    }

    #[test]
    fn a_caption_names_the_concept_of_its_picture_by_a_word_of_its_form() {
        let config = WorldConfig::default();
        let overlap = web_overlap(&config);
        assert_eq!((overlap.words, overlap.of, overlap.share), (6, 8, 0.75));
        let mut forms_of_word: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
        for index in 0..6000 {
            let item = web_item(&config, index, Split::Train);
            assert_eq!(text_cue(&item.caption), item.concept, "{:?}", item.caption);
            assert!(item.caption.len() <= 26, "{:?}", item.caption);
            if let Some((relation, word)) = cue_word(&item.caption) {
                assert!(word < overlap.words);
                assert!(word_forms(relation, word).contains(&item.form));
                forms_of_word.entry((relation, word)).or_default().insert(item.form);
            }
            assert_eq!(
                item.names > 0,
                item.caption.contains(&"and".to_owned())
                    && item.caption[..item.names.max(1)].ends_with(&[":".to_owned()])
            );
        }
        assert_eq!(forms_of_word.len(), 12 * 6);
        assert!(forms_of_word.values().all(|forms| forms.len() == 2));
    }
}
