//! `mmap` and `munmap`.

use super::{AddressSpace, Removed, State, page_range};
use crate::area::{Area, AreaFlags};
use crate::{Backing, Error, SharedMemory};
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use machine::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END, USER_START, page_ceil, page_floor};
use machine::paging::Access;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At this address if that is free, else anywhere; 0 for no wish.
    Hint(usize),
    /// Anywhere in the first 2 GiB (`MAP_32BIT`).
    Low,
    /// Here, in place of what is there (`MAP_FIXED`).
    Fixed(usize),
    /// Here, if nothing is there (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(usize),
}

/// What is mapped.
#[derive(Clone)]
pub enum Source {
    /// Memory that is zero until written.
    Anonymous,
    /// The bytes of an object from `offset` (bytes, a multiple of a page) on.
    Object {
        /// The object.
        backing: Arc<dyn Backing>,
        /// First byte.
        offset: u64,
    },
}

/// Whether pages are brought in at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Populate {
    /// As they are touched.
    OnFault,
    /// Now (`MAP_POPULATE`); failing to do so is no error.
    Now,
}

/// What `mmap` is asked for.
#[derive(Clone)]
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// Bytes; rounded up to pages.
    pub len: usize,
    /// Rights.
    pub access: Access,
    /// Rights `mprotect` may give later: for a shared mapping those the file was
    /// opened with, else all.
    pub max_access: Access,
    /// [`AreaFlags::SHARED`], [`AreaFlags::GROWS_DOWN`], ...
    pub flags: AreaFlags,
    /// What.
    pub source: Source,
    /// When.
    pub populate: Populate,
}

impl MapRequest {
    /// Private anonymous memory of `len` bytes anywhere.
    #[must_use]
    pub fn anonymous(len: usize, access: Access) -> MapRequest {
        MapRequest {
            placement: Placement::Hint(0),
            len,
            access,
            max_access: Access::all(),
            flags: AreaFlags::empty(),
            source: Source::Anonymous,
            populate: Populate::OnFault,
        }
    }

    /// `len` bytes of `backing` from `offset` on, private, anywhere.
    #[must_use]
    pub fn object(backing: Arc<dyn Backing>, offset: u64, len: usize, access: Access) -> Self {
        MapRequest {
            source: Source::Object { backing, offset },
            ..Self::anonymous(len, access)
        }
    }

    /// Places it as `placement` says.
    #[must_use]
    pub fn at(mut self, placement: Placement) -> MapRequest {
        self.placement = placement;
        self
    }

    /// Adds `flags`.
    #[must_use]
    pub fn with(mut self, flags: AreaFlags) -> MapRequest {
        self.flags |= flags;
        self
    }
}

/// Start of the range for `MAP_32BIT`, as on Linux.
const LOW_START: usize = 0x4000_0000;
const LOW_END: usize = 0x8000_0000;

impl AddressSpace {
    /// Maps what `request` says; the address.
    ///
    /// # Errors
    /// [`Error::BadRange`], [`Error::Denied`] for rights beyond `max_access`,
    /// [`Error::NotPermitted`] for a fixed address below the first a program may
    /// map, [`Error::Exists`], [`Error::NoSpace`], limits and memory.
    pub fn map(&self, mut request: MapRequest) -> Result<usize, Error> {
        if !request.max_access.contains(request.access) {
            return Err(Error::Denied);
        }
        let len = match page_ceil(request.len) {
            Some(0) => return Err(Error::BadRange),
            Some(len) if len <= USER_END - USER_START => len,
            _ => return Err(Error::NoSpace),
        };
        check_placement(request.placement, len)?;
        let source = core::mem::replace(&mut request.source, Source::Anonymous);
        let (backing, index) = self.object(source, request.flags, len)?;
        if let Some(list) = backing.as_ref().and_then(|b| b.mappings()) {
            list.add(&self.me)?;
        }
        let mut state = self.state.write();
        let flags = request.flags | state.lock_future;
        let mut area = Area {
            start: 0,
            end: len,
            backing,
            index,
            access: request.access,
            max_access: request.max_access,
            flags,
            owned: AtomicBool::new(false),
        };
        let (range, removed) = self.place(&mut state, request.placement, &area)?;
        (area.start, area.end) = (range.start, range.end);
        let inserted = state.insert_merged(area);
        drop(state);
        drop(removed);
        inserted?;
        let now = flags.contains(AreaFlags::LOCKED) && !flags.contains(AreaFlags::LOCK_ON_FAULT);
        if now || request.populate == Populate::Now {
            // Pages that cannot be had now are tried again when they are touched.
            let _ = self.populate(range.clone());
        }
        Ok(range.start)
    }

    /// The object to map and the index of its first page.
    fn object(
        &self,
        source: Source,
        flags: AreaFlags,
        len: usize,
    ) -> Result<(Option<Arc<dyn Backing>>, u64), Error> {
        let pages = (len >> PAGE_SHIFT) as u64;
        match source {
            Source::Object { backing, offset } => {
                if !offset.is_multiple_of(PAGE_SIZE as u64) {
                    return Err(Error::BadRange);
                }
                let index = offset >> PAGE_SHIFT;
                if index.saturating_add(pages) > 1 << (63 - PAGE_SHIFT) {
                    return Err(Error::Overflow);
                }
                Ok((Some(backing), index))
            }
            Source::Anonymous if flags.contains(AreaFlags::SHARED) => {
                static NEXT_INODE: AtomicU64 = AtomicU64::new(1);
                let name = String::from("/dev/zero (deleted)");
                let inode = NEXT_INODE.fetch_add(1, Relaxed);
                let object = SharedMemory::new(self.account.clone(), pages, name, inode);
                Ok((Some(Arc::new(object)), 0))
            }
            Source::Anonymous => Ok((None, 0)),
        }
    }

    /// Checks the limits for `area`, finds its range, and clears it.
    fn place(
        &self,
        state: &mut State,
        placement: Placement,
        area: &Area,
    ) -> Result<(Range<usize>, Removed), Error> {
        let len = area.end - area.start;
        let pages = len >> PAGE_SHIFT;
        let range_at = |addr| addr..addr + len;
        let replaced = match placement {
            Placement::Fixed(addr) => state.areas.mapped_in(range_at(addr)),
            _ => 0,
        };
        let data = if area.is_data() { pages } else { 0 };
        state.check_limits(&self.limits, pages - replaced, data)?;
        if area.is_locked() {
            state.check_locked(&self.limits, pages)?;
        }
        // Two splits at the edges of what is replaced, and the area itself.
        state.areas.check_room(if replaced > 0 { 3 } else { 1 })?;
        match placement {
            Placement::Fixed(addr) => {
                let removed = state.take_out(&self.table, range_at(addr))?;
                Ok((range_at(addr), removed))
            }
            Placement::FixedNoReplace(addr) => {
                if state.areas.overlapping(range_at(addr)).next().is_some() {
                    return Err(Error::Exists);
                }
                Ok((range_at(addr), Removed::new()))
            }
            _ => {
                let addr = self.free_range(state, placement, len)?;
                Ok((range_at(addr), Removed::new()))
            }
        }
    }

    /// A free address for `len` bytes.
    pub(super) fn free_range(
        &self,
        state: &mut State,
        placement: Placement,
        len: usize,
    ) -> Result<usize, Error> {
        let areas = &mut state.areas;
        let found = match placement {
            Placement::Low => areas.search(len, LOW_START, LOW_END),
            Placement::Hint(hint) => {
                let addr = page_floor(hint);
                let wanted =
                    (hint != 0 && addr >= USER_START && len <= USER_END - addr.min(USER_END))
                        .then(|| areas.search(len, addr, addr + len))
                        .flatten();
                let base = self.layout.mmap_base;
                wanted
                    .or_else(|| areas.find_gap(len, USER_START, base))
                    .or_else(|| areas.search(len, base, USER_END))
            }
            Placement::Fixed(addr) | Placement::FixedNoReplace(addr) => Some(addr),
        };
        found.ok_or(Error::NoSpace)
    }

    /// Unmaps the pages of `addr..addr + len` (`munmap`). Holes are no error.
    ///
    /// # Errors
    /// [`Error::BadRange`]; [`Error::TooManyAreas`] if a hole in an area would be
    /// one area too many.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<(), Error> {
        let range = page_range(addr, len)?;
        if range.is_empty() {
            return Err(Error::BadRange);
        }
        let mut state = self.state.write();
        let removed = state.take_out(&self.table, range)?;
        drop(state);
        drop(removed);
        Ok(())
    }
}

/// Whether a fixed address can be mapped at all.
fn check_placement(placement: Placement, len: usize) -> Result<(), Error> {
    let (Placement::Fixed(addr) | Placement::FixedNoReplace(addr)) = placement else {
        return Ok(());
    };
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Error::BadRange);
    }
    if addr.checked_add(len).is_none_or(|end| end > USER_END) {
        return Err(Error::NoSpace);
    }
    if addr < USER_START {
        return Err(Error::NotPermitted);
    }
    Ok(())
}
