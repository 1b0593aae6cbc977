//! The commands on published folders, as transformers and diffusers save them, against what those
//! libraries make of the same folders.

mod broken;
mod experiment;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use mi2rage::data::pictures;
use mi2rage::generators::published;
use mi2rage_models::published::Archive;
use serde_json::Value;

fn checkpoint(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("models/tests/fixtures/checkpoints").join(name)
}

/// Exit code, standard output, standard error.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("mi2rage").unwrap();
    let output = command.args(arguments).current_dir(folder).env_remove("RUST_LOG").output();
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = run(folder, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    out
}

fn mistake(folder: &Path, arguments: &[&str]) -> String {
    let (code, _, err) = run(folder, arguments);
    assert_eq!(code, Some(2), "{arguments:?}: {err}");
    assert_eq!(err.lines().count(), 1, "{arguments:?}: {err}");
    err
}

fn reference(checkpoint_name: &str, tensor: &str) -> Vec<f32> {
    let path = checkpoint(checkpoint_name).join("reference.safetensors");
    Archive::open(&path).unwrap().numbers(tensor).unwrap()
}

/// A safetensors file with one tensor.
fn write_tensor(path: &Path, name: &str, shape: &[usize], numbers: &[f32]) {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes);
    safetensors::serialize_to_file([(name, view.unwrap())], None, path).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The whole way: prompt to ids, text encoder, guidance, sampler of the folder, autoencoder, PNG.
#[test]
fn a_pipeline_draws_what_diffusers_draws_from_the_same_latents() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["sd1", "sd2"] {
        let weights = checkpoint(name);
        let prompts = std::fs::read_to_string(weights.join("prompts.json")).unwrap();
        let prompts: Value = serde_json::from_str(&prompts).unwrap();
        let latents = folder.path().join("latents.safetensors");
        write_tensor(&latents, "latents", &[1, 4, 8, 8], &reference(name, "in.latents"));
        let out = folder.path().join(format!("{name}.png"));
        let (steps, guidance) = (prompts["steps"].to_string(), prompts["guidance"].to_string());
        let mut arguments = vec!["sample", prompts["prompt"].as_str().unwrap()];
        arguments.extend(["--negative", prompts["negative"].as_str().unwrap()]);
        arguments.extend(["--steps", &steps, "--guidance", &guidance, "--size", "16"]);
        arguments.extend(["--latents", text(&latents), "--weights", text(&weights)]);
        arguments.extend(["--out", text(&out)]);
        assert_eq!(printed(folder.path(), &arguments), format!("{}\n", out.display()));
        let picture = pictures::decode(&out).unwrap();
        let expected = reference(name, "out.pipeline.picture");
        let plane = 16 * 16;
        for (at, pixel) in picture.rgb.chunks_exact(3).enumerate() {
            for (channel, &byte) in pixel.iter().enumerate() {
                let value = expected[channel * plane + at].clamp(-1.0, 1.0);
                let gap = f32::from(byte) - (value + 1.0) * 127.5;
                assert!(gap.abs() <= 0.51, "{name}: pixel {at}, channel {channel}: off by {gap}");
            }
        }
    }
}

/// Not exactly: a U-Net of this size leaves up to ten u = 2^-11 (f16) or 2^-8 (bf16) of its output, and
/// guidance adds 7.5 and 6.5 times two such errors, which over five steps makes the half of a level in
/// f16, where that is what colours are rounded to, and eight times as much in bf16.
#[test]
fn a_pipeline_in_half_precision_draws_almost_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["sd1", "sd2"] {
        let weights = checkpoint(name);
        let latents = folder.path().join("latents.safetensors");
        write_tensor(&latents, "latents", &[1, 4, 8, 8], &reference(name, "in.latents"));
        let draw = |precision: &str| {
            let mut arguments = vec!["sample", "A photo of an astronaut", "--steps", "5"];
            arguments.extend(["--size", "16", "--precision", precision, "--out", "half.png"]);
            arguments.extend(["--latents", text(&latents), "--weights", text(&weights)]);
            printed(folder.path(), &arguments);
            pictures::decode(&folder.path().join("half.png")).unwrap().rgb
        };
        let plain = draw("f32");
        for (precision, levels) in [("f16", 0.5), ("bf16", 4.0)] {
            let gaps =
                draw(precision).into_iter().zip(&plain).map(|(a, b)| f64::from(a.abs_diff(*b)));
            let mean = gaps.sum::<f64>() / plain.len() as f64;
            println!("{name} in {precision}: off by {mean:.3} levels of 255");
            assert!(mean > 0.0 && mean < levels, "{name} in {precision}: off by {mean} levels");
        }
    }
}

#[test]
fn a_picture_is_drawn_anew_and_remembers_how() {
    let folder = tempfile::tempdir().unwrap();
    let weights = checkpoint("sd1");
    let image = checkpoint("preprocess").join("landscape.png");
    let draw = |out: &str, strength: &str| {
        let mut arguments = vec!["sample", "a horse", "--image", text(&image)];
        arguments.extend(["--strength", strength, "--steps", "5", "--size", "16"]);
        arguments.extend(["--weights", text(&weights), "--out", out]);
        printed(folder.path(), &arguments);
        std::fs::read(folder.path().join(out)).unwrap()
    };
    let (some, much) = (draw("some.png", "0.3"), draw("much.png", "0.9"));
    assert_ne!(some, much);
    assert_eq!(some, draw("some.png", "0.3"));
    let says = |part: &str| much.windows(part.len()).any(|bytes| bytes == part.as_bytes());
    assert!(says("strength\0") && says("pndm") && says("landscape.png"));
    assert!(says("weights\0") && says(&published::hash(&weights).unwrap()));
    // The noise may be given here too.
    let latents = folder.path().join("latents.safetensors");
    write_tensor(&latents, "latents", &[1, 4, 8, 8], &reference("sd1", "in.latents"));
    let mut given = vec!["sample", "a horse", "--image", text(&image), "--strength", "0.9"];
    given.extend(["--steps", "5", "--size", "16", "--weights", text(&weights)]);
    given.extend(["--latents", text(&latents), "--out", "given.png"]);
    printed(folder.path(), &given);
    let pixels = |name: &str| pictures::decode(&folder.path().join(name)).unwrap().rgb;
    assert_ne!(pixels("given.png"), pixels("much.png"));
}

#[test]
fn options_that_do_not_fit_the_weights_are_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let weights = checkpoint("sd1");
    let sample = |more: &[&str]| {
        let mut arguments = vec!["sample", "x", "--steps", "2", "--weights", text(&weights)];
        arguments.extend(more);
        mistake(folder.path(), &arguments)
    };
    assert!(sample(&["--size", "17"]).contains("expected a multiple of 4"));
    assert!(sample(&["--size", "4611686018427387904"]).contains("at most 4096"));
    let latents = folder.path().join("latents.safetensors");
    write_tensor(&latents, "latents", &[1, 4, 4, 4], &[0.0; 64]);
    let message = sample(&["--size", "16", "--latents", text(&latents)]);
    assert!(message.contains("[1, 4, 4, 4], expected [1, 4, 8, 8]"), "{message}");
    write_tensor(&latents, "noise", &[1], &[0.0]);
    assert!(sample(&["--latents", text(&latents)]).contains("expected a tensor `latents`"));
    let message = mistake(folder.path(), &["sample", "x", "--size", "64"]);
    assert!(message.contains("one size"), "{message}");
    let blip = checkpoint("blip");
    let message = mistake(folder.path(), &["sample", "x", "--weights", text(&blip)]);
    assert!(message.contains("scheduler_config.json"), "{message}");
}

#[test]
fn sentences_become_the_vectors_of_sentence_transformers() {
    let folder = checkpoint("minilm");
    let sentences = std::fs::read_to_string(folder.join("sentences.json")).unwrap();
    let sentences: Vec<String> = serde_json::from_str(&sentences).unwrap();
    let mut arguments = vec!["embed", "--weights", text(&folder)];
    arguments.extend(sentences.iter().map(String::as_str));
    let out = printed(&folder, &arguments);
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = reference("minilm", "out.embeddings");
    assert_eq!(rows.len(), sentences.len());
    for ((row, sentence), expected) in rows.iter().zip(&sentences).zip(expected.chunks(16)) {
        assert_eq!(row["text"], **sentence);
        let found = row["embedding"].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.as_f64().unwrap() as f32 - expected).abs() < 1e-6, "{sentence}");
        }
    }
}

/// What transformers makes of the same folders (`tests/reference/commands.py`).
fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/commands.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_close(found: &Value, expected: &Value) {
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 2e-6, "{found}, expected {expected}");
    }
}

#[test]
fn pictures_become_the_vectors_of_transformers() {
    let expected = expected();
    for name in ["clip", "vit-bare"] {
        let folder = checkpoint(name);
        let pictures = checkpoint("preprocess");
        let shown = ["--picture", "landscape.png", "--picture", "portrait.png"];
        let arguments = [&["embed", "--weights", text(&folder)], &shown[..]].concat();
        let out = printed(&pictures, &arguments);
        let rows: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2);
        for (row, shown) in rows.iter().zip(["landscape", "portrait"]) {
            assert_eq!(row["picture"], format!("{shown}.png"));
            assert_close(&row["embedding"], &expected["embed"][name][shown]);
        }
    }
    let folder = checkpoint("minilm");
    let picture = checkpoint("preprocess").join("portrait.png");
    let picture = ["embed", "--weights", text(&folder), "--picture", text(&picture)];
    assert!(mistake(&folder, &picture).contains("does not read pictures"));
}

#[test]
fn a_published_classifier_gives_every_label_the_probability_of_transformers() {
    let (folder, expected) = (checkpoint("vit-classifier"), expected());
    let pictures = checkpoint("preprocess");
    fn asked<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["predict", "--model", model], more].concat()
    }
    for shown in ["landscape", "portrait"] {
        let picture = format!("{shown}.png");
        let out = printed(&pictures, &asked(text(&folder), &["--json", "--picture", &picture]));
        let answer: Value = serde_json::from_str(&out).unwrap();
        let labels = answer["relations"].as_array().unwrap();
        let expected = expected["predict"][shown].as_object().unwrap();
        assert_eq!(labels.len(), expected.len());
        for label in labels {
            let found = label["probability"].as_f64().unwrap();
            let expected = expected[label["relation"].as_str().unwrap()].as_f64().unwrap();
            assert!((found - expected).abs() < 2e-6, "{label}, expected {expected}");
        }
    }
    let refused = |more: &[&str], part: &str| {
        let message = mistake(&pictures, &asked(text(&folder), more));
        assert!(message.contains(part), "{message}");
    };
    refused(&["--text", "a cat"], "does not read sentences");
    refused(&["--picture", "portrait.png", "--seed", "1"], "--seed: ");
    refused(&["--text", "a cat", "--picture", "portrait.png"], "--text, --picture: ");
    let bare = checkpoint("vit-bare");
    let bare = ["predict", "--model", text(&bare), "--picture", "portrait.png"];
    assert!(mistake(&pictures, &bare).contains("a ViTModel, expected"), "{bare:?}");
}

/// A tokenizer that fits, beside the classifier: the sentence's logits as the layers give them are those
/// of the layer-by-layer tests.
#[test]
fn a_published_classifier_of_sentences_names_its_labels() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = checkpoint("bert-classifier").join(file);
        std::fs::copy(from, folder.path().join(file)).unwrap();
    }
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let words = config["vocab_size"].as_u64().unwrap() as usize;
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let vocabulary: Vec<String> =
        special.into_iter().chain((5..).map(|id| format!("w{id}"))).take(words).collect();
    std::fs::write(folder.path().join("vocab.txt"), vocabulary.join("\n")).unwrap();
    let ask = ["predict", "--model", ".", "--text", "w7 w9 w8"];
    let out = printed(folder.path(), &ask);
    let mut total = 0.0;
    for line in out.lines() {
        let (probability, label) = line.split_once("  ").unwrap();
        total += probability.parse::<f64>().unwrap();
        let labels = config["id2label"].as_object().unwrap();
        assert!(labels.values().any(|name| name == label), "{label}");
    }
    assert!((total - 1.0).abs() < 1e-3, "{out}");
    let longer = [&vocabulary[..], &["more".to_owned()]].concat();
    std::fs::write(folder.path().join("vocab.txt"), longer.join("\n")).unwrap();
    let message = mistake(folder.path(), &ask);
    assert!(message.contains("vocab.txt") && message.contains("embeddings"), "{message}");
}

#[test]
fn what_is_too_long_is_cut_with_a_warning() {
    let long = "the cat sat on the mat ".repeat(40);
    let folder = checkpoint("minilm");
    let (code, _, err) = run(&folder, &["embed", "--weights", text(&folder), &long]);
    assert!(code == Some(0) && err.contains("cut to") && err.contains("tokens"), "{err}");
    let out = tempfile::tempdir().unwrap();
    let weights = checkpoint("sd1");
    let draw = ["sample", &long, "--steps", "1", "--size", "16", "--weights", text(&weights)];
    let (code, _, err) = run(out.path(), &draw);
    assert!(code == Some(0) && err.contains("the prompt is cut to"), "{err}");
}

/// Vectors that are off by at most four u = 2^-11 (f16) or 2^-8 (bf16) of their length, as after two
/// layers: 1 minus the cosine is half the square of that.
#[test]
fn embeddings_in_half_precision_have_almost_the_same_direction() {
    let picture = checkpoint("preprocess").join("portrait.png");
    let embed = |name: &str, precision: &str| -> Vec<f64> {
        let folder = checkpoint(name);
        let mut arguments = vec!["embed", "--weights", text(&folder), "--precision", precision];
        match name {
            "minilm" => arguments.push("The cat sat on the mat."),
            _ => arguments.extend(["--picture", text(&picture)]),
        }
        let row: Value = serde_json::from_str(&printed(&folder, &arguments)).unwrap();
        let values = row["embedding"].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for name in ["minilm", "clip", "vit-bare"] {
        let plain = embed(name, "f32");
        for (precision, unit) in [("f16", 2f64.powi(-11)), ("bf16", 2f64.powi(-8))] {
            let half = embed(name, precision);
            let cosine = dot(&half, &plain) / (dot(&half, &half) * dot(&plain, &plain)).sqrt();
            println!("{name} in {precision}: 1 - cosine is {:.1e}", 1.0 - cosine);
            assert!(half != plain && 1.0 - cosine < 8.0 * unit * unit, "{name} in {precision}");
        }
    }
}

#[test]
fn blip_describes_pictures_in_words() {
    let folder = checkpoint("blip");
    let pictures = checkpoint("preprocess");
    let mut arguments = vec!["caption", "landscape.png", "portrait.png"];
    arguments.extend(["--weights", text(&folder), "--max-tokens", "10"]);
    let expected = expected();
    let as_transformers = |out: &str, beams: usize| {
        let lines: Vec<String> = ["landscape", "portrait"]
            .iter()
            .map(|shown| {
                let caption = &expected["caption"][format!("{shown}, {beams} beams")];
                format!("{shown}.png: {}\n", caption.as_str().unwrap())
            })
            .collect();
        assert_eq!(out, lines.concat());
    };
    let greedy = printed(&pictures, &arguments);
    as_transformers(&greedy, 1);
    let half = [&arguments as &[&str], &["--precision", "f16"]].concat();
    assert_eq!(printed(&pictures, &half), greedy);
    arguments.extend(["--beams", "3"]);
    as_transformers(&printed(&pictures, &arguments), 3);
    let mut named = vec!["caption", "portrait.png", "--head", "cat", "--tail", "big dog"];
    named.extend(["--weights", text(&folder), "--max-tokens", "16"]);
    let sentence = printed(&pictures, &named);
    assert!(sentence.starts_with("cat and big dog :"), "{sentence}");
}

#[test]
fn a_folder_is_explained_tensor_by_tensor() {
    let out = printed(&checkpoint("sd1"), &["weights", "inspect", ".", "--tensors"]);
    for part in ["CLIPTextModel", "UNet2DConditionModel", "AutoencoderKL", "conv_in.weight  F32"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(out.matches("every tensor is read or explained").count(), 3);
    let nowhere = tempfile::tempdir().unwrap();
    let message = mistake(nowhere.path(), &["weights", "inspect", "."]);
    assert!(message.contains("config.json"), "{message}");
    let message = mistake(nowhere.path(), &["weights", "inspect", "hf:nobody"]);
    assert!(message.contains("expected hf:OWNER/NAME"), "{message}");
}
