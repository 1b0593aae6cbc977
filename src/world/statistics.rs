//! What posts look like, counted: proof that the splits share nothing that would give a label away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::grammar::Sentence;
use super::posts::{Draft, World};
use super::web::{WebOverlap, web_overlap};
use crate::data::Split;

/// Counts over the posts of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitStatistics {
    /// Which split.
    pub split: Split,
    /// How many posts.
    pub posts: usize,
    /// Posts by label, `None` first.
    pub labels: Vec<usize>,
    /// Of the posts with a relation, the share whose sentence names it.
    pub text_cues: f64,
    /// Of the posts with a relation, the share whose picture shows it.
    pub picture_cues: f64,
    /// Of the posts without one, the share whose sentence names one.
    pub text_distractors: f64,
    /// Of the posts without one, the share whose picture shows one.
    pub picture_distractors: f64,
    /// The share of posts with a relation whose tail stands before the head.
    pub tail_first_related: f64,
    /// The same for posts without one.
    pub tail_first_unrelated: f64,
    /// Tokens in a sentence, mean.
    pub tokens: f64,
    /// How many different names.
    pub names: usize,
    /// How many different frames.
    pub frames: usize,
    /// Sentences that stand earlier in the same split.
    pub repeated: usize,
}

/// Counts over all splits, and what two of them share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorldStatistics {
    /// By split, in the order of [`Split::ALL`].
    pub splits: Vec<SplitStatistics>,
    /// Sentences that stand in more than one split.
    pub shared_sentences: usize,
    /// Names that stand in more than one split, in any spelling.
    pub shared_names: usize,
    /// Frames that sentences with a cue use both in train and in test.
    pub shared_frames: usize,
    /// How much of the cue words the web has.
    pub web: WebOverlap,
}

impl World {
    /// Statistics of the posts of `seed`, with as many posts in each split of [`Split::ALL`] as `sizes` says.
    pub fn statistics(&self, seed: u64, sizes: [usize; 3]) -> WorldStatistics {
        let drafts: Vec<(Split, Vec<Draft>)> = Split::ALL
            .into_iter()
            .zip(sizes)
            .map(|(split, size)| {
                let posts = (0..size).map(|index| self.draft(split, seed, index));
                (split, posts.collect())
            })
            .collect();
        let labels = self.probabilities().prior().len();
        let cue_frames = |wanted: Split| -> BTreeSet<&str> {
            drafts
                .iter()
                .filter(|(split, _)| *split == wanted)
                .flat_map(|(_, posts)| posts)
                .filter(|post| post.hidden.text_cue.is_some())
                .map(|post| post.sentence.frame)
                .collect()
        };
        WorldStatistics {
            splits: drafts.iter().map(|(split, posts)| of_split(*split, posts, labels)).collect(),
            shared_sentences: in_several(
                drafts
                    .iter()
                    .map(|(_, posts)| posts.iter().map(|post| post.sentence.tokens.join(" "))),
            ),
            shared_names: in_several(
                drafts.iter().map(|(_, posts)| posts.iter().flat_map(|post| names(&post.sentence))),
            ),
            shared_frames: cue_frames(Split::Train).intersection(&cue_frames(Split::Test)).count(),
            web: web_overlap(self.config()),
        }
    }
}

fn of_split(split: Split, posts: &[Draft], labels: usize) -> SplitStatistics {
    let mut by_label = vec![0; labels];
    for post in posts {
        by_label[post.hidden.label] += 1;
    }
    let share = |related: bool, wanted: &dyn Fn(&Draft) -> bool| {
        let group = posts.iter().filter(|post| (post.hidden.label > 0) == related);
        let hits = group.clone().filter(|post| wanted(post)).count();
        hits as f64 / group.count().max(1) as f64
    };
    let names_text = |post: &Draft| post.hidden.text_cue.is_some();
    let shows_picture = |post: &Draft| post.hidden.picture_cue.is_some();
    let tail_first = |post: &Draft| post.sentence.tail.start < post.sentence.head.start;
    let distinct = |items: Vec<String>| items.into_iter().collect::<BTreeSet<_>>().len();
    let sentences: Vec<String> = posts.iter().map(|post| post.sentence.tokens.join(" ")).collect();
    let total: usize = posts.iter().map(|post| post.sentence.tokens.len()).sum();
    SplitStatistics {
        split,
        posts: posts.len(),
        labels: by_label,
        text_cues: share(true, &names_text),
        picture_cues: share(true, &shows_picture),
        text_distractors: share(false, &names_text),
        picture_distractors: share(false, &shows_picture),
        tail_first_related: share(true, &tail_first),
        tail_first_unrelated: share(false, &tail_first),
        tokens: total as f64 / posts.len().max(1) as f64,
        names: distinct(posts.iter().flat_map(|post| names(&post.sentence)).collect()),
        frames: distinct(posts.iter().map(|post| post.sentence.frame.to_owned()).collect()),
        repeated: posts.len() - distinct(sentences),
    }
}

/// Both names, in one spelling.
fn names(sentence: &Sentence) -> [String; 2] {
    [&sentence.head, &sentence.tail]
        .map(|span| sentence.tokens[span.clone()].concat().trim_start_matches('@').to_lowercase())
}

/// How many items stand in more than one group.
fn in_several(groups: impl Iterator<Item = impl Iterator<Item = String>>) -> usize {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for group in groups {
        for item in group.collect::<BTreeSet<_>>() {
            *seen.entry(item).or_default() += 1;
        }
    }
    seen.values().filter(|&&count| count > 1).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::config::WorldConfig;

    #[test]
    fn splits_share_no_sentence_no_name_and_no_frame_with_a_cue() {
        let world = World::new(WorldConfig::default()).unwrap();
        let statistics = world.statistics(4, [3000, 1000, 3000]);
        println!("{statistics:#?}");
        assert_eq!(statistics.shared_sentences, 0);
        assert_eq!(statistics.shared_names, 0);
        assert_eq!(statistics.shared_frames, 0);
        for split in &statistics.splits {
            assert_eq!(split.repeated, 0);
            assert_eq!(split.labels.iter().sum::<usize>(), split.posts);
            for (seen, expected, tolerance) in [
                (split.text_cues, 0.5, 0.08),
                (split.picture_cues, 0.6, 0.08),
                (split.text_distractors, 0.1, 0.05),
                (split.picture_distractors, 0.1, 0.05),
                (split.tail_first_related, split.tail_first_unrelated, 0.08),
            ] {
                assert!((seen - expected).abs() < tolerance, "{seen} {expected}");
            }
        }
    }
}
