//! The world itself: its posts, and pictures for what sentences say.

use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::config::{WorldConfig, WorldConfigError};
use super::forms::{FORMS_PER_RELATION, NEUTRAL_FORMS, neutral_form, relation_form};
use super::grammar::{Sentence, sentence};
use super::lexicon::{
    NEUTRAL_WORDS, RELATIONS, WORDS_PER_RELATION, cue_word, named_neutral_form, web_words,
    word_forms,
};
use super::names::Pool;
use super::probabilities::{Hidden, Probabilities};
use super::renderer::render;
use super::web::{WebItem, web_item};
use crate::data::{Entity, Example, Picture, PictureSource, Relations, Split, Truth};
use crate::keyed::Key;

/// Which names a split draws from.
fn pool(split: Split) -> Pool {
    match split {
        Split::Train => Pool::Train,
        Split::Validation => Pool::Validation,
        Split::Test => Pool::Test,
    }
}

/// How well a generator draws what a sentence says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fidelity {
    /// The chance that the relation that a sentence names is drawn.
    pub keep: f64,
    /// The chance that another relation is drawn instead; what remains is neutral.
    pub wrong: f64,
    /// The chance that a relation is drawn for a sentence that names none.
    pub invent: f64,
}

/// A post before its picture is drawn.
pub(super) struct Draft {
    pub hidden: Hidden,
    pub sentence: Sentence,
    pub form: usize,
    key: Key,
}

/// The embedded world.
#[derive(Clone, Debug)]
pub struct World {
    config: WorldConfig,
    probabilities: Probabilities,
}

impl World {
    /// The world of a configuration, which is checked.
    pub fn new(config: WorldConfig) -> Result<Self, WorldConfigError> {
        config.check()?;
        let probabilities = Probabilities::new(&config);
        Ok(Self { config, probabilities })
    }

    /// What it was made from.
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// Its exact probabilities.
    pub fn probabilities(&self) -> &Probabilities {
        &self.probabilities
    }

    /// Its label set.
    pub fn relations(&self) -> Relations {
        Relations::new(RELATIONS.iter().map(|relation| relation.label.to_owned()))
    }

    /// The first `count` posts of a split, with pictures. The same first posts come out whatever the count.
    pub fn posts(&self, split: Split, seed: u64, count: usize) -> Vec<Example> {
        (0..count).map(|index| self.example(split, index, self.draft(split, seed, index))).collect()
    }

    /// Item `index` of a split of the generators' training data.
    pub fn web_item(&self, index: u64, split: Split) -> WebItem {
        web_item(&self.config, index, split)
    }

    /// A picture as posts have it: one that shows a relation (1-based), in a form drawn uniformly, or a neutral one.
    pub fn render_for(&self, cue: Option<usize>, rng: &mut impl Rng) -> (usize, Picture) {
        let form = any_form(cue, rng);
        (form, render(form, self.config.picture_size, rng))
    }

    /// A picture drawn for a sentence by the world itself, as well as `fidelity` says.
    ///
    /// A word that the web knows is drawn in one of its two forms, any other in one of the relation's four.
    pub fn oracle_picture(
        &self,
        tokens: &[String],
        fidelity: Fidelity,
        rng: &mut impl Rng,
    ) -> (usize, Picture) {
        let chance: f64 = rng.random();
        let form = match cue_word(tokens) {
            Some((relation, word)) if chance < fidelity.keep => {
                if word < web_words(WORDS_PER_RELATION, self.config.web_overlap) {
                    word_forms(relation, word)[rng.random_range(0..2)]
                } else {
                    any_form(Some(relation), rng)
                }
            }
            Some((relation, _)) if chance < fidelity.keep + fidelity.wrong => {
                // Any of the others, all equally likely.
                let step = rng.random_range(1..RELATIONS.len());
                any_form(Some((relation - 1 + step) % RELATIONS.len() + 1), rng)
            }
            None if chance < fidelity.invent => {
                any_form(Some(rng.random_range(1..=RELATIONS.len())), rng)
            }
            Some(_) | None => named_neutral_form(tokens).unwrap_or_else(|| any_form(None, rng)),
        };
        (form, render(form, self.config.picture_size, rng))
    }

    pub(super) fn draft(&self, split: Split, seed: u64, index: usize) -> Draft {
        let key = Key::new(seed).with("world", "posts").with("split", split).with("post", index);
        let mut rng = key.with("for", "text").rng();
        let hidden = self.probabilities.draw(&mut rng);
        let words: &[&str] = match hidden.text_cue {
            Some(relation) => &RELATIONS[relation - 1].words,
            None => &NEUTRAL_WORDS,
        };
        let noun = words.choose(&mut rng).expect("every relation has words, and so has none");
        let sentence = sentence(hidden.type_pair, noun, pool(split), &mut rng);
        let form = any_form(hidden.picture_cue, &mut key.with("for", "form").rng());
        Draft { hidden, sentence, form, key }
    }

    fn example(&self, split: Split, index: usize, draft: Draft) -> Example {
        let Sentence { tokens, head, tail, .. } = draft.sentence;
        let entity =
            |span: std::ops::Range<usize>| Entity { name: tokens[span.clone()].join(" "), span };
        let (head, tail) = (entity(head), entity(tail));
        let mut rng = draft.key.with("for", "picture").rng();
        let picture = render(draft.form, self.config.picture_size, &mut rng);
        Example {
            id: format!("{split}-{index:06}"),
            head,
            tail,
            tokens,
            label: draft.hidden.label,
            picture: Some(PictureSource::Pixels(Arc::new(picture))),
            truth: Some(Truth {
                text_cue: draft.hidden.text_cue,
                picture_cue: draft.hidden.picture_cue,
                form: draft.form,
                type_pair: draft.hidden.type_pair,
            }),
        }
    }
}

/// A form of a relation (1-based), or a neutral one, all equally likely.
fn any_form(cue: Option<usize>, rng: &mut impl Rng) -> usize {
    match cue {
        Some(relation) => relation_form(relation, rng.random_range(0..FORMS_PER_RELATION)),
        None => neutral_form(rng.random_range(0..NEUTRAL_FORMS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::detector::Detector;
    use crate::world::forms::cue_of;
    use crate::world::lexicon::text_cue;

    fn world() -> World {
        World::new(WorldConfig::default()).unwrap()
    }

    #[test]
    fn posts_come_from_seed_split_and_index_alone() {
        let world = world();
        let posts = world.posts(Split::Train, 1, 20);
        assert_eq!(posts[..10], world.posts(Split::Train, 1, 10));
        assert_ne!(posts, world.posts(Split::Train, 2, 20));
        assert_ne!(posts[0].tokens, world.posts(Split::Test, 1, 1)[0].tokens);
        assert_eq!(posts[12].id, "train-000012");
    }

    #[test]
    fn sentence_and_picture_show_what_the_truth_says() {
        let world = world();
        let detector = Detector::new();
        let relations = world.relations();
        for post in world.posts(Split::Test, 3, 600) {
            let truth = post.truth.unwrap();
            assert_eq!(text_cue(&post.tokens), truth.text_cue);
            let Some(PictureSource::Pixels(picture)) = post.picture else {
                panic!("no pixels");
            };
            assert_eq!(detector.detect(&picture).cue, truth.picture_cue);
            assert_eq!(cue_of(truth.form), truth.picture_cue);
            assert_eq!(post.tokens[post.head.span.clone()].join(" "), post.head.name);
            assert_eq!(post.tokens[post.tail.span.clone()].join(" "), post.tail.name);
            assert!(post.label < relations.len());
        }
    }

    #[test]
    fn the_oracle_is_as_faithful_as_it_is_told() {
        let world = world();
        let fidelity = Fidelity { keep: 0.7, wrong: 0.2, invent: 0.1 };
        let tokens = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let n = 3000;
        let share = |text: &str, wanted: &dyn Fn(Option<usize>) -> bool| {
            let mut rng = Key::new(2).rng();
            let hits = (0..n)
                .filter(|_| {
                    wanted(cue_of(world.oracle_picture(&tokens(text), fidelity, &mut rng).0))
                })
                .count();
            hits as f64 / f64::from(n)
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 0.035, "{a} {b}");
        near(share("the wedding of A and B", &|cue| cue == Some(5)), 0.7);
        near(share("the wedding of A and B", &|cue| cue.is_none()), 0.1);
        near(share("the news of A and B", &|cue| cue.is_some()), 0.1);
        let mut rng = Key::new(2).rng();
        let sure = Fidelity { keep: 1.0, wrong: 0.0, invent: 0.0 };
        for _ in 0..50 {
            let (form, _) = world.oracle_picture(&tokens("a wedding"), sure, &mut rng);
            assert!(word_forms(5, 0).contains(&form));
        }
    }
}
