//! A page table as a map.

use crate::addr::{HUGE_PAGE_SIZE, PAGE_SHIFT, USER_END, USER_START};
use crate::error::AllocError;
use crate::frame::{Frame, HugeFrames};
use crate::paging::{Access, MapOutcome, Mapping, WriteFault};
use crate::{Account, sync::SpinLock};
use alloc::collections::{BTreeMap, btree_map};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// User mappings of one address space.
#[derive(Default)]
pub struct PageTable {
    pages: SpinLock<BTreeMap<usize, Entry>>,
}

struct Entry {
    frame: Frame,
    access: Access,
    dirty: bool,
    accessed: bool,
}

impl Entry {
    /// A frame just mapped; one of the boot image is never written.
    fn new(frame: Frame, access: Access) -> Entry {
        let access = if frame.is_fixed() {
            access - Access::WRITE
        } else {
            access
        };
        Entry {
            frame,
            access,
            dirty: false,
            accessed: false,
        }
    }
}

fn pages(range: &Range<usize>) -> Range<usize> {
    let start = range.start.max(USER_START) >> PAGE_SHIFT;
    let end = range.end.min(USER_END).div_ceil(1 << PAGE_SHIFT);
    start..end.max(start)
}

fn valid(va: usize) -> bool {
    (USER_START..USER_END).contains(&va)
}

impl PageTable {
    /// An empty one.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Arc<PageTable>, AllocError> {
        Ok(Arc::new(PageTable::default()))
    }

    /// Has all who run in the space pass a full memory barrier.
    pub fn barrier(&self) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }

    /// Charges the tables made from now on to `account`: a map has none.
    pub fn set_account(&self, _: Arc<Account>) {}

    /// Maps the page of `va` to `frame`, in place of what was there. A fixed
    /// frame is mapped without [`Access::WRITE`]. Addresses outside user space
    /// are ignored.
    ///
    /// # Errors
    /// No memory for a table.
    pub fn map(&self, va: usize, frame: Frame, access: Access) -> Result<(), AllocError> {
        if valid(va) {
            let entry = Entry::new(frame, access);
            self.pages.lock().insert(va >> PAGE_SHIFT, entry);
        }
        Ok(())
    }

    /// Maps the page of `va` unless something is mapped there.
    ///
    /// # Errors
    /// No memory for a table.
    pub fn map_if_empty(
        &self,
        va: usize,
        frame: Frame,
        access: Access,
    ) -> Result<MapOutcome, AllocError> {
        if !valid(va) {
            return Ok(MapOutcome::Occupied);
        }
        // Under one lock, as on the metal: two threads may fault on the page at once.
        match self.pages.lock().entry(va >> PAGE_SHIFT) {
            btree_map::Entry::Occupied(_) => Ok(MapOutcome::Occupied),
            btree_map::Entry::Vacant(place) => {
                place.insert(Entry::new(frame, access));
                Ok(MapOutcome::Mapped)
            }
        }
    }

    /// Whether nothing is mapped in the 2 MiB of `va`.
    pub fn is_free_for_huge(&self, va: usize) -> bool {
        let start = va & !(HUGE_PAGE_SIZE - 1);
        let span = pages(&(start..start + HUGE_PAGE_SIZE));
        valid(va) && self.pages.lock().range(span).next().is_none()
    }

    /// Maps `frames` at `va`, a multiple of their length, unless something is mapped there.
    ///
    /// # Errors
    /// None: a map has no tables.
    pub fn map_huge(
        &self,
        va: usize,
        frames: HugeFrames,
        access: Access,
    ) -> Result<MapOutcome, AllocError> {
        if !va.is_multiple_of(HUGE_PAGE_SIZE) || !self.is_free_for_huge(va) {
            return Ok(MapOutcome::Occupied);
        }
        let mut pages = self.pages.lock();
        let numbers = va >> PAGE_SHIFT..;
        for (number, frame) in numbers.zip(frames.into_frames()) {
            pages.insert(number, Entry::new(frame, access));
        }
        Ok(MapOutcome::Mapped)
    }

    /// Bytes of `range` that huge pages map: a map has none.
    pub fn huge_bytes(&self, _: Range<usize>) -> usize {
        0
    }

    /// What is mapped at `va`.
    pub fn query(&self, va: usize) -> Option<Mapping> {
        let pages = self.pages.lock();
        let e = pages.get(&(va >> PAGE_SHIFT))?;
        Some(Mapping {
            frame: e.frame.clone(),
            access: e.access,
            dirty: e.dirty,
            accessed: e.accessed,
        })
    }

    /// Resolves a write to a private page that is mapped read-only: copies it,
    /// charged to `account`, if somebody else refers to its frame too, and makes
    /// it writable otherwise.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn write_fault(
        &self,
        va: usize,
        access: Access,
        account: &Account,
    ) -> Result<WriteFault, AllocError> {
        let mut pages = self.pages.lock();
        let Some(e) = pages.get_mut(&(va >> PAGE_SHIFT)) else {
            return Ok(WriteFault::NotMapped);
        };
        if e.access.contains(Access::WRITE) {
            // Another thread was faster. Who else refers to the frame is a device that
            // fills it: a copy would lose what it brings.
            return Ok(WriteFault::MadeWritable);
        }
        let alone = e.frame.references() == 1 && !e.frame.is_fixed();
        if !alone {
            e.frame = e.frame.copied(account)?;
        }
        e.access = access;
        Ok(if alone {
            WriteFault::MadeWritable
        } else {
            WriteFault::Copied
        })
    }

    /// Gives what is mapped in `range` the rights `access`. With `keep_shared`
    /// pages whose frame has further references (copy-on-write) do not become
    /// writable.
    pub fn protect(&self, range: Range<usize>, access: Access, keep_shared: bool) {
        for (_, e) in self.pages.lock().range_mut(pages(&range)) {
            let shared = e.frame.is_fixed() || keep_shared && e.frame.references() > 1;
            e.access = if shared {
                access - Access::WRITE
            } else {
                access
            };
        }
    }

    /// Unmaps `range`.
    pub fn unmap(&self, range: Range<usize>) {
        let mut all = self.pages.lock();
        let gone: Vec<usize> = all.range(pages(&range)).map(|(k, _)| *k).collect();
        let frames: Vec<_> = gone.iter().filter_map(|k| all.remove(k)).collect();
        drop(all);
        drop(frames);
    }

    /// Maps what is mapped in `range` in `child` too. With `copy_on_write` both
    /// lose [`Access::WRITE`].
    ///
    /// # Errors
    /// No memory for a table; part of the range may be shared then.
    pub fn share_into(
        &self,
        child: &PageTable,
        range: Range<usize>,
        copy_on_write: bool,
    ) -> Result<(), AllocError> {
        let mut mine = self.pages.lock();
        let mut theirs = child.pages.lock();
        for (k, e) in mine.range_mut(pages(&range)) {
            if copy_on_write {
                e.access -= Access::WRITE;
            }
            let copy = Entry {
                frame: e.frame.clone(),
                access: e.access,
                dirty: e.dirty,
                accessed: false,
            };
            theirs.insert(*k, copy);
        }
        Ok(())
    }

    /// Moves the mappings of `from` to the same number of pages at `to`.
    ///
    /// # Errors
    /// No memory for a table; part of the range may have moved then.
    pub fn relocate(&self, from: Range<usize>, to: usize) -> Result<(), AllocError> {
        let mut all = self.pages.lock();
        let keys: Vec<usize> = all.range(pages(&from)).map(|(k, _)| *k).collect();
        let moved: Vec<_> = keys
            .iter()
            .filter_map(|k| Some((*k, all.remove(k)?)))
            .collect();
        for (k, e) in moved {
            let va = to + ((k << PAGE_SHIFT) - from.start);
            if valid(va) {
                all.insert(va >> PAGE_SHIFT, e);
            }
        }
        Ok(())
    }

    /// Calls `f` with address and mapping of each page mapped in `range`, in
    /// order, without holding a lock over the call.
    pub fn for_each(&self, range: Range<usize>, mut f: impl FnMut(usize, Mapping)) {
        let keys: Vec<usize> = self
            .pages
            .lock()
            .range(pages(&range))
            .map(|(k, _)| *k)
            .collect();
        for k in keys {
            if let Some(m) = self.query(k << PAGE_SHIFT) {
                f(k << PAGE_SHIFT, m);
            }
        }
    }

    /// Forgets that the pages of `range` were touched or, with `dirty`, written.
    pub fn clear_accessed(&self, range: Range<usize>, dirty: bool) {
        for (_, e) in self.pages.lock().range_mut(pages(&range)) {
            e.accessed = false;
            e.dirty &= !dirty;
        }
    }

    /// Pages mapped now.
    pub fn resident(&self) -> usize {
        self.pages.lock().len()
    }

    /// The frame at `va` if `access` is allowed; marks it touched.
    pub(super) fn touch(&self, va: usize, access: Access) -> Option<Frame> {
        let mut pages = self.pages.lock();
        let e = pages.get_mut(&(va >> PAGE_SHIFT))?;
        if !e.access.contains(access) {
            return None;
        }
        e.accessed = true;
        e.dirty |= access.contains(Access::WRITE);
        Some(e.frame.clone())
    }
}
