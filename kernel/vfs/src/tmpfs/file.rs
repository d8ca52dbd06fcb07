//! Regular files of a tmpfs: bytes in a page cache.
//!
//! Readers take no lock: they look at the size and at one page after the other,
//! as on Linux. Writers, truncation and hole punching are serialised by `io`,
//! which is held across user copies; a fault on a mapping of the same file
//! ([`mm::Backing::page`]) therefore never takes it.
//!
//! Pages of a lower file are read where they lie until the first write to each.
//! `lower_len` says how much of the lower file still shows through; it only
//! shrinks. A mapping of a lower page is taken away when the page is copied up.

mod mapping;

use super::TmpFs;
use super::node::{Node, node_methods};
use crate::error::{Error, Result};
use crate::file::{FileOps, Mappable, OpenFile, Opening, Seek};
use crate::inode::{Attr, Inode, NewAttr, Stat};
use crate::seals::Seals;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Write;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use machine::Frame;
use machine::addr::{PAGE_SHIFT, PAGE_SIZE};
use machine::io::{Sink, Source};
use machine::sync::{Mutex, Once};
use machine::thread;
use mapping::FileMapping;
use mm::{MappingList, PageCache};

/// Largest file: offsets are signed.
const SIZE_MAX: u64 = i64::MAX as u64;
const PAGE: u64 = PAGE_SIZE as u64;

/// Flags of fallocate(2).
const FALLOC_KEEP_SIZE: u32 = 1;
const FALLOC_PUNCH_HOLE: u32 = 2;
const FALLOC_ZERO_RANGE: u32 = 0x10;

/// A regular file.
pub struct TmpFile {
    node: Node,
    pages: PageCache,
    size: AtomicU64,
    /// Pages this file has counted in its file system.
    counted: AtomicUsize,
    io: Mutex<()>,
    mappings: MappingList,
    lower: Option<Lower>,
    /// Seals of a memfd, and its name.
    memfd: Once<(Seals, String)>,
}

struct Lower {
    index: u32,
    /// Bytes of the lower file that show through.
    len: AtomicU64,
}

impl TmpFile {
    pub(super) fn new(fs: &Arc<TmpFs>, attr: &NewAttr, ino: u64) -> Result<Arc<TmpFile>> {
        Ok(TmpFile::build(Node::new(fs, attr, ino)?, 0, None))
    }

    /// The file `index` of the lower tree.
    pub(super) fn over(node: Node, index: u32, size: u64) -> Arc<TmpFile> {
        let size = size.min(SIZE_MAX);
        let lower = Lower {
            index,
            len: AtomicU64::new(size),
        };
        TmpFile::build(node, size, Some(lower))
    }

    fn build(node: Node, size: u64, lower: Option<Lower>) -> Arc<TmpFile> {
        Arc::new(TmpFile {
            pages: PageCache::new(node.fs.account().clone()),
            node,
            size: AtomicU64::new(size),
            counted: AtomicUsize::new(0),
            io: Mutex::new(()),
            mappings: MappingList::new(),
            lower,
            memfd: Once::new(),
        })
    }

    /// Makes this a memfd called `name`, whose seals may be changed if
    /// `sealable`.
    pub(crate) fn set_memfd(&self, name: &str, sealable: bool) {
        self.memfd
            .call_once(|| (Seals::new(sealable), String::from(name)));
    }

    /// Its seals, if it is a memfd.
    #[must_use]
    pub fn seals(&self) -> Option<&Seals> {
        self.memfd.get().map(|m| &m.0)
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lower file's page `index` as far as it shows through.
    fn lower_page(&self, index: u64) -> Result<Option<Frame>> {
        let Some(lower) = &self.lower else {
            return Ok(None);
        };
        if index.saturating_mul(PAGE) >= lower.len.load(Relaxed) {
            return Ok(None);
        }
        match &self.node.fs.lower {
            Some(tree) => tree.page(lower.index, index).map(Some),
            None => Ok(None),
        }
    }

    /// The page `index` for reading; `None` is a hole.
    #[inline]
    fn page_to_read(&self, index: u64) -> Result<Option<Frame>> {
        match self.pages.get(index) {
            Some(f) => Ok(Some(f)),
            None if self.lower.is_none() => Ok(None),
            None => self.lower_page(index),
        }
    }

    /// The page `index` of the file's own, copied up or made of zeros.
    #[inline]
    fn page_to_write(&self, index: u64) -> Result<Frame> {
        match self.pages.get(index) {
            Some(f) => Ok(f),
            None => self.make_page(index),
        }
    }

    #[cold]
    fn make_page(&self, index: u64) -> Result<Frame> {
        let fs = &self.node.fs;
        let below = self.lower_page(index)?;
        fs.take_page()?;
        let new = match &below {
            Some(f) => f.copied(fs.account()),
            None => Frame::zeroed(fs.account()),
        };
        let put = new
            .map_err(mm::Error::from)
            .and_then(|f| Ok((self.pages.insert(index, f.clone())?, f)));
        match put {
            Ok((there, mine)) if there == mine => {
                self.counted.fetch_add(1, Relaxed);
                if below.is_some() && !self.mappings.is_empty() {
                    self.mappings.unmap(index..index + 1);
                }
                Ok(there)
            }
            Ok((there, _)) => {
                fs.give_pages(1);
                Ok(there)
            }
            Err(_) => {
                fs.give_pages(1);
                Err(Error::NoMemory)
            }
        }
    }

    /// Takes the pages of `range` out, of the file and of those who map it.
    fn remove_pages(&self, range: Range<u64>) {
        self.pages.remove(range.clone());
        // A page that a fault put in meanwhile is counted a moment later; the two
        // counts then still agree with each other.
        let now = self.pages.len();
        let before = self.counted.swap(now, Relaxed);
        self.node.fs.give_pages(before.saturating_sub(now));
        if !self.mappings.is_empty() {
            self.mappings.unmap(range);
        }
    }

    /// Fills `range` within one page with zeros, if there is anything else.
    fn zero_within(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let index = range.start >> PAGE_SHIFT;
        if self.page_to_read(index)?.is_some() {
            let base = index << PAGE_SHIFT;
            let frame = self.page_to_write(index)?;
            frame.zero((range.start - base) as usize, (range.end - base) as usize);
        }
        Ok(())
    }

    /// Makes `range` read as zeros; whole pages are freed.
    fn clear(&self, range: Range<u64>) -> Result<()> {
        let (first, last) = (range.start.div_ceil(PAGE), range.end >> PAGE_SHIFT);
        if first > last {
            return self.zero_within(range);
        }
        self.zero_within(range.start..first * PAGE)?;
        self.zero_within(last * PAGE..range.end)?;
        if let Some(lower) = &self.lower {
            // A freed page would show the lower file again; where that is still
            // there, a page of zeros covers it.
            let covered = last.min(lower.len.load(Relaxed).div_ceil(PAGE));
            for index in first..covered {
                self.page_to_write(index)?.zero(0, PAGE_SIZE);
                thread::cond_resched();
            }
            self.remove_pages(first.max(covered)..last);
        } else {
            self.remove_pages(first..last);
        }
        Ok(())
    }

    /// Gives the file all pages of `range`: a later write cannot fail for space.
    /// Where there is none for all, it takes none.
    fn fill(&self, range: Range<u64>) -> Result<()> {
        let fs = &self.node.fs;
        let room = fs.room() as u64;
        let wanted = range.end.saturating_sub(range.start);
        // What is surely too much is not worth the count.
        let missing = match wanted.saturating_sub(self.pages.len() as u64) {
            least if least > room => least,
            _ => self.missing(range.clone()),
        };
        if fs.config.leaves_room && missing > room {
            return Err(Error::NoSpace);
        }
        for index in range {
            self.page_to_write(index).map_err(|e| fs.told(e))?;
            thread::cond_resched();
        }
        Ok(())
    }

    /// How many pages of `range` the file does not have.
    fn missing(&self, range: Range<u64>) -> u64 {
        let mut missing = 0;
        for index in range {
            missing += u64::from(self.pages.get(index).is_none());
            thread::cond_resched();
        }
        missing
    }

    fn resize(&self, len: u64) -> Result<()> {
        if len > SIZE_MAX {
            return Err(Error::FileTooLarge);
        }
        let _io = self.io.lock();
        let old = self.size.load(Relaxed);
        if let Some(seals) = self.seals() {
            seals.check_resize(old, len)?;
        }
        if len < old {
            // The rest of the last page reads as zeros if the file grows again.
            let end = len.div_ceil(PAGE) * PAGE;
            self.zero_within(len..end.min(old))?;
            self.size.store(len, Relaxed);
            if let Some(lower) = &self.lower {
                lower.len.fetch_min(len, Relaxed);
            }
            self.remove_pages(len.div_ceil(PAGE)..SIZE_MAX >> PAGE_SHIFT);
        } else {
            self.size.store(len, Relaxed);
        }
        self.node.attr.touch_modified();
        Ok(())
    }

    /// Writes from `offset` on, with `io` held.
    fn write_locked(&self, source: &mut Source<'_>, offset: u64) -> Result<usize> {
        let room = SIZE_MAX.checked_sub(offset).filter(|r| *r > 0);
        let want = room.ok_or(Error::FileTooLarge)?.min(source.left() as u64);
        if let Some(seals) = self.seals() {
            seals.check_write(self.len(), offset + want)?;
        }
        let (mut at, end) = (offset, offset + want);
        let mut stopped = None;
        while at < end {
            let from = (at % PAGE) as usize;
            let len = (PAGE_SIZE - from).min((end - at) as usize);
            let before = source.moved();
            let page = self.page_to_write(at >> PAGE_SHIFT);
            let page = page.map_err(|e| self.node.fs.told(e));
            let step = page.and_then(|frame| Ok(source.take_frame(&frame, from, len)?));
            at += (source.moved() - before) as u64;
            // Every page counts at once, so that a fault on a mapping of this
            // very file during the copy finds it.
            if at > self.size.load(Relaxed) {
                self.size.store(at, Relaxed);
            }
            if let Err(e) = step {
                stopped = Some(e);
                break;
            }
            thread::cond_resched();
        }
        if at > offset {
            self.node.attr.touch_modified();
        }
        match stopped {
            Some(e) if at == offset => Err(e),
            _ => Ok((at - offset) as usize),
        }
    }

    fn next_data(&self, from: u64) -> Option<u64> {
        let own = self.pages.first_from(from >> PAGE_SHIFT);
        let own = own.map(|(i, _)| (i << PAGE_SHIFT).max(from));
        let below = self.lower.as_ref().map_or(0, |l| l.len.load(Relaxed));
        if from < below {
            return Some(from);
        }
        own.filter(|at| *at < self.len())
    }

    fn next_hole(&self, from: u64) -> u64 {
        let below = self.lower.as_ref().map_or(0, |l| l.len.load(Relaxed));
        let mut at = from.max(below);
        let size = self.len();
        while at < size && self.pages.get(at >> PAGE_SHIFT).is_some() {
            at = ((at >> PAGE_SHIFT) + 1) << PAGE_SHIFT;
            thread::cond_resched();
        }
        at.min(size)
    }

    fn describe_stat(&self) -> Stat {
        let mut s = self.node.attr.stat(self.len());
        let below = self.lower.as_ref().map_or(0, |l| l.len.load(Relaxed));
        s.blocks = (self.pages.len() as u64).max(below.div_ceil(PAGE)) * (PAGE / 512);
        s
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        self.node.fs.give_pages(*self.counted.get_mut());
    }
}

impl Inode for TmpFile {
    node_methods!();

    fn stat(&self) -> Stat {
        self.describe_stat()
    }

    fn open(self: Arc<Self>, _: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Ok(self)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.resize(len)
    }
}

impl FileOps for TmpFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_positional(&self) -> bool {
        true
    }

    fn pread(&self, _: &OpenFile, sink: &mut Sink<'_>, offset: u64) -> Result<usize> {
        let size = self.len();
        if offset >= size {
            return Ok(0);
        }
        let end = offset + (size - offset).min(sink.left() as u64);
        let (start, mut at) = (sink.moved(), offset);
        while at < end {
            let from = (at % PAGE) as usize;
            let len = (PAGE_SIZE - from).min((end - at) as usize);
            let step = match self.page_to_read(at >> PAGE_SHIFT) {
                Ok(Some(frame)) => sink.put_frame(&frame, from, len).map_err(Error::from),
                Ok(None) => sink.put_zeros(len).map_err(Error::from),
                Err(e) => Err(e),
            };
            if let Err(e) = step {
                if sink.moved() == start {
                    return Err(e);
                }
                break;
            }
            at += len as u64;
            thread::cond_resched();
        }
        self.node.attr.touch_accessed();
        Ok(sink.moved() - start)
    }

    fn pwrite(&self, _: &OpenFile, source: &mut Source<'_>, offset: u64) -> Result<usize> {
        if source.left() == 0 {
            return Ok(0);
        }
        let _io = self.io.lock();
        self.write_locked(source, offset)
    }

    fn append(&self, _: &OpenFile, source: &mut Source<'_>) -> Result<(usize, u64)> {
        let _io = self.io.lock();
        let end = self.len();
        if source.left() == 0 {
            return Ok((0, end));
        }
        let n = self.write_locked(source, end)?;
        Ok((n, end + n as u64))
    }

    fn seek(&self, _: &OpenFile, from: u64, to: Seek) -> Result<u64> {
        match to {
            Seek::Data(at) if at >= self.len() => Err(Error::NoDevice),
            Seek::Data(at) => self.next_data(at).ok_or(Error::NoDevice),
            Seek::Hole(at) if at >= self.len() => Err(Error::NoDevice),
            Seek::Hole(at) => Ok(self.next_hole(at)),
            other => other.within(from, self.len()),
        }
    }

    fn stat(&self) -> Stat {
        self.describe_stat()
    }

    fn truncate(&self, _: &OpenFile, len: u64) -> Result<()> {
        self.resize(len)
    }

    fn fallocate(&self, _: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).filter(|e| *e <= SIZE_MAX);
        let end = end.ok_or(Error::FileTooLarge)?;
        let _io = self.io.lock();
        let size = self.len();
        let keep = mode & FALLOC_KEEP_SIZE != 0;
        match mode & !FALLOC_KEEP_SIZE {
            FALLOC_PUNCH_HOLE if keep => {
                if let Some(seals) = self.seals() {
                    seals.check_write(size, size)?;
                }
                self.clear(offset..end.min(size).max(offset))?;
            }
            0 | FALLOC_ZERO_RANGE => {
                if let Some(seals) = self.seals() {
                    // What only gets room is not written, and the seal against growth
                    // counts for what lies beyond the end, too (`shmem_fallocate`).
                    match mode & FALLOC_ZERO_RANGE {
                        0 => seals.check_resize(size, end.max(size))?,
                        _ => seals.check_write(size, end)?,
                    }
                }
                if mode & FALLOC_ZERO_RANGE != 0 {
                    self.clear(offset..end.min(size).max(offset))?;
                }
                self.fill(offset >> PAGE_SHIFT..end.div_ceil(PAGE))?;
                if !keep && end > size {
                    self.size.store(end, Relaxed);
                }
            }
            _ => return Err(Error::Unsupported),
        }
        self.node.attr.touch_modified();
        Ok(())
    }

    fn sync(&self, _: &OpenFile) -> Result<()> {
        Ok(())
    }

    fn name(&self, out: &mut dyn Write) {
        let name = self.memfd.get().map_or("", |m| m.1.as_str());
        let _ = write!(out, "/memfd:{name} (deleted)");
    }

    fn reopen(self: Arc<Self>, _: &OpenFile, _: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Ok(self)
    }

    fn mapping(self: Arc<Self>, file: &OpenFile, to_write: bool) -> Result<Mappable> {
        let mapping = FileMapping::new(self, file.path().cloned(), to_write)?;
        Ok(Mappable::Object(Arc::new(mapping)))
    }
}
