//! The weights files of a run folder's students, and which of them an arm stands for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::students::weights_file;
use crate::config::experiment::Arm;
use crate::report::Results;

/// A student could not be settled on.
#[derive(Debug, Error)]
pub enum StudentError {
    /// The folder cannot be read.
    #[error("{path}: {source}; expected a run folder")]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing fits.
    #[error("{run}: no student{wanted}; {found}")]
    None {
        /// The run folder.
        run: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// Several fit.
    #[error("{run}: students of several {what} ({}); choose one with {option}", found.join(", "))]
    Several {
        /// The run folder.
        run: PathBuf,
        /// What they differ in.
        what: &'static str,
        /// What there is to choose from.
        found: Vec<String>,
        /// How to choose.
        option: &'static str,
    },
}

/// A student's file.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    seed: u64,
    arm: Arm,
    dropout: f64,
}

/// The weights file of the run's student of this arm and seed, which may be left out where there is
/// only one. Of several chances of modality masking it is the one that the run settled on by
/// validation.
///
/// # Errors
///
/// See [`StudentError`].
pub fn find(run: &Path, arm: Option<Arm>, seed: Option<u64>) -> Result<PathBuf, StudentError> {
    let all = candidates(run)?;
    let fits = |one: &&Candidate| {
        arm.is_none_or(|arm| arm == one.arm) && seed.is_none_or(|seed| seed == one.seed)
    };
    let left: Vec<Candidate> = all.iter().filter(fits).copied().collect();
    let several =
        |what, found, option| StudentError::Several { run: run.to_owned(), what, found, option };
    let arms: BTreeSet<Arm> = left.iter().map(|one| one.arm).collect();
    let seeds: BTreeSet<u64> = left.iter().map(|one| one.seed).collect();
    if arms.len() > 1 {
        let names = arms.iter().map(|arm| arm.name().to_owned()).collect();
        return Err(several("arms", names, "--arm"));
    }
    if seeds.len() > 1 {
        return Err(several("seeds", seeds.iter().map(u64::to_string).collect(), "--seed"));
    }
    let Some(&first) = left.first() else {
        return Err(StudentError::None {
            run: run.to_owned(),
            wanted: [
                arm.map(|arm| format!(" of arm {}", arm.name())),
                seed.map(|seed| format!(" of seed {seed}")),
            ]
            .into_iter()
            .flatten()
            .collect(),
            found: contents(&all),
        });
    };
    let path = |one: &Candidate| run.join(weights_file(one.arm, one.seed, one.dropout));
    if left.len() == 1 {
        return Ok(path(&first));
    }
    match reported(run, &left).or_else(|| best_validated(run, &left)) {
        Some(one) => Ok(path(&one)),
        None => Err(several(
            "chances of masking, none of which validated best",
            left.iter().map(|one| path(one).display().to_string()).collect(),
            "--model FILE",
        )),
    }
}

/// Every student of the run, in the order of seed, arm and dropout.
fn candidates(run: &Path) -> Result<Vec<Candidate>, StudentError> {
    let mut found = Vec::new();
    for folder in
        names(run).map_err(|source| StudentError::Read { path: run.to_owned(), source })?
    {
        let Some(seed) = folder.strip_prefix("seed-").and_then(|seed| seed.parse().ok()) else {
            continue;
        };
        // A seed that has not come so far has no students.
        for name in names(&run.join(folder).join("students")).unwrap_or_default() {
            let parts = name.strip_suffix(".safetensors").and_then(|s| s.split_once("-dropout-"));
            let Some((arm, dropout)) = parts else { continue };
            let arm = Arm::ALL.into_iter().find(|known| known.name() == arm);
            if let (Some(arm), Ok(dropout)) = (arm, dropout.parse()) {
                found.push(Candidate { seed, arm, dropout });
            }
        }
    }
    found.sort_by(|a, b| {
        (a.seed, a.arm).cmp(&(b.seed, b.arm)).then(a.dropout.total_cmp(&b.dropout))
    });
    Ok(found)
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn contents(all: &[Candidate]) -> String {
    let arms: BTreeSet<Arm> = all.iter().map(|one| one.arm).collect();
    let seeds: BTreeSet<u64> = all.iter().map(|one| one.seed).collect();
    if all.is_empty() {
        return "expected a folder in which `mi2rage train` or `experiment` ran".to_owned();
    }
    let arms: Vec<&str> = arms.into_iter().map(Arm::name).collect();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    format!("it has the arms {} and the seeds {}", arms.join(", "), seeds.join(", "))
}

/// The one whose test the run's results report.
fn reported(run: &Path, left: &[Candidate]) -> Option<Candidate> {
    let bytes = std::fs::read(run.join("results.json")).ok()?;
    let results: Results = serde_json::from_slice(&bytes).ok()?;
    left.iter().copied().find(|one| {
        let arm = results.arms.iter().find(|arm| arm.name == one.arm.name());
        let its = arm.and_then(|arm| arm.runs.iter().find(|run| run.seed == one.seed));
        its.is_some_and(|its| its.modality_dropout == Some(one.dropout))
    })
}

/// The one with the highest validation F1 by the stages' records; nothing at a tie.
fn best_validated(run: &Path, left: &[Candidate]) -> Option<Candidate> {
    let score = |one: &Candidate| -> Option<f64> {
        let name = format!(
            "stages/seed-{}/student-{}-dropout-{}.json",
            one.seed,
            one.arm.name(),
            one.dropout
        );
        let bytes = std::fs::read(run.join(name)).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        record["output"]["validation_f1"].as_f64()
    };
    let scores: Vec<f64> = left.iter().map(score).collect::<Option<_>>()?;
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut winners = left.iter().zip(&scores).filter(|(_, score)| **score == best);
    let (winner, _) = winners.next()?;
    winners.next().is_none().then_some(*winner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            write(folder.path(), file, "");
        }
        folder
    }

    fn write(run: &Path, file: &str, text: &str) {
        let path = run.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    const CCG: &str = "seed-1/students/ccg-dropout-0.3.safetensors";

    #[test]
    fn a_single_student_needs_no_choice() {
        let folder = run(&[CCG, "seed-1/pictures.jsonl", "stages/x", "seed-2/other"]);
        assert_eq!(find(folder.path(), None, None).unwrap(), folder.path().join(CCG));
    }

    #[test]
    fn what_is_ambiguous_is_asked_for_with_the_choices() {
        let folder = run(&[CCG, "seed-1/students/ccg-mi-dropout-0.safetensors"]);
        let message = |arm, seed| find(folder.path(), arm, seed).unwrap_err().to_string();
        assert!(message(None, None).ends_with("arms (ccg, ccg-mi); choose one with --arm"));
        assert!(find(folder.path(), Some(Arm::CcgMi), None).is_ok());
        write(folder.path(), "seed-12/students/ccg-dropout-0.safetensors", "");
        let seeds = "seeds (1, 12); choose one with --seed";
        assert!(message(Some(Arm::Ccg), None).ends_with(seeds));
        assert!(find(folder.path(), Some(Arm::Ccg), Some(12)).is_ok());
        let none = message(Some(Arm::Direct), Some(3));
        assert!(none.contains("no student of arm direct of seed 3"), "{none}");
        assert!(none.contains("the arms ccg, ccg-mi and the seeds 1, 12"), "{none}");
    }

    #[test]
    fn of_two_chances_of_masking_the_better_validated_is_taken_and_a_tie_is_asked_about() {
        let other = "seed-1/students/ccg-dropout-0.safetensors";
        let folder = run(&[CCG, other]);
        let record = |dropout: &str, f1: f64| {
            let name = format!("stages/seed-1/student-ccg-dropout-{dropout}.json");
            let text = format!(r#"{{"output": {{"validation_f1": {f1}}}}}"#);
            write(folder.path(), &name, &text);
        };
        let ask = || find(folder.path(), None, None).unwrap_err().to_string();
        assert!(ask().ends_with("choose one with --model FILE"), "{}", ask());
        record("0", 0.5);
        record("0.3", 0.6);
        assert_eq!(find(folder.path(), None, None).unwrap(), folder.path().join(CCG));
        record("0", 0.7);
        assert_eq!(find(folder.path(), None, None).unwrap(), folder.path().join(other));
        record("0.3", 0.7);
        assert!(ask().contains(other), "{}", ask());
    }

    #[test]
    fn a_folder_without_students_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = find(folder.path(), None, None).unwrap_err().to_string();
        assert!(error.contains("no student; expected a folder"), "{error}");
        let missing = find(&folder.path().join("no"), None, None).unwrap_err();
        assert!(missing.to_string().contains("expected a run folder"), "{missing}");
    }
}
