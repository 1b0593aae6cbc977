//! The sentences of posts, from a recursive grammar.
//!
//! A sentence is a frame, which holds the head, the tail and one noun, amid free material: openings, adverbial
//! phrases that nest, tweet noise. The noun names the relation or is neutral, and the same frames serve both, so
//! that a frame says nothing about the label. Test posts use frames that training posts never do.

use std::ops::Range;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::lexicon::{EntityType, TYPE_PAIRS};
use super::names::{Pool, Style, name, written};

/// Tokens that a sentence has at least and at most.
pub const LENGTH: [usize; 2] = [8, 22];

/// A frame: tokens, where `H` and `T` are the entities, `C` is the noun, `L` the preposition that suits the type
/// pair, and `<name>` a rule of [`expand`].
type Frame = &'static str;

#[rustfmt::skip]
const TRAIN_FRAMES: [Frame; 24] = [
    // The head stands first.
    "H <says> something about the C L T",
    "H and T : <adjective> C <when>",
    "<intro> H L T , what a C",
    "the C of H L T <verdict>",
    "H <posts> the C <when> L T",
    "<adjective> C for H L T",
    "H <feels> after the C L T",
    "can not stop thinking of the C , H L T",
    "<intro> the C brought H to T",
    "H , T and a <adjective> C",
    "C <when> : H L T",
    "H told us of the C L T",
    "so it is C time for H L T",
    "the <adjective> C that links H with T",
    "look at H L T , <adjective> C",
    "H <posts> one more C from T",
    "no one saw the C of H and T coming",
    "C special by H <when> , T <verdict>",
    // The tail stands first.
    "T and H : <adjective> C",
    "L T , the C of H <verdict>",
    "T <says> a lot about H and the C",
    "<intro> T gave H a <adjective> C",
    "thanks to T for the C with H",
    "all of T <feels> over the C of H",
];

#[rustfmt::skip]
const TEST_FRAMES: [Frame; 16] = [
    // The head stands first.
    "H mentions the C L T <when>",
    "<intro> a C with H L T",
    "pictures of the C : H L T",
    "we asked H about T and the C",
    "for H the C L T <verdict>",
    "H L T and this C , <adjective> stuff",
    "that C ! H <feels> L T",
    "some C <when> between H and T",
    "H still has the C from T in mind",
    "how was the C , H ? greetings from T",
    "when H <posts> T it is a C",
    "everyone talks of H , T and that C",
    // The tail stands first.
    "T sends H a C <when>",
    "what T says on the C of H",
    "T , H and the <adjective> C",
    "<intro> from T with H : the C",
];

/// The rules: a name, and what it may become. No word here names a relation.
#[rustfmt::skip]
const RULES: [(&str, &[&str]); 14] = [
    ("posts", &["posts", "shares", "shows", "reports", "misses"]),
    ("says", &["says", "writes", "tweets", "posts"]),
    ("feels", &["is happy", "is tired", "smiles", "is all ears", "feels <adverb> fine", "waits"]),
    ("adjective", &["big", "nice", "lovely", "strange", "quiet", "<adverb> long", "great", "simple", "<adverb> funny"]),
    ("adverb", &["very", "really", "quite", "rather"]),
    ("verdict", &["is <adjective>", "went well", "made <my> day", "was <adverb> good", "keeps us busy"]),
    ("my", &["my", "our", "his", "her"]),
    ("when", &["today", "tonight", "this week", "last <season>", "<before>", "again"]),
    ("before", &["before dinner", "after a <adjective> day", "on a <adjective> day", "before the rain <more>"]),
    ("more", &["", "and <before>"]),
    ("season", &["year", "month", "winter", "spring", "autumn"]),
    ("intro", &["so", "well ,", "breaking :", "oh", "you know ,", "just in :", "fun fact :", "guess what :"]),
    ("open", &["RT <user> :", "<user>", "lol", "omg", "wow ,", "ok ,", "hey <user> ,", "FYI :", ". <user>"]),
    ("close", &["<tag>", "<tag> <tag>", "!", "!!", "...", "via <user>", "<url>", "<url> <tag>", "; <before> <tag>", ":)"]),
];

#[rustfmt::skip]
const TAGS: [&str; 12] = [
    "#tbt", "#nofilter", "#happy", "#blessed", "#life", "#love2tweet", "#wow", "#follow", "#daily", "#vibes", "#mondaze", "#fyi",
];

/// A sentence with the places of its entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub tokens: Vec<String>,
    /// Where the head stands.
    pub head: Range<usize>,
    /// Where the tail stands.
    pub tail: Range<usize>,
    /// The frame it is made from.
    pub frame: Frame,
}

/// The frames that sentences with this pool of names use; validation shares those of training.
pub fn frames(pool: Pool) -> &'static [Frame] {
    match pool {
        Pool::Test => &TEST_FRAMES,
        Pool::Train | Pool::Validation | Pool::Web => &TRAIN_FRAMES,
    }
}

/// A sentence about two entities of a type pair (an index into [`TYPE_PAIRS`]) with `noun` in its frame.
pub fn sentence(type_pair: usize, noun: &str, pool: Pool, rng: &mut impl Rng) -> Sentence {
    loop {
        let attempt = attempt(type_pair, noun, pool, rng);
        if (LENGTH[0]..=LENGTH[1]).contains(&attempt.tokens.len()) {
            return attempt;
        }
    }
}

fn attempt(type_pair: usize, noun: &str, pool: Pool, rng: &mut impl Rng) -> Sentence {
    let frame = choose(frames(pool), rng);
    let mut tokens = Vec::new();
    if rng.random_bool(0.35) {
        expand("<open>", &mut tokens, rng);
    }
    let (mut head, mut tail) = (0..0, 0..0);
    let types = TYPE_PAIRS[type_pair];
    let shouted = rng.random_bool(0.06);
    for symbol in frame.split(' ') {
        let from = tokens.len();
        match symbol {
            "H" => {
                tokens.extend(mention(types.0, pool, rng));
                head = from..tokens.len();
            }
            "T" => {
                tokens.extend(mention(types.1, pool, rng));
                tail = from..tokens.len();
            }
            "C" => tokens.extend(
                noun.split(' ')
                    .map(|word| if shouted { word.to_uppercase() } else { word.to_owned() }),
            ),
            "L" => tokens.extend(choose(links(type_pair), rng).split(' ').map(str::to_owned)),
            symbol => expand(symbol, &mut tokens, rng),
        }
    }
    if rng.random_bool(0.3) {
        expand("<when>", &mut tokens, rng);
    }
    if rng.random_bool(0.6) {
        expand("<close>", &mut tokens, rng);
    }
    agree(&mut tokens);
    let lower_start = rng.random_bool(0.5);
    if let Some(first) = tokens.first_mut().filter(|_| !lower_start)
        && head.start > 0
        && tail.start > 0
    {
        let mut letters = first.chars();
        *first = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    }
    Sentence { tokens, head, tail, frame }
}

/// Makes "a" an "an" before a vowel.
pub(super) fn agree(tokens: &mut [String]) {
    for at in 1..tokens.len() {
        if tokens[at - 1] == "a"
            && tokens[at].starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U'])
        {
            tokens[at - 1] = "an".to_owned();
        }
    }
}

/// A name of this type as a post writes it; persons and organisations have handles.
fn mention(kind: EntityType, pool: Pool, rng: &mut impl Rng) -> Vec<String> {
    let words = name(kind, pool, rng);
    let handles = matches!(kind, EntityType::Person | EntityType::Organisation);
    let style = match rng.random_range(0..20) {
        0 | 1 if handles => Style::Handle,
        2 | 3 => Style::Lower,
        _ => Style::Full,
    };
    written(&words, style)
}

/// The prepositions between head and tail of a type pair.
fn links(type_pair: usize) -> &'static [&'static str] {
    match TYPE_PAIRS[type_pair] {
        (EntityType::Person, EntityType::Person) => &["with", "and", "next to"],
        (EntityType::Person, EntityType::Organisation) => &["at", "of", "with"],
        (EntityType::Person, EntityType::Place) => &["in", "from", "near"],
        (EntityType::Person, _) => &["for", "at", "in"],
        _ => &["in", "from", "at"],
    }
}

/// Appends what `symbol` expands to; a symbol that is no rule is a token.
fn expand(symbol: &str, tokens: &mut Vec<String>, rng: &mut impl Rng) {
    match symbol {
        "" => {}
        "<user>" => {
            let letters: String =
                (0..rng.random_range(4..8)).map(|_| rng.random_range('a'..='z')).collect();
            tokens.push(format!("@{letters}{}", rng.random_range(1..100)));
        }
        "<url>" => {
            let path: String = (0..6).map(|_| rng.random_range('a'..='z')).collect();
            tokens.push(format!("http://t.co/{path}"));
        }
        "<tag>" => tokens.push(choose(&TAGS, rng).to_owned()),
        symbol => {
            let rule = symbol
                .strip_prefix('<')
                .and_then(|symbol| symbol.strip_suffix('>'))
                .and_then(|symbol| RULES.iter().find(|(name, _)| *name == symbol));
            match rule {
                Some((_, alternatives)) => {
                    for symbol in choose(alternatives, rng).split(' ') {
                        expand(symbol, tokens, rng);
                    }
                }
                None => tokens.push(symbol.to_owned()),
            }
        }
    }
}

fn choose<'a>(from: &[&'a str], rng: &mut impl Rng) -> &'a str {
    from.choose(rng).expect("every list of the grammar is filled")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::keyed::Key;
    use crate::world::lexicon::{NEUTRAL_WORDS, RELATIONS, text_cue};

    #[test]
    fn train_and_test_share_no_frame_and_each_holds_both_entities_and_the_noun_once() {
        let train: HashSet<_> = TRAIN_FRAMES.iter().collect();
        assert!(TEST_FRAMES.iter().all(|frame| !train.contains(frame)));
        for frame in TRAIN_FRAMES.iter().chain(&TEST_FRAMES) {
            for symbol in ["H", "T", "C"] {
                let count = frame.split(' ').filter(|other| *other == symbol).count();
                assert_eq!(count, 1, "{frame}: {symbol}");
            }
        }
    }

    #[test]
    fn every_symbol_in_brackets_is_a_rule() {
        let texts = RULES
            .iter()
            .flat_map(|(_, alternatives)| alternatives.iter())
            .chain(&TRAIN_FRAMES)
            .chain(&TEST_FRAMES);
        for text in texts {
            for symbol in text.split(' ').filter(|symbol| symbol.starts_with('<')) {
                let built_in = ["<user>", "<url>", "<tag>"].contains(&symbol);
                let name = symbol.trim_matches(['<', '>']);
                assert!(built_in || RULES.iter().any(|(rule, _)| *rule == name), "{text}");
            }
        }
    }

    #[test]
    fn a_sentence_names_the_relation_of_its_noun_and_no_other() {
        for index in 0..6000 {
            let mut rng = Key::new(3).with("sentence", index).rng();
            let relation = index % (RELATIONS.len() + 1);
            let noun = if relation == 0 {
                NEUTRAL_WORDS[index % NEUTRAL_WORDS.len()]
            } else {
                RELATIONS[relation - 1].words[index % 8]
            };
            let pool = [Pool::Train, Pool::Validation, Pool::Test][index % 3];
            let sentence = sentence(index % 5, noun, pool, &mut rng);
            let cue = text_cue(&sentence.tokens);
            assert_eq!(cue, (relation > 0).then_some(relation), "{sentence:?}");
            assert!((LENGTH[0]..=LENGTH[1]).contains(&sentence.tokens.len()));
            assert!(!sentence.head.is_empty() && !sentence.tail.is_empty());
            assert!(sentence.tail.end <= sentence.tokens.len());
            let apart = sentence.head.end <= sentence.tail.start
                || sentence.tail.end <= sentence.head.start;
            assert!(apart);
        }
    }

    #[test]
    fn the_tail_stands_first_in_about_a_quarter_whatever_the_noun() {
        for pool in [Pool::Train, Pool::Test] {
            let mut rng = Key::new(4).rng();
            let n = 2000;
            let first = (0..n)
                .filter(|_| {
                    let sentence = sentence(0, "news", pool, &mut rng);
                    sentence.tail.start < sentence.head.start
                })
                .count();
            let share = first as f64 / f64::from(n);
            assert!((0.18..0.32).contains(&share), "{share}");
        }
    }
}
