//! Access to PCI configuration space: through memory where the firmware says it
//! is there (ECAM), else through the ports 0xcf8 and 0xcfc.

use super::{acpi, kmap, port};
use crate::pci::Address;
use crate::sync::{IrqLock, Once};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

const BUS_LEN: usize = 1 << 20;

/// The configuration space of each bus in memory, once it was used.
static BUSES: [AtomicPtr<u8>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];
static PORTS: IrqLock<()> = IrqLock::new(());

/// Reads a register.
pub(crate) fn pci_read(at: Address, offset: u16) -> u32 {
    match register(at, offset) {
        // SAFETY: configuration space of the bus, mapped for ever; reads of it
        // have no effect on memory.
        Some(p) => unsafe { p.read_volatile() },
        None => port_read(at, offset),
    }
}

/// Writes a register.
pub(crate) fn pci_write(at: Address, offset: u16, value: u32) {
    match register(at, offset) {
        // SAFETY: as in `pci_read`; drivers write what their device's
        // specification says, through this room's checked types.
        Some(p) => unsafe { p.write_volatile(value) },
        None => port_write(at, offset, value),
    }
}

/// The ports reach only the first 256 bytes of a function.
const PORT_SPACE: u16 = 0x100;

fn port_read(at: Address, offset: u16) -> u32 {
    if offset >= PORT_SPACE {
        return u32::MAX;
    }
    let _alone = PORTS.lock();
    // SAFETY: the host bridge's ports.
    unsafe {
        port::write_u32(0xcf8, port_address(at, offset));
        port::read_u32(0xcfc)
    }
}

fn port_write(at: Address, offset: u16, value: u32) {
    if offset >= PORT_SPACE {
        return;
    }
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
    static TRUSTED: Once<bool> = Once::new();
    let ecam = acpi::tables()
        .ecam
        .iter()
        .find(|e| e.segment == 0 && (e.bus_first..=e.bus_last).contains(&bus))?;
    // The table's address is that of bus 0, wherever the range starts.
    let start = usize::try_from(ecam.phys).ok()? + (usize::from(bus) << 20);
    if bus == 0 && TRUSTED.get().is_none() {
        TRUSTED.call_once(|| agrees_with_ports(start));
    }
    TRUSTED.get().copied().unwrap_or(false).then_some(start)
}

/// Whether the memory at `start` shows the same first device as the ports do.
fn agrees_with_ports(start: usize) -> bool {
    let first = Address {
        bus: 0,
        device: 0,
        function: 0,
    };
    let Some(page) = kmap::map_mmio(start, 4096) else {
        return false;
    };
    // SAFETY: the page was just mapped; reading an ID changes nothing.
    let id = unsafe { page.cast::<u32>().as_ptr().read_volatile() };
    let same = id == port_read(first, 0);
    if !same {
        log::warn!("PCI: configuration space in memory shows {id:#x}: using ports");
    }
    same
}
