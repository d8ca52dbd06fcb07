//! Entries in use of tables of user space, counted in the frame table: a table's frame is no
//! counted frame otherwise, so its count is free for this.

use crate::addr::PAGE_SIZE;
use crate::frame::spare_count;
use core::sync::atomic::Ordering::Relaxed;

/// All entries are in use in the table at `phys`, which was empty.
pub(super) fn filled(phys: usize) {
    spare_count(phys / PAGE_SIZE).store(512, Relaxed);
}

/// One entry more is in use in the table at `phys`.
pub(super) fn used(phys: usize) {
    spare_count(phys / PAGE_SIZE).fetch_add(1, Relaxed);
}

/// One fewer; whether the table is empty now.
pub(super) fn unused(phys: usize) -> bool {
    spare_count(phys / PAGE_SIZE).fetch_sub(1, Relaxed) == 1
}

pub(super) fn entries(phys: usize) -> u32 {
    spare_count(phys / PAGE_SIZE).load(Relaxed)
}
