//! Numbers that look random and are the same in every run.

/// Marsaglia's xorshift of 64 bits.
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mixed(seed) | 1)
    }

    /// The sequence of one part of what `seed` stands for.
    pub(crate) fn part(seed: u64, part: u64) -> Self {
        Self::new(mixed(seed) ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 11) % limit as u64) as usize
    }

    /// Whether something happens that does once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these, of which there is at least one.
    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A number of any magnitude.
    pub(crate) fn any(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }
}

/// Spreads a number over all 64 bits: the finisher of SplitMix64.
fn mixed(number: u64) -> u64 {
    let one = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let two = (one ^ one >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    two ^ two >> 31
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_gives_one_sequence_and_every_choice_comes_up() {
        let (mut one, mut same, mut other) = (Random::new(1), Random::new(1), Random::new(2));
        assert_eq!(one.next(), same.next());
        assert_ne!(one.next(), other.next());
        assert_ne!(Random::part(1, 2).next(), Random::part(1, 3).next());
        let seen: std::collections::BTreeSet<_> = (0..100).map(|_| one.of(&[1, 2, 3])).collect();
        assert_eq!(seen.len(), 3);
    }
}
