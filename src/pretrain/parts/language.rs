//! The text encoder and the captioner.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::nn::LinearConfig;
use burn::tensor::backend::Backend;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::captioner::CaptionerConfig;
use mi2rage_models::vit::ViTConfig;
use rand::Rng;

use super::{Part, TRANSFORMER, Trainer, Training};
use crate::data::tokens::{EncodedText, Tokenizer};
use crate::data::{Entity, Example};
use crate::keyed::Key;
use crate::pretrain::corpus::Captioned;
use crate::train::tasks::captions::{CaptionBatch, Captions};
use crate::train::tasks::masked_language::{self, MaskedLanguage, SceneOf, Sentence};
use crate::train::{self, Items};
use crate::world::forms::FORMS;

impl<B: Backend> Trainer<'_, B> {
    pub(super) fn text(&self) -> anyhow::Result<Training> {
        let part = &self.config.text;
        let tokenizer = self.read_tokenizer()?;
        let config = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..part.model.clone() };
        let model = config.init_masked_lm::<Autodiff<B>>(self.device);
        let scenes = LinearConfig::new(config.hidden_size, FORMS).init(self.device);
        let task = self.fresh(MaskedLanguage { model, scenes }, TRANSFORMER);
        let longest = config.max_position_embeddings;
        let sentences = |items: &[Captioned]| -> anyhow::Result<_> {
            let sentences = (0..items.len())
                .map(|index| scened(&tokenizer, items, index, longest, &self.key()))
                .collect::<anyhow::Result<_>>()?;
            Ok(masked_language::items(sentences, &tokenizer))
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "text encoder",
            task,
            &part.recipe,
            sentences(&self.corpus.train)?,
            sentences(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out masked accuracy".to_owned(), trained.kept().validation_f1),
            ("held-out nats a masked token".to_owned(), trained.kept().validation_loss),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }

    pub(super) fn captioner(&self) -> anyhow::Result<Training> {
        let part = &self.config.captioner;
        let tokenizer = self.read_tokenizer()?;
        let text = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..part.text.clone() };
        let config = CaptionerConfig { vision: self.config.vision.model.clone(), text };
        let mut model = self.fresh(config.init::<Autodiff<B>>(self.device), TRANSFORMER);
        let (_, scenes) = self.earlier(Part::Vision, |config: &ViTConfig| {
            Ok(config.init_classifier::<Autodiff<B>>(FORMS, self.device))
        })?;
        model.vision_model = scenes.vit;
        let task = Captions { model, freeze_vision: part.freeze_vision };
        let longest = config.text.max_position_embeddings;
        let captions = |items: &[Captioned]| -> anyhow::Result<_> {
            let mut encoded = Vec::with_capacity(items.len());
            for item in items {
                let ids = tokenizer.encode_plain(&item.caption, longest)?;
                // The names stand in the prompt and are not learnt.
                let prompt = &item.caption[..item.names];
                let prompt = tokenizer.encode_plain(prompt, longest)?.len() - 1;
                encoded.push((item.picture.clone(), ids, prompt));
            }
            let pad = tokenizer.special().pad;
            Ok(Items {
                len: encoded.len(),
                lengths: None,
                collate: Arc::new(move |at: &[usize], _: &Key| {
                    CaptionBatch::new(at.iter().map(|&at| encoded[at].clone()).collect(), pad)
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "captioner",
            task,
            &part.recipe,
            captions(&self.corpus.train)?,
            captions(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out token accuracy".to_owned(), trained.kept().validation_f1),
            ("held-out nats a token".to_owned(), trained.kept().validation_loss),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }
}

/// Words of names that are strewn into a scattered caption, at most.
const STREWN: usize = 6;

/// A caption for the text encoder. Where it names two entities they are marked as in posts. Every
/// second caption shows a bare letter for each of their tokens, as students may be shown them.
///
/// A post is no caption: its entities stand anywhere, among words that no caption has. So half of
/// the captions are scattered, their names (another caption's, where they have none) put into two
/// places of the description, with words of other names strewn in for the unknown ones. Of the
/// others half have the names last.
fn scened(
    tokenizer: &Tokenizer,
    items: &[Captioned],
    index: usize,
    longest: usize,
    key: &Key,
) -> anyhow::Result<Sentence> {
    let item = &items[index];
    let mut rng = key.with("scatter", index).rng();
    let example = if index % 4 < 2 {
        scattered(items, index, &mut rng)
    } else {
        let (names, rest) = item.caption.split_at(item.names);
        names_of(item).map(|[head, tail]| {
            let start = if index % 8 < 4 { 0 } else { rest.len() };
            let tokens = if start == 0 { [names, rest] } else { [rest, names] }.concat();
            let at = start + head.len() + 1;
            example(tokens, start..start + head.len(), at..at + tail.len())
        })
    };
    let Some(mut example) = example else {
        let ids = tokenizer.encode_plain(&item.caption, longest)?;
        return Ok(Sentence { ids, scene: Some(SceneOf { readout: [0, 0], scene: item.form }) });
    };
    if index.is_multiple_of(2) {
        example = example.with_masked_entities();
    }
    let EncodedText { ids, head_marker, tail_marker, .. } =
        tokenizer.encode_example(&example, longest)?;
    let scene = SceneOf { readout: [head_marker, tail_marker], scene: item.form };
    Ok(Sentence { ids, scene: Some(scene) })
}

/// The two names of a caption, which stand before it as `A and B :`.
fn names_of(item: &Captioned) -> Option<[&[String]; 2]> {
    let names = &item.caption[..item.names.saturating_sub(1)];
    let and = names.iter().position(|token| token == "and")?;
    Some([&names[..and], &names[and + 1..]])
}

fn scattered(items: &[Captioned], index: usize, rng: &mut impl Rng) -> Option<Example> {
    let mut donor = || {
        let any = (0..100).map(|_| &items[rng.random_range(0..items.len())]);
        any.filter_map(names_of).next()
    };
    let others: Vec<&[String]> = (0..STREWN).filter_map(|_| Some(donor()?[0])).collect();
    let [head, tail] = names_of(&items[index]).or_else(donor)?;
    let mut words: Vec<&[String]> = items[index].description().chunks(1).collect();
    for other in &others[..rng.random_range(0..=others.len())] {
        words.insert(rng.random_range(0..=words.len()), &other[..1]);
    }
    // Two different places, so that neither name stands inside the other.
    let mut places = [rng.random_range(0..=words.len()), rng.random_range(0..=words.len() + 1)];
    if places[1] == places[0] {
        places[1] = words.len() + 1;
    }
    words.insert(places[0], head);
    words.insert(places[1], tail);
    let at = |place: usize| words[..place].iter().map(|part| part.len()).sum::<usize>();
    // The first name has moved where the second was put before it.
    let first = places[0] + usize::from(places[1] <= places[0]);
    let (first, second) = (at(first), at(places[1]));
    Some(example(words.concat(), first..first + head.len(), second..second + tail.len()))
}

fn example(tokens: Vec<String>, head: Range<usize>, tail: Range<usize>) -> Example {
    let entity = |span: Range<usize>| Entity { name: tokens[span.clone()].join(" "), span };
    let (head, tail) = (entity(head), entity(tail));
    Example { id: String::new(), tokens, head, tail, label: 0, picture: None, truth: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::world::World;

    #[test]
    fn a_scattered_caption_keeps_its_words_and_has_its_names_where_it_says() {
        let world = World::new(Default::default()).unwrap();
        let items: Vec<Captioned> =
            (0..300).map(|index| world.web_item(index, Split::Train).into()).collect();
        let mut apart = 0;
        for index in 0..items.len() {
            let mut rng = Key::new(5).with("test", index).rng();
            let found = scattered(&items, index, &mut rng).unwrap();
            if let Some([head, tail]) = names_of(&items[index]) {
                assert_eq!(found.tokens[found.head.span.clone()], *head);
                assert_eq!(found.tokens[found.tail.span.clone()], *tail);
            }
            let (head, tail) = (&found.head.span, &found.tail.span);
            assert!(head.end <= tail.start || tail.end <= head.start, "{found:?}");
            apart += usize::from(head.end < tail.start || tail.end < head.start);
            let mut rest = found.tokens.iter();
            let description = items[index].description();
            assert!(description.iter().all(|word| rest.any(|token| token == word)));
        }
        assert!(apart > 200, "{apart}");
    }
}
