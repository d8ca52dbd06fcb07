//! Names of directory entries and how they are hashed.

use machine::sync::Once;
use smallvec::SmallVec;

/// Bytes of a name that is kept in place.
pub(crate) const NAME_INLINE: usize = 24;

/// A name, kept in place when it is short.
pub type Name = SmallVec<[u8; NAME_INLINE]>;

/// Hashes a name with a secret of this boot, so that a program cannot choose
/// names that collide and make the kernel walk long chains.
#[inline]
#[must_use]
pub fn hash(name: &[u8]) -> u64 {
    static SECRET: Once<[u64; 2]> = Once::new();
    let [seed, key] =
        SECRET.call_once(|| [machine::random::next_u64(), machine::random::next_u64() | 1]);
    let mut h = *seed ^ name.len() as u64;
    let mut words = name.chunks_exact(8);
    for w in &mut words {
        let mut b = [0; 8];
        b.copy_from_slice(w);
        h = fold(h ^ u64::from_le_bytes(b), *key);
    }
    let mut last = 0;
    for b in words.remainder() {
        last = last << 8 | u64::from(*b);
    }
    fold(h ^ last, *key)
}

/// Whether two names are the same. They are short: a call that compares memory in general
/// costs more than the comparison.
#[inline]
#[must_use]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((words, rest), (others, end)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let differ = |(x, y): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*x) != u64::from_le_bytes(*y);
    !words.iter().zip(others).any(differ) && !rest.iter().zip(end).any(|(x, y)| x != y)
}

/// Both halves of a full multiplication, mixed.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn only_equal_names_are_the_same() {
        let long = b"abcdefghijklmnopqrstuvwxyz";
        for n in 0..long.len() {
            assert!(same(&long[..n], &long.to_vec()[..n]));
            assert!(!same(&long[..n], &long[..n + 1]));
            for at in 0..n {
                let mut other = long[..n].to_vec();
                other[at] ^= 0x80;
                assert!(!same(&long[..n], &other), "{n} {at}");
            }
        }
    }

    #[test]
    fn near_names_differ() {
        let names = (0..20_000u32).map(|i| std::format!("mb.c{i}"));
        let hashes: HashSet<u64> = names.map(|n| hash(n.as_bytes())).collect();
        assert_eq!(hashes.len(), 20_000);
        assert_ne!(hash(b"a"), hash(b"a\0"));
    }
}
