//! Base address registers.

use super::config::{BAR_0, COMMAND, ConfigSpace};

/// A range of registers a device answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Physical memory addresses.
    Memory {
        /// Its first address; 0 if the firmware gave it none.
        address: u64,
        /// Its length in bytes.
        size: u64,
        /// Reading has no side effects.
        prefetchable: bool,
    },
    /// I/O ports.
    Io {
        /// The first port.
        port: u16,
        /// How many.
        size: u16,
    },
}

impl Bar {
    /// Whether it is a range of I/O ports.
    #[must_use]
    pub fn is_io(&self) -> bool {
        matches!(self, Bar::Io { .. })
    }
}

const IS_IO: u32 = 1;
const TYPE: u32 = 0b110;
const TYPE_64: u32 = 0b100;
const PREFETCHABLE: u32 = 1 << 3;

/// Reads the six BARs of a device. Their sizes are found by writing ones, with
/// the device's decoders off for that moment.
pub(super) fn read_all(config: &impl ConfigSpace) -> [Option<Bar>; 6] {
    let command = config.read(COMMAND) & 0xffff;
    config.write(COMMAND, command & !0b11);
    let mut bars = [None; 6];
    let mut slot = 0;
    while slot < bars.len() {
        let (bar, slots) = read(config, slot);
        bars[slot] = bar;
        slot += slots;
    }
    config.write(COMMAND, command);
    bars
}

/// The BAR in `slot`, and how many slots it takes.
fn read(config: &impl ConfigSpace, slot: usize) -> (Option<Bar>, usize) {
    let offset = BAR_0 + 4 * slot as u16;
    let low = config.read(offset);
    let probe = |offset: u16, old: u32| {
        config.write(offset, u32::MAX);
        let mask = config.read(offset);
        config.write(offset, old);
        mask
    };
    let low_mask = probe(offset, low);
    if low & IS_IO != 0 {
        let mask = (low_mask & !0b11) as u16;
        let size = (!mask).wrapping_add(1);
        let bar = Bar::Io {
            port: low as u16 & !0b11,
            size,
        };
        return ((mask != 0).then_some(bar), 1);
    }
    let wide = low & TYPE == TYPE_64 && slot < 5;
    let (high, high_mask) = if wide {
        let high = config.read(offset + 4);
        (high, probe(offset + 4, high))
    } else {
        (0, u32::MAX)
    };
    let slots = if wide { 2 } else { 1 };
    let mask = u64::from(high_mask) << 32 | u64::from(low_mask & !0xf);
    if low_mask & !0xf == 0 && (!wide || high_mask == 0) {
        return (None, slots);
    }
    let bar = Bar::Memory {
        address: u64::from(high) << 32 | u64::from(low & !0xf),
        size: (!mask).wrapping_add(1),
        prefetchable: low & PREFETCHABLE != 0,
    };
    (Some(bar), slots)
}

/// The BARs' raw values, to be kept across a reset.
pub(super) fn save(config: &impl ConfigSpace) -> [u32; 6] {
    core::array::from_fn(|i| config.read(BAR_0 + 4 * i as u16))
}

/// Writes them back.
pub(super) fn restore(config: &impl ConfigSpace, bars: &[u32; 6]) {
    for (i, bar) in bars.iter().enumerate() {
        config.write(BAR_0 + 4 * i as u16, *bar);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::fake::Fake;
    use super::*;

    #[test]
    fn all_kinds_of_bars() {
        let mut f = Fake::default();
        f.writable.insert(0x10, 0xffff_f000);
        f.writable.insert(0x14, 0xffff_ffe0);
        f.writable.insert(0x18, 0xffff_c000);
        f.writable.insert(0x1c, u32::MAX);
        f.writable.insert(0x20, 0);
        f.writable.insert(0x24, 0);
        f.set(COMMAND, 0x0010_0007);
        f.set(0x10, 0xfebd_1000);
        f.set(0x14, 0xc041);
        f.set(0x18, 0x0000_400c);
        f.set(0x1c, 0x38);
        let bars = read_all(&f);
        let memory = |address, size, prefetchable| {
            Some(Bar::Memory {
                address,
                size,
                prefetchable,
            })
        };
        assert_eq!(bars[0], memory(0xfebd_1000, 0x1000, false));
        assert_eq!(
            bars[1],
            Some(Bar::Io {
                port: 0xc040,
                size: 0x20
            })
        );
        assert_eq!(bars[2], memory(0x38_0000_4000, 0x4000, true));
        assert_eq!(bars[3..], [None; 3]);
        // Nothing has changed.
        assert_eq!(f.read(0x10), 0xfebd_1000);
        assert_eq!(f.read(0x1c), 0x38);
        assert_eq!(f.read(COMMAND) & 0xffff, 7);
    }

    #[test]
    fn a_bar_beyond_four_gigabytes() {
        let mut f = Fake::default();
        f.writable.insert(0x10, 0);
        f.writable.insert(0x14, 0xffff_fffe);
        f.set(0x10, 0xc);
        f.set(0x14, 2);
        for o in (0x18..0x28).step_by(4) {
            f.writable.insert(o, 0);
        }
        let bars = read_all(&f);
        let want = Bar::Memory {
            address: 2 << 32,
            size: 2 << 32,
            prefetchable: true,
        };
        assert_eq!(bars[0], Some(want));
    }
}
