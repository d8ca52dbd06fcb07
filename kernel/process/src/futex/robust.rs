//! Robust futexes: locks whose owner has ended (get_robust_list(2)).
//!
//! The list lies in the memory of the program and is as hostile as the rest of
//! it: every read may fault, and a ring ends after [`ENTRIES_MAX`] steps.

use super::{MATCH_ANY, wake};
use crate::{Result, Thread};
use machine::user;
use mm::AddressSpace;

/// Locks one thread can hold at most (`ROBUST_LIST_LIMIT`).
const ENTRIES_MAX: usize = 2048;
/// Threads wait for the lock.
const WAITERS: u32 = 0x8000_0000;
/// Its owner has ended.
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// `struct robust_list_head`: first entry, offset from an entry to its futex, and
/// the entry that was being taken or given back.
type Head = [u64; 3];

/// Marks all locks that the calling thread still holds, and wakes a waiter of
/// each.
pub(crate) fn release_all(me: &Thread, space: &AddressSpace) {
    let head = me.robust_list();
    if head != 0 {
        // A list that cannot be read is a program's own loss.
        let _ = walk(me.tid(), space, head);
    }
}

fn walk(tid: u32, space: &AddressSpace, head: usize) -> Result<()> {
    let [first, offset, pending]: Head = user::read_value(head)?;
    let word = |entry: u64| (entry & !1).wrapping_add(offset) as usize;
    let mut entry = first;
    for _ in 0..ENTRIES_MAX {
        if (entry & !1) as usize == head {
            break;
        }
        let next: u64 = user::read_value((entry & !1) as usize)?;
        // The entry in the middle of an operation is handled once, below.
        if entry & !1 != pending & !1 {
            release(tid, space, word(entry), entry & 1 != 0)?;
        }
        entry = next;
        machine::thread::cond_resched();
    }
    if pending != 0 {
        release(tid, space, word(pending), pending & 1 != 0)?;
    }
    Ok(())
}

/// A lock that knows its owner (`pi`) is passed on by [`super::Pi::release_all`].
fn release(tid: u32, space: &AddressSpace, addr: usize, pi: bool) -> Result<()> {
    let mut value = user::load_u32(addr)?;
    while value & TID_MASK == tid & TID_MASK {
        let found = user::compare_exchange_u32(addr, value, value & WAITERS | OWNER_DIED)?;
        if found == value {
            if !pi
                && value & WAITERS != 0
                && let Ok(key) = space.futex_key(addr)
            {
                wake(&key, 1, MATCH_ANY);
            }
            break;
        }
        value = found;
        // Whoever shares the word may change it as fast as it is tried.
        machine::thread::cond_resched();
    }
    Ok(())
}
