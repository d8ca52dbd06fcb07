//! User page tables.
//!
//! Four levels; [`super::huge`] takes the last one away where it can. Every leaf owns a reference to its frame; every table counts the
//! entries in use in it and goes when the last one does, so that address space
//! touched and left costs nothing. The upper half of the top table is the
//! kernel's and the same everywhere.
//!
//! Lock order: a space's own lock, then (in [`tlb`]) the shoot-down lock. What a
//! changed entry owned is let go only after every CPU has forgotten the entry.

use super::entry::{
    self, ACCESSED, DIRTY, HUGE, PRESENT, Table, USER, WRITABLE, access_of, index, leaf, owns,
};
use super::huge::Spans;
use super::tables;
use super::tlb::{self, Gather};
use crate::account::Account;
use crate::addr::{PAGE_SIZE, USER_END, USER_START};
use crate::error::AllocError;
use crate::frame::{self, Frame};
use crate::paging::{Access, MapOutcome, Mapping, WriteFault};
use crate::sync::{Once, SpinLock};
use crate::thread;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// User mappings of one address space.
pub struct PageTable {
    root: usize,
    /// Guards the tables.
    pub(super) lock: SpinLock<Spans>,
    pub(super) resident: AtomicUsize,
    /// CPUs whose CR3 may point here, bit by bit.
    pub(super) active: AtomicU64,
    /// Pays for the tables.
    account: Once<Arc<Account>>,
}

const TOP: usize = 3;
/// Entries changed under the lock at one go, with others waiting meanwhile.
pub(super) const BATCH: usize = 2048;
pub(super) const TABLE: u64 = PRESENT | WRITABLE | USER;

pub(super) fn valid(va: usize) -> bool {
    (USER_START..USER_END).contains(&va)
}

fn cut(range: &Range<usize>) -> Range<usize> {
    let start = range.start.max(USER_START) & !(PAGE_SIZE - 1);
    let end = range.end.min(USER_END).next_multiple_of(PAGE_SIZE);
    start..end.max(start)
}

impl PageTable {
    /// An empty one.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Arc<PageTable>, AllocError> {
        let root = entry::new_table().ok_or(AllocError::OutOfMemory)?;
        super::kmap::copy_kernel_half(root);
        Ok(Arc::new(PageTable {
            root,
            lock: SpinLock::new(Spans::default()),
            resident: AtomicUsize::new(0),
            active: AtomicU64::new(0),
            account: Once::new(),
        }))
    }

    /// Charges the tables made from now on to `account`; the first call counts.
    pub fn set_account(&self, account: Arc<Account>) {
        self.account.call_once(|| account);
    }

    /// What CR3 is set to.
    pub(super) fn root(&self) -> usize {
        self.root
    }

    pub(super) fn top(&self) -> &Table {
        // SAFETY: the root is a table of ours, freed in `drop` only.
        unsafe { entry::table(self.root as u64) }
    }

    /// The leaf slot of `va`, if its tables exist; in a huge page one that is only read.
    #[inline]
    fn find(&self, spans: &Spans, va: usize) -> Option<&AtomicU64> {
        let mut t = self.top();
        for level in (1..=TOP).rev() {
            let e = entry::load(t, va, level);
            if e & PRESENT == 0 {
                return None;
            }
            let e = spans.beneath(e, va);
            // SAFETY: present upper entries of the user half point to our tables,
            // which go only under the lock that the caller holds.
            t = unsafe { entry::table(e) };
        }
        Some(&t[index(va, 0)])
    }

    /// The leaf slot of `va` and its table's address, making tables as needed; in a huge page
    /// a slot that is only read.
    #[inline]
    pub(super) fn make(&self, spans: &Spans, va: usize) -> Result<(&AtomicU64, usize), AllocError> {
        let mut phys = self.root;
        let mut t = self.top();
        for level in (1..=TOP).rev() {
            let slot = &t[index(va, level)];
            let mut e = slot.load(Relaxed);
            if e & PRESENT == 0 {
                match self.new_table() {
                    Ok(new) => e = new as u64 | TABLE,
                    Err(err) => {
                        self.prune(va, &mut Gather::new(self));
                        return Err(err);
                    }
                }
                slot.store(e, Relaxed);
                if level < TOP {
                    tables::used(phys);
                }
            }
            let e = spans.beneath(e, va);
            phys = (e & entry::ADDRESS) as usize;
            // SAFETY: as in `find`.
            t = unsafe { entry::table(e) };
        }
        Ok((&t[index(va, 0)], phys))
    }

    fn new_table(&self) -> Result<usize, AllocError> {
        if frame::is_short() {
            return Err(AllocError::OutOfMemory);
        }
        if let Some(a) = self.account.get() {
            a.charge(1)?;
        }
        entry::new_table().ok_or_else(|| {
            if let Some(a) = self.account.get() {
                a.uncharge(1);
            }
            AllocError::OutOfMemory
        })
    }

    /// Maps the page of `va` to `frame`, in place of what was there. A fixed
    /// frame is mapped without [`Access::WRITE`]. Addresses outside user space
    /// are ignored.
    ///
    /// # Errors
    /// No memory for a table.
    pub fn map(&self, va: usize, frame: Frame, access: Access) -> Result<(), AllocError> {
        if !valid(va) {
            return Ok(());
        }
        let mut spans = self.lock.lock();
        self.split(&mut spans, va);
        let (slot, table) = self.make(&spans, va)?;
        let old = slot.swap(self.owned(frame, access), Relaxed);
        if owns(old) {
            tlb::replaced(self, va, old);
        } else {
            tables::used(table);
            self.resident.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Maps the page of `va` unless something is mapped there.
    ///
    /// # Errors
    /// No memory for a table.
    pub fn map_if_empty(
        &self,
        va: usize,
        frame: Frame,
        access: Access,
    ) -> Result<MapOutcome, AllocError> {
        if !valid(va) {
            return Ok(MapOutcome::Occupied);
        }
        let spans = self.lock.lock();
        let (slot, table) = self.make(&spans, va)?;
        if owns(slot.load(Relaxed)) {
            return Ok(MapOutcome::Occupied);
        }
        slot.store(self.owned(frame, access), Relaxed);
        tables::used(table);
        self.resident.fetch_add(1, Relaxed);
        Ok(MapOutcome::Mapped)
    }

    /// A leaf that owns `frame`.
    #[inline]
    fn owned(&self, frame: Frame, access: Access) -> u64 {
        let access = if frame.is_fixed() {
            access - Access::WRITE
        } else {
            access
        };
        leaf(frame.into_number(), access)
    }

    /// What is mapped at `va`.
    pub fn query(&self, va: usize) -> Option<Mapping> {
        if !valid(va) {
            return None;
        }
        let spans = self.lock.lock();
        mapping(self.find(&spans, va)?.load(Relaxed))
    }

    /// Resolves a write to a private page that is mapped read-only: copies it, charged
    /// to `account`, if somebody else refers to its frame too; else makes it writable.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn write_fault(
        &self,
        va: usize,
        access: Access,
        account: &Account,
    ) -> Result<WriteFault, AllocError> {
        if !valid(va) {
            return Ok(WriteFault::NotMapped);
        }
        let spans = self.lock.lock();
        let Some(slot) = self.find(&spans, va) else {
            return Ok(WriteFault::NotMapped);
        };
        let old = slot.load(Relaxed);
        if !owns(old) {
            return Ok(WriteFault::NotMapped);
        }
        if old & WRITABLE != 0 {
            // Another CPU was faster, as always in a huge page; a copy would be taken from a device that fills it.
            return Ok(WriteFault::MadeWritable);
        }
        // SAFETY: the leaf owns its frame and the lock keeps it so.
        let frame = unsafe { entry::share(old) };
        if frame.references() == 2 && !frame.is_fixed() {
            // More rights need no flush: whoever still has the old entry faults
            // once more and finds the new one.
            slot.store(
                leaf(frame.number(), access) | old & (ACCESSED | DIRTY),
                Relaxed,
            );
            return Ok(WriteFault::MadeWritable);
        }
        let copy = frame.copied(account)?;
        let old = slot.swap(self.owned(copy, access), Relaxed);
        tlb::replaced(self, va, old);
        Ok(WriteFault::Copied)
    }

    /// Gives what is mapped in `range` the rights `access`. With `keep_shared`
    /// pages whose frame has further references (copy-on-write) do not become
    /// writable.
    pub fn protect(&self, range: Range<usize>, access: Access, keep_shared: bool) {
        Self::in_batches(cut(&range), |rest| {
            let mut spans = self.lock.lock();
            self.split_first(&mut spans, &rest);
            let mut gather = Gather::new(self);
            self.walk(None, rest, BATCH, |va, slot, _| {
                let old = slot.load(Relaxed);
                // SAFETY: `walk` gives leaves that own a frame, under the lock.
                let frame = unsafe { entry::share(old) };
                let shared = frame.is_fixed() || keep_shared && frame.references() > 2;
                let access = if shared {
                    access - Access::WRITE
                } else {
                    access
                };
                let new = leaf(frame.number(), access) | old & (ACCESSED | DIRTY);
                // The hardware may set the dirty bit between load and swap.
                let was = slot.swap(new, Relaxed);
                if was & DIRTY & !new != 0 {
                    slot.fetch_or(DIRTY, Relaxed);
                }
                gather.changed(va);
            })
        });
    }

    /// Unmaps `range`.
    pub fn unmap(&self, range: Range<usize>) {
        Self::in_batches(cut(&range), |rest| self.unmap_batch(rest));
    }

    fn unmap_batch(&self, rest: Range<usize>) -> usize {
        let mut spans = self.lock.lock();
        self.split_first(&mut spans, &rest);
        let mut gather = Gather::new(self);
        self.walk(None, rest, BATCH, |va, slot, table| {
            let old = slot.swap(0, Relaxed);
            self.resident.fetch_sub(1, Relaxed);
            gather.leaf(va, old);
            if tables::unused(table) {
                self.prune(va, &mut gather);
            }
        })
    }

    /// Takes the lowest table of `va`, and those above it, out of the tree as far
    /// as they are empty.
    #[cold]
    fn prune(&self, va: usize, gather: &mut Gather) {
        // The tables of `va` from the top down, as far as they exist.
        let mut chain = [self.root, 0, 0, 0];
        let mut depth = 0;
        let mut t = self.top();
        while depth < TOP {
            let e = entry::load(t, va, TOP - depth);
            if e & PRESENT == 0 || e & HUGE != 0 {
                break;
            }
            depth += 1;
            chain[depth] = (e & entry::ADDRESS) as usize;
            // SAFETY: as in `find`.
            t = unsafe { entry::table(e) };
        }
        while depth > 0 && tables::entries(chain[depth]) == 0 {
            let (parent, child) = (chain[depth - 1], chain[depth]);
            // SAFETY: the parent is a table of this tree.
            let slots = unsafe { entry::table(parent as u64) };
            slots[index(va, TOP - depth + 1)].store(0, Relaxed);
            gather.table(va, child);
            if let Some(a) = self.account.get() {
                a.uncharge(1);
            }
            depth -= 1;
            if depth > 0 {
                tables::unused(parent);
            }
        }
    }

    /// Calls `f` with address, slot and leaf table of leaves of `range` that own a
    /// frame, until the table in which `max` is reached; where to go on. The lock is held.
    /// Without `spans` it stops before a huge page, with them it goes through it, to read.
    fn walk<'a>(
        &'a self,
        spans: Option<&Spans>,
        range: Range<usize>,
        max: usize,
        mut f: impl FnMut(usize, &'a AtomicU64, usize),
    ) -> usize {
        let mut va = range.start;
        let mut done = 0;
        'next: while va < range.end && done < max {
            let mut t = self.top();
            let mut phys = self.root;
            for level in (1..=TOP).rev() {
                let mut e;
                (va, e) = entry::next(t, va, level);
                if e == 0 || va >= range.end {
                    continue 'next;
                }
                if e & HUGE != 0 {
                    match spans {
                        Some(spans) => e = spans.beneath(e, va),
                        None => return va,
                    }
                }
                phys = (e & entry::ADDRESS) as usize;
                // SAFETY: as in `find`.
                t = unsafe { entry::table(e) };
            }
            for slot in &t[index(va, 0)..] {
                if va >= range.end {
                    break;
                }
                if owns(slot.load(Relaxed)) {
                    // The callback may empty and prune this very table: then
                    // nothing is left in it, and the rest of the table is skipped.
                    let last = tables::entries(phys) == 1;
                    done += 1;
                    f(va, slot, phys);
                    if last {
                        va = (va & !0x1f_ffff) + 0x20_0000;
                        continue 'next;
                    }
                }
                va += PAGE_SIZE;
            }
        }
        va
    }

    /// Calls `batch` with what is left of `range` until it says that nothing is,
    /// and lets others run in between.
    fn in_batches(range: Range<usize>, mut batch: impl FnMut(Range<usize>) -> usize) {
        let mut va = range.start;
        while va < range.end {
            va = batch(va..range.end);
            if va < range.end {
                thread::cond_resched();
            }
        }
    }

    /// Maps what is mapped in `range` in `child` too. With `copy_on_write` both
    /// lose [`Access::WRITE`].
    ///
    /// # Errors
    /// No memory for a table; part of the range may be shared then.
    pub fn share_into(
        &self,
        child: &PageTable,
        range: Range<usize>,
        copy_on_write: bool,
    ) -> Result<(), AllocError> {
        let mut result = Ok(());
        Self::in_batches(cut(&range), |rest| {
            let end = rest.end;
            match self.share_batch(child, rest, copy_on_write) {
                Ok(next) => next,
                Err(e) => {
                    result = Err(e);
                    end
                }
            }
        });
        result
    }

    fn share_batch(
        &self,
        child: &PageTable,
        rest: Range<usize>,
        copy_on_write: bool,
    ) -> Result<usize, AllocError> {
        let mut spans = self.lock.lock();
        let theirs = child.lock.lock();
        self.split_first(&mut spans, &rest);
        let mut gather = Gather::new(self);
        let mut result = Ok(());
        // The child's leaf table, found again only when the walk leaves it.
        let mut at: Option<(usize, &Table, usize)> = None;
        let next = self.walk(None, rest, BATCH, |va, slot, _| {
            if result.is_err() {
                return;
            }
            let span = va & !0x1f_ffff;
            if at.is_none_or(|(s, ..)| s != span) {
                match child.make(&theirs, va) {
                    // SAFETY: a table of the child, whose lock is held.
                    Ok((_, t)) => at = Some((span, unsafe { entry::table(t as u64) }, t)),
                    Err(e) => return result = Err(e),
                }
            }
            let Some((_, table, phys)) = at else { return };
            let theirs = &table[index(va, 0)];
            if owns(theirs.load(Relaxed)) {
                return;
            }
            let mut e = slot.load(Relaxed);
            if copy_on_write && e & WRITABLE != 0 {
                e = slot.fetch_and(!WRITABLE, Relaxed) & !WRITABLE;
                gather.changed(va);
            }
            // SAFETY: the leaf owns its frame; the child's leaf owns another.
            core::mem::forget(unsafe { entry::share(e) });
            theirs.store(e & !ACCESSED, Relaxed);
            tables::used(phys);
            child.resident.fetch_add(1, Relaxed);
        });
        result.map(|()| next)
    }

    /// Moves the mappings of `from` to the same number of pages at `to`; the two
    /// do not overlap.
    ///
    /// # Errors
    /// No memory for a table; part of the range may have moved then.
    pub fn relocate(&self, from: Range<usize>, to: usize) -> Result<(), AllocError> {
        let mut result = Ok(());
        let start = from.start;
        Self::in_batches(cut(&from), |rest| {
            let end = rest.end;
            match self.relocate_batch(rest, |va| to.wrapping_add(va - start)) {
                Ok(next) => next,
                Err(e) => {
                    result = Err(e);
                    end
                }
            }
        });
        result
    }

    fn relocate_batch(
        &self,
        rest: Range<usize>,
        target: impl Fn(usize) -> usize,
    ) -> Result<usize, AllocError> {
        let mut spans = self.lock.lock();
        self.split_first(&mut spans, &rest);
        let mut gather = Gather::new(self);
        let mut result = Ok(());
        let next = self.walk(None, rest, BATCH, |va, slot, table| {
            let to = target(va);
            if result.is_err() || !valid(to) {
                return;
            }
            self.split(&mut spans, to);
            let (there, there_table) = match self.make(&spans, to) {
                Ok(found) => found,
                Err(e) => return result = Err(e),
            };
            let old = there.swap(slot.swap(0, Relaxed), Relaxed);
            gather.changed(va);
            if owns(old) {
                self.resident.fetch_sub(1, Relaxed);
                gather.leaf(to, old);
            } else {
                tables::used(there_table);
            }
            if tables::unused(table) {
                self.prune(va, &mut gather);
            }
        });
        result.map(|()| next)
    }

    /// Calls `f` with address and mapping of each page mapped in `range`, in
    /// order, without holding a lock over the call.
    pub fn for_each(&self, range: Range<usize>, mut f: impl FnMut(usize, Mapping)) {
        Self::in_batches(cut(&range), |rest| {
            let mut found: [Option<(usize, Mapping)>; 16] = [const { None }; 16];
            let mut n = 0;
            let mut next = rest.start;
            let spans = self.lock.lock();
            let end = self.walk(Some(&spans), rest, 16, |at, slot, _| {
                if n < found.len() {
                    found[n] = mapping(slot.load(Relaxed)).map(|m| (at, m));
                    next = at + PAGE_SIZE;
                }
                n += 1;
            });
            drop(spans);
            let full = n > found.len();
            for (at, m) in found.into_iter().flatten() {
                f(at, m);
            }
            if full { next } else { end }
        });
    }

    /// Forgets that the pages of `range` were touched or, with `dirty`, written.
    pub fn clear_accessed(&self, range: Range<usize>, dirty: bool) {
        let mask = if dirty {
            !(ACCESSED | DIRTY)
        } else {
            !ACCESSED
        };
        Self::in_batches(cut(&range), |rest| {
            let mut spans = self.lock.lock();
            self.split_first(&mut spans, &rest);
            let mut gather = Gather::new(self);
            self.walk(None, rest, BATCH, |va, slot, _| {
                slot.fetch_and(mask, Relaxed);
                gather.changed(va);
            })
        });
    }

    /// Pages mapped now.
    pub fn resident(&self) -> usize {
        self.resident.load(Relaxed)
    }
}

fn mapping(e: u64) -> Option<Mapping> {
    owns(e).then(|| Mapping {
        // SAFETY: the caller holds the lock under which the leaf owns its frame.
        frame: unsafe { entry::share(e) },
        access: access_of(e),
        dirty: e & DIRTY != 0,
        accessed: e & ACCESSED != 0,
    })
}

impl Drop for PageTable {
    fn drop(&mut self) {
        // The owner has unmapped all before, so there is little to do.
        let mut va = USER_START;
        while va < USER_END {
            va = self.unmap_batch(va..USER_END);
        }
        // SAFETY: no CPU has it in CR3 (each that had held an `Arc`), and it has
        // no tables left below.
        unsafe { entry::free_table(self.root) };
    }
}
