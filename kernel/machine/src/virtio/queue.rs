//! A queue that owns what it lends to the device.

use super::hal::Kernel;
use super::transport::{Doorbell, Lent};
use super::{Core, VirtioError};
use crate::dma::{Direction, Segment};
use crate::iommu::pages;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::{self, ManuallyDrop};
use core::sync::atomic::{Ordering::SeqCst, fence};
use smallvec::SmallVec;
use virtio_drivers::Error;
use virtio_drivers::queue::VirtQueue;

/// The segments of one request (at most 34): first those the device reads, then those it
/// writes.
pub type Chain = SmallVec<[Segment; 3]>;

/// A split virtqueue (virtio 1.2, 2.7) of `SIZE` descriptors.
pub struct Queue<const SIZE: usize> {
    ring: ManuallyDrop<Box<VirtQueue<Kernel, SIZE>>>,
    doorbell: Doorbell,
    /// What the device has, by the request's first descriptor.
    lent: Vec<Option<Chain>>,
    core: Arc<Core>,
    /// The rings' memory, which the device reaches.
    rings: Lent,
    /// [`Core::resets`] when this queue was made.
    made_after: u32,
}

/// Segments in one direction of a usual request, and of any.
const SEGMENTS_USUAL: usize = 3;
const SEGMENTS_MAX: usize = 34;

/// The segments of one direction as the ring wants them: `N` slices at most.
struct Slices<'a, const N: usize> {
    inputs: [&'a [u8]; N],
    outputs: [&'a mut [u8]; N],
    counts: (usize, usize),
}

impl<'a, const N: usize> Slices<'a, N> {
    /// # Safety
    /// Nobody reads or writes through the slices: the ring only takes their
    /// addresses and lengths. The chain outlives them.
    unsafe fn of(chain: &Chain) -> Slices<'a, N> {
        let mut s = Slices {
            inputs: [&[]; N],
            outputs: core::array::from_fn(|_| &mut [][..]),
            counts: (0, 0),
        };
        for segment in chain {
            let (start, len) = (segment.ptr().as_ptr(), segment.len());
            match segment.direction() {
                Direction::ToDevice => {
                    // SAFETY: the segment's memory is mapped and `len` bytes long.
                    s.inputs[s.counts.0] = unsafe { core::slice::from_raw_parts(start, len) };
                    s.counts.0 += 1;
                }
                Direction::FromDevice => {
                    // SAFETY: as above.
                    s.outputs[s.counts.1] = unsafe { core::slice::from_raw_parts_mut(start, len) };
                    s.counts.1 += 1;
                }
            }
        }
        s
    }
}

/// Whether the ring can take it: not empty, no empty segment, not too long, and
/// what the device reads comes before what it writes.
fn is_sound(chain: &Chain) -> bool {
    !chain.is_empty()
        && chain.len() <= SEGMENTS_MAX
        && !chain.iter().any(Segment::is_empty)
        && chain
            .iter()
            .is_sorted_by_key(|s| s.direction() == Direction::FromDevice)
}

impl<const SIZE: usize> Queue<SIZE> {
    pub(super) fn new(core: &Arc<Core>, index: u16) -> Result<Self, VirtioError> {
        let made_after = core.resets.load(SeqCst);
        let mut lent = Vec::new();
        lent.try_reserve_exact(SIZE)
            .map_err(|_| VirtioError::NoMemory)?;
        lent.resize_with(SIZE, || None);
        let mut transport = core.transport.lock();
        let doorbell = transport.doorbell(index);
        let doorbell = doorbell.ok_or(VirtioError::NoQueue(index))?;
        let ring = VirtQueue::new(&mut *transport, index, false, false);
        let ring = Box::new(ring.map_err(|e| match e {
            Error::DmaError => VirtioError::NoMemory,
            _ => VirtioError::NoQueue(index),
        })?);
        let rings = transport.take_rings();
        drop(transport);
        let has_rings = rings.is_ok();
        let queue = Queue {
            ring: ManuallyDrop::new(ring),
            doorbell,
            lent,
            core: core.clone(),
            rings: rings.unwrap_or_default(),
            made_after,
        };
        // Dropped instead, the queue stops the device before its rings are free.
        has_rings.then_some(queue).ok_or(VirtioError::NoMemory)
    }

    /// Descriptors that are free: each segment takes one.
    #[must_use]
    pub fn free(&self) -> usize {
        self.ring.available_desc()
    }

    /// Lends `chain` to the device. The answer is its number until it comes back.
    /// The device may not look before [`Queue::notify`].
    ///
    /// # Errors
    /// The chain comes back at once if there is no room, if a segment is empty, or
    /// if one the device reads follows one it writes; or if there is no memory to let the
    /// device reach it.
    #[expect(
        clippy::result_large_err,
        reason = "the chain itself goes back, without an allocation"
    )]
    pub fn submit(&mut self, mut chain: Chain) -> Result<u16, Chain> {
        if !is_sound(&chain) || Segment::lend(&mut chain, self.core.reach()).is_err() {
            return Err(chain);
        }
        let added = if chain.len() <= SEGMENTS_USUAL {
            self.add::<SEGMENTS_USUAL>(&chain)
        } else {
            self.add::<SEGMENTS_MAX>(&chain)
        };
        match added {
            Ok(token) => {
                self.lent[usize::from(token)] = Some(chain);
                Ok(token)
            }
            Err(_) => {
                Segment::take_back(&mut chain);
                Err(chain)
            }
        }
    }

    fn add<const N: usize>(&mut self, chain: &Chain) -> Result<u16, Error> {
        // SAFETY: the slices are used for the call of `add` only.
        let mut s = unsafe { Slices::<N>::of(chain) };
        let (inputs, outputs) = s.counts;
        // SAFETY: the memory will be owned by `lent` until `pop_used` gives it
        // back, or until the device has been reset or cut off (see `drop`).
        unsafe {
            self.ring
                .add(&s.inputs[..inputs], &mut s.outputs[..outputs])
        }
    }

    fn pop<const N: usize>(&mut self, token: u16, chain: &Chain) -> Result<u32, Error> {
        // SAFETY: as in `add`.
        let mut s = unsafe { Slices::<N>::of(chain) };
        let (inputs, outputs) = s.counts;
        // SAFETY: the same chain gave the same slices to `add` for this token.
        unsafe {
            self.ring
                .pop_used(token, &s.inputs[..inputs], &mut s.outputs[..outputs])
        }
    }

    /// Tells the device that there is work, if it wants to be told.
    #[inline]
    pub fn notify(&self) {
        // The new index must be visible before the device's wish is read.
        fence(SeqCst);
        if self.ring.should_notify() {
            self.doorbell.ring();
        }
    }

    /// Takes back a request the device is done with: its number, its chain, and
    /// how many bytes the device says it wrote (never more than it could).
    ///
    /// # Errors
    /// [`VirtioError::Misbehaved`]: the device named a request it does not have.
    #[inline]
    pub fn complete(&mut self) -> Result<Option<(u16, Chain, usize)>, VirtioError> {
        let Some(token) = self.ring.peek_used() else {
            return Ok(None);
        };
        let lent = self.lent.get_mut(usize::from(token));
        let mut chain = lent.and_then(Option::take).ok_or(VirtioError::Misbehaved)?;
        let written = if chain.len() <= SEGMENTS_USUAL {
            self.pop::<SEGMENTS_USUAL>(token, &chain)
        } else {
            self.pop::<SEGMENTS_MAX>(token, &chain)
        };
        let Ok(written) = written else {
            // It changed its mind after the look: it may still have the memory.
            self.lent[usize::from(token)] = Some(chain);
            return Err(VirtioError::Misbehaved);
        };
        Segment::take_back(&mut chain);
        let room: usize = chain
            .iter()
            .filter(|s| s.direction() == Direction::FromDevice)
            .map(Segment::len)
            .sum();
        Ok(Some((token, chain, room.min(written as usize))))
    }

    /// Whether a request can be taken back.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ring.can_pop()
    }

    /// Asks the device not to interrupt for finished requests.
    pub fn mask(&mut self) {
        self.ring.set_dev_notify(false);
    }

    /// Asks it to interrupt again. Whether one is finished already: then there may
    /// be no interrupt for it.
    #[must_use]
    pub fn unmask(&mut self) -> bool {
        self.ring.set_dev_notify(true);
        fence(SeqCst);
        self.is_ready()
    }
}

impl<const SIZE: usize> Queue<SIZE> {
    /// What the device had and never finished, by number, so that it can be tried
    /// again: nothing unless the device has been reset since.
    pub fn abandoned(&mut self) -> impl Iterator<Item = (u16, Chain)> + use<'_, SIZE> {
        let was_reset =
            self.core.resets.load(SeqCst) != self.made_after && !self.core.is_loose.load(SeqCst);
        (0..).zip(&mut self.lent).filter_map(move |(n, chain)| {
            let mut chain = chain.take_if(|_| was_reset)?;
            Segment::take_back(&mut chain);
            Some((n, chain))
        })
    }
}

impl<const SIZE: usize> Drop for Queue<SIZE> {
    fn drop(&mut self) {
        // The device must not reach into memory that is about to be free.
        if self.core.resets.load(SeqCst) == self.made_after {
            // Failing that, it has been cut off from memory, or is loose.
            let _ = self.core.reset();
        }
        if self.core.is_loose.load(SeqCst) {
            // It may still write there: neither requests nor rings are ever used again.
            return mem::forget(mem::take(&mut self.lent));
        }
        let rings = self.rings.iter().flat_map(|(at, len)| pages(*at, *len));
        if self.core.reach().take_back(rings).is_err() {
            self.core.found.cut_off();
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}
