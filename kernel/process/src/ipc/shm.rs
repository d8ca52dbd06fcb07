//! Shared memory segments (shmget(2), shmat(2), shmctl(2)).
//!
//! A segment's pages are an [`mm::SharedMemory`]; every area that maps them holds
//! a reference, so their number is the number of attachments. A segment that was
//! removed keeps its identifier until the last of them is gone.

use super::{Caller, Entry, Error, Ipc, Result, Wanted, now};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};
use machine::Account;
use machine::addr::{PAGE_SIZE, USER_END};
use machine::paging::Access;
use machine::sync::SpinLock;
use mm::{AddressSpace, AreaFlags, Backing, MapRequest, Placement, RegionName, SharedMemory};

/// Most segments (`kernel.shmmni`).
pub const SEGMENTS_MAX: usize = 4096;
/// Most bytes of one, and pages of all (`kernel.shmmax`, `kernel.shmall`): as
/// good as none, since the capsule's memory is the limit.
pub const BYTES_MAX: u64 = u64::MAX - (1 << 24);
/// In a mode: the segment goes with its last attachment (`SHM_DEST`).
pub const DESTROYED: u32 = 0o1000;
/// In a mode: its pages are not swapped (`SHM_LOCKED`).
pub const LOCKED: u32 = 0o2000;

enum Memory {
    Live(Arc<SharedMemory>),
    /// Removed: it lives as long as somebody has it attached.
    Leaving(Weak<SharedMemory>),
}

/// A segment.
pub struct Segment {
    /// Bytes, as asked for.
    pub bytes: u64,
    memory: SpinLock<Memory>,
    identity: u64,
    attached: AtomicI64,
    detached: AtomicI64,
    maker: u32,
    last: AtomicU32,
}

/// What shmctl(2) tells.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are those of shmctl(2)")]
pub struct Status {
    pub bytes: u64,
    pub attached: i64,
    pub detached: i64,
    pub maker: u32,
    pub last: u32,
    pub attachments: u64,
    pub resident: u64,
}

impl Segment {
    fn memory(&self) -> Option<Arc<SharedMemory>> {
        match &*self.memory.lock() {
            Memory::Live(m) => Some(m.clone()),
            Memory::Leaving(m) => m.upgrade(),
        }
    }

    /// Attachments: all references but the segment's own.
    fn attachments(&self) -> usize {
        match &*self.memory.lock() {
            Memory::Live(m) => Arc::strong_count(m) - 1,
            Memory::Leaving(m) => m.strong_count(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let attachments = self.attachments() as u64;
        let resident = self.memory().map_or(0, |m| m.resident() as u64);
        Status {
            bytes: self.bytes,
            attached: self.attached.load(Relaxed),
            detached: self.detached.load(Relaxed),
            maker: self.maker,
            last: self.last.load(Relaxed),
            attachments,
            resident,
        }
    }

    /// Whether it was removed and nobody has it any more.
    fn is_gone(&self) -> bool {
        match &*self.memory.lock() {
            Memory::Live(_) => false,
            Memory::Leaving(m) => m.strong_count() == 0,
        }
    }
}

/// How a segment is attached.
#[derive(Clone, Copy, Debug)]
pub struct Attach {
    /// Where; 0 for anywhere.
    pub addr: usize,
    /// An address that is no multiple of a page is rounded down (`SHM_RND`).
    pub round: bool,
    /// For reading alone (`SHM_RDONLY`).
    pub read_only: bool,
    /// To be executed, too (`SHM_EXEC`).
    pub exec: bool,
    /// In place of what is there (`SHM_REMAP`).
    pub replace: bool,
}

impl Ipc {
    /// Segments that were removed and lost their last attachment go now.
    fn sweep_segments(&self) {
        let gone = self.shm.lock().remove_if(|e| e.object.is_gone());
        drop(gone);
    }

    /// shmget(2); `account` pays for the pages of a new segment.
    ///
    /// # Errors
    /// See there.
    pub fn shmget(
        &self,
        wanted: Wanted,
        bytes: u64,
        account: &Arc<Account>,
        caller: Caller<'_>,
    ) -> Result<i32> {
        self.sweep_segments();
        let fits = |s: &Segment| (bytes <= s.bytes).then_some(()).ok_or(Error::Invalid);
        let make = |id: i32| {
            if bytes == 0 || bytes > BYTES_MAX {
                return Err(Error::Invalid);
            }
            if bytes > USER_END as u64 {
                return Err(Error::NoMemory);
            }
            let pages = bytes.div_ceil(PAGE_SIZE as u64);
            let name = alloc::format!("/SYSV{:08x} (deleted)", wanted.key);
            let memory = SharedMemory::new(account.clone(), pages, name, id as u64);
            let memory = Arc::new(memory);
            Ok(Arc::new(Segment {
                bytes,
                identity: memory.identity(),
                memory: SpinLock::new(Memory::Live(memory)),
                attached: AtomicI64::new(0),
                detached: AtomicI64::new(0),
                maker: caller.pid,
                last: AtomicU32::new(0),
            }))
        };
        self.shm
            .lock()
            .get(wanted, caller, SEGMENTS_MAX, fits, make)
    }

    /// shmat(2): the address.
    ///
    /// # Errors
    /// See there.
    pub fn shmat(
        &self,
        id: i32,
        how: Attach,
        space: &AddressSpace,
        caller: Caller<'_>,
    ) -> Result<usize> {
        let mut addr = how.addr;
        if !addr.is_multiple_of(PAGE_SIZE) {
            if !how.round {
                return Err(Error::Invalid);
            }
            addr &= !(PAGE_SIZE - 1);
        }
        if addr == 0 && how.replace {
            return Err(Error::Invalid);
        }
        self.sweep_segments();
        let write = if how.read_only { 0 } else { 2 };
        let exec = u32::from(how.exec);
        let segment = self.shm.lock().open(id, caller, 4 | write | exec)?;
        let memory = segment.memory().ok_or(Error::Invalid)?;
        let mut access = Access::READ;
        access.set(Access::WRITE, !how.read_only);
        access.set(Access::EXEC, how.exec);
        let len = usize::try_from(segment.bytes).map_err(|_| Error::NoMemory)?;
        let mut request = MapRequest::object(memory, 0, len, access).with(AreaFlags::SHARED);
        if how.read_only {
            request.max_access -= Access::WRITE;
        }
        request.placement = match (addr, how.replace) {
            (0, _) => Placement::Hint(0),
            (_, true) => Placement::Fixed(addr),
            (_, false) => Placement::FixedNoReplace(addr),
        };
        let at = space.map(request).map_err(|e| match e {
            mm::Error::OutOfMemory | mm::Error::OverLimit => Error::NoMemory,
            mm::Error::TooManyAreas | mm::Error::NoSpace if how.addr == 0 => Error::NoMemory,
            mm::Error::LockLimit => Error::WouldBlock,
            _ => Error::Invalid,
        })?;
        segment.attached.store(now(), Relaxed);
        segment.last.store(caller.pid, Relaxed);
        Ok(at)
    }

    /// shmdt(2): takes all of the attachment at `addr` away, also if it was cut in
    /// pieces.
    ///
    /// # Errors
    /// [`Error::Invalid`] if none begins there.
    pub fn shmdt(&self, addr: usize, space: &AddressSpace, caller: Caller<'_>) -> Result<()> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Invalid);
        }
        let mut segment: Option<Arc<Segment>> = None;
        let mut from = addr;
        while let Some(region) = space.next_region(from) {
            from = region.range.end;
            machine::thread::cond_resched();
            if region.range.start < addr {
                continue;
            }
            let span = segment.as_ref().map_or(u64::MAX, |s| s.bytes);
            if (region.range.start - addr) as u64 >= span {
                break;
            }
            let RegionName::Object(object) = &region.name else {
                continue;
            };
            // A piece of the attachment lies as far from its start as in the segment.
            if region.offset != (region.range.start - addr) as u64 {
                continue;
            }
            let identity = object.identity();
            match &segment {
                Some(s) if s.identity == identity => {}
                Some(_) => continue,
                None => match self.segment_of(identity) {
                    Some(s) => segment = Some(s),
                    None => continue,
                },
            }
            let len = region.range.end - region.range.start;
            drop(region.name);
            space
                .unmap(region.range.start, len)
                .map_err(|_| Error::NoMemory)?;
        }
        let segment = segment.ok_or(Error::Invalid)?;
        segment.detached.store(now(), Relaxed);
        segment.last.store(caller.pid, Relaxed);
        self.sweep_segments();
        Ok(())
    }

    fn segment_of(&self, identity: u64) -> Option<Arc<Segment>> {
        let table = self.shm.lock();
        let found = table.iter().find(|e| e.object.identity == identity);
        found.map(|e| e.object.clone())
    }

    /// Removes a segment: nobody finds it by its key any more, and it ends with its
    /// last attachment (`IPC_RMID`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub fn shm_remove(&self, id: i32, caller: Caller<'_>) -> Result<()> {
        let mut table = self.shm.lock();
        let entry = table.entry(id)?;
        entry.perm.check_owner(caller)?;
        entry.perm.key = 0;
        entry.perm.mode |= DESTROYED;
        let segment = entry.object.clone();
        drop(table);
        let mut memory = segment.memory.lock();
        let own = match &*memory {
            Memory::Live(m) => m.clone(),
            Memory::Leaving(_) => return Ok(()),
        };
        *memory = Memory::Leaving(Arc::downgrade(&own));
        drop(memory);
        drop(own);
        self.sweep_segments();
        Ok(())
    }

    /// Sets owner and mode (`IPC_SET`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub fn shm_set(&self, id: i32, caller: Caller<'_>, new: (u32, u32, u32)) -> Result<()> {
        self.shm.lock().set(id, caller, new).map(drop)
    }

    /// Locks or unlocks a segment: nothing is ever swapped, so it is only noted.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub fn shm_lock(&self, id: i32, caller: Caller<'_>, on: bool) -> Result<()> {
        let mut table = self.shm.lock();
        let entry = table.entry(id)?;
        if !caller.cred.has(vfs::Caps::IPC_LOCK) {
            entry.perm.check_owner(caller)?;
        }
        match on {
            true => entry.perm.mode |= LOCKED,
            false => entry.perm.mode &= !LOCKED,
        }
        Ok(())
    }

    /// What is known of a segment, by identifier (`IPC_STAT`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn shm_status(&self, id: i32, caller: Caller<'_>) -> Result<(Entry<Segment>, Status)> {
        self.sweep_segments();
        let entry = self.shm.lock().entry(id)?.clone();
        entry.perm.check(caller, 4)?;
        let status = entry.object.status();
        Ok((entry, status))
    }

    /// The same by place in the table; `any` asks for no right (`SHM_STAT`,
    /// `SHM_STAT_ANY`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn shm_status_at(
        &self,
        place: usize,
        any: bool,
        caller: Caller<'_>,
    ) -> Result<(Entry<Segment>, Status)> {
        self.sweep_segments();
        let entry = self.shm.lock().at(place)?.clone();
        if !any {
            entry.perm.check(caller, 4)?;
        }
        let status = entry.object.status();
        Ok((entry, status))
    }

    /// Segments there are, the highest place taken, and pages of all: asked for,
    /// and with memory behind them.
    ///
    /// # Errors
    /// [`Error::NoMemory`]
    pub fn shm_totals(&self) -> Result<(usize, usize, u64, u64)> {
        self.sweep_segments();
        let table = self.shm.lock();
        let (count, last) = (table.len(), table.last_place());
        // The look at a segment may be what it lived for last: not under the lock.
        let all = table.all()?;
        drop(table);
        let (mut total, mut resident) = (0, 0);
        for e in &all {
            let s = e.object.status();
            total += s.bytes.div_ceil(PAGE_SIZE as u64);
            resident += s.resident;
        }
        Ok((count, last, total, resident))
    }
}
