//! Keyed randomness: what is drawn depends on what it is drawn for, never on what was drawn before.
//!
//! A [`Key`] is a hash of named fields (experiment seed, item, chain, round, purpose). Two programs
//! that agree on the fields draw the same numbers, whatever their batch size, order or device count.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The name of a stream of random numbers.
#[derive(Clone, Debug)]
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

/// `count` independent standard normal numbers (Box and Muller 1958).
pub fn normal(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let values = normal(&mut Key::new(3).rng(), 100_001);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        assert!(mean.abs() < 0.015, "{mean}");
        assert!((square / values.len() as f64 - 1.0).abs() < 0.02);
    }

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
