//! A virtio device before it is in use: where it is and what it is.

use super::place::Place;
use super::transport::{Identified, ModernMmio, ModernPci, Registers, device_type};
use super::{DeviceType, VirtioError};
use crate::arch;
use crate::iommu::Reach;
use crate::irq::IrqEvent;
use crate::mmio::Mmio;
use crate::pci::{self, Interrupts, Kind};
use core::fmt;

/// A virtio device, and how it is reached.
#[derive(Clone, Debug)]
pub struct Found(Way);

#[derive(Clone, Debug)]
enum Way {
    Pci(pci::Device, DeviceType),
    Mmio(Place, Identified),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Pci(device, _) => device.address.fmt(f),
            Way::Mmio(place, _) => place.fmt(f),
        }
    }
}

impl Found {
    /// The virtio device that a PCI function is, if it is one.
    #[must_use]
    pub fn pci(device: &pci::Device) -> Option<Found> {
        let kind = device_type(device)?;
        Some(Found(Way::Pci(device.clone(), kind)))
    }

    /// Looks at a place in memory; `None` if no device is plugged in there.
    ///
    /// # Errors
    /// [`VirtioError`]: the place is in RAM, or what is there is no device of virtio 1.
    pub fn mmio(place: Place) -> Result<Option<Found>, VirtioError> {
        let end = place.address.saturating_add(place.len as u64);
        if arch::is_ram(place.address, end) {
            return Err(VirtioError::InRam);
        }
        let registers = Mmio::map(place.address, place.len).ok_or(VirtioError::NoSpace)?;
        let device = Identified::new(registers)?;
        Ok(device.map(|device| Found(Way::Mmio(place, device))))
    }

    /// A PCI function, for tests of what is above its registers.
    #[cfg(test)]
    pub(super) fn fake(device: pci::Device) -> Found {
        Found(Way::Pci(device, DeviceType::Block))
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> DeviceType {
        match &self.0 {
            Way::Pci(_, kind) => *kind,
            Way::Mmio(_, device) => device.kind,
        }
    }

    /// Its registers and its interrupts, up to `sources`.
    pub(super) fn open(
        &self,
        name: &'static str,
        sources: usize,
    ) -> Result<(Registers, Irqs), VirtioError> {
        match &self.0 {
            Way::Pci(device, kind) => {
                device.enable();
                let registers = ModernPci::new(device, *kind)?;
                let irqs = device.interrupts(name, sources)?;
                Ok((Registers::Pci(registers), Irqs::Pci(irqs)))
            }
            Way::Mmio(place, device) => {
                let event = IrqEvent::wired(name, place.wire);
                let event = event.ok_or(VirtioError::NoWire(place.wire.gsi))?;
                let registers = ModernMmio::new(device.clone());
                Ok((Registers::Mmio(registers), Irqs::Wire(event)))
            }
        }
    }

    /// What memory it reaches, if its accesses go the way of a real device's.
    pub(super) fn reach(&self) -> Result<Reach, VirtioError> {
        match &self.0 {
            Way::Pci(device, _) => Ok(device.reach()?),
            // What remaps accesses is asked by the addresses of PCI functions.
            Way::Mmio(..) => Ok(Reach::ALL),
        }
    }

    /// Keeps it from memory for good. Whether that can be done.
    pub(super) fn cut_off(&self) -> bool {
        match &self.0 {
            Way::Pci(device, _) => {
                device.quiesce();
                true
            }
            Way::Mmio(..) => false,
        }
    }
}

/// The interrupts of a device.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each device, and most are on PCI"
)]
pub(super) enum Irqs {
    Pci(Interrupts),
    Wire(IrqEvent),
}

impl Irqs {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Irqs::Pci(irqs) => irqs.kind(),
            Irqs::Wire(_) => Kind::Wire,
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Irqs::Pci(irqs) => irqs.count(),
            Irqs::Wire(_) => 1,
        }
    }

    pub(super) fn event(&self, source: usize) -> &IrqEvent {
        match self {
            Irqs::Pci(irqs) => irqs.event(source),
            Irqs::Wire(event) => event,
        }
    }

    pub(super) fn set_cpu(&self, source: usize, cpu: usize) {
        if let Irqs::Pci(irqs) = self {
            irqs.set_cpu(source, cpu);
        }
    }
}
