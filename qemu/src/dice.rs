//! Numbers that differ from run to run, and can be had again.

use std::time::Duration;

/// A random generator (xorshift64), begun with `SKEP_SEED` or with what it prints.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Of this run.
    pub fn new() -> Self {
        let seed = std::env::var("SKEP_SEED").ok();
        let seed = seed.and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
        println!("SKEP_SEED={seed}");
        Self::seeded(seed)
    }

    /// Begun with this number.
    pub fn seeded(seed: u64) -> Self {
        // Of zero the generator makes nothing but zeros.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// A time up to `most`.
    pub fn time(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.below(10_000) as f64 / 10_000.0)
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
