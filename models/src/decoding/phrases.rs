//! Which phrases a growing sequence holds, and when it has to write one.

use std::ops::Range;

/// How far one sequence has come with its phrases.
///
/// The invariant behind "every phrase appears": as long as a sequence is at most free to choose while
/// the tokens it owes are fewer than those that remain, and writes a phrase when they are equal, the
/// debt never exceeds what remains. A free token takes one from what remains and adds nothing to the
/// debt; a phrase takes from both alike (less from what remains if part of it stood there already).
#[derive(Clone)]
pub(super) struct Phrases<'a> {
    wanted: &'a [Vec<u32>],
    /// Where each phrase stands, once it does.
    spans: Vec<Option<Range<usize>>>,
    /// The end of the last span: spans do not overlap, so a later one begins here at the earliest.
    taken: usize,
    /// The phrase being written by force, and how many of its tokens stand.
    forced: Option<(usize, usize)>,
}

impl<'a> Phrases<'a> {
    pub(super) fn new(wanted: &'a [Vec<u32>]) -> Self {
        Self { wanted, spans: vec![None; wanted.len()], taken: 0, forced: None }
    }

    fn open(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.wanted.len()).filter(|&phrase| self.spans[phrase].is_none())
    }

    /// Tokens of all phrases that are not yet complete.
    pub(super) fn owed(&self) -> usize {
        self.open().map(|phrase| self.wanted[phrase].len()).sum()
    }

    /// Tokens of phrases that `text` holds: of complete ones, and of the one that it may end in.
    pub(super) fn met(&self, text: &[u32]) -> usize {
        let all: usize = self.wanted.iter().map(Vec::len).sum();
        let begun = self.open().map(|phrase| self.begun(phrase, text)).max();
        all - self.owed() + begun.unwrap_or(0)
    }

    /// How many first tokens of an open phrase `text` ends with.
    fn begun(&self, phrase: usize, text: &[u32]) -> usize {
        if let Some((forced, written)) = self.forced {
            return if forced == phrase { written } else { 0 };
        }
        let wanted = &self.wanted[phrase];
        let longest = (wanted.len() - 1).min(text.len() - self.taken);
        (1..=longest).rev().find(|&length| text.ends_with(&wanted[..length])).unwrap_or(0)
    }

    /// The open phrases, each with the token that it needs next after `text`.
    pub(super) fn next(&self, text: &[u32]) -> Vec<(usize, u32)> {
        self.open().map(|phrase| (phrase, self.wanted[phrase][self.begun(phrase, text)])).collect()
    }

    /// From here on, `phrase` is written to its end.
    pub(super) fn force(&mut self, phrase: usize, text: &[u32]) {
        self.forced = Some((phrase, self.begun(phrase, text)));
    }

    /// The phrase that is being written by force, and its next token.
    pub(super) fn forced(&self) -> Option<(usize, u32)> {
        self.forced.map(|(phrase, written)| (phrase, self.wanted[phrase][written]))
    }

    /// Takes note of the last token of `text`.
    pub(super) fn push(&mut self, text: &[u32]) {
        let complete = match &mut self.forced {
            // Other phrases that end inside this one would take its tokens away.
            Some((phrase, written)) => {
                *written += 1;
                (*written == self.wanted[*phrase].len()).then_some(*phrase)
            }
            None => self
                .open()
                .filter(|&phrase| text[self.taken..].ends_with(&self.wanted[phrase]))
                .max_by_key(|&phrase| self.wanted[phrase].len()),
        };
        if let Some(phrase) = complete {
            self.spans[phrase] = Some(text.len() - self.wanted[phrase].len()..text.len());
            self.taken = text.len();
            self.forced = None;
        }
    }

    /// Whether the last token of `text` ends a phrase.
    pub(super) fn just_ended(&self, text: &[u32]) -> bool {
        self.taken > 0 && self.taken == text.len()
    }

    /// Where the phrases stand; all of them do once nothing is owed.
    pub(super) fn into_spans(self) -> Vec<Range<usize>> {
        self.spans.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wanted: &[Vec<u32>], text: &[u32]) -> Vec<Option<Range<usize>>> {
        let mut phrases = Phrases::new(wanted);
        for end in 1..=text.len() {
            phrases.push(&text[..end]);
        }
        phrases.spans
    }

    #[test]
    fn one_occurrence_does_not_count_for_two_phrases() {
        let wanted = [vec![1, 2], vec![2], vec![1, 2]];
        let spans = written(&wanted, &[1, 2]);
        assert_eq!(spans.iter().flatten().count(), 1);
        assert_eq!(written(&wanted, &[1, 2, 2, 1, 2]).iter().flatten().count(), 3);
    }

    #[test]
    fn a_begun_phrase_is_continued_rather_than_begun_again() {
        let wanted = [vec![1, 1, 2]];
        let phrases = Phrases::new(&wanted);
        assert_eq!(phrases.next(&[3, 1, 1]), [(0, 2)]);
        assert_eq!(phrases.next(&[1, 1, 1]), [(0, 2)]);
        assert_eq!(phrases.next(&[1, 3]), [(0, 1)]);
        assert_eq!(phrases.met(&[1, 1, 1]), 2);
    }
}
