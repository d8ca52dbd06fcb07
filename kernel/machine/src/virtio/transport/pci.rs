//! A virtio 1 device on PCI (virtio 1.2, 4.1).
//!
//! Written here instead of taken from `virtio-drivers`: theirs asks the device
//! for the address of a queue's doorbell at each notification, trusts it, and
//! waits for a reset without end.

use super::super::VirtioError;
use super::{Doorbell, Rings, read_field, write_field};
use crate::mmio::Mmio;
use crate::pci::{Capability, ConfigSpace, Device};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const VENDOR: u16 = 0x1af4;
const CAP_VENDOR: u8 = 0x09;

/// `cfg_type` of the capabilities (4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;

/// Offsets in the common configuration (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const CONFIG_VECTOR: usize = 0x10;
    pub(super) const DEVICE_STATUS: usize = 0x14;
    pub(super) const CONFIG_GENERATION: usize = 0x15;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_VECTOR: usize = 0x1a;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub(super) const QUEUE_DESC: usize = 0x20;
    pub(super) const QUEUE_DRIVER: usize = 0x28;
    pub(super) const QUEUE_DEVICE: usize = 0x30;
    pub(super) const LEN: usize = 0x38;
}

const NO_VECTOR: u16 = 0xffff;

/// Registers of a virtio device.
#[derive(Debug)]
pub(in super::super) struct ModernPci {
    kind: DeviceType,
    common: Mmio,
    notify: Mmio,
    notify_multiplier: usize,
    isr: Mmio,
    config: Option<Mmio>,
    pub(super) rings: Rings,
}

/// What virtio device `pci` is, transitional ones included (4.1.2.1).
pub(in super::super) fn device_type(pci: &Device) -> Option<DeviceType> {
    if pci.vendor != VENDOR {
        return None;
    }
    match pci.device {
        0x1000 => Some(DeviceType::Network),
        0x1001 => Some(DeviceType::Block),
        0x1003 => Some(DeviceType::Console),
        0x1005 => Some(DeviceType::EntropySource),
        id @ 0x1041..=0x107f => DeviceType::try_from(id - 0x1040).ok(),
        _ => None,
    }
}

/// A structure that a vendor capability points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    kind: u8,
    bar: u8,
    offset: usize,
    len: usize,
}

impl Place {
    fn read(config: &impl ConfigSpace, cap: Capability) -> Place {
        let [_, _, _, kind] = config.read(cap.offset).to_le_bytes();
        Place {
            kind,
            bar: config.read(cap.offset + 4) as u8,
            offset: config.read(cap.offset + 8) as usize,
            len: config.read(cap.offset + 12) as usize,
        }
    }
}

impl ModernPci {
    pub(in super::super) fn new(pci: &Device, kind: DeviceType) -> Result<ModernPci, VirtioError> {
        let config = pci.config();
        let find = |wanted: u8| {
            let vendor = pci.capabilities.iter().filter(|c| c.id == CAP_VENDOR);
            vendor
                .map(|c| (*c, Place::read(&config, *c)))
                .find(|(_, p)| p.kind == wanted && p.bar < 6)
        };
        let map = |p: Place| pci.map_bar(p.bar).ok()?.part(p.offset, p.len);
        let need = |wanted| -> Result<_, VirtioError> {
            let (cap, place) = find(wanted).ok_or(VirtioError::NotModern)?;
            Ok((cap, map(place).ok_or(VirtioError::NotModern)?))
        };
        let (_, common) = need(COMMON_CFG)?;
        let (notify_cap, notify) = need(NOTIFY_CFG)?;
        let (_, isr) = need(ISR_CFG)?;
        if common.len() < common::LEN || isr.is_empty() {
            return Err(VirtioError::NotModern);
        }
        Ok(ModernPci {
            kind,
            common,
            notify,
            notify_multiplier: config.read(notify_cap.offset + 16) as usize,
            isr,
            config: find(DEVICE_CFG).and_then(|(_, p)| map(p)),
            rings: Rings::default(),
        })
    }

    /// A device whose registers are plain memory, for tests.
    #[cfg(test)]
    pub(in super::super) fn fake(common: Mmio, notify: Mmio) -> ModernPci {
        ModernPci {
            kind: DeviceType::Block,
            isr: notify.clone(),
            common,
            notify,
            notify_multiplier: 2,
            config: None,
            rings: Rings::default(),
        }
    }

    fn select(&self, queue: u16) {
        self.common.write_u16(common::QUEUE_SELECT, queue);
    }

    /// The doorbell of `queue`; `None` if the device puts it outside its registers.
    pub(in super::super) fn doorbell(&self, queue: u16) -> Option<Doorbell> {
        self.select(queue);
        let index = usize::from(self.common.read_u16(common::QUEUE_NOTIFY_OFF));
        let offset = index.checked_mul(self.notify_multiplier)?;
        let register = self.notify.part(offset, 2)?;
        Some(Doorbell::narrow(register, queue))
    }

    /// Lets `queue` interrupt by entry `vector` of the MSI-X table. Whether the
    /// device took it.
    pub(in super::super) fn set_queue_vector(&mut self, queue: u16, vector: Option<u16>) -> bool {
        self.select(queue);
        self.set_vector(common::QUEUE_VECTOR, vector)
    }

    /// As [`ModernPci::set_queue_vector`], for changes of the configuration.
    pub(in super::super) fn set_config_vector(&mut self, vector: Option<u16>) -> bool {
        self.set_vector(common::CONFIG_VECTOR, vector)
    }

    fn set_vector(&mut self, register: usize, vector: Option<u16>) -> bool {
        let value = vector.unwrap_or(NO_VECTOR);
        self.common.write_u16(register, value);
        self.common.read_u16(register) == value
    }

    /// Writes a 64-bit field as the specification wants it: in halves.
    fn write_halves(&self, register: usize, value: u64) {
        self.common.write_u32(register, value as u32);
        self.common.write_u32(register + 4, (value >> 32) as u32);
    }
}

impl Transport for ModernPci {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        let c = &self.common;
        let half = |n: u32| {
            c.write_u32(common::DEVICE_FEATURE_SELECT, n);
            u64::from(c.read_u32(common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (n, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write_u32(common::DRIVER_FEATURE_SELECT, n);
            self.common.write_u32(common::DRIVER_FEATURE, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        u32::from(self.common.read_u16(common::QUEUE_SIZE))
    }

    fn notify(&mut self, queue: u16) {
        if let Some(doorbell) = self.doorbell(queue) {
            doorbell.ring();
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let status = self.common.read_u8(common::DEVICE_STATUS);
        DeviceStatus::from_bits_retain(status.into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.common
            .write_u8(common::DEVICE_STATUS, status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        let parts = [descriptors, driver_area, device_area];
        self.rings.lend(size as usize, parts);
        self.select(queue);
        self.common.write_u16(common::QUEUE_SIZE, size as u16);
        self.write_halves(common::QUEUE_DESC, descriptors);
        self.write_halves(common::QUEUE_DRIVER, driver_area);
        self.write_halves(common::QUEUE_DEVICE, device_area);
        self.common.write_u16(common::QUEUE_ENABLE, 1);
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.common.read_u16(common::QUEUE_ENABLE) == 1
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::from_bits_retain(self.isr.read_u8(0).into())
    }

    fn read_config_generation(&self) -> u32 {
        self.common.read_u8(common::CONFIG_GENERATION).into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let config = self.config.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        read_field(config, offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let config = self.config.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        write_field(config, offset, &value)
    }
}
