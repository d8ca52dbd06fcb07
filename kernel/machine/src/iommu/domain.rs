//! A domain: what one device reaches, or all behind one bridge that hides them.

use super::invalidate::{Forget, Stuck};
use super::table::{Access, Change, PageTable};
use super::unit::Unit;
use crate::error::AllocError;
use crate::sync::SpinLock;
use core::fmt;
use smallvec::SmallVec;

/// What a device reaches. Lives for ever once it is made, as its device does.
pub(super) struct Domain {
    unit: &'static Unit,
    id: u16,
    /// Held until what was changed is forgotten, so that nobody lends a page of which the
    /// hardware still remembers something else.
    table: SpinLock<PageTable>,
}

/// From so many pages on all of the domain is forgotten, and not page by page.
const PAGES_MAX: usize = 8;

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.id)
    }
}

/// Pages that were altered.
#[derive(Default)]
struct Altered(SmallVec<[u64; PAGES_MAX + 1]>);

impl Altered {
    fn add(&mut self, page: u64) {
        // One too many is enough to know.
        if self.0.len() <= PAGES_MAX {
            self.0.push(page);
        }
    }
}

impl Domain {
    pub(super) fn new(unit: &'static Unit, id: u16, levels: usize) -> Result<Domain, AllocError> {
        let table = PageTable::new(levels, unit.abilities().is_coherent())?;
        Ok(Domain {
            unit,
            id,
            table: SpinLock::new(table),
        })
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Address of its top table, and its levels.
    pub(super) fn table(&self) -> (u64, usize) {
        let table = self.table.lock();
        (table.phys(), table.levels())
    }

    fn forget(&self, altered: &Altered) -> Result<(), Stuck> {
        let pages = &altered.0;
        let mask = self.unit.abilities().page_invalidation();
        if pages.is_empty() {
            return Ok(());
        }
        if pages.len() > PAGES_MAX || mask.is_none() {
            return self.unit.forget(&[Forget::Domain(self.id)]);
        }
        let what = pages.iter().map(|page| Forget::Page(self.id, *page));
        let what: SmallVec<[Forget; PAGES_MAX]> = what.collect();
        self.unit.forget(&what)
    }

    /// Lets the device reach `pages` (addresses / page size) until they are taken back:
    /// all of them, or none.
    ///
    /// # Errors
    /// No memory for tables, or a page is lent too often.
    pub(super) fn lend(
        &self,
        pages: impl Iterator<Item = u64> + Clone,
        access: Access,
    ) -> Result<(), AllocError> {
        let caches_absence = self.unit.abilities().caches_absence();
        let mut table = self.table.lock();
        let mut altered = Altered::default();
        let mut lent = 0;
        let mut result = Ok(());
        for page in pages.clone() {
            match table.lend(page, access) {
                Ok(Change::Altered) => altered.add(page),
                Ok(Change::Added) if caches_absence => altered.add(page),
                Ok(_) => {}
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
            lent += 1;
        }
        if result.is_ok() {
            let forgotten = self.forget(&altered);
            // A device that remembers less than it may do would be refused.
            result = forgotten.map_err(|Stuck| AllocError::OutOfMemory);
        }
        if result.is_err() {
            for page in pages.take(lent) {
                table.take_back(page);
                altered.add(page);
            }
            // The device has not been told of these pages: there is nobody to wait for.
            let _ = self.forget(&altered);
        }
        result
    }

    /// Takes `pages` back. When this is done, the device does not reach those that are not
    /// lent to it otherwise.
    ///
    /// # Errors
    /// [`Stuck`]: it may still reach them.
    pub(super) fn take_back(&self, pages: impl Iterator<Item = u64>) -> Result<(), Stuck> {
        let mut table = self.table.lock();
        let mut altered = Altered::default();
        for page in pages {
            if table.take_back(page) == Change::Altered {
                altered.add(page);
            }
        }
        self.forget(&altered)
    }
}
