//! The list, kept by a backing object, of the address spaces that map it.

use crate::AddressSpace;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use machine::sync::SpinLock;

/// Which spaces map an object, so that pages which go away there disappear from
/// them too. The object owns one and returns it from
/// [`crate::Backing::mappings`].
#[derive(Default)]
pub struct MappingList {
    /// Sorted by address of the space. An entry leaves with its space or, if the
    /// space let go of the object before, when the list would grow.
    spaces: SpinLock<Vec<Weak<AddressSpace>>>,
    /// Counts removals; a fault that overlapped one starts over.
    epoch: AtomicU64,
}

impl MappingList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> MappingList {
        MappingList {
            spaces: SpinLock::new(Vec::new()),
            epoch: AtomicU64::new(0),
        }
    }

    /// Whether no space maps the object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spaces.lock().iter().all(|s| s.strong_count() == 0)
    }

    /// Takes the pages of `pages` (indexes into the object) out of every space.
    /// To be called after they have left the object; may sleep, so no spin lock
    /// may be held.
    pub fn unmap(&self, pages: Range<u64>) {
        self.epoch.fetch_add(1, SeqCst);
        let mut after = 0;
        // One space at a time: no lock is held over the work, and no list of them
        // has to be allocated.
        while let Some((key, space)) = self.next(after) {
            if let Some(space) = space.upgrade() {
                space.unmap_object(self, pages.clone());
            }
            after = key;
        }
    }

    fn next(&self, after: usize) -> Option<(usize, Weak<AddressSpace>)> {
        let spaces = self.spaces.lock();
        let at = spaces.partition_point(|s| key(s) <= after);
        spaces.get(at).map(|s| (key(s), s.clone()))
    }

    /// The number of removals so far.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Adds `space` unless it is there.
    pub(crate) fn add(&self, space: &Weak<AddressSpace>) -> Result<(), crate::Error> {
        let mut spaces = self.spaces.lock();
        if spaces.len() == spaces.capacity() {
            spaces.retain(|s| s.strong_count() > 0);
            spaces.try_reserve(1)?;
        }
        if let Err(at) = spaces.binary_search_by_key(&key(space), key) {
            spaces.insert(at, space.clone());
        }
        Ok(())
    }

    /// Removes `space`, which ends.
    pub(crate) fn remove(&self, space: &Weak<AddressSpace>) {
        let mut spaces = self.spaces.lock();
        let gone = spaces
            .binary_search_by_key(&key(space), key)
            .ok()
            .map(|at| spaces.remove(at));
        drop(spaces);
        drop(gone);
    }
}

fn key(space: &Weak<AddressSpace>) -> usize {
    space.as_ptr() as usize
}

/// Whether two references name the same list.
pub(crate) fn same(a: &MappingList, b: &MappingList) -> bool {
    core::ptr::eq(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;

    #[test]
    fn spaces_that_are_gone_do_not_pile_up() {
        let list = MappingList::new();
        let account = Arc::new(machine::Account::new(10).unwrap());
        for _ in 0..1000 {
            let space = AddressSpace::new(account.clone()).unwrap();
            list.add(&Arc::downgrade(&space)).unwrap();
        }
        assert!(list.is_empty());
        assert!(list.spaces.lock().len() < 16);
    }

    #[test]
    fn a_space_is_listed_once() {
        let list = MappingList::new();
        let account = Arc::new(machine::Account::new(10).unwrap());
        let a = AddressSpace::new(account.clone()).unwrap();
        let b = AddressSpace::new(account).unwrap();
        for s in [&a, &b, &a] {
            list.add(&Arc::downgrade(s)).unwrap();
        }
        assert_eq!(list.spaces.lock().len(), 2);
        list.remove(&Arc::downgrade(&a));
        list.remove(&Arc::downgrade(&a));
        assert!(!list.is_empty());
        list.remove(&Arc::downgrade(&b));
        assert!(list.is_empty());
    }
}
