//! Network devices (virtio 1.2, 5.1).
//!
//! A frame is copied once on each side, between the protocols and a buffer the
//! device can reach. One thread takes in what arrives, in batches, with the
//! queue's interrupts off while it does; a second one, which sleeps nearly always,
//! follows the link's state and frees the sending queue when that was full.

mod header;
mod transmit;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use header::HEADER;
use machine::dma::{Direction, DmaBuffer, Segment};
use machine::sync::SpinLock;
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::virtio::{Chain, Device, Found, Queue, VirtioError};
use machine::wait::Until;
use net::{Checked, Joined, Link, LinkCounters, LinkStatus, PartialChecksum, Upper};
use transmit::Transmit;

/// Buffers in each direction.
const QUEUE: usize = 128;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Interrupt of received frames, and of everything else.
const SOURCE_RECEIVE: u16 = 0;
const SOURCE_OTHER: u16 = 1;

/// Feature bits (5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_STATUS: u64 = 1 << 16;
/// Offsets in the configuration (5.1.4).
const CONFIG_MAC: usize = 0;
const CONFIG_STATUS: usize = 6;
const CONFIG_MTU: usize = 10;
const STATUS_LINK_UP: u16 = 1;

/// Ethernet header and one VLAN tag.
const FRAME_HEADER: usize = 14 + 4;
const MTU_DEFAULT: usize = 1500;
const MTU_MAX: usize = 9000;
/// Frames taken in before the device is given the buffers back.
const BATCH: usize = 32;
/// A full sending queue from which nothing leaves for so long means that the
/// device hangs.
const TRANSMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Counters since the driver started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub received: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Frames sent.
    pub sent: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    /// Frames that found the sending queue full.
    pub dropped: AtomicU64,
    /// Times the device was reset because it hung or broke the rules.
    pub resets: AtomicU64,
}

/// A network device.
pub struct VirtioNet {
    device: Device,
    features: u64,
    mac: [u8; 6],
    mtu: usize,
    is_up: AtomicBool,
    /// It must be set up again.
    is_broken: AtomicBool,
    /// A batch is being taken in: the device is told of the answers to it at its end.
    is_taking: AtomicBool,
    transmit: SpinLock<Transmit>,
    counters: Counters,
}

/// Features the driver can use.
const WANTED: u64 = F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_HOST_TSO4 | F_HOST_TSO6 | F_STATUS;

fn features(device: &Device) -> Result<u64, VirtioError> {
    device.negotiate(WANTED)
}

fn mtu(device: &Device, features: u64) -> usize {
    if features & F_MTU == 0 {
        return MTU_DEFAULT;
    }
    let said = usize::from(device.config(|c| c.u16(CONFIG_MTU)));
    said.clamp(1280, MTU_MAX)
}

/// A random address of the kind that is administered locally (IEEE 802).
fn random_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    machine::random::fill(&mut mac);
    mac[0] = mac[0] & !0b11 | 0b10;
    mac
}

fn receive_queue(device: &Device, mtu: usize) -> Result<Queue<QUEUE>, VirtioError> {
    let mut queue = device.queue(RECEIVE, Some(SOURCE_RECEIVE))?;
    let len = HEADER + FRAME_HEADER + mtu;
    let buffers = DmaBuffer::many(device.reach(), QUEUE, len).map_err(|_| VirtioError::NoMemory)?;
    for buffer in buffers {
        let mut chain = Chain::new();
        chain.push(Segment::buffer(buffer, 0..len, Direction::FromDevice));
        if queue.submit(chain).is_err() {
            return Err(VirtioError::NoQueue(RECEIVE));
        }
    }
    Ok(queue)
}

impl VirtioNet {
    /// Takes the device into use. Nothing is received before [`VirtioNet::start`].
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn open(found: &Found) -> Result<(Arc<VirtioNet>, Receiver), VirtioError> {
        let device = Device::open(found, "virtio-net", 2)?;
        let features = features(&device)?;
        let mtu = mtu(&device, features);
        let mac = if features & F_MAC != 0 {
            device.config(|c| core::array::from_fn(|i| c.u8(CONFIG_MAC + i)))
        } else {
            random_mac()
        };
        let queue = receive_queue(&device, mtu)?;
        let transmit = Transmit::new(&device, mtu)?;
        device.config_interrupt(SOURCE_OTHER)?;
        device.start();
        queue.notify();
        let net = VirtioNet {
            features,
            mac,
            mtu,
            is_up: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            is_taking: AtomicBool::new(false),
            transmit: SpinLock::new(transmit),
            counters: Counters::default(),
            device,
        };
        net.look_at_link();
        let net = Arc::new(net);
        Ok((net.clone(), Receiver { net, queue }))
    }

    /// Counters since the driver started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn reclaim(&self, t: &mut Transmit) {
        if t.reclaim().is_err() {
            self.set_broken();
        }
    }

    fn set_broken(&self) {
        self.is_broken.store(true, SeqCst);
        self.device.event(usize::from(SOURCE_RECEIVE)).raise();
    }

    /// Reads the link's state; whether it changed.
    fn look_at_link(&self) -> bool {
        let up = self.features & F_STATUS == 0
            || self.device.config(|c| c.u16(CONFIG_STATUS)) & STATUS_LINK_UP != 0;
        self.is_up.swap(up, Relaxed) != up
    }

    /// What the second thread does at each interrupt, and when time is up.
    fn look_after(&self, upper: &dyn Upper) {
        if self.device.needs_reset() {
            return self.set_broken();
        }
        if self.look_at_link() {
            upper.link_changed();
        }
        let mut t = self.transmit.lock();
        if !t.is_starved {
            return;
        }
        self.reclaim(&mut t);
        if t.free.is_empty() {
            if Instant::now().since(t.progress) >= TRANSMIT_TIMEOUT {
                self.set_broken();
            }
            return;
        }
        t.is_starved = false;
        t.queue.mask();
        drop(t);
        upper.transmit_ready();
    }

    /// When the second thread must look even without an interrupt.
    fn look_deadline(&self) -> Option<Instant> {
        let t = self.transmit.lock();
        t.is_starved.then(|| t.progress.after(TRANSMIT_TIMEOUT))
    }

    fn watch(&self, upper: &dyn Upper) {
        loop {
            let until = Until {
                deadline: self.look_deadline(),
                interruptible: false,
            };
            // Interrupt and deadline lead to the same look.
            let _ = self.device.wait(usize::from(SOURCE_OTHER), until);
            self.look_after(upper);
        }
    }

    /// Gives `count` frames of together `bytes` to the device, by `put`; whether there was
    /// room.
    fn put(
        &self,
        count: usize,
        bytes: usize,
        put: impl FnOnce(&mut Transmit) -> Result<bool, VirtioError>,
    ) -> bool {
        let mut t = self.transmit.lock();
        let is_queued = put(&mut t).unwrap_or_else(|_| {
            self.set_broken();
            false
        });
        let c = &self.counters;
        if is_queued {
            c.sent.fetch_add(count as u64, Relaxed);
            c.sent_bytes.fetch_add(bytes as u64, Relaxed);
        } else {
            c.dropped.fetch_add(count as u64, Relaxed);
        }
        is_queued
    }

    /// The same for one whole frame, of which the device completes this checksum.
    fn put_frame(&self, frame: &[u8], checksum: Option<PartialChecksum>) -> bool {
        let said = header::leaving(checksum);
        let is_usual = frame.len() <= FRAME_HEADER + self.mtu;
        is_usual && self.put(1, frame.len(), |t| t.put(&said, frame))
    }

    /// Resets the device and sets it up again. What was being sent is lost, as
    /// frames may be.
    fn set_up_again(&self) -> Result<Queue<QUEUE>, VirtioError> {
        self.counters.resets.fetch_add(1, Relaxed);
        self.is_broken.store(false, SeqCst);
        let agreed = features(&self.device)?;
        if agreed != self.features {
            return Err(VirtioError::Features);
        }
        let queue = receive_queue(&self.device, self.mtu)?;
        let fresh = Transmit::new(&self.device, self.mtu)?;
        self.device.config_interrupt(SOURCE_OTHER)?;
        let old = core::mem::replace(&mut *self.transmit.lock(), fresh);
        drop(old);
        self.device.start();
        queue.notify();
        Ok(queue)
    }
}

impl Link for VirtioNet {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    fn transmit(&self, frame: &[u8]) -> bool {
        self.put_frame(frame, None)
    }

    fn transmit_partial(&self, frame: &mut [u8], checksum: PartialChecksum) -> bool {
        if self.features & F_CSUM == 0 {
            checksum.complete(frame);
            return self.put_frame(frame, None);
        }
        checksum.complete_header(frame);
        self.put_frame(frame, Some(checksum))
    }

    fn joined_max(&self) -> usize {
        match self.joins(false) || self.joins(true) {
            true => transmit::JOINED_MAX * self.mtu,
            false => 0,
        }
    }

    fn joins(&self, is_v6: bool) -> bool {
        let bit = if is_v6 { F_HOST_TSO6 } else { F_HOST_TSO4 };
        // Who cuts must be able to complete checksums (5.1.3.1).
        self.features & bit != 0 && self.features & F_CSUM != 0
    }

    fn transmit_joined(&self, frame: &mut [u8], joined: Joined) -> bool {
        joined.checksum().complete_header(frame);
        let said = header::joined(joined);
        let count = joined.count(frame.len());
        // All but the first get headers that are not in the frame.
        let bytes = frame.len() + count.saturating_sub(1) * joined.headers();
        self.put(count, bytes, |t| t.put(&said, frame))
    }

    fn room(&self) -> usize {
        let mut t = self.transmit.lock();
        if t.free.is_empty() {
            self.reclaim(&mut t);
        }
        if t.free.is_empty() && !t.is_starved {
            t.is_starved = true;
            t.progress = Instant::now();
            if t.queue.unmask() {
                self.reclaim(&mut t);
            }
            // The other thread watches that something leaves.
            self.device.event(usize::from(SOURCE_OTHER)).raise();
        }
        t.free.len()
    }

    fn flush(&self) {
        // A look before the lock would not do: the end of the batch could be missed.
        let t = self.transmit.lock();
        if !self.is_taking.load(Relaxed) {
            t.queue.notify();
        }
    }

    fn status(&self) -> LinkStatus {
        let c = &self.counters;
        let received = LinkCounters {
            frames: c.received.load(Relaxed),
            bytes: c.received_bytes.load(Relaxed),
            ..LinkCounters::default()
        };
        let sent = LinkCounters {
            frames: c.sent.load(Relaxed),
            bytes: c.sent_bytes.load(Relaxed),
            dropped: c.dropped.load(Relaxed),
            ..LinkCounters::default()
        };
        LinkStatus {
            received,
            sent,
            resets: c.resets.load(Relaxed),
            ..LinkStatus::default()
        }
    }
}

/// The receiving side of a device that was opened.
pub struct Receiver {
    net: Arc<VirtioNet>,
    queue: Queue<QUEUE>,
}

impl Receiver {
    /// Starts the driver's threads, which give what comes in to `upper`.
    ///
    /// # Errors
    /// No memory for their stacks.
    pub fn start(self, upper: Arc<dyn Upper>) -> Result<(), machine::AllocError> {
        let net = self.net.clone();
        if net.device.has_own_interrupts(2) {
            let upper = upper.clone();
            Builder::new("net-watch").spawn(move || net.watch(&*upper))?;
        }
        Builder::new("net-rx").spawn(move || self.serve(&*upper))?;
        Ok(())
    }

    fn serve(mut self, upper: &dyn Upper) {
        let alone = !self.net.device.has_own_interrupts(2);
        loop {
            let taken = self.take_all(upper);
            if taken.is_err() || self.net.is_broken.load(SeqCst) {
                if !self.recover(upper) {
                    return;
                }
                continue;
            }
            let until = Until {
                deadline: self.net.look_deadline().filter(|_| alone),
                interruptible: false,
            };
            // A wait that ends by its deadline leads to a look as well.
            let _ = self.net.device.wait(usize::from(SOURCE_RECEIVE), until);
            if alone {
                self.net.look_after(upper);
            }
        }
    }

    /// Takes in frames until there are none, and lets the device interrupt again.
    fn take_all(&mut self, upper: &dyn Upper) -> Result<(), VirtioError> {
        self.queue.mask();
        loop {
            while self.take_batch(upper)? {
                thread::cond_resched();
            }
            if !self.queue.unmask() {
                return Ok(());
            }
            self.queue.mask();
        }
    }

    /// Takes in up to [`BATCH`] frames; whether there were any.
    fn take_batch(&mut self, upper: &dyn Upper) -> Result<bool, VirtioError> {
        let (mut taken, mut bytes) = (0, 0);
        self.net.is_taking.store(true, Relaxed);
        let ended = loop {
            if taken == BATCH {
                break Ok(());
            }
            match self.take(upper) {
                Ok(Some(len)) => bytes += len as u64,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            taken += 1;
        };
        upper.received_all();
        // Under the lock that `flush` looks under.
        let transmit = self.net.transmit.lock();
        self.net.is_taking.store(false, Relaxed);
        if taken > 0 {
            transmit.queue.notify();
        }
        drop(transmit);
        ended?;
        if taken > 0 {
            let counters = &self.net.counters;
            counters.received.fetch_add(taken as u64, Relaxed);
            counters.received_bytes.fetch_add(bytes, Relaxed);
            self.queue.notify();
        }
        Ok(taken > 0)
    }

    /// Takes in a frame and gives its buffer back; its length, or nothing if there is none.
    fn take(&mut self, upper: &dyn Upper) -> Result<Option<usize>, VirtioError> {
        let Some((_, mut chain, written)) = self.queue.complete()? else {
            return Ok(None);
        };
        let is_told = self.net.features & F_GUEST_CSUM != 0;
        let buffer = chain.first_mut().and_then(Segment::as_buffer_mut);
        let bytes = buffer.and_then(|b| b.bytes_mut().get_mut(..written));
        let parts = bytes.and_then(|b| b.split_at_mut_checked(HEADER));
        let mut len = 0;
        if let Some((header, frame)) = parts {
            let checked = match is_told {
                true => header::arrived(header, frame),
                false => Checked::default(),
            };
            upper.receive_checked(frame, checked);
            len = frame.len();
        }
        // A buffer that just came back has a place again.
        match self.queue.submit(chain) {
            Ok(_) => Ok(Some(len)),
            Err(_) => Err(VirtioError::Misbehaved),
        }
    }

    /// Sets the device up again, more and more slowly while it fails; gives up
    /// after a minute or so. Whether it works again.
    fn recover(&mut self, upper: &dyn Upper) -> bool {
        const TRIES: u32 = 10;
        for n in 0..TRIES {
            log::warn!("virtio-net: the device misbehaves and is reset");
            match self.net.set_up_again() {
                Ok(queue) => {
                    self.queue = queue;
                    self.net.look_at_link();
                    upper.link_changed();
                    upper.transmit_ready();
                    return true;
                }
                Err(e) => log::warn!("virtio-net: {e}"),
            }
            let pause = Duration::from_millis(100 << n.min(7));
            // A sleep without interruption ends at its time only.
            let _ = thread::sleep_until(Instant::now().after(pause), false);
        }
        log::error!("virtio-net: given up");
        self.net.is_up.store(false, Relaxed);
        upper.link_changed();
        false
    }
}
