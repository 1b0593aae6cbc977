//! The parts of Stable Diffusion 1 and 2, each in a folder of its own: `text_encoder` (see
//! [`super::clip::load_text`]), `unet`, `vae`.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::{Accepted, Archive, KeyError, Names, Precision, PublishedError, configuration, load};
use crate::clip::ClipTextConfig;
use crate::unet::{UNet, UNetConfig};
use crate::vae::{AutoencoderKl, VaeConfig};

/// Keys of `UNet2DConditionModel` that are not in [`UNetConfig`], with their defaults.
const UNET: Accepted = Accepted {
    fixed: &[
        ("act_fn", &["\"silu\""]),
        ("downsample_padding", &["1"]),
        ("mid_block_scale_factor", &["1"]),
        ("dropout", &["0.0"]),
        ("resnet_time_scale_shift", &["\"default\""]),
        ("resnet_out_scale_factor", &["1"]),
        ("time_embedding_type", &["\"positional\""]),
        ("conv_in_kernel", &["3"]),
        ("conv_out_kernel", &["3"]),
        ("attention_type", &["\"default\""]),
    ],
    ignored: &[
        // Logits and softmax are computed in 32 bits anyway.
        "upcast_attention",
        // Of an embedding that is off.
        "addition_embed_type_num_heads",
    ],
};

/// Keys of `AutoencoderKL` that are not in [`VaeConfig`], with their defaults.
const VAE: Accepted = Accepted {
    fixed: &[("act_fn", &["\"silu\""])],
    // The size that it was trained at; that f16 overflows, which diffusers heeds in the autoencoder of
    // Stable Diffusion XL alone.
    ignored: &["sample_size", "force_upcast"],
};

/// Of the U-Net's weights.
pub const UNET_NAMES: Names = Names {
    prefix: "",
    renames: &[("", &[("net_0", "net.0"), ("net_2", "net.2")])],
    older: &[],
    fused: &[],
    tied: &[],
    unread: &[],
};

pub(super) const VAE_NAMES: Names = Names {
    renames: &[],
    // The names of diffusers' first attention.
    older: &[("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")],
    ..UNET_NAMES
};

/// The configuration in the `config.json` of a U-Net.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn unet_config(json: &Value) -> Result<UNetConfig, KeyError> {
    let config: UNetConfig = super::keys::read(json, &[UNET])?;
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

/// The configuration in the `config.json` of an autoencoder.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn vae_config(json: &Value) -> Result<VaeConfig, KeyError> {
    let config: VaeConfig = super::keys::read(json, &[VAE])?;
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

/// Checks that the parts of the pipeline in `folder` fit together: what the text encoder writes the U-Net
/// reads, the autoencoder's latents are the U-Net's, and its pictures have three colours.
///
/// # Errors
///
/// Names the key of one part that another part contradicts.
pub fn check_parts(
    folder: &Path,
    text: &ClipTextConfig,
    unet: &UNetConfig,
    vae: &VaeConfig,
) -> Result<(), PublishedError> {
    let latent = ("latent_channels of vae", vae.latent_channels);
    for (part, key, found, (other, expected)) in [
        (
            "unet",
            "cross_attention_dim",
            unet.cross_attention_dim,
            ("hidden_size of text_encoder", text.hidden_size),
        ),
        ("unet", "in_channels", unet.in_channels, latent),
        ("unet", "out_channels", unet.out_channels, latent),
        ("vae", "in_channels", vae.in_channels, ("red, green and blue", 3)),
        ("vae", "out_channels", vae.out_channels, ("red, green and blue", 3)),
    ] {
        if found != expected {
            let source = KeyError::Unsupported {
                key: key.to_owned(),
                value: found.to_string(),
                expected: format!("{expected}, {other}"),
            };
            let path = folder.join(part).join("config.json");
            return Err(PublishedError::Config { path, source });
        }
    }
    Ok(())
}

/// The U-Net in `folder`.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_unet<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(UNetConfig, UNet<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, unet_config)?;
    let model = config.init(device).map_err(|error| PublishedError::Broken {
        path: folder.join("config.json"),
        what: error.to_string(),
    })?;
    let model = load(model, &archive, &UNET_NAMES, precision, device)?;
    Ok((config, model))
}

/// The autoencoder in `folder`.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_autoencoder<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(VaeConfig, AutoencoderKl<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, vae_config)?;
    let model = config.init(device).map_err(|error| PublishedError::Broken {
        path: folder.join("config.json"),
        what: error.to_string(),
    })?;
    let model = load(model, &archive, &VAE_NAMES, precision, device)?;
    Ok((config, model))
}
