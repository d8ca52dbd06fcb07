//! Memory accounts: who pays for a frame.
//!
//! Every frame is charged to an account when it is allocated and credited when
//! it is freed, whoever frees it (design D7). A capsule has one account; the
//! kernel's own is [`Account::kernel`] and has no limit but the machine's.
//!
//! Accounts live in a fixed table, so that a frame can name its account in two
//! bytes and freeing one takes no lock and no pointer chase.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// How many accounts can exist at one time.
pub const ACCOUNTS_MAX: usize = 1024;

struct Slot {
    used: AtomicUsize,
    peak: AtomicUsize,
    limit: AtomicUsize,
    /// Held by an `Account`, or still has frames.
    taken: AtomicBool,
    /// The `Account` handle exists.
    open: AtomicBool,
}

static SLOTS: [Slot; ACCOUNTS_MAX] = [const {
    Slot {
        used: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
        limit: AtomicUsize::new(usize::MAX),
        taken: AtomicBool::new(false),
        open: AtomicBool::new(false),
    }
}; ACCOUNTS_MAX];

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

    /// A new account that may hold `limit` pages; `None` when the table of
    /// [`ACCOUNTS_MAX`] is full.
    #[must_use]
    pub fn new(limit: usize) -> Option<Account> {
        let free = |s: &Slot| !s.taken.swap(true, Relaxed);
        let slot = SLOTS.iter().enumerate().skip(1).find(|(_, s)| free(s))?;
        slot.1.limit.store(limit, Relaxed);
        slot.1.peak.store(0, Relaxed);
        slot.1.open.store(true, Relaxed);
        u16::try_from(slot.0).ok().map(|slot| Account { slot })
    }

    fn slot(&self) -> &'static Slot {
        &SLOTS[usize::from(self.slot)]
    }

    /// Pages charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.slot().used.load(Relaxed)
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
        self.slot().limit.store(limit, Relaxed);
    }

    /// Charges `pages` for kernel memory held on the payer's behalf (socket
    /// buffers, pipe buffers, page tables). Give them back with
    /// [`Account::uncharge`].
    ///
    /// # Errors
    /// [`crate::AllocError::OverLimit`], and nothing is charged.
    pub fn charge(&self, pages: usize) -> Result<(), crate::AllocError> {
        let slot = self.slot();
        let used = slot.used.fetch_add(pages, Relaxed) + pages;
        if used > slot.limit.load(Relaxed) {
            slot.used.fetch_sub(pages, Relaxed);
            return Err(crate::AllocError::OverLimit);
        }
        if used > slot.peak.load(Relaxed) {
            slot.peak.fetch_max(used, Relaxed);
        }
        Ok(())
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

/// Credits `pages` to the account a frame named.
pub(crate) fn uncharge(slot: u16, pages: usize) {
    let slot = &SLOTS[usize::from(slot) % ACCOUNTS_MAX];
    if slot.used.fetch_sub(pages, Relaxed) == pages && !slot.open.load(Relaxed) {
        slot.taken.store(false, Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let slot = self.slot();
        slot.open.store(false, Relaxed);
        if slot.used.load(Relaxed) == 0 {
            slot.taken.store(false, Relaxed);
        }
    }
}
