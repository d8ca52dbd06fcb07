//! Directories of a tmpfs.
//!
//! Entries lie in slots whose number is their position in a listing, so that a
//! listing survives removals; a hash table finds them by name. Entries of a lower
//! directory have positions of their own above all slots, whether they were
//! looked up (and so have a slot) or not.
//!
//! Entries are memory that a program makes, by hard links even without nodes: the
//! file system's account pays for them.

use super::node::{self, Node, node_methods};
use super::{LowerKind, LowerTree, TmpFs};
use crate::error::{Error, Result};
use crate::inode::{Attr, DirEntry, Emit, Inode, Kind, NewAttr, NewNode, RenameMode, Stat};
use crate::name::{self, NAME_INLINE, Name};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hashbrown::HashTable;
use machine::sync::SpinLock;
use machine::thread;

/// Position of the first slot in a listing; `.` and `..` come before.
const SLOTS_AT: u64 = 2;
/// Position of a lower directory's first entry.
const LOWER_AT: u64 = 1 << 33;
/// Most links to one file.
const LINKS_MAX: u32 = 65_000;

/// A directory.
pub(super) struct TmpDir {
    node: Node,
    lower: Option<u32>,
    entries: SpinLock<Entries>,
}

#[derive(Default)]
struct Entries {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_name: HashTable<u32>,
    /// Entries that can be seen, those of the lower directory included.
    visible: u64,
    /// Bytes that the slots in use take.
    taken: usize,
    /// Bytes that the file system's account pays for them.
    paid: usize,
    /// While a tree is taken apart: the directory above this one.
    back: Option<Arc<dyn Inode>>,
}

/// Memory of an entry: its slot, its places in the two lists of numbers, and its
/// name where that is long.
fn entry_bytes(name: &[u8]) -> usize {
    let kept_apart = name.len() > NAME_INLINE;
    let apart = if kept_apart {
        name.len().next_power_of_two()
    } else {
        0
    };
    size_of::<Option<Slot>>() + 16 + apart
}

struct Slot {
    name: Name,
    entry: Entry,
}

enum Entry {
    /// A node of the file system's own.
    Own(Arc<dyn Inode>),
    /// The lower directory's entry of this name, looked up.
    Lower(Arc<dyn Inode>),
    /// The lower directory's entry of this name is gone.
    Whiteout,
}

impl Entry {
    fn inode(&self) -> Option<&Arc<dyn Inode>> {
        match self {
            Entry::Own(i) | Entry::Lower(i) => Some(i),
            Entry::Whiteout => None,
        }
    }
}

impl Entries {
    fn find(&self, name: &[u8]) -> Option<u32> {
        let is = |at: &u32| self.name(*at) == Some(name);
        self.by_name.find(name::hash(name), is).copied()
    }

    fn name(&self, at: u32) -> Option<&[u8]> {
        self.slots.get(at as usize)?.as_ref().map(|s| &*s.name)
    }

    fn get(&self, name: &[u8]) -> Option<&Entry> {
        let at = self.find(name)?;
        self.slots.get(at as usize)?.as_ref().map(|s| &s.entry)
    }

    /// Room for `n` more entries, of names no longer in memory than `name`, so that
    /// [`Entries::put`] cannot fail.
    fn reserve(&mut self, fs: &TmpFs, n: usize, name: &[u8]) -> Result<()> {
        let most = self.taken + n * entry_bytes(name);
        if most > self.paid {
            fs.take_bytes(most - self.paid)?;
            self.paid = most;
        }
        let Entries {
            slots,
            free,
            by_name,
            ..
        } = self;
        slots.try_reserve(n)?;
        let total = slots.len() + n;
        free.try_reserve(total.saturating_sub(free.len()))?;
        let hash = |at: &u32| match slots.get(*at as usize) {
            Some(Some(s)) => name::hash(&s.name),
            _ => 0,
        };
        by_name.try_reserve(n, hash)?;
        Ok(())
    }

    /// Gives back what was paid for more than there is.
    fn settle(&mut self, fs: &TmpFs) {
        fs.give_bytes(self.paid - self.taken);
        self.paid = self.taken;
    }

    /// Sets what `name` is; what it was.
    fn put(&mut self, name: &[u8], entry: Entry) -> Option<Entry> {
        if let Some(at) = self.find(name)
            && let Some(Some(slot)) = self.slots.get_mut(at as usize)
        {
            return Some(core::mem::replace(&mut slot.entry, entry));
        }
        let slot = Some(Slot {
            name: Name::from_slice(name),
            entry,
        });
        self.taken += entry_bytes(name);
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.slots.get_mut(at as usize) {
                    *place = slot;
                }
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.by_name
            .insert_unique(name::hash(name), at, |at| match slots.get(*at as usize) {
                Some(Some(s)) => name::hash(&s.name),
                _ => 0,
            });
        None
    }

    fn take(&mut self, name: &[u8]) -> Option<Entry> {
        let at = self.find(name)?;
        if let Ok(e) = self.by_name.find_entry(name::hash(name), |n| *n == at) {
            e.remove();
        }
        let slot = self.slots.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.taken -= entry_bytes(name);
        if self.by_name.is_empty() {
            self.slots.clear();
            self.free.clear();
        }
        Some(slot.entry)
    }
}

impl TmpDir {
    pub(super) fn new(fs: &Arc<TmpFs>, attr: &NewAttr, ino: u64) -> Result<Arc<TmpDir>> {
        Ok(Arc::new(TmpDir {
            node: Node::new(fs, attr, ino)?,
            lower: None,
            entries: SpinLock::new(Entries::default()),
        }))
    }

    /// The directory `index` of the lower tree.
    pub(super) fn over(node: Node, index: u32, children: u32) -> Arc<TmpDir> {
        Arc::new(TmpDir {
            node,
            lower: Some(index),
            entries: SpinLock::new(Entries {
                visible: u64::from(children),
                ..Entries::default()
            }),
        })
    }

    /// The lower tree and this directory's index in it.
    fn lower(&self) -> Option<(&dyn LowerTree, u32)> {
        Some((self.node.fs.lower.as_deref()?, self.lower?))
    }

    fn has_below(&self, name: &[u8]) -> bool {
        self.lower()
            .is_some_and(|(t, d)| t.lookup(d, name).is_some())
    }

    fn is_empty(&self) -> bool {
        self.entries.lock().visible == 0
    }

    fn insert(&self, name: &[u8], inode: Arc<dyn Inode>) -> Result<()> {
        let fs = &self.node.fs;
        fs.check_room()?;
        let mut entries = self.entries.lock();
        entries.reserve(fs, 1, name).map_err(|e| fs.told(e))?;
        let old = entries.put(name, Entry::Own(inode));
        entries.visible += 1;
        entries.settle(fs);
        drop(entries);
        drop(old);
        self.node.attr.touch_modified();
        Ok(())
    }

    /// Takes the visible entry `name` out, leaving a whiteout where the lower
    /// directory has one.
    fn remove(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let gone = self.take_out(name);
        self.entries.lock().settle(&self.node.fs);
        self.node.attr.touch_modified();
        gone
    }

    /// The same without settling what was paid for entries.
    fn take_out(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let below = self.has_below(name);
        let mut entries = self.entries.lock();
        let gone = if below {
            entries.reserve(&self.node.fs, 1, name)?;
            entries.put(name, Entry::Whiteout)
        } else {
            entries.take(name)
        };
        let inode = gone.as_ref().and_then(Entry::inode).cloned();
        entries.visible -= u64::from(inode.is_some());
        inode.ok_or(Error::NotFound)
    }

    fn list_lower(&self, from: u64, emit: &mut Emit<'_>) {
        let Some((tree, dir)) = self.lower() else {
            return;
        };
        let entries = self.entries.lock();
        let mut n = u32::try_from(from.saturating_sub(LOWER_AT)).unwrap_or(u32::MAX);
        let mut go_on = true;
        while go_on {
            let mut there = false;
            tree.child(dir, n, &mut |name, index, kind| {
                there = true;
                let (ino, kind) = match entries.get(name) {
                    None => (u64::from(index) + 1, lower_kind(kind)),
                    Some(Entry::Lower(i)) => (i.attr().ino, i.attr().kind),
                    Some(Entry::Own(_) | Entry::Whiteout) => return,
                };
                let next = LOWER_AT + u64::from(n) + 1;
                go_on = emit(DirEntry {
                    name,
                    ino,
                    kind,
                    next,
                });
            });
            go_on &= there;
            n = n.saturating_add(1);
        }
    }

    /// Both ends of a rename, whose directories may be the same.
    fn rename_to(&self, name: &[u8], to: &TmpDir, new_name: &[u8], mode: RenameMode) -> Result<()> {
        let moved = self.lookup(name)?;
        let target = to.lookup(new_name).ok();
        if mode == RenameMode::Exchange {
            let target = target.ok_or(Error::NotFound)?;
            self.reserve_two(to, name, new_name)?;
            to.entries.lock().put(new_name, Entry::Own(moved.clone()));
            self.entries.lock().put(name, Entry::Own(target.clone()));
            self.settle_two(to);
            self.count_moved_dir(to, &moved);
            to.count_moved_dir(self, &target);
        } else {
            let over = target.as_ref().map(|t| t.as_any());
            let over = over.and_then(|t| t.downcast_ref::<TmpDir>());
            if over.is_some_and(|d| !d.is_empty()) {
                return Err(Error::NotEmpty);
            }
            self.reserve_two(to, name, new_name)?;
            if let Some(t) = &target {
                to.unlinked(t);
            }
            self.take_out(name)?;
            let mut entries = to.entries.lock();
            let old = entries.put(new_name, Entry::Own(moved.clone()));
            entries.visible += u64::from(target.is_none());
            drop(entries);
            drop(old);
            self.settle_two(to);
            self.count_moved_dir(to, &moved);
        }
        moved.attr().touch_changed();
        self.node.attr.touch_modified();
        to.node.attr.touch_modified();
        Ok(())
    }

    fn reserve_two(&self, to: &TmpDir, name: &[u8], new_name: &[u8]) -> Result<()> {
        let longer = core::cmp::max_by_key(name, new_name, |n| n.len());
        let fs = &self.node.fs;
        let mine = self.entries.lock().reserve(fs, 2, longer);
        mine.map_err(|e| fs.told(e))?;
        let done = to.entries.lock().reserve(fs, 2, longer);
        if done.is_err() {
            self.entries.lock().settle(fs);
        }
        done.map_err(|e| fs.told(e))
    }

    fn settle_two(&self, to: &TmpDir) {
        for dir in [self, to] {
            dir.entries.lock().settle(&self.node.fs);
        }
    }

    /// A directory's `..` is a link to its parent.
    fn count_moved_dir(&self, to: &TmpDir, moved: &Arc<dyn Inode>) {
        if moved.attr().kind == Kind::Directory && !core::ptr::eq(self, to) {
            self.node.attr.drop_links(1);
            to.node.attr.add_links(1);
        }
    }

    /// Counts the links of an entry that is going away.
    fn unlinked(&self, inode: &Arc<dyn Inode>) {
        let attr = inode.attr();
        if attr.kind == Kind::Directory {
            attr.drop_links(2);
            self.node.attr.drop_links(1);
        } else {
            attr.drop_links(1);
        }
        attr.touch_changed();
    }
}

fn lower_kind(kind: LowerKind) -> Kind {
    match kind {
        LowerKind::Directory { .. } => Kind::Directory,
        LowerKind::File { .. } => Kind::File,
        LowerKind::Symlink => Kind::Symlink,
    }
}

impl Inode for TmpDir {
    node_methods!();

    fn stat(&self) -> Stat {
        let mut s = self.node.attr.stat(0);
        // As Linux's tmpfs counts: 20 bytes an entry.
        s.size = self.entries.lock().visible.saturating_mul(20).max(40);
        s.blocks = 0;
        s
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let entries = self.entries.lock();
        match entries.get(name) {
            Some(e) => return e.inode().cloned().ok_or(Error::NotFound),
            None if self.lower.is_none() => return Err(Error::NotFound),
            None => drop(entries),
        }
        let found = self.lower().and_then(|(t, d)| t.lookup(d, name));
        let inode = node::materialise(&self.node.fs, found.ok_or(Error::NotFound)?)?;
        let mut entries = self.entries.lock();
        entries.reserve(&self.node.fs, 1, name)?;
        entries.put(name, Entry::Lower(inode.clone()));
        entries.settle(&self.node.fs);
        Ok(inode)
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let fs = &self.node.fs;
        let inode = node::make(fs, &new.attr, new.target, fs.new_ino())?;
        self.insert(name, inode.clone())?;
        if new.attr.kind == Kind::Directory {
            self.node.attr.add_links(1);
        }
        Ok(inode)
    }

    fn create_unnamed(&self, new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let fs = &self.node.fs;
        let inode = node::make(fs, &new.attr, new.target, fs.new_ino())?;
        inode.attr().drop_links(1);
        Ok(inode)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        if target.attr().nlink() >= LINKS_MAX {
            return Err(Error::TooManyHardLinks);
        }
        self.insert(name, target.clone())?;
        target.attr().add_links(1);
        target.attr().touch_changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let gone = self.remove(name)?;
        self.unlinked(&gone);
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let victim = self.lookup(name)?;
        match victim.as_any().downcast_ref::<TmpDir>() {
            Some(d) if d.is_empty() => {}
            Some(_) => return Err(Error::NotEmpty),
            None => return Err(Error::NotDirectory),
        }
        self.remove(name)?;
        self.unlinked(&victim);
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &dyn Inode, new_name: &[u8], mode: RenameMode) -> Result<()> {
        let to = to.as_any().downcast_ref().ok_or(Error::CrossDevice)?;
        self.rename_to(name, to, new_name, mode)
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        let entries = self.entries.lock();
        let first = usize::try_from(from.saturating_sub(SLOTS_AT)).unwrap_or(usize::MAX);
        for (at, slot) in entries.slots.iter().enumerate().skip(first) {
            if let Some(Slot {
                name,
                entry: Entry::Own(inode),
            }) = slot
            {
                let attr = inode.attr();
                let entry = DirEntry {
                    name,
                    ino: attr.ino,
                    kind: attr.kind,
                    next: SLOTS_AT + at as u64 + 1,
                };
                if !emit(entry) {
                    return Ok(());
                }
            }
        }
        drop(entries);
        self.list_lower(from, emit);
        Ok(())
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        // Directories can be nested deeper than the stack is, and there may be no
        // memory for a list: so this goes down with the slots of one directory in
        // hand, and leaves those of the one above in the one below, which is empty
        // now.
        let entries = self.entries.get_mut();
        self.node.fs.give_bytes(entries.paid);
        let mut slots = core::mem::take(&mut entries.slots);
        let mut back: Option<Arc<dyn Inode>> = None;
        loop {
            let Some(slot) = slots.pop() else {
                let Some(inode) = back.take() else { return };
                if let Some(dir) = inode.as_any().downcast_ref::<TmpDir>() {
                    let mut below = dir.entries.lock();
                    slots = core::mem::take(&mut below.slots);
                    back = below.back.take();
                }
                continue;
            };
            thread::cond_resched();
            let Some(Entry::Own(inode) | Entry::Lower(inode)) = slot.map(|s| s.entry) else {
                continue;
            };
            if Arc::strong_count(&inode) == 1
                && let Some(dir) = inode.as_any().downcast_ref::<TmpDir>()
            {
                let mut below = dir.entries.lock();
                core::mem::swap(&mut below.slots, &mut slots);
                below.back = back.take();
                drop(below);
                back = Some(inode);
            }
        }
    }
}
