//! Futexes: sleeping until a word of the program's memory changes (futex(2)).
//!
//! Waiters stand in hash buckets by [`FutexKey`]. A waiter joins its bucket first
//! and looks at the word then; a waker has changed the word before it looks into
//! the bucket. So the word is read without the bucket's lock, which matters
//! because reading it may fault and wait.
//!
//! Lock order: two buckets (requeue) in the order of their numbers.

mod bucket;
mod pi;
mod requeue;
pub(crate) mod robust;
mod wait;

pub use pi::Pi;
pub use requeue::{Moved, requeue};
pub use wait::{Watched, wait, wait_any, wake};

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicUsize};

/// All waits and wakes without a bitset match (`FUTEX_BITSET_MATCH_ANY`).
pub const MATCH_ANY: u32 = u32::MAX;
/// Most words one call can wait for (`FUTEX_WAITV_MAX`).
pub const WATCHED_MAX: usize = 128;

/// The waiting side of a thread, allocated once, so that a wait allocates nothing.
#[derive(Clone, Default)]
pub struct Waiter(Arc<Token>);

#[derive(Default)]
struct Token {
    /// 0 while waiting; else one more than the index of the word that was woken.
    woken: AtomicU32,
    /// The bucket it stands in, which a requeue changes. Meaningful for waits on
    /// a single word, the only ones that are ever requeued.
    bucket: AtomicUsize,
}

#[cfg(test)]
mod tests;
