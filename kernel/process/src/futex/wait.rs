//! Waiting and waking.

use super::bucket::{self, Bucket, Entry};
use super::{Token, Waiter};
use crate::{Error, Result};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use machine::WaitError;
use machine::thread::{self, Thread};
use machine::wait::Until;
use mm::FutexKey;
use smallvec::SmallVec;

/// Threads taken out of a bucket, to be woken when its lock is free.
pub(super) type Woken = SmallVec<[(Arc<Token>, Arc<Thread>); 4]>;

/// A word that [`wait_any`] waits for.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// Which word.
    pub key: FutexKey,
    /// Which wakes count.
    pub bitset: u32,
}

/// Waits until somebody wakes `key` with one of the bits of `bitset`, or `until`
/// ends it. `unchanged` tells whether the word still has the expected value; it
/// may fault.
///
/// # Errors
/// [`Error::TryAgain`] if the word has changed; [`Error::TimedOut`],
/// [`Error::Interrupted`]; what `unchanged` failed with.
pub fn wait(
    waiter: &Waiter,
    key: FutexKey,
    bitset: u32,
    until: Until,
    unchanged: impl FnOnce() -> Result<bool>,
) -> Result<()> {
    let token = &waiter.0;
    let number = bucket::number(&key);
    token.woken.store(0, SeqCst);
    token.bucket.store(number, SeqCst);
    bucket::bucket(number).join(entry(token, key, bitset, None))?;
    let verdict = match unchanged() {
        Ok(true) => sleep(token, until),
        Ok(false) => Err(Error::TryAgain),
        Err(e) => Err(e),
    };
    if token.woken.load(SeqCst) != 0 {
        return match verdict {
            // It was woken in passing, but does not wait: somebody else may need
            // that wake.
            Err(e @ (Error::TryAgain | Error::BadAddress)) => {
                wake(&key, 1, bitset);
                Err(e)
            }
            _ => Ok(()),
        };
    }
    match verdict {
        Ok(()) => Ok(()),
        Err(e) if withdraw(token) => Err(e),
        // Woken at the last moment.
        Err(Error::TimedOut | Error::Interrupted) => Ok(()),
        Err(e) => {
            wake(&key, 1, bitset);
            Err(e)
        }
    }
}

fn entry(token: &Arc<Token>, key: FutexKey, bitset: u32, index: Option<u32>) -> Entry {
    Entry {
        key,
        bitset,
        index: index.unwrap_or(0),
        several: index.is_some(),
        token: token.clone(),
        thread: thread::current().to_arc(),
    }
}

pub(super) fn sleep(token: &Token, until: Until) -> Result<()> {
    while token.woken.load(SeqCst) == 0 {
        match thread::park(until) {
            Ok(()) => {}
            Err(WaitError::TimedOut) => return Err(Error::TimedOut),
            Err(WaitError::Interrupted) => return Err(Error::Interrupted),
        }
    }
    Ok(())
}

/// Takes the thread's entry out of whatever bucket it is in now; `false` if a
/// waker was faster.
fn withdraw(token: &Arc<Token>) -> bool {
    loop {
        let number = token.bucket.load(SeqCst);
        if bucket::bucket(number).leave(token) {
            return true;
        }
        if token.woken.load(SeqCst) != 0 {
            return false;
        }
        // Requeued meanwhile.
    }
}

/// Waits until one of `words` is woken; its index. `unchanged` tells whether the
/// word of an index still has its expected value.
///
/// # Errors
/// As [`wait`].
pub fn wait_any(
    waiter: &Waiter,
    words: &[Watched],
    until: Until,
    mut unchanged: impl FnMut(usize) -> Result<bool>,
) -> Result<usize> {
    let token = &waiter.0;
    token.woken.store(0, SeqCst);
    let mut verdict = Ok(());
    for (i, w) in words.iter().enumerate() {
        let there = bucket::bucket(bucket::number(&w.key));
        let index = Some(u32::try_from(i).map_err(|_| Error::Invalid)?);
        verdict = there
            .join(entry(token, w.key, w.bitset, index))
            .and_then(|()| unchanged(i))
            .and_then(|same| if same { Ok(()) } else { Err(Error::TryAgain) });
        if verdict.is_err() {
            break;
        }
    }
    if verdict.is_ok() {
        verdict = sleep(token, until);
    }
    for w in words {
        bucket::bucket(bucket::number(&w.key)).leave(token);
    }
    match token.woken.load(SeqCst) {
        0 => verdict.map(|()| 0),
        n => Ok(n as usize - 1),
    }
}

/// Wakes up to `count` threads that wait for `key` with one of the bits of
/// `bitset`, the longest waiting first; how many.
pub fn wake(key: &FutexKey, count: usize, bitset: u32) -> usize {
    let here = bucket::bucket(bucket::number(key));
    if count == 0 || here.is_empty() {
        return 0;
    }
    let mut total = 0;
    loop {
        let mut woken = Woken::new();
        let mut list = here.entries.lock();
        let all = take(here, &mut list, key, count - total, bitset, &mut woken);
        drop(list);
        for (_, t) in &woken {
            t.unpark();
        }
        total += woken.len();
        if all {
            return total;
        }
    }
}

/// Takes up to `count` waiters out and marks them as woken. Whether that was all
/// that could be done: without memory for the list it ends early, though never
/// without any.
pub(super) fn take(
    here: &Bucket,
    list: &mut alloc::vec::Vec<Entry>,
    key: &FutexKey,
    count: usize,
    bitset: u32,
    woken: &mut Woken,
) -> bool {
    let mut all = true;
    // One pass, for a list may be long and its lock is other capsules' too.
    let mut waiting = list.extract_if(.., |e| e.key == *key && e.bitset & bitset != 0);
    while woken.len() < count {
        if woken.try_reserve(1).is_err() {
            all = false;
            break;
        }
        let Some(e) = waiting.next() else {
            break;
        };
        // A thread that waits for several words is woken once.
        let first = e
            .token
            .woken
            .compare_exchange(0, e.index + 1, SeqCst, SeqCst)
            .is_ok();
        if first {
            woken.push((e.token, e.thread));
        }
    }
    drop(waiting);
    here.note_len(list);
    all
}
