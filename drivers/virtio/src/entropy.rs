//! Entropy devices (virtio 1.2, 5.4): random bytes from the host, stirred into
//! the kernel's pool at boot and every few minutes.

use core::time::Duration;
use machine::dma::{Direction, DmaBuffer, Segment};
use machine::random;
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::virtio::{Chain, Device, Found, Queue, VirtioError};
use machine::wait::Until;

/// The shortest queue devices have.
const QUEUE: usize = 8;
const BYTES: usize = 64;
const PAUSE: Duration = Duration::from_secs(600);
/// A device that gives nothing for so long is left alone.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the device into use and starts the driver's thread.
///
/// # Errors
/// [`VirtioError`].
pub fn start(found: &Found) -> Result<(), VirtioError> {
    let device = Device::open(found, "virtio-rng", 1)?;
    device.negotiate(0)?;
    let queue = device.queue::<QUEUE>(0, Some(0))?;
    device.start();
    let buffer = DmaBuffer::new(BYTES).map_err(|_| VirtioError::NoMemory)?;
    Builder::new("entropy")
        .spawn(move || {
            if let Err(e) = serve(&device, queue, buffer) {
                log::warn!("virtio-rng: {e}");
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
        let mut chain = Chain::new();
        chain.push(Segment::buffer(buffer, 0..BYTES, Direction::FromDevice));
        queue.submit(chain).map_err(|_| VirtioError::NoQueue(0))?;
        queue.notify();
        let until = Until {
            deadline: Some(Instant::now().after(TIMEOUT)),
            interruptible: false,
        };
        let (mut chain, written) = loop {
            if let Some((_, chain, written)) = queue.complete()? {
                break (chain, written);
            }
            device.wait(0, until).map_err(|_| VirtioError::Misbehaved)?;
        };
        buffer = chain
            .pop()
            .and_then(Segment::into_buffer)
            .ok_or(VirtioError::Misbehaved)?;
        random::stir(buffer.bytes().get(..written).unwrap_or_default());
        // The bytes must not be found in memory later.
        buffer.bytes_mut().fill(0);
        // A sleep without interruption ends at its time only.
        let _ = thread::sleep_until(Instant::now().after(PAUSE), false);
    }
}
