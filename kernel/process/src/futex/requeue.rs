//! Moving waiters from one futex to another.

use super::MATCH_ANY;
use super::bucket::{self, Entry};
use super::wait::{Woken, take};
use crate::{Error, Result};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use mm::FutexKey;

/// What [`requeue`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Threads woken.
    pub woken: usize,
    /// Threads that wait for the second word now.
    pub requeued: usize,
}

/// Wakes up to `wakes` threads that wait for `from` and has up to `moves` further
/// ones wait for `to` instead (`FUTEX_REQUEUE`).
///
/// # Errors
/// No memory; some may have been woken then.
pub fn requeue(from: &FutexKey, to: &FutexKey, wakes: usize, moves: usize) -> Result<Moved> {
    let (a, b) = (bucket::number(from), bucket::number(to));
    let (source, target) = (bucket::bucket(a), bucket::bucket(b));
    let mut woken = Woken::new();
    // Room for those that are woken, because no lock may be left in between.
    let waiting = source.entries.lock().len().min(wakes);
    woken.try_reserve(waiting).map_err(|_| Error::NoMemory)?;
    let requeued = if a == b {
        let mut list = source.entries.lock();
        take(source, &mut list, from, wakes, MATCH_ANY, &mut woken);
        let there = list.iter_mut().filter(|e| moves_on(e, from)).take(moves);
        Ok(there.map(|e| e.key = *to).count())
    } else {
        // In the order of their numbers, as everybody who takes two.
        let (mut first, mut second);
        let (here, there) = if a < b {
            first = source.entries.lock();
            second = target.entries.lock();
            (&mut *first, &mut *second)
        } else {
            first = target.entries.lock();
            second = source.entries.lock();
            (&mut *second, &mut *first)
        };
        take(source, here, from, wakes, MATCH_ANY, &mut woken);
        let moved = shift(here, there, from, to, moves, b);
        source.note_len(here);
        target.note_len(there);
        moved
    };
    // Also when nothing could be moved: they have been taken out.
    for (_, t) in &woken {
        t.unpark();
    }
    Ok(Moved {
        woken: woken.len(),
        requeued: requeued?,
    })
}

fn moves_on(e: &Entry, from: &FutexKey) -> bool {
    e.key == *from && !e.several
}

fn shift(
    here: &mut Vec<Entry>,
    there: &mut Vec<Entry>,
    from: &FutexKey,
    to: &FutexKey,
    moves: usize,
    number: usize,
) -> Result<usize> {
    let waiting = here.iter().filter(|e| moves_on(e, from)).count().min(moves);
    there.try_reserve(waiting)?;
    let mut moved = 0;
    for mut e in here.extract_if(.., |e| moves_on(e, from)).take(waiting) {
        e.key = *to;
        e.token.bucket.store(number, SeqCst);
        there.push(e);
        moved += 1;
    }
    Ok(moved)
}
