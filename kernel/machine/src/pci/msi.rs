//! Interrupts of PCI devices: MSI-X, else MSI, else the wire.

use super::config::{ConfigSpace, INTERRUPT};
use super::{Device, INTX_DISABLE, PciError};
use crate::irq::{IrqEvent, Message};
use crate::mmio::Mmio;
use alloc::vec::Vec;

const CAP_MSI: u8 = 0x05;
const CAP_MSIX: u8 = 0x11;

/// How a device's interrupts come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By messages, each source with its own.
    MsiX,
    /// By one message.
    Msi,
    /// By a wire, perhaps shared: call [`IrqEvent::rearm`] after the device has
    /// been looked after.
    Wire,
}

/// The interrupts a driver got for its device. Dropping them turns them off.
#[derive(Debug)]
pub struct Interrupts {
    device: Device,
    kind: Kind,
    table: Option<Mmio>,
    events: Vec<IrqEvent>,
}

impl Interrupts {
    /// How they come.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many: as many as were asked for with MSI-X, else one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// Interrupt `index`; the last one if there are fewer.
    #[must_use]
    pub fn event(&self, index: usize) -> &IrqEvent {
        &self.events[index.min(self.events.len() - 1)]
    }

    /// Sends interrupt `index` to CPU `cpu` from now on. A single message and a
    /// wire stay where they are.
    pub fn set_cpu(&self, index: usize, cpu: usize) {
        if let (Some(table), Some(event)) = (&self.table, self.events.get(index)) {
            write_entry(table, index, event.message(cpu));
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        let config = self.device.config();
        match self.kind {
            Kind::MsiX => {
                if let Some(c) = self.device.capability(CAP_MSIX) {
                    let control = config.read(c.offset) & !(MSIX_ENABLE | MSIX_MASK_ALL);
                    config.write(c.offset, control);
                }
            }
            Kind::Msi => {
                if let Some(c) = self.device.capability(CAP_MSI) {
                    config.write(c.offset, config.read(c.offset) & !MSI_ENABLE);
                }
            }
            Kind::Wire => self.device.command(0, INTX_DISABLE),
        }
    }
}

impl Device {
    /// Turns on up to `wanted` interrupts (at least one), all to the first CPU.
    ///
    /// # Errors
    /// [`PciError::NoInterrupt`].
    pub fn interrupts(&self, name: &'static str, wanted: usize) -> Result<Interrupts, PciError> {
        let wanted = wanted.max(1);
        self.msix(name, wanted)
            .or_else(|| self.msi(name))
            .or_else(|| self.wire(name))
            .ok_or(PciError::NoInterrupt)
    }

    fn got(&self, kind: Kind, table: Option<Mmio>, events: Vec<IrqEvent>) -> Interrupts {
        Interrupts {
            device: self.clone(),
            kind,
            table,
            events,
        }
    }

    fn msix(&self, name: &'static str, wanted: usize) -> Option<Interrupts> {
        let cap = self.capability(CAP_MSIX)?.offset;
        let config = self.config();
        let control = config.read(cap);
        let entries = usize::from((control >> 16) as u16 & 0x7ff) + 1;
        let place = TablePlace::decode(config.read(cap + 4));
        let table = self
            .map_bar(place.bar)
            .ok()?
            .part(place.offset, entries * ENTRY_LEN)?;
        let mut events = Vec::new();
        for index in 0..wanted.min(entries) {
            let event = IrqEvent::new(name)?;
            write_entry(&table, index, event.message(0));
            events.push(event);
        }
        self.command(0, INTX_DISABLE);
        config.write(cap, control & !MSIX_MASK_ALL | MSIX_ENABLE);
        Some(self.got(Kind::MsiX, Some(table), events))
    }

    fn msi(&self, name: &'static str) -> Option<Interrupts> {
        let cap = self.capability(CAP_MSI)?.offset;
        let config = self.config();
        let event = IrqEvent::new(name)?;
        write_msi(&config, cap, event.message(0));
        self.command(0, INTX_DISABLE);
        Some(self.got(Kind::Msi, None, Vec::from([event])))
    }

    fn wire(&self, name: &'static str) -> Option<Interrupts> {
        let [line, pin, ..] = config_bytes(self.config().read(INTERRUPT));
        // Which wire a pin leads to is in AML; the firmware left the ISA interrupt
        // it routed the pin to. 0 and 255 mean none.
        if pin == 0 || line == 0 || line >= 16 {
            return None;
        }
        let event = IrqEvent::line(name, line)?;
        self.command(INTX_DISABLE, 0);
        Some(self.got(Kind::Wire, None, Vec::from([event])))
    }
}

fn config_bytes(word: u32) -> [u8; 4] {
    word.to_le_bytes()
}

/// In the first word of the capability, whose upper half is message control.
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK_ALL: u32 = 1 << 30;
const MSI_ENABLE: u32 = 1 << 16;
const MSI_MULTIPLE: u32 = 0b111 << 20;
const MSI_WIDE: u32 = 1 << 23;
const ENTRY_LEN: usize = 16;

/// Where a device keeps its MSI-X table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TablePlace {
    bar: u8,
    offset: usize,
}

impl TablePlace {
    fn decode(word: u32) -> TablePlace {
        TablePlace {
            bar: (word & 7) as u8,
            offset: (word & !7) as usize,
        }
    }
}

/// Writes entry `index` of an MSI-X table, unmasked. It is masked meanwhile, as a
/// change of an unmasked entry has no defined effect.
fn write_entry(table: &Mmio, index: usize, m: Message) {
    const MASKED: u32 = 1;
    let at = index * ENTRY_LEN;
    table.write_u32(at + 12, MASKED);
    table.write_u32(at, m.address as u32);
    table.write_u32(at + 4, (m.address >> 32) as u32);
    table.write_u32(at + 8, m.data);
    table.write_u32(at + 12, 0);
}

/// Sets up one message and turns it on.
fn write_msi(config: &impl ConfigSpace, cap: u16, m: Message) {
    let control = config.read(cap) & !(MSI_ENABLE | MSI_MULTIPLE);
    config.write(cap, control);
    config.write(cap + 4, m.address as u32);
    let data = if control & MSI_WIDE != 0 {
        config.write(cap + 8, (m.address >> 32) as u32);
        cap + 12
    } else {
        cap + 8
    };
    let rest = config.read(data) & 0xffff_0000;
    config.write(data, rest | m.data & 0xffff);
    config.write(cap, control | MSI_ENABLE);
}

#[cfg(test)]
mod tests {
    use super::super::config::fake::Fake;
    use super::*;
    use core::ptr::NonNull;
    use std::boxed::Box;

    #[test]
    fn an_msix_entry() {
        let memory = NonNull::from(Box::leak(Box::new([0u64; 8]))).cast();
        // SAFETY: leaked, and reached through this alone.
        let table = unsafe { Mmio::over(memory, 64) };
        write_entry(&table, 1, Message::new(2, 0x51));
        let words: Vec<u32> = (0..4).map(|i| table.read_u32(16 + 4 * i)).collect();
        assert_eq!(words, [0xfee0_2000, 0, 0x51, 0]);
        // Outside of the table: nothing happens.
        write_entry(&table, 4, Message::new(2, 0x51));
    }

    #[test]
    fn table_place() {
        let place = TablePlace::decode(0x2004);
        assert_eq!((place.bar, place.offset), (4, 0x2000));
    }

    #[test]
    fn narrow_and_wide_msi() {
        for (control, data_at) in [(0x0000_7005, 0x58), (0x0080_7005, 0x5c)] {
            let f = Fake::default();
            f.set(0x50, control | 0b001 << 20);
            write_msi(&f, 0x50, Message::new(0, 0x40));
            assert_eq!(f.read(0x50), control | MSI_ENABLE);
            assert_eq!(f.read(0x54), 0xfee0_0000);
            assert_eq!(f.read(data_at), 0x40);
        }
    }
}
