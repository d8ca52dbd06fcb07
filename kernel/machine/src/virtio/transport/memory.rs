//! A virtio 1 device whose registers are memory (virtio 1.2, 4.2).
//!
//! Written here for the same reasons as the one on PCI ([`super::pci`]): the transport of
//! `virtio-drivers` panics where a driver reads the configuration unaligned, and waits
//! without end for a device to give up a queue.

use super::super::VirtioError;
use super::super::place::REGISTERS;
use super::{Doorbell, Rings, read_field, write_field};
use crate::mmio::Mmio;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Offsets of the registers (4.2.2, table 4.1).
mod register {
    pub(super) const MAGIC: usize = 0x00;
    pub(super) const VERSION: usize = 0x04;
    pub(super) const DEVICE_ID: usize = 0x08;
    pub(super) const DEVICE_FEATURES: usize = 0x10;
    pub(super) const DEVICE_FEATURES_SELECT: usize = 0x14;
    pub(super) const DRIVER_FEATURES: usize = 0x20;
    pub(super) const DRIVER_FEATURES_SELECT: usize = 0x24;
    pub(super) const QUEUE_SELECT: usize = 0x30;
    pub(super) const QUEUE_SIZE_MAX: usize = 0x34;
    pub(super) const QUEUE_SIZE: usize = 0x38;
    pub(super) const QUEUE_READY: usize = 0x44;
    pub(super) const QUEUE_NOTIFY: usize = 0x50;
    pub(super) const INTERRUPT_STATUS: usize = 0x60;
    pub(super) const INTERRUPT_ACK: usize = 0x64;
    pub(super) const STATUS: usize = 0x70;
    pub(super) const QUEUE_DESC: usize = 0x80;
    pub(super) const QUEUE_DRIVER: usize = 0x90;
    pub(super) const QUEUE_DEVICE: usize = 0xa0;
    pub(super) const CONFIG_GENERATION: usize = 0xfc;
}

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
/// Of devices from virtio 1 on; those of before have 1.
const MODERN: u32 = 2;

/// Registers of a virtio device.
#[derive(Clone, Debug)]
pub(in super::super) struct Identified {
    pub(in super::super) registers: Mmio,
    pub(in super::super) kind: DeviceType,
}

impl Identified {
    /// Looks what there is; `None` for a place that no device is plugged in.
    pub(in super::super) fn new(registers: Mmio) -> Result<Option<Identified>, VirtioError> {
        if registers.len() < REGISTERS || registers.read_u32(register::MAGIC) != MAGIC {
            return Err(VirtioError::NotVirtio);
        }
        let id = registers.read_u32(register::DEVICE_ID);
        if id == 0 {
            return Ok(None);
        }
        if registers.read_u32(register::VERSION) != MODERN {
            return Err(VirtioError::NotModern);
        }
        let kind = DeviceType::try_from(id).map_err(|_| VirtioError::UnknownKind(id))?;
        Ok(Some(Identified { registers, kind }))
    }
}

/// The same, in use.
#[derive(Debug)]
pub(in super::super) struct ModernMmio {
    device: Identified,
    config: Option<Mmio>,
    pub(super) rings: Rings,
}

impl ModernMmio {
    pub(in super::super) fn new(device: Identified) -> ModernMmio {
        let config_len = device.registers.len().saturating_sub(REGISTERS);
        ModernMmio {
            config: device.registers.part(REGISTERS, config_len),
            device,
            rings: Rings::default(),
        }
    }

    fn read(&self, register: usize) -> u32 {
        self.device.registers.read_u32(register)
    }

    fn write(&self, register: usize, value: u32) {
        self.device.registers.write_u32(register, value);
    }

    fn select(&self, queue: u16) {
        self.write(register::QUEUE_SELECT, queue.into());
    }

    pub(super) fn doorbell(&self, queue: u16) -> Option<Doorbell> {
        let register = self.device.registers.part(register::QUEUE_NOTIFY, 4)?;
        Some(Doorbell {
            register,
            queue,
            is_wide: true,
        })
    }

    fn write_halves(&self, register: usize, value: u64) {
        self.write(register, value as u32);
        self.write(register + 4, (value >> 32) as u32);
    }
}

impl Transport for ModernMmio {
    fn device_type(&self) -> DeviceType {
        self.device.kind
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |n: u32| {
            self.write(register::DEVICE_FEATURES_SELECT, n);
            u64::from(self.read(register::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (n, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(register::DRIVER_FEATURES_SELECT, n);
            self.write(register::DRIVER_FEATURES, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.read(register::QUEUE_SIZE_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.write(register::QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.read(register::STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(register::STATUS, status.bits());
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
        self.write(register::QUEUE_SIZE, size);
        self.write_halves(register::QUEUE_DESC, descriptors);
        self.write_halves(register::QUEUE_DRIVER, driver_area);
        self.write_halves(register::QUEUE_DEVICE, device_area);
        self.write(register::QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.read(register::QUEUE_READY) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(register::INTERRUPT_STATUS);
        if status != 0 {
            self.write(register::INTERRUPT_ACK, status);
        }
        InterruptStatus::from_bits_retain(status)
    }

    fn read_config_generation(&self) -> u32 {
        self.read(register::CONFIG_GENERATION)
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

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    use std::boxed::Box;

    /// Registers that are plain memory: what is written can be read.
    fn registers() -> Mmio {
        let memory = NonNull::from(Box::leak(Box::new([0u64; 64]))).cast();
        // SAFETY: leaked, and reached through this and its copies alone.
        let m = unsafe { Mmio::over(memory, 512) };
        m.write_u32(register::MAGIC, MAGIC);
        m.write_u32(register::VERSION, MODERN);
        m.write_u32(register::DEVICE_ID, 2);
        m
    }

    #[test]
    fn only_devices_of_virtio_1_are_taken() {
        let m = registers();
        let found = Identified::new(m.clone()).unwrap().unwrap();
        assert_eq!(found.kind, DeviceType::Block);
        let refused = |m: &Mmio| Identified::new(m.clone()).err();
        m.write_u32(register::VERSION, 1);
        assert_eq!(refused(&m), Some(VirtioError::NotModern));
        m.write_u32(register::VERSION, MODERN);
        m.write_u32(register::DEVICE_ID, 0xffff);
        assert_eq!(refused(&m), Some(VirtioError::UnknownKind(0xffff)));
        m.write_u32(register::DEVICE_ID, 0);
        assert!(Identified::new(m.clone()).unwrap().is_none());
        m.write_u32(register::MAGIC, u32::MAX);
        assert_eq!(refused(&m), Some(VirtioError::NotVirtio));
        let short = m.part(0, 0xfc).unwrap();
        assert_eq!(refused(&short), Some(VirtioError::NotVirtio));
    }

    #[test]
    fn a_queue_is_set_up_and_rung_by_number() {
        let m = registers();
        let device = Identified::new(m.clone()).unwrap().unwrap();
        let mut t = ModernMmio::new(device);
        t.queue_set(3, 8, 0x1_2345_6000, 0x1_2345_7000, 0x1_2345_8000);
        let words = [0x30, 0x38, 0x80, 0x84, 0x90, 0xa0, 0xa4, 0x44].map(|r| m.read_u32(r));
        let expected = [3, 8, 0x2345_6000, 1, 0x2345_7000, 0x2345_8000, 1, 1];
        assert_eq!(words, expected);
        assert!(t.queue_used(3));
        t.doorbell(3).unwrap().ring();
        assert_eq!(m.read_u32(register::QUEUE_NOTIFY), 3);
    }

    #[test]
    fn interrupts_are_acknowledged_as_they_are() {
        let m = registers();
        let mut t = ModernMmio::new(Identified::new(m.clone()).unwrap().unwrap());
        assert!(t.ack_interrupt().is_empty());
        m.write_u32(register::INTERRUPT_STATUS, 0b11);
        t.ack_interrupt();
        assert_eq!(m.read_u32(register::INTERRUPT_ACK), 0b11);
        m.write_u32(0x104, 0xabcd_0123);
        assert_eq!(t.read_config_space::<u16>(6), Ok(0xabcd));
        assert!(t.read_config_space::<u32>(0xfe).is_err());
        m.write_u32(register::CONFIG_GENERATION, 7);
        assert_eq!(t.read_config_generation(), 7);
    }
}
