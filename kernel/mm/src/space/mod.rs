//! The address space of a program.

mod access;
mod advise;
mod brk;
mod edit;
mod fault;
mod fork;
mod lock;
mod map;
mod protect;
mod remap;
mod report;

pub use advise::Advice;
pub use lock::{LockFuture, LockMode};
pub use map::{MapRequest, Placement, Populate, Source};
pub use remap::{OldRange, RemapRequest, RemapTarget};
pub use report::{FutexKey, Region, RegionName, Stats, SyncMode, Usage};

use crate::area::{Area, AreaFlags};
use crate::areas::Areas;
use crate::layout::{Layout, Randomize};
use crate::mappings::same;
use crate::{Error, MappingList};
use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use machine::Account;
use machine::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END, USER_START, page_ceil};
use machine::paging::PageTable;
use machine::sync::RwLock;
use smallvec::SmallVec;

/// Resource limits that concern memory, in bytes (`getrlimit(2)`); `usize::MAX`
/// for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`: everything mapped.
    pub address_space: usize,
    /// `RLIMIT_DATA`: private writable memory.
    pub data: usize,
    /// `RLIMIT_STACK`: how far a stack grows.
    pub stack: usize,
    /// `RLIMIT_MEMLOCK`: locked memory.
    pub locked: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            address_space: usize::MAX,
            data: usize::MAX,
            stack: 8 << 20,
            locked: 8 << 20,
        }
    }
}

/// [`Limits`] that a fault reads without a lock.
struct SharedLimits {
    address_space: AtomicUsize,
    data: AtomicUsize,
    stack: AtomicUsize,
    locked: AtomicUsize,
}

/// The memory of a program: what is mapped where, with which rights. Threads of a
/// process share one as an `Arc`.
pub struct AddressSpace {
    table: Arc<PageTable>,
    account: Arc<Account>,
    layout: Layout,
    state: RwLock<State>,
    limits: SharedLimits,
    /// No huge pages, whatever areas say.
    small_pages_only: AtomicBool,
    /// For the lists of those who map an object.
    me: Weak<AddressSpace>,
}

/// What the lock guards.
struct State {
    areas: Areas,
    /// The heap: start and current end (`brk`), not rounded.
    heap: Range<usize>,
    /// Bytes of the program's initialised data, which count with the heap.
    image_data: usize,
    /// `mlockall(MCL_FUTURE)`: flags of every new area.
    lock_future: AreaFlags,
    /// The most pages that were ever mapped at one time.
    peak: usize,
}

/// Areas taken out of a space, to be dropped when its lock is free.
type Removed = SmallVec<[Area; 2]>;

impl AddressSpace {
    /// An empty space with a random layout and the usual stack limit.
    ///
    /// # Errors
    /// No memory.
    pub fn new(account: Arc<Account>) -> Result<Arc<AddressSpace>, Error> {
        let limits = Limits::default();
        Self::with_layout(account, Layout::new(Randomize::Yes, limits.stack), limits)
    }

    /// An empty space laid out as `layout` says, under `limits`. `account` pays
    /// for its pages.
    ///
    /// # Errors
    /// No memory.
    pub fn with_layout(
        account: Arc<Account>,
        layout: Layout,
        limits: Limits,
    ) -> Result<Arc<AddressSpace>, Error> {
        let table = PageTable::new()?;
        table.set_account(account.clone());
        let state = State {
            areas: Areas::new(account.clone()),
            heap: 0..0,
            image_data: 0,
            lock_future: AreaFlags::empty(),
            peak: 0,
        };
        Ok(Arc::new_cyclic(|me| AddressSpace {
            table,
            account,
            layout,
            state: RwLock::new(state),
            limits: SharedLimits {
                address_space: AtomicUsize::new(limits.address_space),
                data: AtomicUsize::new(limits.data),
                stack: AtomicUsize::new(limits.stack),
                locked: AtomicUsize::new(limits.locked),
            },
            small_pages_only: AtomicBool::new(false),
            me: me.clone(),
        }))
    }

    /// Whether it gets no huge pages (`PR_SET_THP_DISABLE`); a fork inherits it.
    #[must_use]
    pub fn small_pages_only(&self) -> bool {
        self.small_pages_only.load(Relaxed)
    }

    /// Sets that; those that are there stay.
    pub fn set_small_pages_only(&self, only: bool) {
        self.small_pages_only.store(only, Relaxed);
    }

    /// The page table, for the thread that runs in this space.
    #[must_use]
    pub fn page_table(&self) -> &Arc<PageTable> {
        &self.table
    }

    /// Who pays for its pages.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Where things lie in it.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let l = &self.limits;
        Limits {
            address_space: l.address_space.load(Relaxed),
            data: l.data.load(Relaxed),
            stack: l.stack.load(Relaxed),
            locked: l.locked.load(Relaxed),
        }
    }

    /// Changes the limits; what is mapped already stays.
    pub fn set_limits(&self, limits: Limits) {
        let l = &self.limits;
        l.address_space.store(limits.address_space, Relaxed);
        l.data.store(limits.data, Relaxed);
        l.stack.store(limits.stack, Relaxed);
        l.locked.store(limits.locked, Relaxed);
    }

    /// Takes the pages `pages` of the object with `list` out of the page table.
    /// They may come back by a fault, if the object still has them.
    pub(crate) fn unmap_object(&self, list: &MappingList, pages: Range<u64>) {
        let state = self.state.read();
        for a in state.areas.iter() {
            let mine = a.backing.as_ref().and_then(|b| b.mappings());
            if !mine.is_some_and(|m| same(m, list)) {
                continue;
            }
            let end = a.index.saturating_add(a.pages() as u64);
            let (from, to) = (pages.start.max(a.index), pages.end.min(end));
            if from < to {
                let at = |index: u64| a.start + (((index - a.index) as usize) << PAGE_SHIFT);
                self.table.unmap(at(from)..at(to));
            }
        }
    }
}

impl State {
    /// Whether `more` further pages, `data` of them private and writable, stay
    /// within the limits.
    fn check_limits(&self, limits: &SharedLimits, more: usize, data: usize) -> Result<(), Error> {
        let t = self.areas.totals();
        let fits = |used: usize, more: usize, limit: &AtomicUsize| {
            more == 0 || used.saturating_add(more) <= limit.load(Relaxed) >> PAGE_SHIFT
        };
        if fits(t.mapped, more, &limits.address_space) && fits(t.data, data, &limits.data) {
            Ok(())
        } else {
            Err(Error::OverLimit)
        }
    }

    /// Whether `more` further pages may be locked.
    fn check_locked(&self, limits: &SharedLimits, more: usize) -> Result<(), Error> {
        let limit = limits.locked.load(Relaxed) >> PAGE_SHIFT;
        if more > 0 && self.areas.totals().locked.saturating_add(more) > limit {
            return Err(Error::LockLimit);
        }
        Ok(())
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.areas.totals().mapped);
    }
}

/// The pages of `addr..addr + len` as a range: `addr` has to be aligned, `len` is
/// rounded up, and all of it lies in user space.
fn page_range(addr: usize, len: usize) -> Result<Range<usize>, Error> {
    let end = page_ceil(len).and_then(|len| addr.checked_add(len));
    match end {
        Some(end) if addr.is_multiple_of(PAGE_SIZE) && end <= USER_END => Ok(addr..end),
        _ => Err(Error::BadRange),
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // A thread that ends may keep the page table a little longer than the
        // space lives; its pages are given back now.
        self.table.unmap(USER_START..USER_END);
        let state = self.state.write();
        let mut left = None;
        for a in state.areas.iter() {
            let list = a.backing.as_ref().and_then(|b| b.mappings());
            if let Some(list) = list.filter(|l| !left.is_some_and(|s| same(s, l))) {
                list.remove(&self.me);
                left = Some(list);
            }
        }
    }
}

#[cfg(test)]
mod huge_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
