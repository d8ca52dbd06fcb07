//! Splitting, changing and merging areas.

use super::{Removed, State};
use crate::Error;
use crate::area::{Area, AreaFlags};
use crate::areas::Place;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use machine::paging::{Access, PageTable};

impl State {
    /// Cuts the area that holds `addr` in two there, unless it starts there.
    pub(super) fn split_at(&mut self, addr: usize) -> Result<(), Error> {
        let at = self.areas.locate(addr);
        match self.areas.get(at) {
            Some(a) if a.start < addr => {}
            _ => return Ok(()),
        }
        self.areas.check_room(1)?;
        let Some(upper) = self.areas.update(at, |a| a.split_off(addr)) else {
            return Ok(());
        };
        let end = upper.end;
        if let Err(e) = self.areas.insert(upper) {
            self.areas.update(at, |a| a.end = end);
            return Err(e);
        }
        Ok(())
    }

    /// Adds `area` where nothing is mapped, as part of a neighbour if possible.
    pub(super) fn insert_merged(&mut self, area: Area) -> Result<(), Error> {
        let at = self.areas.locate(area.start);
        let fits = |a: &&Area| a.continues_with(&area);
        let below = self.areas.prev(at);
        if let Some(p) = below.filter(|p| self.areas.get(*p).as_ref().is_some_and(fits)) {
            self.areas.update(p, |a| {
                a.end = area.end;
                a.owned.fetch_or(area.owned.load(Relaxed), Relaxed);
            });
            self.merge_with_next(p);
        } else if self.areas.get(at).is_some_and(|n| area.continues_with(n)) {
            self.areas.update(at, |n| {
                (n.start, n.index) = (area.start, area.index);
                n.owned.fetch_or(area.owned.load(Relaxed), Relaxed);
            });
        } else {
            self.areas.insert(area)?;
        }
        self.note_peak();
        Ok(())
    }

    /// Joins the area at `at` with the next one if they are alike.
    pub(super) fn merge_with_next(&mut self, at: Place) {
        let next = self.areas.next(at);
        let (Some(a), Some(n)) = (self.areas.get(at), self.areas.get(next)) else {
            return;
        };
        if !a.continues_with(n) {
            return;
        }
        if let Some(n) = self.areas.remove(next) {
            self.areas.update(at, |a| {
                a.end = n.end;
                a.owned.fetch_or(n.owned.load(Relaxed), Relaxed);
            });
        }
    }

    /// Unmaps `range`; the areas that were there.
    pub(super) fn take_out(
        &mut self,
        table: &PageTable,
        range: Range<usize>,
    ) -> Result<Removed, Error> {
        let mut removed = Removed::new();
        let at = self.areas.locate(range.start);
        match self.areas.get(at) {
            Some(a) if a.start < range.end => {
                // Mostly it is one area: all of it, or its head or tail, for which
                // no memory is needed.
                let (starts, ends) = (a.start == range.start, a.end == range.end);
                let inside = a.start <= range.start && range.end <= a.end;
                if inside && (starts || ends) {
                    match (starts, ends) {
                        (true, true) => removed.extend(self.areas.remove(at)),
                        (true, false) => {
                            self.areas.update(at, |a| a.cut_head(range.end));
                        }
                        _ => {
                            self.areas.update(at, |a| a.end = range.start);
                        }
                    }
                    table.unmap(range);
                    return Ok(removed);
                }
            }
            _ => return Ok(removed),
        }
        self.split_at(range.start)?;
        self.split_at(range.end)?;
        let count = self.areas.overlapping(range.clone()).count();
        removed.try_reserve(count).map_err(|_| Error::OutOfMemory)?;
        for _ in 0..count {
            removed.extend(self.areas.remove(self.areas.locate(range.start)));
        }
        table.unmap(range);
        Ok(removed)
    }

    /// Gives each piece of an area in `range` the rights and flags that `attr`
    /// wants, and calls `changed` with those pieces whose rights differ from
    /// before. Holes are passed over.
    pub(super) fn change(
        &mut self,
        range: Range<usize>,
        attr: impl Fn(&Area) -> Result<(Access, AreaFlags), Error>,
        mut changed: impl FnMut(&Area, Range<usize>),
    ) -> Result<(), Error> {
        let (mut from, mut edited) = (range.start, false);
        while from < range.end {
            let Some(a) = self.areas.get(self.areas.locate(from)) else {
                break;
            };
            if a.start >= range.end {
                break;
            }
            let piece = a.start.max(range.start)..a.end.min(range.end);
            let (old_access, old_flags) = (a.access, a.flags);
            let (access, flags) = attr(a)?;
            let differs = (access, flags) != (old_access, old_flags);
            if differs {
                self.split_at(piece.start)?;
                self.split_at(piece.end)?;
                let at = self.areas.locate(piece.start);
                self.areas.update(at, |a| {
                    (a.access, a.flags) = (access, flags);
                    if access != old_access {
                        changed(a, piece.clone());
                    }
                });
            }
            // A neighbour may be alike now, also one that itself did not change.
            edited |= differs;
            if edited && let Some(below) = self.areas.prev(self.areas.locate(piece.start)) {
                self.merge_with_next(below);
            }
            from = piece.end;
        }
        if edited {
            self.merge_with_next(self.areas.locate(range.end - 1));
        }
        Ok(())
    }
}
