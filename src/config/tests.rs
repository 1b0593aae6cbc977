use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    seed: u64,
    name: String,
    #[serde(default)]
    folder: Option<String>,
    training: Training,
    #[serde(default)]
    arms: Vec<Arm>,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Training {
    epochs: usize,
    learning_rate: f64,
    #[serde(default)]
    optimiser: Optimiser,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Optimiser {
    #[default]
    Adamw,
    Sgd,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arm {
    rounds: usize,
}

const TEXT: &str = "\
seed = 7
name = \"ccg3\"

[training]
epochs = 5
learning_rate = 1e-3

[[arms]]
rounds = 3
";

fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Plan, ConfigError> {
    let overrides: Vec<_> =
        overrides.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    parse(Path::new("plan.toml"), text, &overrides)
}

fn message(text: &str, overrides: &[(&str, &str)]) -> String {
    let message = read(text, overrides).expect_err(text).to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn an_unknown_key_is_refused_with_its_line_the_nearest_and_all_allowed_keys() {
    let text = TEXT.replace("epochs", "epoch");
    assert_eq!(
        message(&text, &[]),
        "plan.toml:5: unknown key `training.epoch`, did you mean `epochs`?; \
         allowed are epochs, learning_rate, optimiser"
    );
    let text = TEXT.replace("seed = 7", "seed = 7\nxyz = 1");
    assert_eq!(
        message(&text, &[]),
        "plan.toml:2: unknown key `xyz`; allowed are seed, name, folder, training, arms, weights"
    );
    let text = TEXT.replace("rounds = 3", "rounds = 3\nround = 4");
    assert!(message(&text, &[]).starts_with("plan.toml:10: unknown key `arms.round`, did you"));
}

#[test]
fn a_value_of_another_type_names_line_key_and_what_was_expected() {
    let text = TEXT.replace("epochs = 5", "epochs = \"five\"");
    assert_eq!(
        message(&text, &[]),
        "plan.toml:5: `training.epochs`: invalid type: string \"five\", expected usize"
    );
    let text = TEXT.replace("epochs = 5", "epochs = -5");
    assert!(message(&text, &[]).starts_with("plan.toml:5: `training.epochs`: invalid value"));
    let text = TEXT.replace("epochs = 5", "epochs = 5\noptimiser = \"adam\"");
    assert_eq!(
        message(&text, &[]),
        "plan.toml:6: `training.optimiser`: unknown variant `adam`, expected `adamw` or `sgd`, \
         did you mean `adamw`?"
    );
}

#[test]
fn a_missing_key_names_its_section_and_broken_toml_its_line() {
    let text = TEXT.replace("epochs = 5\n", "");
    assert_eq!(message(&text, &[]), "plan.toml:4: `training`: missing field `epochs`");
    let text = TEXT.replace("seed = 7\n", "");
    assert_eq!(message(&text, &[]), "plan.toml:1: missing field `seed`");
    assert!(message(&TEXT.replace("epochs = 5", "epochs ="), &[]).starts_with("plan.toml:5: "));
    assert!(message(&format!("{TEXT}\nseed = 8"), &[]).starts_with("plan.toml:11: "));
    assert!(message(&format!("{TEXT}\n[training]"), &[]).starts_with("plan.toml:11: "));
}

#[test]
fn overrides_stand_in_for_the_files_values_and_are_checked_like_them() {
    let plan = read(
        TEXT,
        &[
            ("training.epochs", "9"),
            ("name", "a b"),
            ("training.optimiser", "sgd"),
            ("training.learning_rate", "1"),
            ("weights.x", "0.5"),
            ("folder", "../shared/data"),
            ("arms", "[{rounds = 1}, {rounds = 2}]"),
            ("training.epochs", "10"),
        ],
    )
    .unwrap();
    assert_eq!(plan.training.epochs, 10);
    assert_eq!(plan.training.learning_rate, 1.0);
    assert_eq!(plan.training.optimiser, Optimiser::Sgd);
    assert_eq!(plan.name, "a b");
    assert_eq!(plan.folder.as_deref(), Some("../shared/data"));
    assert_eq!(plan.arms, [Arm { rounds: 1 }, Arm { rounds: 2 }]);
    assert_eq!(plan.weights["x"], 0.5);
    assert_eq!(plan.seed, 7);

    assert_eq!(
        message(TEXT, &[("seed", "1"), ("training.epoch", "2")]),
        "training.epoch=2: unknown key `training.epoch`, did you mean `epochs`?; \
         allowed are epochs, learning_rate, optimiser"
    );
    assert_eq!(
        message(TEXT, &[("training.epochs", "many")]),
        "training.epochs=many: `training.epochs`: invalid type: string \"many\", expected usize"
    );
    // The fault of the file stays the file's.
    assert!(
        message(&TEXT.replace("seed", "sed"), &[("seed", "1")])
            .starts_with("plan.toml:1: unknown key `sed`")
    );
}

#[test]
fn an_override_may_give_what_the_file_lacks() {
    let plan = read(&TEXT.replace("seed = 7\n", ""), &[("seed", "8")]).unwrap();
    assert_eq!(plan.seed, 8);
    let plan = read("seed = 1\nname = \"x\"", &[("training", "{epochs = 1, learning_rate = 0.1}")])
        .unwrap();
    assert_eq!(plan.training.epochs, 1);
    // A table replaces a table: what it leaves out is missing.
    assert_eq!(
        message(TEXT, &[("training", "{epochs = 1}")]),
        "training={epochs = 1}: `training`: missing field `learning_rate`"
    );
}

#[test]
fn an_override_without_a_key_or_below_a_value_is_refused() {
    for key in ["", "a b", "a.", "seed = 1 #", "[x]\ny"] {
        assert!(message_of_override(key).contains("expected a key such as section.key"), "{key}");
    }
    assert_eq!(
        message(TEXT, &[("name.first", "1")]),
        "name.first=1: `name` is a value in the file, not a section"
    );
}

fn message_of_override(key: &str) -> String {
    read(TEXT, &[(key, "1")]).expect_err(key).to_string()
}

#[test]
fn a_missing_file_is_one_clear_line() {
    let error = load::<Plan>(Path::new("configs/no-such.toml"), &[]).unwrap_err();
    assert_eq!(error.to_string(), "configs/no-such.toml: no such file");
    let error = load::<Plan>(Path::new("src"), &[]).unwrap_err();
    assert!(error.to_string().starts_with("src: cannot be read: "));
}

#[test]
fn text_that_is_not_utf8_names_its_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"seed = 7\nname = \"\xff\"").unwrap();
    let error = load::<Plan>(file.path(), &[]).unwrap_err();
    assert!(error.to_string().ends_with(":2: expected UTF-8 text"));
}

#[test]
fn the_written_configuration_reads_back_the_same() {
    let mut plan = read(TEXT, &[("weights.x", "0.1"), ("folder", "a \"b\"")]).unwrap();
    plan.training.learning_rate = 1.0 / 3.0;
    let text = to_toml(&plan).unwrap();
    assert_eq!(read(&text, &[]).unwrap(), plan);
}
