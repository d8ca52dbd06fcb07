//! A network device: frames in and out, and what its threads do.
//!
//! A frame is copied once on each side, between the protocols and a buffer the device
//! can reach. One thread takes in what arrives, in batches, with that interrupt off
//! while it does, and looks after the device once a second: a link change or a frame
//! whose interrupt was lost is found then, and so is a device that hangs or is gone. A
//! chip with an interrupt for each purpose has a second thread, for the link and for
//! room in a sending queue that was full.

use crate::chip::{BufferSize, Chip, NicError, Source};
use crate::family::{Cuts, Model};
use crate::regs::CAUSE_LINK;
use crate::ring::{ReceiveRing, Taken};
use crate::transmit::TransmitRing;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::bus::Bus;
use machine::dma::Reach;
use machine::sync::SpinLock;
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::wait::Until;
use net::{Joined, Link as _, LinkCounters, LinkStatus, PartialChecksum, Upper};

/// Ethernet header and one VLAN tag.
const FRAME_HEADER: usize = 14 + 4;
/// Bytes of IP in a usual frame, and the most there can be.
pub const MTU: usize = 1500;
const MTU_MAX: usize = 9000;
/// Bytes of IP in a frame that the device cuts: what Linux gives it at most, so that it is known
/// to work, less a page for headers and the padding of buffers.
const JOINED_MAX: usize = 60 << 10;
/// Frames taken in before the device is given the buffers back.
const BATCH: usize = 32;
/// Time between two looks at the device.
const LOOK: Duration = Duration::from_secs(1);
/// Frames that do not leave for so long although the link is up mean that the device
/// hangs.
const TRANSMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What has passed, and what was lost on the way.
#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    received_bytes: AtomicU64,
    received_errors: AtomicU64,
    received_dropped: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    sent_dropped: AtomicU64,
    resets: AtomicU64,
}

/// A network device of the e1000, e1000e or igb family.
pub struct Nic<B: Bus> {
    chip: Chip<B>,
    /// The hardware address in the low six bytes: it is asked for with every frame.
    mac: AtomicU64,
    mtu: usize,
    is_up: AtomicBool,
    /// It must be set up again.
    is_broken: AtomicBool,
    /// It will not work again.
    is_gone: AtomicBool,
    /// Frames are being taken in: what is sent meanwhile, answers mostly, leaves together
    /// afterwards.
    is_taking: AtomicBool,
    speed_mbit: AtomicU32,
    is_full_duplex: AtomicBool,
    transmit: SpinLock<Transmit>,
    counters: Counters,
}

struct Transmit {
    ring: TransmitRing,
    /// The device is being reset: nothing may be given to it.
    is_off: bool,
    /// Frames wait for [`Nic::flush`].
    is_unflushed: bool,
    /// Somebody found no room and waits for [`Upper::transmit_ready`].
    is_starved: bool,
    /// When something last left, or began to wait.
    progress: Instant,
}

impl Transmit {
    fn new(ring: TransmitRing) -> Transmit {
        Transmit {
            ring,
            is_off: false,
            is_unflushed: false,
            is_starved: false,
            progress: Instant::now(),
        }
    }

    /// Takes back what has left.
    fn reclaim(&mut self) {
        if self.ring.reclaim() {
            self.progress = Instant::now();
        }
    }

    fn room(&self) -> usize {
        if self.is_off { 0 } else { self.ring.room() }
    }
}

/// The size of buffers for frames that carry `mtu` bytes of IP.
fn buffer_size(mtu: usize) -> BufferSize {
    if mtu > MTU {
        BufferSize::Jumbo
    } else {
        BufferSize::Usual
    }
}

/// A hardware address as one number.
fn pack([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// A random address of the kind that is administered locally (IEEE 802).
fn random_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    machine::random::fill(&mut mac);
    mac[0] = mac[0] & !0b11 | 0b10;
    mac
}

fn rings(reach: Reach, model: &Model, mtu: usize) -> Result<(ReceiveRing, TransmitRing), NicError> {
    let shape = model.family.shape;
    let receive = ReceiveRing::new(reach, buffer_size(mtu).bytes(shape), shape)?;
    let transmit = TransmitRing::new(reach, FRAME_HEADER + mtu, model.family.layout)?;
    Ok((receive, transmit))
}

impl<B: Bus> Nic<B> {
    /// Takes the device behind `bus` into use, for IP packets of up to `mtu` bytes
    /// (cut to what it can). Nothing is received before [`Receiver::start`].
    ///
    /// # Errors
    /// [`NicError`].
    pub fn open(bus: B, model: Model, mtu: usize) -> Result<(Arc<Nic<B>>, Receiver<B>), NicError> {
        let mtu_max = if model.quirks.no_jumbo { MTU } else { MTU_MAX };
        let mtu = mtu.clamp(1280, mtu_max);
        let chip = Chip::new(bus, model);
        chip.reset()?;
        let mac = chip.mac().unwrap_or_else(random_mac);
        let (receive, transmit) = rings(chip.bus.reach(), &model, mtu)?;
        chip.set_up(mac, &receive, &transmit, buffer_size(mtu))?;
        let nic = Nic {
            chip,
            mac: AtomicU64::new(pack(mac)),
            mtu,
            is_up: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            is_taking: AtomicBool::new(false),
            speed_mbit: AtomicU32::new(0),
            is_full_duplex: AtomicBool::new(false),
            transmit: SpinLock::new(Transmit::new(transmit)),
            counters: Counters::default(),
        };
        nic.look_at_link();
        let nic = Arc::new(nic);
        let receiver = Receiver {
            nic: nic.clone(),
            ring: receive,
        };
        Ok((nic, receiver))
    }

    fn name(&self) -> &'static str {
        self.chip.model.family.name
    }

    fn set_broken(&self, why: &str) {
        if !self.is_broken.swap(true, SeqCst) {
            log::warn!("{}: {why}", self.name());
        }
        self.chip.bus.interrupt(0).raise();
    }

    /// Reads the link's state; whether it changed.
    fn look_at_link(&self) -> bool {
        let link = self.chip.link();
        self.speed_mbit.store(link.speed_mbit, Relaxed);
        self.is_full_duplex.store(link.is_full_duplex, Relaxed);
        let changed = self.is_up.swap(link.is_up, Relaxed) != link.is_up;
        if changed && link.is_up {
            // What waited for the link starts to count as waiting now.
            self.transmit.lock().progress = Instant::now();
        }
        changed
    }

    /// What is done once a second, and when something other than a frame came.
    fn look_after(&self, upper: &dyn Upper) {
        if self.is_gone.load(Relaxed) || self.is_broken.load(SeqCst) {
            return;
        }
        if !self.chip.is_present() {
            return self.set_broken("it does not answer");
        }
        if self.look_at_link() {
            upper.link_changed();
        }
        self.look_at_transmit(upper);
    }

    fn look_at_transmit(&self, upper: &dyn Upper) {
        let mut t = self.transmit.lock();
        if t.is_off {
            return;
        }
        t.reclaim();
        let waits = Instant::now().since(t.progress);
        let stuck = !t.ring.is_empty() && !t.is_unflushed && self.is_up.load(Relaxed);
        if stuck && waits >= TRANSMIT_TIMEOUT {
            drop(t);
            return self.set_broken("frames do not leave any more");
        }
        if !t.is_starved || t.ring.room() == 0 {
            return;
        }
        t.is_starved = false;
        self.chip.mask(Source::Transmit);
        drop(t);
        upper.transmit_ready();
    }

    /// What the second thread does at each of its interrupts.
    fn watch(&self, upper: &dyn Upper) {
        while !self.is_gone.load(Relaxed) {
            // Nothing but an interrupt ends this wait.
            let _ = self.chip.bus.interrupt(1).wait(Until::default());
            let _ = self.chip.take_causes();
            self.look_after(upper);
            self.chip.unmask(Source::Link);
        }
    }

    /// Puts a frame into the ring; whether there was room.
    fn queue(&self, frame: &[u8], checksum: Option<PartialChecksum>) -> bool {
        let push = |ring: &mut TransmitRing| ring.push(frame, checksum);
        self.queue_by(1, frame.len(), push)
    }

    /// Puts `frames` of together `bytes` into the ring; whether there was room.
    fn queue_by(
        &self,
        frames: usize,
        bytes: usize,
        push: impl FnOnce(&mut TransmitRing) -> bool,
    ) -> bool {
        let mut t = self.transmit.lock();
        if t.room() < frames && !t.is_off {
            t.reclaim();
        }
        if t.ring.is_empty() {
            t.progress = Instant::now();
        }
        if t.room() == 0 || !push(&mut t.ring) {
            self.counters.sent_dropped.fetch_add(frames as u64, Relaxed);
            return false;
        }
        t.is_unflushed = true;
        self.counters.sent.fetch_add(frames as u64, Relaxed);
        self.counters.sent_bytes.fetch_add(bytes as u64, Relaxed);
        true
    }

    /// Resets the device and sets it up again. What was being sent is lost, as frames
    /// may be.
    fn set_up_again(&self) -> Result<ReceiveRing, NicError> {
        self.counters.resets.fetch_add(1, Relaxed);
        self.transmit.lock().is_off = true;
        self.chip.reset()?;
        let (receive, transmit) = rings(self.chip.bus.reach(), &self.chip.model, self.mtu)?;
        let mac = self.mac();
        self.chip
            .set_up(mac, &receive, &transmit, buffer_size(self.mtu))?;
        let fresh = Transmit::new(transmit);
        let old = core::mem::replace(&mut *self.transmit.lock(), fresh);
        drop(old);
        self.is_broken.store(false, SeqCst);
        Ok(receive)
    }
}

impl<B: Bus> net::Link for Nic<B> {
    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.mac.load(Relaxed).to_le_bytes();
        [a, b, c, d, e, f]
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    fn transmit(&self, frame: &[u8]) -> bool {
        self.queue(frame, None)
    }

    fn transmit_partial(&self, frame: &mut [u8], checksum: PartialChecksum) -> bool {
        self.queue(frame, Some(checksum))
    }

    fn joined_max(&self) -> usize {
        match self.chip.model.cuts() {
            Cuts::Nothing => 0,
            Cuts::V4 | Cuts::Both => JOINED_MAX,
        }
    }

    fn joins(&self, is_v6: bool) -> bool {
        // Linux's driver does not cut on a slower line, "to avoid some hardware issues".
        let is_fast = self.speed_mbit.load(Relaxed) >= 1000;
        match self.chip.model.cuts() {
            Cuts::Nothing => false,
            Cuts::V4 => is_fast && !is_v6,
            Cuts::Both => is_fast,
        }
    }

    fn transmit_joined(&self, frame: &mut [u8], joined: Joined) -> bool {
        let frames = joined.count(frame.len());
        // All but the first get headers that are not in the frame.
        let bytes = frame.len() + frames.saturating_sub(1) * joined.headers();
        self.queue_by(frames, bytes, |ring| ring.push_joined(frame, joined))
    }

    fn room(&self) -> usize {
        let mut t = self.transmit.lock();
        if t.room() == 0 && !t.is_off {
            t.reclaim();
        }
        if t.room() == 0 && !t.is_starved && !t.is_off {
            t.is_starved = true;
            self.chip.unmask(Source::Transmit);
            // It may have left just before.
            t.reclaim();
        }
        if t.room() == 0 {
            // After a reset everybody is told, too.
            t.is_starved = true;
        }
        t.room()
    }

    fn flush(&self) {
        // A look before the lock would not do: the end of the batch could be missed.
        let mut t = self.transmit.lock();
        if self.is_taking.load(Relaxed) {
            return;
        }
        if core::mem::take(&mut t.is_unflushed) && !t.is_off {
            self.chip.send(t.ring.tail());
        }
    }

    fn set_mac(&self, mac: [u8; 6]) -> bool {
        self.mac.store(pack(mac), Relaxed);
        self.chip.set_mac(mac);
        true
    }

    fn status(&self) -> LinkStatus {
        let c = &self.counters;
        let (damaged, missed) = self.chip.take_losses();
        c.received_errors.fetch_add(damaged.into(), Relaxed);
        c.received_dropped.fetch_add(missed.into(), Relaxed);
        let is_up = self.is_up.load(Relaxed);
        LinkStatus {
            speed_mbit: is_up.then(|| self.speed_mbit.load(Relaxed)),
            is_full_duplex: is_up.then(|| self.is_full_duplex.load(Relaxed)),
            received: LinkCounters {
                frames: c.received.load(Relaxed),
                bytes: c.received_bytes.load(Relaxed),
                errors: c.received_errors.load(Relaxed),
                dropped: c.received_dropped.load(Relaxed),
            },
            sent: LinkCounters {
                frames: c.sent.load(Relaxed),
                bytes: c.sent_bytes.load(Relaxed),
                errors: 0,
                dropped: c.sent_dropped.load(Relaxed),
            },
            resets: c.resets.load(Relaxed),
        }
    }
}

impl<B: Bus> Drop for Nic<B> {
    fn drop(&mut self) {
        // One that does not come to rest has been cut off from memory.
        let _ = self.chip.reset();
    }
}

/// The receiving side of a device that was opened.
pub struct Receiver<B: Bus> {
    nic: Arc<Nic<B>>,
    ring: ReceiveRing,
}

impl<B: Bus> Drop for Receiver<B> {
    fn drop(&mut self) {
        // Its buffers go, and the device may not write there any more.
        self.nic.chip.bus.set_master(false);
    }
}

impl<B: Bus> Receiver<B> {
    /// Starts the driver's threads, which give what comes in to `upper`.
    ///
    /// # Errors
    /// No memory for their stacks.
    pub fn start(self, upper: Arc<dyn Upper>) -> Result<(), NicError> {
        let nic = self.nic.clone();
        if nic.chip.has_own_interrupts() {
            let upper = upper.clone();
            Builder::new("net-watch").spawn(move || nic.watch(&*upper))?;
        }
        Builder::new("net-rx").spawn(move || self.serve(&*upper))?;
        Ok(())
    }

    fn serve(mut self, upper: &dyn Upper) {
        let mut next_look = Instant::now().after(LOOK);
        loop {
            let taken = self.take_all(upper);
            if taken.is_err() {
                self.nic.set_broken("it wrote beyond a buffer");
            }
            if self.nic.is_broken.load(SeqCst) {
                if !self.recover(upper) {
                    return;
                }
                continue;
            }
            let causes = self.wait(next_look);
            let now = Instant::now();
            if causes & CAUSE_LINK != 0 || now >= next_look || self.is_awaited() {
                self.nic.look_after(upper);
                next_look = now.after(LOOK);
            }
        }
    }

    /// Whether somebody waits for room.
    fn is_awaited(&self) -> bool {
        !self.nic.chip.has_own_interrupts() && self.nic.transmit.lock().is_starved
    }

    /// Sleeps until an interrupt or `deadline`, and turns interrupts for frames off.
    /// What interrupted, as far as this thread has to know.
    fn wait(&self, deadline: Instant) -> u32 {
        let chip = &self.nic.chip;
        let event = chip.bus.interrupt(0);
        let until = Until {
            deadline: Some(deadline),
            interruptible: false,
        };
        // Interrupt and deadline lead to the same look.
        let _ = event.wait(until);
        chip.mask(Source::Receive);
        if chip.has_own_interrupts() {
            return 0;
        }
        // This lowers a wire.
        let causes = chip.take_causes();
        event.rearm();
        causes
    }

    /// Takes in frames until there are none, and lets the device interrupt again.
    fn take_all(&mut self, upper: &dyn Upper) -> Result<(), crate::ring::Overflow> {
        loop {
            while self.take_batch(upper)? {
                thread::cond_resched();
            }
            self.nic.chip.unmask(Source::Receive);
            if !self.ring.has_frame() {
                return Ok(());
            }
            self.nic.chip.mask(Source::Receive);
        }
    }

    /// Takes in up to [`BATCH`] frames; whether there were any.
    fn take_batch(&mut self, upper: &dyn Upper) -> Result<bool, crate::ring::Overflow> {
        let (mut taken, mut frames, mut bytes, mut errors) = (0, 0, 0, 0);
        self.nic.is_taking.store(true, Relaxed);
        let ended = loop {
            if taken == BATCH {
                break Ok(());
            }
            let give = |frame: &[u8], checked| upper.receive_checked(frame, checked);
            match self.ring.take(give) {
                Ok(Taken::Nothing) => break Ok(()),
                Ok(Taken::Frame(len)) => {
                    frames += 1;
                    bytes += len as u64;
                }
                Ok(Taken::Damaged) => errors += 1,
                Err(overflow) => break Err(overflow),
            }
            taken += 1;
        };
        upper.received_all();
        // Under the lock that `flush` looks under.
        let transmit = self.nic.transmit.lock();
        self.nic.is_taking.store(false, Relaxed);
        drop(transmit);
        self.nic.flush();
        ended?;
        if taken > 0 {
            let c = &self.nic.counters;
            c.received.fetch_add(frames, Relaxed);
            c.received_bytes.fetch_add(bytes, Relaxed);
            c.received_errors.fetch_add(errors, Relaxed);
            self.nic.chip.give_buffers(self.ring.tail());
        }
        Ok(taken > 0)
    }

    /// Sets the device up again, more and more slowly while it fails; gives up after a
    /// minute or so, and at once if it is gone. Whether it works again.
    fn recover(&mut self, upper: &dyn Upper) -> bool {
        const TRIES: u32 = 10;
        let nic = self.nic.clone();
        for n in 0..TRIES {
            log::warn!("{}: the device is reset", nic.name());
            match nic.set_up_again() {
                Ok(ring) => {
                    self.ring = ring;
                    nic.look_at_link();
                    upper.link_changed();
                    upper.transmit_ready();
                    return true;
                }
                Err(NicError::Gone) => break,
                Err(e) => log::warn!("{}: {e}", nic.name()),
            }
            crate::chip::pause(Duration::from_millis(100 << n.min(7)));
        }
        log::error!("{}: the device is given up", nic.name());
        nic.is_gone.store(true, Relaxed);
        nic.is_up.store(false, Relaxed);
        upper.link_changed();
        if nic.chip.has_own_interrupts() {
            nic.chip.bus.interrupt(1).raise();
        }
        false
    }
}
