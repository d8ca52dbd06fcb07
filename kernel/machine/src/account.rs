//! Memory accounts: who pays for a frame.
//!
//! Every frame is charged to an account when it is allocated and credited when
//! it is freed, whoever frees it (design D7). A capsule has one account; the
//! kernel's own is [`Account::kernel`] and has no limit but the machine's.
//!
//! An account also counts open file descriptions, which are small kernel objects
//! that programs could otherwise pile up without end.
//!
//! Accounts live in a fixed table, so that a frame can name its account in two
//! bytes and freeing one takes no lock and no pointer chase. All that keeps an
//! entry of the table from being used again stands in one word, so that exactly one
//! of those who give something back is the last.

use crate::addr::PAGE_SIZE;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// How many accounts can exist at one time.
pub const ACCOUNTS_MAX: usize = 1024;

/// Bits of [`Slot::held`] that count pages: 2^36 pages are 256 TiB.
const PAGE_BITS: u32 = 36;
const PAGES: u64 = (1 << PAGE_BITS) - 1;
/// The highest limit. Those who run into a limit count a moment beyond it, which
/// must not reach the next field.
const PAGES_MAX: usize = 1 << (PAGE_BITS - 2);
/// One open file in [`Slot::held`].
const FILE: u64 = 1 << PAGE_BITS;
const FILE_BITS: u32 = 26;
/// The most open files an account can have.
pub const FILES_MAX: usize = 1 << (FILE_BITS - 1);
/// The [`Account`] exists.
const OPEN: u64 = 1 << (PAGE_BITS + FILE_BITS);

/// An entry of the table.
struct Slot {
    /// Pages, open files and [`OPEN`]; 0 is a free entry.
    held: AtomicU64,
    peak: AtomicUsize,
    limit: AtomicUsize,
    files_limit: AtomicUsize,
}

static SLOTS: [Slot; ACCOUNTS_MAX] = [const {
    Slot {
        held: AtomicU64::new(0),
        peak: AtomicUsize::new(0),
        limit: AtomicUsize::new(PAGES_MAX),
        files_limit: AtomicUsize::new(FILES_MAX),
    }
}; ACCOUNTS_MAX];

fn pages_of(held: u64) -> usize {
    (held & PAGES) as usize
}

fn files_of(held: u64) -> usize {
    ((held & (OPEN - 1)) >> PAGE_BITS) as usize
}

fn slot(number: u16) -> &'static Slot {
    &SLOTS[usize::from(number) % ACCOUNTS_MAX]
}

/// A payer of frames with a limit. Share it as `Arc<Account>`.
#[derive(Debug)]
pub struct Account {
    slot: u16,
}

static KERNEL: Account = Account { slot: 0 };

impl Account {
    /// The kernel's own account.
    #[must_use]
    pub fn kernel() -> &'static Account {
        &KERNEL
    }

    /// A new account that may hold `limit` pages, and as many open files as there
    /// can be; `None` when the table of [`ACCOUNTS_MAX`] is full.
    #[must_use]
    pub fn new(limit: usize) -> Option<Account> {
        let free = |s: &Slot| s.held.compare_exchange(0, OPEN, Relaxed, Relaxed).is_ok();
        let (number, slot) = SLOTS.iter().enumerate().skip(1).find(|(_, s)| free(s))?;
        slot.peak.store(0, Relaxed);
        let account = Account {
            slot: u16::try_from(number).ok()?,
        };
        account.set_limit(limit);
        account.set_files_limit(FILES_MAX);
        Some(account)
    }

    fn slot(&self) -> &'static Slot {
        slot(self.slot)
    }

    /// Pages charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        pages_of(self.slot().held.load(Relaxed))
    }

    /// The most pages that were ever charged at one time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.slot().peak.load(Relaxed)
    }

    /// The limit in pages.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.slot().limit.load(Relaxed)
    }

    /// Changes the limit; what is charged already stays charged.
    pub fn set_limit(&self, limit: usize) {
        self.slot().limit.store(limit.min(PAGES_MAX), Relaxed);
    }

    /// Open file descriptions now.
    #[must_use]
    pub fn files(&self) -> usize {
        files_of(self.slot().held.load(Relaxed))
    }

    /// The most there may be.
    #[must_use]
    pub fn files_limit(&self) -> usize {
        self.slot().files_limit.load(Relaxed)
    }

    /// Changes that; what is open stays open.
    pub fn set_files_limit(&self, limit: usize) {
        self.slot().files_limit.store(limit.min(FILES_MAX), Relaxed);
    }

    /// Charges one open file description; `None` if there are as many as there may
    /// be.
    #[inline]
    #[must_use]
    pub fn charge_file(&self) -> Option<FileCharge> {
        let slot = self.slot();
        let before = slot.held.fetch_add(FILE, Relaxed);
        // From here on dropping it takes it back.
        let charge = FileCharge { slot: self.slot };
        (files_of(before) < slot.files_limit.load(Relaxed)).then_some(charge)
    }

    /// Charges `pages` for kernel memory held on the payer's behalf (socket
    /// buffers, pipe buffers, page tables). Give them back with
    /// [`Account::uncharge`].
    ///
    /// # Errors
    /// [`crate::AllocError::OverLimit`], and nothing is charged.
    pub fn charge(&self, pages: usize) -> Result<(), crate::AllocError> {
        charge(self.slot, pages)
    }

    /// Pages that may still be charged, a moment ago.
    #[must_use]
    pub fn room(&self) -> usize {
        let slot = self.slot();
        let used = pages_of(slot.held.load(Relaxed));
        slot.limit.load(Relaxed).saturating_sub(used)
    }

    /// As [`Account::charge`], given back when the [`PageCharge`] is dropped.
    ///
    /// # Errors
    /// [`crate::AllocError::OverLimit`].
    pub fn hold(&self, pages: usize) -> Result<PageCharge, crate::AllocError> {
        PageCharge::new(self.slot, pages)
    }

    /// Gives back what [`Account::charge`] took.
    pub fn uncharge(&self, pages: usize) {
        uncharge(self.slot, pages);
    }

    /// The name a frame keeps of its account.
    pub(crate) fn id(&self) -> u16 {
        self.slot
    }
}

fn charge(number: u16, pages: usize) -> Result<(), crate::AllocError> {
    let slot = slot(number);
    let limit = slot.limit.load(Relaxed);
    if pages > limit {
        return Err(crate::AllocError::OverLimit);
    }
    let used = pages_of(slot.held.fetch_add(pages as u64, Relaxed)) + pages;
    if used > limit {
        slot.held.fetch_sub(pages as u64, Relaxed);
        return Err(crate::AllocError::OverLimit);
    }
    if used > slot.peak.load(Relaxed) {
        slot.peak.fetch_max(used, Relaxed);
    }
    Ok(())
}

/// Credits `pages` to the account a frame named.
pub(crate) fn uncharge(number: u16, pages: usize) {
    slot(number).held.fetch_sub(pages as u64, Relaxed);
}

impl Drop for Account {
    fn drop(&mut self) {
        self.slot().held.fetch_sub(OPEN, Relaxed);
    }
}

/// One open file description's place in an account, held as long as it exists.
#[derive(Debug)]
pub struct FileCharge {
    slot: u16,
}

impl FileCharge {
    /// Of a file that the kernel opens for itself.
    #[must_use]
    pub const fn kernel() -> FileCharge {
        FileCharge { slot: 0 }
    }

    /// Charges `pages` that the open file needs to the same account.
    ///
    /// # Errors
    /// [`crate::AllocError::OverLimit`].
    pub fn hold(&self, pages: usize) -> Result<PageCharge, crate::AllocError> {
        PageCharge::new(self.slot, pages)
    }
}

impl Drop for FileCharge {
    #[inline]
    fn drop(&mut self) {
        if self.slot != 0 {
            slot(self.slot).held.fetch_sub(FILE, Relaxed);
        }
    }
}

/// Pages of kernel memory charged to an account as long as this exists.
#[derive(Debug)]
pub struct PageCharge {
    slot: u16,
    pages: usize,
}

impl PageCharge {
    fn new(slot: u16, pages: usize) -> Result<PageCharge, crate::AllocError> {
        charge(slot, pages)?;
        Ok(PageCharge { slot, pages })
    }
}

impl Drop for PageCharge {
    fn drop(&mut self) {
        uncharge(self.slot, self.pages);
    }
}

/// The memory of many small kernel objects of one kind, charged by whole pages.
/// What is less than a page costs nothing: that much is bounded by the number of
/// whatever holds them.
#[derive(Debug)]
pub struct Objects {
    account: Arc<Account>,
    /// Bytes of one.
    size: usize,
    pages: usize,
}

impl Objects {
    /// None yet of those objects, which take `size` bytes each.
    #[must_use]
    pub const fn new(account: Arc<Account>, size: usize) -> Objects {
        Objects {
            account,
            size,
            pages: 0,
        }
    }

    /// Who pays.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Now there are `count` of them; fewer never fails.
    ///
    /// # Errors
    /// [`crate::AllocError::OverLimit`], and nothing has changed.
    #[inline]
    pub fn set(&mut self, count: usize) -> Result<(), crate::AllocError> {
        let pages = count.saturating_mul(self.size) / PAGE_SIZE;
        if pages > self.pages {
            self.account.charge(pages - self.pages)?;
        } else if pages < self.pages {
            self.account.uncharge(self.pages - pages);
        }
        self.pages = pages;
        Ok(())
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        if self.pages > 0 {
            self.account.uncharge(self.pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_apart_from_pages() {
        let account = Account::new(10).unwrap();
        account.set_files_limit(2);
        let a = account.charge_file().unwrap();
        let b = account.charge_file().unwrap();
        assert!(account.charge_file().is_none());
        assert_eq!((account.files(), account.used()), (2, 0));
        account.charge(10).unwrap();
        assert!(account.charge(1).is_err());
        assert!(account.charge(usize::MAX).is_err());
        assert_eq!((account.files(), account.used()), (2, 10));
        drop(a);
        assert_eq!((account.files(), account.used()), (1, 10));
        assert!(account.charge_file().is_some());
        drop(b);
        account.uncharge(10);
        assert_eq!((account.files(), account.used()), (0, 0));
        assert_eq!(account.peak(), 10);
    }

    #[test]
    fn held_pages_come_back() {
        let account = Account::new(10).unwrap();
        let some = account.hold(8).unwrap();
        assert!(account.hold(3).is_err());
        assert_eq!(account.used(), 8);
        drop(some);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn small_objects_cost_whole_pages() {
        let account = Arc::new(Account::new(2).unwrap());
        let mut objects = Objects::new(account.clone(), 1000);
        for (count, pages) in [(4, 0), (5, 1), (9, 2)] {
            objects.set(count).unwrap();
            assert_eq!(account.used(), pages);
        }
        assert!(objects.set(13).is_err());
        assert_eq!(account.used(), 2);
        objects.set(8).unwrap();
        assert_eq!(account.used(), 1);
        drop(objects);
        assert_eq!(account.used(), 0);
    }

    /// Whoever is the last to give something back frees the entry, once.
    #[test]
    fn an_entry_is_free_only_when_all_is_given_back() {
        let account = Account::new(4).unwrap();
        let number = account.slot;
        let page = account.hold(1).unwrap();
        let file = account.charge_file().unwrap();
        let busy = || slot(number).held.load(Relaxed) != 0;
        drop(account);
        assert!(busy());
        drop(page);
        assert!(busy());
        // Nobody else can have it before this.
        drop(file);
    }

    #[test]
    fn many_threads_never_exceed_a_limit() {
        let account = Account::new(100).unwrap();
        account.set_files_limit(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let file = account.charge_file();
                        let pages = account.hold(30);
                        drop((file, pages));
                    }
                });
            }
        });
        assert_eq!((account.files(), account.used()), (0, 0));
        assert!(account.peak() <= 100);
    }
}
