//! Finding the devices.

use super::config::{BUSES, CLASS, ConfigSpace, Function, HEADER, ID, SUBSYSTEM};
use super::{Address, Device, bar, capability};
use crate::sync::Once;
use alloc::vec::Vec;

const MULTI_FUNCTION: u32 = 1 << 23;
const CLASS_BRIDGE: u8 = 0x06;
const SUBCLASS_PCI_BRIDGE: u8 = 0x04;

/// All devices of the machine, bridges aside, in the order of their addresses.
/// The first call walks the buses.
pub fn devices() -> &'static [Device] {
    &all().devices
}

/// The bridges in the order of their addresses. Of their registers nothing is told
/// but who they are.
pub fn bridges() -> &'static [Device] {
    &all().bridges
}

#[derive(Default)]
struct Found {
    devices: Vec<Device>,
    bridges: Vec<Device>,
}

fn all() -> &'static Found {
    static ALL: Once<Found> = Once::new();
    ALL.call_once(scan)
}

fn scan() -> Found {
    let mut seen = [false; 256];
    let mut found = Found::default();
    visit(0, &mut seen, &mut found);
    // Further host bridges start buses that no bridge leads to; every one of them
    // has a device 0.
    for bus in 1..=255u8 {
        let address = Address {
            bus,
            device: 0,
            function: 0,
        };
        if !seen[usize::from(bus)] && exists(&Function(address)) {
            visit(bus, &mut seen, &mut found);
        }
    }
    found.devices.sort_by_key(|d| d.address);
    found.bridges.sort_by_key(|d| d.address);
    found
}

fn exists(config: &impl ConfigSpace) -> bool {
    !matches!(config.read(ID) & 0xffff, 0xffff | 0)
}

/// Walks `first` and the buses behind its bridges.
fn visit(first: u8, seen: &mut [bool; 256], found: &mut Found) {
    let mut waiting = Vec::from([first]);
    while let Some(bus) = waiting.pop() {
        if core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for device in 0..32 {
            let at = |function| Address {
                bus,
                device,
                function,
            };
            let config = Function(at(0));
            if !exists(&config) {
                continue;
            }
            let functions = if config.read(HEADER) & MULTI_FUNCTION != 0 {
                8
            } else {
                1
            };
            for function in 0..functions {
                if let Some(behind) = look(at(function), found) {
                    waiting.push(behind);
                }
            }
        }
    }
}

/// Notes the device at `address`; of a bridge, gives the bus behind it.
fn look(address: Address, found: &mut Found) -> Option<u8> {
    let config = Function(address);
    if !exists(&config) {
        return None;
    }
    let mut device = identify(address);
    let header = (config.read(HEADER) >> 16 & 0x7f) as u8;
    if device.class == CLASS_BRIDGE {
        let is_bridge = device.subclass == SUBCLASS_PCI_BRIDGE && header == 1;
        if header != 0 {
            // The register is another one there.
            device.subsystem = (0, 0);
        }
        found.bridges.push(device);
        return is_bridge.then(|| (config.read(BUSES) >> 8) as u8);
    }
    if header != 0 {
        return None;
    }
    device.bars = bar::read_all(&config);
    device.capabilities = capability::read_all(&config);
    found.devices.push(device);
    None
}

/// Who the function at `address` is, without its registers.
fn identify(address: Address) -> Device {
    let config = Function(address);
    let [revision, interface, subclass, class] = config.read(CLASS).to_le_bytes();
    let id = config.read(ID);
    let subsystem = config.read(SUBSYSTEM);
    Device {
        address,
        vendor: id as u16,
        device: (id >> 16) as u16,
        class,
        subclass,
        interface,
        revision,
        subsystem: (subsystem as u16, (subsystem >> 16) as u16),
        bars: [None; 6],
        capabilities: Vec::new(),
    }
}
