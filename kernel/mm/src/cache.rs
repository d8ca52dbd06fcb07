//! The page cache of one object: a map from page index to frame.

use crate::Error;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use machine::sync::SpinLock;
use machine::{Account, Frame, thread};

/// `log2` of the slots of a node.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Nodes that are charged as one page.
const NODES_PER_PAGE: usize = machine::addr::PAGE_SIZE / (SLOTS * size_of::<Option<Frame>>());
/// Frames taken out in one go with the lock held.
const BATCH: usize = 32;
/// First index that no object of 2^63 bytes reaches.
const INDEX_END: u64 = 1 << (63 - machine::addr::PAGE_SHIFT);

/// The frames of an object by page index: a radix tree behind a spin lock.
///
/// Nodes are charged to the account of the object; frames are charged by who
/// allocates them.
pub struct PageCache {
    tree: SpinLock<Tree>,
}

struct Tree {
    root: Option<Node>,
    /// Levels below the root; a leaf has none.
    height: u32,
    frames: usize,
    nodes: usize,
    payer: Arc<Account>,
}

enum Node {
    Inner(Vec<Option<Node>>),
    Leaf(Vec<Option<Frame>>),
}

impl Node {
    fn new(height: u32) -> Result<Node, Error> {
        fn slots<T>() -> Result<Vec<Option<T>>, Error> {
            let mut v = Vec::new();
            v.try_reserve_exact(SLOTS)?;
            v.resize_with(SLOTS, || None);
            Ok(v)
        }
        Ok(match height {
            0 => Node::Leaf(slots()?),
            _ => Node::Inner(slots()?),
        })
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Inner(n) => n.iter().all(Option::is_none),
            Node::Leaf(f) => f.iter().all(Option::is_none),
        }
    }
}

fn slot(index: u64, height: u32) -> usize {
    (index >> (BITS * height)) as usize % SLOTS
}

impl Tree {
    /// First index the tree is too low for.
    fn reach(&self) -> u64 {
        1u64.checked_shl(BITS * (self.height + 1))
            .unwrap_or(u64::MAX)
    }

    #[inline]
    fn get(&self, index: u64) -> Option<&Frame> {
        self.leaf(index)?.get(slot(index, 0))?.as_ref()
    }

    /// The pages of the leaf that `index` lies in.
    #[inline]
    fn leaf(&self, index: u64) -> Option<&[Option<Frame>]> {
        if index >= self.reach() {
            return None;
        }
        let (mut node, mut height) = (self.root.as_ref()?, self.height);
        loop {
            match node {
                Node::Leaf(frames) => return Some(&frames[..]),
                Node::Inner(nodes) => node = nodes.get(slot(index, height))?.as_ref()?,
            }
            height -= 1;
        }
    }

    fn grow_node(&mut self, height: u32) -> Result<Node, Error> {
        let node = Node::new(height)?;
        if self.nodes.is_multiple_of(NODES_PER_PAGE) {
            self.payer.charge(1)?;
        }
        self.nodes += 1;
        Ok(node)
    }

    fn node_gone(&mut self) {
        self.nodes -= 1;
        if self.nodes.is_multiple_of(NODES_PER_PAGE) {
            self.payer.uncharge(1);
        }
    }

    /// The slot of `index`, with all nodes on the way.
    fn slot_mut(&mut self, index: u64) -> Result<Option<&mut Option<Frame>>, Error> {
        if self.root.is_none() {
            self.height = 0;
            self.root = Some(self.grow_node(0)?);
        }
        while index >= self.reach() {
            let mut up = self.grow_node(self.height + 1)?;
            if let Node::Inner(nodes) = &mut up {
                nodes[0] = self.root.take();
            }
            self.root = Some(up);
            self.height += 1;
        }
        // How many nodes are missing is known only on the way down; take the root
        // out meanwhile, so that the tree can count them.
        let mut root = self.root.take();
        let grown = self.fill_path(&mut root, index);
        self.root = root;
        grown?;
        let (mut node, mut height) = (self.root.as_mut(), self.height);
        loop {
            match node {
                Some(Node::Leaf(frames)) => return Ok(frames.get_mut(slot(index, 0))),
                Some(Node::Inner(nodes)) => node = nodes[slot(index, height)].as_mut(),
                None => return Ok(None),
            }
            height = height.saturating_sub(1);
        }
    }

    fn fill_path(&mut self, root: &mut Option<Node>, index: u64) -> Result<(), Error> {
        let (mut at, mut height) = (root, self.height);
        loop {
            if at.is_none() {
                *at = Some(self.grow_node(height)?);
            }
            match at {
                Some(Node::Inner(nodes)) => at = &mut nodes[slot(index, height)],
                _ => return Ok(()),
            }
            height -= 1;
        }
    }

    /// Moves up to [`BATCH`] frames of `range` to `out`, frees nodes that became
    /// empty; where to go on, if there is more.
    fn take_batch(&mut self, range: Range<u64>, out: &mut Vec<Frame>) -> Option<u64> {
        let end = range.end.min(self.reach());
        let mut root = self.root.take();
        let mut at = range.start;
        let mut freed = 0;
        if let Some(node) = &mut root {
            take_from(node, self.height, 0, &mut at, end, out, &mut freed);
            if node.is_empty() {
                root = None;
                freed += 1;
            }
        } else {
            at = end;
        }
        self.root = root;
        self.frames -= out.len();
        for _ in 0..freed {
            self.node_gone();
        }
        (at < end).then_some(at)
    }

    /// The first page at or after `index`.
    fn first_from(&self, index: u64) -> Option<(u64, Frame)> {
        if index >= self.reach() {
            return None;
        }
        first_in(self.root.as_ref()?, self.height, 0, index)
    }
}

/// The first page at or after `from` under `node`, whose first index is `base`.
fn first_in(node: &Node, height: u32, base: u64, from: u64) -> Option<(u64, Frame)> {
    let width = 1u64 << (BITS * height);
    let skip = (from.saturating_sub(base) / width) as usize;
    match node {
        Node::Leaf(frames) => frames.iter().enumerate().skip(skip).find_map(|(i, f)| {
            let f = f.as_ref()?;
            Some((base + i as u64, f.clone()))
        }),
        Node::Inner(nodes) => nodes
            .iter()
            .enumerate()
            .skip(skip)
            .find_map(|(i, n)| first_in(n.as_ref()?, height - 1, base + i as u64 * width, from)),
    }
}

/// Empties `at..end` under `node`, whose first index is `base`, as long as `out`
/// has room; advances `at`.
fn take_from(
    node: &mut Node,
    height: u32,
    base: u64,
    at: &mut u64,
    end: u64,
    out: &mut Vec<Frame>,
    freed: &mut usize,
) {
    let width = 1u64 << (BITS * height);
    let skip = (at.saturating_sub(base) / width) as usize;
    for i in skip..SLOTS {
        let first = base + i as u64 * width;
        if first >= end || out.len() >= BATCH {
            return;
        }
        match node {
            Node::Leaf(frames) => out.extend(frames[i].take()),
            Node::Inner(nodes) => {
                if let Some(child) = &mut nodes[i] {
                    take_from(child, height - 1, first, at, end, out, freed);
                    if child.is_empty() {
                        nodes[i] = None;
                        *freed += 1;
                    }
                    if *at < end.min(first.saturating_add(width)) {
                        return;
                    }
                }
            }
        }
        *at = first.saturating_add(width).max(*at);
    }
}

impl PageCache {
    /// An empty cache whose nodes `payer` pays for.
    #[must_use]
    pub fn new(payer: Arc<Account>) -> PageCache {
        PageCache {
            tree: SpinLock::new(Tree {
                root: None,
                height: 0,
                frames: 0,
                nodes: 0,
                payer,
            }),
        }
    }

    /// The frame of page `index`.
    #[inline]
    pub fn get(&self, index: u64) -> Option<Frame> {
        self.tree.lock().get(index).cloned()
    }

    /// Copies references to the pages of `first..first + out.len()` that are there.
    pub fn get_run(&self, first: u64, out: &mut [Option<Frame>]) {
        let tree = self.tree.lock();
        let (mut index, mut out) = (first, out);
        while !out.is_empty() {
            let at = slot(index, 0);
            let n = out.len().min(SLOTS - at);
            let (now, later) = out.split_at_mut(n);
            match tree.leaf(index) {
                Some(pages) => now.clone_from_slice(&pages[at..at + n]),
                None => now.fill(None),
            }
            (index, out) = (index + n as u64, later);
        }
    }

    /// The frame of page `index`; if there is none, the one that `make` gives. No
    /// lock is held while `make` runs: it may sleep, and if another thread put a
    /// frame there meanwhile, that one is returned and the new one dropped.
    ///
    /// # Errors
    /// Those of `make`, and no memory for a node.
    pub fn get_or_try_insert_with<E: From<Error>>(
        &self,
        index: u64,
        make: impl FnOnce() -> Result<Frame, E>,
    ) -> Result<Frame, E> {
        match self.get(index) {
            Some(frame) => Ok(frame),
            None => Ok(self.insert(index, make()?)?),
        }
    }

    /// Puts `frame` at `index` unless a frame is there; the one that is there now.
    ///
    /// # Errors
    /// No memory for a node, or an index no file can have.
    pub fn insert(&self, index: u64, frame: Frame) -> Result<Frame, Error> {
        if index >= INDEX_END {
            return Err(Error::BadRange);
        }
        let mut tree = self.tree.lock();
        let Some(place) = tree.slot_mut(index)? else {
            return Err(Error::OutOfMemory);
        };
        if let Some(there) = place {
            return Ok(there.clone());
        }
        *place = Some(frame.clone());
        tree.frames += 1;
        Ok(frame)
    }

    /// Takes the pages of `range` out.
    pub fn remove(&self, range: Range<u64>) {
        let mut gone = Vec::new();
        let mut from = Some(range.start);
        while let Some(at) = from {
            // Not even one frame can be kept aside: they go one by one then.
            if gone.capacity() < BATCH && gone.try_reserve_exact(BATCH).is_err() {
                self.remove_unbatched(at..range.end);
                return;
            }
            from = self.tree.lock().take_batch(at..range.end, &mut gone);
            gone.clear();
            thread::cond_resched();
        }
    }

    /// As [`PageCache::remove`], without memory of its own. Nodes stay until the
    /// cache goes.
    fn remove_unbatched(&self, range: Range<u64>) {
        let mut at = range.start;
        while let Some((index, _)) = self.first_from(at).filter(|(i, _)| *i < range.end) {
            let mut tree = self.tree.lock();
            let gone = tree.slot_mut(index).ok().flatten().and_then(Option::take);
            tree.frames -= usize::from(gone.is_some());
            drop(tree);
            drop(gone);
            at = index + 1;
        }
    }

    /// Takes out all pages from `first` on.
    pub fn truncate(&self, first: u64) {
        self.remove(first..INDEX_END);
    }

    /// The first page at or after `index`, to walk the pages in order.
    pub fn first_from(&self, index: u64) -> Option<(u64, Frame)> {
        self.tree.lock().first_from(index)
    }

    /// Pages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.lock().frames
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.payer.uncharge(self.nodes.div_ceil(NODES_PER_PAGE));
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
