//! A priority queue whose items can be taken out wherever they are.
//!
//! A binary heap in a vector; every item remembers its place, so removal is
//! O(log n) and there is nothing to search. It never allocates but in
//! [`Ordered::reserve`], so that interrupt handlers may use it.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// Something that can remember its place in one queue.
pub(crate) trait Placed: Copy {
    /// Remembers `place`.
    fn set_place(self, place: Option<usize>);
    /// What was remembered last.
    fn place(self) -> Option<usize>;
}

/// Items in order of a key, smallest first.
pub(crate) struct Ordered<T> {
    items: Vec<(u64, T)>,
}

impl<T: Placed> Ordered<T> {
    pub(crate) const fn new() -> Self {
        Ordered { items: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Makes room for `n` items in all.
    pub(crate) fn reserve(&mut self, n: usize) -> Result<(), TryReserveError> {
        self.items.try_reserve(n.saturating_sub(self.items.len()))
    }

    /// The smallest key and its item.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u64, T)> {
        self.items.first().copied()
    }

    /// The item at `place`.
    pub(crate) fn at(&self, place: usize) -> Option<T> {
        self.items.get(place).map(|(_, item)| *item)
    }

    /// Adds an item that is in no such queue. Whether there was room.
    pub(crate) fn push(&mut self, key: u64, item: T) -> bool {
        if self.items.len() == self.items.capacity() {
            return false;
        }
        self.items.push((key, item));
        self.rise(self.items.len() - 1);
        true
    }

    /// Takes the first item.
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let first = self.first()?;
        self.remove(first.1);
        Some(first)
    }

    /// Puts an item that is in no such queue into the place of the first one, which is
    /// given back; nothing happens if there is none. Cheaper than to take and to add.
    pub(crate) fn exchange_first(&mut self, key: u64, item: T) -> Option<(u64, T)> {
        let first = self.items.first_mut()?;
        let out = core::mem::replace(first, (key, item));
        out.1.set_place(None);
        self.sink(0);
        Some(out)
    }

    /// Takes `item` out; whether it was in.
    pub(crate) fn remove(&mut self, item: T) -> bool {
        let Some(at) = item.place().filter(|p| *p < self.items.len()) else {
            return false;
        };
        item.set_place(None);
        let last = self.items.len() - 1;
        self.items.swap(at, last);
        self.items.truncate(last);
        if at < last {
            self.settle(at);
        }
        true
    }

    /// All items, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, T)> + '_ {
        self.items.iter().copied()
    }

    fn settle(&mut self, at: usize) {
        if at > 0 && self.items[at].0 < self.items[(at - 1) / 2].0 {
            self.rise(at);
        } else {
            self.sink(at);
        }
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.items[parent].0 <= self.items[at].0 {
                break;
            }
            self.items.swap(at, parent);
            self.items[at].1.set_place(Some(at));
            at = parent;
        }
        self.items[at].1.set_place(Some(at));
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.items.len() && self.items[child].0 < self.items[least].0 {
                    least = child;
                }
            }
            if least == at {
                break;
            }
            self.items.swap(at, least);
            self.items[at].1.set_place(Some(at));
            at = least;
        }
        self.items[at].1.set_place(Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    #[derive(Clone, Copy)]
    struct Item<'a>(usize, &'a [Cell<Option<usize>>]);

    impl Placed for Item<'_> {
        fn set_place(self, place: Option<usize>) {
            self.1[self.0].set(place);
        }
        fn place(self) -> Option<usize> {
            self.1[self.0].get()
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_set(ops in prop::collection::vec((0u8..4, 0usize..32, 0u64..50), 1..300)) {
            let places: Vec<Cell<Option<usize>>> = (0..32).map(|_| Cell::new(None)).collect();
            let mut q = Ordered::new();
            q.reserve(32).unwrap();
            let mut model: BTreeSet<(u64, usize)> = BTreeSet::new();
            for (op, i, key) in ops {
                let item = Item(i, &places);
                match op {
                    0 if item.place().is_none() => {
                        prop_assert!(q.push(key, item));
                        model.insert((key, i));
                    }
                    1 => {
                        let old = model.iter().find(|(_, j)| *j == i).copied();
                        prop_assert_eq!(q.remove(item), old.is_some());
                        if let Some(o) = old {
                            model.remove(&o);
                        }
                    }
                    2 => {
                        let got = q.pop();
                        prop_assert_eq!(got.map(|g| g.0), model.first().map(|m| m.0));
                        if let Some((k, it)) = got {
                            model.remove(&(k, it.0));
                        }
                    }
                    3 if item.place().is_none() => {
                        let got = q.exchange_first(key, item);
                        prop_assert_eq!(got.map(|g| g.0), model.first().map(|m| m.0));
                        if let Some((k, it)) = got {
                            prop_assert_eq!(it.place(), None);
                            model.remove(&(k, it.0));
                            model.insert((key, i));
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(q.len(), model.len());
                for n in 0..32 {
                    let place = Item(n, &places).place();
                    prop_assert!(place.is_none_or(|p| q.at(p).is_some_and(|item| item.0 == n)));
                }
            }
        }
    }
}
