//! Published folders as generators: their scheduler, their hash.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use mi2rage_models::published::{
    PublishedError, PublishedScheduler, read_json, refuse_pickled, stable_diffusion,
};

use crate::bundle::BundleError;

/// Where a pipeline keeps its scheduler.
pub(super) fn schedule_of(folder: &Path) -> PathBuf {
    folder.join("scheduler").join("scheduler_config.json")
}

/// The scheduler of a published Stable Diffusion, with the sampler that it was published with.
///
/// # Errors
///
/// The file is missing, or asks for what is not computed here.
pub fn scheduler(folder: &Path) -> Result<PublishedScheduler, BundleError> {
    let path = schedule_of(folder);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| PublishedError::Io { path: path.clone(), source })?;
    let scheduler = PublishedScheduler::parse(&text);
    Ok(scheduler.map_err(|source| PublishedError::Config { path, source })?)
}

/// Width and height of the pictures that the Stable Diffusion in `folder` was trained on.
///
/// # Errors
///
/// A configuration is missing, or asks for what is not computed here.
pub fn default_size(folder: &Path) -> Result<usize, BundleError> {
    let json = |part: &str| -> Result<(PathBuf, serde_json::Value), PublishedError> {
        let path = folder.join(part).join("config.json");
        let value = read_json(&path)?;
        Ok((path, value))
    };
    let refused = |path: PathBuf| move |source| PublishedError::Config { path, source };
    let (path, value) = json("unet")?;
    let unet = stable_diffusion::unet_config(&value).map_err(refused(path))?;
    let (path, value) = json("vae")?;
    let vae = stable_diffusion::vae_config(&value).map_err(refused(path))?;
    Ok(unet.sample_size * vae.downsampling())
}

/// A hash of all files of a folder by name and content, 32 hexadecimal digits. Hidden files do not
/// count.
///
/// # Errors
///
/// A file cannot be read.
pub fn hash(folder: &Path) -> Result<String, PublishedError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| PublishedError::Io { path, source }
    };
    let mut hasher = blake3::Hasher::new();
    let mut open = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(next) = open.pop() {
        let entries = next.read_dir().or_else(|source| {
            refuse_pickled(&next)?;
            Err(io(&next)(source))
        })?;
        for entry in entries {
            let entry = entry.map_err(io(&next))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for path in files {
        let name = path.strip_prefix(folder).unwrap_or(&path);
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
        let file = File::open(&path).map_err(io(&path))?;
        hasher.update_reader(file).map_err(io(&path))?;
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Whether `folder` holds a published model, and not what `mi2rage pretrain` writes.
pub fn is_published(folder: &Path) -> bool {
    ["model_index.json", "config.json"].iter().any(|name| folder.join(name).is_file())
}
