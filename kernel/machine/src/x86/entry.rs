//! Page-table entries and the walk down to them.

use super::phys_ptr;
use crate::frame::{Block, Frame};
use crate::paging::Access;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) const PRESENT: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const WRITE_THROUGH: u64 = 1 << 3;
pub(super) const NO_CACHE: u64 = 1 << 4;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
pub(super) const HUGE: u64 = 1 << 7;
pub(super) const GLOBAL: u64 = 1 << 8;
/// In a leaf that allows nothing (`PROT_NONE`): the frame is still owned.
pub(super) const HELD: u64 = 1 << 9;
pub(super) const NO_EXEC: u64 = 1 << 63;
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// One table: 512 entries in one frame.
pub(super) type Table = [AtomicU64; 512];

/// Where `va` is in a table of `level` (0 = leaves).
pub(super) const fn index(va: usize, level: usize) -> usize {
    va >> (12 + 9 * level) & 511
}

/// The table an entry points to.
///
/// # Safety
/// The entry is present, not a leaf, and its table outlives `'a`.
pub(super) unsafe fn table<'a>(entry: u64) -> &'a Table {
    // SAFETY: the caller's; tables lie in the direct map, page aligned.
    unsafe { &*phys_ptr((entry & ADDRESS) as usize).cast::<Table>() }
}

/// Physical address of a new table of zeros.
pub(super) fn new_table() -> Option<usize> {
    Some(Block::zeroed(0)?.leak())
}

/// Gives a table's page back.
///
/// # Safety
/// It came from [`new_table`] and nothing points to it any more, TLBs included.
pub(super) unsafe fn free_table(phys: usize) {
    // SAFETY: the caller's.
    drop(unsafe { Block::from_phys(phys, 0) });
}

/// Whether a leaf owns a frame.
#[inline]
pub(super) const fn owns(leaf: u64) -> bool {
    leaf & (PRESENT | HELD) != 0
}

/// A leaf for a frame with `access`. Write or execute permission implies that the
/// page can be read; no permission at all leaves the frame held, not present.
#[inline]
pub(super) fn leaf(number: usize, access: Access) -> u64 {
    let mut e = (number as u64) << 12 | USER;
    e |= if access.is_empty() { HELD } else { PRESENT };
    if access.contains(Access::WRITE) {
        e |= WRITABLE;
    }
    if !access.contains(Access::EXEC) {
        e |= NO_EXEC;
    }
    e
}

/// The rights of a leaf.
#[inline]
pub(super) fn access_of(leaf: u64) -> Access {
    if leaf & PRESENT == 0 {
        return Access::empty();
    }
    let mut a = Access::READ;
    a.set(Access::WRITE, leaf & WRITABLE != 0);
    a.set(Access::EXEC, leaf & NO_EXEC == 0);
    a
}

/// The number of the frame a leaf owns.
#[inline]
pub(super) const fn number_of(leaf: u64) -> usize {
    ((leaf & ADDRESS) >> 12) as usize
}

/// Another reference to the frame a leaf owns.
///
/// # Safety
/// The leaf [`owns`] it and stays as it is during the call.
pub(super) unsafe fn share(leaf: u64) -> Frame {
    // SAFETY: the caller's.
    unsafe { Frame::another(number_of(leaf)) }
}

/// The first entry of a table that is present, from that of `va` on: where in its
/// part of the address space to go on from `va`, and the entry. 0 if there is none:
/// then the address behind the table's part.
#[inline]
pub(super) fn next(table: &Table, va: usize, level: usize) -> (usize, u64) {
    let span = 1usize << (12 + 9 * level);
    let first = index(va, level);
    for (skip, entry) in table[first..].iter().enumerate() {
        let e = entry.load(Relaxed);
        if e & PRESENT != 0 {
            let at = (va & !(span - 1)) + skip * span;
            return (at.max(va), e);
        }
    }
    ((va & !(512 * span - 1)) + 512 * span, 0)
}

/// Loads the entry of `table` for `va` at `level`.
#[inline]
pub(super) fn load(table: &Table, va: usize, level: usize) -> u64 {
    table[index(va, level)].load(Relaxed)
}
