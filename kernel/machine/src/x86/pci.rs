//! Access to PCI configuration space.
//!
//! The first 256 bytes of a function are reached through the ports 0xcf8 and
//! 0xcfc, the rest, and all on a machine without these ports, through memory
//! (ECAM): a bus takes a mapping of 1 MiB there, which most never need.

use super::{acpi, kmap, port};
use crate::pci::Address;
use crate::sync::{IrqLock, Once};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

const BUS_LEN: usize = 1 << 20;
/// What the ports reach of a function.
const PORT_SPACE: u16 = 0x100;

/// The configuration space of each bus in memory, once it was used.
static BUSES: [AtomicPtr<u8>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];
static PORTS: IrqLock<()> = IrqLock::new(());

/// Reads a register; all ones if nothing answers.
pub(crate) fn pci_read(at: Address, offset: u16) -> u32 {
    if offset < PORT_SPACE && has_ports() {
        return port_read(at, offset);
    }
    match register(at, offset) {
        // SAFETY: configuration space of the bus, mapped for ever; reads of it
        // have no effect on memory.
        Some(p) => unsafe { p.read_volatile() },
        None => u32::MAX,
    }
}

/// Writes a register.
pub(crate) fn pci_write(at: Address, offset: u16, value: u32) {
    if offset < PORT_SPACE && has_ports() {
        port_write(at, offset, value);
    } else if let Some(p) = register(at, offset) {
        // SAFETY: as in `pci_read`; drivers write what their device's
        // specification says, through this room's checked types.
        unsafe { p.write_volatile(value) };
    }
}

/// Reads `len` bytes, 1 or 2, at `offset`: some devices answer to the width that
/// their specification names only.
pub(crate) fn pci_read_part(at: Address, offset: u16, len: u8) -> u32 {
    if offset < PORT_SPACE && has_ports() {
        let _alone = PORTS.lock();
        // SAFETY: the host bridge's ports.
        return unsafe {
            port::write_u32(0xcf8, port_address(at, offset));
            match len {
                1 => port::read_u8(0xcfc + (offset & 3)).into(),
                _ => port::read_u16(0xcfc + (offset & 2)).into(),
            }
        };
    }
    match register(at, offset & 0xffc) {
        // SAFETY: as in `pci_read`; the part lies inside of the register.
        Some(p) => unsafe {
            let part = p.cast::<u8>().add(usize::from(offset & 3));
            match len {
                1 => part.read_volatile().into(),
                _ => part
                    .map_addr(|a| a & !1)
                    .cast::<u16>()
                    .read_volatile()
                    .into(),
            }
        },
        None => u32::MAX,
    }
}

/// Writes `len` bytes, 1 or 2.
pub(crate) fn pci_write_part(at: Address, offset: u16, len: u8, value: u32) {
    if offset < PORT_SPACE && has_ports() {
        let _alone = PORTS.lock();
        // SAFETY: the host bridge's ports.
        unsafe {
            port::write_u32(0xcf8, port_address(at, offset));
            match len {
                1 => port::write_u8(0xcfc + (offset & 3), value as u8),
                _ => port::write_u16(0xcfc + (offset & 2), value as u16),
            }
        }
    } else if let Some(p) = register(at, offset & 0xffc) {
        // SAFETY: as in `pci_write`; the part lies inside of the register.
        unsafe {
            let part = p.cast::<u8>().add(usize::from(offset & 3));
            match len {
                1 => part.write_volatile(value as u8),
                _ => part
                    .map_addr(|a| a & !1)
                    .cast::<u16>()
                    .write_volatile(value as u16),
            }
        }
    }
}

/// Whether a host bridge answers at the ports: its address register keeps what is
/// written to it.
fn has_ports() -> bool {
    static FOUND: Once<bool> = Once::new();
    *FOUND.call_once(|| {
        let _alone = PORTS.lock();
        let probe = 1 << 31;
        // SAFETY: the host bridge's ports; on other machines nobody's.
        unsafe {
            port::write_u32(0xcf8, probe);
            port::read_u32(0xcf8) == probe
        }
    })
}

fn port_read(at: Address, offset: u16) -> u32 {
    let _alone = PORTS.lock();
    // SAFETY: the host bridge's ports.
    unsafe {
        port::write_u32(0xcf8, port_address(at, offset));
        port::read_u32(0xcfc)
    }
}

fn port_write(at: Address, offset: u16, value: u32) {
    let _alone = PORTS.lock();
    // SAFETY: the host bridge's ports.
    unsafe {
        port::write_u32(0xcf8, port_address(at, offset));
        port::write_u32(0xcfc, value);
    }
}

fn port_address(at: Address, offset: u16) -> u32 {
    1 << 31
        | u32::from(at.bus) << 16
        | u32::from(at.device & 31) << 11
        | u32::from(at.function & 7) << 8
        | u32::from(offset & 0xfc)
}

/// The register in memory, if this machine has it there.
fn register(at: Address, offset: u16) -> Option<*mut u32> {
    let mut bus = BUSES[usize::from(at.bus)].load(Relaxed);
    if bus.is_null() {
        bus = map_bus(at.bus)?;
    }
    let place = usize::from(at.device & 31) << 15
        | usize::from(at.function & 7) << 12
        | usize::from(offset & 0xffc);
    // SAFETY: `place` is below `BUS_LEN`.
    Some(unsafe { bus.add(place) }.cast())
}

fn map_bus(bus: u8) -> Option<*mut u8> {
    let start = ecam_start(bus)?;
    let mapped = kmap::map_mmio(start, BUS_LEN)?.as_ptr();
    BUSES[usize::from(bus)].store(mapped, Relaxed);
    Some(mapped)
}

/// Physical address of the configuration space of `bus`.
fn ecam_start(bus: u8) -> Option<usize> {
    let ecam = acpi::tables()
        .ecam
        .iter()
        .find(|e| e.segment == 0 && (e.bus_first..=e.bus_last).contains(&bus))?;
    // The table's address is that of bus 0, wherever the range starts.
    Some(usize::try_from(ecam.phys).ok()? + (usize::from(bus) << 20))
}
