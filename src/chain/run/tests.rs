use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::chain::plan::Pairing;
use crate::chain::store::Fingerprint;
use crate::data::PictureSource;
use crate::keyed::Key;

/// Makes samples that depend on key and content, and nothing else; counts batches, and sets the
/// interrupt flag after so many.
struct Fake<'a> {
    batch: usize,
    batches: Cell<usize>,
    stop_after: usize,
    interrupt: &'a AtomicBool,
}

impl Fake<'_> {
    fn count(&self, prompts: usize) {
        assert_eq!(prompts, self.batch, "every batch has the same size");
        self.batches.set(self.batches.get() + 1);
        if self.batches.get() == self.stop_after {
            self.interrupt.store(true, Ordering::Relaxed);
        }
    }
}

fn mixed(key: &Key, content: &str) -> u64 {
    key.with("content", content).rng().random()
}

impl TextToImage for Fake<'_> {
    fn draw(&self, prompts: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError> {
        self.count(prompts.len());
        let draw = |prompt: &TextPrompt| {
            let content = format!("{:?} {:?} {:?}", prompt.tokens, prompt.head, prompt.tail);
            Picture {
                width: 4,
                height: 2,
                rgb: mixed(&prompt.key, &content).to_le_bytes().repeat(3),
            }
        };
        Ok(prompts.iter().map(draw).collect())
    }

    fn fingerprint(&self) -> String {
        "fake G".into()
    }
}

impl ImageToText for Fake<'_> {
    fn caption(&self, prompts: &[PicturePrompt]) -> Result<Vec<Caption>, GeneratorError> {
        self.count(prompts.len());
        let caption = |prompt: &PicturePrompt| {
            let word = mixed(&prompt.key, &format!("{:?}", prompt.picture.rgb));
            Caption {
                tokens: vec![prompt.head.clone(), word.to_string(), prompt.tail.clone()],
                head: 0..1,
                tail: 2..3,
            }
        };
        Ok(prompts.iter().map(caption).collect())
    }

    fn fingerprint(&self) -> String {
        "fake C".into()
    }
}

fn item(number: usize) -> Example {
    let entity = |name: &str, at| Entity { name: format!("{name}{number}"), span: at..at + 1 };
    Example {
        id: format!("item {number}"),
        tokens: vec![format!("head{number}"), "likes".into(), format!("tail{number}")],
        head: entity("head", 0),
        tail: entity("tail", 2),
        label: 1,
        picture: Some(PictureSource::Pixels(Arc::new(Picture {
            width: 1,
            height: 1,
            rgb: vec![number as u8; 3],
        }))),
        truth: None,
    }
}

fn in_memory(item: &Example) -> Result<Arc<Picture>, Box<dyn std::error::Error + Send + Sync>> {
    match &item.picture {
        Some(PictureSource::Pixels(picture)) => Ok(picture.clone()),
        _ => Err("no picture".into()),
    }
}

fn config(rounds: usize, chains: usize, pairing: Pairing) -> ChainConfig {
    ChainConfig {
        rounds: NonZeroUsize::new(rounds).unwrap(),
        chains: NonZeroUsize::new(chains).unwrap(),
        pairing,
    }
}

fn open(root: &Path, setting: Setting) -> Store {
    Store::open(root, Fingerprint::new(setting, 1, &BTreeMap::new())).unwrap()
}

fn generate(
    root: &Path,
    setting: Setting,
    config: &ChainConfig,
    items: &[Example],
    batch: usize,
    stop_after: usize,
) -> (Result<(), RunError>, Vec<Progress>) {
    let interrupt = AtomicBool::new(false);
    let fake = Fake { batch, batches: Cell::new(0), stop_after, interrupt: &interrupt };
    let run = Run {
        setting,
        config,
        seed: 1,
        text_to_image: &fake,
        image_to_text: &fake,
        load_picture: &in_memory,
        batch: NonZeroUsize::new(batch).unwrap(),
        interrupt: &interrupt,
    };
    let mut seen = Vec::new();
    let result = run.generate(items, &mut open(root, setting), &mut |progress| seen.push(progress));
    (result, seen)
}

fn contents(root: &Path, setting: Setting, items: &[Example]) -> Vec<Sample> {
    let store = open(root, setting);
    items
        .iter()
        .flat_map(|item| store.samples_of(&item.id, setting))
        .map(|key| store.read(key).unwrap())
        .collect()
}

/// What a kill leaves: some segment may lack the end of its last write.
fn tear(root: &Path, setting: Setting, bytes: u64) {
    let folder = open(root, setting).folder().to_owned();
    let mut segments: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    if let Some(last) = segments.last() {
        let file = fs::OpenOptions::new().write(true).open(last).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(bytes)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_outcome_does_not_depend_on_batches_order_subsets_or_interruptions(
        missing_text in any::<bool>(),
        rounds in 1usize..4,
        chains in 1usize..4,
        pairing in prop_oneof![Just(Pairing::Anchor), Just(Pairing::All)],
        order in Just((0usize..6).collect::<Vec<_>>()).prop_shuffle(),
        first in 1usize..7,
        batches in (1usize..9, 1usize..9),
        stops in prop::collection::vec((1usize..5, 0u64..400), 0..4),
    ) {
        let setting = if missing_text { Setting::MissingText } else { Setting::MissingImage };
        let config = config(rounds, chains, pairing);
        let items: Vec<_> = (0..6).map(item).collect();
        let straight = tempfile::tempdir().unwrap();
        generate(straight.path(), setting, &config, &items, batches.0, 0).0.unwrap();

        let other = tempfile::tempdir().unwrap();
        let shuffled: Vec<_> = order.iter().map(|&number| item(number)).collect();
        for (stop_after, torn) in stops {
            let subset = &shuffled[..first.min(6)];
            let (result, _) =
                generate(other.path(), setting, &config, subset, batches.1, stop_after);
            let is_interrupt = matches!(result, Err(RunError::Interrupted { .. }));
            prop_assert!(result.is_ok() || is_interrupt);
            tear(other.path(), setting, torn);
        }
        generate(other.path(), setting, &config, &shuffled, batches.1, 0).0.unwrap();

        let expected = contents(straight.path(), setting, &items);
        prop_assert_eq!(expected.len(), 6 * chains * config.steps(setting).len());
        prop_assert_eq!(contents(other.path(), setting, &items), expected);
    }
}

#[test]
fn each_sample_is_made_from_the_one_before_it() {
    let root = tempfile::tempdir().unwrap();
    let config = config(2, 1, Pairing::Anchor);
    let setting = Setting::MissingImage;
    generate(root.path(), setting, &config, &[item(3)], 1, 0).0.unwrap();
    let made = contents(root.path(), setting, &[item(3)]);
    let [one, two, three] = &made[..] else { panic!("three samples") };
    assert_eq!(one.parent, None);
    assert_eq!(two.parent.as_ref(), Some(&one.key));
    assert_eq!(three.parent.as_ref(), Some(&two.key));
    assert_eq!((&*one.generator, &*two.generator), ("fake G", "fake C"));

    // The last picture follows from the caption before it, the head's name carried from the item.
    let Payload::Caption(caption) = &two.payload else { panic!("a caption") };
    let interrupt = AtomicBool::new(false);
    let fake = Fake { batch: 1, batches: Cell::new(0), stop_after: 0, interrupt: &interrupt };
    let picture = fake.draw(&[TextPrompt {
        sample: three.key.clone(),
        key: three.key.noise(1),
        tokens: caption.tokens.clone(),
        head: Entity { name: "head3".into(), span: 0..1 },
        tail: Entity { name: "tail3".into(), span: 2..3 },
    }]);
    assert_eq!(three.payload, Payload::Picture(picture.unwrap().remove(0)),);
}

#[test]
fn longer_and_more_chains_reuse_the_samples_of_direct_generation() {
    let root = tempfile::tempdir().unwrap();
    let setting = Setting::MissingImage;
    let items: Vec<_> = (0..3).map(item).collect();
    let long = config(2, 2, Pairing::Anchor);
    generate(root.path(), setting, &long.direct(), &items, 4, 0).0.unwrap();
    let (result, seen) = generate(root.path(), setting, &long, &items, 4, 0);
    result.unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.held, last.done, last.total), (6, 18, 18));
    let (result, seen) = generate(root.path(), setting, &long, &items, 4, 0);
    result.unwrap();
    assert!(seen.is_empty(), "nothing is made twice");
}

#[test]
fn an_interrupt_says_how_far_it_came() {
    let root = tempfile::tempdir().unwrap();
    let config = config(1, 2, Pairing::Anchor);
    let items: Vec<_> = (0..5).map(item).collect();
    let (result, seen) = generate(root.path(), Setting::MissingImage, &config, &items, 4, 2);
    assert!(matches!(result, Err(RunError::Interrupted { done: 8, total: 10 })));
    assert_eq!(seen.len(), 2);
}

#[test]
fn items_that_share_an_id_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let config = config(1, 1, Pairing::Anchor);
    let (result, _) =
        generate(root.path(), Setting::MissingImage, &config, &[item(1), item(1)], 1, 0);
    assert!(matches!(result, Err(RunError::DuplicateItem { id }) if id == "item 1"));
}

/// Breaks the contract: too few results, or a span behind the sentence.
struct Bad;

impl TextToImage for Bad {
    fn draw(&self, _: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError> {
        Ok(Vec::new())
    }

    fn fingerprint(&self) -> String {
        "bad".into()
    }
}

impl ImageToText for Bad {
    fn caption(&self, prompts: &[PicturePrompt]) -> Result<Vec<Caption>, GeneratorError> {
        let caption = Caption { tokens: vec!["a".into()], head: 0..1, tail: 1..2 };
        Ok(vec![caption; prompts.len()])
    }

    fn fingerprint(&self) -> String {
        "bad".into()
    }
}

#[test]
fn a_generator_that_breaks_its_contract_is_an_error_and_leaves_nothing() {
    for (setting, expected) in [
        (Setting::MissingImage, "returned 0 results for 2 prompts"),
        (Setting::MissingText, "put an entity at 1..2 of 1 tokens"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let run = Run {
            setting,
            config: &config(1, 1, Pairing::Anchor),
            seed: 1,
            text_to_image: &Bad,
            image_to_text: &Bad,
            load_picture: &in_memory,
            batch: NonZeroUsize::new(2).unwrap(),
            interrupt: &AtomicBool::new(false),
        };
        let mut store = open(root.path(), setting);
        let error = run.generate(&[item(0)], &mut store, &mut |_| ());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("item 0"), "{error}");
        assert!(store.is_empty());
    }
}

#[test]
fn a_real_picture_that_cannot_be_loaded_is_named() {
    let root = tempfile::tempdir().unwrap();
    let without = Example { picture: None, ..item(7) };
    let config = config(1, 1, Pairing::Anchor);
    let (result, _) = generate(root.path(), Setting::MissingText, &config, &[without], 1, 0);
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "the picture of item item 7: no picture");
}
