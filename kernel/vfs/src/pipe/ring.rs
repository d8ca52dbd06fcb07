//! The bytes in a pipe: a ring of page-sized segments.

use crate::error::{Error, Result};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::io::{Sink, Source};
use machine::{Account, Frame};

/// Bytes that a write puts in as a whole or not at all (`PIPE_BUF`).
pub(super) const ATOMIC: usize = PAGE_SIZE;

struct Segment {
    frame: Frame,
    start: usize,
    end: usize,
    /// A message of its own (`O_DIRECT`): never merged, read one at a time.
    packet: bool,
}

/// Segments in order, and frames kept for the next ones.
pub(super) struct Ring {
    segments: VecDeque<Segment>,
    spare: Vec<Frame>,
    slots: usize,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(slots: usize) -> Ring {
        Ring {
            segments: VecDeque::new(),
            spare: Vec::new(),
            slots,
            bytes: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Whether no further segment fits.
    pub(super) fn is_full(&self) -> bool {
        self.segments.len() >= self.slots
    }

    /// Changes the number of segments that fit.
    pub(super) fn resize(&mut self, slots: usize) -> Result<()> {
        if slots < self.segments.len() {
            return Err(Error::Busy);
        }
        self.slots = slots;
        self.spare.truncate(slots);
        Ok(())
    }

    /// Bytes that can still be merged into the last segment.
    fn tail_room(&self) -> usize {
        match self.segments.back() {
            Some(s) if !s.packet => PAGE_SIZE - s.end,
            _ => 0,
        }
    }

    /// Whether a write of `len` bytes can begin: as a whole if it is atomic.
    pub(super) fn takes(&self, len: usize) -> bool {
        !self.is_full() || (len <= ATOMIC && len <= self.tail_room() && len > 0)
    }

    /// Moves as much as fits in; bytes moved. Call it when [`Ring::takes`] says so.
    pub(super) fn fill(
        &mut self,
        source: &mut Source<'_>,
        packet: bool,
        payer: &Account,
    ) -> Result<usize> {
        let before = source.moved();
        let result = self.fill_all(source, packet, payer);
        match (source.moved() - before, result) {
            (0, Err(e)) => Err(e),
            (n, _) => Ok(n),
        }
    }

    fn fill_all(&mut self, source: &mut Source<'_>, packet: bool, payer: &Account) -> Result<()> {
        if !packet
            && let Some(last) = self.segments.back_mut()
            && !last.packet
            && last.end < PAGE_SIZE
        {
            let n = take(source, &last.frame, last.end, &mut self.bytes);
            last.end += n.0;
            n.1?;
        }
        while source.left() > 0 && !self.is_full() {
            self.segments.try_reserve(1)?;
            let frame = match self.spare.pop() {
                Some(f) => f,
                None => Frame::zeroed(payer)?,
            };
            let (n, result) = take(source, &frame, 0, &mut self.bytes);
            if n > 0 {
                self.segments.push_back(Segment {
                    frame,
                    start: 0,
                    end: n,
                    packet,
                });
            }
            result?;
        }
        Ok(())
    }

    /// Moves what is there out, one packet at most; bytes moved.
    pub(super) fn drain(&mut self, sink: &mut Sink<'_>) -> Result<usize> {
        let before = sink.moved();
        while sink.left() > 0 {
            let Some(first) = self.segments.front_mut() else {
                break;
            };
            let at = sink.moved();
            let len = first.end - first.start;
            let result = sink.put_frame(&first.frame, first.start, len);
            let n = sink.moved() - at;
            first.start += n;
            self.bytes -= n;
            let packet = first.packet;
            if result.is_err() {
                if sink.moved() == before {
                    return Err(Error::BadAddress);
                }
                break;
            }
            if packet || first.start == first.end {
                self.drop_first();
            }
            if packet {
                break;
            }
        }
        Ok(sink.moved() - before)
    }

    fn drop_first(&mut self) {
        if let Some(gone) = self.segments.pop_front() {
            // What is left of a packet that did not fit the reader's buffer is lost.
            self.bytes -= gone.end - gone.start;
            if self.spare.len() < self.slots && self.spare.try_reserve(1).is_ok() {
                self.spare.push(gone.frame);
            }
        }
    }

    /// Copies up to `out.len()` bytes without taking them (`tee`); bytes copied.
    pub(super) fn peek(&self, out: &mut [u8]) -> usize {
        let (all, mut rest) = (out.len(), out);
        for s in &self.segments {
            let n = rest.len().min(s.end - s.start);
            let (part, more) = rest.split_at_mut(n);
            s.frame.read(s.start, part);
            rest = more;
        }
        all - rest.len()
    }

    /// Puts bytes back in front that were read and not used.
    pub(super) fn unread(&mut self, mut bytes: &[u8], payer: &Account) -> Result<()> {
        while !bytes.is_empty() {
            self.segments.try_reserve(1)?;
            let frame = match self.spare.pop() {
                Some(f) => f,
                None => Frame::zeroed(payer)?,
            };
            let n = bytes.len().min(PAGE_SIZE);
            let (rest, last) = bytes.split_at(bytes.len() - n);
            frame.write(0, last);
            self.segments.push_front(Segment {
                frame,
                start: 0,
                end: n,
                packet: false,
            });
            self.bytes += n;
            bytes = rest;
        }
        Ok(())
    }
}

/// Copies from `source` to the rest of `frame`; how much, and what stopped it.
fn take(
    source: &mut Source<'_>,
    frame: &Frame,
    offset: usize,
    bytes: &mut usize,
) -> (usize, Result<()>) {
    let before = source.moved();
    let result = source.take_frame(frame, offset, PAGE_SIZE - offset);
    let n = source.moved() - before;
    *bytes += n;
    (n, result.map(|_| ()).map_err(Error::from))
}
