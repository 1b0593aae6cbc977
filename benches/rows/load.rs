//! BERT-base from a folder as published to its first output.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;

use burn::tensor::backend::Backend;
use mi2rage::keyed::{self, Key};
use mi2rage_models::published::bert;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

use super::published::ids;
use super::{Setting, Work};

/// The folder's `bert-base` is written where it is missing.
pub fn bert<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let (folder, precision) = (setting.folder.join("bert-base"), setting.precision);
    if !folder.exists() {
        write(&folder);
    }
    let device = setting.device.clone();
    let ids = ids::<B>([1, 16], 30522, &device);
    Box::new(move || {
        let loaded = bert::load_encoder::<B>(&folder, precision, &device);
        let (_, model) = loaded.expect("the folder has just been written");
        black_box(model.forward(ids.clone(), None, None).into_data());
    })
}

/// Random weights under the published names.
fn write(folder: &Path) {
    let beside = folder.with_extension("part");
    fs::create_dir_all(&beside).expect("the folder can be made");
    let config = json!({ "architectures": ["BertModel"], "model_type": "bert" });
    fs::write(beside.join("config.json"), config.to_string()).expect("the file can be written");
    let mut rng = Key::new(1).rng();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes()
        .into_iter()
        .map(|(name, shape)| {
            let values = keyed::normal(&mut rng, shape.iter().product());
            let norm = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
            let bytes = values.iter().flat_map(|value| (norm + 0.02 * value).to_le_bytes());
            (name, shape, bytes.collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("there are as many bytes as the shape says"))
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(views, Some(format), &beside.join("model.safetensors"))
        .expect("the weights can be written");
    fs::rename(beside, folder).expect("the folder can be renamed");
}

fn shapes() -> Vec<(String, Vec<usize>)> {
    let (width, wide) = (768, 3072);
    let mut shapes = Vec::new();
    for (table, rows) in
        [("word_embeddings", 30522), ("position_embeddings", 512), ("token_type_embeddings", 2)]
    {
        shapes.push((format!("embeddings.{table}.weight"), vec![rows, width]));
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in (0..12).map(|layer| format!("encoder.layer.{layer}")) {
        for (part, outputs, inputs) in [
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", wide, width),
            ("output.dense", width, wide),
        ] {
            shapes.push((format!("{layer}.{part}.weight"), vec![outputs, inputs]));
            shapes.push((format!("{layer}.{part}.bias"), vec![outputs]));
        }
        norms
            .extend(["attention.output", "output"].map(|part| format!("{layer}.{part}.LayerNorm")));
    }
    for norm in norms {
        shapes.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![width])));
    }
    shapes
}
