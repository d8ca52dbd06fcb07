//! Huge pages: 2 MiB of a private area mapped by one entry.
//!
//! Such a page is 512 frames in one piece. Its table of leaves is filled as if it were in use, and
//! kept aside; the entry that would point to it maps the piece at once. Whoever wants to know
//! what is mapped reads the leaves; whoever wants to change it puts the table back first, which
//! needs no memory and cannot fail. So everything else knows pages of one size only. A huge page
//! that was split stays so until all of it is unmapped.

use super::entry::{
    self, ACCESSED, ADDRESS, DIRTY, HUGE, NO_EXEC, PRESENT, Table, USER, WRITABLE, index, leaf,
};
use super::paging::{BATCH, PageTable, TABLE, valid};
use super::{tables, tlb};
use crate::addr::{HUGE_PAGE_SIZE, PAGE_SIZE};
use crate::error::AllocError;
use crate::frame::{self, HUGE_FRAMES, HugeFrames};
use crate::paging::{Access, MapOutcome};
use alloc::collections::BTreeMap;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The huge pages of a space: the number of each, and the physical address of its table of
/// leaves.
#[derive(Default)]
pub(super) struct Spans(BTreeMap<usize, usize>);

/// The number of the huge page that `va` would be in.
fn span(va: usize) -> usize {
    va / HUGE_PAGE_SIZE
}

impl Spans {
    /// What an upper entry for `va` leads to: of a huge page, its leaves.
    #[inline]
    pub(super) fn beneath(&self, e: u64, va: usize) -> u64 {
        if e & HUGE == 0 { e } else { self.leaves(e, va) }
    }

    #[cold]
    fn leaves(&self, e: u64, va: usize) -> u64 {
        let table = self.0.get(&span(va));
        debug_assert!(table.is_some());
        table.map_or(e, |table| *table as u64 | TABLE)
    }
}

impl PageTable {
    /// Whether nothing is mapped in the 2 MiB of `va`.
    pub fn is_free_for_huge(&self, va: usize) -> bool {
        let spans = self.lock.lock();
        valid(va)
            && self.upper(va).is_none_or(|slot| {
                let e = slot.load(Relaxed);
                // SAFETY: a present entry that is no huge page points to a table of ours.
                e & PRESENT == 0 || e & HUGE == 0 && tables::entries((e & ADDRESS) as usize) == 0
            })
            && !spans.0.contains_key(&span(va))
    }

    /// Maps `frames` at `va`, a multiple of their length, unless something is mapped there.
    /// `access` allows writing and not executing.
    ///
    /// # Errors
    /// No memory for a table.
    pub fn map_huge(
        &self,
        va: usize,
        frames: HugeFrames,
        access: Access,
    ) -> Result<MapOutcome, AllocError> {
        let fits = access.contains(Access::WRITE) && !access.contains(Access::EXEC);
        if !fits || !va.is_multiple_of(HUGE_PAGE_SIZE) || !valid(va) || frame::is_short() {
            return Ok(MapOutcome::Occupied);
        }
        let mut spans = self.lock.lock();
        let (_, table) = self.make(&spans, va)?;
        if tables::entries(table) != 0 {
            return Ok(MapOutcome::Occupied);
        }
        let Some(slot) = self.upper(va) else {
            return Ok(MapOutcome::Occupied);
        };
        // SAFETY: the table is this tree's and empty; the lock is held.
        let leaves: &Table = unsafe { entry::table(table as u64) };
        let first = frames.phys();
        for (at, frame) in leaves.iter().zip(frames.into_frames()) {
            at.store(
                leaf(frame.into_number(), access) | ACCESSED | DIRTY,
                Relaxed,
            );
        }
        tables::filled(table);
        self.resident.fetch_add(HUGE_FRAMES, Relaxed);
        spans.0.insert(span(va), table);
        let rights = PRESENT | WRITABLE | USER | NO_EXEC | ACCESSED | DIRTY;
        // A CPU that remembers that the entry leads to the table finds the same frames there.
        slot.store(first | rights | HUGE, Relaxed);
        Ok(MapOutcome::Mapped)
    }

    /// The entry above the leaves of `va`, if its table exists. The lock is held.
    fn upper(&self, va: usize) -> Option<&AtomicU64> {
        let mut t = self.top();
        for level in [3, 2] {
            let e = entry::load(t, va, level);
            if e & PRESENT == 0 {
                return None;
            }
            // SAFETY: present entries of these levels point to our tables, which go only
            // under the lock that the caller holds.
            t = unsafe { entry::table(e) };
        }
        Some(&t[index(va, 1)])
    }

    /// Has the huge page of `va`, if there is one, mapped page by page.
    #[inline]
    pub(super) fn split(&self, spans: &mut Spans, va: usize) {
        if !spans.0.is_empty() {
            self.split_one(spans, va);
        }
    }

    #[cold]
    fn split_one(&self, spans: &mut Spans, va: usize) {
        let Some(table) = spans.0.remove(&span(va)) else {
            return;
        };
        if let Some(slot) = self.upper(va) {
            // No CPU may know the same memory by entries of both sizes (AMD, erratum 383, and
            // Linux's pmdp_invalidate): in between there is none, and who meets it waits for the lock.
            slot.store(0, Relaxed);
            tlb::forget(self, &[va]);
            slot.store(table as u64 | TABLE, Relaxed);
        }
    }

    /// The same for those that one batch of `range` can meet.
    #[inline]
    pub(super) fn split_first(&self, spans: &mut Spans, range: &Range<usize>) {
        if !spans.0.is_empty() && !range.is_empty() {
            self.split_some(spans, range);
        }
    }

    #[cold]
    fn split_some(&self, spans: &mut Spans, range: &Range<usize>) {
        for _ in 0..=BATCH / HUGE_FRAMES {
            let mut rest = spans.0.range(span(range.start)..=span(range.end - 1));
            let Some((&number, _)) = rest.next() else {
                return;
            };
            self.split_one(spans, number * HUGE_PAGE_SIZE);
        }
    }

    /// Bytes of `range` that huge pages map.
    pub fn huge_bytes(&self, range: Range<usize>) -> usize {
        let spans = self.lock.lock();
        let first = range.start.div_ceil(HUGE_PAGE_SIZE);
        let end = range.end / HUGE_PAGE_SIZE;
        spans.0.range(first..end.max(first)).count() * HUGE_PAGE_SIZE
    }
}

const _: () = assert!(HUGE_FRAMES * PAGE_SIZE == HUGE_PAGE_SIZE);
