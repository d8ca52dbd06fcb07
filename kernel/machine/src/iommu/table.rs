//! The pages a device reaches: second-stage page tables (Intel VT-d specification 4.1,
//! 3.7 and 9.8), by which an address leads to the same physical address or nowhere.
//!
//! The same page can be lent to a device several times over, by requests that are under
//! way at the same time. How often is counted in its entry, in bits that the hardware
//! ignores; what a device may do with it is what any of them wants, until the last ends.

use crate::addr::PAGE_SIZE;
use crate::dma::{Direction, DmaRing, Reach};
use crate::error::AllocError;
use alloc::boxed::Box;
use alloc::vec::Vec;

const ENTRIES: usize = 512;
const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Ignored by the hardware: how often the page is lent.
const COUNT_SHIFT: u32 = 52;
const COUNT: u64 = 0x3ff << COUNT_SHIFT;
const ONE: u64 = 1 << COUNT_SHIFT;

/// What a device may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u64);

impl Access {
    pub(super) const BOTH: Access = Access(READ | WRITE);
}

impl From<Direction> for Access {
    fn from(direction: Direction) -> Access {
        match direction {
            Direction::ToDevice => Access(READ),
            Direction::FromDevice => Access(WRITE),
        }
    }
}

/// What has to be forgotten after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: the entry says what it said.
    None,
    /// What was not there is; matters to hardware that remembers absence.
    Added,
    /// It is not as it was: what the hardware remembers is wrong.
    Altered,
}

/// A table and those below it. They stay once they are made: a device's memory is mostly
/// where it was before.
#[derive(Debug)]
struct Node {
    page: DmaRing,
    below: Vec<Option<Box<Node>>>,
}

impl Node {
    fn new(is_leaf: bool, is_coherent: bool) -> Result<Node, AllocError> {
        let page = DmaRing::new(Reach::ALL, PAGE_SIZE)?;
        let mut below = Vec::new();
        if !is_leaf {
            below
                .try_reserve_exact(ENTRIES)
                .map_err(|_| AllocError::OutOfMemory)?;
            below.resize_with(ENTRIES, || None);
        }
        if !is_coherent {
            page.write_back(0, PAGE_SIZE);
        }
        Ok(Node { page, below })
    }
}

/// The page tables of a domain.
#[derive(Debug)]
pub(super) struct PageTable {
    top: Node,
    levels: usize,
    is_coherent: bool,
}

impl PageTable {
    /// Tables of `levels` levels by which nothing is reached. Hardware that is not
    /// coherent reads memory as it is without the CPUs' caches.
    pub(super) fn new(levels: usize, is_coherent: bool) -> Result<PageTable, AllocError> {
        Ok(PageTable {
            top: Node::new(false, is_coherent)?,
            levels,
            is_coherent,
        })
    }

    pub(super) fn phys(&self) -> u64 {
        self.top.page.phys()
    }

    pub(super) fn levels(&self) -> usize {
        self.levels
    }

    /// The table of single pages that `page` (an address / page size) is in, and its
    /// place there; made if it is wanted and missing.
    fn leaf(&mut self, page: u64, make: bool) -> Result<Option<(&DmaRing, usize)>, AllocError> {
        let is_coherent = self.is_coherent;
        if page >> (9 * self.levels) != 0 {
            return Err(AllocError::OutOfMemory);
        }
        let mut node = &mut self.top;
        for level in (1..self.levels).rev() {
            let at = (page >> (9 * level)) as usize % ENTRIES;
            let Node { page: table, below } = node;
            let Some(place) = below.get_mut(at) else {
                return Ok(None);
            };
            if place.is_none() {
                if !make {
                    return Ok(None);
                }
                let new = Node::new(level == 1, is_coherent)?;
                write(table, at, new.page.phys() | READ | WRITE, is_coherent);
                *place = Some(Box::new(new));
            }
            let Some(next) = place else { return Ok(None) };
            node = next;
        }
        Ok(Some((&node.page, page as usize % ENTRIES)))
    }

    /// Lends `page` once more.
    ///
    /// # Errors
    /// No memory for tables, or it is lent too often.
    pub(super) fn lend(&mut self, page: u64, access: Access) -> Result<Change, AllocError> {
        let is_coherent = self.is_coherent;
        let (table, at) = self.leaf(page, true)?.ok_or(AllocError::OutOfMemory)?;
        let old = table.read_u64(8 * at);
        if old & COUNT == COUNT {
            return Err(AllocError::OverLimit);
        }
        let address = (page * PAGE_SIZE as u64) & ADDRESS;
        let kept = old & (READ | WRITE);
        let count = (old & COUNT) + ONE;
        let new = count | address | kept | access.0;
        write(table, at, new, is_coherent);
        Ok(match (kept, kept | access.0) {
            (0, _) => Change::Added,
            (before, after) if before == after => Change::None,
            _ => Change::Altered,
        })
    }

    /// Takes `page` back once.
    pub(super) fn take_back(&mut self, page: u64) -> Change {
        let is_coherent = self.is_coherent;
        let Ok(Some((table, at))) = self.leaf(page, false) else {
            return Change::None;
        };
        let old = table.read_u64(8 * at);
        match old & COUNT {
            0 => Change::None,
            ONE => {
                write(table, at, 0, is_coherent);
                Change::Altered
            }
            _ => {
                write(table, at, old - ONE, is_coherent);
                Change::None
            }
        }
    }
}

/// Writes an entry, and to memory if the hardware looks there.
fn write(table: &DmaRing, at: usize, value: u64, is_coherent: bool) {
    table.write_u64(8 * at, value);
    if !is_coherent {
        table.write_back(8 * at, 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted() {
        let mut t = PageTable::new(3, false).unwrap();
        let read = Access::from(Direction::ToDevice);
        let write = Access::from(Direction::FromDevice);
        for page in [0, 5, 0x1_2345, (1 << 27) - 1] {
            assert_eq!(t.take_back(page), Change::None);
            assert_eq!(t.lend(page, read), Ok(Change::Added));
            assert_eq!(t.lend(page, read), Ok(Change::None));
            assert_eq!(t.lend(page, write), Ok(Change::Altered));
            assert_eq!(t.take_back(page), Change::None);
            assert_eq!(t.take_back(page), Change::None);
            assert_eq!(t.take_back(page), Change::Altered);
            assert_eq!(t.take_back(page), Change::None);
        }
        assert!(t.lend(1 << 27, read).is_err(), "beyond what is covered");
        assert!(t.lend(u64::MAX, read).is_err());
    }

    #[test]
    fn a_count_does_not_run_over() {
        let mut t = PageTable::new(4, true).unwrap();
        for _ in 0..1023 {
            t.lend(7, Access::BOTH).unwrap();
        }
        assert_eq!(t.lend(7, Access::BOTH), Err(AllocError::OverLimit));
        for _ in 0..1022 {
            assert_eq!(t.take_back(7), Change::None);
        }
        assert_eq!(t.take_back(7), Change::Altered);
    }
}
