//! What a driver needs of the bus its device is on, as a trait, so that a fake device
//! that misbehaves can stand in for it in tests.

use crate::iommu::Reach;
use crate::irq::IrqEvent;
use crate::mmio::Mmio;
use crate::pci::{self, ConfigSpace, Interrupts, Kind, PciError};

/// A device on its bus: registers, interrupts, and whether it reaches memory.
pub trait Bus: Send + Sync + 'static {
    /// Reads a register; all ones if it is outside, or if the device is gone.
    fn read_u32(&self, offset: usize) -> u32;

    /// Writes a register, unless it is outside.
    fn write_u32(&self, offset: usize, value: u32);

    /// How many interrupts there are, at least one.
    fn interrupts(&self) -> usize;

    /// Interrupt `index`; the last one if there are fewer.
    fn interrupt(&self, index: usize) -> &IrqEvent;

    /// Sends interrupt `index` to CPU `cpu` from now on, if it can be chosen.
    fn set_cpu(&self, index: usize, cpu: usize);

    /// Whether the interrupts come by a wire: then [`IrqEvent::rearm`] is due after
    /// each.
    fn is_wired(&self) -> bool;

    /// Lets the device reach memory, or keeps it from doing so, whatever state it is
    /// in. What it was told of may be used again once this is off.
    fn set_master(&self, on: bool);

    /// Whether anything answers at its address.
    fn is_present(&self) -> bool;

    /// What memory the device reaches.
    fn reach(&self) -> Reach {
        Reach::ALL
    }
}

/// A PCI function in the hands of its driver, which uses one of its memory BARs.
#[derive(Debug)]
pub struct PciBus {
    device: pci::Device,
    registers: Mmio,
    interrupts: Interrupts,
    reach: Reach,
}

impl PciBus {
    /// Takes `device` into use: its registers behind BAR `bar`, and up to `wanted`
    /// interrupts.
    ///
    /// # Errors
    /// [`PciError`].
    pub fn open(
        device: &pci::Device,
        bar: u8,
        name: &'static str,
        wanted: usize,
    ) -> Result<PciBus, PciError> {
        let registers = device.map_bar(bar)?;
        // Not before is it let at memory.
        let reach = device.reach()?;
        device.enable();
        Ok(PciBus {
            registers,
            interrupts: device.interrupts(name, wanted)?,
            device: device.clone(),
            reach,
        })
    }

    /// The function.
    #[must_use]
    pub fn device(&self) -> &pci::Device {
        &self.device
    }

    /// How its interrupts come.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.interrupts.kind()
    }
}

impl Bus for PciBus {
    fn read_u32(&self, offset: usize) -> u32 {
        self.registers.read_u32(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.registers.write_u32(offset, value);
    }

    fn interrupts(&self) -> usize {
        self.interrupts.count()
    }

    fn interrupt(&self, index: usize) -> &IrqEvent {
        self.interrupts.event(index)
    }

    fn set_cpu(&self, index: usize, cpu: usize) {
        self.interrupts.set_cpu(index, cpu);
    }

    fn is_wired(&self) -> bool {
        self.interrupts.kind() == Kind::Wire
    }

    fn set_master(&self, on: bool) {
        self.device.set_master(on);
    }

    fn is_present(&self) -> bool {
        let id = self.device.config().read(0);
        id & 0xffff == u32::from(self.device.vendor)
    }

    fn reach(&self) -> Reach {
        self.reach
    }
}
