//! PCI: the devices there are, their registers and their interrupts.
//!
//! [`devices`] walks the buses as the firmware numbered them; nothing is moved.
//! A [`Device`] gives safe access: what is mapped is bounded ([`crate::mmio`]),
//! what a device says of itself is checked. Registers as in the PCI Local Bus
//! Specification 3.0 and PCI Express Base 3.1.

mod bar;
mod bridge;
mod capability;
mod class;
mod config;
mod msi;
mod scan;

pub use bar::Bar;
pub(crate) use bridge::{Rename, behind};
pub use capability::Capability;
pub use class::class_name;
pub use config::{ConfigSpace, Function};
pub use msi::{Interrupts, Kind};
pub use scan::{bridges, devices};

use crate::iommu::Reach;
use crate::mmio::Mmio;
use crate::port::Ports;
use crate::time::Instant;
use alloc::vec::Vec;
use config::COMMAND;
use core::fmt;
use core::time::Duration;

/// Bus, device and function of a PCI function in segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// What went wrong with a PCI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// The BAR does not exist, is of the other kind, or the firmware gave it no
    /// address.
    NoBar(u8),
    /// No room to map its registers.
    NoSpace,
    /// It has no interrupt that can be used, or no vector is free.
    NoInterrupt,
    /// It cannot be reset alone, or did not come back.
    NoReset,
    /// The IOMMU cannot give it memory.
    NoDomain,
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PciError::NoBar(n) => write!(f, "BAR {n} cannot be used"),
            PciError::NoSpace => f.write_str("no room to map its registers"),
            PciError::NoInterrupt => f.write_str("no interrupt can be had"),
            PciError::NoReset => f.write_str("it cannot be reset"),
            PciError::NoDomain => f.write_str("the IOMMU has no room for it"),
        }
    }
}

/// A PCI function.
#[derive(Clone, Debug)]
pub struct Device {
    /// Where it is.
    pub address: Address,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class.
    pub class: u8,
    /// Sub-class.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
    /// Revision ID.
    pub revision: u8,
    /// Vendor and device ID of the subsystem.
    pub subsystem: (u16, u16),
    /// Its base address registers; the slot after a 64-bit one is empty.
    pub bars: [Option<Bar>; 6],
    /// Its capabilities.
    pub capabilities: Vec<Capability>,
}

const MEMORY_ENABLE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const IO_ENABLE: u32 = 1 << 0;
const INTX_DISABLE: u32 = 1 << 10;

impl Device {
    /// Its configuration space.
    #[must_use]
    pub fn config(&self) -> Function {
        Function(self.address)
    }

    /// What memory it reaches from now on: where an IOMMU is on, what is lent to it. To
    /// be called before it is let at memory.
    ///
    /// # Errors
    /// [`PciError::NoDomain`].
    pub fn reach(&self) -> Result<Reach, PciError> {
        crate::iommu::reach_of(self)
    }

    fn command(&self, clear: u32, set: u32) {
        // The upper half is the status register, whose bits are cleared by ones.
        let old = self.config().read(COMMAND) & 0xffff;
        self.config().write(COMMAND, old & !clear | set);
    }

    /// Lets it answer on its BARs and reach memory itself, through what bridges there are.
    pub fn enable(&self) {
        bridge::open_above(self.address.bus);
        let io = self.bars.iter().flatten().any(Bar::is_io);
        let io = if io { IO_ENABLE } else { 0 };
        self.command(0, MEMORY_ENABLE | BUS_MASTER | io);
    }

    /// Lets it reach memory, through what bridges there are, or keeps it from doing so.
    pub fn set_master(&self, on: bool) {
        if on {
            bridge::open_above(self.address.bus);
        }
        let (clear, set) = if on { (0, BUS_MASTER) } else { (BUS_MASTER, 0) };
        self.command(clear, set);
    }

    /// Keeps it from reaching memory and from interrupting.
    pub fn quiesce(&self) {
        self.command(BUS_MASTER, INTX_DISABLE);
    }

    /// Maps memory BAR `index`.
    ///
    /// # Errors
    /// [`PciError::NoBar`], [`PciError::NoSpace`].
    pub fn map_bar(&self, index: u8) -> Result<Mmio, PciError> {
        match self.bars.get(usize::from(index)) {
            Some(Some(Bar::Memory { address, size, .. })) if *address != 0 => {
                let len = usize::try_from(*size).map_err(|_| PciError::NoSpace)?;
                Mmio::map(*address, len).ok_or(PciError::NoSpace)
            }
            _ => Err(PciError::NoBar(index)),
        }
    }

    /// The ports of I/O BAR `index`.
    ///
    /// # Errors
    /// [`PciError::NoBar`].
    pub fn io_bar(&self, index: u8) -> Result<Ports, PciError> {
        match self.bars.get(usize::from(index)) {
            Some(Some(Bar::Io { port, size })) if *port != 0 => {
                Ports::new(*port, *size).ok_or(PciError::NoBar(index))
            }
            _ => Err(PciError::NoBar(index)),
        }
    }

    /// The first capability with this ID.
    #[must_use]
    pub fn capability(&self, id: u8) -> Option<Capability> {
        self.capabilities.iter().find(|c| c.id == id).copied()
    }

    /// Resets this function alone (function-level reset) and gives it its BARs
    /// back. Sleeps for the 100 ms the specification asks for.
    ///
    /// # Errors
    /// [`PciError::NoReset`] if it cannot, or is gone afterwards.
    pub fn reset(&self) -> Result<(), PciError> {
        const EXPRESS: u8 = 0x10;
        /// In the device capabilities register.
        const CAN_RESET: u32 = 1 << 28;
        /// In the device control register.
        const INITIATE: u32 = 1 << 15;
        let config = self.config();
        let express = self.capability(EXPRESS).ok_or(PciError::NoReset)?.offset;
        if config.read(express + 4) & CAN_RESET == 0 {
            return Err(PciError::NoReset);
        }
        let command = config.read(COMMAND) & 0xffff;
        let bars = bar::save(&config);
        self.quiesce();
        let control = config.read(express + 8) & 0xffff;
        config.write(express + 8, control | INITIATE);
        let done = Instant::now().after(Duration::from_millis(100));
        // A sleep without interruption ends at its time only.
        let _ = crate::thread::sleep_until(done, false);
        if config.read(0) & 0xffff != u32::from(self.vendor) {
            return Err(PciError::NoReset);
        }
        bar::restore(&config, &bars);
        config.write(COMMAND, command);
        Ok(())
    }
}
