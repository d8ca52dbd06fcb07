//! Memory of programs: address spaces, their areas, and the page cache.
//!
//! An [`AddressSpace`] is a set of areas (what *should* be mapped, Linux's VMAs)
//! over a `machine` page table (what *is* mapped). Faults bring the second in line
//! with the first. Memory that is not private and anonymous comes from a
//! [`Backing`]: files implement it in the vfs room, [`SharedMemory`] here. Objects
//! keep their frames in a [`PageCache`] and know through a [`MappingList`] who
//! maps them.
//!
//! # Locks
//!
//! One sleeping reader-writer lock per space guards its areas. Faults take it for
//! reading, also while a backing object reads a page from a device; changes take
//! it for writing and call nothing outside this room meanwhile. What an area
//! referred to is dropped after the lock is let go.
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod area;
mod areas;
mod backing;
mod cache;
mod error;
mod layout;
mod mappings;
mod shared;
mod space;
#[cfg(test)]
mod testing;

pub use area::AreaFlags;
pub use backing::{Backing, Description};
pub use cache::PageCache;
pub use error::{BackingError, Error, FaultError};
pub use layout::{Layout, Randomize};
pub use mappings::MappingList;
pub use shared::SharedMemory;
pub use space::{
    AddressSpace, Advice, FutexKey, Limits, LockFuture, LockMode, MapRequest, OldRange, Placement,
    Populate, Region, RegionName, RemapRequest, RemapTarget, Source, Stats, SyncMode, Usage,
};

/// Most areas a space can have (`vm.max_map_count`).
pub const AREAS_MAX: usize = 65_530;
