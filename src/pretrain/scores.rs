//! What the trained generators can do, on held-out captioned pictures: the world's own detector looks
//! at what was drawn, its lexicon reads what was written.

use std::path::Path;

use burn::tensor::backend::Backend;
use mi2rage_models::precision::Precision;
use serde::{Deserialize, Serialize};

use super::corpus::Captioned;
use crate::bundle::Bundle;
use crate::config::experiment::GeneratorsConfig;
use crate::data::Picture;
use crate::generators::{CaptionOptions, CaptionWriter, DrawOptions, LatentDiffusion};
use crate::keyed::Key;
use crate::train::Context;
use crate::world::detector::Detector;
use crate::world::forms::cue_of;
use crate::world::lexicon::text_cue;

/// Held-out items that are tried.
const TRIED: usize = 480;

/// Shares on held-out web items, with the default options of an experiment's generators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorScores {
    /// The share of pictures with a cue that still show it after the autoencoder.
    pub reconstructed: f64,
    /// Prompts that name a cue.
    pub prompts: usize,
    /// The share of them whose picture shows it, by the renderer's detector.
    pub drawn: f64,
    /// Pictures that show a cue.
    pub pictures: usize,
    /// The share of them whose greedy caption names it.
    pub named_greedy: f64,
    /// The share of them whose sampled caption names it.
    pub named_sampled: f64,
    /// Pictures drawn a second.
    pub pictures_per_second: f64,
    /// Captions written a second (sampled).
    pub captions_per_second: f64,
}

/// Tries the weights of a folder on the world's held-out items.
pub fn try_out<B: Backend>(
    folder: &Path,
    held_out: &[Captioned],
    seed: u64,
    context: &Context,
    device: &B::Device,
) -> anyhow::Result<GeneratorScores> {
    let bundle = Bundle::folder(folder)?;
    let defaults = GeneratorsConfig::default();
    let key = Key::new(seed).with("pretrain", "scores");
    let items = &held_out[..TRIED.min(held_out.len())];
    let task = context.progress.task("trying the generators", 3 * items.len() as u64, "samples");

    let options = DrawOptions {
        sampler: defaults.sampler,
        steps: defaults.steps,
        guidance: defaults.guidance,
        negative: Vec::new(),
    };
    let detector = Detector::new();
    let painter = LatentDiffusion::<B>::load(
        &bundle,
        options,
        bundle.picture_size()?,
        Precision::F32,
        device,
    )?;
    let started = std::time::Instant::now();
    let mut drawn = Vec::new();
    for (index, batch) in items.chunks(defaults.batch).enumerate() {
        let prompts: Vec<(&[String], Key)> = batch
            .iter()
            .enumerate()
            .map(|(at, item)| {
                (&item.caption[item.names..], key.with("picture", index * defaults.batch + at))
            })
            .collect();
        drawn.extend(painter.sample(&prompts)?);
        task.advance(batch.len() as u64);
    }
    let pictures_per_second = items.len() as f64 / started.elapsed().as_secs_f64();
    let pictures: Vec<&Picture> = items.iter().map(|item| item.picture.as_ref()).collect();
    let mut kept = Vec::new();
    for (item, picture) in items.iter().zip(painter.reconstruct(&pictures)?) {
        kept.extend(cue_of(item.form).map(|cue| detector.detect(&picture).cue == Some(cue)));
    }
    let named: Vec<_> = items
        .iter()
        .zip(&drawn)
        .filter_map(|(item, picture)| {
            let cue = text_cue(&item.caption)?;
            Some(detector.detect(picture).cue == Some(cue))
        })
        .collect();

    let mut naming = [0.0; 2];
    let mut captions_per_second = 0.0;
    for (slot, top_p) in [0.0, defaults.top_p].into_iter().enumerate() {
        let options = CaptionOptions {
            top_p,
            beams: 1,
            temperature: defaults.temperature,
            max_tokens: defaults.caption_tokens,
        };
        let writer = CaptionWriter::<B>::load(&bundle, options, Precision::F32, device)?;
        let started = std::time::Instant::now();
        let mut right = Vec::new();
        for (index, batch) in items.chunks(defaults.batch).enumerate() {
            let pictures: Vec<_> = batch
                .iter()
                .enumerate()
                .map(|(at, item)| {
                    let key = key.with("caption", index * defaults.batch + at);
                    (item.picture.as_ref(), Vec::new(), key)
                })
                .collect();
            let captions = writer.write(&pictures)?;
            right.extend(batch.iter().zip(captions).filter_map(|(item, caption)| {
                cue_of(item.form).map(|cue| text_cue(&caption) == Some(cue))
            }));
            task.advance(batch.len() as u64);
        }
        captions_per_second = items.len() as f64 / started.elapsed().as_secs_f64();
        naming[slot] = share(&right);
    }
    task.finish();
    Ok(GeneratorScores {
        reconstructed: share(&kept),
        prompts: named.len(),
        drawn: share(&named),
        pictures: items.iter().filter(|item| cue_of(item.form).is_some()).count(),
        named_greedy: naming[0],
        named_sampled: naming[1],
        pictures_per_second,
        captions_per_second,
    })
}

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|&&flag| flag).count() as f64 / flags.len().max(1) as f64
}
