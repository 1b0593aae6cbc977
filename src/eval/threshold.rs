//! The decision rule that maximises micro-F1: a relation is predicted where its probability reaches
//! a threshold, which is below one half (Lipton et al. 2014, arXiv 1402.1892).

use super::{Counts, Prediction};

/// The threshold with the highest micro-F1 on held-out predictions, halfway between the last
/// probability that it lets through and the next one. `None` where no prediction can be a hit.
pub fn f1_threshold(held_out: &[Prediction]) -> Option<f32> {
    let gold: u32 = held_out.iter().map(|one| u32::from(one.label != 0)).sum();
    let mut ranked: Vec<(f32, bool)> = held_out
        .iter()
        .filter_map(|one| {
            // A threshold of 0 claims a relation everywhere: the most probable one.
            let best = Prediction { threshold: Some(0.0), ..one.clone() }.predicted();
            Some((*one.probabilities.get(best)?, best != 0 && best == one.label))
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut best, mut counts) = (None, Counts { gold, ..Counts::default() });
    let mut highest = 0.0;
    for (at, &(probability, right)) in ranked.iter().enumerate() {
        counts.hits += u32::from(right);
        counts.predicted += 1;
        let next = ranked.get(at + 1).map_or(0.0, |next| next.0);
        // Equal probabilities stand on one side of any threshold.
        if next < probability && counts.f1() > highest {
            highest = counts.f1();
            best = Some((probability + next) / 2.0);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(label: usize, probabilities: [f32; 3]) -> Prediction {
        Prediction {
            id: String::new(),
            label,
            probabilities: probabilities.to_vec(),
            threshold: None,
        }
    }

    #[test]
    fn no_other_threshold_does_better() {
        let mut state = 1_u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let predictions: Vec<Prediction> = (0..200)
            .map(|_| {
                let (none, first) = (uniform(), uniform());
                let probabilities = [none, (1.0 - none) * first, (1.0 - none) * (1.0 - first)];
                let place = uniform();
                let label =
                    if place < none { 0 } else { 1 + usize::from(place > none + probabilities[1]) };
                prediction(label, probabilities)
            })
            .collect();
        let f1 = |threshold| {
            let decide = |one: &Prediction| {
                let one = Prediction { threshold: Some(threshold), ..one.clone() };
                Counts::of(one.label, one.predicted())
            };
            predictions.iter().map(decide).sum::<Counts>().f1()
        };
        let found = f1_threshold(&predictions).unwrap();
        assert!((0..1000).all(|at| f1(at as f32 / 1000.0) <= f1(found)));
        assert!(found < 0.5, "{found}");
    }

    #[test]
    fn nothing_to_hit_gives_no_threshold() {
        assert_eq!(f1_threshold(&[]), None);
        assert_eq!(f1_threshold(&[prediction(0, [0.2, 0.4, 0.4])]), None);
        // Without a threshold the most probable label is predicted, `None` included.
        assert_eq!(prediction(1, [0.5, 0.4, 0.1]).predicted(), 0);
        let told = Prediction { threshold: Some(0.3), ..prediction(1, [0.5, 0.4, 0.1]) };
        assert_eq!(told.predicted(), 1);
    }
}
