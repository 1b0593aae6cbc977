//! The program's commands as a user types them: help, mistakes and what they print.

mod generators;
mod mistakes;
mod predict;
mod world;

use std::path::Path;

use assert_cmd::Command;

/// What a finished command left.
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run_in(folder: &Path, arguments: &[&str]) -> Outcome {
    let output = Command::cargo_bin("mi2rage")
        .unwrap()
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn run(arguments: &[&str]) -> Outcome {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

/// The standard output of a command that succeeds.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let outcome = run_in(folder, arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.err);
    outcome.out
}

/// The one line that a user's mistake leaves on the standard error, with exit code 2.
fn mistake(folder: &Path, arguments: &[&str]) -> String {
    let outcome = run_in(folder, arguments);
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.err);
    assert_eq!(outcome.err.lines().count(), 1, "{arguments:?}: {}", outcome.err);
    assert!(outcome.err.starts_with("error: "), "{arguments:?}: {}", outcome.err);
    assert_eq!(outcome.out, "", "{arguments:?}");
    outcome.err
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn the_help_names_every_command_and_each_commands_help_every_option() {
    const RUN: &[&str] =
        &["--device", "--seed", "--data", "--pictures", "--limit", "--out", "--workers", "--set"];
    const WORLD: &[&str] = &["--p-text", "--p-picture", "--p-none", "--set"];
    let commands: [(&str, &[&str]); 18] = [
        ("experiment", RUN),
        ("generate", RUN),
        ("score", RUN),
        ("select", RUN),
        ("train", RUN),
        ("evaluate", RUN),
        ("report", &[]),
        ("pretrain", &["--part", "--out", "--set", "--device"]),
        (
            "predict",
            &[
                "--model",
                "--arm",
                "--seed",
                "--text",
                "--head",
                "--tail",
                "--picture",
                "--top",
                "--json",
                "--encoders",
                "--device",
            ],
        ),
        (
            "sample",
            &[
                "--count",
                "--seed",
                "--steps",
                "--guidance",
                "--sampler",
                "--negative",
                "--out",
                "--sheet",
                "--weights",
                "--device",
                "--precision",
            ],
        ),
        (
            "caption",
            &[
                "--head",
                "--tail",
                "--top-p",
                "--temperature",
                "--seed",
                "--weights",
                "--device",
                "--precision",
            ],
        ),
        ("embed", &["--file", "--picture", "--weights", "--device", "--precision"]),
        ("devices", &[]),
        ("world", &["show", "export", "ceiling", "sheet"]),
        ("world show", &["--count", "--split", "--seed"]),
        ("world export", &["--train", "--validation", "--test", "--seed"]),
        ("world ceiling", WORLD),
        ("world sheet", &["--out", "--size", "--variations", "--zoom", "--seed"]),
    ];
    let all = run(&["--help"]).out;
    for (command, options) in commands {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(all.contains(words[0]), "{command} is not in: {all}");
        let arguments: Vec<&str> = words.into_iter().chain(["--help"]).collect();
        let outcome = run(&arguments);
        assert_eq!(outcome.code, Some(0), "{command}");
        assert_says(&outcome.out, options);
        let silent = undescribed(&outcome.out);
        assert!(silent.is_empty(), "{command}: no text for {silent:?}");
    }
}

/// The lines of a long help that name an option and have no text under them.
fn undescribed(help: &str) -> Vec<&str> {
    let lines: Vec<&str> = help.lines().collect();
    let names = |line: &str| line.starts_with("  ") && line.trim_start().starts_with('-');
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| names(line)) {
        // On the line itself where every text of the command is short, else on the next line.
        // A default or the possible values, in brackets, are no text.
        let text = |part: &str| !part.is_empty() && !part.starts_with('[');
        let own = line.trim_start().split_once("  ").is_some_and(|(_, part)| text(part.trim()));
        let next = lines.get(at + 1).and_then(|next| next.strip_prefix("          "));
        let below = next.is_some_and(|next| text(next.trim()));
        if !own && !below {
            found.push(*line);
        }
    }
    found
}

#[test]
fn the_devices_are_listed_with_the_one_that_auto_takes() {
    let out = run(&["devices"]).out;
    assert_says(&out, &["flex", "ndarray", "cuda", "auto is "]);
}
