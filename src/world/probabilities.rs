//! What can be known of a post's relation: the exact joint distribution, and the ceilings that follow.
//!
//! A relation `y` (0 is `None`) and the pair of entity types `g` are hidden behind a text that names the relation
//! `t` or none, and a picture that shows the relation `v` or none:
//!
//! - `P(y = 0) = p_none`; `P(y = r)` is proportional to `r^-prior_skew`.
//! - `g` is that of the relation; for `None`, as frequent as among the relations.
//! - `t = y` with probability `p_text`, else none. For `None`, with probability `distract_text`, `t` is one of the
//!   relations of `g`, all equally likely; else none.
//! - `v` likewise, with `p_picture` and `distract_picture`; independent of `t` given `y` and `g`.
//!
//! The sentence shows `(g, t)` and the picture `v`; names, words, forms, colours are independent of `y` given those.

use std::collections::BTreeMap;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::config::WorldConfig;
use super::lexicon::{RELATIONS, TYPE_PAIRS};

/// What is hidden in a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hidden {
    /// The label, 0 for `None`.
    pub label: usize,
    /// The pair of entity types, an index into [`TYPE_PAIRS`].
    pub type_pair: usize,
    /// The relation that the sentence names.
    pub text_cue: Option<usize>,
    /// The relation that the picture shows.
    pub picture_cue: Option<usize>,
}

/// The halves of a post that an observer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The sentence: type pair and text cue.
    Text,
    /// The picture's cue.
    Picture,
    /// Both.
    Both,
}

/// The best that any observer of a view can reach, on infinitely many posts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Mutual information of the view with the label, in nats.
    pub information: f64,
    /// The least expected log-loss, in nats: the label's entropy given the view.
    pub log_loss: f64,
    /// The largest share of right labels.
    pub accuracy: f64,
    /// The largest micro-F1 without `None`.
    pub micro_f1: f64,
    /// Precision of the decisions that reach it.
    pub precision: f64,
    /// Recall of the decisions that reach it.
    pub recall: f64,
    /// Those decisions name the likeliest relation where its posterior is at least this, else `None`.
    ///
    /// It is half the F1 reached (Lipton, Elkan, Naryanaswamy 2014, "Optimal thresholding of classifiers to
    /// maximize F1 measure") or the next larger posterior.
    pub threshold: f64,
}

/// The joint distribution of a world.
#[derive(Clone, Debug)]
pub struct Probabilities {
    config: WorldConfig,
    /// By label.
    prior: Vec<f64>,
    /// Given `None`.
    type_pairs: Vec<f64>,
    cells: Vec<(Hidden, f64)>,
}

/// The relations of a type pair.
fn relations_of(type_pair: usize) -> Vec<usize> {
    (1..=RELATIONS.len())
        .filter(|&relation| RELATIONS[relation - 1].type_pair == type_pair)
        .collect()
}

impl Probabilities {
    /// The distribution of a checked configuration.
    pub fn new(config: &WorldConfig) -> Self {
        let weights: Vec<f64> =
            (1..=RELATIONS.len()).map(|rank| (rank as f64).powf(-config.prior_skew)).collect();
        let total: f64 = weights.iter().sum();
        let mut type_pairs = vec![0.0; TYPE_PAIRS.len()];
        for (relation, weight) in RELATIONS.iter().zip(&weights) {
            type_pairs[relation.type_pair] += weight / total;
        }
        let mut prior = vec![config.p_none];
        prior.extend(weights.iter().map(|weight| (1.0 - config.p_none) * weight / total));

        let mut cells = Vec::new();
        let mut add = |label, type_pair, mass: f64, texts: &[Cue], pictures: &[Cue]| {
            for &(text_cue, p) in texts {
                for &(picture_cue, q) in pictures {
                    let hidden = Hidden { label, type_pair, text_cue, picture_cue };
                    if mass * p * q > 0.0 {
                        cells.push((hidden, mass * p * q));
                    }
                }
            }
        };
        for label in 1..prior.len() {
            let cues = |p: f64| [(Some(label), p), (None, 1.0 - p)];
            add(
                label,
                RELATIONS[label - 1].type_pair,
                prior[label],
                &cues(config.p_text),
                &cues(config.p_picture),
            );
        }
        for (type_pair, share) in type_pairs.iter().enumerate() {
            let allowed = relations_of(type_pair);
            let cues = |p: f64| -> Vec<Cue> {
                let each = p / allowed.len() as f64;
                let distractors = allowed.iter().map(|&relation| (Some(relation), each));
                distractors.chain([(None, 1.0 - p)]).collect()
            };
            add(
                0,
                type_pair,
                prior[0] * share,
                &cues(config.distract_text),
                &cues(config.distract_picture),
            );
        }
        Self { config: config.clone(), prior, type_pairs, cells }
    }

    /// The probability of each label, `None` first.
    pub fn prior(&self) -> &[f64] {
        &self.prior
    }

    /// Draws what is hidden in a post.
    pub fn draw(&self, rng: &mut impl Rng) -> Hidden {
        let label = choose(&self.prior, rng);
        if label == 0 {
            let type_pair = choose(&self.type_pairs, rng);
            let allowed = relations_of(type_pair);
            let mut distractor =
                |p| rng.random_bool(p).then(|| allowed[rng.random_range(0..allowed.len())]);
            return Hidden {
                label,
                type_pair,
                text_cue: distractor(self.config.distract_text),
                picture_cue: distractor(self.config.distract_picture),
            };
        }
        Hidden {
            label,
            type_pair: RELATIONS[label - 1].type_pair,
            text_cue: rng.random_bool(self.config.p_text).then_some(label),
            picture_cue: rng.random_bool(self.config.p_picture).then_some(label),
        }
    }

    /// The probability of each label given what is seen; what is not seen is `None`.
    ///
    /// A cue is `Some(None)` where the half was seen and names or shows no relation. The prior where the
    /// observation has probability 0.
    pub fn posterior(
        &self,
        type_pair: Option<usize>,
        text_cue: Option<Option<usize>>,
        picture_cue: Option<Option<usize>>,
    ) -> Vec<f64> {
        let mut masses = vec![0.0; self.prior.len()];
        for (hidden, mass) in &self.cells {
            if type_pair.is_none_or(|seen| seen == hidden.type_pair)
                && text_cue.is_none_or(|seen| seen == hidden.text_cue)
                && picture_cue.is_none_or(|seen| seen == hidden.picture_cue)
            {
                masses[hidden.label] += mass;
            }
        }
        let total: f64 = masses.iter().sum();
        if total == 0.0 {
            return self.prior.clone();
        }
        masses.into_iter().map(|mass| mass / total).collect()
    }

    /// The best that can be reached from a view.
    pub fn ceiling(&self, view: View) -> Ceiling {
        let mut observations: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for (hidden, mass) in &self.cells {
            let text = (hidden.type_pair, hidden.text_cue);
            let seen = match view {
                View::Text => (Some(text), None),
                View::Picture => (None, Some(hidden.picture_cue)),
                View::Both => (Some(text), Some(hidden.picture_cue)),
            };
            let masses = observations.entry(seen).or_insert_with(|| vec![0.0; self.prior.len()]);
            masses[hidden.label] += mass;
        }
        let observations: Vec<Vec<f64>> = observations.into_values().collect();
        ceiling(&observations)
    }
}

/// A relation or none, and its probability.
type Cue = (Option<usize>, f64);

/// The best that can be reached where observation `x` comes with label `y` with probability `joint[x][y]`.
pub fn ceiling(joint: &[Vec<f64>]) -> Ceiling {
    let labels = joint.first().map_or(0, Vec::len);
    let prior: Vec<f64> =
        (0..labels).map(|label| joint.iter().map(|masses| masses[label]).sum()).collect();
    let surprise = |mass: f64, total: f64| {
        if mass > 0.0 { -mass * (mass / total).ln() } else { 0.0 }
    };
    let (mut log_loss, mut accuracy) = (0.0, 0.0);
    // Per observation: its probability, and that of its likeliest relation together with it.
    let mut bets: Vec<(f64, f64)> = Vec::new();
    for masses in joint {
        let total: f64 = masses.iter().sum();
        log_loss += masses.iter().map(|&mass| surprise(mass, total)).sum::<f64>();
        accuracy += masses.iter().copied().fold(0.0, f64::max);
        bets.push((total, masses.iter().skip(1).copied().fold(0.0, f64::max)));
    }
    let entropy: f64 = prior.iter().map(|&mass| surprise(mass, 1.0)).sum();

    // The optimal decisions bet on the observations whose likeliest relation is the likeliest: try each number.
    bets.retain(|bet| bet.1 > 0.0);
    bets.sort_by(|a, b| (b.1 / b.0).total_cmp(&(a.1 / a.0)));
    let positives: f64 = prior.iter().skip(1).sum();
    let (mut hits, mut named) = (0.0, 0.0);
    let mut best = Ceiling {
        information: entropy - log_loss,
        log_loss,
        accuracy,
        micro_f1: 0.0,
        precision: 0.0,
        recall: 0.0,
        threshold: 1.0,
    };
    for (mass, hit) in bets {
        hits += hit;
        named += mass;
        let micro_f1 = 2.0 * hits / (named + positives);
        if micro_f1 > best.micro_f1 {
            best = Ceiling {
                micro_f1,
                precision: hits / named,
                recall: hits / positives,
                threshold: hit / mass,
                ..best
            };
        }
    }
    best
}

/// The decision of the F1-optimal rule: the likeliest relation where its posterior reaches `threshold`, else 0.
pub fn decide(posterior: &[f64], threshold: f64) -> usize {
    let (label, &likeliest) = posterior
        .iter()
        .enumerate()
        .skip(1)
        .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))
        .unwrap_or((0, &0.0));
    // Posteriors that are equal on paper differ in their last bits.
    if likeliest >= threshold - 1e-9 { label } else { 0 }
}

fn choose(weights: &[f64], rng: &mut impl Rng) -> usize {
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    weights.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;

    fn world() -> Probabilities {
        Probabilities::new(&WorldConfig::default())
    }

    #[test]
    fn the_table_sums_to_one_and_gives_the_prior_to_an_observer_of_nothing() {
        let world = world();
        let total: f64 = world.cells.iter().map(|(_, mass)| mass).sum();
        assert!((total - 1.0).abs() < 1e-12);
        for (a, b) in world.posterior(None, None, None).iter().zip(world.prior()) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn every_cell_is_drawn_as_often_as_the_table_says() {
        let world = world();
        let mut rng = Key::new(6).rng();
        let n = 200_000;
        let mut counts: BTreeMap<Hidden, f64> = BTreeMap::new();
        for _ in 0..n {
            *counts.entry(world.draw(&mut rng)).or_default() += 1.0 / f64::from(n);
        }
        for (hidden, mass) in &world.cells {
            let seen = counts.remove(hidden).unwrap_or_default();
            let deviation = (mass * (1.0 - mass) / f64::from(n)).sqrt();
            assert!((seen - mass).abs() < 4.5 * deviation, "{hidden:?}: {seen} {mass}");
        }
        assert!(counts.is_empty(), "drawn but not in the table: {counts:?}");
    }

    #[test]
    fn simulated_observers_reach_the_ceilings_and_no_more() {
        let world = world();
        for (view, sees_text, sees_picture) in
            [(View::Text, true, false), (View::Picture, false, true), (View::Both, true, true)]
        {
            let ceiling = world.ceiling(view);
            let mut rng = Key::new(8).rng();
            let n = 200_000;
            let (mut loss, mut right, mut gain) = (0.0, 0.0, 0.0);
            let (mut hits, mut named, mut positives) = (0.0, 0.0, 0.0);
            for _ in 0..n {
                let hidden = world.draw(&mut rng);
                let posterior = world.posterior(
                    sees_text.then_some(hidden.type_pair),
                    sees_text.then_some(hidden.text_cue),
                    sees_picture.then_some(hidden.picture_cue),
                );
                let p = posterior[hidden.label];
                loss -= p.ln();
                gain += (p / world.prior()[hidden.label]).ln();
                let likeliest = (0..13).max_by(|&a, &b| posterior[a].total_cmp(&posterior[b]));
                right += f64::from(likeliest == Some(hidden.label));
                let decision = decide(&posterior, ceiling.threshold);
                named += f64::from(decision > 0);
                positives += f64::from(hidden.label > 0);
                hits += f64::from(decision > 0 && decision == hidden.label);
            }
            let n = f64::from(n);
            println!("{view:?}: {ceiling:?}");
            assert!((loss / n - ceiling.log_loss).abs() < 0.015, "{}", loss / n);
            assert!((gain / n - ceiling.information).abs() < 0.015);
            assert!((right / n - ceiling.accuracy).abs() < 0.005);
            assert!((2.0 * hits / (named + positives) - ceiling.micro_f1).abs() < 0.005);
            assert!((hits / named - ceiling.precision).abs() < 0.01);
            assert!((hits / positives - ceiling.recall).abs() < 0.01);
        }
    }

    #[test]
    fn neither_half_suffices_and_both_together_tell_less_than_the_sum() {
        let world = world();
        let [text, picture, both] =
            [View::Text, View::Picture, View::Both].map(|view| world.ceiling(view));
        assert!(both.micro_f1 > text.micro_f1 + 0.05);
        assert!(both.micro_f1 > picture.micro_f1 + 0.05);
        assert!(both.information > text.information.max(picture.information));
        assert!(both.information < text.information + picture.information);
    }

    #[test]
    fn the_f1_optimal_rule_is_what_trying_all_decisions_finds() {
        let mut rng = Key::new(9).rng();
        for _ in 0..200 {
            let (observations, labels) = (4_usize, 3_usize);
            let mut joint: Vec<Vec<f64>> = (0..observations)
                .map(|_| (0..labels).map(|_| rng.random::<f64>().powi(3)).collect::<Vec<f64>>())
                .collect();
            let total: f64 = joint.iter().flatten().sum();
            joint.iter_mut().flatten().for_each(|mass| *mass /= total);
            let positives: f64 = joint.iter().map(|masses| masses[1] + masses[2]).sum();
            let mut best: f64 = 0.0;
            for decisions in 0..labels.pow(observations as u32) {
                let (mut hits, mut named) = (0.0, 0.0);
                for (x, masses) in joint.iter().enumerate() {
                    let decision = decisions / labels.pow(x as u32) % labels;
                    if decision > 0 {
                        hits += masses[decision];
                        named += masses.iter().sum::<f64>();
                    }
                }
                best = best.max(2.0 * hits / (named + positives));
            }
            let ceiling = ceiling(&joint);
            assert!((ceiling.micro_f1 - best).abs() < 1e-12);
            assert!(ceiling.threshold >= ceiling.micro_f1 / 2.0 - 1e-12);
        }
    }

    #[test]
    fn an_impossible_observation_leaves_the_prior() {
        let world = world();
        assert_eq!(world.posterior(Some(0), Some(Some(1)), None), world.prior().to_vec());
    }
}
