//! The ring of frames on their way out. The device says in the descriptor of a frame's last
//! buffer that it has left; nothing else that it writes is looked at.

use crate::offload::Layout;
use crate::regs::TX_DONE;
use crate::ring::SIZE;
use alloc::vec::Vec;
use machine::AllocError;
use machine::dma::{DmaBuffer, DmaRing, Reach};
use net::{Joined, PartialChecksum};

/// Buffers, and so frames that can be with the device on their way out.
pub(crate) const FRAMES: usize = 127;
/// Descriptors for these: each frame may need a context of its own, and one stays free.
pub(crate) const COUNT: usize = 2 * FRAMES + 2;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// How the next frame is to be completed, or cut.
    Context,
    /// A buffer of a frame, with more to follow.
    Part,
    /// The last buffer of a frame, or its only one.
    End,
}

/// Frames on their way out.
#[derive(Debug)]
pub(crate) struct TransmitRing {
    ring: DmaRing,
    buffers: Vec<DmaBuffer>,
    /// Bytes of a buffer.
    len: usize,
    /// The next descriptor and the next buffer to fill.
    next: usize,
    next_buffer: usize,
    /// Descriptors with the device, or about to be, and buffers of these.
    used: usize,
    filled: usize,
    layout: Layout,
    kinds: [Kind; COUNT],
    /// The kind of frames that the device has the context for.
    context: Option<PartialChecksum>,
}

impl TransmitRing {
    /// A ring for frames of up to `len` bytes.
    pub(crate) fn new(reach: Reach, len: usize, layout: Layout) -> Result<Self, AllocError> {
        Ok(TransmitRing {
            ring: DmaRing::new(reach, COUNT * SIZE)?,
            buffers: DmaBuffer::many(reach, FRAMES, len)?,
            len,
            next: 0,
            next_buffer: 0,
            used: 0,
            filled: 0,
            layout,
            kinds: [Kind::End; COUNT],
            context: None,
        })
    }

    pub(crate) fn phys(&self) -> u64 {
        self.ring.phys()
    }

    /// Bytes of the descriptors.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The tail that gives all filled descriptors to the device.
    pub(crate) fn tail(&self) -> u32 {
        self.next as u32
    }

    /// Frames that fit, whatever contexts they need.
    pub(crate) fn room(&self) -> usize {
        FRAMES.saturating_sub(self.filled)
    }

    /// Whether everything has left.
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Copies a frame into the next buffer; whether there was one, and the frame fitted. The
    /// device writes what is missing of its checksums.
    pub(crate) fn push(&mut self, frame: &[u8], checksum: Option<PartialChecksum>) -> bool {
        if self.room() == 0 || frame.len() > self.len {
            return false;
        }
        if let Some(kind) = checksum.filter(|kind| self.context != Some(*kind)) {
            self.put(self.layout.context(kind), Kind::Context);
            self.context = Some(kind);
        }
        self.fill(frame, self.layout.data(frame.len(), checksum), Kind::End);
        true
    }

    /// Copies a frame that the device cuts into as many buffers as it needs; whether there
    /// were so many.
    pub(crate) fn push_joined(&mut self, frame: &mut [u8], joined: Joined) -> bool {
        let count = frame.len().div_ceil(self.len.max(1));
        if count > self.room() || joined.headers() > self.len {
            return false;
        }
        joined.without_lengths(frame);
        let context = self.layout.cutting_context(joined, frame.len());
        self.put(context, Kind::Context);
        // Whether a chip keeps the one before beside it is not worth knowing.
        self.context = None;
        for (n, part) in (1..=count).zip(frame.chunks(self.len)) {
            let all = (n == 1).then_some(frame.len());
            let word = self.layout.part(part.len(), joined, all, n == count);
            let kind = if n == count { Kind::End } else { Kind::Part };
            self.fill(part, word, kind);
        }
        true
    }

    /// Copies bytes into the next buffer, which is free, and gives it the next descriptor.
    fn fill(&mut self, bytes: &[u8], word: u64, kind: Kind) {
        let Some(buffer) = self.buffers.get_mut(self.next_buffer) else {
            return;
        };
        let phys = buffer.phys();
        if let Some(to) = buffer.bytes_mut().get_mut(..bytes.len()) {
            to.copy_from_slice(bytes);
        }
        self.put([phys, word], kind);
        self.next_buffer = (self.next_buffer + 1) % FRAMES;
        self.filled += 1;
    }

    /// Fills the next descriptor.
    fn put(&mut self, [low, high]: [u64; 2], kind: Kind) {
        self.ring.write_u64(self.next * SIZE, low);
        self.ring.write_u64(self.next * SIZE + 8, high);
        if let Some(place) = self.kinds.get_mut(self.next) {
            *place = kind;
        }
        self.next = (self.next + 1) % COUNT;
        self.used += 1;
    }

    /// Takes back what has left; whether there was anything.
    pub(crate) fn reclaim(&mut self) -> bool {
        let before = self.filled;
        while let Some((descriptors, buffers)) = self.oldest() {
            self.used = self.used.saturating_sub(descriptors);
            self.filled = self.filled.saturating_sub(buffers);
        }
        self.filled != before
    }

    /// Descriptors and buffers of the oldest frame, if it has left. Not every chip says that
    /// it has read a context or a part; that the end of the frame has left says it too.
    fn oldest(&self) -> Option<(usize, usize)> {
        let begin = (self.next + COUNT - self.used) % COUNT;
        let mut buffers = 0;
        for n in 0..self.used {
            let at = (begin + n) % COUNT;
            let kind = *self.kinds.get(at)?;
            buffers += usize::from(kind != Kind::Context);
            if kind == Kind::End {
                let status = self.ring.read_u32(at * SIZE + 12);
                return (status & TX_DONE != 0).then_some((n + 1, buffers));
            }
        }
        None
    }
}
