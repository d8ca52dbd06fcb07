//! Random bits of the CPU, to seed the pool: RDSEED where there is one, else
//! RDRAND, and always the jitter of reading a slow device.

use super::{clock, port};
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// Tries of an instruction that may find its source empty (Intel DRNG guide, 5.3).
const TRIES: usize = 64;

/// Runs RDSEED or RDRAND once.
macro_rules! draw {
    ($instruction:literal) => {{
        let (value, ok): (u64, u8);
        // SAFETY: only used where CPUID names the instruction; it changes nothing
        // but registers and flags.
        unsafe {
            core::arch::asm!(
                concat!($instruction, " {}"), "setc {}",
                out(reg) value, out(reg_byte) ok,
                options(nomem, nostack),
            );
        }
        (ok != 0).then_some(value)
    }};
}

fn has_rdseed() -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & 1 << 18 != 0
}

fn has_rdrand() -> bool {
    __cpuid(1).ecx & 1 << 30 != 0
}

fn hardware() -> Option<u64> {
    let tries = |f: fn() -> Option<u64>| {
        (0..TRIES).find_map(|_| {
            core::hint::spin_loop();
            // A generator that is stuck gives all zeros or all ones.
            f().filter(|v| !matches!(*v, 0 | u64::MAX))
        })
    };
    let seed = has_rdseed().then(|| tries(|| draw!("rdseed"))).flatten();
    seed.or_else(|| has_rdrand().then(|| tries(|| draw!("rdrand"))).flatten())
}

/// The low bits of how long a port read takes, mixed together: a few bits of
/// uncertainty for machines without anything better.
fn jitter() -> u64 {
    let mut mixed = clock::tsc();
    for _ in 0..64 {
        // SAFETY: reads the POST code port, which changes nothing.
        unsafe { port::read_u8(0x80) };
        mixed = mixed.rotate_left(7) ^ clock::tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    mixed
}

/// A seed from what the CPU has.
pub(crate) fn entropy() -> [u8; 32] {
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        let word = hardware().unwrap_or(0) ^ jitter();
        part.copy_from_slice(&word.to_le_bytes());
    }
    seed
}
