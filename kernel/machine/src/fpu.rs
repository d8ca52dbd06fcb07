//! Floating-point and vector state of the running thread's program, for signal handlers,
//! tracers and `execve`. [`crate::thread`] has these functions.

use crate::arch;
use crate::error::Fault;

/// Resets the running thread's floating-point and vector state (`execve`).
pub fn fpu_reset() {
    arch::fpu_reset();
}

/// Bytes of an `XSAVE` image with all that this machine's user programs may use.
#[must_use]
pub fn fpu_size() -> usize {
    arch::fpu_size()
}

/// Stores the running program's floating-point and vector state at `image` in its memory:
/// [`fpu_size`] bytes at a multiple of 64, in the `XSAVE` standard format, with `note`
/// where software may leave notes (bytes 464 to 511). May sleep.
///
/// # Errors
/// [`Fault`].
pub fn fpu_push(image: usize, note: [u64; 6]) -> Result<(), Fault> {
    arch::fpu_push(image, note)
}

/// Loads the state from `image` in the program's memory, as [`fpu_push`] leaves it. May
/// sleep.
///
/// # Errors
/// [`Fault`], also for what the processor would not have written; then the state is what
/// it is after `execve`.
pub fn fpu_pop(image: usize) -> Result<(), Fault> {
    arch::fpu_pop(image)
}

/// Copies the running thread's floating-point and vector state out, in the
/// `XSAVE` standard format; `out` has [`fpu_size`] bytes.
pub fn fpu_save(out: &mut [u8]) {
    arch::fpu_save(out);
}

/// Loads floating-point and vector state that came from user memory. Whether it
/// was valid; if not, nothing changes.
#[must_use]
pub fn fpu_load(image: &[u8]) -> bool {
    arch::fpu_load(image)
}

/// Whether [`fpu_load`] would take the image.
#[must_use]
pub fn fpu_accepts(image: &[u8]) -> bool {
    arch::fpu_accepts(image)
}

/// The state components an image can hold (`XCR0`): x87 and SSE at least.
#[must_use]
pub fn fpu_features() -> u64 {
    arch::fpu_features()
}
