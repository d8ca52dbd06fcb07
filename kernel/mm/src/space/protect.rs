//! `mprotect`.

use super::{AddressSpace, page_range};
use crate::Error;
use crate::area::{AreaFlags, hardware};
use core::ops::Range;
use machine::addr::PAGE_SHIFT;
use machine::paging::Access;

impl AddressSpace {
    /// Gives the pages of `addr..addr + len` the rights `access`.
    ///
    /// # Errors
    /// [`Error::BadRange`]; [`Error::NotMapped`] where a hole is met and
    /// [`Error::Denied`] where the object forbids it (what lies before has
    /// changed, as on Linux); limits and memory.
    pub fn protect(&self, addr: usize, len: usize, access: Access) -> Result<(), Error> {
        let range = page_range(addr, len).map_err(|_| match addr % machine::addr::PAGE_SIZE {
            0 => Error::NotMapped,
            _ => Error::BadRange,
        })?;
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.state.write();
        let covered = state.covered_from(range.clone());
        if access.contains(Access::WRITE) {
            let areas = state.areas.overlapping(covered.clone());
            let becomes_data = areas.filter(|a| {
                !a.is_data()
                    && !a
                        .flags
                        .intersects(AreaFlags::SHARED | AreaFlags::GROWS_DOWN)
            });
            let more: usize = becomes_data
                .map(|a| a.end.min(covered.end) - a.start.max(covered.start))
                .sum();
            state.check_limits(&self.limits, 0, more >> PAGE_SHIFT)?;
        }
        if !covered.is_empty() {
            state.change(
                covered.clone(),
                |a| match a.max_access.contains(access) {
                    true => Ok((access, a.flags)),
                    false => Err(Error::Denied),
                },
                |a, piece| {
                    let shared = a.is_shared();
                    let allowed = match &a.backing {
                        Some(object) if shared => a.shared_access(&**object),
                        _ => hardware(access),
                    };
                    self.table.protect(piece, allowed, !shared);
                },
            )?;
        }
        if covered == range {
            Ok(())
        } else {
            Err(Error::NotMapped)
        }
    }

    /// Start of the area at `addr` if it grows down (`PROT_GROWSDOWN`).
    #[must_use]
    pub fn growing_area_start(&self, addr: usize) -> Option<usize> {
        let state = self.state.read();
        let area = state.areas.find(addr)?;
        area.flags
            .contains(AreaFlags::GROWS_DOWN)
            .then_some(area.start)
    }
}

impl super::State {
    /// The part of `range` from its start up to the first hole.
    pub(super) fn covered_from(&self, range: Range<usize>) -> Range<usize> {
        let mut end = range.start;
        for a in self.areas.overlapping(range.clone()) {
            if a.start > end {
                break;
            }
            end = a.end.min(range.end);
        }
        range.start..end
    }
}
