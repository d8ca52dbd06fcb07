//! The sending queue and its buffers. A frame is copied into one of them, behind what is said
//! of it; one that the device cuts into segments, into as many as it needs.

use super::header::HEADER;
use super::{FRAME_HEADER, QUEUE, SOURCE_OTHER, TRANSMIT};
use alloc::vec::Vec;
use machine::dma::{Direction, DmaBuffer, Segment};
use machine::time::Instant;
use machine::virtio::{Chain, Device, Queue, VirtioError};

/// Segments of full length in a frame that the device cuts: what fits into the buffers of one
/// request, which has 34 parts at most.
pub(super) const JOINED_MAX: usize = 32;

pub(super) struct Transmit {
    pub(super) queue: Queue<QUEUE>,
    /// Buffers that are not with the device, ready to fill.
    pub(super) free: Vec<Segment>,
    /// Bytes of a buffer.
    len: usize,
    /// Somebody found no room and waits for [`net::Upper::transmit_ready`].
    pub(super) is_starved: bool,
    /// When something last left.
    pub(super) progress: Instant,
}

impl Transmit {
    /// A queue for frames that carry `mtu` bytes of IP.
    pub(super) fn new(device: &Device, mtu: usize) -> Result<Transmit, VirtioError> {
        let mut queue: Queue<QUEUE> = device.queue(TRANSMIT, Some(SOURCE_OTHER))?;
        // What has left is found when the next frame goes, without an interrupt.
        queue.mask();
        let len = HEADER + FRAME_HEADER + mtu;
        let buffers = DmaBuffer::many(device.reach(), QUEUE, len);
        let buffers = buffers.map_err(|_| VirtioError::NoMemory)?;
        let free = buffers
            .into_iter()
            .map(|buffer| Segment::buffer(buffer, 0..len, Direction::ToDevice));
        Ok(Transmit {
            queue,
            free: free.collect(),
            len,
            is_starved: false,
            progress: Instant::now(),
        })
    }

    /// Takes back what has left.
    pub(super) fn reclaim(&mut self) -> Result<(), VirtioError> {
        while let Some((_, chain, _)) = self.queue.complete()? {
            // There was room for all of them.
            self.free.extend(chain);
            self.progress = Instant::now();
        }
        Ok(())
    }

    /// Gives a frame to the device, and what is `said` of it; whether there was room.
    ///
    /// # Errors
    /// The device broke the rules.
    pub(super) fn put(&mut self, said: &[u8; HEADER], frame: &[u8]) -> Result<bool, VirtioError> {
        let (first, rest) = frame.split_at(frame.len().min(self.len - HEADER));
        let count = parts(frame.len(), self.len);
        if self.free.len() < count {
            self.reclaim()?;
        }
        let mut chain = Chain::new();
        if self.free.len() < count || chain.try_reserve(count).is_err() {
            return Ok(false);
        }
        let mut add = |head: &[u8], bytes: &[u8]| {
            if let Some(mut segment) = self.free.pop() {
                fill(&mut segment, head, bytes);
                chain.push(segment);
            }
        };
        add(said, first);
        rest.chunks(self.len).for_each(|bytes| add(&[], bytes));
        match self.queue.submit(chain) {
            Ok(_) => Ok(true),
            Err(chain) => {
                self.free.extend(chain);
                Ok(false)
            }
        }
    }
}

/// Buffers of `room` bytes that a frame of `len` bytes takes with what is said of it.
fn parts(len: usize, room: usize) -> usize {
    1 + len.saturating_sub(room - HEADER).div_ceil(room)
}

/// Copies `head` and `bytes` behind it into a buffer that has room for both.
fn fill(segment: &mut Segment, head: &[u8], bytes: &[u8]) {
    let end = head.len() + bytes.len();
    let buffer = segment.as_buffer_mut();
    if let Some(to) = buffer.and_then(|b| b.bytes_mut().get_mut(..end)) {
        let (before, behind) = to.split_at_mut(head.len());
        before.copy_from_slice(head);
        behind.copy_from_slice(bytes);
    }
    segment.set_part(0..end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::MTU_MAX;

    /// What a request may have of parts (`machine::virtio::Chain`).
    const PARTS_MAX: usize = 34;

    #[test]
    fn the_longest_frame_is_one_request_whatever_the_mtu() {
        for mtu in 1280..=MTU_MAX {
            let room = HEADER + FRAME_HEADER + mtu;
            let longest = FRAME_HEADER + JOINED_MAX * mtu;
            assert!(parts(longest, room) <= PARTS_MAX, "{mtu}");
            assert_eq!(parts(FRAME_HEADER + mtu, room), 1);
            assert_eq!(parts(FRAME_HEADER + mtu + 1, room), 2);
        }
    }
}
