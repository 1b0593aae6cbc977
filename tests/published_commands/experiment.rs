//! Experiments whose generators and encoders are all published models.

use serde_json::Value;

use super::{checkpoint, printed, text};

pub const EXPERIMENT: &str = r#"
name = "published"
purpose = "Do published models take every part?"
setting = "missing_image"
seeds = [1]
arms = ["real-unimodal", "ccg-mi"]

[data]
source = "world"
train = 24
validation = 24
test = 24

[generators]
pictures = "CHECKPOINTS/sd1"
captions = "CHECKPOINTS/blip"
picture_size = 16
sampler = "pndm"
steps = 2
guidance = 2.0
batch = 4
caption_tokens = 16

[chain]
rounds = 2
chains = 1
pairing = "anchor"

[teacher]
folds = 2
calibration = 0.25
modality_masking = 0.5

[teacher.recipe]
updates = 4
batch = 8
learning_rate = 1e-3
evaluations = 2

[select]
score = "pmi_generated"
policy = { top_fraction_per_class = 0.5 }
on_drop = "generated_half"

[student]
text_encoder = "CHECKPOINTS/minilm"
vision_encoder = "CHECKPOINTS/vit-classifier"
modality_dropout = [0.3]
max_tokens = 16

[student.recipe]
updates = 6
batch = 8
learning_rate = 1e-3
evaluations = 2

[evaluation]
resamples = 100
gallery = 2
"#;

/// Stable Diffusion draws, BLIP describes, BERT and ViT learn; and the student is asked afterwards.
#[test]
fn an_experiment_runs_on_published_models_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("published.toml");
    std::fs::write(&config, EXPERIMENT.replace("CHECKPOINTS", text(&checkpoint("")))).unwrap();
    printed(folder.path(), &["experiment", "published.toml", "--out", "run"]);
    let results = std::fs::read_to_string(folder.path().join("run/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let names: Vec<&str> = results["hashes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fact| fact["name"].as_str().unwrap())
        .collect();
    for part in [
        "generators.pictures",
        "generators.captions",
        "student.text_encoder",
        "student.vision_encoder",
    ] {
        assert!(names.contains(&part), "{part}: {names:?}");
    }
    let mut ask = vec!["predict", "--model", "run", "--arm", "ccg-mi", "--top", "2"];
    ask.extend(["--text", "the cat sat on the mat", "--head", "cat", "--tail", "mat"]);
    let picture = checkpoint("preprocess").join("portrait.png");
    ask.extend(["--picture", text(&picture)]);
    assert_eq!(printed(folder.path(), &ask).lines().count(), 2);
}

#[test]
fn samples_are_generated_in_the_precision_that_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("published.toml");
    std::fs::write(&config, EXPERIMENT.replace("CHECKPOINTS", text(&checkpoint("")))).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join("run").join(name)).unwrap();
    let generate = |precision: &str| {
        let set = format!("generators.precision={precision}");
        let arguments = ["generate", "published.toml", "--out", "run", "--set", &set];
        printed(folder.path(), &arguments);
        assert!(read("config.toml").contains(&format!("precision = \"{precision}\"\n")));
        let stage: Value = serde_json::from_str(&read("stages/seed-1/generate.json")).unwrap();
        (stage["inputs"].clone(), stage["output"]["samples"].clone())
    };
    let (plain, half, again) = (generate("f32"), generate("bf16"), generate("bf16"));
    assert_ne!(plain.0, half.0);
    assert_eq!(plain.1, half.1);
    assert_eq!(half, again);
}
