//! Bridges: which buses are behind them, under which name what comes from there goes on,
//! and whether it does
//! (PCI-to-PCI Bridge Architecture 1.2, 3.2.5; PCI Express to PCI/PCI-X Bridge 1.0, 2.3).

use super::capability;
use super::config::{BUSES, COMMAND, ConfigSpace, HEADER};
use super::{BUS_MASTER, Device, MEMORY_ENABLE, bridges};

/// How a bridge to conventional PCI names the accesses of the devices behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rename {
    /// By the bridge's own address.
    Own,
    /// By that, or by device 0 of the bus behind it.
    Behind,
}

const EXPRESS: u8 = 0x10;
/// Port type of a bridge from PCI Express to conventional PCI.
const TO_CONVENTIONAL: u32 = 7;

/// The first and the last bus behind a bridge, and how it renames; `None` if it is no
/// bridge between PCI buses.
pub(crate) fn behind(device: &Device) -> Option<(u8, u8, Option<Rename>)> {
    read(&device.config())
}

fn read(config: &impl ConfigSpace) -> Option<(u8, u8, Option<Rename>)> {
    if config.read(HEADER) >> 16 & 0x7f != 1 {
        return None;
    }
    let [_, first, last, _] = config.read(BUSES).to_le_bytes();
    let all = capability::read_all(config);
    let express = all.iter().find(|c| c.id == EXPRESS);
    let renames = match express.map(|c| config.read(c.offset) >> 20 & 0xf) {
        None => Some(Rename::Own),
        Some(TO_CONVENTIONAL) => Some(Rename::Behind),
        Some(_) => None,
    };
    Some((first, last, renames))
}

/// Has the bridges above the functions on `bus` pass on what those send, and what is
/// written to their memory: firmware may leave bridges closed behind which it uses
/// nothing.
pub(super) fn open_above(bus: u8) {
    for bridge in bridges() {
        if behind(bridge).is_some_and(|(first, last, _)| (first..=last).contains(&bus)) {
            open(&bridge.config());
        }
    }
}

/// What comes down the bridge is left alone where the firmware has set up no window: at
/// their values after a reset windows take in addresses of others.
fn open(config: &impl ConfigSpace) {
    /// Limit and base of the windows, in pieces of 1 MiB.
    const WINDOWS: [u16; 2] = [0x20, 0x24];
    let is_set_up = |window: u16| {
        let [base, limit] = [0, 16].map(|at| config.read(window) >> at & 0xfff0);
        base != 0 && base <= limit
    };
    let down = if WINDOWS.into_iter().any(is_set_up) {
        MEMORY_ENABLE
    } else {
        0
    };
    // The upper half is the status register, whose bits are cleared by ones.
    let command = config.read(COMMAND) & 0xffff;
    let wanted = command | BUS_MASTER | down;
    if command != wanted {
        config.write(COMMAND, wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::fake::Fake;
    use super::super::config::{CAPABILITIES, HAS_CAPABILITIES};
    use super::*;

    #[test]
    fn bridges_of_three_kinds() {
        let f = Fake::default();
        assert_eq!(read(&f), None);
        f.set(HEADER, 1 << 16);
        f.set(BUSES, 0x0005_0200);
        assert_eq!(read(&f), Some((2, 5, Some(Rename::Own))));
        f.set(COMMAND, HAS_CAPABILITIES);
        f.set(CAPABILITIES, 0x40);
        f.set(0x40, 0x0072_0010);
        assert_eq!(read(&f), Some((2, 5, Some(Rename::Behind))));
        f.set(0x40, 0x0042_0010);
        assert_eq!(read(&f), Some((2, 5, None)));
    }

    #[test]
    fn a_bridge_is_opened_as_far_as_it_was_set_up() {
        for (windows, opened) in [
            // After a reset, closed on purpose, and set up: one way and the other.
            ([0, 0], 4),
            ([0x0000_fff0, 0x0001_fff1], 4),
            ([0xfe90_fe80, 0x0001_fff1], 6),
            ([0x0000_fff0, 0xfeb1_fea1], 6),
            // One piece long.
            ([0xfe80_fe80, 0], 6),
        ] {
            let f = Fake::default();
            // Ports and errors stay as they were; of the status nothing is cleared.
            f.set(COMMAND, 0xf010_0101);
            f.set(0x20, windows[0]);
            f.set(0x24, windows[1]);
            open(&f);
            assert_eq!(f.read(COMMAND), 0x101 | opened, "{windows:x?}");
        }
        let f = Fake::default();
        f.set(COMMAND, 0xf010_0006);
        open(&f);
        assert_eq!(f.read(COMMAND), 0xf010_0006, "written without need");
    }
}
