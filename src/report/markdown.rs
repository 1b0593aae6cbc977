//! `report.md`: the tables of the report as text.

use super::figures::{digits, or_none};
use super::results::{Results, Table};
use super::{tables, verdict};

/// The report as Markdown (with GitHub's tables).
pub fn render(results: &Results) -> String {
    let mut text = format!("# {}\n\n{}\n", inline(&results.name), inline(&results.purpose));
    let mut paragraph = |line: &str| {
        text.push('\n');
        text.push_str(line);
        text.push('\n');
    };
    paragraph(&format!("Setting: {}.", tables::setting(results.setting)));
    if let Some(headline) = verdict::headline(results) {
        paragraph(&format!("**{}**", inline(&headline.verdict)));
        for remark in &headline.remarks {
            paragraph(&inline(remark));
        }
        list(&mut paragraph, &headline.against);
    }
    if !results.notes.is_empty() {
        paragraph("To be read with this in mind:");
        list(&mut paragraph, &results.notes);
    }

    section(
        &mut paragraph,
        "Arms",
        [Some(tables::arms(results)), Some(tables::figures(results)), tables::ceiling(results)],
    );
    section(&mut paragraph, "Comparisons", [tables::comparisons(results)]);
    section(&mut paragraph, "Selection", [tables::selection(results)]);
    section(&mut paragraph, "Generation", [tables::generation(results)]);
    gallery(&mut paragraph, results);
    section(&mut paragraph, "Cues", tables::cells(results).into_iter().map(Some));
    section(&mut paragraph, "Relations", [tables::per_class(results)]);
    section(&mut paragraph, "Further tables", results.tables.iter().cloned().map(Some));
    section(&mut paragraph, "Cost", [tables::stages(results)]);
    section(
        &mut paragraph,
        "Provenance",
        [
            tables::facts("Data audit", &results.audit),
            tables::facts("Program and machine", &tables::environment(results)),
            tables::facts("Hashes", &results.hashes),
        ],
    );
    paragraph("Configuration, as resolved:");
    let fence = "`".repeat(longest_run_of_backticks(&results.config).max(2) + 1);
    paragraph(&format!("{fence}toml\n{}\n{fence}", results.config.trim_end()));
    text
}

fn section(
    paragraph: &mut impl FnMut(&str),
    title: &str,
    tables: impl IntoIterator<Item = Option<Table>>,
) {
    let mut titled = false;
    for table in tables.into_iter().flatten() {
        if !titled {
            paragraph(&format!("## {title}"));
            titled = true;
        }
        paragraph(&format!("### {}", inline(&table.caption)));
        paragraph(&rows(&table));
        if !table.note.is_empty() {
            paragraph(&inline(&table.note));
        }
    }
}

/// The chains' texts; their pictures are in the HTML report.
fn gallery(paragraph: &mut impl FnMut(&str), results: &Results) {
    if results.gallery.is_empty() {
        return;
    }
    paragraph("## Chains");
    paragraph("Their pictures are in `report.html`.");
    for chain in &results.gallery {
        paragraph(&format!(
            "### {}: {} ({}, {})",
            inline(&chain.item),
            inline(&chain.label),
            inline(&chain.head),
            inline(&chain.tail)
        ));
        let mut lines = Vec::new();
        lines.extend(chain.text.as_ref().map(|text| format!("real: {text}")));
        for (round, shown) in chain.rounds.iter().enumerate() {
            let kept = match shown.kept {
                Some(true) => "kept",
                Some(false) => "dropped",
                None => "not selected",
            };
            let score = or_none(shown.score, |v| digits(v, 2));
            let text = shown.text.as_deref().unwrap_or("no sentence");
            lines.push(format!("round {}: {text} (score {score}, {kept})", round + 1));
        }
        list(paragraph, &lines);
    }
}

fn list(paragraph: &mut impl FnMut(&str), lines: &[String]) {
    if !lines.is_empty() {
        let lines: Vec<String> = lines.iter().map(|line| format!("- {}", inline(line))).collect();
        paragraph(&lines.join("\n"));
    }
}

fn rows(table: &Table) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        format!("| {} |", cells.join(" | "))
    };
    let mut lines = vec![
        line(&mut table.columns.iter().map(|column| cell(&column.name))),
        line(
            &mut table
                .columns
                .iter()
                .map(|column| if column.numeric { "---:" } else { ":---" }.to_owned()),
        ),
    ];
    lines.extend(table.rows.iter().map(|row| {
        line(&mut row.cells.iter().map(|text| match cell(text) {
            text if row.strong => format!("**{text}**"),
            text => text,
        }))
    }));
    lines.join("\n")
}

/// Text that means itself: on one line, without anything that Markdown would read as markup.
fn inline(text: &str) -> String {
    let cell = cell(text);
    // A heading or a list, at the start of a line.
    if cell.starts_with(['#', '+', '-']) { format!("\\{cell}") } else { cell }
}

/// [`inline`] inside a line, where no heading and no list can start.
fn cell(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let inside_word = |at: usize| {
        let neighbour = |at: Option<usize>| at.and_then(|at| characters.get(at));
        [at.checked_sub(1), Some(at + 1)]
            .into_iter()
            .all(|at| neighbour(at).is_some_and(|other| other.is_alphanumeric()))
    };
    let mut escaped = String::with_capacity(text.len());
    for (at, &character) in characters.iter().enumerate() {
        let markup = match character {
            '\\' | '`' | '*' | '|' | '<' | '>' => true,
            '_' => !inside_word(at),
            // A link's address.
            '(' => at > 0 && characters[at - 1] == ']',
            _ => false,
        };
        if markup {
            escaped.push('\\');
        }
        escaped.push(if matches!(character, '\n' | '\r') { ' ' } else { character });
    }
    escaped
}

fn longest_run_of_backticks(text: &str) -> usize {
    text.split(|character| character != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_report_reads_as_it_did() {
        let mut results = example::results();
        // Small enough to be read in one go.
        results.arms.retain(|arm| {
            ["direct", "direct-matched", "ccg + mi", "real pairs"].contains(&arm.name.as_str())
        });
        let names: Vec<String> = results.arms.iter().map(|arm| arm.name.clone()).collect();
        results.comparisons.retain(|pair| names.contains(&pair.a) && names.contains(&pair.b));
        results.gallery.truncate(1);
        insta::assert_snapshot!(render(&results));
    }

    #[test]
    fn an_experiment_with_nothing_to_show_still_has_a_report() {
        let mut results = example::results();
        results.arms.clear();
        results.comparisons.clear();
        results.selection.clear();
        results.gallery.clear();
        let report = render(&results);
        assert!(report.starts_with("# ccg3\n"));
        assert!(!report.contains("## Comparisons") && !report.contains("## Chains"));
    }

    #[test]
    fn text_from_the_data_is_not_read_as_markup() {
        assert_eq!(inline("# a_b | <i>\n`x`"), "\\# a_b \\| \\<i\\> \\`x\\`");
        assert_eq!(inline("_a_ [b](c) [1, 2]"), "\\_a\\_ [b]\\(c) [1, 2]");
        assert_eq!((inline("+1"), cell("+1")), ("\\+1".into(), "+1".into()));
        assert_eq!(longest_run_of_backticks("a ``` b `` c"), 3);
    }
}
