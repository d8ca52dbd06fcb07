//! How the registers of a virtio device are reached, and what both ways have in common.

mod memory;
mod pci;

pub(super) use memory::{Identified, ModernMmio};
pub(super) use pci::{ModernPci, device_type};

use crate::error::AllocError;
use crate::iommu::{Reach, pages};
use crate::mmio::Mmio;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Registers of a virtio device.
#[derive(Debug)]
pub(super) enum Registers {
    /// Behind the BARs of a PCI function.
    Pci(ModernPci),
    /// In memory, where the machine has put them.
    Mmio(ModernMmio),
}

/// Does the same with whichever it is.
macro_rules! either {
    ($self:expr, $t:ident => $do:expr) => {
        match $self {
            Registers::Pci($t) => $do,
            Registers::Mmio($t) => $do,
        }
    };
}

/// The memory of the queue that was set up last.
#[derive(Debug, Default)]
pub(super) struct Rings {
    reach: Reach,
    lent: Option<Result<Lent, AllocError>>,
}

/// The three parts of a queue's rings: addresses and lengths.
pub(super) type Lent = [(u64, usize); 3];

impl Rings {
    /// Lets the device reach the rings of `size` entries at these addresses.
    fn lend(&mut self, size: usize, at: [PhysAddr; 3]) {
        // Their lengths as in 2.7 of the specification.
        let lengths = [16 * size, 6 + 2 * size, 6 + 8 * size];
        let [a, b, c] = at;
        let [x, y, z] = lengths;
        let parts = [(a, x), (b, y), (c, z)];
        let all = parts.iter().flat_map(|(at, len)| pages(*at, *len));
        self.lent = Some(self.reach.lend(all, None).map(|()| parts));
    }
}

/// Where a queue is told that it has work.
#[derive(Debug)]
pub(super) struct Doorbell {
    register: Mmio,
    queue: u16,
    /// The register has 32 bits, not 16.
    is_wide: bool,
}

impl Doorbell {
    fn narrow(register: Mmio, queue: u16) -> Doorbell {
        Doorbell {
            register,
            queue,
            is_wide: false,
        }
    }

    #[inline]
    pub(super) fn ring(&self) {
        if self.is_wide {
            self.register.write_u32(0, self.queue.into());
        } else {
            self.register.write_u16(0, self.queue);
        }
    }
}

impl Registers {
    fn rings(&mut self) -> &mut Rings {
        either!(self, t => &mut t.rings)
    }

    /// What the device reaches from now on. It has no queue yet.
    pub(super) fn set_reach(&mut self, reach: Reach) {
        self.rings().reach = reach;
    }

    /// The rings of the queue that was set up last, which the device reaches from then on.
    ///
    /// # Errors
    /// It does not reach them: no memory.
    pub(super) fn take_rings(&mut self) -> Result<Lent, AllocError> {
        self.rings().lent.take().ok_or(AllocError::OutOfMemory)?
    }

    /// The doorbell of `queue`; `None` if the device puts it outside its registers.
    pub(super) fn doorbell(&self, queue: u16) -> Option<Doorbell> {
        either!(self, t => t.doorbell(queue))
    }

    /// Lets `queue` interrupt by entry `vector` of the MSI-X table. Whether the
    /// device took it.
    pub(super) fn set_queue_vector(&mut self, queue: u16, vector: Option<u16>) -> bool {
        match self {
            Registers::Pci(t) => t.set_queue_vector(queue, vector),
            Registers::Mmio(_) => vector.is_none(),
        }
    }

    /// As [`Registers::set_queue_vector`], for changes of the configuration.
    pub(super) fn set_config_vector(&mut self, vector: Option<u16>) -> bool {
        match self {
            Registers::Pci(t) => t.set_config_vector(vector),
            Registers::Mmio(_) => vector.is_none(),
        }
    }
}

/// Reads a field of the configuration by an access of its own width, if it is aligned to
/// it (4.1.3.1, 4.2.2.2).
fn read_field<T: FromBytes + IntoBytes>(config: &Mmio, offset: usize) -> Result<T, Error> {
    let size = size_of::<T>();
    let end = offset.checked_add(size);
    if end.is_none_or(|end| end > config.len()) {
        return Err(Error::ConfigSpaceTooSmall);
    }
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    match size {
        2 => bytes.copy_from_slice(&config.read_u16(offset).to_le_bytes()),
        4 => bytes.copy_from_slice(&config.read_u32(offset).to_le_bytes()),
        _ => {
            for (i, b) in bytes.iter_mut().enumerate() {
                *b = config.read_u8(offset + i);
            }
        }
    }
    Ok(value)
}

/// Writes a field of the configuration, likewise.
fn write_field<T: IntoBytes + Immutable>(
    config: &Mmio,
    offset: usize,
    value: &T,
) -> Result<(), Error> {
    let bytes = value.as_bytes();
    let end = offset.checked_add(bytes.len());
    if end.is_none_or(|end| end > config.len()) {
        return Err(Error::ConfigSpaceTooSmall);
    }
    match *bytes {
        [a, b] => config.write_u16(offset, u16::from_le_bytes([a, b])),
        [a, b, c, d] => config.write_u32(offset, u32::from_le_bytes([a, b, c, d])),
        _ => {
            for (i, b) in bytes.iter().enumerate() {
                config.write_u8(offset + i, *b);
            }
        }
    }
    Ok(())
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        either!(self, t => t.device_type())
    }

    fn read_device_features(&mut self) -> u64 {
        either!(self, t => t.read_device_features())
    }

    fn write_driver_features(&mut self, features: u64) {
        either!(self, t => t.write_driver_features(features));
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        either!(self, t => t.max_queue_size(queue))
    }

    fn notify(&mut self, queue: u16) {
        either!(self, t => t.notify(queue));
    }

    fn get_status(&self) -> DeviceStatus {
        either!(self, t => t.get_status())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        either!(self, t => t.set_status(status));
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
        either!(self, t => t.queue_set(queue, size, descriptors, driver_area, device_area));
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        either!(self, t => t.queue_used(queue))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        either!(self, t => t.ack_interrupt())
    }

    fn read_config_generation(&self) -> u32 {
        either!(self, t => t.read_config_generation())
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        either!(self, t => t.read_config_space(offset))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        either!(self, t => t.write_config_space(offset, value))
    }
}
