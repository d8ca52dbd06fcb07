//! The hash table of waiters.

use super::Token;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};
use machine::sync::SpinLock;
use machine::thread::Thread;
use mm::FutexKey;

/// A power of two; unrelated futexes seldom share a bucket.
const BUCKETS: usize = 512;

/// A thread that waits.
pub(super) struct Entry {
    pub(super) key: FutexKey,
    pub(super) bitset: u32,
    /// Which of the words it waits for, for [`super::wait_any`].
    pub(super) index: u32,
    /// Waits for several words, and so is never moved to another.
    pub(super) several: bool,
    pub(super) token: Arc<Token>,
    pub(super) thread: Arc<Thread>,
}

pub(super) struct Bucket {
    /// In the order they came. The capacity stays, so that joining seldom
    /// allocates.
    pub(super) entries: SpinLock<Vec<Entry>>,
    /// Its length, so that waking nobody takes no lock.
    len: AtomicUsize,
}

static TABLE: [Bucket; BUCKETS] = [const {
    Bucket {
        entries: SpinLock::new(Vec::new()),
        len: AtomicUsize::new(0),
    }
}; BUCKETS];

/// The bucket's number for `key`.
pub(super) fn number(key: &FutexKey) -> usize {
    let (a, b) = match *key {
        FutexKey::Private { space, addr } => (space as u64, addr as u64),
        FutexKey::Shared { object, offset } => (object, offset),
    };
    // Fibonacci hashing; the low bits of both are mostly zero.
    let mixed = (a >> 4)
        .wrapping_add(b >> 2)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 55) as usize % BUCKETS
}

pub(super) fn bucket(number: usize) -> &'static Bucket {
    &TABLE[number % BUCKETS]
}

impl Bucket {
    /// Whether nobody waits here, for a caller that has just changed a word.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // Orders the caller's change before the look; `join` orders the length
        // before the waiter's look at the word. One of the two sees the other.
        fence(SeqCst);
        self.len.load(SeqCst) == 0
    }

    /// Writes the list's length down. Called with the list locked.
    pub(super) fn note_len(&self, entries: &[Entry]) {
        self.len.store(entries.len(), SeqCst);
    }

    /// Adds a waiter.
    pub(super) fn join(&self, entry: Entry) -> Result<(), crate::Error> {
        let mut list = self.entries.lock();
        list.try_reserve(1)?;
        list.push(entry);
        self.note_len(&list);
        fence(SeqCst);
        Ok(())
    }

    /// Takes out all entries of `token`; whether there was one.
    pub(super) fn leave(&self, token: &Arc<Token>) -> bool {
        let mut list = self.entries.lock();
        let before = list.len();
        list.retain(|e| !Arc::ptr_eq(&e.token, token));
        self.note_len(&list);
        list.len() != before
    }
}
