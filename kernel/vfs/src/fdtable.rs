//! The descriptors of a process.
//!
//! One spin lock per table, held for a few instructions: looking a descriptor up
//! is an index and one reference count. A bitmap of used numbers finds the lowest
//! free one 64 at a time.

use crate::error::{Error, Result};
use crate::file::OpenFile;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::sync::SpinLock;
use machine::{Account, Objects};

/// The most descriptors any table holds (`fs.nr_open`).
pub const NR_OPEN: usize = 1 << 20;
const WORD: usize = 64;

/// Bytes of a descriptor: the reference, and its bits.
const FD_BYTES: usize = size_of::<Option<Arc<OpenFile>>>() + 1;

struct Table {
    files: Vec<Option<Arc<OpenFile>>>,
    /// Bit by descriptor; as many words as `files` needs.
    used: Vec<u64>,
    cloexec: Vec<u64>,
    /// No number below this is free.
    lowest: usize,
    count: usize,
    memory: Objects,
}

/// Descriptors, shared by the threads of a process.
pub struct FdTable {
    id: u64,
    table: SpinLock<Table>,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl FdTable {
    /// An empty table, whose memory `account` pays for.
    #[must_use]
    pub fn new(account: Arc<Account>) -> FdTable {
        FdTable {
            id: next_id(),
            table: SpinLock::new(Table {
                files: Vec::new(),
                used: Vec::new(),
                cloexec: Vec::new(),
                lowest: 0,
                count: 0,
                memory: Objects::new(account, FD_BYTES),
            }),
        }
    }

    /// The owner of POSIX record locks taken through this table.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file behind `fd`.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    #[inline]
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let at = index(fd)?;
        let table = self.table.lock();
        match table.files.get(at) {
            Some(Some(f)) => Ok(f.clone()),
            _ => Err(Error::BadDescriptor),
        }
    }

    /// As [`FdTable::get`], but not for `O_PATH` descriptors.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    #[inline]
    pub fn get_open(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let file = self.get(fd)?;
        if file.is_path_only() {
            return Err(Error::BadDescriptor);
        }
        Ok(file)
    }

    /// Puts the file behind each descriptor into the slot that comes with it, which
    /// is left as it is where there is none. Takes the lock once for all.
    #[inline]
    pub fn get_each<'a>(&self, wanted: impl Iterator<Item = (i32, &'a mut Option<Arc<OpenFile>>)>) {
        let table = self.table.lock();
        for (fd, slot) in wanted {
            let at = usize::try_from(fd).unwrap_or(usize::MAX);
            if let Some(Some(file)) = table.files.get(at) {
                *slot = Some(file.clone());
            }
        }
    }

    /// Gives `file` the lowest free number that is at least `min` and below
    /// `limit` (`RLIMIT_NOFILE`).
    ///
    /// # Errors
    /// [`Error::TooManyFiles`], [`Error::NoMemory`].
    pub fn insert(
        &self,
        file: Arc<OpenFile>,
        cloexec: bool,
        min: usize,
        limit: usize,
    ) -> Result<i32> {
        let mut table = self.table.lock();
        let fd = table.lowest_free(min);
        if fd >= limit.min(NR_OPEN) {
            return Err(Error::TooManyFiles);
        }
        table.grow(fd + 1)?;
        table.put(fd, file, cloexec);
        i32::try_from(fd).map_err(|_| Error::TooManyFiles)
    }

    /// Whether there is a number below `limit` for one more descriptor. Another
    /// thread may take it before it is used.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`].
    pub fn check_room(&self, limit: usize) -> Result<()> {
        let fd = self.table.lock().lowest_free(0);
        (fd < limit.min(NR_OPEN))
            .then_some(())
            .ok_or(Error::TooManyFiles)
    }

    /// Puts `file` at `fd` (`dup2`); what was there before.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] if `fd` is not below `limit`; [`Error::NoMemory`].
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<OpenFile>,
        cloexec: bool,
        limit: usize,
    ) -> Result<Option<Arc<OpenFile>>> {
        let at = index(fd)?;
        if at >= limit.min(NR_OPEN) {
            return Err(Error::BadDescriptor);
        }
        let mut table = self.table.lock();
        table.grow(at + 1)?;
        let old = table.take(at);
        table.put(at, file, cloexec);
        Ok(old)
    }

    /// Takes `fd` out.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    pub fn remove(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let at = index(fd)?;
        self.table.lock().take(at).ok_or(Error::BadDescriptor)
    }

    /// Takes the first used number of `from..=to` out, if there is one; with its
    /// number. Repeated, it empties a range without holding the lock for long.
    pub fn remove_first(&self, from: usize, to: usize) -> Option<(usize, Arc<OpenFile>)> {
        let mut table = self.table.lock();
        let at = table.next_used(from)?;
        (at <= to).then(|| table.take(at).map(|f| (at, f)))?
    }

    /// Closes all that close on `execve`; how many those were.
    pub fn close_cloexec(&self) -> usize {
        let mut closed = 0;
        let mut from = 0;
        loop {
            let mut table = self.table.lock();
            let Some(at) = table.next_used(from) else {
                return closed;
            };
            let gone = if table.is_cloexec(at) {
                table.take(at)
            } else {
                None
            };
            drop(table);
            if let Some(file) = gone {
                file.descriptor_closed(self.id);
                closed += 1;
            }
            from = at + 1;
        }
    }

    /// Whether `fd` closes on `execve`.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    pub fn cloexec(&self, fd: i32) -> Result<bool> {
        let at = index(fd)?;
        let table = self.table.lock();
        table.check(at)?;
        Ok(table.is_cloexec(at))
    }

    /// Sets whether `fd` closes on `execve`.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    pub fn set_cloexec(&self, fd: i32, on: bool) -> Result<()> {
        let at = index(fd)?;
        let mut table = self.table.lock();
        table.check(at)?;
        set_bit(&mut table.cloexec, at, on);
        Ok(())
    }

    /// Has every descriptor of `from..=to` close on `execve`.
    pub fn set_cloexec_range(&self, from: usize, to: usize) {
        let mut table = self.table.lock();
        let mut next = from;
        while let Some(at) = table.next_used(next).filter(|at| *at <= to) {
            set_bit(&mut table.cloexec, at, true);
            next = at + 1;
        }
    }

    /// The used numbers from `from` on, at most `out.len()`; how many were found.
    pub fn used(&self, from: usize, out: &mut [usize]) -> usize {
        let table = self.table.lock();
        let mut next = from;
        let mut n = 0;
        for slot in out {
            let Some(at) = table.next_used(next) else {
                break;
            };
            *slot = at;
            next = at + 1;
            n += 1;
        }
        n
    }

    /// How many descriptors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A table of its own with the same files (`fork`).
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn duplicate(&self) -> Result<FdTable> {
        let from = self.table.lock();
        let new = FdTable::new(from.memory.account().clone());
        let mut to = new.table.lock();
        // Up to the last one in use, not to the largest there ever was.
        let len = from
            .files
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |i| i + 1);
        to.grow(len)?;
        for (new, old) in to.files.iter_mut().zip(&from.files) {
            new.clone_from(old);
        }
        for (new, old) in to.used.iter_mut().zip(&from.used) {
            *new = *old;
        }
        for (new, old) in to.cloexec.iter_mut().zip(&from.cloexec) {
            *new = *old;
        }
        to.lowest = from.lowest.min(len);
        to.count = from.count;
        drop(to);
        drop(from);
        Ok(new)
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        for file in self.table.get_mut().files.iter().flatten() {
            file.descriptor_closed(self.id);
        }
    }
}

fn index(fd: i32) -> Result<usize> {
    usize::try_from(fd).map_err(|_| Error::BadDescriptor)
}

fn set_bit(words: &mut [u64], at: usize, on: bool) {
    if let Some(w) = words.get_mut(at / WORD) {
        let bit = 1 << (at % WORD);
        *w = if on { *w | bit } else { *w & !bit };
    }
}

impl Table {
    fn check(&self, at: usize) -> Result<()> {
        match self.files.get(at) {
            Some(Some(_)) => Ok(()),
            _ => Err(Error::BadDescriptor),
        }
    }

    fn is_cloexec(&self, at: usize) -> bool {
        let word = self.cloexec.get(at / WORD).copied().unwrap_or(0);
        word >> (at % WORD) & 1 != 0
    }

    fn lowest_free(&self, min: usize) -> usize {
        let start = self.lowest.max(min);
        let mut word = start / WORD;
        // Numbers below `start` count as used in the first word.
        let mut below = (1u64 << (start % WORD)) - 1;
        while let Some(used) = self.used.get(word) {
            let free = !(used | below);
            if free != 0 {
                return word * WORD + free.trailing_zeros() as usize;
            }
            word += 1;
            below = 0;
        }
        start.max(word * WORD)
    }

    fn next_used(&self, from: usize) -> Option<usize> {
        let mut word = from / WORD;
        let mut mask = u64::MAX << (from % WORD);
        while let Some(used) = self.used.get(word) {
            let hit = used & mask;
            if hit != 0 {
                return Some(word * WORD + hit.trailing_zeros() as usize);
            }
            word += 1;
            mask = u64::MAX;
        }
        None
    }

    /// Room for `len` descriptors.
    fn grow(&mut self, len: usize) -> Result<()> {
        if self.files.len() < len {
            if self.files.capacity() < len {
                self.reserve(len)?;
            }
            let words = len.div_ceil(WORD);
            self.files.resize_with(len, || None);
            self.used.resize(words, 0);
            self.cloexec.resize(words, 0);
        }
        Ok(())
    }

    /// Memory for `len` descriptors at least.
    #[cold]
    fn reserve(&mut self, len: usize) -> Result<()> {
        let room = len.max(2 * self.files.capacity()).clamp(WORD, NR_OPEN);
        self.memory.set(room)?;
        let more = room.saturating_sub(self.files.len());
        self.files.try_reserve_exact(more)?;
        let more = room.div_ceil(WORD).saturating_sub(self.used.len());
        self.used.try_reserve_exact(more)?;
        self.cloexec.try_reserve_exact(more)?;
        Ok(())
    }

    fn put(&mut self, at: usize, file: Arc<OpenFile>, cloexec: bool) {
        if let Some(slot) = self.files.get_mut(at) {
            *slot = Some(file);
            set_bit(&mut self.used, at, true);
            set_bit(&mut self.cloexec, at, cloexec);
            self.count += 1;
            if at == self.lowest {
                self.lowest += 1;
            }
        }
    }

    fn take(&mut self, at: usize) -> Option<Arc<OpenFile>> {
        let file = self.files.get_mut(at)?.take()?;
        set_bit(&mut self.used, at, false);
        set_bit(&mut self.cloexec, at, false);
        self.count -= 1;
        self.lowest = self.lowest.min(at);
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileOps, OpenFlags};
    use core::any::Any;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Nothing;
    impl FileOps for Nothing {
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    fn file() -> Arc<OpenFile> {
        OpenFile::new(
            Arc::new(Nothing),
            OpenFlags::empty(),
            None,
            machine::FileCharge::kernel(),
        )
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(usize, bool),
        Replace(i32, bool),
        Remove(i32),
        Cloexec(i32, bool),
        Fork,
        Exec,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..140usize, any::<bool>()).prop_map(|(m, c)| Op::Insert(m, c)),
            (0..150i32, any::<bool>()).prop_map(|(f, c)| Op::Replace(f, c)),
            (0..150i32).prop_map(Op::Remove),
            (0..150i32, any::<bool>()).prop_map(|(f, c)| Op::Cloexec(f, c)),
            Just(Op::Fork),
            Just(Op::Exec),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..200)) {
            const LIMIT: usize = 140;
            let account = Arc::new(Account::new(10).unwrap());
            let mut table = FdTable::new(account.clone());
            let mut model: BTreeMap<i32, (u64, bool)> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(min, c) => {
                        let f = file();
                        let want = (min as i32..).find(|n| !model.contains_key(n)).unwrap();
                        match table.insert(f.clone(), c, min, LIMIT) {
                            Ok(fd) => {
                                prop_assert_eq!(fd, want);
                                model.insert(fd, (f.id(), c));
                            }
                            Err(e) => {
                                prop_assert_eq!(e, Error::TooManyFiles);
                                prop_assert!(want as usize >= LIMIT);
                            }
                        }
                    }
                    Op::Replace(fd, c) => {
                        let f = file();
                        match table.replace(fd, f.clone(), c, LIMIT) {
                            Ok(old) => {
                                let before = model.insert(fd, (f.id(), c));
                                prop_assert_eq!(old.map(|o| o.id()), before.map(|b| b.0));
                            }
                            Err(_) => prop_assert!(fd as usize >= LIMIT),
                        }
                    }
                    Op::Remove(fd) => prop_assert_eq!(
                        table.remove(fd).ok().map(|f| f.id()),
                        model.remove(&fd).map(|m| m.0)
                    ),
                    Op::Cloexec(fd, on) => {
                        let done = table.set_cloexec(fd, on).is_ok();
                        prop_assert_eq!(done, model.contains_key(&fd));
                        if let Some(m) = model.get_mut(&fd) {
                            m.1 = on;
                        }
                    }
                    Op::Fork => table = table.duplicate().unwrap(),
                    Op::Exec => {
                        let n = table.close_cloexec();
                        prop_assert_eq!(n, model.values().filter(|m| m.1).count());
                        model.retain(|_, m| !m.1);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for (fd, (id, c)) in &model {
                    prop_assert_eq!(table.get(*fd).unwrap().id(), *id);
                    prop_assert_eq!(table.cloexec(*fd).unwrap(), *c);
                }
            }
        }
    }
}
