//! From sentences to token identifiers and back.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokenizers::{AddedToken, Tokenizer as Inner};

use super::vocabulary::{SPECIAL, train};
use super::{DataError, Example};

/// The shortest encoding of an example that can be asked for: `[CLS] [H] x [/H] [T] x [/T] [SEP]`.
pub const MIN_LENGTH: usize = 8;

/// What begins a piece that continues a word.
const CONTINUES: &str = "##";

/// A WordPiece tokenizer with markers for the head and tail entity.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Inner,
    special: Special,
    /// Pieces of words that came before: a corpus has each many times.
    known: Arc<RwLock<HashMap<String, Vec<u32>>>>,
}

/// Words whose pieces are kept.
const KNOWN: usize = 1 << 16;

/// Bytes of the longest of them; whole sentences come, too.
const LONGEST_KNOWN: usize = 32;

/// Identifiers of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// `[PAD]`
    pub pad: u32,
    /// `[UNK]`
    pub unknown: u32,
    /// `[CLS]`, the first of every sequence
    pub start: u32,
    /// `[SEP]`, the last of every sequence
    pub end: u32,
    /// `[MASK]`
    pub mask: u32,
    /// `[H]` and `[/H]`, around the head
    pub head: [u32; 2],
    /// `[T]` and `[/T]`, around the tail
    pub tail: [u32; 2],
}

/// An example as a text encoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedText {
    /// `[CLS] ... [H] head [/H] ... [T] tail [/T] ... [SEP]`
    pub ids: Vec<u32>,
    /// Where in `ids` the `[H]` stands.
    pub head_marker: usize,
    /// Where in `ids` the `[T]` stands.
    pub tail_marker: usize,
    /// Whether something had to be left out.
    pub truncated: bool,
}

/// Sequences side by side, padded to one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded {
    /// `[rows, length]`, row by row.
    pub ids: Vec<u32>,
    /// `[rows, length]`: true where a token stands, false on padding.
    pub mask: Vec<bool>,
    /// How many sequences.
    pub rows: usize,
    /// How long each is.
    pub length: usize,
}

impl Tokenizer {
    /// A lower-casing vocabulary of at most `size` entries, learnt from sentences given as tokens.
    /// The same sentences give the same vocabulary, in every process; the identifiers of the
    /// special tokens are their places in [`SPECIAL`].
    ///
    /// # Errors
    /// Never for a size that holds the special tokens; the tokenizers crate's message otherwise.
    pub fn train<'s, S>(sentences: S, size: usize) -> Result<Self, DataError>
    where
        S: IntoIterator,
        S::Item: IntoIterator<Item = &'s str>,
    {
        let vocabulary: serde_json::Map<_, _> = train(sentences, size)
            .into_iter()
            .zip(0_u32..)
            .map(|(entry, id)| (entry, id.into()))
            .collect();
        let json = serde_json::json!({
            "version": "1.0",
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {
                "type": "WordPiece",
                "unk_token": SPECIAL[1],
                "continuing_subword_prefix": CONTINUES,
                "max_input_chars_per_word": 100,
                "vocab": vocabulary,
            },
        });
        let name = Path::new("the trained vocabulary");
        Self::from_bytes(name, json.to_string().as_bytes())
    }

    /// Reads a `tokenizer.json` with a BERT vocabulary. Where it has no entity markers, its
    /// `[unused1]` to `[unused4]` become them, as BERT's authors meant these; where it has neither,
    /// four entries are added at its end.
    ///
    /// # Errors
    /// [`DataError::Read`]; [`DataError::Tokenizer`] if it is no tokenizer or lacks `[PAD]`,
    /// `[UNK]`, `[CLS]`, `[SEP]` or `[MASK]`.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(DataError::read(path))?;
        Self::from_bytes(path, &bytes)
    }

    /// As [`Self::load`], from the file's content; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, DataError> {
        let mut inner = Inner::from_bytes(bytes).map_err(|error| unusable(path, error))?;
        inner.with_truncation(None).map_err(|error| unusable(path, error))?;
        inner.with_padding(None);
        Self::with_markers(path, inner)
    }

    /// The content of a `tokenizer.json`, the same for the same tokenizer.
    ///
    /// # Errors
    /// The tokenizers crate's message.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(|error| unusable(Path::new("tokenizer.json"), error))
    }

    pub(super) fn with_markers(path: &Path, mut inner: Inner) -> Result<Self, DataError> {
        let id = |name: &str| {
            inner.token_to_id(name).ok_or_else(|| unusable(path, format!("it has no {name}")))
        };
        let (pad, unknown, start, end, mask) =
            (id(SPECIAL[0])?, id(SPECIAL[1])?, id(SPECIAL[2])?, id(SPECIAL[3])?, id(SPECIAL[4])?);
        let unused: Vec<String> = (1..=4).map(|place| format!("[unused{place}]")).collect();
        let own: Vec<String> = SPECIAL[5..].iter().map(|&name| name.to_owned()).collect();
        let has = |names: &[String]| names.iter().all(|name| inner.token_to_id(name).is_some());
        let names = if !has(&own) && has(&unused) { unused } else { own };
        let added: Vec<AddedToken> = SPECIAL[..5]
            .iter()
            .map(|&name| name.to_owned())
            .chain(names.iter().cloned())
            .map(|name| AddedToken::from(name, true))
            .collect();
        inner.add_special_tokens(&added);
        // A sentence that holds the text "[SEP]" holds five characters, no end of a sequence.
        inner.set_encode_special_tokens(true);
        let id = |place: usize| {
            inner
                .token_to_id(&names[place])
                .ok_or_else(|| unusable(path, format!("it takes no {}", names[place])))
        };
        let special = Special {
            pad,
            unknown,
            start,
            end,
            mask,
            head: [id(0)?, id(1)?],
            tail: [id(2)?, id(3)?],
        };
        Ok(Self { inner, special, known: Arc::default() })
    }

    /// How many embeddings an encoder needs: one above the highest identifier.
    pub fn vocabulary_size(&self) -> usize {
        let vocabulary = self.inner.get_vocab(true);
        vocabulary.values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The first identifier above all special ones; a trained vocabulary has those first.
    pub fn first_ordinary(&self) -> u32 {
        let special = &self.special;
        let one = [special.pad, special.unknown, special.start, special.end, special.mask];
        let all = one.into_iter().chain(special.head).chain(special.tail);
        all.max().map_or(0, |id| id + 1)
    }

    /// Identifiers of the special tokens.
    pub fn special(&self) -> &Special {
        &self.special
    }

    /// The text of one identifier, `##` and all.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The pieces of one token; never none.
    ///
    /// # Errors
    /// The tokenizers crate's message.
    pub fn pieces(&self, token: &str) -> Result<Vec<u32>, DataError> {
        // Whoever panicked with the lock left whole entries.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        if let Some(pieces) = known {
            return Ok(pieces);
        }
        let encoding = self
            .inner
            .encode_fast(token, false)
            .map_err(|error| unusable(Path::new("the tokenizer"), error))?;
        let pieces = match encoding.get_ids() {
            [] => vec![self.special.unknown],
            ids => ids.to_vec(),
        };
        if token.len() <= LONGEST_KNOWN {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() < KNOWN {
                known.insert(token.to_owned(), pieces.clone());
            }
        }
        Ok(pieces)
    }

    /// `[CLS] pieces [SEP]`, the last pieces left out where it would be longer than `max_length`.
    ///
    /// # Errors
    /// As [`Self::pieces`].
    pub fn encode_plain(
        &self,
        tokens: &[String],
        max_length: usize,
    ) -> Result<Vec<u32>, DataError> {
        let room = max_length.max(2) - 1;
        let mut ids = vec![self.special.start];
        for token in tokens {
            ids.extend(self.pieces(token)?);
            if ids.len() >= room {
                ids.truncate(room);
                break;
            }
        }
        ids.push(self.special.end);
        Ok(ids)
    }

    /// The sentence with `[H]`, `[/H]` around its head and `[T]`, `[/T]` around its tail, which may
    /// overlap. Where it would be longer than `max_length` (at least [`MIN_LENGTH`]), the markers
    /// stay, then the entities' own pieces, then what stands nearest to an entity.
    ///
    /// # Errors
    /// As [`Self::pieces`].
    pub fn encode_example(
        &self,
        example: &Example,
        max_length: usize,
    ) -> Result<EncodedText, DataError> {
        let mut body: Vec<Slot> = Vec::new();
        let spans = [&example.head.span, &example.tail.span];
        let marks = marks(spans, example.tokens.len());
        let mut marks = marks.iter().peekable();
        for place in 0..=example.tokens.len() {
            while let Some(mark) = marks.next_if(|mark| mark.place == place) {
                let pair = [self.special.head, self.special.tail][mark.entity];
                body.push(Slot {
                    id: pair[usize::from(mark.closes)],
                    kind: match mark.closes {
                        false => Kind::Opens(mark.entity),
                        true => Kind::Closes,
                    },
                });
            }
            if let Some(token) = example.tokens.get(place) {
                let kind = match spans.iter().any(|span| span.contains(&place)) {
                    true => Kind::Entity,
                    false => Kind::Context,
                };
                let pieces = self.pieces(token)?;
                body.extend(pieces.into_iter().map(|id| Slot { id, kind }));
            }
        }
        let room = max_length.max(MIN_LENGTH) - 2;
        let truncated = body.len() > room;
        if truncated {
            body = nearest(body, room);
        }
        let marker = |entity| {
            // Both opening marks are always set, and `nearest` keeps marks before all else.
            let place = body.iter().position(|slot| slot.kind == Kind::Opens(entity));
            place.map_or(0, |place| place + 1)
        };
        Ok(EncodedText {
            head_marker: marker(0),
            tail_marker: marker(1),
            truncated,
            ids: std::iter::once(self.special.start)
                .chain(body.iter().map(|slot| slot.id))
                .chain(std::iter::once(self.special.end))
                .collect(),
        })
    }

    /// The tokens that identifiers stand for: pieces joined, special tokens left out up to the first
    /// `[SEP]`, which ends the text. What [`Self::train`] encodes comes back as its white-space
    /// tokens in lower case; a BERT vocabulary also splits at punctuation and stays split.
    pub fn decode(&self, ids: &[u32]) -> Vec<String> {
        let special = &self.special;
        let mut tokens: Vec<String> = Vec::new();
        for &id in ids.iter().take_while(|&&id| id != special.end) {
            let marks = [special.pad, special.start, special.mask];
            if marks.contains(&id) || special.head.contains(&id) || special.tail.contains(&id) {
                continue;
            }
            let Some(piece) = self.inner.id_to_token(id) else {
                continue;
            };
            match (piece.strip_prefix(CONTINUES), tokens.last_mut()) {
                (Some(rest), Some(word)) if !rest.is_empty() => word.push_str(rest),
                (Some(rest), None) if !rest.is_empty() => tokens.push(rest.to_owned()),
                _ => tokens.push(piece),
            }
        }
        tokens
    }

    /// Pads sequences to the longest, rounded up to a multiple of four (fewer shapes to compile and
    /// allocate for) but not above `max_length`, the number of positions that the model has.
    pub fn pad<S: AsRef<[u32]>>(&self, sequences: &[S], max_length: usize) -> Padded {
        Padded::new(sequences, self.special.pad, max_length)
    }
}

impl Padded {
    /// As [`Tokenizer::pad`], with `pad` for padding.
    pub fn new<S: AsRef<[u32]>>(sequences: &[S], pad: u32, max_length: usize) -> Self {
        let longest = sequences.iter().map(|row| row.as_ref().len()).max();
        let longest = longest.unwrap_or(0).max(1);
        let length = longest.next_multiple_of(4).min(max_length).max(longest);
        let mut ids = vec![pad; sequences.len() * length];
        let mut mask = vec![false; ids.len()];
        for (row, sequence) in sequences.iter().enumerate() {
            let sequence = sequence.as_ref();
            let place = row * length..row * length + sequence.len();
            ids[place.clone()].copy_from_slice(sequence);
            mask[place].fill(true);
        }
        Self { ids, mask, rows: sequences.len(), length }
    }
}

fn unusable(path: &Path, message: impl ToString) -> DataError {
    DataError::Tokenizer { path: path.to_owned(), message: message.to_string() }
}

/// One place of an encoded sentence.
#[derive(Clone, Copy)]
struct Slot {
    id: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The opening mark of the head (0) or the tail (1).
    Opens(usize),
    Closes,
    Entity,
    Context,
}

/// A mark before the token at `place`.
struct Mark {
    place: usize,
    closes: bool,
    /// 0 the head, 1 the tail.
    entity: usize,
}

/// The four marks in the order of the text. Between the same two tokens closing marks come first,
/// the inner span's before the outer's, then opening marks, the outer span's first.
fn marks(spans: [&Range<usize>; 2], tokens: usize) -> [Mark; 4] {
    let mut marks = [(0, false), (0, true), (1, false), (1, true)].map(|(entity, closes)| {
        let span = spans[entity];
        let place = if closes { span.end } else { span.start };
        Mark { place: place.min(tokens), closes, entity }
    });
    // The head is the outer one of two equal spans.
    marks.sort_by_key(|mark| {
        let span = spans[mark.entity];
        let other = match mark.closes {
            true => (usize::MAX - span.start, 1 - mark.entity),
            false => (usize::MAX - span.end, mark.entity),
        };
        (mark.place, !mark.closes, other)
    });
    marks
}

/// The `room` most needed slots, in their order.
fn nearest(body: Vec<Slot>, room: usize) -> Vec<Slot> {
    let far = body.len();
    let mut distance = vec![far; body.len()];
    let mut since = far;
    for (place, slot) in body.iter().enumerate() {
        since = if slot.kind == Kind::Context { since.saturating_add(1) } else { 0 };
        distance[place] = since;
    }
    since = far;
    for (place, slot) in body.iter().enumerate().rev() {
        since = if slot.kind == Kind::Context { since.saturating_add(1) } else { 0 };
        distance[place] = distance[place].min(since);
    }
    let mut order: Vec<usize> = (0..body.len()).collect();
    order.sort_by_key(|&place| match body[place].kind {
        Kind::Opens(_) => (0, 0),
        Kind::Closes => (1, 0),
        Kind::Entity => (2, 0),
        Kind::Context => (3, distance[place]),
    });
    order.truncate(room);
    order.sort_unstable();
    order.into_iter().map(|place| body[place]).collect()
}

/// Where an entity's name first stands in a text, compared token by token without case.
pub fn find_span(tokens: &[String], name: &str) -> Option<Range<usize>> {
    let name: Vec<String> = name.split_whitespace().map(str::to_lowercase).collect();
    if name.is_empty() {
        return None;
    }
    let start = tokens.windows(name.len()).position(|window| {
        window.iter().zip(&name).all(|(token, name)| token.to_lowercase() == *name)
    })?;
    Some(start..start + name.len())
}

#[cfg(test)]
mod tests;
