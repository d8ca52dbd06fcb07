//! Bridges: which buses are behind them, and under which name what comes from there goes on
//! (PCI-to-PCI Bridge Architecture 1.2, 3.2.5; PCI Express to PCI/PCI-X Bridge 1.0, 2.3).

use super::Device;
use super::capability;
use super::config::{BUSES, ConfigSpace, HEADER};

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

#[cfg(test)]
mod tests {
    use super::super::config::fake::Fake;
    use super::super::config::{CAPABILITIES, COMMAND, HAS_CAPABILITIES};
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
}
