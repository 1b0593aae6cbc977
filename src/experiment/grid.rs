//! The same experiment in other worlds: where does the method win, where does it lose?

use std::path::Path;

use super::Stage;
use crate::config::experiment::{Arm, ExperimentConfig};
use crate::report::{self, Column, Results, Row, Table};
use crate::train::Context;

/// One point of the grid.
pub struct Point {
    /// The chance that a sentence names the relation.
    pub p_text: f64,
    /// The chance that a picture shows it.
    pub p_picture: f64,
    /// The chance that a generated picture shows what the sentence names.
    pub fidelity: f64,
    /// The experiment.
    pub config: ExperimentConfig,
}

/// The points of a configuration's grid, none where it has no grid.
pub fn points(config: &ExperimentConfig) -> Vec<Point> {
    let Some(grid) = &config.grid else { return Vec::new() };
    let mut points = Vec::new();
    for &p_text in &grid.p_text {
        for &p_picture in &grid.p_picture {
            for &fidelity in &grid.fidelity {
                let name = format!("text-{p_text}-picture-{p_picture}-fidelity-{fidelity}");
                let mut config = ExperimentConfig {
                    name,
                    seeds: grid.seeds.clone(),
                    arms: grid.arms.clone(),
                    grid: None,
                    ..config.clone()
                };
                config.world.p_text = p_text;
                config.world.p_picture = p_picture;
                config.generators.oracle_fidelity = Some(fidelity);
                points.push(Point { p_text, p_picture, fidelity, config });
            }
        }
    }
    points
}

/// Runs every point in a folder of its own under `out`, then puts their table into the results and
/// reports of `out`.
///
/// # Errors
///
/// Those of the experiments and of the files.
pub fn run(
    config: &ExperimentConfig,
    out: &Path,
    last: Option<Stage>,
    context: &Context,
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let points = points(config);
    for (at, point) in points.iter().enumerate() {
        let name = &point.config.name;
        context.progress.line(format!("grid, {} of {}: {name}", at + 1, points.len()));
        let folder = out.join("grid").join(name);
        super::run(&point.config, &folder, last, context)?;
        if last.is_none() {
            rows.push(row(point, &Results::load(&folder.join("results.json"))?));
        }
    }
    if last.is_none() && !points.is_empty() {
        let path = out.join("results.json");
        let mut results = Results::load(&path)?;
        results.tables = vec![table(config, rows)];
        results.save(&path)?;
        report::render(&results, out)?;
    }
    Ok(())
}

/// The differences that are shown of each point.
const DIFFERENCES: [(Arm, Arm); 3] =
    [(Arm::CcgMi, Arm::RealUnimodal), (Arm::CcgMi, Arm::Ccg), (Arm::Ccg, Arm::DirectMatched)];

/// The columns of arms and of differences.
fn shown(arms: &[Arm]) -> (Vec<Arm>, Vec<(Arm, Arm)>) {
    let has = |(a, b): &(Arm, Arm)| arms.contains(a) && arms.contains(b);
    let differences = DIFFERENCES.into_iter().filter(has).collect();
    (Arm::ALL.into_iter().filter(|arm| arms.contains(arm)).collect(), differences)
}

fn row(point: &Point, results: &Results) -> Row {
    let (arms, differences) = shown(&point.config.arms);
    let percent = |value: f64| format!("{:.1}", 100.0 * value);
    let mut cells: Vec<String> =
        [point.p_text, point.p_picture, point.fidelity].map(|value| value.to_string()).into();
    let ceiling = results.ceiling.as_ref();
    cells.push(ceiling.map_or_else(String::new, |ceiling| {
        format!("{} / {}", percent(ceiling.text.micro_f1), percent(ceiling.pair.micro_f1))
    }));
    for arm in arms {
        let found = results.arms.iter().find(|one| one.name == arm.name());
        cells.push(found.map_or_else(String::new, |one| percent(one.micro_f1.mean)));
    }
    for (a, b) in differences {
        let found = results.comparisons.iter().find(|one| one.a == a.name() && one.b == b.name());
        cells.push(found.map_or_else(String::new, |one| {
            let interval = &one.paired.over_seeds_and_items;
            format!(
                "{:+.1} ({:+.1} to {:+.1})",
                100.0 * one.paired.difference,
                100.0 * interval.low,
                100.0 * interval.high
            )
        }));
    }
    Row { cells, strong: false }
}

fn table(config: &ExperimentConfig, rows: Vec<Row>) -> Table {
    let (arms, seeds) =
        config.grid.as_ref().map_or((&[][..], 0), |grid| (grid.arms.as_slice(), grid.seeds.len()));
    let (arms, differences) = shown(arms);
    let mut columns = vec![
        Column { name: "p_t".to_owned(), numeric: true },
        Column { name: "p_v".to_owned(), numeric: true },
        Column { name: "fidelity".to_owned(), numeric: true },
        Column { name: "ceiling: text / both".to_owned(), numeric: true },
    ];
    let number = |name: String| Column { name, numeric: true };
    columns.extend(arms.iter().map(|arm| number(arm.name().to_owned())));
    columns.extend(
        differences.iter().map(|(a, b)| number(format!("{} minus {}", a.name(), b.name()))),
    );
    Table {
        caption: "Other worlds".to_owned(),
        columns,
        rows,
        note: format!(
            "p_t, p_v: the chances that a sentence, a picture of a related pair shows the relation. \
             Pictures are drawn by the world's renderer: what the sentence names with the chance \
             `fidelity`, else something false or something neutral, one as likely as the other. Micro-F1 in percent, mean of \
             {seeds} seeds; differences in points with their {:.0} % interval over seeds and items. \
             Each row is an experiment of its own, in the folder `grid`.",
            100.0 * config.evaluation.level
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_point_is_an_experiment_of_its_own() {
        let text = include_str!("../../configs/ccg3-full.toml");
        let config: ExperimentConfig =
            config::parse(Path::new("configs/ccg3-full.toml"), text, &[]).unwrap();
        let points = points(&config);
        let grid = config.grid.as_ref().unwrap();
        assert_eq!(points.len(), grid.p_text.len() * grid.p_picture.len() * grid.fidelity.len());
        let mut names: Vec<&str> = points.iter().map(|point| point.config.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), points.len());
        for point in &points {
            assert_eq!(point.config.problem(), None);
            assert_eq!(point.config.world.p_text, point.p_text);
            assert_eq!(point.config.generators.oracle_fidelity, Some(point.fidelity));
            assert!(point.config.grid.is_none());
        }
    }

    #[test]
    fn only_differences_between_arms_that_ran_are_shown() {
        let (arms, differences) = shown(&[Arm::Ccg, Arm::RealUnimodal, Arm::CcgMi]);
        assert_eq!(arms, [Arm::RealUnimodal, Arm::Ccg, Arm::CcgMi]);
        assert_eq!(differences, [(Arm::CcgMi, Arm::RealUnimodal), (Arm::CcgMi, Arm::Ccg)]);
    }
}
