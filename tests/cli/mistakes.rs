//! What is wrong with a command line or a configuration is said in one line.

use std::path::Path;

use super::{assert_says, mistake, run};

#[test]
fn an_unknown_command_option_or_value_exits_with_2() {
    for arguments in [
        &["paint"] as &[&str],
        &["world"],
        &["world", "shw"],
        &["devices", "--all"],
        &["sample", "a tree", "--sampler", "heun"],
        &["sample", "a tree", "-n", "0"],
        &["caption"],
        &["caption", "a.png", "--top-p", "1.5"],
        &["caption", "a.png", "--temperature", "0"],
        &["caption", "a.png", "--head", "Ada"],
        &["world", "show", "--split", "tests"],
        &["predict", "--model", "m.safetensors"],
        &["predict", "--model", "m.safetensors", "--text", "Ada met Bob", "--head", "Ada"],
        &["predict", "--model", "m.safetensors", "--picture", "a.png", "--arm", "best"],
    ] {
        let outcome = run(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.err);
        assert_says(&outcome.err, &["--help"]);
    }
    assert_says(&run(&["sample", "a", "--sampler", "heun"]).err, &["heun", "dpmpp_2m"]);
    assert_says(&run(&["world", "show", "--split", "tests"]).err, &["tests", "validation"]);
    let outcome = run(&["sample", "a", "--precision", "fp8"]);
    assert_eq!(outcome.code, Some(2));
    assert_says(&outcome.err, &["unknown precision `fp8`, expected f32, f16 or bf16"]);
}

#[test]
fn pickled_weights_are_refused_with_the_way_to_convert_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("v1-5.ckpt");
    std::fs::write(&file, b"PK\x03\x04").unwrap();
    for given in [file.as_path(), folder.path()] {
        let given = given.to_str().unwrap();
        for arguments in
            [&["sample", "a", "--weights", given] as &[&str], &["weights", "inspect", given]]
        {
            let outcome = run(arguments);
            assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.err);
            assert_says(&outcome.err, &["v1-5.ckpt: pickled", "from_single_file"]);
        }
    }
}

/// The published experiment with a line changed, as a file of its own.
fn changed(folder: &Path, from: &str, to: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/ccg3.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "configs/ccg3.toml has no `{from}`");
    std::fs::write(folder.join("plan.toml"), text.replacen(from, to, 1)).unwrap();
    let at = text.find(from).unwrap();
    text[..at].lines().count() + 1
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "rounds = 3", "roundz = 3");
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    let place = format!("plan.toml:{line}: ");
    assert_says(&message, &[&place, "unknown key `chain.roundz`", "did you mean `rounds`?"]);
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "rounds = 3", "rounds = \"three\"");
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    let place = format!("plan.toml:{line}: ");
    assert_says(&message, &[&place, "`chain.rounds`", "three", "expected"]);
}

#[test]
fn an_unknown_precision_is_named_with_its_line_and_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "[generators]\n", "[generators]\nprecision = \"fp16\"\n") + 1;
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    let place = format!("plan.toml:{line}: `generators.precision`: unknown variant `fp16`");
    assert_says(&message, &[&place, "`f32`, `f16`, `bf16`", "did you mean `f16`?"]);
}

#[test]
fn a_device_without_half_precision_is_named_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let says = "device `ndarray`: it does not compute in bf16, expected f32 or another device";
    for command in [
        &["sample", "a tree"] as &[&str],
        &["caption", "no-such.png"],
        &["embed", "Ada met Bob.", "--weights", "no-such-folder"],
    ] {
        let half = &["--device", "ndarray", "--precision", "bf16"];
        assert_eq!(mistake(folder, &[command, half].concat()), format!("error: {says}\n"));
    }
    let line = changed(folder, "[generators]\n", "[generators]\nprecision = \"bf16\"\n") + 1;
    let message = mistake(folder, &["experiment", "plan.toml", "--device", "ndarray"]);
    assert_eq!(message, format!("error: plan.toml:{line}: generators.precision: {says}\n"));
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    assert_eq!(left.len(), 1, "only the plan: {left:?}");
}

#[test]
fn what_is_wrong_with_the_data_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, says) in [
        ("validation = ", "validatoin = ", "did you mean `validation`?"),
        ("validation = ", "validation = true #", "expected"),
    ] {
        let line = changed(folder.path(), from, to);
        let message = mistake(folder.path(), &["experiment", "plan.toml"]);
        assert_says(&message, &[&format!("plan.toml:{line}: "), says]);
    }
    for (from, to, says) in [
        ("test = 2000", "", "`test` is missing, which source = \"world\" needs"),
        ("test = 2000", "test = 2000\nlimit = 5", "`limit` is no key of source = \"world\""),
    ] {
        changed(folder.path(), from, to);
        let message = mistake(folder.path(), &["experiment", "plan.toml"]);
        assert_says(&message, &["plan.toml:", says]);
    }
}

#[test]
fn a_value_out_of_its_range_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "folds = 3", "folds = 1");
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    assert_says(&message, &[&format!("plan.toml:{line}: teacher.folds: expected at least 2")]);
    // On the command line there is no line to name.
    changed(folder.path(), "folds = 3", "folds = 3");
    let message = mistake(folder.path(), &["experiment", "plan.toml", "--set", "teacher.folds=1"]);
    assert_says(&message, &["plan.toml: teacher.folds: expected at least 2"]);
}

#[test]
fn a_missing_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = mistake(folder.path(), &["experiment", "none.toml"]);
    assert_says(&message, &["none.toml: no such file"]);
    let message = mistake(folder.path(), &["pretrain", "none.toml"]);
    assert_says(&message, &["none.toml: no such file"]);
}

#[test]
fn a_device_that_is_unknown_or_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), "[data]", "device = \"gpu\"\n\n[data]");
    for arguments in [
        &["experiment", "plan.toml"] as &[&str],
        &["experiment", "plan.toml", "--device", "gpu"],
        &["sample", "a tree", "--device", "gpu"],
    ] {
        let message = mistake(folder.path(), arguments);
        assert_says(&message, &["device `gpu`", "expected auto, flex, ndarray, cuda"]);
    }
    if mi2rage::device::probe_cuda().is_err() {
        let message = mistake(folder.path(), &["sample", "a tree", "--device", "cuda"]);
        assert_says(&message, &["device `cuda`"]);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the plan: {left:?}");
}

#[test]
fn an_override_that_is_no_assignment_or_names_no_key_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), "rounds = 3", "rounds = 3");
    let with = |set: &str| mistake(folder.path(), &["experiment", "plan.toml", "--set", set]);
    assert_says(&with("chain.rounds"), &["--set chain.rounds", "expected KEY=VALUE"]);
    assert_says(&with("chain.roundz=2"), &["chain.roundz=2", "unknown key", "`rounds`"]);
    assert_says(&with("chain.rounds=two"), &["chain.rounds=two", "expected"]);
    let message = mistake(folder.path(), &["world", "ceiling", "--set", "world.p_txt=0.5"]);
    assert_says(&message, &["world.p_txt=0.5", "did you mean `p_text`?"]);
}
