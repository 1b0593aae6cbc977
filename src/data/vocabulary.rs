//! A small WordPiece vocabulary from a stream of sentences.
//!
//! The trainer of the `tokenizers` crate numbers its symbols in the order of a randomly seeded hash
//! map and breaks ties by these numbers, so it gives another vocabulary in each run. This one is the
//! same everywhere: characters, then whole words by frequency, then pieces of the other words.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The special tokens; the identifier of each is its place: `[PAD]` is 0.
pub const SPECIAL: [&str; 9] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[H]", "[/H]", "[T]", "[/T]"];

/// A word seen once is more likely a name than a word; it is left to pieces.
const WORD_MIN_COUNT: u64 = 2;
/// The share of the room left after the characters that whole words may take, in eighths.
const WORD_EIGHTHS: usize = 6;

/// The entries of a vocabulary of at most `size`, in the order of their identifiers. Sentences are
/// lower-cased; a word is what white space separates.
///
/// Of the room beside the special tokens at most half goes to characters (the most frequent, alone
/// and continuing), then whole words, then pieces of the other words.
pub(super) fn train<'s, S>(sentences: S, size: usize) -> Vec<String>
where
    S: IntoIterator,
    S::Item: IntoIterator<Item = &'s str>,
{
    let words = count_words(sentences);
    let mut entries: Vec<String> = SPECIAL.iter().map(|&name| name.to_owned()).collect();
    let room = size.saturating_sub(entries.len());

    let mut characters: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in &words {
        for character in word.chars() {
            *characters.entry(character).or_default() += count;
        }
    }
    let mut characters: Vec<char> = by_weight(characters, room / 4);
    characters.sort_unstable();
    entries.extend(characters.iter().map(char::to_string));
    entries.extend(characters.iter().map(|character| format!("##{character}")));

    let room = size.saturating_sub(entries.len());
    let whole: BTreeMap<&str, u64> = words
        .iter()
        .filter(|(word, count)| *count >= WORD_MIN_COUNT && word.chars().count() > 1)
        // As an entry it could not be told from a continuing piece.
        .filter(|(word, _)| !word.starts_with("##"))
        .map(|(word, count)| (word.as_str(), *count))
        .collect();
    let whole = by_weight(whole, room * WORD_EIGHTHS / 8);
    entries.extend(whole.iter().map(|&word| word.to_owned()));

    let known: BTreeSet<String> = entries.iter().cloned().collect();
    let rest = words.iter().filter(|(word, _)| !known.contains(word));
    let room = size.saturating_sub(entries.len());
    entries.extend(Merges::new(rest, &known).pieces(known, room));
    entries
}

/// Byte-pair merging (Sennrich et al. 2016) of words into pieces. Which pair is merged depends on
/// counts and texts alone, never on the order of a hash map.
struct Merges {
    /// Each word as pieces (indices into `texts`) with its count.
    words: Vec<(Vec<usize>, u64)>,
    texts: Vec<String>,
    /// The index of each text: one piece may come of several merges.
    number: HashMap<String, usize>,
    /// How often two pieces stand side by side.
    pairs: HashMap<(usize, usize), u64>,
    /// The words in which they once did.
    places: HashMap<(usize, usize), Vec<usize>>,
}

impl Merges {
    fn new<'w>(words: impl Iterator<Item = &'w (String, u64)>, known: &BTreeSet<String>) -> Self {
        let mut merges = Self {
            words: Vec::new(),
            texts: Vec::new(),
            number: HashMap::new(),
            pairs: HashMap::new(),
            places: HashMap::new(),
        };
        for (word, count) in words {
            let pieces: Vec<String> = word
                .char_indices()
                .map(|(at, character)| match at {
                    0 => character.to_string(),
                    _ => format!("##{character}"),
                })
                .collect();
            // A word with a character outside of the vocabulary is unknown whatever its pieces.
            if !pieces.iter().all(|piece| known.contains(piece)) {
                continue;
            }
            let pieces = pieces.into_iter().map(|piece| merges.index(piece)).collect();
            merges.words.push((pieces, *count));
            merges.count(merges.words.len() - 1, true);
        }
        merges
    }

    fn index(&mut self, text: String) -> usize {
        if let Some(&index) = self.number.get(&text) {
            return index;
        }
        self.number.insert(text.clone(), self.texts.len());
        self.texts.push(text);
        self.texts.len() - 1
    }

    /// Adds a word's pairs to the counts or takes them away.
    fn count(&mut self, word: usize, add: bool) {
        let (pieces, count) = &self.words[word];
        for pair in pieces.windows(2) {
            let pair = (pair[0], pair[1]);
            let total = self.pairs.entry(pair).or_default();
            if add {
                *total += count;
                self.places.entry(pair).or_default().push(word);
            } else {
                *total -= count;
            }
        }
    }

    /// At most `room` pieces that are not known yet, each of which stands in two places or more.
    fn pieces(mut self, mut known: BTreeSet<String>, room: usize) -> Vec<String> {
        let mut pieces = Vec::new();
        while pieces.len() < room {
            let text = |piece: usize| self.texts[piece].as_str();
            let best = self.pairs.iter().max_by(|(left, more), (right, count)| {
                let names = |pair: &(usize, usize)| (text(pair.0), text(pair.1));
                more.cmp(count).then_with(|| names(right).cmp(&names(left)))
            });
            let Some((&pair, _)) = best.filter(|(_, count)| **count >= 2) else {
                break;
            };
            let right = text(pair.1);
            let merged = format!("{}{}", text(pair.0), right.strip_prefix("##").unwrap_or(right));
            let index = self.index(merged.clone());
            self.merge(pair, index);
            if known.insert(merged.clone()) {
                pieces.push(merged);
            }
        }
        pieces
    }

    fn merge(&mut self, pair: (usize, usize), merged: usize) {
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.dedup();
        for word in places {
            self.count(word, false);
            let pieces = &mut self.words[word].0;
            let mut at = 0;
            while at + 1 < pieces.len() {
                if (pieces[at], pieces[at + 1]) == pair {
                    pieces[at] = merged;
                    pieces.remove(at + 1);
                }
                at += 1;
            }
            self.count(word, true);
        }
        self.pairs.remove(&pair);
    }
}

/// Every word with its count, in the order of their first appearance.
fn count_words<'s, S>(sentences: S) -> Vec<(String, u64)>
where
    S: IntoIterator,
    S::Item: IntoIterator<Item = &'s str>,
{
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut words: Vec<(String, u64)> = Vec::new();
    for token in sentences.into_iter().flatten() {
        let token = token.to_lowercase();
        for word in token.split_whitespace() {
            match place.get(word) {
                Some(&place) => words[place].1 += 1,
                None => {
                    place.insert(word.to_owned(), words.len());
                    words.push((word.to_owned(), 1));
                }
            }
        }
    }
    words
}

/// The `most` heaviest keys, ties in the order of the keys.
fn by_weight<K: Ord>(weights: BTreeMap<K, u64>, most: usize) -> Vec<K> {
    let mut keys: Vec<(K, u64)> = weights.into_iter().collect();
    keys.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    keys.truncate(most);
    keys.into_iter().map(|(key, _)| key).collect()
}
