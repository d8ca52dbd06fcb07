//! Page faults.

use super::{AddressSpace, State};
use crate::area::{Area, AreaFlags, GUARD, hardware};
use crate::{Backing, Error, FaultError};
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use machine::addr::{HUGE_PAGE_SIZE, PAGE_SHIFT, PAGE_SIZE, USER_START, page_floor};
use machine::frame::HugeFrames;
use machine::paging::{Access, MapOutcome, WriteFault};
use machine::sync::Once;
use machine::thread::{self, PageFault};
use machine::{Account, Frame};

/// Pages that one read fault on an object maps at most, itself included; a power
/// of two.
const AROUND: usize = 16;

/// References to the page of zeros at which further ones get pages of their own:
/// its count must not overflow.
const ZERO_PAGE_REFERENCES_MAX: usize = 1 << 30;

/// What was mapped where a fault happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing, a moment ago.
    Nothing,
    /// A page, perhaps.
    Unknown,
}

/// A page of zeros that every read of untouched memory can share.
fn zero_page() -> Option<Frame> {
    static ZERO: Once<Option<Frame>> = Once::new();
    let frame = ZERO.call_once(|| Frame::zeroed(Account::kernel()).ok());
    frame
        .as_ref()
        .filter(|f| f.references() < ZERO_PAGE_REFERENCES_MAX)
        .cloned()
}

impl AddressSpace {
    /// Resolves a page fault. After `Ok` the access is to be tried again; another
    /// fault may follow.
    ///
    /// # Errors
    /// [`FaultError`]: the signal to raise.
    pub fn handle_fault(&self, fault: PageFault) -> Result<(), FaultError> {
        let before = if fault.present {
            Before::Unknown
        } else {
            Before::Nothing
        };
        {
            let state = self.state.read();
            if let Some(area) = state.areas.find(fault.addr) {
                return self.fault_in(area, fault.addr, fault.access, before);
            }
        }
        // Nothing there: below a stack, perhaps.
        self.grow_stack(fault.addr)?;
        let state = self.state.read();
        let area = state.areas.find(fault.addr);
        let area = area.ok_or(FaultError::NotMapped)?;
        self.fault_in(area, fault.addr, fault.access, before)
    }

    /// Maps the page of `addr`, which lies in `area`. The caller holds the lock.
    pub(super) fn fault_in(
        &self,
        area: &Area,
        addr: usize,
        access: Access,
        before: Before,
    ) -> Result<(), FaultError> {
        let va = page_floor(addr);
        let allowed = hardware(area.access);
        if !allowed.contains(access) || allowed.is_empty() {
            return Err(FaultError::Denied);
        }
        let write = access.contains(Access::WRITE);
        match &area.backing {
            None if write => self.write_anonymous(area, va, before),
            None => self.read_anonymous(area, va),
            Some(object) if area.is_shared() => self.fault_shared(area, &**object, va, write),
            Some(object) if write => self.write_private(area, &**object, va, before),
            Some(object) => self.read_object(area, &**object, va, area.hardware() - Access::WRITE),
        }
    }

    /// Makes sure that the page of `addr` in the private `area` is the space's own,
    /// whatever the program may do with it.
    pub(super) fn own_page(&self, area: &Area, addr: usize) -> Result<(), FaultError> {
        let va = page_floor(addr);
        if area.hardware().is_empty() {
            return Err(FaultError::Denied);
        }
        match &area.backing {
            None => self.write_anonymous(area, va, Before::Unknown),
            Some(object) => self.write_private(area, &**object, va, Before::Unknown),
        }
    }

    fn write_anonymous(&self, area: &Area, va: usize, before: Before) -> Result<(), FaultError> {
        if before == Before::Unknown && self.write_present(area, va)? {
            return Ok(());
        }
        if area.flags.contains(AreaFlags::HUGE) && self.map_huge(area, va)? {
            return Ok(());
        }
        let frame = Frame::zeroed(&self.account)?;
        self.map_own(area, va, frame, before)
    }

    /// Maps a huge page of the area's own where nothing was, if one fits and is to be had.
    /// Whether the page of `va` is there now.
    #[cold]
    fn map_huge(&self, area: &Area, va: usize) -> Result<bool, FaultError> {
        let start = va & !(HUGE_PAGE_SIZE - 1);
        let access = area.hardware();
        let fits = area.start <= start && area.end - start >= HUGE_PAGE_SIZE;
        let is_data = access.contains(Access::WRITE) && !access.contains(Access::EXEC);
        if !fits || !is_data || self.small_pages_only() {
            return Ok(false);
        }
        if !self.table.is_free_for_huge(start) {
            return Ok(false);
        }
        // Without one the program gets along as before.
        let Ok(frames) = HugeFrames::zeroed(&self.account) else {
            return Ok(false);
        };
        area.note_owned();
        Ok(self.table.map_huge(start, frames, access)? == MapOutcome::Mapped)
    }

    /// Maps a page of the area's own where nothing was. If another thread was
    /// faster, its page stays.
    fn map_own(
        &self,
        area: &Area,
        va: usize,
        frame: Frame,
        before: Before,
    ) -> Result<(), FaultError> {
        area.note_owned();
        let mapped = self.table.map_if_empty(va, frame, area.hardware())?;
        if mapped == MapOutcome::Occupied && before == Before::Nothing {
            // There was one after all: one that came meanwhile, or one that no
            // access was allowed to until now.
            self.write_present(area, va)?;
        }
        Ok(())
    }

    fn read_anonymous(&self, area: &Area, va: usize) -> Result<(), FaultError> {
        if area.flags.contains(AreaFlags::HUGE) && self.map_huge(area, va)? {
            return Ok(());
        }
        let frame = match zero_page() {
            Some(frame) => frame,
            None => Frame::zeroed(&self.account)?,
        };
        area.note_owned();
        self.table
            .map_if_empty(va, frame, area.hardware() - Access::WRITE)?;
        Ok(())
    }

    /// Makes a page of a private area that is mapped already writable, with a copy
    /// if it is shared. Whether a page was there.
    fn write_present(&self, area: &Area, va: usize) -> Result<bool, FaultError> {
        let done = self.table.write_fault(va, area.hardware(), &self.account)?;
        if done == WriteFault::NotMapped {
            return Ok(false);
        }
        area.note_owned();
        Ok(true)
    }

    /// A write to a private mapping of an object: a copy of its page.
    fn write_private(
        &self,
        area: &Area,
        object: &dyn Backing,
        va: usize,
        before: Before,
    ) -> Result<(), FaultError> {
        if before == Before::Unknown && self.write_present(area, va)? {
            return Ok(());
        }
        let epoch = object.mappings().map(|l| l.epoch());
        let index = area.index_of(va);
        let copy = object.page(index, false)?.copied(&self.account)?;
        self.map_own(area, va, copy, before)?;
        // A copy of a page that still exists may stay: it could have been made a
        // moment earlier. Beyond the object's end there is nothing to be mapped.
        if object.mappings().map(|l| l.epoch()) != epoch
            && let Err(e) = object.page(index, false)
        {
            self.table.unmap(va..va + PAGE_SIZE);
            return Err(e.into());
        }
        Ok(())
    }

    fn fault_shared(
        &self,
        area: &Area,
        object: &dyn Backing,
        va: usize,
        write: bool,
    ) -> Result<(), FaultError> {
        if !write {
            let access = area.shared_access(object);
            return self.read_object(area, object, va, access);
        }
        let epoch = object.mappings().map(|l| l.epoch());
        let frame = object.page(area.index_of(va), true)?;
        if frame.is_fixed() {
            return Err(FaultError::Bus);
        }
        self.table.map(va, frame, area.hardware())?;
        if object.mappings().map(|l| l.epoch()) != epoch {
            // The page may have left the object meanwhile: the next fault will tell.
            self.table.unmap(va..va + PAGE_SIZE);
        }
        Ok(())
    }

    /// Maps the object's own page, and neighbours of it that are at hand.
    fn read_object(
        &self,
        area: &Area,
        object: &dyn Backing,
        va: usize,
        access: Access,
    ) -> Result<(), FaultError> {
        let epoch = object.mappings().map(|l| l.epoch());
        let frame = object.page(area.index_of(va), false)?;
        let first = self.table.map_if_empty(va, frame, access)?;
        let mut mapped = (va, u16::from(first == MapOutcome::Mapped));
        if first == MapOutcome::Mapped {
            mapped = self.map_around(area, object, va, access)?;
        }
        if object.mappings().map(|l| l.epoch()) != epoch {
            // As above; only what was mapped here, for private copies of other
            // pages must stay.
            for i in (0..AROUND).filter(|i| mapped.1 & 1 << i != 0) {
                let at = mapped.0 + (i << PAGE_SHIFT);
                self.table.unmap(at..at + PAGE_SIZE);
            }
        }
        Ok(())
    }

    /// Maps neighbours of the page at `va`, which is mapped, in its aligned window
    /// of [`AROUND`] pages. The start of the window, and bit by bit which of its
    /// pages were mapped.
    fn map_around(
        &self,
        area: &Area,
        object: &dyn Backing,
        va: usize,
        access: Access,
    ) -> Result<(usize, u16), FaultError> {
        let window = va & !(AROUND * PAGE_SIZE - 1);
        let start = window.max(area.start);
        let end = (window + AROUND * PAGE_SIZE).min(area.end);
        let mut found: [Option<Frame>; AROUND] = [const { None }; AROUND];
        let count = (end - start) >> PAGE_SHIFT;
        object.cached(area.index_of(start), &mut found[..count]);
        let mut mapped = 1 << ((va - start) >> PAGE_SHIFT);
        for (i, frame) in found.into_iter().enumerate() {
            let at = start + (i << PAGE_SHIFT);
            let Some(frame) = frame.filter(|_| at != va) else {
                continue;
            };
            if self.table.map_if_empty(at, frame, access)? == MapOutcome::Mapped {
                mapped |= 1 << i;
            }
        }
        Ok((start, mapped))
    }

    /// Extends the area above `addr` down to it, if it grows and may.
    fn grow_stack(&self, addr: usize) -> Result<(), FaultError> {
        let mut state = self.state.write();
        let at = state.areas.locate(addr);
        let Some(area) = state.areas.get(at) else {
            return Err(FaultError::NotMapped);
        };
        if area.start <= addr {
            // Somebody else was here meanwhile.
            return Ok(());
        }
        let start = page_floor(addr);
        let below = state
            .areas
            .prev(at)
            .and_then(|p| state.areas.get(p))
            .map_or(0, |a| a.end);
        let more = (area.start - start) >> PAGE_SHIFT;
        let allowed = area.flags.contains(AreaFlags::GROWS_DOWN)
            && start >= USER_START
            && area.end - start <= self.limits.stack.load(Relaxed)
            && start.saturating_sub(below) >= GUARD;
        let locked = if area.is_locked() { more } else { 0 };
        if !allowed
            || state.check_limits(&self.limits, more, 0).is_err()
            || state.check_locked(&self.limits, locked).is_err()
        {
            return Err(FaultError::NotMapped);
        }
        state.areas.update(at, |a| a.start = start);
        state.note_peak();
        Ok(())
    }

    /// Brings the pages of `range` in, as a touch of each would: a write where the
    /// program may write to a page of its own.
    ///
    /// # Errors
    /// The first page that cannot be had.
    pub fn populate(&self, range: Range<usize>) -> Result<(), Error> {
        let mut va = page_floor(range.start);
        while va < range.end {
            let state = self.state.read();
            let touched = self.touch_run(&state, va, range.end);
            drop(state);
            va = touched?;
            thread::cond_resched();
        }
        Ok(())
    }

    /// Touches some pages from `va` on; where to go on.
    fn touch_run(&self, state: &State, va: usize, end: usize) -> Result<usize, Error> {
        let area = state.areas.find(va).ok_or(Error::NotMapped)?;
        let own = area.access.contains(Access::WRITE) && !area.is_shared();
        let access = if own { Access::WRITE } else { Access::READ };
        let end = area.end.min(end).min(va + AROUND * PAGE_SIZE);
        for at in (va..end).step_by(PAGE_SIZE) {
            self.fault_in(area, at, access, Before::Unknown)?;
        }
        Ok(end)
    }
}

impl Area {
    /// What a page of a shared area may be mapped with before it is written to.
    pub(super) fn shared_access(&self, object: &dyn Backing) -> Access {
        if object.tracks_writes() {
            self.hardware() - Access::WRITE
        } else {
            self.hardware()
        }
    }
}
