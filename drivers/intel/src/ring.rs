//! The ring of frames on their way in. The device is told a tail; what it has done it says in the
//! descriptors, in order. Nothing it writes there is believed beyond "this one is
//! done", "so long", "damaged", and the length is cut to the buffer.

use crate::family::Shape;
use crate::regs::{
    RX_CHECKED_HEADER, RX_CHECKED_TRANSPORT, RX_CHECKED_UDP, RX_DAMAGED, RX_DONE, RX_END,
    RX_IGNORE_CHECKSUMS, RX_WRONG,
};
use alloc::vec::Vec;
use machine::AllocError;
use machine::dma::{DmaBuffer, DmaRing, Reach};
use net::Checked;

/// Descriptors of the ring of frames that come in; a multiple of 8, as its length in bytes must
/// be of 128.
pub(crate) const COUNT: usize = 128;
/// Bytes of a descriptor.
pub(crate) const SIZE: usize = 16;

fn after(index: usize) -> usize {
    (index + 1) % COUNT
}

/// Frames on their way in.
#[derive(Debug)]
pub(crate) struct ReceiveRing {
    ring: DmaRing,
    buffers: Vec<DmaBuffer>,
    shape: Shape,
    /// The descriptor that is done next.
    next: usize,
    /// In the middle of a frame that does not fit into one buffer.
    is_skipping: bool,
}

/// What a descriptor says.
#[derive(Clone, Copy, Debug)]
struct Done {
    len: usize,
    /// Status in the low bits, errors from bit 24 on.
    status: u32,
    shape: Shape,
}

impl Done {
    /// The checksums that the device found right. If it found one wrong, nothing that it
    /// says of the frame is believed.
    fn checked(&self) -> Checked {
        if self.status & (RX_IGNORE_CHECKSUMS | RX_WRONG) != 0 {
            return Checked::default();
        }
        let transport = match self.shape {
            Shape::Legacy => RX_CHECKED_TRANSPORT,
            Shape::Extended => RX_CHECKED_TRANSPORT | RX_CHECKED_UDP,
        };
        Checked {
            header: self.status & RX_CHECKED_HEADER != 0,
            transport: self.status & transport != 0,
        }
    }
}

/// What became of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The device is not done with it.
    Nothing,
    /// A frame of so many bytes was given.
    Frame(usize),
    /// What came was damaged or too long.
    Damaged,
}

/// The device says that it wrote beyond a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl ReceiveRing {
    /// A ring whose buffers hold `len` bytes each.
    pub(crate) fn new(reach: Reach, len: usize, shape: Shape) -> Result<ReceiveRing, AllocError> {
        let mut ring = ReceiveRing {
            ring: DmaRing::new(reach, COUNT * SIZE)?,
            buffers: DmaBuffer::many(reach, COUNT, len)?,
            shape,
            next: 0,
            is_skipping: false,
        };
        (0..COUNT).for_each(|index| ring.arm(index));
        Ok(ring)
    }

    pub(crate) fn phys(&self) -> u64 {
        self.ring.phys()
    }

    /// Bytes of the descriptors.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The tail when all descriptors are with the device: all but one, for a ring
    /// whose tail is its head is empty.
    pub(crate) fn tail(&self) -> u32 {
        ((self.next + COUNT - 1) % COUNT) as u32
    }

    /// Makes a descriptor ready for the device.
    fn arm(&mut self, index: usize) {
        if let Some(buffer) = self.buffers.get(index) {
            self.ring.write_u64(index * SIZE, buffer.phys());
            self.ring.write_u64(index * SIZE + 8, 0);
        }
    }

    fn peek(&self) -> Option<Done> {
        let word = self.ring.read_u64(self.next * SIZE + 8);
        let done = match self.shape {
            Shape::Legacy => Done {
                len: (word & 0xffff) as usize,
                status: (word >> 32 & 0xff) as u32 | (word >> 16) as u32 & 0xff << 24,
                shape: self.shape,
            },
            Shape::Extended => Done {
                len: (word >> 32 & 0xffff) as usize,
                status: word as u32,
                shape: self.shape,
            },
        };
        (done.status & RX_DONE != 0).then_some(done)
    }

    /// Whether something has come in.
    pub(crate) fn has_frame(&self) -> bool {
        self.peek().is_some()
    }

    /// Gives the next frame to `f`, and which of its checksums the device found right, and
    /// makes its buffer ready again.
    ///
    /// # Errors
    /// [`Overflow`]: the device cannot be trusted with these buffers any more.
    pub(crate) fn take(&mut self, f: impl FnOnce(&[u8], Checked)) -> Result<Taken, Overflow> {
        let Some(done) = self.peek() else {
            return Ok(Taken::Nothing);
        };
        let ends = done.status & RX_END != 0;
        let whole = ends && !self.is_skipping;
        self.is_skipping = !ends;
        let bytes = self.buffers.get(self.next).map(DmaBuffer::bytes);
        let frame = bytes.and_then(|b| b.get(..done.len)).ok_or(Overflow)?;
        let taken = if whole && done.status & RX_DAMAGED == 0 && !frame.is_empty() {
            f(frame, done.checked());
            Taken::Frame(done.len)
        } else {
            Taken::Damaged
        };
        self.arm(self.next);
        self.next = after(self.next);
        Ok(taken)
    }
}
