//! What a space says about itself: `/proc/PID/maps`, `smaps`, `statm`, `mincore`,
//! `msync`, and keys of futexes.

use super::{AddressSpace, page_range};
use crate::area::{Area, AreaFlags};
use crate::{Backing, Error};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use machine::addr::{PAGE_SHIFT, PAGE_SIZE};
use machine::paging::Access;

/// One area, as it was when it was looked at.
#[derive(Clone)]
pub struct Region {
    /// Its addresses.
    pub range: Range<usize>,
    /// The program's rights.
    pub access: Access,
    /// How it behaves.
    pub flags: AreaFlags,
    /// Offset of its first byte in the object.
    pub offset: u64,
    /// Private, and pages of its own may be there instead of the object's.
    pub owned: bool,
    /// What it is.
    pub name: RegionName,
}

/// What an area holds.
#[derive(Clone)]
pub enum RegionName {
    /// Anonymous memory.
    Anonymous,
    /// The heap.
    Heap,
    /// The first thread's stack.
    Stack,
    /// An object; [`Backing::describe`] names it.
    Object(Arc<dyn Backing>),
}

/// Sizes of a space, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Mapped.
    pub mapped: usize,
    /// The most that was ever mapped.
    pub mapped_peak: usize,
    /// With memory behind them now.
    pub resident: usize,
    /// Private and writable, stacks aside.
    pub data: usize,
    /// In areas that grow down.
    pub stack: usize,
    /// Executable, not writable.
    pub text: usize,
    /// Locked.
    pub locked: usize,
    /// Areas.
    pub areas: usize,
}

/// The memory behind a range, in bytes (`smaps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// With memory behind it.
    pub resident: usize,
    /// The space's share of it, if pages are divided by those who refer to them.
    pub proportional: usize,
    /// Clean pages that somebody else refers to too.
    pub shared_clean: usize,
    /// Dirty ones.
    pub shared_dirty: usize,
    /// Clean pages nobody else refers to.
    pub private_clean: usize,
    /// Dirty ones.
    pub private_dirty: usize,
    /// Touched lately.
    pub referenced: usize,
    /// In huge pages.
    pub huge: usize,
}

/// What two waiters on the same futex agree on (futex(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FutexKey {
    /// A word of private memory: the space, and the address in it.
    Private {
        /// Which space; unique while it lives.
        space: usize,
        /// The word's address.
        addr: usize,
    },
    /// A word of an object that is mapped shared.
    Shared {
        /// [`Backing::identity`].
        object: u64,
        /// The word's offset in bytes.
        offset: u64,
    },
}

/// What `msync` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Nothing: data is written back in its own time (`MS_ASYNC`).
    Async,
    /// That all is written (`MS_SYNC`).
    Wait,
}

impl AddressSpace {
    /// The first area that ends above `addr`. Areas are looked at one by one, so a
    /// walk over all of them sees each as it is at that moment.
    #[must_use]
    pub fn next_region(&self, addr: usize) -> Option<Region> {
        let state = self.state.read();
        let area = state.areas.get(state.areas.locate(addr))?;
        let stack = self.layout.stack_top;
        let name = match &area.backing {
            Some(object) => RegionName::Object(object.clone()),
            None if overlaps(&area.range(), &state.heap) => RegionName::Heap,
            None if area.end == stack => RegionName::Stack,
            None => RegionName::Anonymous,
        };
        Some(Region {
            range: area.range(),
            access: area.access,
            flags: area.flags,
            offset: if area.backing.is_some() {
                area.index << PAGE_SHIFT
            } else {
                0
            },
            owned: !area.is_shared() && area.owned.load(Relaxed),
            name,
        })
    }

    /// All areas in order of address; see [`AddressSpace::next_region`].
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let region = self.next_region(from)?;
            from = region.range.end;
            Some(region)
        })
    }

    /// Its sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.state.read();
        let totals = state.areas.totals();
        let sum = |wanted: fn(&&Area) -> bool| -> usize {
            state.areas.iter().filter(wanted).map(Area::pages).sum()
        };
        Stats {
            mapped: totals.mapped,
            mapped_peak: state.peak,
            resident: self.table.resident(),
            data: totals.data,
            stack: sum(|a| a.flags.contains(AreaFlags::GROWS_DOWN)),
            text: sum(|a| a.access.contains(Access::EXEC) && !a.access.contains(Access::WRITE)),
            locked: totals.locked,
            areas: state.areas.count(),
        }
    }

    /// The memory behind `range`; walks its pages.
    #[must_use]
    pub fn usage(&self, range: Range<usize>) -> Usage {
        let mut u = Usage {
            huge: self.table.huge_bytes(range.clone()),
            ..Usage::default()
        };
        self.table.for_each(range, |_, page| {
            // One reference is the mapping's, one is that of `page` itself.
            let others = page.frame.references().saturating_sub(2);
            u.resident += PAGE_SIZE;
            u.proportional += PAGE_SIZE / (others + 1);
            u.referenced += if page.accessed { PAGE_SIZE } else { 0 };
            let kind = match (others > 0, page.dirty) {
                (true, false) => &mut u.shared_clean,
                (true, true) => &mut u.shared_dirty,
                (false, false) => &mut u.private_clean,
                (false, true) => &mut u.private_dirty,
            };
            *kind += PAGE_SIZE;
        });
        u
    }

    /// Resident pages of files and shared memory (the third number of `statm`);
    /// walks their pages.
    #[must_use]
    pub fn shared_resident(&self) -> usize {
        let state = self.state.read();
        let mut n = 0;
        for a in state.areas.iter().filter(|a| a.backing.is_some()) {
            self.table.for_each(a.range(), |_, _| n += 1);
        }
        n
    }

    /// Whether each page of `addr..addr + len` can be had without waiting
    /// (`mincore`).
    ///
    /// # Errors
    /// [`Error::BadRange`], [`Error::NotMapped`] for a hole, no memory for the
    /// answer.
    pub fn mincore(&self, addr: usize, len: usize) -> Result<Vec<bool>, Error> {
        let range = page_range(addr, len)?;
        let state = self.state.read();
        if !state.areas.covers(range.clone()) {
            return Err(Error::NotMapped);
        }
        let mut resident = Vec::new();
        resident.try_reserve_exact((range.end - range.start) >> PAGE_SHIFT)?;
        for va in range.step_by(PAGE_SIZE) {
            let here = self.table.query(va).is_some();
            let at_hand = |a: &Area| {
                let object = a.backing.as_ref()?;
                let mut page = [None];
                object.cached(a.index_of(va), &mut page);
                page[0].is_some().then_some(())
            };
            let there = || state.areas.find(va).and_then(at_hand).is_some();
            resident.push(here || there());
        }
        Ok(resident)
    }

    /// Writes shared mappings in `addr..addr + len` back to their objects.
    ///
    /// # Errors
    /// [`Error::NotMapped`] for a hole (the rest is written), [`Error::Io`].
    pub fn sync(&self, addr: usize, len: usize, mode: SyncMode) -> Result<(), Error> {
        let range = page_range(addr, len)?;
        self.for_each_object(range, |piece, flags, _| match piece {
            Some((object, pages))
                if flags.contains(AreaFlags::SHARED) && mode == SyncMode::Wait =>
            {
                Ok(object.sync(pages)?)
            }
            _ => Ok(()),
        })
    }

    /// Whether locked memory lies in `addr..addr + len` (`MS_INVALIDATE`).
    #[must_use]
    pub fn has_locked(&self, addr: usize, len: usize) -> bool {
        let end = addr.saturating_add(len);
        let state = self.state.read();
        state.areas.overlapping(addr..end).any(Area::is_locked)
    }

    /// The key of a futex word that other processes may share.
    ///
    /// # Errors
    /// [`Error::NotMapped`].
    pub fn futex_key(&self, addr: usize) -> Result<FutexKey, Error> {
        let state = self.state.read();
        let area = state.areas.find(addr).ok_or(Error::NotMapped)?;
        Ok(match &area.backing {
            Some(object) if area.is_shared() => FutexKey::Shared {
                object: object.identity(),
                offset: (area.index_of(addr) << PAGE_SHIFT) + (addr % PAGE_SIZE) as u64,
            },
            _ => self.private_futex_key(addr),
        })
    }

    /// The key of a futex word that only this process uses (`FUTEX_PRIVATE_FLAG`):
    /// nothing is looked up.
    #[must_use]
    pub fn private_futex_key(&self, addr: usize) -> FutexKey {
        FutexKey::Private {
            space: core::ptr::from_ref(self).addr(),
            addr,
        }
    }
}

fn overlaps(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}
