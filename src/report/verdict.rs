//! What the experiment says, in words.

use super::figures::{interval, level, points, signed_interval, signed_points};
use super::results::{Arm, Comparison, Results};
use crate::eval::{ENOUGH_SEEDS, Interval, Outcome, Paired};

/// The headline: what is shown about the method, and how surely.
pub struct Headline {
    /// The verdict in a sentence.
    pub verdict: String,
    /// The method's figure, its place among the arms and below the ceiling; how far to trust it.
    pub remarks: Vec<String>,
    /// One line an arm that the method was compared with.
    pub against: Vec<String>,
}

/// The method against one other arm.
pub struct Against<'a> {
    /// The other arm's name.
    pub other: &'a str,
    /// The comparison, as the method minus the other.
    pub paired: Paired,
}

/// The comparisons that the method takes part in, as the method minus the other arm.
pub fn against_others<'a>(results: &'a Results, method: &str) -> Vec<Against<'a>> {
    let of = |comparison: &'a Comparison| {
        if comparison.a == method {
            Some(Against { other: &comparison.b, paired: comparison.paired.clone() })
        } else if comparison.b == method {
            Some(Against { other: &comparison.a, paired: reversed(&comparison.paired) })
        } else {
            None
        }
    };
    results.comparisons.iter().filter_map(of).collect()
}

/// The headline; nothing where there is no arm.
pub fn headline(results: &Results) -> Option<Headline> {
    let method = results.method_arm()?;
    let against = against_others(results, &method.name);
    Some(Headline {
        verdict: verdict(results, method, &against),
        remarks: remarks(results, method),
        against: against.iter().map(|against| line(&method.name, against)).collect(),
    })
}

/// What an outcome is called in a table.
pub fn outcome(paired: &Paired) -> &'static str {
    match paired.verdict.outcome {
        Outcome::Higher => "first higher",
        Outcome::Lower => "first lower",
        Outcome::Undecided => "not told apart",
    }
}

/// How to read the intervals of the comparisons, in a sentence or two.
pub fn reading(results: &Results) -> String {
    let Some(first) = results.comparisons.first() else {
        return String::new();
    };
    let level = level(first.paired.over_seeds_and_items.level);
    let indicative =
        results.comparisons.iter().any(|comparison| comparison.paired.verdict.indicative);
    let caution = if indicative {
        format!(" With fewer than {ENOUGH_SEEDS} seeds every verdict here is an indication.")
    } else {
        String::new()
    };
    format!(
        "An arm counts as higher where both {level} intervals exclude zero: Student's t over seeds and \
         the bootstrap over seeds and test items. They are not corrected for the number of \
         comparisons ({}).{caution}",
        results.comparisons.len()
    )
}

fn verdict(results: &Results, method: &Arm, against: &[Against]) -> String {
    let with = |outcome: Outcome| -> Vec<&str> {
        against
            .iter()
            .filter(|against| against.paired.verdict.outcome == outcome)
            .map(|against| against.other)
            .collect()
    };
    let clauses: Vec<String> = [
        (Outcome::Higher, "scores higher than"),
        (Outcome::Lower, "scores lower than"),
        (Outcome::Undecided, "is not told apart from"),
    ]
    .into_iter()
    .filter_map(|(outcome, says)| {
        let others = with(outcome);
        (!others.is_empty()).then(|| format!("{says} {}", listed(&others)))
    })
    .collect();
    if clauses.is_empty() {
        return format!(
            "{} reaches {} micro-F1; it was compared with no other arm.",
            method.name,
            points(method.micro_f1.mean)
        );
    }
    let seeds = results.seeds();
    let surely = match seeds {
        1 => "With one seed nothing can be told: ".to_owned(),
        _ if seeds < ENOUGH_SEEDS => format!("Indicative only ({seeds} seeds): "),
        _ => String::new(),
    };
    format!("{surely}{} {}.", method.name, clauses.join("; "))
}

fn remarks(results: &Results, method: &Arm) -> Vec<String> {
    let summary = &method.micro_f1;
    let sure = match &summary.over_seeds {
        Some(over_seeds) => interval_words("over seeds", over_seeds),
        None => interval_words("over test items", &summary.over_items),
    };
    let mut remarks = vec![format!(
        "{} reaches {} micro-F1 ({sure}), {}.",
        method.name,
        points(summary.mean),
        place(results, method)
    )];
    if let Some(ceiling) = &results.ceiling {
        remarks.push(format!(
            "That is {} % of what the best possible model reaches from sentence and picture ({}); from \
             the sentence alone it reaches {}. {}",
            points(summary.mean / ceiling.pair.micro_f1),
            points(ceiling.pair.micro_f1),
            points(ceiling.text.micro_f1),
            ceiling.exactness
        ));
    }
    let seeds = results.seeds();
    if seeds < ENOUGH_SEEDS {
        remarks.push(format!(
            "{seeds} {} can only indicate: differences between arms spread by 1 to 4 points between \
             seeds. A verdict takes {ENOUGH_SEEDS}.",
            if seeds == 1 { "seed" } else { "seeds" }
        ));
    }
    remarks
}

fn place(results: &Results, method: &Arm) -> String {
    let higher: Vec<&Arm> =
        results.arms.iter().filter(|arm| arm.micro_f1.mean > method.micro_f1.mean).collect();
    let arms = results.arms.len();
    let best = higher.iter().max_by(|a, b| a.micro_f1.mean.total_cmp(&b.micro_f1.mean));
    match best {
        None => format!("the highest mean of {arms} arms"),
        Some(best) => format!(
            "number {} of {arms} arms by the mean; the highest is {} with {}",
            higher.len() + 1,
            best.name,
            points(best.micro_f1.mean)
        ),
    }
}

fn line(method: &str, against: &Against) -> String {
    let paired = &against.paired;
    let sure = match &paired.over_seeds {
        Some(over_seeds) => format!("over seeds {}", signed_interval(over_seeds)),
        None => "one seed".to_owned(),
    };
    let says = match paired.verdict.outcome {
        Outcome::Higher => "higher",
        Outcome::Lower => "lower",
        Outcome::Undecided => "not told apart",
    };
    format!(
        "{method} − {}: {} points ({sure}; over seeds and items {}): {says}",
        against.other,
        signed_points(paired.difference),
        signed_interval(&paired.over_seeds_and_items)
    )
}

fn interval_words(over: &str, found: &Interval) -> String {
    format!("{} interval {over} {}", level(found.level), interval(found))
}

fn reversed(paired: &Paired) -> Paired {
    let flip = |interval: &Interval| Interval {
        low: -interval.high,
        high: -interval.low,
        level: interval.level,
    };
    let mut verdict = paired.verdict;
    verdict.outcome = match verdict.outcome {
        Outcome::Higher => Outcome::Lower,
        Outcome::Lower => Outcome::Higher,
        Outcome::Undecided => Outcome::Undecided,
    };
    Paired {
        difference: -paired.difference,
        per_seed: paired.per_seed.iter().map(|value| -value).collect(),
        over_seeds: paired.over_seeds.as_ref().map(flip),
        over_seeds_and_items: flip(&paired.over_seeds_and_items),
        verdict,
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_lead_that_is_not_shown_is_not_claimed() {
        let mut results = example::results();
        for comparison in &mut results.comparisons {
            comparison.paired.verdict.outcome = Outcome::Undecided;
        }
        let verdict = headline(&results).unwrap().verdict;
        assert!(!verdict.contains("higher") && verdict.contains("is not told apart from"));
    }

    #[test]
    fn a_lost_comparison_is_told_whichever_side_the_method_stands_on() {
        let mut results = example::results();
        results.comparisons.retain(|c| c.b == "ccg + mi");
        assert!(!results.comparisons.is_empty());
        for comparison in &mut results.comparisons {
            comparison.paired.verdict.outcome = Outcome::Higher;
            comparison.paired.difference = 0.03;
        }
        let headline = headline(&results).unwrap();
        assert!(headline.verdict.contains("scores lower than"), "{}", headline.verdict);
        assert!(headline.against[0].contains("−3.0 points"));
    }

    #[test]
    fn few_seeds_are_called_indicative_in_the_first_words() {
        let headline = headline(&example::results()).unwrap();
        assert!(headline.verdict.starts_with("Indicative only (3 seeds)"));
    }

    #[test]
    fn an_experiment_without_arms_has_no_headline() {
        let mut results = example::results();
        results.arms.clear();
        assert!(headline(&results).is_none());
    }
}
