//! Block devices (virtio 1.2, 5.2).
//!
//! A transfer is cut into requests, which are all given to the device before the
//! first is waited for. The driver's thread takes back what is finished and wakes
//! whoever waits for it. If the oldest request gets no answer in time, the device
//! is reset and everything under way is tried again: reading and writing the same
//! sectors twice does no harm.

use crate::block::{self, BlockDevice, BlockError, SECTOR};
use crate::request::{Headers, Operation, Request};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::addr::PAGE_SIZE;
use machine::dma::{DmaBuffer, Segment};
use machine::frame::Frame;
use machine::pci;
use machine::sync::SpinLock;
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::virtio::{Chain, Device, Queue, VirtioError};
use machine::wait::{Until, WaitQueue};

const QUEUE: usize = 128;
const REQUESTS: u16 = 0;
const SOURCE: u16 = 0;

/// Feature bits (5.2.3).
const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const WANTED: u64 = F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH;
/// Offsets in the configuration (5.2.4).
const CONFIG_CAPACITY: usize = 0;
const CONFIG_SIZE_MAX: usize = 8;
const CONFIG_SEG_MAX: usize = 12;
const CONFIG_BLK_SIZE: usize = 20;

/// Data segments of a request.
const SEGMENTS_MAX: usize = 32;
/// Bytes of a request that goes through a buffer of the driver's.
const PIECE: usize = 64 << 10;
/// Requests of one transfer that are under way at once.
const AHEAD: usize = 8;
/// Silence after which the device is reset.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Times a request is given to the device before it counts as failed.
const TRIES: u32 = 3;

/// Counters since the driver started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests finished well.
    pub done: AtomicU64,
    /// Requests the device reported as failed.
    pub failed: AtomicU64,
    /// Times the device was reset because it hung or broke the rules.
    pub resets: AtomicU64,
}

/// A block device.
pub struct VirtioBlk {
    device: Device,
    features: u64,
    sectors: u64,
    block_len: usize,
    segments_max: usize,
    inner: SpinLock<Inner>,
    /// Waits for descriptors.
    room: WaitQueue,
    is_gone: AtomicBool,
    counters: Counters,
}

struct Inner {
    queue: Queue<QUEUE>,
    /// What the device has, by its number in the queue.
    under_way: Vec<Option<Arc<Request>>>,
    free: Vec<Headers>,
}

impl VirtioBlk {
    /// Takes `pci` into use and starts the driver's thread.
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn start(pci: &pci::Device) -> Result<Arc<VirtioBlk>, VirtioError> {
        let device = Device::open(pci, "virtio-blk", 1)?;
        let features = device.negotiate(WANTED)?;
        let has = |f: u64| features & f != 0;
        let sectors = device.config(|c| c.u64(CONFIG_CAPACITY));
        let limit = |f, offset| {
            let said = device.config(|c| c.u32(offset)) as usize;
            if has(f) { said } else { usize::MAX }
        };
        // No device says less than a page; one that does is not supported.
        if limit(F_SIZE_MAX, CONFIG_SIZE_MAX) < PIECE {
            return Err(VirtioError::Features);
        }
        let segments_max = limit(F_SEG_MAX, CONFIG_SEG_MAX).clamp(1, SEGMENTS_MAX);
        let block_len = match limit(F_BLK_SIZE, CONFIG_BLK_SIZE) {
            n @ SECTOR..=65_536 if n.is_power_of_two() => n,
            _ => SECTOR,
        };
        let queue = device.queue(REQUESTS, Some(SOURCE))?;
        device.start();
        let blk = Arc::new(VirtioBlk {
            features,
            sectors,
            block_len,
            segments_max,
            inner: SpinLock::new(Inner {
                queue,
                under_way: (0..QUEUE).map(|_| None).collect(),
                free: Headers::many(QUEUE / 3).map_err(|_| VirtioError::NoMemory)?,
            }),
            room: WaitQueue::new(),
            is_gone: AtomicBool::new(false),
            counters: Counters::default(),
            device,
        });
        let served = blk.clone();
        Builder::new("blk")
            .spawn(move || served.serve())
            .map_err(|_| VirtioError::NoMemory)?;
        Ok(blk)
    }

    /// Counters since the driver started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Gives a request to the device, waiting for room.
    fn submit(
        &self,
        operation: Operation,
        sector: u64,
        data: Chain,
    ) -> Result<Arc<Request>, BlockError> {
        let mut data = Some(data);
        self.room.wait(|| {
            if self.is_gone.load(SeqCst) {
                return Some(Err(BlockError::Gone));
            }
            let mut inner = self.inner.lock();
            let needed = data.as_ref().map_or(0, |d| d.len()) + 2;
            if inner.queue.free() < needed || inner.free.is_empty() {
                return None;
            }
            let headers = inner.free.pop()?;
            let chain = headers.frame(operation, sector, data.take()?);
            let request = Request::new();
            Some(match inner.queue.submit(chain) {
                Ok(number) => {
                    inner.under_way[usize::from(number)] = Some(request.clone());
                    inner.queue.notify();
                    Ok(request)
                }
                // The chain is sound and there was room: cannot be.
                Err(_) => Err(BlockError::NoMemory),
            })
        })
    }

    fn serve(&self) {
        loop {
            let until = Until {
                deadline: self.oldest().map(|t| t.after(TIMEOUT)),
                interruptible: false,
            };
            // Interrupt and deadline lead to the same look.
            let _ = self.device.wait(usize::from(SOURCE), until);
            let well = self.take_back().is_ok() && !self.is_late();
            if !well && !self.recover() {
                return;
            }
        }
    }

    /// Whether the device owes an answer for too long.
    fn is_late(&self) -> bool {
        let oldest = self.oldest();
        oldest.is_some_and(|t| Instant::now().since(t) >= TIMEOUT)
    }

    /// When the oldest request under way was given to the device.
    fn oldest(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let requests = inner.under_way.iter().flatten();
        requests.map(|r| r.since()).min()
    }

    /// Takes back what the device has finished.
    fn take_back(&self) -> Result<(), VirtioError> {
        let mut inner = self.inner.lock();
        let mut any = false;
        while let Some((number, chain, _)) = inner.queue.complete()? {
            any = true;
            let request = inner.under_way[usize::from(number)].take();
            let (headers, data, answer) = Headers::unframe(chain)?;
            inner.free.push(headers);
            let counter = match answer {
                Ok(()) => &self.counters.done,
                Err(_) => &self.counters.failed,
            };
            counter.fetch_add(1, Relaxed);
            if let Some(r) = request {
                r.finish(answer, data);
            }
        }
        drop(inner);
        if any {
            self.room.wake_all();
        }
        Ok(())
    }

    /// Resets the device and tries again what was under way; gives the device up if
    /// it does not come back. Whether it did.
    fn recover(&self) -> bool {
        for n in 0..5u32 {
            log::warn!("virtio-blk: the device hangs or misbehaves and is reset");
            self.counters.resets.fetch_add(1, Relaxed);
            match self.set_up_again() {
                Ok(()) => {
                    self.room.wake_all();
                    return true;
                }
                Err(e) => log::warn!("virtio-blk: {e}"),
            }
            // A sleep without interruption ends at its time only.
            let pause = Instant::now().after(Duration::from_millis(100 << n));
            let _ = thread::sleep_until(pause, false);
        }
        log::error!("virtio-blk: given up");
        self.is_gone.store(true, SeqCst);
        let requests: Vec<_> = {
            let mut inner = self.inner.lock();
            inner
                .under_way
                .iter_mut()
                .filter_map(Option::take)
                .collect()
        };
        for r in requests {
            r.finish(Err(BlockError::Gone), Chain::new());
        }
        self.room.wake_all();
        false
    }

    fn set_up_again(&self) -> Result<(), VirtioError> {
        if self.device.negotiate(WANTED)? != self.features {
            return Err(VirtioError::Features);
        }
        let queue = self.device.queue(REQUESTS, Some(SOURCE))?;
        self.device.start();
        let mut inner = self.inner.lock();
        let mut old = core::mem::replace(&mut inner.queue, queue);
        let mut requests: Vec<Option<Arc<Request>>> = (0..QUEUE).map(|_| None).collect();
        core::mem::swap(&mut requests, &mut inner.under_way);
        for (number, chain) in old.abandoned() {
            let Some(request) = requests[usize::from(number)].take() else {
                continue;
            };
            if request.count_try() >= TRIES {
                let (headers, data, _) = Headers::unframe(chain)?;
                inner.free.push(headers);
                request.finish(Err(BlockError::TimedOut), data);
                continue;
            }
            // As many descriptors as before are free.
            if let Ok(number) = inner.queue.submit(chain) {
                inner.under_way[usize::from(number)] = Some(request);
            }
        }
        inner.queue.notify();
        Ok(())
    }

    /// Moves `frames` to or from the device.
    fn frames(
        &self,
        operation: Operation,
        sector: u64,
        frames: &[Frame],
    ) -> Result<(), BlockError> {
        block::check(sector, frames.len() * PAGE_SIZE, self.sectors)?;
        let direction = operation.direction();
        let sectors_per_frame = (PAGE_SIZE / SECTOR) as u64;
        let mut at = sector;
        for batch in frames.chunks(self.segments_max * AHEAD) {
            let mut requests = Vec::new();
            for part in batch.chunks(self.segments_max) {
                let data: Chain = part
                    .iter()
                    .map(|f| Segment::frame(f.clone(), 0..PAGE_SIZE, direction))
                    .collect();
                if data.iter().any(Segment::is_empty) {
                    return Err(BlockError::ReadOnly);
                }
                requests.push(self.submit(operation, at, data)?);
                at += sectors_per_frame * part.len() as u64;
            }
            for r in requests {
                r.wait()?;
            }
        }
        Ok(())
    }

    fn piece(
        &self,
        operation: Operation,
        sector: u64,
        data: DmaBuffer,
    ) -> Result<Arc<Request>, BlockError> {
        let mut chain = Chain::new();
        let len = data.len();
        chain.push(Segment::buffer(data, 0..len, operation.direction()));
        self.submit(operation, sector, chain)
    }
}

fn buffer(len: usize) -> Result<DmaBuffer, BlockError> {
    DmaBuffer::new(len).map_err(|_| BlockError::NoMemory)
}

const SECTORS_PER_PIECE: u64 = (PIECE / SECTOR) as u64;

impl BlockDevice for VirtioBlk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn block_len(&self) -> usize {
        self.block_len
    }

    fn is_read_only(&self) -> bool {
        self.features & F_RO != 0
    }

    fn read(&self, sector: u64, out: &mut [u8]) -> Result<(), BlockError> {
        block::check(sector, out.len(), self.sectors)?;
        let mut at = sector;
        for batch in out.chunks_mut(PIECE * AHEAD) {
            let mut requests = Vec::new();
            for part in batch.chunks(PIECE) {
                requests.push(self.piece(Operation::Read, at, buffer(part.len())?)?);
                at += SECTORS_PER_PIECE;
            }
            for (request, part) in requests.iter().zip(batch.chunks_mut(PIECE)) {
                let data = request.wait()?;
                let bytes = data.first().and_then(Segment::as_buffer);
                if let Some(b) = bytes {
                    part.copy_from_slice(&b.bytes()[..part.len()]);
                }
            }
        }
        Ok(())
    }

    fn write(&self, sector: u64, bytes: &[u8]) -> Result<(), BlockError> {
        block::check(sector, bytes.len(), self.sectors)?;
        if self.is_read_only() {
            return Err(BlockError::ReadOnly);
        }
        let mut at = sector;
        for batch in bytes.chunks(PIECE * AHEAD) {
            let mut requests = Vec::new();
            for part in batch.chunks(PIECE) {
                let mut b = buffer(part.len())?;
                b.bytes_mut().copy_from_slice(part);
                requests.push(self.piece(Operation::Write, at, b)?);
                at += SECTORS_PER_PIECE;
            }
            for r in requests {
                r.wait()?;
            }
        }
        Ok(())
    }

    fn read_frames(&self, sector: u64, frames: &[Frame]) -> Result<(), BlockError> {
        self.frames(Operation::Read, sector, frames)
    }

    fn write_frames(&self, sector: u64, frames: &[Frame]) -> Result<(), BlockError> {
        if self.is_read_only() {
            return Err(BlockError::ReadOnly);
        }
        self.frames(Operation::Write, sector, frames)
    }

    fn flush(&self) -> Result<(), BlockError> {
        // Without the feature the device writes through.
        if self.features & F_FLUSH == 0 {
            return Ok(());
        }
        self.submit(Operation::Flush, 0, Chain::new())?.wait()?;
        Ok(())
    }
}
