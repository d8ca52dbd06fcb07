//! A byte queue between one writer and one reader: half a stream connection.
//!
//! The bytes lie in frames. A frame may be read and written through a shared
//! reference, so the copies from and to a program's memory, which may sleep in a
//! page fault, happen under a sleeping lock of the one end alone; the spin lock
//! only covers the list of pieces. Pages come when bytes come and go when they
//! are read: an idle ring holds at most one page. `sendfile` puts pages of the
//! page cache into the list without a copy.

use crate::ancillary::Ancillary;
use crate::error::Result;
use crate::pool::PagePool;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::Frame;
use machine::addr::PAGE_SIZE;
use machine::io::{Sink, Source};
use machine::sync::{Mutex, SpinLock};

/// Foreign pieces shorter than this are copied rather than referred to, which
/// bounds the number of pieces.
const BORROW_MIN: usize = 1024;

/// Part of a frame, waiting to be read.
struct Piece {
    frame: Frame,
    start: usize,
    end: usize,
    /// Whether the frame came from the pool (and may go back).
    own: bool,
}

/// Control data that belongs to the bytes `start..end` of the stream.
struct Note {
    start: u64,
    end: u64,
    data: Box<Ancillary>,
}

#[derive(Default)]
struct Pieces {
    queue: VecDeque<Piece>,
    /// Bytes ever written, the position of the next one.
    written: u64,
    /// Bytes ever read.
    read: u64,
    notes: VecDeque<Note>,
}

/// The writer's place: the page it fills, and how far.
#[derive(Default)]
struct WriteEnd {
    page: Option<Frame>,
    filled: usize,
}

/// A bounded byte queue.
pub struct Ring {
    pool: Arc<PagePool>,
    capacity: AtomicUsize,
    len: AtomicUsize,
    writer: Mutex<WriteEnd>,
    reader: Mutex<()>,
    pieces: SpinLock<Pieces>,
}

/// What a read took beside bytes.
pub struct Taken {
    /// Bytes put into the sink.
    pub bytes: usize,
    /// Control data that came with the first of them.
    pub note: Option<Box<Ancillary>>,
}

impl Ring {
    /// An empty ring for `capacity` bytes.
    #[must_use]
    pub fn new(pool: Arc<PagePool>, capacity: usize) -> Ring {
        Ring {
            pool,
            capacity: AtomicUsize::new(capacity),
            len: AtomicUsize::new(0),
            writer: Mutex::new(WriteEnd::default()),
            reader: Mutex::new(()),
            pieces: SpinLock::new(Pieces::default()),
        }
    }

    /// Bytes waiting.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether no byte waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit now.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity().saturating_sub(self.len())
    }

    /// Most bytes that may wait.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the capacity; what waits stays.
    pub fn set_capacity(&self, bytes: usize) {
        self.capacity.store(bytes, Ordering::Relaxed);
    }

    /// Whether a writer that waits should go on: half of the ring is free, so
    /// that two sides do not switch for every page.
    #[inline]
    #[must_use]
    pub fn is_roomy(&self) -> bool {
        self.len() <= self.capacity() / 2
    }

    /// Takes as much of `src` as fits and returns how much; `note` goes with it
    /// and is taken once a byte went in. Never waits for room.
    ///
    /// # Errors
    /// A fault in the program's memory or no memory, if nothing was taken.
    pub fn write(&self, src: &mut Source<'_>, note: &mut Option<Box<Ancillary>>) -> Result<usize> {
        let mut w = self.writer.lock();
        let mut done = 0;
        while src.left() > 0 {
            let room = self.room();
            // A reader on another CPU may make room as fast as this fills it.
            if room == 0 || done > self.capacity() {
                break;
            }
            let step = self.fill(&mut w, src, room, note);
            match step {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// One page of a write.
    fn fill(
        &self,
        w: &mut WriteEnd,
        src: &mut Source<'_>,
        room: usize,
        note: &mut Option<Box<Ancillary>>,
    ) -> Result<usize> {
        self.turn_page(w)?;
        let Some(page) = &w.page else {
            return Ok(0);
        };
        let before = src.moved();
        let result = src.take_frame(page, w.filled, room);
        let n = src.moved() - before;
        if n == 0 {
            return result.map_err(Into::into);
        }
        self.commit(page, w.filled, n, true, note)?;
        w.filled += n;
        Ok(n)
    }

    /// Makes sure that the writer's page has room.
    fn turn_page(&self, w: &mut WriteEnd) -> Result<()> {
        if let Some(page) = &w.page {
            if w.filled > 0 && self.is_empty() && page.references() == 1 {
                // All was read: the warm page starts over.
                w.filled = 0;
            }
            if w.filled < PAGE_SIZE {
                return Ok(());
            }
        }
        if let Some(full) = w.page.take() {
            self.pool.give(full);
        }
        w.page = Some(self.pool.take()?);
        w.filled = 0;
        Ok(())
    }

    /// Makes bytes readable.
    fn commit(
        &self,
        frame: &Frame,
        start: usize,
        n: usize,
        own: bool,
        note: &mut Option<Box<Ancillary>>,
    ) -> Result<()> {
        let mut p = self.pieces.lock();
        let from = p.written;
        if let Some(data) = note.take() {
            if let Err(e) = p.notes.try_reserve(1) {
                *note = Some(data);
                return Err(e.into());
            }
            let end = from + n as u64;
            p.notes.push_back(Note {
                start: from,
                end,
                data,
            });
        }
        match p.queue.back_mut() {
            Some(last) if last.end == start && last.frame == *frame => last.end += n,
            _ => {
                p.queue.try_reserve(1)?;
                p.queue.push_back(Piece {
                    frame: frame.clone(),
                    start,
                    end: start + n,
                    own,
                });
            }
        }
        p.written = from + n as u64;
        self.len.fetch_add(n, Ordering::Release);
        Ok(())
    }

    /// Puts `len` bytes of `frame` from `start` on into the ring without copying
    /// them, as far as there is room; how many went in.
    ///
    /// # Errors
    /// No memory.
    pub fn write_frame(&self, frame: &Frame, start: usize, len: usize) -> Result<usize> {
        let start = start.min(PAGE_SIZE);
        let n = len.min(PAGE_SIZE - start).min(self.room());
        if n == 0 {
            return Ok(0);
        }
        if n < BORROW_MIN {
            let mut bytes = [0; BORROW_MIN];
            let (part, _) = bytes.split_at_mut(n);
            frame.read(start, part);
            return self.write(&mut Source::kernel(part), &mut None);
        }
        let _w = self.writer.lock();
        self.commit(frame, start, n, false, &mut None)?;
        Ok(n)
    }

    /// Moves bytes that wait into `sink`, at most up to the next control data;
    /// never waits. Control data that nobody takes is dropped with its bytes.
    ///
    /// # Errors
    /// A fault in the program's memory, if nothing was moved.
    pub fn read(&self, sink: &mut Sink<'_>) -> Result<Taken> {
        let _r = self.reader.lock();
        let mut taken = Taken {
            bytes: 0,
            note: None,
        };
        // No piece is read past this position of the stream.
        let mut stop = u64::MAX;
        // A writer on another CPU may write as fast as this reads.
        while sink.left() > 0 && taken.bytes <= self.capacity() {
            let Some((frame, start, n)) = self.front(&mut taken, &mut stop) else {
                break;
            };
            let before = sink.moved();
            let result = sink.put_frame(&frame, start, n);
            let n = sink.moved() - before;
            self.consume(n, frame);
            taken.bytes += n;
            match result {
                Ok(_) if n > 0 => {}
                Err(e) if taken.bytes == 0 => return Err(e.into()),
                _ => break,
            }
        }
        Ok(taken)
    }

    /// The first piece and how much of it may be read. Takes control data that
    /// begins here, and notes where the next one does.
    fn front(&self, taken: &mut Taken, stop: &mut u64) -> Option<(Frame, usize, usize)> {
        let mut p = self.pieces.lock();
        let at = p.read;
        if *stop == u64::MAX && !p.notes.is_empty() {
            let begins_here = p.notes.front().is_some_and(|n| n.start <= at);
            if begins_here && taken.bytes == 0 {
                if let Some(note) = p.notes.pop_front() {
                    *stop = note.end.max(at + 1);
                    taken.note = Some(note.data);
                }
            } else if let Some(next) = p.notes.front() {
                *stop = next.start;
            }
        }
        let left = usize::try_from(stop.saturating_sub(at)).unwrap_or(usize::MAX);
        let piece = p.queue.front()?;
        let n = (piece.end - piece.start).min(left);
        (n > 0).then(|| (piece.frame.clone(), piece.start, n))
    }

    /// Forgets `n` bytes of the first piece, of which `held` is the frame.
    fn consume(&self, n: usize, held: Frame) {
        drop(held);
        if n == 0 {
            return;
        }
        let mut p = self.pieces.lock();
        p.read += n as u64;
        let mut done = None;
        if let Some(first) = p.queue.front_mut() {
            first.start += n;
            if first.start >= first.end {
                done = p.queue.pop_front();
            }
        }
        self.len.fetch_sub(n, Ordering::Release);
        drop(p);
        if let Some(piece) = done.filter(|p| p.own) {
            self.pool.give(piece.frame);
        }
    }

    /// Copies bytes that wait into `sink` and leaves them, skipping `skip`.
    ///
    /// # Errors
    /// A fault in the program's memory, if nothing was copied.
    pub fn peek(&self, sink: &mut Sink<'_>, mut skip: usize) -> Result<usize> {
        let _r = self.reader.lock();
        let before = sink.moved();
        let mut at = 0;
        while sink.left() > 0 {
            let piece = {
                let p = self.pieces.lock();
                let Some(piece) = p.queue.get(at) else { break };
                (piece.frame.clone(), piece.start, piece.end)
            };
            at += 1;
            let (frame, start, end) = piece;
            let pass = skip.min(end - start);
            skip -= pass;
            if start + pass == end {
                continue;
            }
            let put = sink.put_frame(&frame, start + pass, end - start - pass);
            if let Err(e) = put {
                if sink.moved() == before {
                    return Err(e.into());
                }
                break;
            }
        }
        Ok(sink.moved() - before)
    }

    /// Shows `f` all control data that waits.
    pub(crate) fn for_each_note(&self, mut f: impl FnMut(&Ancillary)) {
        for note in &self.pieces.lock().notes {
            f(&note.data);
        }
    }

    /// Drops all that waits. Whether there was anything.
    pub fn clear(&self) -> bool {
        let _r = self.reader.lock();
        let mut p = self.pieces.lock();
        let queue = core::mem::take(&mut p.queue);
        let notes = core::mem::take(&mut p.notes);
        p.read = p.written;
        self.len.store(0, Ordering::Release);
        drop(p);
        // Files in control data may close here: no lock but the reader's is held.
        drop(notes);
        let any = !queue.is_empty();
        for piece in queue {
            if piece.own {
                self.pool.give(piece.frame);
            }
        }
        any
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for piece in core::mem::take(&mut self.pieces.get_mut().queue) {
            if piece.own {
                self.pool.give(piece.frame);
            }
        }
        if let Some(page) = self.writer.get_mut().page.take() {
            self.pool.give(page);
        }
    }
}
