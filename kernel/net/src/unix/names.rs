//! Who is bound to which unix name, in one network stack.

use super::Listener;
use super::datagram::Inbox;
use crate::addr::{FileKey, UnixName};
use crate::error::{Error, Result};
use crate::keyhash::{self, KeyedMap};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use machine::sync::SpinLock;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Abstract(Arc<[u8]>),
    File(FileKey),
}

/// Who answers at a name.
#[derive(Clone)]
pub(crate) enum Target {
    /// Bound, but it neither listens nor takes datagrams.
    Silent,
    /// A listening socket.
    Listener(Listener),
    /// A datagram socket.
    Inbox(Weak<Inbox>),
}

struct Entry {
    id: u64,
    target: Target,
}

/// The unix names of a stack. Path names are those of socket files, which the
/// file room finds; what is kept here is who is bound to the file.
pub struct Names {
    map: SpinLock<KeyedMap<Key, Entry>>,
    next: AtomicU64,
    next_auto: AtomicU32,
}

/// A held name; dropping it gives it back. A socket file stays, as on Linux.
pub(crate) struct Held {
    names: Arc<Names>,
    key: Key,
    id: u64,
    name: UnixName,
}

fn key_of(name: &UnixName) -> Result<Key> {
    match name {
        UnixName::Unnamed => Err(Error::INVALID),
        UnixName::Abstract(bytes) => Ok(Key::Abstract(bytes.clone())),
        // A path that nobody looked up leads nowhere.
        UnixName::Path(_, key) => key.map(Key::File).ok_or(Error::INVALID),
    }
}

impl Names {
    /// No names.
    #[must_use]
    pub fn new() -> Names {
        Names {
            map: SpinLock::new(keyhash::map()),
            next: AtomicU64::new(1),
            next_auto: AtomicU32::new(machine::random::next_u64() as u32),
        }
    }

    /// Takes `name`. A socket file that was just made is always taken over.
    ///
    /// # Errors
    /// [`Error::AddressInUse`]; no memory.
    pub(crate) fn hold(self: &Arc<Self>, name: UnixName, target: Target) -> Result<Held> {
        let key = key_of(&name)?;
        let mut map = self.map.lock();
        if matches!(key, Key::Abstract(_)) && map.contains_key(&key) {
            return Err(Error::AddressInUse);
        }
        map.try_reserve(1)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        map.insert(key.clone(), Entry { id, target });
        drop(map);
        Ok(Held {
            names: self.clone(),
            key,
            id,
            name,
        })
    }

    /// Takes an abstract name of five hexadecimal digits that is free (autobind).
    ///
    /// # Errors
    /// [`Error::File`] with `NoSpace` when all are taken.
    pub(crate) fn hold_any(self: &Arc<Self>, target: &Target) -> Result<Held> {
        for _ in 0..0x10_0000 {
            let n = self.next_auto.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
            let digits: [u8; 5] = core::array::from_fn(|i| {
                let d = (n >> (16 - 4 * i)) & 0xf;
                char::from_digit(d, 16).map_or(b'0', |c| c as u8)
            });
            let name = UnixName::Abstract(digits.as_slice().into());
            match self.hold(name, target.clone()) {
                Err(Error::AddressInUse) => {}
                other => return other,
            }
        }
        Err(Error::File(vfs::Error::NoSpace))
    }

    /// Who answers at `name`.
    ///
    /// # Errors
    /// [`Error::Refused`] if nobody does.
    pub(crate) fn find(&self, name: &UnixName) -> Result<Target> {
        let key = key_of(name)?;
        let map = self.map.lock();
        map.get(&key)
            .map(|e| e.target.clone())
            .ok_or(Error::Refused)
    }

    /// Forgets every name.
    pub(crate) fn clear(&self) {
        let all = core::mem::replace(&mut *self.map.lock(), keyhash::map());
        drop(all);
    }

    /// Calls `f` for every bound abstract name.
    pub fn for_each_abstract(&self, mut f: impl FnMut(&[u8])) {
        for key in self.map.lock().keys() {
            if let Key::Abstract(bytes) = key {
                f(bytes);
            }
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Held {
    pub(crate) fn name(&self) -> &UnixName {
        &self.name
    }

    /// Sends who comes to `target` from now on.
    pub(crate) fn set_target(&self, target: Target) {
        let mut map = self.names.map.lock();
        if let Some(e) = map.get_mut(&self.key).filter(|e| e.id == self.id) {
            e.target = target;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut map = self.names.map.lock();
        let mine = map.get(&self.key).is_some_and(|e| e.id == self.id);
        let gone = if mine { map.remove(&self.key) } else { None };
        drop(map);
        drop(gone);
    }
}
