//! Names of published folders: a path, or `hf:OWNER/NAME@REVISION`, fetched into the cache that all
//! programs of Hugging Face share.

#[cfg(feature = "hub")]
use std::path::Path;
use std::path::PathBuf;

use crate::exit::UserError;

/// What such a name begins with.
const SCHEME: &str = "hf:";

/// The folder that `name` stands for, fetched first if it is a name of the hub.
///
/// # Errors
///
/// The name is malformed, this program was built without the feature `hub`, or the files cannot be
/// fetched.
pub fn resolve(name: &str) -> Result<PathBuf, UserError> {
    match name.strip_prefix(SCHEME) {
        None => Ok(PathBuf::from(name)),
        Some(repository) => {
            let (id, revision) = repository.split_once('@').unwrap_or((repository, "main"));
            let parts: Vec<&str> = id.split('/').collect();
            let sound = |part: &&str| !part.is_empty() && !part.starts_with('.');
            if parts.len() != 2 || !parts.iter().all(sound) || revision.is_empty() {
                return Err(UserError(format!(
                    "{name}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
                )));
            }
            fetch(name, id, revision)
        }
    }
}

/// What a folder needs to be used, for those who fetch it by hand.
const FILES: &str = "config.json, the .safetensors files (and their .index.json), tokenizer.json or \
                     vocab.txt or vocab.json with merges.txt, tokenizer_config.json, \
                     preprocessor_config.json; of a pipeline model_index.json and the folders that it \
                     names";

#[cfg(not(feature = "hub"))]
fn fetch(name: &str, id: &str, revision: &str) -> Result<PathBuf, UserError> {
    Err(UserError(format!(
        "{name}: this program was built without the feature `hub`: build it with --features hub, or \
         download https://huggingface.co/{id}/tree/{revision} into a folder ({FILES}) and name the \
         folder"
    )))
}

#[cfg(feature = "hub")]
fn fetch(name: &str, id: &str, revision: &str) -> Result<PathBuf, UserError> {
    use hf_hub::{Repo, RepoType};
    use mi2rage_models::published::{PublishedError, is_pickled};

    let failed = |what: &dyn std::fmt::Display| {
        UserError(format!(
            "{name}: {what}; without a network, download \
             https://huggingface.co/{id}/tree/{revision} into a folder ({FILES}) and name the folder"
        ))
    };
    // HF_HOME and HF_ENDPOINT say where to, as they do for Hugging Face's own programs.
    let api = hf_hub::api::sync::ApiBuilder::from_env().build().map_err(|error| failed(&error))?;
    let repository = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
    let cached = hf_hub::Cache::from_env().repo(repository.clone());
    let repository = api.repo(repository);
    let info = match repository.info() {
        Ok(info) => info,
        // Without a network, what was fetched before is as good.
        Err(error) => {
            let described =
                ["model_index.json", "config.json"].iter().find_map(|name| cached.get(name));
            let folder =
                described.as_deref().and_then(Path::parent).ok_or_else(|| failed(&error))?;
            tracing::warn!("{name}: {error}; what was fetched before is used");
            return Ok(folder.to_owned());
        }
    };
    let names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    let mut folder = None;
    for file in wanted(&names) {
        let path = repository.get(file).map_err(|error| failed(&error))?;
        if !file.contains('/') {
            folder = path.parent().map(PathBuf::from);
        }
    }
    let folder = folder.ok_or_else(|| failed(&"it holds no configuration"))?;
    let pickled = names.iter().map(Path::new).find(|name| is_pickled(name));
    match pickled.filter(|_| !names.iter().any(|name| name.ends_with(".safetensors"))) {
        Some(file) => {
            let refused = PublishedError::Pickled { path: file.to_owned() };
            Err(UserError(format!("{name}: {refused}")))
        }
        None => Ok(folder),
    }
}

/// The files of a repository that this program reads: configurations, tokenizers, and one set of
/// weights a folder. A single-file copy of a whole pipeline at the top is left out, and so are half
/// precision copies beside full ones.
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
fn wanted(names: &[String]) -> Vec<&str> {
    let in_folder = |name: &str| name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let is_pipeline = names.iter().any(|name| name == "model_index.json");
    let weights = |name: &str| name.ends_with(".safetensors");
    let variant = |name: &str| {
        let stem = name.trim_end_matches(".safetensors");
        [".fp16", ".bf16", ".non_ema", "-ema-only", "-ema-pruned"]
            .iter()
            .any(|tag| stem.contains(tag))
    };
    let parts = ["text_encoder", "tokenizer", "unet", "vae", "scheduler", "feature_extractor"];
    let read = |name: &&str| {
        let folder = in_folder(name);
        if is_pipeline && folder.is_empty() {
            return *name == "model_index.json";
        }
        if is_pipeline && !parts.contains(&folder.as_str()) {
            return false;
        }
        let small = [".json", ".txt"].iter().any(|end| name.ends_with(end));
        if small {
            return !folder.starts_with("onnx") && !folder.starts_with("openvino");
        }
        let full =
            |other: &&String| weights(other) && in_folder(other) == folder && !variant(other);
        let exports = ["onnx", "openvino", "coreml"].iter().any(|one| folder.starts_with(one));
        weights(name) && !exports && (!variant(name) || !names.iter().any(|other| full(&other)))
    };
    names.iter().map(String::as_str).filter(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_itself_and_a_malformed_name_is_refused() {
        assert_eq!(resolve("models/bert").unwrap(), PathBuf::from("models/bert"));
        for name in ["hf:bert", "hf:a/b/c", "hf:/b", "hf:a/b@", "hf:../b"] {
            assert!(resolve(name).unwrap_err().0.contains("expected hf:OWNER/NAME"), "{name}");
        }
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_the_message_says_which_files_to_put_where() {
        let message = resolve("hf:google-bert/bert-base-uncased").unwrap_err().0;
        for part in ["--features hub", "google-bert/bert-base-uncased", "config.json", "vocab.txt"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn one_set_of_weights_is_wanted_and_what_describes_it() {
        let names = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let bert = names(&[
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "vocab.txt",
            "1_Pooling/config.json",
        ]);
        assert_eq!(
            wanted(&bert),
            [
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "vocab.txt",
                "1_Pooling/config.json"
            ]
        );
        let diffusion = names(&[
            "model_index.json",
            "v1-5-pruned.safetensors",
            "scheduler/scheduler_config.json",
            "safety_checker/model.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ]);
        assert_eq!(
            wanted(&diffusion),
            [
                "model_index.json",
                "scheduler/scheduler_config.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ]
        );
    }
}
