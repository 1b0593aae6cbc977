//! Whatever the files hold, nothing panics.

use burn::backend::Flex;
use mi2rage::data::Picture;
use mi2rage::data::published::{Preprocessor, PublishedTokenizer, SentencePooling};
use mi2rage::data::tokens::Tokenizer;
use mi2rage_models::published::{PublishedScheduler, inspect};
use serde_json::{Value, json};

use crate::sentences::MODULES;
use crate::tokenizers::{BERT, tokenizer_json, vocabulary};
use crate::{Folder, fixture};

/// Every copy of `json` in which one value is another.
fn mutations(json: &Value) -> Vec<Value> {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(3),
        json!(1_000_000_000),
        json!(4_294_967_295_u64),
        json!(u64::MAX),
        json!(1e30),
        json!(""),
        json!("##"),
        json!("é"),
        json!("[SEP]"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"type": "Sequence"}),
    ];
    let mut places = Vec::new();
    let mut open = vec![(String::new(), json)];
    while let Some((place, value)) = open.pop() {
        match value {
            Value::Array(items) => {
                open.extend(items.iter().enumerate().map(|(at, v)| (format!("{place}/{at}"), v)));
            }
            Value::Object(items) => open.extend(
                items.iter().map(|(key, v)| (format!("{place}/{}", key.replace('/', "~1")), v)),
            ),
            _ => {}
        }
        places.push(place);
    }
    let mut found = Vec::new();
    for place in places {
        for value in &values {
            let mut copy = json.clone();
            *copy.pointer_mut(&place).unwrap() = value.clone();
            found.push(copy);
        }
    }
    found
}

#[test]
fn no_tokenizer_file_makes_it_panic() {
    let texts = ["Ada's [MASK] Café [DEC] 你好!", "", "cat <|endoftext|> !", "é\u{0}\u{301} x"];
    let use_it = |folder: &Folder| {
        let _ = Tokenizer::from_published(folder.path());
        let Ok(tokenizer) = PublishedTokenizer::load(folder.path()) else { return };
        for text in texts {
            let _ = tokenizer.encode_padded(text, 7);
            let _ = tokenizer.encode_pair(text, text, 9);
        }
        let _ = tokenizer.decode(&(0..30).collect::<Vec<_>>());
    };
    let folder = Folder::new(&[]);
    for json in mutations(&tokenizer_json()) {
        folder.write("tokenizer.json", &json.to_string());
        use_it(&folder);
    }
    // CLIP's as one file: what its folder is read as.
    let mut pairs = tokenizer_json();
    let words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    pairs["added_tokens"] = json!([]);
    pairs["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]});
    pairs["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
    pairs["post_processor"] = json!({"type": "RobertaProcessing", "sep": ["<e>", 5],
        "cls": ["<s>", 4], "trim_offsets": false, "add_prefix_space": false});
    pairs["decoder"] = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
        "use_regex": true});
    pairs["model"] = json!({"type": "BPE", "dropout": null, "unk_token": "<e>",
        "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": false,
        "byte_fallback": false, "ignore_merges": false,
        "vocab": {"a": 0, "a</w>": 1, "c": 2, "ca": 3, "<s>": 4, "<e>": 5}, "merges": [["c", "a"]]});
    pairs["padding"]["pad_token"] = json!("<e>");
    folder.write("tokenizer.json", &pairs.to_string());
    PublishedTokenizer::load(folder.path()).unwrap();
    for json in mutations(&pairs) {
        folder.write("tokenizer.json", &json.to_string());
        use_it(&folder);
    }
    let token = json!({"content": "[DEC]", "normalized": true, "lstrip": true, "rstrip": true,
        "single_word": true, "special": true});
    let config = json!({"do_lower_case": true, "strip_accents": true, "tokenize_chinese_chars": true,
        "model_max_length": 9, "pad_token": "[PAD]", "bos_token": token, "cls_token": "[CLS]",
        "added_tokens_decoder": {"22": token}, "additional_special_tokens": ["[ENC]"],
        "tokenizer_class": "BertTokenizer", "clean_up_tokenization_spaces": true});
    let folder = Folder::new(&[("vocab.txt", &vocabulary(BERT))]);
    folder.write("tokenizer_config.json", &config.to_string());
    PublishedTokenizer::load(folder.path()).unwrap();
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        for json in mutations(&config) {
            folder.write(name, &json.to_string());
            use_it(&folder);
        }
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
}

/// A copy of a folder's files, without the reference's numbers.
fn copy(name: &str) -> Folder {
    let folder = Folder::new(&[]);
    for part in ["", "text_encoder", "unet", "vae"] {
        for entry in fixture(name).join(part).read_dir().into_iter().flatten() {
            let from = entry.unwrap();
            let file = from.file_name().into_string().unwrap();
            if from.path().is_file() && file != "reference.safetensors" {
                std::fs::create_dir_all(folder.path().join(part)).unwrap();
                std::fs::copy(from.path(), folder.path().join(part).join(file)).unwrap();
            }
        }
    }
    folder
}

/// Sizes beyond reason too: nothing is made before it is compared with the file.
#[test]
fn no_configuration_of_a_model_makes_it_panic_or_fill_the_memory() {
    let names = ["bert-bare", "bert-mlm", "bert-classifier", "vit-bare", "vit-classifier"];
    let names = names.into_iter().chain(["clip", "clip-text-projection", "blip", "sd1"]);
    let mut refused = 0;
    for name in names {
        let folder = copy(name);
        inspect::<Flex>(folder.path(), &Default::default()).unwrap();
        for part in ["", "text_encoder", "unet", "vae"] {
            let path = folder.path().join(part).join("config.json");
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for json in mutations(&serde_json::from_str(&text).unwrap()) {
                std::fs::write(&path, json.to_string()).unwrap();
                match inspect::<Flex>(folder.path(), &Default::default()) {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(!error.to_string().contains('\n'), "{error}");
                        refused += 1;
                    }
                }
            }
            std::fs::write(&path, text).unwrap();
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn no_scheduler_makes_it_panic_or_fill_the_memory() {
    let path = fixture("sd1").join("scheduler/scheduler_config.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for json in mutations(&json) {
        let Ok(scheduler) = PublishedScheduler::parse(&json.to_string()) else { continue };
        let Ok(schedule) = scheduler.schedule.init() else { continue };
        for steps in [0, 1, 7, 1000, usize::MAX] {
            let _ = scheduler.sampler.init::<Flex>(&schedule, &scheduler.options, steps);
        }
    }
}

#[test]
fn no_configuration_makes_it_panic() {
    let config = json!({"image_processor_type": "CLIPImageProcessor", "do_resize": true,
        "size": {"shortest_edge": 4}, "resample": 3, "do_center_crop": true,
        "crop_size": {"height": 6, "width": 3}, "do_rescale": true, "rescale_factor": 0.1,
        "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]});
    let picture = Picture { width: 3, height: 2, rgb: vec![9; 18] };
    let folder = Folder::new(&[]);
    for json in mutations(&config) {
        folder.write("preprocessor_config.json", &json.to_string());
        if let Ok(preprocessor) = Preprocessor::load(folder.path()) {
            let [height, width] = preprocessor.output_size();
            assert_eq!(preprocessor.apply(&picture).len(), 3 * height * width);
        }
    }
    folder.write("1_Pooling/config.json", "{}");
    for json in mutations(&serde_json::from_str(MODULES).unwrap()) {
        folder.write("modules.json", &json.to_string());
        let _ = SentencePooling::load(folder.path());
    }
}
