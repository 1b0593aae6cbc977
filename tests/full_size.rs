//! Published models of full size with random weights, end to end, against transformers and diffusers. By
//! hand, after `tests/reference/full_size.py`:
//!
//!     python tests/reference/full_size.py build FOLDER
//!     for NAME in bert-base vit-base blip-base sd15; do
//!         python tests/reference/full_size.py run FOLDER $NAME
//!         MI2RAGE_FULL_SIZE=FOLDER cargo test --release --test full_size $NAME -- --ignored --nocapture
//!     done
//!
//! Each prints its seconds and the process's peak of resident memory, as the script does.

use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Flex;
use burn::tensor::{Int, Tensor, TensorData};
use mi2rage::generators::{DrawOptions, LatentDiffusion, Start, published};
use mi2rage::keyed::Key;
use mi2rage_models::decoding::{Decoding, Request, Strategy};
use mi2rage_models::published::{Archive, Precision, bert, blip, vit};
use serde_json::Value;

const F32: Precision = Precision::F32;

fn folder(name: &str) -> PathBuf {
    let root = std::env::var_os("MI2RAGE_FULL_SIZE").expect("MI2RAGE_FULL_SIZE names the folder");
    PathBuf::from(root).join(name)
}

/// Inputs and outputs of the reference.
struct Reference(Archive);

impl Reference {
    fn open(name: &str) -> Self {
        Self(Archive::open(&folder(name).join("reference.safetensors")).unwrap())
    }

    fn floats<const D: usize>(&mut self, name: &str) -> Tensor<Flex, D> {
        let shape = self.0.entries()[name].shape.clone();
        let data = TensorData::new(self.0.numbers(name).unwrap(), shape);
        Tensor::from_data(data, &Default::default())
    }

    fn ids(&self, name: &str) -> Vec<Vec<i64>> {
        let file = std::fs::read(self.0.origin()).unwrap();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        let view = file.tensor(name).unwrap();
        let ids = view.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes));
        ids.collect::<Vec<i64>>().chunks(view.shape()[1]).map(<[i64]>::to_vec).collect()
    }
}

fn int(rows: &[Vec<i64>]) -> Tensor<Flex, 2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), &Default::default())
}

/// The largest difference, in units of the expected values' deviation.
fn gap<const D: usize>(actual: Tensor<Flex, D>, expected: Tensor<Flex, D>) -> f64 {
    assert_eq!(actual.dims(), expected.dims());
    let deviation = expected.clone().square().mean().sqrt().into_scalar();
    f64::from((actual - expected).abs().max().into_scalar() / deviation)
}

fn report(name: &str, read: f64, begun: Instant, gap: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let computed = begun.elapsed().as_secs_f64() - read;
    let peak = peak.unwrap_or(f64::NAN) / 1024.0 / 1024.0;
    println!("{name}: read in {read:.2} s, computed in {computed:.2} s, peak {peak:.2} GiB, {gap}");
}

#[test]
#[ignore = "by hand, see above"]
fn bert_base() {
    let mut reference = Reference::open("bert-base");
    let begun = Instant::now();
    let (_, model) =
        bert::load_encoder::<Flex>(&folder("bert-base"), F32, &Default::default()).unwrap();
    let read = begun.elapsed().as_secs_f64();
    let mask = int(&reference.ids("in.attention_mask")).equal_elem(1);
    let last = model.forward(int(&reference.ids("in.input_ids")), None, Some(mask.clone()));
    // Padding's own states are of no matter.
    let [_, _, width] = last.dims();
    let counted = mask.float().unsqueeze_dim::<3>(2).repeat_dim(2, width);
    let expected = reference.floats::<3>("out.last") * counted.clone();
    let gap = gap(last * counted, expected);
    report("bert-base", read, begun, &format!("off by {gap:.1e} deviations"));
    assert!(gap < 1e-4);
}

#[test]
#[ignore = "by hand, see above"]
fn vit_base() {
    let mut reference = Reference::open("vit-base");
    let begun = Instant::now();
    let (_, model) =
        vit::load_encoder::<Flex>(&folder("vit-base"), F32, &Default::default()).unwrap();
    let read = begun.elapsed().as_secs_f64();
    let last = model.forward(reference.floats("in.pixels"));
    let gap = gap(last, reference.floats("out.last"));
    report("vit-base", read, begun, &format!("off by {gap:.1e} deviations"));
    assert!(gap < 1e-4);
}

#[test]
#[ignore = "by hand, see above"]
fn blip_base() {
    let mut reference = Reference::open("blip-base");
    let begun = Instant::now();
    let (config, model) =
        blip::load_captioner::<Flex>(&folder("blip-base"), F32, &Default::default()).unwrap();
    let read = begun.elapsed().as_secs_f64();
    let pixels = reference.floats::<4>("in.pixels");
    let rows = pixels.dims()[0];
    for (name, strategy) in [
        ("out.greedy", Strategy::Greedy),
        ("out.beams", Strategy::Beam { beams: 3, length_penalty: 1.0 }),
    ] {
        let prompt = vec![config.bos_token_id];
        let requests = vec![Request { prompt, phrases: Vec::new() }; rows];
        let options = Decoding {
            strategy,
            min_new_tokens: 0,
            max_new_tokens: 19,
            end: config.sep_token_id,
            never: Vec::new(),
            continuations: Vec::new(),
        };
        let captions = model.generate(pixels.clone(), &requests, &options, &mut []).unwrap();
        for (caption, expected) in captions.iter().zip(reference.ids(name)) {
            let end = i64::from(config.sep_token_id);
            let expected = expected[1..].iter().copied().take_while(|&id| id != end && id != 0);
            let found = caption.tokens.iter().map(|&id| i64::from(id));
            assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{name}");
        }
    }
    report("blip-base", read, begun, "the same tokens, greedily and by three beams");
}

#[test]
#[ignore = "by hand, see above"]
fn sd15() {
    let mut reference = Reference::open("sd15");
    let folder = folder("sd15");
    let prompts = std::fs::read_to_string(folder.join("prompts.json")).unwrap();
    let prompts: Value = serde_json::from_str(&prompts).unwrap();
    let words = |key: &str| -> Vec<String> {
        prompts[key].as_str().unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let options = DrawOptions {
        sampler: published::scheduler(&folder).unwrap().sampler,
        steps: prompts["steps"].as_u64().unwrap() as usize,
        guidance: prompts["guidance"].as_f64().unwrap(),
        negative: words("negative"),
    };
    let begun = Instant::now();
    let model = LatentDiffusion::<Flex>::load_published(
        &folder,
        "",
        options,
        None,
        F32,
        &Default::default(),
    )
    .unwrap();
    let read = begun.elapsed().as_secs_f64();
    let noise = reference.0.numbers("in.latents").unwrap();
    let prompt = words("prompt");
    let start = Start { latents: Some(&noise), picture: None };
    let latents = model.latents(&[(&prompt, Key::new(1))], start).unwrap();
    let drawn = begun.elapsed().as_secs_f64() - read;
    let far = gap(latents.clone(), reference.floats("out.latents"));
    let picture = gap(model.decode(latents), reference.floats("out.picture"));
    let text = format!(
        "latents off by {far:.1e}, picture by {picture:.1e} deviations; {drawn:.1} s without decoding"
    );
    report("sd15", read, begun, &text);
    assert!(far < 1e-2 && picture < 1e-2);
}
