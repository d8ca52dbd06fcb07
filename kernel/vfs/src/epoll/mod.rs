//! epoll(7).
//!
//! An entry ([`Item`]) hangs in the hub of its file. A notification puts it on
//! the ready list once, in constant time and whatever the number of entries;
//! [`Epoll::wait`] takes entries off, asks their files, and puts those back that
//! are level-triggered and still ready.
//!
//! The [`Core`] (ready list and hub) is what entries hold on to, the [`Epoll`]
//! holds the entries: so an epoll ends with its last descriptor.
//!
//! Locks: the hub of a file, then a ready list, then the hub of the epoll, and so
//! on outwards; loops of epolls are refused.

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::event::{Events, Observer, PollHub, Watch};
use crate::file::{Closing, FileOps, OpenFile};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::any::Any;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use machine::sync::{Mutex, SpinLock};
use machine::time::Instant;
use machine::wait::Until;
use machine::{Account, Objects};
use smallvec::SmallVec;

/// Epolls that may watch each other in a row (as `EP_MAX_NESTS`, 4).
const NESTS_MAX: usize = 4;
/// Epolls looked at, at most, in the search for loops before a nested one is added.
const LOOKED_AT_MAX: usize = 256;
/// Removed entries on the ready list that are not worth being looked for.
const REMOVED_MAX: usize = 16;
/// Entries of one epoll.
const ITEMS_MAX: usize = 1 << 17;
/// Memory of an entry: itself, its places in the tree, on the ready list and in the
/// two lists of its file.
const ITEM_BYTES: usize = size_of::<Item>() + 128;

bitflags! {
    /// How an entry is watched, besides the events.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Mode: u32 {
        /// Wake one of several epolls that watch the file.
        const EXCLUSIVE = 1 << 28;
        /// Keep the machine awake; it never sleeps.
        const WAKEUP = 1 << 29;
        /// Told once, until it is armed again.
        const ONESHOT = 1 << 30;
        /// Told of changes only.
        const EDGE = 1 << 31;
    }
}

/// What `epoll_wait` gives for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What holds.
    pub events: Events,
    /// What the program gave with the entry.
    pub data: u64,
}

/// The events of one call, kept in place when they are few.
pub type ReadyList = SmallVec<[Ready; 32]>;

#[derive(Default)]
struct Core {
    ready: SpinLock<VecDeque<Arc<Item>>>,
    /// Length of `ready`, for those who wait.
    count: AtomicUsize,
    hub: PollHub,
}

impl Core {
    /// Puts `item` on the ready list unless it is there; whether it was not.
    fn queue(&self, item: &Arc<Item>) -> bool {
        if item.queued.swap(true, SeqCst) {
            return false;
        }
        let mut ready = self.ready.lock();
        // The room was reserved when the entry was made.
        ready.push_back(item.clone());
        self.count.store(ready.len(), SeqCst);
        true
    }

    /// Room on the ready list for `count` entries. Those that were removed since they
    /// got ready are on it still, until somebody waits: a program that adds and
    /// removes and never waits must not fill the memory with them.
    fn make_room(&self, count: usize) -> Result<()> {
        let mut ready = self.ready.lock();
        // More than half are removed ones then, so that each is looked at once or so.
        if ready.len() > 2 * count + REMOVED_MAX {
            // Nobody else has them.
            ready.retain(|item| Arc::strong_count(item) > 1);
            self.count.store(ready.len(), SeqCst);
        }
        Ok(ready.try_reserve(count)?)
    }

    fn pop(&self) -> Option<Arc<Item>> {
        let mut ready = self.ready.lock();
        let item = ready.pop_front();
        self.count.store(ready.len(), SeqCst);
        item
    }
}

struct Item {
    core: Arc<Core>,
    epoll: Weak<Epoll>,
    me: Weak<Item>,
    file: Weak<OpenFile>,
    key: (u64, i32),
    /// The file is an epoll.
    nested: bool,
    /// Events and [`Mode`]; no events while a one-shot entry is spent.
    interest: AtomicU32,
    data: AtomicU64,
    queued: AtomicBool,
    watch: SpinLock<Option<Watch>>,
}

impl Item {
    fn mode(&self) -> Mode {
        Mode::from_bits_truncate(self.interest.load(SeqCst))
    }

    fn wanted(&self) -> Events {
        Events::from_bits_truncate(self.interest.load(SeqCst))
    }

    /// What of its interest holds now.
    fn ask(&self) -> Events {
        let wanted = self.wanted();
        match self.file.upgrade() {
            Some(f) if !wanted.is_empty() => f.poll() & (wanted | Events::ALWAYS),
            _ => Events::empty(),
        }
    }

    fn unwatch(&self, file: &OpenFile) {
        if let Some(w) = self.watch.lock().take()
            && let Some(hub) = file.ops().hub()
        {
            hub.unwatch(w);
        }
        self.interest.store(0, SeqCst);
    }
}

impl Observer for Item {
    fn notify(&self, events: Events) -> bool {
        let wanted = self.wanted();
        if wanted.is_empty() || !events.intersects(wanted | Events::ALWAYS) {
            return false;
        }
        let Some(me) = self.me.upgrade() else {
            return false;
        };
        let news = self.core.queue(&me);
        if news {
            self.core.hub.notify_one(Events::READABLE);
        }
        news
    }
}

impl Closing for Item {
    fn closed(&self, file: &OpenFile) {
        self.unwatch(file);
        if let Some(e) = self.epoll.upgrade() {
            let gone = e.items.lock().remove(&self.key);
            drop(gone);
        }
    }
}

struct Items {
    all: BTreeMap<(u64, i32), Arc<Item>>,
    /// How many of them are epolls themselves.
    nested: usize,
    memory: Objects,
}

impl Items {
    fn remove(&mut self, key: &(u64, i32)) -> Option<Arc<Item>> {
        let item = self.all.remove(key)?;
        self.nested -= usize::from(item.nested);
        // Fewer never fails.
        let _ = self.memory.set(self.all.len());
        Some(item)
    }
}

/// An epoll instance.
pub struct Epoll {
    core: Arc<Core>,
    items: SpinLock<Items>,
    me: Weak<Epoll>,
}

/// Held while an epoll is put into another, so that the search for loops sees
/// one change at a time.
static NESTING: Mutex<()> = Mutex::new(());

impl Epoll {
    /// An epoll without entries, for which `account` will pay.
    #[must_use]
    pub fn new(account: Arc<Account>) -> Arc<Epoll> {
        Arc::new_cyclic(|me| Epoll {
            core: Arc::new(Core::default()),
            items: SpinLock::new(Items {
                all: BTreeMap::new(),
                nested: 0,
                memory: Objects::new(account, ITEM_BYTES),
            }),
            me: me.clone(),
        })
    }

    /// Adds `file`, which the program knows as `fd` (`EPOLL_CTL_ADD`).
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NotPermitted`] for a file that is always ready;
    /// [`Error::TooManyLinks`] for a loop of epolls; [`Error::Invalid`],
    /// [`Error::NoSpace`], [`Error::NoMemory`].
    pub fn add(&self, fd: i32, file: &Arc<OpenFile>, raw: u32, data: u64) -> Result<()> {
        let hub = file.ops().hub().ok_or(Error::NotPermitted)?;
        let nested = file.downcast::<Epoll>();
        if nested.is_some_and(|e| core::ptr::eq(e, self)) {
            return Err(Error::Invalid);
        }
        let mode = Mode::from_bits_truncate(raw);
        if mode.contains(Mode::EXCLUSIVE) {
            let allowed = Events::IN | Events::OUT | Events::ALWAYS;
            let modes = Mode::EXCLUSIVE | Mode::WAKEUP | Mode::EDGE;
            if nested.is_some() || raw & !(allowed.bits() | modes.bits()) != 0 {
                return Err(Error::Invalid);
            }
        }
        let _nesting = nested.map(|_| NESTING.lock());
        if let Some(inner) = nested {
            inner.check_nesting(self)?;
        }
        let item = self.make_item(fd, file, raw, data)?;
        // From here on `file` tells of its end, and of news.
        let done = self.connect(&item, file, hub, mode);
        if done.is_err() {
            item.unwatch(file);
            let gone = self.items.lock().remove(&item.key);
            drop(gone);
        }
        done
    }

    fn connect(
        &self,
        item: &Arc<Item>,
        file: &Arc<OpenFile>,
        hub: &PollHub,
        mode: Mode,
    ) -> Result<()> {
        let closing: Weak<dyn Closing> = item.me.clone();
        file.tell_closing(closing)?;
        let exclusive = mode.contains(Mode::EXCLUSIVE);
        let watch = hub.watch(item.clone(), item.wanted(), exclusive)?;
        *item.watch.lock() = Some(watch);
        self.queue_if_ready(item);
        Ok(())
    }

    fn make_item(&self, fd: i32, file: &Arc<OpenFile>, raw: u32, data: u64) -> Result<Arc<Item>> {
        let key = (file.id(), fd);
        let item = Arc::new_cyclic(|me| Item {
            core: self.core.clone(),
            epoll: self.me.clone(),
            me: me.clone(),
            file: Arc::downgrade(file),
            key,
            nested: file.downcast::<Epoll>().is_some(),
            interest: AtomicU32::new(armed(raw)),
            data: AtomicU64::new(data),
            queued: AtomicBool::new(false),
            watch: SpinLock::new(None),
        });
        let mut items = self.items.lock();
        if items.all.contains_key(&key) {
            return Err(Error::Exists);
        }
        let count = items.all.len();
        if count >= ITEMS_MAX {
            return Err(Error::NoSpace);
        }
        self.core.make_room(count + 1)?;
        items.memory.set(count + 1)?;
        items.nested += usize::from(item.nested);
        items.all.insert(key, item.clone());
        Ok(item)
    }

    fn queue_if_ready(&self, item: &Arc<Item>) {
        if !item.ask().is_empty() && self.core.queue(item) {
            self.core.hub.notify_one(Events::READABLE);
        }
    }

    fn item(&self, fd: i32, file: &OpenFile) -> Result<Arc<Item>> {
        let items = self.items.lock();
        items
            .all
            .get(&(file.id(), fd))
            .cloned()
            .ok_or(Error::NotFound)
    }

    /// Changes an entry (`EPOLL_CTL_MOD`), which arms it again.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] where exclusiveness is involved.
    pub fn modify(&self, fd: i32, file: &OpenFile, raw: u32, data: u64) -> Result<()> {
        let item = self.item(fd, file)?;
        let both = Mode::from_bits_truncate(raw) | item.mode();
        if both.contains(Mode::EXCLUSIVE) {
            return Err(Error::Invalid);
        }
        item.data.store(data, SeqCst);
        item.interest.store(armed(raw), SeqCst);
        let watch = *item.watch.lock();
        if let (Some(w), Some(hub)) = (watch, file.ops().hub()) {
            hub.rewatch(w, item.wanted());
        }
        self.queue_if_ready(&item);
        Ok(())
    }

    /// Removes an entry (`EPOLL_CTL_DEL`).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove(&self, fd: i32, file: &OpenFile) -> Result<()> {
        let gone = self.items.lock().remove(&(file.id(), fd));
        gone.ok_or(Error::NotFound)?.unwatch(file);
        Ok(())
    }

    /// Fails if `outer` is among what this epoll watches, the row would be too long,
    /// or there is more to be looked at than a program has reason to make.
    fn check_nesting(&self, outer: &Epoll) -> Result<()> {
        let mut todo: Vec<(Arc<OpenFile>, usize)> = Vec::new();
        self.add_nested(1, &mut todo)?;
        // Each may be met again further down the row, but not often.
        let mut seen: SmallVec<[(u64, usize); 16]> = SmallVec::new();
        while let Some((file, depth)) = todo.pop() {
            let Some(inner) = file.downcast::<Epoll>() else {
                continue;
            };
            if core::ptr::eq(inner, outer) || depth >= NESTS_MAX || seen.len() >= LOOKED_AT_MAX {
                return Err(Error::TooManyLinks);
            }
            if seen.iter().any(|(id, d)| *id == file.id() && *d >= depth) {
                continue;
            }
            seen.push((file.id(), depth));
            inner.add_nested(depth + 1, &mut todo)?;
            machine::thread::cond_resched();
        }
        Ok(())
    }

    /// Adds the epolls that this one watches to `todo`.
    fn add_nested(&self, depth: usize, todo: &mut Vec<(Arc<OpenFile>, usize)>) -> Result<()> {
        let items = self.items.lock();
        todo.try_reserve(items.nested)?;
        let nested = items.all.values().filter(|i| i.nested);
        let files = nested.take(items.nested).filter_map(|i| i.file.upgrade());
        todo.extend(files.map(|f| (f, depth)));
        Ok(())
    }

    /// Takes what is ready, at most `max`, without waiting; nothing twice.
    fn harvest(&self, out: &mut ReadyList, max: usize) {
        let mut left = self.core.count.load(SeqCst);
        while left > 0 && out.len() < max {
            // What does not fit now is taken the next time.
            if out.try_reserve(1).is_err() {
                break;
            }
            let Some(item) = self.core.pop() else { break };
            left -= 1;
            // First off the list, then the question: news in between queue it anew.
            item.queued.store(false, SeqCst);
            let events = item.ask();
            if events.is_empty() {
                continue;
            }
            if out.len() % 256 == 255 {
                machine::thread::cond_resched();
            }
            out.push(Ready {
                events,
                data: item.data.load(SeqCst),
            });
            let mode = item.mode();
            if mode.contains(Mode::ONESHOT) {
                let spent = item.interest.load(SeqCst) & Mode::all().bits();
                item.interest.store(spent, SeqCst);
            } else if !mode.contains(Mode::EDGE) {
                self.core.queue(&item);
            }
        }
    }

    /// Waits until something is ready, and takes up to `max` of it; nothing when
    /// `deadline` has come.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn wait(&self, out: &mut ReadyList, max: usize, deadline: Option<Instant>) -> Result<()> {
        loop {
            self.harvest(out, max);
            if !out.is_empty() {
                if self.core.count.load(SeqCst) > 0 {
                    self.core.hub.pass_on(Events::READABLE);
                }
                return Ok(());
            }
            if deadline.is_some_and(|d| d.0 == 0) {
                return Ok(());
            }
            let news = || (self.core.count.load(SeqCst) > 0).then_some(());
            match self.core.hub.wait_readable(Until::deadline(deadline), news) {
                Ok(()) => {}
                Err(Error::TimedOut) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

/// The bits of an interest as they are kept. `ERR` and `HUP` are always wanted,
/// which tells an armed entry without events from a spent one.
fn armed(raw: u32) -> u32 {
    let events = Events::from_bits_truncate(raw) | Events::ALWAYS;
    events.bits() | Mode::from_bits_truncate(raw).bits()
}

impl FileOps for Epoll {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self, _: &OpenFile) -> Events {
        // The list may hold entries that are ready no more: these go.
        let mut left = self.core.count.load(SeqCst);
        while left > 0 {
            let Some(item) = self.core.pop() else { break };
            left -= 1;
            item.queued.store(false, SeqCst);
            if !item.ask().is_empty() {
                self.core.queue(&item);
                return Events::READABLE;
            }
        }
        Events::empty()
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.core.hub)
    }

    fn info(&self, _: &OpenFile, out: &mut dyn Write) {
        for item in self.items.lock().all.values() {
            let _ = writeln!(
                out,
                "tfd: {:8} events: {:8x} data: {:16x}",
                item.key.1,
                item.interest.load(SeqCst),
                item.data.load(SeqCst)
            );
        }
    }

    fn name(&self, out: &mut dyn Write) {
        let _ = out.write_str("anon_inode:[eventpoll]");
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in core::mem::take(&mut self.items.get_mut().all).into_values() {
            // A file that is ending meanwhile does this itself.
            if let Some(f) = item.file.upgrade() {
                item.unwatch(&f);
            }
        }
        // Entries hold the list that holds them.
        let entries = core::mem::take(&mut *self.core.ready.lock());
        drop(entries);
    }
}
