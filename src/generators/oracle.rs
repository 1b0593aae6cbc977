//! The world's own renderer as a generator: an experiment can set its fidelity.

use std::sync::Arc;

use crate::chain::{GeneratorError, TextPrompt, TextToImage};
use crate::data::Picture;
use crate::experiment::folder::fingerprint;
use crate::world::{Fidelity, World};

/// Draws what the sentence names, or fails to, as often as it is told.
pub struct Oracle {
    world: Arc<World>,
    fidelity: Fidelity,
}

impl Oracle {
    /// `keep` is the chance that the named cue is drawn. Where it is not, and where no cue is
    /// named, something false is as likely as something neutral.
    pub fn new(world: Arc<World>, keep: f64) -> Self {
        let fidelity = Fidelity { keep, wrong: (1.0 - keep) / 2.0, invent: (1.0 - keep) / 2.0 };
        Self { world, fidelity }
    }
}

impl TextToImage for Oracle {
    fn draw(&self, prompts: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError> {
        let draw = |prompt: &TextPrompt| {
            let mut rng = prompt.key.with("oracle", 0).rng();
            self.world.oracle_picture(&prompt.tokens, self.fidelity, &mut rng).1
        };
        Ok(prompts.iter().map(draw).collect())
    }

    fn fingerprint(&self) -> String {
        fingerprint(&("oracle", self.fidelity, self.world.config()))
    }
}
