//! The web corpus in memory.

use std::sync::Arc;

use rayon::prelude::*;

use crate::config::pretrain::PretrainConfig;
use crate::data::{Picture, Split};
use crate::train::Context;

use crate::world::web::{WebItem, web_item};

/// A captioned picture.
#[derive(Clone, Debug)]
pub struct Captioned {
    /// The caption in lower case.
    pub caption: Vec<String>,
    /// How many of its first tokens are the two names and the colon.
    pub names: usize,
    /// The picture.
    pub picture: Arc<Picture>,
    /// What it shows.
    pub form: usize,
}

impl Captioned {
    /// The caption without the names before it.
    pub fn description(&self) -> &[String] {
        &self.caption[self.names..]
    }
}

impl From<WebItem> for Captioned {
    fn from(item: WebItem) -> Self {
        let WebItem { caption, names, picture, form, .. } = item;
        Self { caption, names, picture: Arc::new(picture), form }
    }
}

/// The two splits.
pub struct Corpus {
    /// To train on.
    pub train: Vec<Captioned>,
    /// To select and score by.
    pub held_out: Vec<Captioned>,
}

impl Corpus {
    /// Draws the corpus.
    pub fn make(config: &PretrainConfig, context: &Context) -> Self {
        context.progress.line(format!("drawing {} captioned pictures", config.train));
        let draw = |count: usize, split| {
            (0..count as u64)
                .into_par_iter()
                .map(|index| web_item(&config.world, index, split).into())
                .collect()
        };
        Self {
            train: draw(config.train, Split::Train),
            held_out: draw(config.held_out, Split::Validation),
        }
    }
}
