//! Registers of the chipset that no BAR leads to.
//!
//! Sources: Intel I/O Controller Hub 9 Family Datasheet (316972), 13.1 (LPC bridge),
//! 13.9 (TCO), 10.1.75 (general control and status); later hubs up to the 9 series keep these
//! places.

use crate::mmio::Mmio;
use crate::pci::{self, Address, ConfigSpace, Device};
use crate::port::Ports;

/// The timer that resets the machine unless it is told in time not to.
#[derive(Clone, Debug)]
pub struct Tco {
    /// The bridge that it is a part of.
    pub bridge: Address,
    /// Its registers, 32 ports.
    pub timer: Ports,
    /// The general control and status register, 4 bytes, whose bit 5 keeps the timer
    /// from resetting anything. `None` where the firmware has not made it reachable.
    pub control: Option<Mmio>,
}

/// The ports of a PC's keyboard controller, whether there is one behind them or not.
#[derive(Clone, Debug)]
pub struct KeyboardController {
    /// Data from and to keyboard and controller, one port.
    pub data: Ports,
    /// Status when it is read, commands when it is written, one port.
    pub command: Ports,
}

/// Where a PC's keyboard controller is.
#[must_use]
pub fn keyboard_controller() -> KeyboardController {
    KeyboardController {
        data: Ports::one(0x60),
        command: Ports::one(0x64),
    }
}

const INTEL: u16 = 0x8086;

/// In the LPC bridge: where the power management ports are, whether they answer, and
/// where the root complex's registers are.
const PM_BASE: u16 = 0x40;
const ACPI_CONTROL: u16 = 0x44;
const ACPI_ENABLED: u32 = 1 << 7;
const ROOT_COMPLEX_BASE: u16 = 0xf0;
const ROOT_COMPLEX_ENABLED: u32 = 1 << 0;
/// Where all firmware puts them.
const ROOT_COMPLEX_USUAL: u32 = 0xfed1_c000;

/// Of the power management ports, those of the timer.
const TCO_OFFSET: u16 = 0x60;
const TCO_LEN: u16 = 0x20;
/// Of the root complex's registers.
const GENERAL_CONTROL: u64 = 0x3410;

/// The TCO timer of this machine, if its chipset is of a kind that has one where
/// these are.
#[must_use]
pub fn tco() -> Option<Tco> {
    let lpc = pci::bridges().iter().find(|b| has_tco(b))?;
    let config = lpc.config();
    let (timer, control) = places(&config)?;
    Some(Tco {
        bridge: lpc.address,
        timer: Ports::new(timer, TCO_LEN)?,
        control: control.and_then(|phys| Mmio::map(phys, 4)),
    })
}

/// The LPC bridges of ICH6 to the 9 series, whose timer is of the second version.
fn has_tco(bridge: &Device) -> bool {
    const ISA_BRIDGE: (u8, u8) = (6, 1);
    let known = matches!(
        bridge.device,
        0x2640..=0x2642                     // ICH6
            | 0x2670                        // 631x/632xESB
            | 0x27b0 | 0x27b8..=0x27bd      // ICH7
            | 0x2810..=0x2815               // ICH8
            | 0x2910..=0x2919               // ICH9, and QEMU's q35
            | 0x3a14..=0x3a1a               // ICH10
            | 0x3b00..=0x3b1f               // 5 series
            | 0x1c40..=0x1c5f               // 6 series
            | 0x1d40 | 0x1d41               // C600
            | 0x1e40..=0x1e5f               // 7 series
            | 0x8c40..=0x8c5f | 0x9c40..=0x9c47 // 8 series
            | 0x8d40..=0x8d5f               // C610
            | 0x8cc1..=0x8cc6 | 0x9cc1..=0x9cc9 // 9 series
    );
    bridge.vendor == INTEL && (bridge.class, bridge.subclass) == ISA_BRIDGE && known
}

/// The first port of the timer, and the physical address of the general control
/// register.
fn places(lpc: &impl ConfigSpace) -> Option<(u16, Option<u64>)> {
    if lpc.read(ACPI_CONTROL) & ACPI_ENABLED == 0 {
        return None;
    }
    let base = (lpc.read(PM_BASE) & 0xff80) as u16;
    let timer = base.checked_add(TCO_OFFSET).filter(|_| base != 0)?;
    let root = match lpc.read(ROOT_COMPLEX_BASE) {
        // Small firmware leaves it off. There is nothing else at its usual place.
        off if off & ROOT_COMPLEX_ENABLED == 0 => {
            lpc.write(ROOT_COMPLEX_BASE, ROOT_COMPLEX_USUAL | ROOT_COMPLEX_ENABLED);
            lpc.read(ROOT_COMPLEX_BASE)
        }
        on => on,
    };
    let control = u64::from(root & 0xffff_c000) + GENERAL_CONTROL;
    let reachable = root & ROOT_COMPLEX_ENABLED != 0 && root != u32::MAX;
    Some((timer, reachable.then_some(control)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Lpc {
        registers: RefCell<HashMap<u16, u32>>,
        /// Nothing can be changed.
        is_fixed: bool,
    }

    impl ConfigSpace for Lpc {
        fn read(&self, offset: u16) -> u32 {
            self.registers.borrow().get(&offset).copied().unwrap_or(0)
        }
        fn write(&self, offset: u16, value: u32) {
            if !self.is_fixed {
                self.registers.borrow_mut().insert(offset, value);
            }
        }
    }

    #[test]
    fn places_are_where_the_firmware_put_them() {
        let mut lpc = Lpc::default();
        lpc.write(PM_BASE, 0x601);
        lpc.write(ACPI_CONTROL, 0x80);
        lpc.write(ROOT_COMPLEX_BASE, 0xfed0_0001);
        assert_eq!(places(&lpc), Some((0x660, Some(0xfed0_3410))));
        lpc.write(ROOT_COMPLEX_BASE, 0);
        assert_eq!(places(&lpc), Some((0x660, Some(0xfed1_f410))));
        lpc.write(ROOT_COMPLEX_BASE, 0);
        lpc.is_fixed = true;
        assert_eq!(places(&lpc), Some((0x660, None)));
        lpc.is_fixed = false;
        lpc.write(PM_BASE, 1);
        assert_eq!(places(&lpc), None);
        lpc.write(ACPI_CONTROL, 0);
        assert_eq!(places(&lpc), None);
    }

    #[test]
    fn only_known_bridges_have_it() {
        let bridge = |vendor, device, class, subclass| Device {
            address: Address {
                bus: 0,
                device: 31,
                function: 0,
            },
            vendor,
            device,
            class,
            subclass,
            interface: 0,
            revision: 0,
            subsystem: (0, 0),
            bars: [None; 6],
            capabilities: std::vec::Vec::new(),
        };
        assert!(has_tco(&bridge(INTEL, 0x2918, 6, 1)));
        assert!(!has_tco(&bridge(INTEL, 0x7000, 6, 1)));
        assert!(!has_tco(&bridge(0x1022, 0x2918, 6, 1)));
        assert!(!has_tco(&bridge(INTEL, 0x2918, 6, 4)));
    }
}
