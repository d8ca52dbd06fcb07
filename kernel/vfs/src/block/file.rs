//! Reading and writing a disk at any byte.
//!
//! Whole pages of a program's memory are the device's own to fill and to read. What is
//! left goes through memory of the kernel's and is copied.

use super::Disk;
use super::slots::Use;
use crate::error::{Error, Result};
use crate::file::{FileOps, OpenFile, OpenFlags, Seek};
use alloc::vec::Vec;
use core::any::Any;
use core::ops::Range;
use machine::addr::PAGE_SIZE;
use machine::block::{BlockError, SECTOR};
use machine::io::{Sink, Source};
use machine::{Frame, thread};

/// Bytes of one transfer: whole pages. A larger read or write is several.
pub(super) const WINDOW: usize = 256 << 10;

/// Pages of the program's own that one transfer uses.
pub(super) const DIRECT: usize = (1 << 20) / PAGE_SIZE;

/// The blocks around a part of a program's transfer, and the memory for them.
struct Window {
    /// Where the first block begins, in bytes of the disk.
    base: u64,
    /// Bytes of it before those that are wanted.
    head: usize,
    /// Bytes wanted.
    len: usize,
    /// Bytes of all its blocks.
    span: usize,
}

impl Window {
    /// The window of at most `len` bytes from `at` on, in blocks of `block` bytes.
    fn new(at: u64, len: usize, block: usize) -> Window {
        let head = (at % block as u64) as usize;
        let len = len.min(WINDOW - head);
        Window {
            base: at - head as u64,
            head,
            len,
            span: (head + len).next_multiple_of(block),
        }
    }

    /// The window of `pages` whole pages from `at` on, where a block begins.
    fn whole(at: u64, pages: usize) -> Window {
        Window {
            base: at,
            head: 0,
            len: pages * PAGE_SIZE,
            span: pages * PAGE_SIZE,
        }
    }

    /// Cuts it to `pages`, at least one.
    fn cut(&mut self, pages: usize) {
        self.span = self.span.min(pages * PAGE_SIZE);
        self.len = self.len.min(self.span - self.head);
    }

    fn sector(&self) -> u64 {
        self.base / SECTOR as u64
    }

    fn sectors(&self) -> Range<u64> {
        self.sector()..self.sector() + (self.span / SECTOR) as u64
    }

    /// Its wanted bytes, as page, offset in it, and length.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (mut at, end) = (self.head, self.head + self.len);
        core::iter::from_fn(move || {
            let (page, offset) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let n = (end - at).min(PAGE_SIZE - offset);
            at += n;
            (n > 0).then_some((page, offset, n))
        })
    }
}

impl Disk {
    fn block_len(&self) -> usize {
        self.device.block_len()
    }

    /// Memory for up to `span` bytes: less when the capsule has no more.
    fn frames(&self, span: usize) -> Result<Vec<Frame>> {
        let count = span.div_ceil(PAGE_SIZE);
        let mut frames = Vec::new();
        frames.try_reserve_exact(count)?;
        while frames.len() < count {
            match Frame::zeroed(&self.account) {
                Ok(frame) => frames.push(frame),
                Err(_) if !frames.is_empty() => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(frames)
    }

    /// What `O_DIRECT` asks of a transfer (open(2)).
    fn check_direct(&self, file: &OpenFile, offset: u64, memory_fits: bool) -> Result<()> {
        let fits = memory_fits && offset.is_multiple_of(self.block_len() as u64);
        if fits || !file.flags().contains(OpenFlags::DIRECT) {
            return Ok(());
        }
        Err(Error::Invalid)
    }

    /// Reads from `at` on right into the program's pages; whether there were any.
    fn read_direct(&self, sink: &mut Sink<'_>, at: u64) -> Result<bool> {
        let mut frames = Vec::new();
        if at.is_multiple_of(self.block_len() as u64) {
            sink.pages(DIRECT, &mut frames);
        }
        if frames.is_empty() {
            return Ok(false);
        }
        let mut window = Window::whole(at, frames.len());
        let slot = self.slots.take(&window.sectors(), Use::Reads);
        self.read_frames(&mut window, &frames)?;
        drop(slot);
        sink.filled(window.len);
        Ok(true)
    }

    /// Reads the window into `frames`. If that fails, it is cut before the page that
    /// cannot be read.
    fn read_frames(&self, window: &mut Window, frames: &[Frame]) -> Result<()> {
        match self.device.read(window.sector(), frames, window.span) {
            Err(BlockError::Failed) if window.span > PAGE_SIZE => {
                let good = self.readable(window, frames)?;
                window.cut(good);
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Reads from `at` on until the window or the program's buffer is full.
    fn read_window(&self, sink: &mut Sink<'_>, at: u64) -> Result<()> {
        let mut window = Window::new(at, sink.left(), self.block_len());
        let slot = self.slots.take(&window.sectors(), Use::Reads);
        let frames = self.frames(window.span)?;
        window.cut(frames.len());
        self.read_frames(&mut window, &frames)?;
        drop(slot);
        for (page, offset, n) in window.pieces() {
            let frame = frames.get(page).ok_or(Error::Io)?;
            sink.put_frame(frame, offset, n)?;
        }
        Ok(())
    }

    /// Reads the window again page by page: how many pages there are before the
    /// one that cannot be read. A program that steps over bad blocks gets what is
    /// good before them.
    fn readable(&self, window: &Window, frames: &[Frame]) -> Result<usize> {
        let (mut sector, mut left) = (window.sector(), window.span);
        for (n, frame) in frames.iter().enumerate() {
            let len = left.min(PAGE_SIZE);
            if len == 0 {
                break;
            }
            match self.device.read(sector, core::slice::from_ref(frame), len) {
                Err(e) if n == 0 => return Err(e.into()),
                Err(_) => return Ok(n),
                Ok(()) => {}
            }
            sector += (len / SECTOR) as u64;
            left -= len;
        }
        Ok(frames.len())
    }

    /// Writes from `at` on right from the program's pages; how many bytes.
    fn write_direct(&self, source: &mut Source<'_>, at: u64) -> Result<usize> {
        let mut frames = Vec::new();
        if at.is_multiple_of(self.block_len() as u64) {
            source.pages(DIRECT, &mut frames);
        }
        if frames.is_empty() {
            return Ok(0);
        }
        let window = Window::whole(at, frames.len());
        let slot = self.slots.take(&window.sectors(), Use::Writes);
        self.device.write(window.sector(), &frames, window.span)?;
        drop(slot);
        source.used(window.len);
        Ok(window.len)
    }

    /// Writes from `at` on until the window is full or the program's bytes are
    /// used up: how many were written, and whether more of them can be had.
    fn write_window(&self, source: &mut Source<'_>, at: u64) -> Result<(usize, bool)> {
        let block = self.block_len();
        let mut window = Window::new(at, source.left(), block);
        let slot = self.slots.take(&window.sectors(), Use::Writes);
        let frames = self.frames(window.span)?;
        window.cut(frames.len());
        self.read_edges(&window, &frames)?;
        let before = source.moved();
        let mut filled = Ok(());
        for (page, offset, n) in window.pieces() {
            let frame = frames.get(page).ok_or(Error::Io)?;
            if let Err(e) = source.take_frame(frame, offset, n) {
                filled = Err(e.into());
                break;
            }
        }
        if filled.is_err() {
            // Only blocks that are whole so far: the rest of the next is not there.
            let end = window.head + source.moved() - before;
            window.span = end - end % block;
            window.len = window.span.saturating_sub(window.head);
            if window.len == 0 {
                return filled.map(|()| (0, false));
            }
        }
        self.device.write(window.sector(), &frames, window.span)?;
        drop(slot);
        Ok((window.len, filled.is_ok()))
    }

    /// Reads the blocks at both ends that are written in part only.
    fn read_edges(&self, window: &Window, frames: &[Frame]) -> Result<()> {
        let end = window.head + window.len;
        let read = |page: usize, len: usize| {
            let frame = frames.get(page..=page).ok_or(Error::Io)?;
            let sector = window.sector() + (page * PAGE_SIZE / SECTOR) as u64;
            Ok::<(), Error>(self.device.read(sector, frame, len)?)
        };
        let last = (window.span - 1) / PAGE_SIZE;
        let is_cut = end < window.span;
        if window.head > 0 && !(is_cut && last == 0) {
            read(0, self.block_len())?;
        }
        if is_cut {
            read(last, window.span - last * PAGE_SIZE)?;
        }
        Ok(())
    }

    /// Writes all of `source` from `offset` on.
    fn write_all(&self, source: &mut Source<'_>, offset: u64) -> Result<usize> {
        let (mut at, mut more) = (offset, true);
        while more && source.left() > 0 {
            let written = match self.write_direct(source, at) {
                Ok(0) => self.write_window(source, at),
                other => other.map(|n| (n, true)),
            };
            match written {
                Ok((n, there_is)) => (at, more) = (at + n as u64, there_is),
                Err(e) if at == offset => return Err(e),
                Err(_) => break,
            }
            more &= !thread::pause();
        }
        Ok((at - offset) as usize)
    }

    /// Makes durable what was written before.
    ///
    /// # Errors
    /// The device's, but that it has nothing to flush.
    pub fn flush(&self) -> Result<()> {
        match self.device.flush() {
            Err(BlockError::Unsupported) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl FileOps for Disk {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_positional(&self) -> bool {
        true
    }

    fn pread(&self, file: &OpenFile, sink: &mut Sink<'_>, offset: u64) -> Result<usize> {
        let left = self.size().saturating_sub(offset);
        if sink.left() == 0 || left == 0 {
            return Ok(0);
        }
        self.check_direct(file, offset, sink.is_aligned(self.block_len()))?;
        sink.limit(usize::try_from(left).unwrap_or(usize::MAX));
        let start = sink.moved();
        while sink.left() > 0 {
            let moved = sink.moved() - start;
            let at = offset + moved as u64;
            let read = match self.read_direct(sink, at) {
                Ok(false) => self.read_window(sink, at),
                other => other.map(drop),
            };
            match read {
                Err(e) if sink.moved() == start => return Err(e),
                Err(_) => break,
                Ok(()) => {}
            }
            if thread::pause() {
                break;
            }
        }
        Ok(sink.moved() - start)
    }

    fn pwrite(&self, file: &OpenFile, source: &mut Source<'_>, offset: u64) -> Result<usize> {
        if self.device.is_read_only() {
            return Err(Error::NotPermitted);
        }
        if source.left() == 0 {
            return Ok(0);
        }
        let left = self.size().saturating_sub(offset);
        if left == 0 {
            return Err(Error::NoSpace);
        }
        self.check_direct(file, offset, source.is_aligned(self.block_len()))?;
        source.limit(usize::try_from(left).unwrap_or(usize::MAX));
        let n = self.write_all(source, offset)?;
        if file.flags().contains(OpenFlags::DSYNC) {
            self.flush()?;
        }
        Ok(n)
    }

    fn append(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<(usize, u64)> {
        let end = self.size();
        self.pwrite(file, source, end).map(|n| (n, end))
    }

    fn seek(&self, _: &OpenFile, from: u64, to: Seek) -> Result<u64> {
        let size = self.size();
        let at = to.within(from, size)?;
        if at > size {
            return Err(Error::Invalid);
        }
        Ok(at)
    }

    fn ioctl(&self, file: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        self.control(file, command, arg)
    }

    fn fallocate(&self, _: &OpenFile, _: u32, _: u64, _: u64) -> Result<()> {
        Err(Error::Unsupported)
    }

    fn sync(&self, _: &OpenFile) -> Result<()> {
        self.flush()
    }
}
