//! Random bytes for keys, address layout, `getrandom` and sequence numbers.
//!
//! One ChaCha20 generator for the machine, seeded from what the machine has
//! (RDSEED, RDRAND, a virtio-rng through [`stir`], the cycle counter).

use crate::{arch, sync::SpinLock};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

static POOL: SpinLock<Option<ChaCha20Rng>> = SpinLock::new(None);

/// Fills `out`.
pub fn fill(out: &mut [u8]) {
    let mut pool = POOL.lock();
    pool.get_or_insert_with(|| ChaCha20Rng::from_seed(arch::entropy()))
        .fill_bytes(out);
}

/// A random number.
#[must_use]
pub fn next_u64() -> u64 {
    let mut b = [0; 8];
    fill(&mut b);
    u64::from_le_bytes(b)
}

/// Mixes in bytes from a device: what comes out afterwards depends on the old
/// state and on `more`, so a bad device cannot make it worse.
pub fn stir(more: &[u8]) {
    let mut seed = [0u8; 32];
    fill(&mut seed);
    for (i, m) in more.iter().enumerate() {
        seed[i % 32] ^= m;
    }
    *POOL.lock() = Some(ChaCha20Rng::from_seed(seed));
}
