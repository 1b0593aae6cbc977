//! `predict` with a trained student.

use std::collections::BTreeMap;
use std::path::Path;

use mi2rage::bundle::Bundle;
use mi2rage::data::Relations;
use mi2rage::data::published::Preprocessor;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::fusion::FusionConfig;
use mi2rage_models::vit::ViTConfig;
use mi2rage_models::weights::{self, Precision};

use super::{assert_says, mistake, printed};

/// An untrained student of the bundled tokenizer, in the place of a run's.
fn student(run: &Path, mask_entities: bool) -> String {
    let size = 16;
    let relations = Relations::new(["/per/per/peer".to_owned(), "/per/per/couple".to_owned()]);
    let config = FusionConfig {
        text: BertConfig {
            vocab_size: Bundle::embedded().tokenizer().unwrap().vocabulary_size(),
            hidden_size: size,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: size,
            max_position_embeddings: 48,
            ..BertConfig::default()
        },
        vision: ViTConfig {
            hidden_size: size,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: size,
            image_size: 32,
            patch_size: 8,
            ..ViTConfig::default()
        },
        num_labels: relations.len(),
        fusion_size: size,
        fusion_heads: 2,
        ..FusionConfig::default()
    };
    let metadata = BTreeMap::from([
        ("config".to_owned(), serde_json::to_string(&config).unwrap()),
        ("relations".to_owned(), serde_json::to_string(&relations).unwrap()),
        ("max_tokens".to_owned(), "48".to_owned()),
        ("mask_entities".to_owned(), mask_entities.to_string()),
        ("preprocessor".to_owned(), serde_json::to_string(&Preprocessor::square(32)).unwrap()),
        ("encoders".to_owned(), "bundled".to_owned()),
    ]);
    let model = config.init::<burn::backend::Flex>(&Default::default());
    let name = "seed-1/students/ccg-mi-dropout-0.3.safetensors";
    let path = run.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    weights::save::<burn::backend::Flex, _>(&model, &path, Precision::F32, &metadata).unwrap();
    path.display().to_string()
}

#[test]
fn a_student_gives_every_relation_its_probability_from_what_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = student(&folder.join("run"), false);
    printed(
        folder,
        &["world", "export", "posts", "--train", "1", "--validation", "0", "--test", "0"],
    );
    let text = ["--text", "Ada Lovson met Bob.", "--head", "Ada Lovson", "--tail", "bob"];
    let picture = ["--picture", "posts/train/train-000000.png"];
    let ask = |more: &[&str]| printed(folder, &[&["predict", "--model", &file], more].concat());
    let both = ask(&[&text[..], &picture].concat());
    let lines: Vec<(f64, &str)> = both
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(probability, relation)| (probability.parse().unwrap(), relation))
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.is_sorted_by(|a, b| a.0 >= b.0), "{both}");
    assert!((lines.iter().map(|line| line.0).sum::<f64>() - 1.0).abs() < 2e-4, "{both}");
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&ask(&[&["--json"], more].concat())).unwrap()
    };
    let (of_both, of_text, of_picture) =
        (json(&[&text[..], &picture].concat()), json(&text), json(&picture));
    assert_eq!(of_both["relations"][0]["relation"], lines[0].1);
    assert_ne!(of_both["relations"], of_text["relations"]);
    assert_ne!(of_both["relations"], of_picture["relations"]);
    let by_folder = ["predict", "--model", "run", "--top", "1"];
    let top = printed(folder, &[&by_folder[..], &text, &picture].concat());
    assert_eq!(top.trim_end(), both.lines().next().unwrap());
}

#[test]
fn a_student_of_masked_entities_does_not_see_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let answer = |file: &str, head: &str| {
        let text = format!("{head} met Bob");
        let asked = ["--text", &text, "--head", head, "--tail", "Bob", "--json"];
        printed(folder.path(), &[&["predict", "--model", file] as &[&str], &asked].concat())
    };
    let masked = student(&folder.path().join("masked"), true);
    assert_eq!(answer(&masked, "Wedding"), answer(&masked, "Tree"));
    let open = student(&folder.path().join("open"), false);
    assert_ne!(answer(&open, "Wedding"), answer(&open, "Tree"));
}

#[test]
fn what_a_student_cannot_be_asked_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    student(&folder.join("run"), false);
    let ask = |model: &str, head: &str, tail: &str| {
        let asked = ["--text", "Ada met Bob .", "--head", head, "--tail", tail];
        mistake(folder, &[&["predict", "--model", model] as &[&str], &asked].concat())
    };
    assert_says(&ask("run", "Zoe", "Bob"), &["--head `Zoe`", "`Ada met Bob .`"]);
    assert_says(&ask("run", "Ada", "Zoe"), &["--tail `Zoe`", "`Ada met Bob .`"]);
    assert_says(&ask("none.safetensors", "Ada", "Bob"), &["none.safetensors"]);
    let nowhere = ["predict", "--model", "nowhere", "--text", "Ada met Bob ."];
    assert_says(&mistake(folder, &nowhere), &["--model nowhere: no such file or folder"]);
    std::fs::create_dir(folder.join("empty")).unwrap();
    assert_says(&ask("empty", "Ada", "Bob"), &["empty: no student", "expected a folder"]);
    std::fs::write(folder.join("text.safetensors"), "no weights").unwrap();
    assert_says(&ask("text.safetensors", "Ada", "Bob"), &["text.safetensors", "safetensors file"]);
    let picture = ["predict", "--model", "run", "--picture", "none.png"];
    assert_says(&mistake(folder, &picture), &["none.png"]);
}
