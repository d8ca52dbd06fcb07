//! inotify(7): news of files and directories.
//!
//! A [`Watch`] hangs on an inode ([`crate::Attr::watches`]) and puts events into
//! the queue of its [`Inotify`]. While there is no watch at all, which is almost
//! always, every hook costs one load.

use crate::dentry::Dentry;
use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::file::{FileOps, OpenFile};
use crate::inode::{Inode, Kind};
use crate::name::Name;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::any::Any;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use machine::io::Sink;
use machine::sync::SpinLock;
use machine::wait::Until;
use machine::{Account, Objects};

/// Events a queue holds (`max_queued_events`).
const QUEUE_MAX: usize = 16_384;
/// Watches of one instance (`max_user_watches` is larger, but shared).
const WATCHES_MAX: usize = 65_536;
/// Memory of a watch: itself and its places in two lists.
const WATCH_BYTES: usize = size_of::<Watch>() + 64;
/// Bytes of an event without its name.
const HEAD: usize = 16;
/// `FIONREAD` of ioctl_tty(2).
const FIONREAD: u32 = 0x541b;

bitflags! {
    /// What happened, or what is watched, with the numbers of inotify(7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Mask: u32 {
        /// Read.
        const ACCESS = 0x1;
        /// Written or truncated.
        const MODIFY = 0x2;
        /// Attributes or links changed.
        const ATTRIB = 0x4;
        /// Closed by somebody who could write.
        const CLOSE_WRITE = 0x8;
        /// Closed by somebody who could not.
        const CLOSE_NOWRITE = 0x10;
        /// Opened.
        const OPEN = 0x20;
        /// An entry was renamed away.
        const MOVED_FROM = 0x40;
        /// An entry was renamed here.
        const MOVED_TO = 0x80;
        /// An entry was made.
        const CREATE = 0x100;
        /// An entry was removed.
        const DELETE = 0x200;
        /// The object itself was removed.
        const DELETE_SELF = 0x400;
        /// The object itself was renamed.
        const MOVE_SELF = 0x800;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// Watch only if it is a directory.
        const ONLYDIR = 0x0100_0000;
        /// Do not follow a symbolic link.
        const DONT_FOLLOW = 0x0200_0000;
        /// No events of removed entries.
        const EXCL_UNLINK = 0x0400_0000;
        /// Fail if it is watched already.
        const MASK_CREATE = 0x1000_0000;
        /// Add to the mask of an existing watch.
        const MASK_ADD = 0x2000_0000;
        /// The object is a directory.
        const ISDIR = 0x4000_0000;
        /// Tell once, then remove the watch.
        const ONESHOT = 0x8000_0000;
    }
}

impl Mask {
    /// What can happen.
    pub const ALL_EVENTS: Mask = Mask::from_bits_retain(0xfff);
    /// What is told whether asked for or not.
    const ALWAYS: Mask = Mask::IGNORED.union(Mask::Q_OVERFLOW);
}

/// Watches in the whole kernel.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// The watches on one inode.
pub type Watches = SpinLock<Vec<Arc<Watch>>>;

/// One instance's interest in one inode.
pub struct Watch {
    wd: i32,
    mask: AtomicU32,
    owner: Weak<Inotify>,
    inode: Weak<dyn Inode>,
}

#[derive(Clone, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: Mask,
    cookie: u32,
    name: Name,
}

impl Event {
    /// Events were lost.
    fn overflow() -> Event {
        Event {
            wd: -1,
            mask: Mask::Q_OVERFLOW,
            cookie: 0,
            name: Name::new(),
        }
    }

    /// An event with a name; `None` without memory for it.
    fn named(wd: i32, mask: Mask, cookie: u32, name: &[u8]) -> Option<Event> {
        let mut copy = Name::new();
        copy.try_reserve_exact(name.len()).ok()?;
        copy.extend_from_slice(name);
        Some(Event {
            wd,
            mask,
            cookie,
            name: copy,
        })
    }

    /// Memory of it: its place, twice for the room that a growing queue keeps, and
    /// its name where that is long.
    fn bytes(&self) -> usize {
        let apart = if self.name.spilled() {
            self.name.len().next_power_of_two()
        } else {
            0
        };
        2 * size_of::<Event>() + apart
    }

    /// Bytes of the name as it is told: with a NUL, rounded up.
    fn name_len(&self) -> usize {
        match self.name.len() {
            0 => 0,
            n => (n + 1).next_multiple_of(HEAD),
        }
    }
}

struct State {
    queue: VecDeque<Event>,
    /// Bytes that the events in the queue take.
    queue_bytes: usize,
    queue_memory: Objects,
    watches: BTreeMap<i32, Arc<Watch>>,
    watches_memory: Objects,
    last: i32,
}

impl State {
    /// Whether there is a place in the queue and memory for `event`.
    fn pay(&mut self, event: &Event) -> bool {
        let bytes = self.queue_bytes + event.bytes();
        self.queue.len() < QUEUE_MAX && self.queue_memory.set(bytes).is_ok()
    }

    /// What is paid is what the queue takes. The event that says that events were
    /// lost is queued even where it cannot be paid for: there is one in a row.
    fn settle(&mut self) {
        let _ = self.queue_memory.set(self.queue_bytes);
    }
}

/// An inotify instance.
pub struct Inotify {
    me: Weak<Inotify>,
    state: SpinLock<State>,
    hub: PollHub,
}

/// Whether anybody watches anything.
#[inline]
#[must_use]
pub fn is_used() -> bool {
    WATCHES.load(Relaxed) != 0
}

/// Tells those who watch `inode` itself, but for those whose mask has one of `except`.
fn tell_unless(inode: &dyn Inode, mask: Mask, cookie: u32, name: &[u8], except: Mask) {
    let Some(watches) = inode.attr().watches_if_any() else {
        return;
    };
    // References that go only after the lock: the last one ends an instance,
    // which takes its watches off.
    let mut told = Vec::new();
    for watch in &*watches.lock() {
        let wanted = Mask::from_bits_retain(watch.mask.load(Relaxed));
        if !wanted.union(Mask::ALWAYS).intersects(mask) || wanted.intersects(except) {
            continue;
        }
        if told.try_reserve(1).is_err() {
            break;
        }
        if let Some(owner) = watch.owner.upgrade() {
            owner.push(watch.wd, mask, cookie, name);
            told.push((owner, watch.wd, wanted.contains(Mask::ONESHOT)));
        }
    }
    for (owner, wd, once) in told {
        if once {
            // It may have been removed meanwhile.
            let _ = owner.remove(wd);
        }
    }
}

/// Tells those who watch `inode` itself.
fn tell(inode: &dyn Inode, mask: Mask, cookie: u32, name: &[u8]) {
    tell_unless(inode, mask, cookie, name, Mask::empty());
}

fn with_kind(inode: &dyn Inode, mask: Mask) -> Mask {
    if inode.attr().kind == Kind::Directory {
        mask | Mask::ISDIR
    } else {
        mask
    }
}

/// Something happened to the object at `dentry`: told to those who watch it and,
/// with its name, its directory.
#[cold]
pub(crate) fn object(dentry: &Dentry, mask: Mask) {
    let Some(inode) = dentry.inode() else { return };
    let mask = with_kind(&**inode, mask);
    let except = match dentry.is_removed() {
        true => Mask::EXCL_UNLINK,
        false => Mask::empty(),
    };
    if let Some(dir) = dentry.parent().as_ref().and_then(|p| p.inode()) {
        tell_unless(&**dir, mask, 0, &dentry.name(), except);
    }
    tell(&**inode, mask, 0, &[]);
}

/// The entry `name` of `dir`, which leads or led to `inode`, was made, removed or
/// renamed; `cookie` joins both ends of a rename.
#[cold]
pub(crate) fn entry(dir: &dyn Inode, name: &[u8], inode: &dyn Inode, mask: Mask, cookie: u32) {
    tell(dir, with_kind(inode, mask), cookie, name);
}

/// `inode` lost a name.
#[cold]
pub(crate) fn unlinked(inode: &dyn Inode) {
    // Of a directory, whose links are not names, only its end is told.
    if inode.attr().kind != Kind::Directory {
        tell(inode, Mask::ATTRIB, 0, &[]);
    }
    if inode.attr().nlink() > 0 {
        return;
    }
    tell(inode, Mask::DELETE_SELF, 0, &[]);
    let Some(watches) = inode.attr().watches_if_any() else {
        return;
    };
    loop {
        let Some(watch) = watches.lock().pop() else {
            return;
        };
        if let Some(owner) = watch.owner.upgrade() {
            let _ = owner.remove(watch.wd);
        }
    }
}

/// `inode` itself was renamed; as of its end, it is not told whether it is a directory.
#[cold]
pub(crate) fn moved(inode: &dyn Inode) {
    tell(inode, Mask::MOVE_SELF, 0, &[]);
}

/// A number that joins the two ends of a rename.
pub(crate) fn cookie() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl Inotify {
    /// An instance without watches, for which `account` will pay.
    #[must_use]
    pub fn new(account: &Arc<Account>) -> Arc<Inotify> {
        let state = State {
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_memory: Objects::new(account.clone(), 1),
            watches: BTreeMap::new(),
            watches_memory: Objects::new(account.clone(), WATCH_BYTES),
            last: 0,
        };
        Arc::new_cyclic(|me| Inotify {
            me: me.clone(),
            state: SpinLock::new(state),
            hub: PollHub::new(),
        })
    }

    /// Watches `inode`, or changes the watch there is; its number.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotDirectory`], [`Error::NoSpace`],
    /// [`Error::Invalid`].
    pub fn add(&self, inode: &Arc<dyn Inode>, mask: Mask) -> Result<i32> {
        if !mask.intersects(Mask::ALL_EVENTS) {
            return Err(Error::Invalid);
        }
        if mask.contains(Mask::ONLYDIR) && inode.attr().kind != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        let mut watches = inode.attr().watches().lock();
        let mine = |w: &&Arc<Watch>| core::ptr::eq(w.owner.as_ptr(), self);
        if let Some(have) = watches.iter().find(mine) {
            if mask.contains(Mask::MASK_CREATE) {
                return Err(Error::Exists);
            }
            let old = have.mask.load(Relaxed);
            let keep = if mask.contains(Mask::MASK_ADD) {
                old
            } else {
                0
            };
            have.mask.store(keep | mask.bits(), Relaxed);
            return Ok(have.wd);
        }
        let mut state = self.state.lock();
        if state.watches.len() >= WATCHES_MAX {
            return Err(Error::NoSpace);
        }
        watches.try_reserve(1)?;
        let wd = state.last.checked_add(1).ok_or(Error::NoSpace)?;
        let count = state.watches.len() + 1;
        state.watches_memory.set(count)?;
        state.last = wd;
        let watch = Arc::new(Watch {
            wd,
            mask: AtomicU32::new(mask.bits()),
            owner: self.me.clone(),
            inode: Arc::downgrade(inode),
        });
        state.watches.insert(wd, watch.clone());
        watches.push(watch);
        WATCHES.fetch_add(1, Relaxed);
        Ok(wd)
    }

    /// Removes the watch `wd`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is none.
    pub fn remove(&self, wd: i32) -> Result<()> {
        let watch = {
            let mut state = self.state.lock();
            let watch = state.watches.remove(&wd).ok_or(Error::Invalid)?;
            let count = state.watches.len();
            // Fewer never fails.
            let _ = state.watches_memory.set(count);
            watch
        };
        detach(&watch);
        self.push(wd, Mask::IGNORED, 0, &[]);
        Ok(())
    }

    fn push(&self, wd: i32, mask: Mask, cookie: u32, name: &[u8]) {
        let mask = mask.intersection(Mask::ALL_EVENTS | Mask::ALWAYS | Mask::ISDIR);
        let event = Event::named(wd, mask, cookie, name);
        let mut state = self.state.lock();
        let event = event
            .filter(|e| state.pay(e))
            .unwrap_or_else(Event::overflow);
        // The same news twice in a row are news once.
        if state.queue.back() == Some(&event) || state.queue.try_reserve(1).is_err() {
            state.settle();
            return;
        }
        state.queue_bytes += event.bytes();
        state.queue.push_back(event);
        state.settle();
        drop(state);
        self.hub.notify(Events::READABLE);
    }

    fn take(&self, room: usize) -> Option<Result<Event>> {
        let mut state = self.state.lock();
        let first = state.queue.front()?;
        if HEAD + first.name_len() > room {
            return Some(Err(Error::Invalid));
        }
        let event = state.queue.pop_front()?;
        state.queue_bytes -= event.bytes();
        state.settle();
        Some(Ok(event))
    }
}

/// Takes `watch` off its inode.
fn detach(watch: &Watch) {
    WATCHES.fetch_sub(1, Relaxed);
    if let Some(inode) = watch.inode.upgrade()
        && let Some(list) = inode.attr().watches_if_any()
    {
        list.lock().retain(|w| !core::ptr::eq(&**w, watch));
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for watch in core::mem::take(&mut self.state.get_mut().watches).values() {
            detach(watch);
        }
    }
}

impl FileOps for Inotify {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        let room = sink.left();
        let mut next = match self.take(room) {
            Some(e) => Some(e?),
            None if file.nonblocking() => return Err(Error::WouldBlock),
            None => {
                let wait = || self.take(room);
                Some(self.hub.wait_readable(Until::INTERRUPTED, wait)??)
            }
        };
        let mut moved = 0;
        while let Some(event) = next {
            let len = event.name_len();
            let mut head = [0; HEAD];
            head[..4].copy_from_slice(&event.wd.to_ne_bytes());
            head[4..8].copy_from_slice(&event.mask.bits().to_ne_bytes());
            head[8..12].copy_from_slice(&event.cookie.to_ne_bytes());
            head[12..].copy_from_slice(&(len as u32).to_ne_bytes());
            moved += sink.put(&head)?;
            moved += sink.put(&event.name)?;
            moved += sink.put_zeros(len - event.name.len())?;
            next = self.take(sink.left()).and_then(core::result::Result::ok);
        }
        Ok(moved)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        if self.state.lock().queue.is_empty() {
            Events::empty()
        } else {
            Events::READABLE
        }
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.hub)
    }

    fn ioctl(&self, _: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        if command != FIONREAD {
            return Err(Error::NotTerminal);
        }
        let state = self.state.lock();
        let n: usize = state.queue.iter().map(|e| HEAD + e.name_len()).sum();
        drop(state);
        machine::user::write_value(arg, &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn info(&self, _: &OpenFile, out: &mut dyn Write) {
        // The inodes are looked at, and may end, when the lock is open again.
        let mut all = Vec::new();
        let state = self.state.lock();
        if all.try_reserve(state.watches.len()).is_err() {
            return;
        }
        all.extend(state.watches.values().cloned());
        drop(state);
        for watch in all {
            let Some(inode) = watch.inode.upgrade() else {
                continue;
            };
            let (attr, mask) = (inode.attr(), watch.mask.load(Relaxed));
            let _ = writeln!(
                out,
                "inotify wd:{:x} ino:{:x} sdev:{:x} mask:{mask:x} ignored_mask:0 ",
                watch.wd, attr.ino, attr.dev
            );
        }
    }

    fn name(&self, out: &mut dyn Write) {
        let _ = out.write_str("anon_inode:inotify");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::FsContext;
    use crate::cred::{Caps, Credentials};
    use crate::entries::RenameFlags;
    use crate::file::OpenFlags;
    use crate::mount::{Mount, MountFlags};
    use crate::open::How;
    use crate::tmpfs::{Config, TmpFs};
    use crate::walk::{At, Caller, LastLink};
    use machine::io::Source;
    use std::{format, string::String, vec};

    fn read(f: &OpenFile) -> Vec<(i32, Mask, String)> {
        let mut buf = vec![0; 4096];
        let n = f.read(&mut Sink::kernel(&mut buf)).unwrap_or(0);
        let mut rest = &buf[..n];
        let mut out = Vec::new();
        while let Some((head, more)) = rest.split_at_checked(HEAD) {
            let word = |i: usize| u32::from_ne_bytes(head[i..i + 4].try_into().unwrap());
            let (name, more) = more.split_at(word(12) as usize);
            let name = String::from_utf8(name.to_vec()).unwrap();
            let name = String::from(name.trim_end_matches('\0'));
            out.push((word(0) as i32, Mask::from_bits_retain(word(4)), name));
            rest = more;
        }
        out
    }

    #[test]
    fn news_of_a_directory() {
        let account = Arc::new(Account::new(500).unwrap());
        let tree = TmpFs::tree(account.clone(), Config::default()).unwrap();
        let root = Mount::root(tree, MountFlags::empty(), "root");
        let fs = FsContext::new(root.path());
        let cred = Credentials::root(Caps::all());
        let who = Caller {
            fs: &fs,
            cred: &cred,
        };
        who.make(At::Cwd, b"/d", Kind::Directory, 0o755, &[])
            .unwrap();
        let dir = who.inode(At::Cwd, b"/d", LastLink::Follow).unwrap();
        let instance = Inotify::new(&account);
        let wd = instance.add(&dir, Mask::ALL_EVENTS).unwrap();
        assert_eq!(instance.add(&dir, Mask::ALL_EVENTS), Ok(wd));
        let news = OpenFile::new(
            instance.clone(),
            OpenFlags::NONBLOCK,
            None,
            machine::FileCharge::kernel(),
        );
        let how = How {
            flags: OpenFlags::CREATE | OpenFlags::WRITE_ONLY,
            ..How::default()
        };
        let f = who
            .open(At::Cwd, b"/d/f", &how, machine::FileCharge::kernel())
            .unwrap();
        f.write(&mut Source::kernel(b"x")).unwrap();
        f.write(&mut Source::kernel(b"y")).unwrap();
        drop(f);
        let masks = |v: Vec<(i32, Mask, String)>| -> Vec<String> {
            v.iter()
                .map(|e| format!("{:?} {}", e.1.iter_names().next().unwrap().0, e.2))
                .collect()
        };
        assert_eq!(
            masks(read(&news)),
            [
                "\"CREATE\" f",
                "\"OPEN\" f",
                "\"MODIFY\" f",
                "\"CLOSE_WRITE\" f"
            ]
        );
        let f = who.lookup(At::Cwd, b"/d/f", LastLink::Follow).unwrap();
        who.chmod(&f, 0o600).unwrap();
        assert_eq!(masks(read(&news)), ["\"ATTRIB\" f"]);
        let none = RenameFlags::empty();
        who.rename((At::Cwd, b"/d/f"), (At::Cwd, b"/d/g"), none)
            .unwrap();
        who.unlink(At::Cwd, b"/d/g").unwrap();
        assert_eq!(
            masks(read(&news)),
            ["\"MOVED_FROM\" f", "\"MOVED_TO\" g", "\"DELETE\" g"]
        );
        who.rmdir(At::Cwd, b"/d").unwrap();
        assert_eq!(masks(read(&news)), ["\"DELETE_SELF\" ", "\"IGNORED\" "]);
        assert_eq!(instance.remove(wd), Err(Error::Invalid));
        assert!(!is_used());
    }
}
