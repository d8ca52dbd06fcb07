//! An adapter: how it is taken over, and what its interrupts lead to.

use crate::disk::Disk;
use crate::port::{Port, wait};
use crate::registers::{
    ALL_ONES, BOHC, BOHC_DRIVER, BOHC_FIRMWARE, CAP, CAP_64, CAP_CLO, CAP_NCQ, CAP2, CAP2_HANDOFF,
    GHC, GHC_AHCI, GHC_INTERRUPTS, GHC_RESET, IS, PI,
};
use crate::slots::Ticket;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::bus::Bus;
use machine::pci::PciError;
use machine::sync::SpinLock;
use machine::thread::Builder;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};

/// Time for the firmware to hand the adapter over (AHCI 10.6.3).
const HANDOFF_TIME: Duration = Duration::from_secs(2);
/// Time for the adapter's reset (10.4.3).
const RESET_TIME: Duration = Duration::from_secs(1);
/// Time for a link whose disk was just powered up.
const POWER_UP_TIME: Duration = Duration::from_millis(200);
/// How long the driver's thread leaves interrupts to those who lead.
const AWAY: Duration = Duration::from_millis(200);
/// Failures that wait to be told of.
const UNTOLD_MAX: usize = 16;

/// What went wrong with an adapter or a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AhciError {
    /// Its PCI side.
    Pci(PciError),
    /// It is not there.
    Gone,
    /// A port does not stop.
    NotStopped,
    /// There is no disk, or its link does not come up.
    NoDisk,
    /// The disk is not ready.
    NotReady,
    /// What is attached is not a disk that can be used.
    NotUsable(&'static str),
    /// A command of the driver's own failed or had no answer.
    Command,
    /// The disk is another one than before.
    Changed,
    /// Memory ran out, or the adapter does not reach it.
    NoMemory,
}

impl fmt::Display for AhciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AhciError::Pci(e) => e.fmt(f),
            AhciError::Gone => f.write_str("it is gone"),
            AhciError::NotStopped => f.write_str("a port does not stop"),
            AhciError::NoDisk => f.write_str("no disk answers"),
            AhciError::NotReady => f.write_str("the disk does not become ready"),
            AhciError::NotUsable(why) => f.write_str(why),
            AhciError::Command => f.write_str("the disk does not say what it is"),
            AhciError::Changed => f.write_str("it is another disk than before"),
            AhciError::NoMemory => f.write_str("no memory, or none that it reaches"),
        }
    }
}

/// Counters since the driver started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands that disks reported as failed.
    pub failed: AtomicU64,
    /// Times that a disk's link was begun anew.
    pub resets: AtomicU64,
}

/// What the driver's thread is called for, of one port.
pub(crate) mod call {
    /// The adapter is not there.
    pub(crate) const GONE: u32 = 1 << 0;
    /// A command failed.
    pub(crate) const FAILED: u32 = 1 << 1;
    /// Something went wrong on the link.
    pub(crate) const LINK: u32 = 1 << 2;
    /// The disk takes too long.
    pub(crate) const LATE: u32 = 1 << 3;
    /// A disk was pulled or put in.
    pub(crate) const PLUG: u32 = 1 << 4;
}

/// An adapter.
pub struct Hba<B: Bus> {
    pub(crate) bus: B,
    pub(crate) capabilities: u32,
    pub(crate) ports: Vec<Port>,
    /// The driver's thread has been called.
    called: AtomicBool,
    calls: WaitQueue,
    pub(crate) untold: SpinLock<Vec<(u8, Arc<Ticket>)>>,
    pub(crate) counters: Counters,
}

impl<B: Bus> Hba<B> {
    /// Takes the adapter on `bus` into use; its disks, in the order of their ports.
    ///
    /// # Errors
    /// [`AhciError`].
    pub fn start(bus: B) -> Result<Vec<Arc<Disk<B>>>, AhciError> {
        if bus.read_u32(CAP) == ALL_ONES {
            return Err(AhciError::Gone);
        }
        take_over(&bus);
        let implemented = bus.read_u32(PI);
        let mut hba = Hba {
            capabilities: bus.read_u32(CAP),
            bus,
            ports: Vec::new(),
            called: AtomicBool::new(false),
            calls: WaitQueue::new(),
            untold: SpinLock::new(Vec::with_capacity(UNTOLD_MAX)),
            counters: Counters::default(),
        };
        hba.find_disks(implemented)?;
        let hba = Arc::new(hba);
        let global = hba.bus.read_u32(GHC);
        hba.bus.write_u32(IS, u32::MAX);
        hba.bus.write_u32(GHC, global | GHC_INTERRUPTS);
        for port in &hba.ports {
            port.open(&hba.bus);
        }
        let disks = (0..hba.ports.len()).filter_map(|n| Disk::new(hba.clone(), n));
        let disks = disks.map(Arc::new).collect();
        let served = hba.clone();
        Builder::new("ahci")
            .spawn(move || served.serve())
            .map_err(|_| AhciError::NoMemory)?;
        Ok(disks)
    }

    /// Makes a port of each that has a disk.
    fn find_disks(&mut self, implemented: u32) -> Result<(), AhciError> {
        let mut candidates = Vec::new();
        for number in (0..32u8).filter(|n| implemented >> n & 1 != 0) {
            let port = Port::new(number, self.bus.reach());
            candidates.push(port.map_err(|_| AhciError::NoMemory)?);
        }
        let mut is_new = false;
        for port in &candidates {
            if !port.stop(&self.bus) {
                self.reset()?;
                is_new = true;
            }
        }
        for port in &candidates {
            is_new |= port.power_up(&self.bus);
        }
        let is_there = |port: &Port| port.is_up(&self.bus);
        if is_new {
            wait(POWER_UP_TIME, || candidates.iter().all(is_there));
        }
        for port in candidates {
            if !port.is_up(&self.bus) {
                continue;
            }
            match self.bring_up(&port, false) {
                Ok(()) => self.ports.push(port),
                Err(e) => {
                    log::warn!("ahci: port {}: {e}", port.number);
                    // It must not reach memory that is about to be free.
                    if !port.stop(&self.bus) {
                        self.reset()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Resets the adapter and all its ports.
    fn reset(&self) -> Result<(), AhciError> {
        self.bus.write_u32(GHC, GHC_AHCI | GHC_RESET);
        if !wait(RESET_TIME, || self.bus.read_u32(GHC) & GHC_RESET == 0) {
            self.bus.set_master(false);
            return Err(AhciError::NotStopped);
        }
        self.bus.write_u32(GHC, GHC_AHCI);
        Ok(())
    }

    /// Commands at once on a port.
    pub(crate) fn depth(&self, queue: u32) -> u32 {
        let slots = (self.capabilities >> 8 & 0x1f) + 1;
        if self.capabilities & CAP_NCQ != 0 {
            queue.min(slots)
        } else {
            0
        }
    }

    /// Whether the adapter reaches that address.
    pub(crate) fn reaches(&self, phys: u64) -> bool {
        self.capabilities & CAP_64 != 0 || phys >> 32 == 0
    }

    /// Whether it can clear the status of a disk that stays busy.
    pub(crate) fn can_clear_busy(&self) -> bool {
        self.capabilities & CAP_CLO != 0
    }

    /// Looks after all ports with interrupts, and after `mine`.
    pub(crate) fn look(&self, mine: Option<&Port>) {
        let pending = self.bus.read_u32(IS);
        let mut is_called = false;
        for port in &self.ports {
            let is_mine = mine.is_some_and(|m| m.number == port.number);
            if pending >> port.number & 1 == 0 && !is_mine {
                continue;
            }
            let finished = port.reap(&self.bus);
            is_called |= port.calls.load(SeqCst) != 0;
            if finished > 0 && !is_mine && port.lead.is_taken() {
                self.bus.interrupt(0).raise();
            }
        }
        if pending != 0 {
            self.bus.write_u32(IS, pending);
        }
        if self.bus.is_wired() {
            self.bus.interrupt(0).rearm();
        }
        if is_called {
            self.call();
        }
    }

    /// Calls the driver's thread.
    pub(crate) fn call(&self) {
        self.called.store(true, SeqCst);
        self.calls.wake_all();
        self.bus.interrupt(0).raise();
    }

    /// Notes a failure, to be told of.
    pub(crate) fn note_failure(&self, port: &Port, ticket: Arc<Ticket>) {
        self.counters.failed.fetch_add(1, Relaxed);
        let mut untold = self.untold.lock();
        if untold.len() < UNTOLD_MAX {
            untold.push((port.number, ticket));
        }
    }

    /// Sleeps until there is something to look after. While others lead, interrupts
    /// are theirs and it only comes by from time to time; whether it is so now.
    pub(crate) fn sleep(&self, is_away: bool) -> bool {
        let called = || self.called.swap(false, SeqCst);
        if is_away {
            let until = Until {
                deadline: Some(Instant::now().after(AWAY)),
                interruptible: false,
            };
            let woken = self.calls.wait_until(until, || called().then_some(()));
            if woken.is_ok() {
                return true;
            }
            // Away as long as there is work for those who lead.
            return self.bus.interrupt(0).take_count() > 0;
        }
        let event = self.bus.interrupt(0);
        let until = Until::default();
        let _ = event.wait_until(until, || (called() || event.take_count() > 0).then_some(()));
        // A wire is shared: whoever listens to it looks after it at once.
        !self.bus.is_wired() && self.ports.iter().any(|p| p.lead.is_taken())
    }
}

/// Has the firmware let go of the adapter, and turns on its AHCI side.
fn take_over(bus: &impl Bus) {
    if bus.read_u32(CAP2) & CAP2_HANDOFF != 0 {
        let control = bus.read_u32(BOHC);
        bus.write_u32(BOHC, control | BOHC_DRIVER);
        if !wait(HANDOFF_TIME, || bus.read_u32(BOHC) & BOHC_FIRMWARE == 0) {
            log::warn!("ahci: the firmware does not let go; taken all the same");
        }
    }
    bus.write_u32(GHC, bus.read_u32(GHC) & !GHC_INTERRUPTS | GHC_AHCI);
}

impl<B: Bus> Drop for Hba<B> {
    fn drop(&mut self) {
        // Its memory is about to be free.
        self.bus.set_master(false);
    }
}
