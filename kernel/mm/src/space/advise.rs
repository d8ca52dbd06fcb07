//! `madvise`.

use super::fault::Before;
use super::{AddressSpace, page_range};
use crate::area::AreaFlags;
use crate::{Backing, Error, FaultError};
use alloc::sync::Arc;
use core::ops::Range;
use machine::addr::PAGE_SHIFT;
use machine::paging::Access;

/// What a program says about the use of its memory (madvise(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// A hint this kernel has no use for: `NORMAL`, `RANDOM`, `SEQUENTIAL`,
    /// `COLD`, `PAGEOUT`.
    Hint,
    /// `HUGEPAGE`.
    HugePage,
    /// `NOHUGEPAGE`.
    NoHugePage,
    /// `WILLNEED`: pages of objects are brought in.
    WillNeed,
    /// `DONTNEED`: pages are dropped; private ones are zero or the file's again.
    DontNeed,
    /// `FREE`: as `DONTNEED`, for private anonymous memory only. (Linux drops the
    /// pages later; a program may not rely on either.)
    Free,
    /// `REMOVE`: the object's pages become a hole.
    Remove,
    /// `DONTFORK`.
    DontFork,
    /// `DOFORK`.
    DoFork,
    /// `WIPEONFORK`.
    WipeOnFork,
    /// `KEEPONFORK`.
    KeepOnFork,
    /// `DONTDUMP`.
    DontDump,
    /// `DODUMP`.
    DoDump,
    /// `POPULATE_READ`.
    PopulateRead,
    /// `POPULATE_WRITE`.
    PopulateWrite,
}

/// A piece of an object.
type Piece = (Arc<dyn Backing>, Range<u64>);

impl AddressSpace {
    /// Takes `advice` on the pages of `addr..addr + len`.
    ///
    /// # Errors
    /// [`Error::NotMapped`] if there is a hole (the rest is done, as on Linux);
    /// [`Error::Unsuitable`] where the memory is locked or of the wrong kind.
    pub fn advise(&self, addr: usize, len: usize, advice: Advice) -> Result<(), Error> {
        let range = page_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let (set, clear) = match advice {
            Advice::DontFork => (AreaFlags::DONT_FORK, AreaFlags::empty()),
            Advice::DoFork => (AreaFlags::empty(), AreaFlags::DONT_FORK),
            Advice::WipeOnFork => (AreaFlags::WIPE_ON_FORK, AreaFlags::empty()),
            Advice::KeepOnFork => (AreaFlags::empty(), AreaFlags::WIPE_ON_FORK),
            Advice::DontDump => (AreaFlags::DONT_DUMP, AreaFlags::empty()),
            Advice::DoDump => (AreaFlags::empty(), AreaFlags::DONT_DUMP),
            Advice::HugePage => (AreaFlags::HUGE, AreaFlags::empty()),
            Advice::NoHugePage => (AreaFlags::empty(), AreaFlags::HUGE),
            Advice::DontNeed | Advice::Free => return self.discard(range, advice),
            Advice::Remove => return self.punch(range),
            Advice::WillNeed => return self.will_need(range),
            Advice::PopulateRead => return self.populate_for(range, Access::READ),
            Advice::PopulateWrite => return self.populate_for(range, Access::WRITE),
            Advice::Hint => return self.check_covered(range),
        };
        self.set_flags(range, set, clear)
    }

    fn set_flags(
        &self,
        range: Range<usize>,
        set: AreaFlags,
        clear: AreaFlags,
    ) -> Result<(), Error> {
        let mut state = self.state.write();
        state.change(
            range.clone(),
            |a| {
                let anonymous = a.backing.is_none() && !a.is_shared();
                if a.flags.contains(AreaFlags::SPECIAL)
                    || set.contains(AreaFlags::WIPE_ON_FORK) && !anonymous
                {
                    return Err(Error::Unsuitable);
                }
                Ok((a.access, (a.flags | set) - clear))
            },
            |_, _| {},
        )?;
        match state.areas.covers(range) {
            true => Ok(()),
            false => Err(Error::NotMapped),
        }
    }

    fn check_covered(&self, range: Range<usize>) -> Result<(), Error> {
        match self.state.read().areas.covers(range) {
            true => Ok(()),
            false => Err(Error::NotMapped),
        }
    }

    /// Drops pages; the areas stay, so readers of the list may go on.
    fn discard(&self, range: Range<usize>, advice: Advice) -> Result<(), Error> {
        let state = self.state.read();
        for a in state.areas.overlapping(range.clone()) {
            let wrong = advice == Advice::Free && (a.backing.is_some() || a.is_shared());
            if wrong || a.is_locked() || a.flags.contains(AreaFlags::SPECIAL) {
                return Err(Error::Unsuitable);
            }
            self.table
                .unmap(a.start.max(range.start)..a.end.min(range.end));
        }
        match state.areas.covers(range) {
            true => Ok(()),
            false => Err(Error::NotMapped),
        }
    }

    /// Calls `f` for each piece of an object in `range`, without the lock.
    pub(super) fn for_each_object(
        &self,
        range: Range<usize>,
        mut f: impl FnMut(Option<Piece>, AreaFlags, Access) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut from = range.start;
        let mut hole = false;
        while from < range.end {
            let state = self.state.read();
            let Some(a) = state.areas.overlapping(from..range.end).next() else {
                hole = true;
                break;
            };
            let (start, end) = (a.start.max(from), a.end.min(range.end));
            hole |= start > from;
            let piece = a.backing.clone().map(|object| {
                let first = a.index_of(start);
                let pages = ((end - start) >> PAGE_SHIFT) as u64;
                (object, first..first + pages)
            });
            let (flags, access) = (a.flags, a.max_access);
            drop(state);
            f(piece, flags, access)?;
            from = end;
        }
        if hole { Err(Error::NotMapped) } else { Ok(()) }
    }

    fn punch(&self, range: Range<usize>) -> Result<(), Error> {
        self.for_each_object(range, |piece, flags, max_access| {
            let Some((object, pages)) = piece.filter(|_| flags.contains(AreaFlags::SHARED)) else {
                return Err(Error::Unsuitable);
            };
            if flags.contains(AreaFlags::LOCKED) {
                return Err(Error::Unsuitable);
            }
            if !max_access.contains(Access::WRITE) {
                return Err(Error::Denied);
            }
            Ok(object.punch(pages)?)
        })
    }

    fn will_need(&self, range: Range<usize>) -> Result<(), Error> {
        self.for_each_object(range, |piece, _, _| {
            if let Some((object, pages)) = piece {
                for index in pages.take(WILL_NEED_PAGES_MAX) {
                    // Advice only: what cannot be read shows when it is touched.
                    if object.page(index, false).is_err() {
                        break;
                    }
                    machine::thread::cond_resched();
                }
            }
            Ok(())
        })
    }

    fn populate_for(&self, range: Range<usize>, access: Access) -> Result<(), Error> {
        for va in range.step_by(machine::addr::PAGE_SIZE) {
            let state = self.state.read();
            let area = state.areas.find(va).ok_or(Error::NotMapped)?;
            self.fault_in(area, va, access, Before::Unknown)
                .map_err(|e| match e {
                    FaultError::Denied => Error::Unsuitable,
                    e => e.into(),
                })?;
            drop(state);
            machine::thread::cond_resched();
        }
        Ok(())
    }
}

/// Pages of one area that one `WILLNEED` reads at most (4 MiB).
const WILL_NEED_PAGES_MAX: usize = 1024;
