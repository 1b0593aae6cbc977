//! Keyed randomness: what is drawn depends on what it is drawn for, never on what was drawn before.
//!
//! A [`Key`] is a hash of named fields (experiment seed, item, chain, round, purpose). Two programs
//! that agree on the fields draw the same numbers, whatever their batch size, order or device count.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The name of a stream of random numbers.
#[derive(Clone)]
pub struct Key(blake3::Hasher);

impl Key {
    /// The root key of an experiment.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        Self(hasher)
    }

    /// The key one level below: `name` says what `value` is, so that different fields never collide.
    pub fn with(&self, name: &str, value: impl std::fmt::Display) -> Self {
        let mut hasher = self.0.clone();
        for part in [name, &value.to_string()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher)
    }

    /// The generator of this key's numbers.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(*self.0.finalize().as_bytes())
    }

    /// A seed for a library that takes a number.
    pub fn seed(&self) -> u64 {
        let bytes = self.0.finalize();
        u64::from_le_bytes(bytes.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn the_same_fields_draw_the_same_numbers_and_others_do_not() {
        let draw = |key: &Key| key.rng().random::<u64>();
        let key = Key::new(7).with("item", "a").with("chain", 1);
        assert_eq!(draw(&key), draw(&Key::new(7).with("item", "a").with("chain", 1)));
        assert_ne!(draw(&key), draw(&Key::new(8).with("item", "a").with("chain", 1)));
        assert_ne!(draw(&key), draw(&Key::new(7).with("item", "a").with("round", 1)));
        assert_ne!(draw(&Key::new(7).with("ab", "c")), draw(&Key::new(7).with("a", "bc")));
    }
}
