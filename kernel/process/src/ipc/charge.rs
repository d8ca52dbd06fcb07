//! Memory of the kernel's heap that a capsule pays for, by the page.

use super::Result;
use alloc::sync::Arc;
use machine::Account;
use machine::addr::PAGE_SIZE;

/// Pays for a number of bytes that changes.
pub(crate) struct Charge {
    account: Arc<Account>,
    pages: usize,
}

impl Charge {
    pub(crate) fn new(account: Arc<Account>) -> Charge {
        Charge { account, pages: 0 }
    }

    /// Pays for `bytes` from now on.
    ///
    /// # Errors
    /// No memory; it pays for what it did before.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<()> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        if pages > self.pages {
            self.account.charge(pages - self.pages)?;
        } else {
            self.account.uncharge(self.pages - pages);
        }
        self.pages = pages;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.uncharge(self.pages);
    }
}
