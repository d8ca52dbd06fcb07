//! Address assignment for PCI devices that firmware left without.
//!
//! Small firmware (QEMU's qboot, which starts a tenth of a second sooner than
//! SeaBIOS) and VMMs without any leave the base address registers of devices at
//! zero. The kernel expects what every larger firmware does, so it is done here:
//! each device of the first bus whose decoding is off gets its addresses.
//! Source: PCI Local Bus Specification 3.0, section 6.2.5.

/// Access to the configuration space of the devices of bus 0.
pub trait ConfigSpace {
    /// Reads the 32-bit register at `offset`.
    fn read(&mut self, device: u8, function: u8, offset: u8) -> u32;
    /// Writes the 32-bit register at `offset`.
    fn write(&mut self, device: u8, function: u8, offset: u8, value: u32);
}

/// A range of bus addresses, handed out from below.
#[derive(Clone, Copy, Debug)]
struct Window {
    next: u64,
    end: u64,
}

impl Window {
    /// Takes `size` bytes, a power of two, on a multiple of `size`.
    fn take(&mut self, size: u64) -> Option<u32> {
        let start = self.next.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|end| *end <= self.end)?;
        self.next = end;
        u32::try_from(start).ok()
    }
}

/// Where q35 has no memory and, above its configuration window, no devices.
const MEMORY: Window = Window {
    next: 0xc000_0000,
    end: 0xfec0_0000,
};
/// Ports above those of the chip set.
const PORTS: Window = Window {
    next: 0xc000,
    end: 0x1_0000,
};

const COMMAND: u8 = 0x04;
const COMMAND_PORTS: u32 = 1 << 0;
const COMMAND_MEMORY: u32 = 1 << 1;
const HEADER_TYPE: u8 = 0x0c;
const FIRST_BAR: u8 = 0x10;
const BARS: u8 = 6;
const BAR_IS_PORTS: u32 = 1 << 0;
const BAR_IS_64_BITS: u32 = 0b10 << 1;
const BAR_WIDTH: u32 = 0b11 << 1;

/// Assigns addresses to every device of bus 0 that decodes nothing yet.
pub fn assign(space: &mut impl ConfigSpace) {
    let (mut memory, mut ports) = (MEMORY, PORTS);
    for device in 0..32 {
        let several = space.read(device, 0, HEADER_TYPE) & 0x80_0000 != 0;
        for function in 0..if several { 8 } else { 1 } {
            let present = space.read(device, function, 0) & 0xffff != 0xffff;
            let bridge = space.read(device, function, HEADER_TYPE) & 0x7f_0000 != 0;
            let command = space.read(device, function, COMMAND);
            let decodes = command & (COMMAND_PORTS | COMMAND_MEMORY) != 0;
            if present && !bridge && !decodes {
                let decode = assign_device(space, device, function, &mut memory, &mut ports);
                // The upper half is status, where ones would clear bits.
                space.write(device, function, COMMAND, command & 0xffff | decode);
            }
        }
    }
}

/// Gives one device its addresses; returns what it may decode. What finds no
/// room stays at zero and is not decoded.
fn assign_device(
    space: &mut impl ConfigSpace,
    device: u8,
    function: u8,
    memory: &mut Window,
    ports: &mut Window,
) -> u32 {
    let mut decode = 0;
    let mut complete = true;
    let mut bar = 0;
    while bar < BARS {
        let offset = FIRST_BAR + 4 * bar;
        space.write(device, function, offset, u32::MAX);
        let mask = space.read(device, function, offset);
        space.write(device, function, offset, 0);
        let is_ports = mask & BAR_IS_PORTS != 0;
        let is_wide = !is_ports && mask & BAR_WIDTH == BAR_IS_64_BITS;
        bar += if is_wide { 2 } else { 1 };
        if mask == 0 {
            continue;
        }
        // The lowest bit that can be set is the size. A port register may
        // implement 16 bits only.
        let size = match is_ports {
            true => (mask | 0xffff_0000) & !0b11,
            false => mask & !0b1111,
        };
        let size = u64::from(size & size.wrapping_neg());
        let (window, kind) = if is_ports {
            (&mut *ports, COMMAND_PORTS)
        } else {
            (&mut *memory, COMMAND_MEMORY)
        };
        // A 64-bit register asking for 4 GiB or more has no bit set below.
        match window.take(size).filter(|_| size != 0) {
            Some(address) => {
                space.write(device, function, offset, address);
                if is_wide {
                    space.write(device, function, offset + 4, 0);
                }
                decode |= kind;
            }
            None => complete = false,
        }
    }
    if complete { decode } else { 0 }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{ConfigSpace, assign};
    use std::{collections::BTreeMap, vec, vec::Vec};

    /// Devices with nothing but a command register and base address registers.
    struct Fake {
        /// Writable bits and fixed bits of each register, then its value.
        bars: BTreeMap<(u8, u8), Vec<(u32, u32, u32)>>,
        command: BTreeMap<(u8, u8), u32>,
    }

    impl Fake {
        fn new(devices: Vec<((u8, u8), u32, Vec<(u32, u32)>)>) -> Self {
            let mut fake = Self {
                bars: BTreeMap::new(),
                command: BTreeMap::new(),
            };
            for (at, command, bars) in devices {
                fake.command.insert(at, command);
                let bars = bars
                    .into_iter()
                    .map(|(writable, fixed)| (writable, fixed, fixed));
                fake.bars.insert(at, bars.collect());
            }
            fake
        }

        fn bar(&self, at: (u8, u8), bar: usize) -> u32 {
            self.bars[&at][bar].2
        }
    }

    impl ConfigSpace for Fake {
        fn read(&mut self, device: u8, function: u8, offset: u8) -> u32 {
            let at = (device, function);
            if !self.bars.contains_key(&at) {
                return u32::MAX;
            }
            match offset {
                0x04 => self.command[&at],
                0x10.. => self.bars[&at]
                    .get(usize::from(offset - 0x10) / 4)
                    .map_or(0, |bar| bar.2),
                _ => 0,
            }
        }

        fn write(&mut self, device: u8, function: u8, offset: u8, value: u32) {
            let at = (device, function);
            if offset == 4 {
                self.command.insert(at, value);
            } else if let Some(bar) = self
                .bars
                .get_mut(&at)
                .and_then(|bars| bars.get_mut(usize::from(offset - 0x10) / 4))
            {
                bar.2 = value & bar.0 | bar.1;
            }
        }
    }

    /// As QEMU's virtio-net: ports, memory, and 64-bit prefetchable memory.
    fn network() -> Vec<(u32, u32)> {
        vec![
            (0xffff_ffe0, 1),
            (0xffff_f000, 0),
            (0, 0),
            (0, 0),
            (0xffff_c000, 0b1100),
            (0xffff_ffff, 0),
        ]
    }

    #[test]
    fn every_kind_of_register_gets_an_aligned_address_of_its_own() {
        let mut fake = Fake::new(vec![((1, 0), 0, network()), ((2, 0), 0, network())]);
        assign(&mut fake);
        for at in [(1, 0), (2, 0)] {
            assert_eq!(fake.command[&at], 3);
            let (ports, memory, wide) = (fake.bar(at, 0), fake.bar(at, 1), fake.bar(at, 4));
            assert!(ports & !1 >= 0xc000 && ports & 0x1f == 1, "{ports:#x}");
            assert!(memory >= 0xc000_0000 && memory & 0xfff == 0, "{memory:#x}");
            assert!(wide >= 0xc000_0000 && wide & 0x3fff == 0b1100, "{wide:#x}");
            assert_eq!(fake.bar(at, 5), 0);
            assert_ne!(memory & !0x3fff, wide & !0x3fff);
        }
        assert_ne!(fake.bar((1, 0), 0), fake.bar((2, 0), 0));
    }

    #[test]
    fn devices_that_firmware_set_up_are_left_alone() {
        let mut fake = Fake::new(vec![((1, 0), 7, network())]);
        assign(&mut fake);
        assert_eq!((fake.command[&(1, 0)], fake.bar((1, 0), 1)), (7, 0));
    }

    #[test]
    fn what_does_not_fit_is_not_decoded() {
        let huge = vec![(0x8000_0000, 0)];
        let wide = vec![(0, 0b0100), (0xffff_fff0, 0)];
        let mut fake = Fake::new(vec![((1, 0), 0, huge), ((2, 0), 0, wide)]);
        assign(&mut fake);
        assert_eq!((fake.command[&(1, 0)], fake.command[&(2, 0)]), (0, 0));
    }
}
