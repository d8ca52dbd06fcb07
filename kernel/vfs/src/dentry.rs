//! The name cache: which name in which directory leads to which inode.
//!
//! A [`Dentry`] is one name that was looked up, found (with its inode) or not (a
//! *negative* entry). Directories keep the entries below them; an entry knows its
//! parent weakly, because a directory can only be evicted once nothing is cached
//! below it. Its inode never changes: a name that gets another inode gets another
//! dentry.
//!
//! Locks, outermost first: the rename lock of a tree, [`Dir::lock`] of
//! directories (parents before children, else by address), then the spin locks
//! `children`, `place`, and the clock of [`Cache`], of which one is held at a
//! time, but for `children` of a parent before `children` of its child.

use crate::error::Result;
use crate::inode::{Inode, Kind};
use crate::mount::Mount;
use crate::name::{self, Name};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use hashbrown::HashTable;
use machine::sync::{Mutex, SpinLock};

/// Entries one tree remembers.
const CACHE_MAX: usize = 8192;
/// Entries looked at in one search for something to forget.
const SCAN_MAX: usize = 64;
/// The slot of an entry that is not in the clock.
const NO_SLOT: usize = usize::MAX;

/// How an entry holds on to its parent.
enum Parent {
    /// The root of a tree has none.
    None,
    /// The parent holds this entry in its table, and lives as long as that.
    Weak(Weak<Dentry>),
    /// This entry is in no table (an uncached directory's).
    Strong(Arc<Dentry>),
}

struct Place {
    parent: Parent,
    name: Name,
}

/// A name in a tree and what it leads to.
pub struct Dentry {
    inode: Option<Arc<dyn Inode>>,
    place: SpinLock<Place>,
    dir: Option<Box<Dir>>,
    /// The name is gone (unlinked, or replaced by a rename), or never was.
    removed: AtomicBool,
    /// It never had a name (`O_TMPFILE`) and may be given one.
    linkable: AtomicBool,
    /// Looked up since the clock's hand passed.
    used: AtomicBool,
    slot: AtomicUsize,
}

/// What only directories have.
pub struct Dir {
    /// Held while entries are looked up in the file system or changed.
    pub lock: Mutex<()>,
    children: SpinLock<HashTable<Child>>,
    has_mount: AtomicBool,
    mount: SpinLock<Option<Arc<Mount>>>,
}

struct Child {
    name: Name,
    dentry: Arc<Dentry>,
}

impl Dentry {
    fn new(inode: Option<Arc<dyn Inode>>, parent: Parent, name: &[u8]) -> Arc<Dentry> {
        let is_dir = inode
            .as_ref()
            .is_some_and(|i| i.attr().kind == Kind::Directory);
        Arc::new(Dentry {
            inode,
            place: SpinLock::new(Place {
                parent,
                name: Name::from_slice(name),
            }),
            dir: is_dir.then(|| {
                Box::new(Dir {
                    lock: Mutex::new(()),
                    children: SpinLock::new(HashTable::new()),
                    has_mount: AtomicBool::new(false),
                    mount: SpinLock::new(None),
                })
            }),
            removed: AtomicBool::new(false),
            linkable: AtomicBool::new(false),
            used: AtomicBool::new(false),
            slot: AtomicUsize::new(NO_SLOT),
        })
    }

    /// The root of a tree.
    #[must_use]
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(Some(inode), Parent::None, b"/")
    }

    /// An entry below `parent` that is remembered nowhere.
    #[must_use]
    pub fn uncached(parent: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(Some(inode), Parent::Strong(parent.clone()), name)
    }

    /// Its inode; `None` if there is no such file.
    #[inline]
    #[must_use]
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.inode.as_ref()
    }

    /// The directory half, if it is one.
    #[inline]
    #[must_use]
    pub fn dir(&self) -> Option<&Dir> {
        self.dir.as_deref()
    }

    /// The directory above; `None` at the root of the tree.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        match &self.place.lock().parent {
            Parent::None => None,
            Parent::Weak(p) => p.upgrade(),
            Parent::Strong(p) => Some(p.clone()),
        }
    }

    /// Its name in the directory above.
    #[must_use]
    pub fn name(&self) -> Name {
        self.place.lock().name.clone()
    }

    /// Whether the name is gone.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    /// Notes that the name is gone.
    pub(crate) fn set_removed(&self) {
        self.removed.store(true, Relaxed);
    }

    /// Notes that this is a file without a name, which may get one if `linkable`.
    pub(crate) fn set_unnamed(&self, linkable: bool) {
        self.set_removed();
        self.linkable.store(linkable, Relaxed);
    }

    /// Whether it may be given a name although it has none.
    pub(crate) fn is_linkable(&self) -> bool {
        self.linkable.load(Relaxed)
    }

    /// Whether `self` is `ancestor` or lies below it.
    #[must_use]
    pub fn is_below(self: &Arc<Dentry>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(p) => at = p,
                None => return false,
            }
        }
    }

    /// What is mounted here.
    #[inline]
    #[must_use]
    pub fn mounted(&self) -> Option<Arc<Mount>> {
        let dir = self.dir()?;
        if !dir.has_mount.load(Relaxed) {
            return None;
        }
        dir.mount.lock().clone()
    }

    /// Mounts `mount` here, or takes what is mounted away.
    pub(crate) fn set_mounted(&self, mount: Option<Arc<Mount>>) -> Option<Arc<Mount>> {
        let dir = self.dir()?;
        dir.has_mount.store(mount.is_some(), Relaxed);
        core::mem::replace(&mut *dir.mount.lock(), mount)
    }

    /// The remembered entry `name`, negative ones included.
    #[inline]
    #[must_use]
    pub fn cached(&self, name: &[u8], hash: u64) -> Option<Arc<Dentry>> {
        let children = self.dir()?.children.lock();
        let child = children.find(hash, |c| name::same(&c.name, name))?;
        child.dentry.used.store(true, Relaxed);
        Some(child.dentry.clone())
    }
}

/// Entries below a directory. All of these need [`Dir::lock`].
impl Dentry {
    /// Forgets `name`; what it was.
    pub(crate) fn forget(&self, cache: &Cache, name: &[u8]) -> Option<Arc<Dentry>> {
        let h = name::hash(name);
        let mut children = self.dir()?.children.lock();
        let entry = children.find_entry(h, |c| c.name.as_slice() == name).ok()?;
        let gone = entry.remove().0;
        drop(children);
        cache.leave(&gone.dentry);
        Some(gone.dentry)
    }

    /// Remembers that `name` leads to `inode`, or nowhere, in place of what was
    /// known before.
    pub(crate) fn remember(
        self: &Arc<Dentry>,
        cache: &Cache,
        name: &[u8],
        inode: Option<Arc<dyn Inode>>,
    ) -> Result<Arc<Dentry>> {
        let new = Dentry::new(inode, Parent::Weak(Arc::downgrade(self)), name);
        self.adopt(cache, name, new.clone())?;
        Ok(new)
    }

    /// Puts `dentry` below this directory under `name` (a rename does that with
    /// one that was elsewhere before).
    pub(crate) fn adopt(
        self: &Arc<Dentry>,
        cache: &Cache,
        name: &[u8],
        dentry: Arc<Dentry>,
    ) -> Result<()> {
        let Some(dir) = self.dir() else {
            return Err(crate::Error::NotDirectory);
        };
        *dentry.place.lock() = Place {
            parent: Parent::Weak(Arc::downgrade(self)),
            name: Name::from_slice(name),
        };
        let h = name::hash(name);
        let child = Child {
            name: Name::from_slice(name),
            dentry: dentry.clone(),
        };
        let mut children = dir.children.lock();
        children.try_reserve(1, |c| name::hash(&c.name))?;
        let old = match children.find_entry(h, |c| c.name.as_slice() == name) {
            Ok(mut have) => Some(core::mem::replace(have.get_mut(), child)),
            Err(_) => {
                children.insert_unique(h, child, |c| name::hash(&c.name));
                None
            }
        };
        drop(children);
        if let Some(old) = old {
            cache.leave(&old.dentry);
        }
        cache.enter(&dentry);
        Ok(())
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // A program can nest directories far deeper than the stack is: take the
        // tree apart in a loop instead of letting `drop` recurse.
        let Some(dir) = self.dir.as_mut() else { return };
        let mut pending: Vec<Arc<Dentry>> = Vec::new();
        collect(dir, &mut pending);
        while let Some(next) = pending.pop() {
            if let Some(mut last) = Arc::into_inner(next)
                && let Some(dir) = last.dir.as_mut()
            {
                collect(dir, &mut pending);
            }
        }
    }
}

fn collect(dir: &mut Dir, pending: &mut Vec<Arc<Dentry>>) {
    let children = core::mem::take(dir.children.get_mut());
    // Without memory they go at once, one inside the other.
    if pending.try_reserve(children.len()).is_err() {
        return;
    }
    pending.extend(children.into_iter().map(|c| c.dentry));
}

/// The remembered entries of one tree, for forgetting those that were not used
/// for long ("clock" replacement).
#[derive(Default)]
pub struct Cache {
    clock: SpinLock<Clock>,
}

#[derive(Default)]
struct Clock {
    slots: Vec<Option<Weak<Dentry>>>,
    free: Vec<usize>,
    hand: usize,
}

impl Cache {
    /// Counts `dentry` in. When that makes too many, forgets others; one that
    /// cannot be counted for want of memory is just never forgotten early.
    fn enter(&self, dentry: &Arc<Dentry>) {
        let mut clock = self.clock.lock();
        if dentry.slot.load(Relaxed) != NO_SLOT {
            return;
        }
        let at = match clock.free.pop() {
            Some(at) => at,
            None => {
                let n = clock.slots.len();
                if clock.slots.try_reserve(1).is_err() || clock.free.try_reserve(n + 1).is_err() {
                    return;
                }
                clock.slots.push(None);
                n
            }
        };
        if let Some(slot) = clock.slots.get_mut(at) {
            *slot = Some(Arc::downgrade(dentry));
            dentry.slot.store(at, Relaxed);
        }
        let live = clock.slots.len() - clock.free.len();
        drop(clock);
        if live > CACHE_MAX {
            self.evict();
        }
    }

    /// Counts `dentry` out.
    fn leave(&self, dentry: &Dentry) {
        let mut clock = self.clock.lock();
        let at = dentry.slot.swap(NO_SLOT, Relaxed);
        if let Some(slot) = clock.slots.get_mut(at) {
            *slot = None;
            clock.free.push(at);
        }
    }

    /// Forgets an entry or two that nobody uses.
    fn evict(&self) {
        let mut gone = 0;
        for _ in 0..SCAN_MAX {
            let Some(candidate) = self.candidate() else {
                continue;
            };
            gone += usize::from(self.try_forget(&candidate));
            if gone == 2 {
                return;
            }
        }
    }

    /// The next entry under the hand that was not used since the last round.
    fn candidate(&self) -> Option<Arc<Dentry>> {
        let mut clock = self.clock.lock();
        let n = clock.slots.len();
        let at = clock.hand % n.max(1);
        clock.hand = at + 1;
        let dentry = clock.slots.get(at)?.as_ref()?.upgrade()?;
        (!dentry.used.swap(false, Relaxed)).then_some(dentry)
    }

    fn try_forget(&self, dentry: &Arc<Dentry>) -> bool {
        let Some(parent) = dentry.parent() else {
            return false;
        };
        let Some(above) = parent.dir() else {
            return false;
        };
        let mut children = above.children.lock();
        // Two references are the parent's table and this function's: nobody else
        // has it, and under the lock nobody can get it.
        if Arc::strong_count(dentry) != 2 {
            return false;
        }
        if let Some(dir) = dentry.dir()
            && (!dir.children.lock().is_empty() || dir.has_mount.load(Relaxed))
        {
            return false;
        }
        let name = dentry.name();
        let found = children.find_entry(name::hash(&name), |c| Arc::ptr_eq(&c.dentry, dentry));
        let Ok(entry) = found else { return false };
        let child = entry.remove().0;
        drop(children);
        self.leave(&child.dentry);
        true
    }
}
