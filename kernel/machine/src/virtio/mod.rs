//! Virtio devices: finding, negotiating, queues and interrupts, for drivers that
//! use no `unsafe`.
//!
//! The transport and the queues implement and use the traits of the
//! `virtio-drivers` crate. What this module adds is ownership: a [`Queue`] owns
//! every buffer the device may touch, gives it back when the device is done or
//! reset, and believes nothing the device says about it.

mod found;
mod hal;
mod place;
mod queue;
#[cfg(test)]
mod tests;
mod transport;

pub use found::Found;
pub use place::{Place, PlaceError, told};
pub use queue::{Chain, Queue};
pub use virtio_drivers::transport::DeviceType;

use crate::iommu::Reach;
use crate::irq::IrqEvent;
use crate::pci::{Kind, PciError};
use crate::sync::{Once, SpinLock};
use crate::thread;
use crate::time::Instant;
use crate::wait::Until;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use found::Irqs;
use transport::Registers;
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::error::WaitError;

/// What went wrong with a virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioError {
    /// It lacks the registers of a device of version 1.
    NotModern,
    /// It does not take the features it offered, or lacks one that is needed.
    Features,
    /// It has no such queue, or one that is too short.
    NoQueue(u16),
    /// It took no interrupt vector.
    NoVector,
    /// Memory ran out.
    NoMemory,
    /// It answered what it was never asked, and has to be reset.
    Misbehaved,
    /// It does not come to rest; it was cut off from memory, or keeps what it has.
    NoReset,
    /// Its registers would be in RAM.
    InRam,
    /// There is no room to map its registers.
    NoSpace,
    /// No virtio device is where it should be.
    NotVirtio,
    /// It is of a kind that nobody knows.
    UnknownKind(u32),
    /// No interrupt can be had by its wire.
    NoWire(u32),
    /// Its PCI side.
    Pci(PciError),
}

impl From<PciError> for VirtioError {
    fn from(e: PciError) -> Self {
        VirtioError::Pci(e)
    }
}

impl fmt::Display for VirtioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VirtioError::NotModern => f.write_str("no virtio 1 registers"),
            VirtioError::Features => f.write_str("feature negotiation failed"),
            VirtioError::NoQueue(n) => write!(f, "queue {n} is missing or too short"),
            VirtioError::NoVector => f.write_str("it took no interrupt vector"),
            VirtioError::NoMemory => f.write_str("no memory"),
            VirtioError::Misbehaved => f.write_str("it answered what it was not asked"),
            VirtioError::NoReset => f.write_str("it does not reset"),
            VirtioError::InRam => f.write_str("its registers would be in memory"),
            VirtioError::NoSpace => f.write_str("no room to map its registers"),
            VirtioError::NotVirtio => f.write_str("no virtio device is there"),
            VirtioError::UnknownKind(n) => write!(f, "it is of unknown kind {n}"),
            VirtioError::NoWire(n) => write!(f, "no interrupt can be had by wire {n}"),
            VirtioError::Pci(e) => e.fmt(f),
        }
    }
}

/// Every device of version 1 has it (virtio 1.2, 6).
const VERSION_1: u64 = 1 << 32;

/// Its accesses go the way of a real device's, so that an IOMMU bounds them (6, 6.1). One
/// without it reaches all memory, whatever IOMMU there is.
const ACCESS_PLATFORM: u64 = 1 << 33;

/// What a device and its queues share.
struct Core {
    found: Found,
    transport: SpinLock<Registers>,
    /// Counts resets, so that a queue knows whether the device still has it.
    resets: AtomicU32,
    /// What it reaches, once features are agreed on.
    reach: Once<Reach>,
    /// It neither came to rest nor could be cut off: what it was lent stays its own.
    is_loose: AtomicBool,
}

/// A virtio device.
pub struct Device {
    core: Arc<Core>,
    interrupts: Irqs,
}

impl Device {
    /// Takes the device into use, with up to `sources` interrupts that the driver
    /// numbers itself.
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn open(found: &Found, name: &'static str, sources: usize) -> Result<Device, VirtioError> {
        let (registers, interrupts) = found.open(name, sources)?;
        Ok(Device {
            core: Arc::new(Core {
                found: found.clone(),
                transport: SpinLock::new(registers),
                resets: AtomicU32::new(0),
                reach: Once::new(),
                is_loose: AtomicBool::new(false),
            }),
            interrupts,
        })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> DeviceType {
        self.core.found.kind()
    }

    /// What memory it reaches: to be asked after [`Device::negotiate`].
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.core.reach()
    }

    /// Resets it and agrees on features: those of `wanted` that it offers.
    ///
    /// # Errors
    /// [`VirtioError::NoReset`], [`VirtioError::Features`], [`VirtioError::Pci`].
    pub fn negotiate(&self, wanted: u64) -> Result<u64, VirtioError> {
        self.reset()?;
        let offered = self.core.transport.lock().read_device_features();
        if self.core.reach.get().is_none() {
            let is_bounded = offered & ACCESS_PLATFORM != 0;
            let reach = if is_bounded {
                self.core.found.reach()?
            } else {
                Reach::ALL
            };
            self.core.reach.call_once(|| reach);
            self.core.transport.lock().set_reach(reach);
        }
        let mut t = self.core.transport.lock();
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        t.set_status(status);
        let agreed = offered & (wanted | VERSION_1 | ACCESS_PLATFORM);
        t.write_driver_features(agreed);
        status |= DeviceStatus::FEATURES_OK;
        t.set_status(status);
        let taken = t.get_status().contains(DeviceStatus::FEATURES_OK);
        if agreed & VERSION_1 == 0 || !taken {
            t.set_status(DeviceStatus::FAILED);
            return Err(VirtioError::Features);
        }
        Ok(agreed)
    }

    /// Sets up queue `index` with room for `SIZE` descriptors; it interrupts by
    /// `source`, or never.
    ///
    /// # Errors
    /// [`VirtioError::NoQueue`], [`VirtioError::NoVector`], [`VirtioError::NoMemory`].
    pub fn queue<const SIZE: usize>(
        &self,
        index: u16,
        source: Option<u16>,
    ) -> Result<Queue<SIZE>, VirtioError> {
        let vector = self.vector(source);
        if !self.core.transport.lock().set_queue_vector(index, vector) {
            return Err(VirtioError::NoVector);
        }
        Queue::new(&self.core, index)
    }

    /// Lets changes of the configuration interrupt by `source`.
    ///
    /// # Errors
    /// [`VirtioError::NoVector`].
    pub fn config_interrupt(&self, source: u16) -> Result<(), VirtioError> {
        let vector = self.vector(Some(source));
        if self.core.transport.lock().set_config_vector(vector) {
            Ok(())
        } else {
            Err(VirtioError::NoVector)
        }
    }

    /// The MSI-X table entry for `source`: the last there is, if it has fewer.
    fn vector(&self, source: Option<u16>) -> Option<u16> {
        let last = self.interrupts.count().saturating_sub(1) as u16;
        match self.interrupts.kind() {
            Kind::MsiX => source.map(|s| s.min(last)),
            Kind::Msi | Kind::Wire => None,
        }
    }

    /// The driver is ready: the device may work.
    pub fn start(&self) {
        let mut t = self.core.transport.lock();
        let status = t.get_status() | DeviceStatus::DRIVER_OK;
        t.set_status(status);
    }

    /// Whether the device says that it cannot go on.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        let status = self.core.transport.lock().get_status();
        status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }

    /// Stops it; it forgets all queues. Queues of before give back what they hold
    /// when they are dropped.
    ///
    /// # Errors
    /// [`VirtioError::NoReset`]: it was cut off from memory instead, or keeps what it has.
    pub fn reset(&self) -> Result<(), VirtioError> {
        self.core.reset()
    }

    /// The interrupt of `source`.
    #[must_use]
    pub fn event(&self, source: usize) -> &IrqEvent {
        self.interrupts.event(source)
    }

    /// Whether sources have interrupts of their own, so that one tells what it is
    /// about.
    #[must_use]
    pub fn has_own_interrupts(&self, sources: usize) -> bool {
        self.interrupts.kind() == Kind::MsiX && self.interrupts.count() >= sources
    }

    /// Sends the interrupts of `source` to CPU `cpu`.
    pub fn set_cpu(&self, source: usize, cpu: usize) {
        self.interrupts.set_cpu(source, cpu);
    }

    /// Sleeps until an interrupt of `source`.
    ///
    /// # Errors
    /// [`WaitError`] when `until` ended the sleep first.
    pub fn wait(&self, source: usize, until: Until) -> Result<(), WaitError> {
        let event = self.event(source);
        let woken = event.wait(until);
        if event.is_line() {
            // Reading the status lowers the wire.
            self.core.transport.lock().ack_interrupt();
            event.rearm();
        }
        woken.map(|_| ())
    }

    /// Reads from the device's own configuration with `f`, again if the device
    /// changed it meanwhile.
    pub fn config<R>(&self, f: impl Fn(&Config<'_>) -> R) -> R {
        let t = self.core.transport.lock();
        let config = Config(&t);
        let mut answer = f(&config);
        // A device that changes it all the time is taken as it is at last.
        for _ in 0..16 {
            let before = t.read_config_generation();
            answer = f(&config);
            if t.read_config_generation() == before {
                break;
            }
        }
        answer
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A device that does not come to rest has been cut off from memory.
        let _ = self.core.reset();
    }
}

/// A device's own configuration; what it does not have reads as zero.
pub struct Config<'a>(&'a Registers);

impl Config<'_> {
    /// A byte.
    #[must_use]
    pub fn u8(&self, offset: usize) -> u8 {
        self.0.read_config_space(offset).unwrap_or(0)
    }

    /// A word.
    #[must_use]
    pub fn u16(&self, offset: usize) -> u16 {
        self.0.read_config_space(offset).unwrap_or(0)
    }

    /// A double word.
    #[must_use]
    pub fn u32(&self, offset: usize) -> u32 {
        self.0.read_config_space(offset).unwrap_or(0)
    }

    /// A quad word, which the specification has read in halves.
    #[must_use]
    pub fn u64(&self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }
}

impl Core {
    fn reach(&self) -> Reach {
        self.reach.get().copied().unwrap_or(Reach::ALL)
    }

    fn reset(&self) -> Result<(), VirtioError> {
        self.resets.fetch_add(1, SeqCst);
        self.transport.lock().set_status(DeviceStatus::empty());
        let deadline = Instant::now().after(Duration::from_secs(1));
        loop {
            if self.transport.lock().get_status() == DeviceStatus::empty() {
                self.is_loose.store(false, SeqCst);
                return Ok(());
            }
            if Instant::now() >= deadline {
                break;
            }
            thread::yield_now();
        }
        if !self.found.cut_off() {
            self.is_loose.store(true, SeqCst);
        }
        Err(VirtioError::NoReset)
    }
}
