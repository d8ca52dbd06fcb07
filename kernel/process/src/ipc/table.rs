//! Keys, identifiers and permissions, which all three kinds share.

use super::{Caller, Error, Result, now};
use alloc::sync::Arc;
use alloc::vec::Vec;
use vfs::Caps;

/// Identifiers are a counter times this, plus the place in the table.
const PLACES: usize = 32_768;
/// Counters there are, so that identifiers stay positive.
const COUNTS: u32 = 65_536;
/// The key that never names anything (`IPC_PRIVATE`).
const PRIVATE: i32 = 0;
/// `IPC_CREAT` and `IPC_EXCL`.
const CREATE: u32 = 0o1000;
const EXCLUSIVE: u32 = 0o2000;

/// Owner, maker and mode (`struct ipc_perm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// What it was made for.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Maker.
    pub cuid: u32,
    /// Its group.
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Perm {
    /// What `caller` makes.
    pub(crate) fn new(key: i32, mode: u32, caller: Caller<'_>) -> Perm {
        let (uid, gid) = (caller.cred.euid, caller.cred.egid);
        Perm {
            key,
            uid,
            gid,
            cuid: uid,
            cgid: gid,
            mode: mode & 0o777,
        }
    }

    /// Whether `caller` may do what the bits of `wanted`, in any of the three
    /// places, ask for: 4 to read, 2 to change.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub(crate) fn check(&self, caller: Caller<'_>, wanted: u32) -> Result<()> {
        let wanted = (wanted >> 6 | wanted >> 3 | wanted) & 7;
        let c = caller.cred;
        let member = |gid| c.egid == gid || c.groups.contains(gid);
        let granted = if c.euid == self.cuid || c.euid == self.uid {
            self.mode >> 6
        } else if member(self.cgid) || member(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 != 0 && !c.has(Caps::IPC_OWNER) {
            return Err(Error::Denied);
        }
        Ok(())
    }

    /// Whether `caller` may change or remove it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`].
    pub(crate) fn check_owner(&self, caller: Caller<'_>) -> Result<()> {
        let c = caller.cred;
        if c.euid == self.uid || c.euid == self.cuid || c.has(Caps::SYS_ADMIN) {
            return Ok(());
        }
        Err(Error::NotPermitted)
    }
}

/// One object of a table.
pub struct Entry<T> {
    /// Its identifier.
    pub id: i32,
    /// Who may do what.
    pub perm: Perm,
    /// When it was made or changed last.
    pub changed: i64,
    /// The object.
    pub object: Arc<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Entry {
            object: self.object.clone(),
            ..*self
        }
    }
}

/// How an object is asked for: a key, and mode and flags as in shmget(2).
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The key.
    pub key: i32,
    /// Permission bits, `IPC_CREAT`, `IPC_EXCL`.
    pub flags: u32,
}

/// The objects of one kind.
pub(crate) struct Table<T> {
    places: Vec<Option<Entry<T>>>,
    used: usize,
    count: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table {
            places: Vec::new(),
            used: 0,
            count: 0,
        }
    }
}

impl<T> Table<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// The highest place that is taken, 0 if none is.
    pub(crate) fn last_place(&self) -> usize {
        self.places.iter().rposition(Option::is_some).unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.places.iter().flatten()
    }

    /// The object `wanted`, or a new one made by `make`; its identifier. `fits`
    /// looks at one that is there.
    ///
    /// # Errors
    /// Those of shmget(2) and its like; [`Error::NoSpace`] above `max` objects.
    pub(crate) fn get(
        &mut self,
        wanted: Wanted,
        caller: Caller<'_>,
        max: usize,
        fits: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(i32) -> Result<Arc<T>>,
    ) -> Result<i32> {
        let named = |e: &&Entry<T>| wanted.key != PRIVATE && e.perm.key == wanted.key;
        if let Some(entry) = self.iter().find(named) {
            if wanted.flags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE {
                return Err(Error::Exists);
            }
            fits(&entry.object)?;
            entry.perm.check(caller, wanted.flags & 0o777)?;
            return Ok(entry.id);
        }
        if wanted.key != PRIVATE && wanted.flags & CREATE == 0 {
            return Err(Error::NotFound);
        }
        if self.used >= max.min(PLACES) {
            return Err(Error::NoSpace);
        }
        let place = match self.places.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.places.try_reserve(1)?;
                self.places.push(None);
                self.places.len() - 1
            }
        };
        let id = (self.count as usize * PLACES + place) as i32;
        let object = make(id)?;
        self.count = (self.count + 1) % COUNTS;
        if let Some(slot) = self.places.get_mut(place) {
            *slot = Some(Entry {
                id,
                perm: Perm::new(wanted.key, wanted.flags, caller),
                changed: now(),
                object,
            });
            self.used += 1;
        }
        Ok(id)
    }

    fn place(&mut self, id: i32) -> Result<&mut Option<Entry<T>>> {
        let place = usize::try_from(id).map_err(|_| Error::Invalid)? % PLACES;
        let slot = self.places.get_mut(place).ok_or(Error::Invalid)?;
        match slot {
            Some(e) if e.id == id => Ok(slot),
            _ => Err(Error::Invalid),
        }
    }

    /// The object of that identifier.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub(crate) fn entry(&mut self, id: i32) -> Result<&mut Entry<T>> {
        self.place(id)?.as_mut().ok_or(Error::Invalid)
    }

    /// The object at a place (`SHM_STAT` and its like), which may be told as the
    /// identifier of what is or was there.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub(crate) fn at(&self, place: usize) -> Result<&Entry<T>> {
        let found = self.places.get(place % PLACES).and_then(Option::as_ref);
        found.ok_or(Error::Invalid)
    }

    /// The first object from `place` on, and the place behind it.
    pub(crate) fn from(&self, place: usize) -> Option<(usize, Arc<T>)> {
        let rest = self.places.get(place..)?;
        let (skipped, entry) = rest
            .iter()
            .enumerate()
            .find_map(|(i, e)| Some((i, e.as_ref()?)))?;
        Some((place + skipped + 1, entry.object.clone()))
    }

    /// The object, for a caller who may do `wanted` with it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub(crate) fn open(&mut self, id: i32, caller: Caller<'_>, wanted: u32) -> Result<Arc<T>> {
        let entry = self.entry(id)?;
        entry.perm.check(caller, wanted)?;
        Ok(entry.object.clone())
    }

    /// Sets owner and mode (`IPC_SET`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub(crate) fn set(
        &mut self,
        id: i32,
        caller: Caller<'_>,
        (uid, gid, mode): (u32, u32, u32),
    ) -> Result<&Arc<T>> {
        let entry = self.entry(id)?;
        entry.perm.check_owner(caller)?;
        (entry.perm.uid, entry.perm.gid) = (uid, gid);
        entry.perm.mode = entry.perm.mode & !0o777 | mode & 0o777;
        entry.changed = now();
        Ok(&entry.object)
    }

    /// Takes an object out (`IPC_RMID`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub(crate) fn remove(&mut self, id: i32, caller: Caller<'_>) -> Result<Entry<T>> {
        self.entry(id)?.perm.check_owner(caller)?;
        let gone = self.place(id)?.take().ok_or(Error::Invalid)?;
        self.used -= 1;
        Ok(gone)
    }

    /// All of them, as they are now.
    ///
    /// # Errors
    /// No memory for the list.
    pub(crate) fn all(&self) -> Result<Vec<Entry<T>>> {
        let mut all = Vec::new();
        all.try_reserve_exact(self.used)?;
        all.extend(self.iter().cloned());
        Ok(all)
    }

    /// Takes out all that `dead` says.
    pub(crate) fn remove_if(&mut self, dead: impl Fn(&Entry<T>) -> bool) -> Vec<Entry<T>> {
        let mut gone = Vec::new();
        for slot in &mut self.places {
            if let Some(e) = slot.take_if(|e| dead(e)) {
                self.used -= 1;
                // Those that there is no memory to list are dropped here.
                if gone.try_reserve(1).is_ok() {
                    gone.push(e);
                }
            }
        }
        gone
    }
}
