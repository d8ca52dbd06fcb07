//! A keyed hash for tables whose keys strangers choose.
//!
//! Multiply and fold, twice, with two secret words: quick, and without the key
//! nobody can aim many connections at one bucket.

use core::hash::{BuildHasher, Hasher};

/// Makes [`KeyHasher`]s with one secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedState {
    keys: [u64; 2],
}

impl KeyedState {
    /// A state with a new secret.
    #[must_use]
    pub(crate) fn random() -> KeyedState {
        KeyedState {
            keys: [
                machine::random::next_u64() | 1,
                machine::random::next_u64() | 1,
            ],
        }
    }
}

/// Hashes one key.
pub(crate) struct KeyHasher {
    state: u64,
    keys: [u64; 2],
}

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.state = fold(self.state ^ n ^ self.keys[0], self.keys[1]).rotate_left(23);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.state ^ self.keys[1], self.keys[0])
    }
}

impl BuildHasher for KeyedState {
    type Hasher = KeyHasher;
    fn build_hasher(&self) -> KeyHasher {
        KeyHasher {
            state: self.keys[0].rotate_left(32) ^ self.keys[1],
            keys: self.keys,
        }
    }
}

/// A hash map for keys that strangers choose.
pub(crate) type KeyedMap<K, V> = hashbrown::HashMap<K, V, KeyedState>;

/// An empty [`KeyedMap`] with a secret of its own.
#[must_use]
pub(crate) fn map<K, V>() -> KeyedMap<K, V> {
    KeyedMap::with_hasher(KeyedState::random())
}
