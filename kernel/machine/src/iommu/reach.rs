//! What a device reaches, as drivers and buffers see it.

use super::domain::Domain;
use super::table::Access;
use crate::addr::PAGE_SIZE;
use crate::dma::Direction;
use crate::error::AllocError;

/// What memory a device reaches: all there is, where no IOMMU stands before it, or what
/// is lent to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reach(Option<&'static Domain>);

/// The device may still reach what was to be taken back: that must not be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StillReached;

impl Reach {
    /// All there is.
    pub const ALL: Reach = Reach(None);

    pub(super) fn of(domain: &'static Domain) -> Reach {
        Reach(Some(domain))
    }

    /// Whether the device reaches what is lent to it only.
    #[must_use]
    pub fn is_bounded(self) -> bool {
        self.0.is_some()
    }

    /// Whether both are of the same device.
    pub(crate) fn is(self, other: Reach) -> bool {
        match (self.0, other.0) {
            (Some(a), Some(b)) => core::ptr::eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }

    /// Lends pages (addresses / page size), all or none; in both directions, if none is
    /// said.
    ///
    /// # Errors
    /// No memory for page tables, or a page is lent a thousand times.
    #[inline]
    pub(crate) fn lend(
        self,
        pages: impl Iterator<Item = u64> + Clone,
        direction: Option<Direction>,
    ) -> Result<(), AllocError> {
        match self.0 {
            Some(domain) => domain.lend(pages, direction.map_or(Access::BOTH, Access::from)),
            None => Ok(()),
        }
    }

    /// Takes pages back, each once.
    ///
    /// # Errors
    /// [`StillReached`].
    #[inline]
    pub(crate) fn take_back(self, pages: impl Iterator<Item = u64>) -> Result<(), StillReached> {
        match self.0 {
            Some(domain) => domain.take_back(pages).map_err(|_| StillReached),
            None => Ok(()),
        }
    }
}

/// The pages of `len` bytes from `phys` on.
pub(crate) fn pages(phys: u64, len: usize) -> impl Iterator<Item = u64> + Clone {
    let page = PAGE_SIZE as u64;
    phys / page..phys.saturating_add(len as u64).div_ceil(page)
}
