//! Where the bytes of a `read` go to and those of a `write` come from.
//!
//! A file does not care whether its reader is a program (one buffer, or an
//! `iovec` array) or the kernel itself. [`Sink`] and [`Source`] hide that, copy
//! once, and remember how far they came, so that a fault in the middle of a
//! transfer ends in a short count, as it does on Linux.

use crate::addr::PAGE_SIZE;
use crate::error::Fault;
use crate::frame::Frame;
use crate::paging::Access;
use crate::user;
use alloc::vec::Vec;
use smallvec::SmallVec;

/// A buffer of the running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserBuf {
    /// Its address.
    pub addr: usize,
    /// Its length in bytes.
    pub len: usize,
}

/// Buffers of the running program, used one after the other.
pub type Segments = SmallVec<[UserBuf; 8]>;

enum Target<'a> {
    Kernel(&'a mut [u8]),
    One(UserBuf),
    Many(Segments, usize),
}

/// The destination of a read.
pub struct Sink<'a> {
    target: Target<'a>,
    moved: usize,
    left: usize,
}

enum Origin<'a> {
    Kernel(&'a [u8]),
    One(UserBuf),
    Many(Segments, usize),
}

/// The origin of a write.
pub struct Source<'a> {
    origin: Origin<'a>,
    moved: usize,
    left: usize,
}

fn total(segments: &[UserBuf]) -> usize {
    segments.iter().fold(0, |n, s| n.saturating_add(s.len))
}

/// The first segment with bytes left from `at` on, cut to `max`; advances.
fn next_segment(segments: &mut Segments, at: &mut usize, max: usize) -> Option<UserBuf> {
    while let Some(s) = segments.get_mut(*at) {
        if s.len > 0 {
            return Some(UserBuf {
                addr: s.addr,
                len: s.len.min(max),
            });
        }
        *at += 1;
    }
    None
}

fn is_aligned(bufs: &[UserBuf], n: usize) -> bool {
    bufs.iter().all(|b| (b.addr | b.len) & (n - 1) == 0)
}

fn advance(buf: &mut UserBuf, n: usize) {
    buf.addr = buf.addr.wrapping_add(n);
    buf.len -= n.min(buf.len);
}

/// Adds whole pages from the start of a buffer to `frames`, as far as they can be had.
fn pages(buf: Option<UserBuf>, left: usize, max: usize, access: Access, frames: &mut Vec<Frame>) {
    let Some(buf) = buf else { return };
    let whole = buf.len.min(left) / PAGE_SIZE;
    for n in 0..whole.min(max) {
        let page = user::page(buf.addr.wrapping_add(n * PAGE_SIZE), access);
        match page {
            Ok(frame) if frames.try_reserve(1).is_ok() => frames.push(frame),
            _ => break,
        }
    }
}

impl<'a> Sink<'a> {
    /// Into kernel memory.
    pub fn kernel(buf: &'a mut [u8]) -> Sink<'a> {
        let left = buf.len();
        Sink {
            target: Target::Kernel(buf),
            moved: 0,
            left,
        }
    }

    /// Into one buffer of the program.
    #[inline]
    #[must_use]
    pub fn user(buf: UserBuf) -> Sink<'static> {
        Sink {
            target: Target::One(buf),
            moved: 0,
            left: buf.len,
        }
    }

    /// Into several, one after the other.
    #[must_use]
    pub fn user_vec(bufs: Segments) -> Sink<'static> {
        let left = total(&bufs);
        Sink {
            target: Target::Many(bufs, 0),
            moved: 0,
            left,
        }
    }

    /// Bytes that still fit.
    #[inline]
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Bytes put so far.
    #[inline]
    #[must_use]
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// Whether every buffer begins and ends at a multiple of `n` (a power of two), as
    /// `O_DIRECT` wants it. The kernel's own memory always does.
    #[must_use]
    pub fn is_aligned(&self, n: usize) -> bool {
        match &self.target {
            Target::Kernel(_) => true,
            Target::One(buf) => is_aligned(&[*buf], n),
            Target::Many(bufs, at) => is_aligned(bufs.get(*at..).unwrap_or_default(), n),
        }
    }

    /// Lets at most `n` more bytes in.
    pub fn limit(&mut self, n: usize) {
        self.left = self.left.min(n);
    }

    /// Puts as much of `bytes` as fits; how much that was.
    ///
    /// # Errors
    /// [`Fault`] if the program's memory cannot be written; [`Sink::moved`] counts
    /// what got there before.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let bytes = &bytes[..bytes.len().min(self.left)];
        // `left` never exceeds what is left of a single buffer.
        let Target::One(buf) = &mut self.target else {
            return self.put_in_parts(bytes);
        };
        let n = user::write_partial(buf.addr, bytes);
        advance(buf, n);
        self.moved += n;
        self.left -= n;
        if n == bytes.len() { Ok(n) } else { Err(Fault) }
    }

    fn put_in_parts(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let n = match &mut self.target {
                Target::Kernel(buf) => {
                    let n = rest.len().min(buf.len());
                    let (now, later) = core::mem::take(buf).split_at_mut(n);
                    now.copy_from_slice(&rest[..n]);
                    *buf = later;
                    n
                }
                Target::One(buf) => {
                    let n = user::write_partial(buf.addr, &rest[..rest.len().min(buf.len)]);
                    advance(buf, n);
                    n
                }
                Target::Many(bufs, at) => match next_segment(bufs, at, rest.len()) {
                    Some(seg) => {
                        let n = user::write_partial(seg.addr, &rest[..seg.len]);
                        advance(&mut bufs[*at], n);
                        n
                    }
                    None => 0,
                },
            };
            if n == 0 {
                return Err(Fault);
            }
            done += n;
            self.moved += n;
            self.left -= n;
        }
        Ok(done)
    }

    /// Puts `len` bytes of `frame` from `offset` on (cut to the page and to what
    /// fits); how many that was.
    ///
    /// # Errors
    /// As [`Sink::put`].
    #[inline]
    pub fn put_frame(&mut self, frame: &Frame, offset: usize, len: usize) -> Result<usize, Fault> {
        let start = offset.min(PAGE_SIZE);
        let end = start.saturating_add(len.min(self.left)).min(PAGE_SIZE);
        frame.with_bytes(|page| self.put(&page[start..end]))
    }

    /// The program's own pages that come next, up to `max` whole ones, for a device that
    /// fills them itself; [`Sink::filled`] then says how far it came. None where the
    /// buffer does not begin with a page, or its memory cannot be written.
    pub fn pages(&mut self, max: usize, frames: &mut Vec<Frame>) {
        let left = self.left;
        let next = match &mut self.target {
            Target::Kernel(_) => None,
            Target::One(buf) => Some(*buf),
            Target::Many(bufs, at) => next_segment(bufs, at, left),
        };
        pages(next, left, max, Access::READ | Access::WRITE, frames);
    }

    /// A device has filled the next `n` bytes.
    pub fn filled(&mut self, n: usize) {
        match &mut self.target {
            Target::Kernel(_) => return,
            Target::One(buf) => advance(buf, n),
            Target::Many(bufs, at) => {
                if let Some(buf) = bufs.get_mut(*at) {
                    advance(buf, n);
                }
            }
        }
        self.moved += n;
        self.left -= n.min(self.left);
    }

    /// Puts up to `n` zero bytes; how many fitted.
    ///
    /// # Errors
    /// As [`Sink::put`].
    pub fn put_zeros(&mut self, n: usize) -> Result<usize, Fault> {
        const ZEROS: [u8; 512] = [0; 512];
        let n = n.min(self.left);
        let mut done = 0;
        while done < n {
            done += self.put(&ZEROS[..(n - done).min(ZEROS.len())])?;
        }
        Ok(done)
    }
}

impl<'a> Source<'a> {
    /// From kernel memory.
    #[must_use]
    pub fn kernel(buf: &'a [u8]) -> Source<'a> {
        Source {
            origin: Origin::Kernel(buf),
            moved: 0,
            left: buf.len(),
        }
    }

    /// From one buffer of the program.
    #[inline]
    #[must_use]
    pub fn user(buf: UserBuf) -> Source<'static> {
        Source {
            origin: Origin::One(buf),
            moved: 0,
            left: buf.len,
        }
    }

    /// From several, one after the other.
    #[must_use]
    pub fn user_vec(bufs: Segments) -> Source<'static> {
        let left = total(&bufs);
        Source {
            origin: Origin::Many(bufs, 0),
            moved: 0,
            left,
        }
    }

    /// Bytes not taken yet.
    #[inline]
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Bytes taken so far.
    #[inline]
    #[must_use]
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// Whether every buffer begins and ends at a multiple of `n` (a power of two), as
    /// `O_DIRECT` wants it. The kernel's own memory always does.
    #[must_use]
    pub fn is_aligned(&self, n: usize) -> bool {
        match &self.origin {
            Origin::Kernel(_) => true,
            Origin::One(buf) => is_aligned(&[*buf], n),
            Origin::Many(bufs, at) => is_aligned(bufs.get(*at..).unwrap_or_default(), n),
        }
    }

    /// Gives at most `n` more bytes.
    pub fn limit(&mut self, n: usize) {
        self.left = self.left.min(n);
    }

    /// Fills as much of `out` as there is; how much that was.
    ///
    /// # Errors
    /// [`Fault`] if the program's memory cannot be read; [`Source::moved`] counts
    /// what was taken before.
    pub fn take(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let want = out.len().min(self.left);
        let mut done = 0;
        while done < want {
            let rest = &mut out[done..want];
            let n = match &mut self.origin {
                Origin::Kernel(buf) => {
                    let n = rest.len().min(buf.len());
                    rest[..n].copy_from_slice(&buf[..n]);
                    *buf = &buf[n..];
                    n
                }
                Origin::One(buf) => {
                    let max = rest.len().min(buf.len);
                    let n = user::read_partial(buf.addr, &mut rest[..max]);
                    advance(buf, n);
                    n
                }
                Origin::Many(bufs, at) => match next_segment(bufs, at, rest.len()) {
                    Some(seg) => {
                        let n = user::read_partial(seg.addr, &mut rest[..seg.len]);
                        advance(&mut bufs[*at], n);
                        n
                    }
                    None => 0,
                },
            };
            if n == 0 {
                return Err(Fault);
            }
            done += n;
            self.moved += n;
            self.left -= n;
        }
        Ok(done)
    }

    /// The program's own pages that come next, up to `max` whole ones, for a device that
    /// reads them itself; [`Source::used`] then says how far it came. None where the
    /// buffer does not begin with a page, or its memory cannot be read.
    pub fn pages(&mut self, max: usize, frames: &mut Vec<Frame>) {
        let left = self.left;
        let next = match &mut self.origin {
            Origin::Kernel(_) => None,
            Origin::One(buf) => Some(*buf),
            Origin::Many(bufs, at) => next_segment(bufs, at, left),
        };
        pages(next, left, max, Access::READ, frames);
    }

    /// A device has read the next `n` bytes.
    pub fn used(&mut self, n: usize) {
        match &mut self.origin {
            Origin::Kernel(_) => return,
            Origin::One(buf) => advance(buf, n),
            Origin::Many(bufs, at) => {
                if let Some(buf) = bufs.get_mut(*at) {
                    advance(buf, n);
                }
            }
        }
        self.moved += n;
        self.left -= n.min(self.left);
    }

    /// Fills `frame` from `offset` on with up to `len` bytes (cut to the page);
    /// how many that was.
    ///
    /// # Errors
    /// As [`Source::take`].
    #[inline]
    pub fn take_frame(&mut self, frame: &Frame, offset: usize, len: usize) -> Result<usize, Fault> {
        let start = offset.min(PAGE_SIZE);
        let end = start.saturating_add(len.min(self.left)).min(PAGE_SIZE);
        frame
            .with_bytes_mut(|page| self.take(&mut page[start..end]))
            .unwrap_or(Err(Fault))
    }
}
