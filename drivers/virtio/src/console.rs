//! Console devices (virtio 1.2, 5.3): the kernel's log on a second console.
//!
//! Only the first port is used, and only to write. A thread follows the log's
//! ring; the log itself only wakes it.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use machine::dma::{Direction, DmaBuffer, Segment};
use machine::klog::{self, LogSink};
use machine::thread::Builder;
use machine::time::Instant;
use machine::virtio::{Chain, Device, Found, Queue, VirtioError};
use machine::wait::{Until, WaitQueue};

const QUEUE: usize = 16;
/// The first port's transmit queue (5.3.2).
const TRANSMIT: u16 = 1;
const BYTES: usize = 2048;
/// A host that does not read for so long is given up.
const TIMEOUT: Duration = Duration::from_secs(60);

static NEWS: WaitQueue = WaitQueue::new();
/// Where the console is, in bytes of the log.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

struct Waker;

impl LogSink for Waker {
    fn line(&self, _: &[u8]) {
        NEWS.wake_one();
    }
}

/// Takes the device into use and writes the log to it, from its beginning. A machine
/// has one such console; another is refused.
///
/// # Errors
/// [`VirtioError`].
pub fn start(found: &Found) -> Result<(), VirtioError> {
    let device = Device::open(found, "virtio-console", 1)?;
    device.negotiate(0)?;
    let queue = device.queue::<QUEUE>(TRANSMIT, Some(0))?;
    device.start();
    let buffer = DmaBuffer::new(BYTES).map_err(|_| VirtioError::NoMemory)?;
    if !klog::add_sink(&Waker) {
        return Err(VirtioError::NoMemory);
    }
    Builder::new("console")
        .spawn(move || {
            if let Err(e) = serve(&device, queue, buffer) {
                log::warn!("virtio-console: {e}");
            }
        })
        .map_err(|_| VirtioError::NoMemory)?;
    Ok(())
}

fn serve(
    device: &Device,
    mut queue: Queue<QUEUE>,
    mut buffer: DmaBuffer,
) -> Result<(), VirtioError> {
    loop {
        NEWS.wait(|| (klog::written() > WRITTEN.load(Relaxed)).then_some(()));
        let (from, n) = klog::read(WRITTEN.load(Relaxed), buffer.bytes_mut());
        if n == 0 {
            continue;
        }
        let mut chain = Chain::new();
        chain.push(Segment::buffer(buffer, 0..n, Direction::ToDevice));
        queue
            .submit(chain)
            .map_err(|_| VirtioError::NoQueue(TRANSMIT))?;
        queue.notify();
        buffer = taken_back(device, &mut queue)?;
        WRITTEN.store(from + n as u64, Relaxed);
    }
}

/// Sleeps until the host has read what was written.
fn taken_back(device: &Device, queue: &mut Queue<QUEUE>) -> Result<DmaBuffer, VirtioError> {
    let until = Until {
        deadline: Some(Instant::now().after(TIMEOUT)),
        interruptible: false,
    };
    loop {
        if let Some((_, mut chain, _)) = queue.complete()? {
            let buffer = chain.pop().and_then(Segment::into_buffer);
            return buffer.ok_or(VirtioError::Misbehaved);
        }
        device.wait(0, until).map_err(|_| VirtioError::Misbehaved)?;
    }
}
