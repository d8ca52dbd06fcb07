//! The areas of a space in order of address.
//!
//! A sorted list of short sorted chunks: a look-up is two binary searches, an
//! insertion moves at most one chunk's worth, and each allocation can fail.
//! Chunks are charged to the space's account, so that a program which splits its
//! memory into many areas pays for them.
//!
//! Every chunk knows an upper bound of the free gaps below its areas, so that the
//! search for free space skips chunks without room.

use crate::area::Area;
use crate::{AREAS_MAX, Error};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use machine::Account;

/// Areas in a chunk at most.
const CHUNK: usize = 32;

struct Chunk {
    areas: Vec<Area>,
    /// End of the last area.
    end: usize,
    /// No gap directly below one of its areas is larger.
    gap: usize,
}

/// Sums over all areas, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// All of them.
    pub(crate) mapped: usize,
    /// Private and writable ones, stacks aside.
    pub(crate) data: usize,
    /// Locked ones.
    pub(crate) locked: usize,
}

/// The place of an area; good until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    chunk: usize,
    slot: usize,
}

/// What the last search for free space found out: below `high` and above `top`
/// there is no gap of `len` bytes or more.
#[derive(Clone, Copy, Debug, Default)]
struct Searched {
    high: usize,
    top: usize,
    len: usize,
}

pub(crate) struct Areas {
    chunks: Vec<Chunk>,
    searched: Searched,
    count: usize,
    totals: Totals,
    account: Arc<Account>,
}

impl Areas {
    pub(crate) fn new(account: Arc<Account>) -> Areas {
        Areas {
            chunks: Vec::new(),
            searched: Searched::default(),
            count: 0,
            totals: Totals::default(),
            account,
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The place of the first area that ends above `addr`.
    #[inline]
    pub(crate) fn locate(&self, addr: usize) -> Place {
        let chunk = self.chunks.partition_point(|c| c.end <= addr);
        let slot = self
            .chunks
            .get(chunk)
            .map_or(0, |c| c.areas.partition_point(|a| a.end <= addr));
        Place { chunk, slot }
    }

    #[inline]
    pub(crate) fn get(&self, at: Place) -> Option<&Area> {
        self.chunks.get(at.chunk)?.areas.get(at.slot)
    }

    /// The area that holds `addr`.
    #[inline]
    pub(crate) fn find(&self, addr: usize) -> Option<&Area> {
        self.get(self.locate(addr)).filter(|a| a.start <= addr)
    }

    pub(crate) fn next(&self, at: Place) -> Place {
        let Place { chunk, slot } = at;
        match self.chunks.get(chunk) {
            Some(c) if slot + 1 < c.areas.len() => Place {
                chunk,
                slot: slot + 1,
            },
            _ => Place {
                chunk: chunk + 1,
                slot: 0,
            },
        }
    }

    pub(crate) fn prev(&self, at: Place) -> Option<Place> {
        if at.slot > 0 {
            return Some(Place {
                slot: at.slot - 1,
                ..at
            });
        }
        let chunk = at.chunk.checked_sub(1)?;
        let slot = self.chunks.get(chunk)?.areas.len() - 1;
        Some(Place { chunk, slot })
    }

    /// The areas from `at` on.
    pub(crate) fn from(&self, at: Place) -> impl Iterator<Item = &Area> {
        let chunks = self.chunks.get(at.chunk..).unwrap_or_default();
        let (first, rest) = match chunks.split_first() {
            Some((c, rest)) => (c.areas.get(at.slot..).unwrap_or_default(), rest),
            None => (&[][..], chunks),
        };
        first.iter().chain(rest.iter().flat_map(|c| &c.areas))
    }

    /// The areas that overlap `range`.
    pub(crate) fn overlapping(&self, range: Range<usize>) -> impl Iterator<Item = &Area> {
        self.from(self.locate(range.start))
            .take_while(move |a| a.start < range.end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Area> {
        self.chunks.iter().flat_map(|c| &c.areas)
    }

    /// Whether areas cover all of `range`.
    pub(crate) fn covers(&self, range: Range<usize>) -> bool {
        let mut at = range.start;
        for a in self.overlapping(range.clone()) {
            if a.start > at {
                return false;
            }
            at = a.end;
        }
        at >= range.end
    }

    /// Pages of `range` that are mapped.
    pub(crate) fn mapped_in(&self, range: Range<usize>) -> usize {
        self.overlapping(range.clone())
            .map(|a| (a.end.min(range.end) - a.start.max(range.start)) / machine::addr::PAGE_SIZE)
            .sum()
    }

    fn count_in(&mut self, a: &Area) {
        let n = a.pages();
        self.totals.mapped += n;
        self.totals.data += if a.is_data() { n } else { 0 };
        self.totals.locked += if a.is_locked() { n } else { 0 };
    }

    fn count_out(&mut self, a: &Area) {
        let n = a.pages();
        self.totals.mapped -= n;
        self.totals.data -= if a.is_data() { n } else { 0 };
        self.totals.locked -= if a.is_locked() { n } else { 0 };
    }

    /// Makes sure that `extra` insertions in a row cannot exceed the limit.
    pub(crate) fn check_room(&self, extra: usize) -> Result<(), Error> {
        if self.count + extra > AREAS_MAX {
            return Err(Error::TooManyAreas);
        }
        Ok(())
    }

    /// Adds an area where nothing is mapped.
    pub(crate) fn insert(&mut self, area: Area) -> Result<Place, Error> {
        self.check_room(1)?;
        let at = self.room_at(area.start)?;
        self.count_in(&area);
        self.count += 1;
        let c = &mut self.chunks[at.chunk];
        c.end = c.end.max(area.end);
        c.areas.insert(at.slot, area);
        self.raise_bound(at);
        Ok(at)
    }

    /// The place for an area that starts at `start`, in a chunk with room.
    fn room_at(&mut self, start: usize) -> Result<Place, Error> {
        let mut at = self.locate(start);
        if at.chunk == self.chunks.len() {
            // Behind all others: at the end of the last chunk.
            match self.chunks.last() {
                Some(c) if c.areas.len() < CHUNK => {
                    at = Place {
                        chunk: at.chunk - 1,
                        slot: c.areas.len(),
                    }
                }
                _ => self.add_chunk(at.chunk)?,
            }
        } else if self.chunks[at.chunk].areas.len() == CHUNK {
            self.add_chunk(at.chunk + 1)?;
            let (head, tail) = self.chunks.split_at_mut(at.chunk + 1);
            let (full, fresh) = (&mut head[at.chunk], &mut tail[0]);
            fresh.areas.extend(full.areas.drain(CHUNK / 2..));
            (fresh.end, fresh.gap) = (full.end, full.gap);
            full.end = full.areas.last().map_or(0, |a| a.end);
            at = self.locate(start);
        }
        Ok(at)
    }

    fn add_chunk(&mut self, at: usize) -> Result<(), Error> {
        self.chunks.try_reserve(1)?;
        let mut areas = Vec::new();
        areas.try_reserve_exact(CHUNK)?;
        self.account.charge(1)?;
        let fresh = Chunk {
            areas,
            end: 0,
            gap: 0,
        };
        self.chunks.insert(at, fresh);
        Ok(())
    }

    /// Takes out the area at `at`, if there is one.
    pub(crate) fn remove(&mut self, at: Place) -> Option<Area> {
        let c = self.chunks.get_mut(at.chunk)?;
        if at.slot >= c.areas.len() {
            return None;
        }
        let area = c.areas.remove(at.slot);
        c.end = c.areas.last().map_or(0, |a| a.end);
        let next = if c.areas.is_empty() {
            self.chunks.remove(at.chunk);
            self.account.uncharge(1);
            at
        } else if at.slot == c.areas.len() {
            Place {
                chunk: at.chunk + 1,
                slot: 0,
            }
        } else {
            at
        };
        self.count -= 1;
        self.count_out(&area);
        self.note_gap(next);
        Some(area)
    }

    /// Changes the area at `at`; its new limits must not overlap others.
    pub(crate) fn update<R>(&mut self, at: Place, f: impl FnOnce(&mut Area) -> R) -> Option<R> {
        let c = self.chunks.get_mut(at.chunk)?;
        let area = c.areas.get_mut(at.slot)?;
        let old = (area.pages(), area.is_data(), area.is_locked());
        let range = area.range();
        let result = f(area);
        let new = (area.pages(), area.is_data(), area.is_locked());
        let moved = range != area.range();
        c.end = c.areas.last().map_or(0, |a| a.end);
        let part = |(n, on): (usize, bool)| if on { n } else { 0 };
        let t = &mut self.totals;
        t.mapped = t.mapped - old.0 + new.0;
        t.data = t.data - part((old.0, old.1)) + part((new.0, new.1));
        t.locked = t.locked - part((old.0, old.2)) + part((new.0, new.2));
        if moved {
            self.note_gap(at);
            self.note_gap(self.next(at));
        }
        Some(result)
    }

    /// Raises the bound of a chunk to the gap below the area at `at`; that area's
    /// floor.
    fn raise_bound(&mut self, at: Place) -> Option<usize> {
        let below = self.prev(at).and_then(|p| self.get(p));
        let below = below.map_or(0, |a| a.end);
        let c = self.chunks.get_mut(at.chunk)?;
        let floor = c.areas.get(at.slot)?.floor();
        c.gap = c.gap.max(floor.saturating_sub(below));
        Some(floor)
    }

    /// The gap below the area at `at` has grown.
    fn note_gap(&mut self, at: Place) {
        // Without an area above, the gap reaches up to wherever one looks from.
        let top = self.raise_bound(at).unwrap_or(usize::MAX);
        self.searched.top = self.searched.top.max(top);
    }

    /// The highest free range of `len` bytes in `low..high`: its start. Remembers
    /// where it was, so that the next search with this `high` starts there.
    pub(crate) fn find_gap(&mut self, len: usize, low: usize, high: usize) -> Option<usize> {
        let s = self.searched;
        let known = s.high == high && len >= s.len;
        let from = if known { high.min(s.top) } else { high };
        let start = self.search(len, low, from)?;
        self.searched = Searched {
            high,
            top: start + len,
            len,
        };
        Some(start)
    }

    /// As [`Areas::find_gap`], for a range that is not looked through again and
    /// again: nothing is remembered.
    pub(crate) fn search(&mut self, len: usize, low: usize, high: usize) -> Option<usize> {
        let fits = |top: usize, below: usize| {
            let base = below.max(low);
            (top >= base && top - base >= len).then(|| top - len)
        };
        let at = self.locate(high);
        // The gap below `high` itself.
        let top = self.get(at).map_or(high, |a| a.floor().min(high));
        let below = self.prev(at).and_then(|p| self.get(p));
        if let Some(start) = fits(top, below.map_or(0, |a| a.end)) {
            return Some(start);
        }
        for chunk in (0..self.chunks.len().min(at.chunk + 1)).rev() {
            let whole = chunk != at.chunk;
            let below = chunk.checked_sub(1).map_or(0, |c| self.chunks[c].end);
            let c = &mut self.chunks[chunk];
            if c.end <= low {
                return None;
            }
            if whole && c.gap < len {
                continue;
            }
            let upper = if whole { c.areas.len() } else { at.slot };
            let mut largest = 0;
            for slot in (0..upper).rev() {
                let below = slot.checked_sub(1).map_or(below, |s| c.areas[s].end);
                let top = c.areas[slot].floor();
                if let Some(start) = fits(top, below) {
                    return Some(start);
                }
                largest = largest.max(top.saturating_sub(below));
            }
            if whole {
                c.gap = largest;
            }
        }
        None
    }
}

impl Drop for Areas {
    fn drop(&mut self) {
        self.account.uncharge(self.chunks.len());
    }
}

#[cfg(test)]
#[path = "areas_tests.rs"]
mod tests;
