//! Weights that are no numbers, and precisions that do not hold what is computed.

use std::fs;
use std::path::{Path, PathBuf};

use mi2rage_models::published::Archive;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::experiment::EXPERIMENT;
use super::{checkpoint, mistake, printed, text, write_tensor};

/// A copy of a checkpoint beside which others have room.
fn copy(name: &str, to: &Path) -> PathBuf {
    fn all(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if from.is_dir() {
                all(&from, &to);
            } else {
                fs::copy(from, to).unwrap();
            }
        }
    }
    let folder = to.join(name);
    all(&checkpoint(name), &folder);
    folder
}

/// Changes the last number of a tensor of 32 bits whose name ends so, and says what it is called.
fn change(folder: &Path, end: &str, new: impl Fn(f32) -> f32) -> String {
    let archive = Archive::open(folder).unwrap();
    let file = archive.files().next().unwrap().to_owned();
    drop(archive);
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (name, view) = tensors.iter().find(|(name, _)| name.ends_with(end)).unwrap();
    let mut data = view.data().to_vec();
    let (_, last) = data.split_last_chunk_mut().unwrap();
    *last = new(f32::from_le_bytes(*last)).to_le_bytes();
    let changed = TensorView::new(view.dtype(), view.shape().to_vec(), &data).unwrap();
    let others = tensors.iter().filter(|(other, _)| *other != name);
    safetensors::serialize_to_file(others.chain([(name, changed)]), None, &file).unwrap();
    name.to_owned()
}

#[test]
fn a_weight_that_is_no_number_is_named_by_whoever_meets_it() {
    let folder = tempfile::tempdir().unwrap();
    let picture = checkpoint("preprocess").join("portrait.png");
    let picture = text(&picture);
    let drawn = ["sample", "x", "--steps", "1", "--size", "16", "--weights"];
    let asked: [(&str, &str, &str, &[&str]); 7] = [
        ("minilm", "", "query.weight", &["embed", "The cat sat.", "--weights"]),
        ("clip", "", "visual_projection.weight", &["embed", "--picture", picture, "--weights"]),
        ("vit-classifier", "", "classifier.bias", &["predict", "--picture", picture, "--model"]),
        ("blip", "", "LayerNorm.bias", &["caption", picture, "--weights"]),
        ("sd1", "text_encoder", "final_layer_norm.bias", &drawn),
        ("sd1", "unet", "conv_in.bias", &drawn),
        ("sd1", "vae", "decoder.conv_out.bias", &drawn),
    ];
    for (at, (name, part, end, command)) in asked.into_iter().enumerate() {
        let broken = copy(name, &folder.path().join(at.to_string()));
        let tensor = change(&broken.join(part), end, |_| f32::NAN);
        let message = mistake(folder.path(), &[command, &[text(&broken)]].concat());
        let expected = format!("`{tensor}` holds a number that is not finite\n");
        assert!(message.ends_with(&expected), "{name} {part}: {message}");
        assert!(message.contains(text(&broken.join(part))), "{name} {part}: {message}");
        assert!(!folder.path().join("sample.png").exists(), "{name} {part}: a picture");
    }
}

#[test]
fn what_a_precision_does_not_hold_is_no_picture() {
    let folder = tempfile::tempdir().unwrap();
    let weights = copy("sd1", folder.path());
    change(&weights.join("vae"), "decoder.conv_out.bias", |_| 1e6);
    let drawn = ["sample", "x", "--steps", "1", "--size", "16", "--weights", text(&weights)];
    for precision in ["f32", "bf16"] {
        printed(folder.path(), &[&drawn[..], &["--precision", precision]].concat());
    }
    let message = mistake(folder.path(), &[&drawn[..], &["--precision", "f16"]].concat());
    assert!(message.contains("in f16 it gave pictures that are not finite"), "{message}");
    assert!(message.contains("expected bf16 or f32"), "{message}");
}

#[test]
fn latents_that_are_no_numbers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (latents, weights) = (folder.path().join("latents.safetensors"), checkpoint("sd1"));
    let mut numbers = [0.0; 64];
    numbers[63] = f32::INFINITY;
    write_tensor(&latents, "latents", &[1, 4, 4, 4], &numbers);
    let drawn = ["sample", "x", "--weights", text(&weights), "--latents", text(&latents)];
    let message = mistake(folder.path(), &drawn);
    assert!(message.contains("`latents` holds a number that is not finite"), "{message}");
}

/// Before anything is generated or learnt.
#[test]
fn an_experiment_refuses_an_encoder_with_a_weight_that_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let broken = copy("minilm", folder.path());
    let tensor = change(&broken, "word_embeddings.weight", |_| f32::NEG_INFINITY);
    let config = EXPERIMENT.replace("CHECKPOINTS/minilm", text(&broken));
    let config = config.replace("CHECKPOINTS", text(&checkpoint("")));
    fs::write(folder.path().join("published.toml"), config).unwrap();
    let message = mistake(folder.path(), &["experiment", "published.toml", "--out", "run"]);
    assert!(
        message.contains(&format!("`{tensor}` holds a number that is not finite")),
        "{message}"
    );
    assert!(!folder.path().join("run/results.json").exists());
}
