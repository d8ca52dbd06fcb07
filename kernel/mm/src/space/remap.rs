//! `mremap`: growing, shrinking and moving a mapping.

use super::{AddressSpace, Placement, Removed, State, page_range};
use crate::Error;
use crate::area::{Area, AreaFlags};
use core::ops::Range;
use machine::addr::{PAGE_SHIFT, PAGE_SIZE, USER_START, page_ceil};

/// Where a resized mapping may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemapTarget {
    /// It stays, or the request fails.
    InPlace,
    /// Elsewhere if it cannot grow where it is (`MREMAP_MAYMOVE`).
    Anywhere,
    /// To this address, in place of what is there (`MREMAP_FIXED`).
    Fixed(usize),
}

/// What happens to the old range of a mapping that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldRange {
    /// It is unmapped.
    Unmap,
    /// It stays mapped, without its pages (`MREMAP_DONTUNMAP`).
    Keep,
}

/// What `mremap` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RemapRequest {
    /// The mapping.
    pub addr: usize,
    /// Its length in bytes; 0 makes a second mapping of shared memory.
    pub old_len: usize,
    /// Its new length in bytes.
    pub new_len: usize,
    /// Where it may go.
    pub target: RemapTarget,
    /// What becomes of the old range if it moves.
    pub old_range: OldRange,
}

/// The request in whole pages.
struct Move {
    old: Range<usize>,
    new_len: usize,
    target: RemapTarget,
    keep: bool,
}

impl AddressSpace {
    /// Resizes or moves a mapping; its address.
    ///
    /// # Errors
    /// [`Error::BadRange`] for a request that makes no sense; [`Error::NotMapped`]
    /// if the old range is not part of one area; [`Error::NoSpace`], limits and
    /// memory.
    pub fn remap(&self, request: RemapRequest) -> Result<usize, Error> {
        let old = page_range(request.addr, request.old_len)?;
        let new_len = page_ceil(request.new_len).filter(|n| *n > 0);
        let mut m = Move {
            old,
            new_len: new_len.ok_or(Error::BadRange)?,
            target: request.target,
            keep: request.old_range == OldRange::Keep,
        };
        let old_len = m.old.end - m.old.start;
        if m.keep && (m.target == RemapTarget::InPlace || old_len != m.new_len) {
            return Err(Error::BadRange);
        }
        if let RemapTarget::Fixed(to) = m.target {
            let new = page_range(to, m.new_len)?;
            if new.start < m.old.end && m.old.start < new.end {
                return Err(Error::BadRange);
            }
            if to < USER_START {
                return Err(Error::NotPermitted);
            }
        }
        let mut state = self.state.write();
        let mut removed = Removed::new();
        let done = self.remap_locked(&mut state, &mut m, &mut removed);
        drop(state);
        drop(removed);
        let (addr, fill) = done?;
        if let Some(range) = fill {
            // As with `mmap`, what cannot be had now is tried again on touch.
            let _ = self.populate(range);
        }
        Ok(addr)
    }

    /// The address, and what to bring in because it is locked.
    fn remap_locked(
        &self,
        state: &mut State,
        m: &mut Move,
        removed: &mut Removed,
    ) -> Result<(usize, Option<Range<usize>>), Error> {
        let addr = m.old.start;
        state.areas.find(addr).ok_or(Error::NotMapped)?;
        // The part that is cut off goes first; it may span several areas.
        let old_len = m.old.end - addr;
        if old_len > m.new_len {
            let tail = addr + m.new_len..m.old.end;
            *removed = state.take_out(&self.table, tail.clone())?;
            m.old.end = tail.start;
        }
        let moves = m.keep || matches!(m.target, RemapTarget::Fixed(_));
        if old_len >= m.new_len && !moves {
            return Ok((addr, None));
        }
        let area = state.areas.find(addr).ok_or(Error::NotMapped)?;
        check_resize(area, m)?;
        let more = m.new_len - (m.old.end - addr);
        let pages = more >> PAGE_SHIFT;
        let (data, locked) = (area.is_data(), area.is_locked());
        let extra = if m.keep {
            m.new_len >> PAGE_SHIFT
        } else {
            pages
        };
        state.check_limits(&self.limits, extra, if data { extra } else { 0 })?;
        state.check_locked(&self.limits, if locked { pages } else { 0 })?;
        let fill = |at: usize| locked.then_some(at..at + m.new_len);
        if !moves && self.grow_in_place(state, m, more) {
            return Ok((addr, fill(addr)));
        }
        if m.target == RemapTarget::InPlace {
            return Err(Error::NoSpace);
        }
        // Two edges of the old area, two of what is replaced, the new area.
        state.areas.check_room(5)?;
        let to = match m.target {
            RemapTarget::Fixed(to) => {
                let there = state.take_out(&self.table, to..to + m.new_len)?;
                removed
                    .try_reserve(there.len())
                    .map_err(|_| Error::OutOfMemory)?;
                removed.extend(there);
                to
            }
            _ => self.free_range(state, Placement::Hint(0), m.new_len)?,
        };
        let gone = self.relocate(state, m, to)?;
        removed
            .try_reserve(gone.len())
            .map_err(|_| Error::OutOfMemory)?;
        removed.extend(gone);
        Ok((to, fill(to)))
    }

    /// Extends the area by `more` bytes if the old range ends it and they are
    /// free. Whether that was done.
    fn grow_in_place(&self, state: &mut State, m: &Move, more: usize) -> bool {
        let at = state.areas.locate(m.old.start);
        let end = m.old.end;
        let Some(new_end) = end.checked_add(more) else {
            return false;
        };
        let ends = state.areas.get(at).is_some_and(|a| a.end == end);
        let free = || state.areas.overlapping(end..new_end).next().is_none();
        if !ends || m.old.is_empty() || new_end > machine::addr::USER_END || !free() {
            return false;
        }
        state.areas.update(at, |a| a.end = new_end);
        state.merge_with_next(at);
        state.note_peak();
        true
    }

    /// Moves the old range to `to`; the areas that are gone.
    fn relocate(&self, state: &mut State, m: &Move, to: usize) -> Result<Removed, Error> {
        let area = state.areas.find(m.old.start).ok_or(Error::NotMapped)?;
        let mut twin = area.clone();
        if area.backing.is_some() {
            twin.index = area.index_of(m.old.start);
        }
        (twin.start, twin.end) = (to, to + m.new_len);
        if m.keep {
            twin.flags -= AreaFlags::LOCKED | AreaFlags::LOCK_ON_FAULT;
        }
        state.insert_merged(twin)?;
        if m.old.is_empty() {
            return Ok(Removed::new());
        }
        if let Err(e) = self.table.relocate(m.old.clone(), to) {
            // What has moved moves back; the tables it came from are still there.
            let new = to..to + (m.old.end - m.old.start);
            let _ = self.table.relocate(new, m.old.start);
            state.take_out(&self.table, to..to + m.new_len)?;
            return Err(e.into());
        }
        if m.keep {
            return Ok(Removed::new());
        }
        state.take_out(&self.table, m.old.clone())
    }
}

/// Whether the area can be the subject of the request.
fn check_resize(area: &Area, m: &Move) -> Result<(), Error> {
    let anonymous = area.backing.is_none() && !area.is_shared();
    if m.old.is_empty() && !area.is_shared() || m.keep && !anonymous {
        return Err(Error::BadRange);
    }
    if m.old.end > area.end || area.flags.contains(AreaFlags::SPECIAL) {
        return Err(Error::NotMapped);
    }
    if area.backing.is_some() {
        let last = area
            .index_of(m.old.start)
            .saturating_add((m.new_len / PAGE_SIZE) as u64);
        if last > 1 << (63 - PAGE_SHIFT) {
            return Err(Error::BadRange);
        }
    }
    Ok(())
}
