//! Which samples a chain makes and which training pairs they give.

use std::fmt;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::keyed::Key;

/// One half of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// The sentence.
    Text,
    /// The picture.
    Picture,
}

impl Modality {
    /// The other half.
    pub fn other(self) -> Self {
        match self {
            Self::Text => Self::Picture,
            Self::Picture => Self::Text,
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Picture => "picture",
        })
    }
}

/// Which modality training data lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Real sentences; pictures are generated.
    MissingImage,
    /// Real pictures with the names of head and tail; sentences are generated.
    MissingText,
}

impl Setting {
    /// The modality that is generated for training.
    pub fn missing(self) -> Modality {
        match self {
            Self::MissingImage => Modality::Picture,
            Self::MissingText => Modality::Text,
        }
    }

    /// The modality that is real in training.
    pub fn real(self) -> Modality {
        self.missing().other()
    }
}

/// Which halves are trained on together.
///
/// A chain ends with the missing modality of its last round, all that [`Pairing::Anchor`] needs;
/// the other two have the last round completed by its second half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// The real half with what each round generated for the missing one: (T0, Ij).
    Anchor,
    /// What one round generated together: (Tj, Ij).
    Round,
    /// Both of the above.
    All,
}

/// The size of the chains and what is made of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainConfig {
    /// Rounds a chain, k; 1 is direct generation.
    pub rounds: NonZeroUsize,
    /// Chains an item, n, each with noise of its own.
    pub chains: NonZeroUsize,
    /// Which halves are trained on together.
    pub pairing: Pairing,
}

impl ChainConfig {
    /// The baseline: as many chains, one round each.
    pub fn direct(&self) -> Self {
        Self { rounds: NonZeroUsize::MIN, ..self.clone() }
    }

    /// The baseline of the same number of samples: one round, n * k chains.
    pub fn direct_matched(&self) -> Self {
        Self {
            rounds: NonZeroUsize::MIN,
            chains: self.chains.saturating_mul(self.rounds),
            pairing: self.pairing,
        }
    }

    /// What each chain makes, in the order in which it is made: round (from 1) and modality.
    pub fn steps(&self, setting: Setting) -> Vec<(usize, Modality)> {
        let last = self.rounds.get();
        let mut steps = Vec::new();
        for round in 1..=last {
            steps.push((round, setting.missing()));
            if round < last || self.pairing != Pairing::Anchor {
                steps.push((round, setting.real()));
            }
        }
        steps
    }
}

/// The identity of a generated sample.
///
/// Neither the number of rounds nor that of chains is part of it, so that longer or more chains
/// hold the samples of shorter or fewer ones: round 1 of chain c is what direct generation makes
/// as its chain c.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleKey {
    /// The id of the real example.
    pub item: String,
    /// From 0.
    pub chain: usize,
    /// From 1; the real example is round 0.
    pub round: usize,
    /// What the sample is.
    pub modality: Modality,
}

impl SampleKey {
    /// The key of the sample's noise in the experiment of this seed.
    pub fn noise(&self, seed: u64) -> Key {
        Key::new(seed)
            .with("item", &self.item)
            .with("chain", self.chain)
            .with("round", self.round)
            .with("purpose", self.modality)
    }

    /// The sample it is made from; `None` where that is the real half.
    pub fn parent(&self, setting: Setting) -> Option<Self> {
        let round = if self.modality == setting.missing() {
            self.round.saturating_sub(1)
        } else {
            self.round
        };
        (round > 0).then(|| Self {
            item: self.item.clone(),
            chain: self.chain,
            round,
            modality: self.modality.other(),
        })
    }
}

impl fmt::Display for SampleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of round {}, chain {}, item {}",
            self.modality, self.round, self.chain, self.item
        )
    }
}

/// Which of the two kinds of pair a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairKind {
    /// The real half and a generated one.
    Anchor,
    /// Two generated halves of one round.
    Round,
}

/// The identity of a training pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairId {
    /// The id of the real example.
    pub item: String,
    /// From 0.
    pub chain: usize,
    /// From 1.
    pub round: usize,
    /// What the generated half is paired with.
    pub kind: PairKind,
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PairKind::Anchor => "anchor",
            PairKind::Round => "round",
        };
        write!(f, "{kind} pair of round {}, chain {}, item {}", self.round, self.chain, self.item)
    }
}

/// Where a half of a pair comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Half {
    /// The real example.
    Real,
    /// A generated sample.
    Generated(SampleKey),
}

/// A sentence and a picture to train on together, with the label of the real example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPair {
    /// Its identity.
    pub id: PairId,
    /// The sentence.
    pub text: Half,
    /// The picture.
    pub picture: Half,
}

/// The training pairs of an item, by chain, then round, then kind.
pub fn pairs(item: &str, setting: Setting, config: &ChainConfig) -> Vec<TrainingPair> {
    let kinds: &[PairKind] = match config.pairing {
        Pairing::Anchor => &[PairKind::Anchor],
        Pairing::Round => &[PairKind::Round],
        Pairing::All => &[PairKind::Anchor, PairKind::Round],
    };
    let mut pairs = Vec::new();
    for chain in 0..config.chains.get() {
        for round in 1..=config.rounds.get() {
            let half = |modality, kind| {
                if modality == setting.real() && kind == PairKind::Anchor {
                    return Half::Real;
                }
                Half::Generated(SampleKey { item: item.to_owned(), chain, round, modality })
            };
            pairs.extend(kinds.iter().map(|&kind| TrainingPair {
                id: PairId { item: item.to_owned(), chain, round, kind },
                text: half(Modality::Text, kind),
                picture: half(Modality::Picture, kind),
            }));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(rounds: usize, chains: usize, pairing: Pairing) -> ChainConfig {
        ChainConfig {
            rounds: NonZeroUsize::new(rounds).unwrap(),
            chains: NonZeroUsize::new(chains).unwrap(),
            pairing,
        }
    }

    fn sample(chain: usize, round: usize, modality: Modality) -> SampleKey {
        SampleKey { item: "a".into(), chain, round, modality }
    }

    #[test]
    fn a_chain_ends_with_the_missing_modality_unless_rounds_are_paired() {
        use Modality::{Picture, Text};
        let three = config(3, 1, Pairing::Anchor);
        assert_eq!(
            three.steps(Setting::MissingImage),
            [(1, Picture), (1, Text), (2, Picture), (2, Text), (3, Picture)]
        );
        assert_eq!(
            three.steps(Setting::MissingText),
            [(1, Text), (1, Picture), (2, Text), (2, Picture), (3, Text)]
        );
        assert_eq!(
            config(1, 1, Pairing::Round).steps(Setting::MissingImage),
            [(1, Picture), (1, Text)]
        );
    }

    #[test]
    fn a_sample_is_made_from_the_one_before_it_and_the_first_from_the_real_half() {
        for setting in [Setting::MissingImage, Setting::MissingText] {
            let steps = config(3, 1, Pairing::All).steps(setting);
            let mut before = None;
            for (round, modality) in steps {
                let key = sample(0, round, modality);
                assert_eq!(key.parent(setting), before);
                before = Some(key);
            }
        }
    }

    #[test]
    fn round_one_of_a_long_chain_is_the_sample_of_direct_generation() {
        let long = config(3, 2, Pairing::Anchor);
        let direct = long.direct_matched();
        assert_eq!((direct.rounds.get(), direct.chains.get()), (1, 6));
        let direct: Vec<_> = pairs("a", Setting::MissingImage, &direct);
        for pair in pairs("a", Setting::MissingImage, &long) {
            if pair.id.round == 1 {
                assert!(direct.contains(&pair));
            }
        }
        // The same key means the same noise; the number of rounds and chains is not asked.
        let key = sample(1, 1, Modality::Picture);
        assert_eq!(
            key.noise(5).seed(),
            Key::new(5)
                .with("item", "a")
                .with("chain", 1)
                .with("round", 1)
                .with("purpose", "picture")
                .seed()
        );
    }

    #[test]
    fn each_pairing_lists_its_pairs() {
        use Modality::{Picture, Text};
        let list = |setting, pairing| -> Vec<(Half, Half)> {
            pairs("a", setting, &config(2, 1, pairing))
                .into_iter()
                .map(|pair| (pair.text, pair.picture))
                .collect()
        };
        let text = |round| Half::Generated(sample(0, round, Text));
        let picture = |round| Half::Generated(sample(0, round, Picture));
        assert_eq!(
            list(Setting::MissingImage, Pairing::Anchor),
            [(Half::Real, picture(1)), (Half::Real, picture(2))]
        );
        assert_eq!(
            list(Setting::MissingText, Pairing::Anchor),
            [(text(1), Half::Real), (text(2), Half::Real)]
        );
        assert_eq!(
            list(Setting::MissingImage, Pairing::Round),
            [(text(1), picture(1)), (text(2), picture(2))]
        );
        assert_eq!(
            list(Setting::MissingText, Pairing::All),
            [
                (text(1), Half::Real),
                (text(1), picture(1)),
                (text(2), Half::Real),
                (text(2), picture(2))
            ]
        );
    }

    proptest! {
        #[test]
        fn every_half_that_a_pair_needs_is_made_and_every_pair_id_is_unique(
            rounds in 1usize..5, chains in 1usize..4, kind in 0usize..3, text in any::<bool>(),
        ) {
            let setting = if text { Setting::MissingText } else { Setting::MissingImage };
            let pairing = [Pairing::Anchor, Pairing::Round, Pairing::All][kind];
            let config = config(rounds, chains, pairing);
            let steps = config.steps(setting);
            let all = pairs("a", setting, &config);
            for half in all.iter().flat_map(|pair| [&pair.text, &pair.picture]) {
                if let Half::Generated(key) = half {
                    prop_assert!(key.chain < chains);
                    prop_assert!(steps.contains(&(key.round, key.modality)));
                }
            }
            let ids: std::collections::BTreeSet<_> = all.iter().map(|pair| &pair.id).collect();
            prop_assert_eq!(ids.len(), all.len());
            let a_round = if pairing == Pairing::All { 2 } else { 1 };
            prop_assert_eq!(all.len(), rounds * chains * a_round);
        }
    }
}
