//! `mlock` and friends. There is no swap: locked memory is memory that is brought
//! in at once and counted against a limit.

use super::{AddressSpace, page_range};
use crate::Error;
use crate::area::AreaFlags;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use machine::addr::{PAGE_SHIFT, PAGE_SIZE, page_floor};

/// When locked pages are brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Now.
    Now,
    /// As they are touched (`MLOCK_ONFAULT`).
    OnFault,
}

/// What `mlockall` says about areas to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockFuture {
    /// They are not locked.
    No,
    /// They are locked.
    Yes(LockMode),
}

impl LockMode {
    fn flags(self) -> AreaFlags {
        match self {
            LockMode::Now => AreaFlags::LOCKED,
            LockMode::OnFault => AreaFlags::LOCKED | AreaFlags::LOCK_ON_FAULT,
        }
    }
}

const LOCK_FLAGS: AreaFlags = AreaFlags::LOCKED.union(AreaFlags::LOCK_ON_FAULT);

/// The pages that `addr..addr + len` touches.
fn touched_range(addr: usize, len: usize) -> Result<Range<usize>, Error> {
    let start = page_floor(addr);
    let len = len.checked_add(addr % PAGE_SIZE).ok_or(Error::BadRange)?;
    page_range(start, len)
}

impl AddressSpace {
    /// Locks the pages that `addr..addr + len` touches.
    ///
    /// # Errors
    /// [`Error::NotMapped`] for a hole or a page that cannot be brought in,
    /// [`Error::LockLimit`].
    pub fn lock(&self, addr: usize, len: usize, mode: LockMode) -> Result<(), Error> {
        let range = touched_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.state.write();
        if !state.areas.covers(range.clone()) {
            return Err(Error::NotMapped);
        }
        let locked: usize = state
            .areas
            .overlapping(range.clone())
            .filter(|a| a.is_locked())
            .map(|a| a.end.min(range.end) - a.start.max(range.start))
            .sum();
        state.check_locked(
            &self.limits,
            (range.end - range.start - locked) >> PAGE_SHIFT,
        )?;
        state.change(
            range.clone(),
            |a| Ok((a.access, (a.flags - LOCK_FLAGS) | mode.flags())),
            |_, _| {},
        )?;
        drop(state);
        match mode {
            LockMode::Now => self.populate(range),
            LockMode::OnFault => Ok(()),
        }
    }

    /// Unlocks the pages that `addr..addr + len` touches.
    ///
    /// # Errors
    /// [`Error::NotMapped`] for a hole.
    pub fn unlock(&self, addr: usize, len: usize) -> Result<(), Error> {
        let range = touched_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.state.write();
        state.change(
            range.clone(),
            |a| Ok((a.access, a.flags - LOCK_FLAGS)),
            |_, _| {},
        )?;
        match state.areas.covers(range) {
            true => Ok(()),
            false => Err(Error::NotMapped),
        }
    }

    /// `mlockall`: locks what is mapped now (`current`), and what will be.
    ///
    /// # Errors
    /// [`Error::LockLimit`], memory.
    pub fn lock_all(&self, current: Option<LockMode>, future: LockFuture) -> Result<(), Error> {
        let mut state = self.state.write();
        if let Some(mode) = current {
            let limit = self.limits.locked.load(Relaxed) >> PAGE_SHIFT;
            if state.areas.totals().mapped > limit {
                return Err(Error::LockLimit);
            }
            state.change(
                WHOLE,
                |a| Ok((a.access, (a.flags - LOCK_FLAGS) | mode.flags())),
                |_, _| {},
            )?;
        }
        state.lock_future = match future {
            LockFuture::No => AreaFlags::empty(),
            LockFuture::Yes(mode) => mode.flags(),
        };
        drop(state);
        if current == Some(LockMode::Now) {
            self.populate_all();
        }
        Ok(())
    }

    /// `munlockall`.
    ///
    /// # Errors
    /// Memory, to keep the list of areas.
    pub fn unlock_all(&self) -> Result<(), Error> {
        let mut state = self.state.write();
        state.lock_future = AreaFlags::empty();
        state.change(WHOLE, |a| Ok((a.access, a.flags - LOCK_FLAGS)), |_, _| {})
    }

    /// Brings in what can be brought in (as on Linux, no page is missed loudly).
    fn populate_all(&self) {
        let mut from = 0;
        while let Some(region) = self.next_region(from) {
            from = region.range.end;
            let _ = self.populate(region.range);
        }
    }
}

const WHOLE: Range<usize> = 0..machine::addr::USER_END;
