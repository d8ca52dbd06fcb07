//! Which chips there are, and how they differ.

use crate::offload::Layout;
use crate::regs::{CTRL_EXT_DRIVER, CTRL_LRST};
use machine::pci;

const INTEL: u16 = 0x8086;
const CLASS_NETWORK: u8 = 0x02;

/// The shape of receive descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Status behind the length, the buffer's address stays (8254x, 3.2.3).
    Legacy,
    /// The device writes over the address (82574, 7.1.4; "advanced" from the 82576 on).
    Extended,
}

/// How interrupts are masked and told apart when they come by MSI-X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsiX {
    /// It has none.
    None,
    /// Queues are causes beside the others (82574).
    Causes,
    /// Vectors have registers of their own (82576 and later).
    Vectors,
}

/// Which long segments of TCP the device cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cuts {
    Nothing,
    /// Those of IPv4.
    V4,
    Both,
}

/// What all chips of one programming model share.
#[derive(Debug)]
pub struct Family {
    /// What it is called here and in the device list.
    pub name: &'static str,
    /// Where the registers of interrupt causes are: read, set mask, clear mask.
    pub(crate) icr: usize,
    pub(crate) ims: usize,
    pub(crate) imc: usize,
    /// Where the registers of the first rings are.
    pub(crate) receive: usize,
    pub(crate) transmit: usize,
    pub(crate) shape: Shape,
    pub(crate) layout: Layout,
    pub(crate) msix: MsiX,
    pub(crate) cuts: Cuts,
    /// It is on PCI Express: bus transactions can be stopped before a reset.
    pub(crate) is_express: bool,
    /// Bits of CTRL that must be clear and of CTRL_EXT that must be set while it works.
    pub(crate) ctrl_clear: u32,
    pub(crate) ctrl_ext_set: u32,
    /// Rings are switched on one by one, buffers have a size for each ring.
    pub(crate) has_ring_control: bool,
}

/// 82540, 82544, 82545, 82546: PCI and PCI-X, wired interrupts or one message.
pub static E1000: Family = Family {
    name: "e1000",
    icr: 0x00c0,
    ims: 0x00d0,
    imc: 0x00d8,
    receive: 0x2800,
    transmit: 0x3800,
    shape: Shape::Legacy,
    layout: Layout::Extended,
    msix: MsiX::None,
    // They can, but say that a frame has left while they still read it (Linux's driver has
    // work-arounds). They are old, and rare.
    cuts: Cuts::Nothing,
    is_express: false,
    ctrl_clear: CTRL_LRST,
    ctrl_ext_set: 0,
    has_ring_control: false,
};

/// 82571 to 82574, 82583, and the controllers in chip sets.
pub static E1000E: Family = Family {
    name: "e1000e",
    shape: Shape::Extended,
    msix: MsiX::None,
    // Of IPv6, what QEMU's model makes of it before version 8 is understood by nobody.
    cuts: Cuts::V4,
    is_express: true,
    ctrl_clear: 0,
    ctrl_ext_set: CTRL_EXT_DRIVER,
    ..E1000
};

/// The 82574, the only one of its family with MSI-X.
pub static E1000E_MSIX: Family = Family {
    msix: MsiX::Causes,
    ..E1000E
};

/// 82576, 82580, I350, I210, I211.
pub static IGB: Family = Family {
    name: "igb",
    icr: 0x1500,
    ims: 0x1508,
    imc: 0x150c,
    receive: 0xc000,
    transmit: 0xe000,
    layout: Layout::Advanced,
    msix: MsiX::Vectors,
    cuts: Cuts::Both,
    has_ring_control: true,
    ..E1000E
};

/// What one kind of chip needs beside its family's ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// The PHY belongs to the chip set and its firmware: it is not reset.
    pub(crate) leaves_phy: bool,
    /// A reset with frames in the rings may hang it ([`crate::regs::FEXTNVM11`]), and so may
    /// cutting: Linux's driver does not use it there.
    pub(crate) hangs_in_reset: bool,
    /// It does not take frames longer than usual.
    pub(crate) no_jumbo: bool,
}

/// A kind of chip.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its name on the box.
    pub name: &'static str,
    /// How it is programmed.
    pub family: &'static Family,
    pub(crate) quirks: Quirks,
}

impl Model {
    /// Which long segments it is given to cut.
    pub(crate) fn cuts(&self) -> Cuts {
        match self.quirks.hangs_in_reset {
            true => Cuts::Nothing,
            false => self.family.cuts,
        }
    }
}

const PLAIN: Quirks = Quirks {
    leaves_phy: false,
    hangs_in_reset: false,
    no_jumbo: false,
};
const SHORT: Quirks = Quirks {
    no_jumbo: true,
    ..PLAIN
};
const CHIP_SET: Quirks = Quirks {
    leaves_phy: true,
    ..PLAIN
};
const CHIP_SET_SHORT: Quirks = Quirks {
    no_jumbo: true,
    ..CHIP_SET
};
const I219: Quirks = Quirks {
    hangs_in_reset: true,
    ..CHIP_SET
};

/// Models by their device IDs (Intel's, as in the public PCI ID list).
const MODELS: &[(&str, &Family, Quirks, &[u16])] = &[
    ("82544", &E1000, PLAIN, &[0x1008, 0x1009, 0x100c, 0x100d]),
    (
        "82540",
        &E1000,
        PLAIN,
        &[0x100e, 0x1015, 0x1016, 0x1017, 0x101e],
    ),
    (
        "82545",
        &E1000,
        PLAIN,
        &[0x100f, 0x1011, 0x1026, 0x1027, 0x1028],
    ),
    (
        "82546",
        &E1000,
        PLAIN,
        &[
            0x1010, 0x1012, 0x101d, 0x1079, 0x107a, 0x107b, 0x108a, 0x1099, 0x10b5,
        ],
    ),
    (
        "82571",
        &E1000E,
        PLAIN,
        &[
            0x105e, 0x105f, 0x1060, 0x10a4, 0x10a5, 0x10bc, 0x10d5, 0x10d9, 0x10da,
        ],
    ),
    ("82572", &E1000E, PLAIN, &[0x107d, 0x107e, 0x107f, 0x10b9]),
    ("82573", &E1000E, SHORT, &[0x108b, 0x108c, 0x109a]),
    ("82574", &E1000E_MSIX, PLAIN, &[0x10d3, 0x10f6]),
    ("82583", &E1000E, PLAIN, &[0x150c]),
    (
        "ICH8",
        &E1000E,
        CHIP_SET_SHORT,
        &[
            0x1049, 0x104a, 0x104b, 0x104c, 0x104d, 0x10c4, 0x10c5, 0x1501,
        ],
    ),
    (
        "ICH9",
        &E1000E,
        CHIP_SET,
        &[
            0x10bd, 0x10bf, 0x10c0, 0x10c2, 0x10c3, 0x10cb, 0x10e5, 0x10f5, 0x294c,
        ],
    ),
    (
        "ICH10",
        &E1000E,
        CHIP_SET,
        &[0x10cc, 0x10cd, 0x10ce, 0x10de, 0x10df, 0x1525],
    ),
    ("82577", &E1000E, CHIP_SET, &[0x10ea, 0x10eb]),
    ("82578", &E1000E, CHIP_SET, &[0x10ef, 0x10f0]),
    ("82579", &E1000E, CHIP_SET, &[0x1502, 0x1503]),
    ("I217", &E1000E, CHIP_SET, &[0x153a, 0x153b]),
    (
        "I218",
        &E1000E,
        CHIP_SET,
        &[0x155a, 0x1559, 0x15a0, 0x15a1, 0x15a2, 0x15a3],
    ),
    (
        "I219",
        &E1000E,
        I219,
        &[
            0x156f, 0x1570, 0x15b7, 0x15b8, 0x15b9, 0x15d6, 0x15d7, 0x15d8, 0x15e3, 0x15bb, 0x15bc,
            0x15bd, 0x15be,
        ],
    ),
    (
        "82576",
        &IGB,
        PLAIN,
        &[
            0x10c9, 0x10e6, 0x10e7, 0x10e8, 0x150a, 0x150d, 0x1518, 0x1526,
        ],
    ),
    (
        "82580",
        &IGB,
        PLAIN,
        &[0x150e, 0x150f, 0x1510, 0x1511, 0x1516, 0x1527],
    ),
    ("I350", &IGB, PLAIN, &[0x1521, 0x1522, 0x1523, 0x1524]),
    (
        "I210",
        &IGB,
        PLAIN,
        &[0x1533, 0x1536, 0x1537, 0x1538, 0x157b, 0x157c],
    ),
    ("I211", &IGB, PLAIN, &[0x1539]),
];

/// What `device` is, if there is a driver for it here.
#[must_use]
pub fn model(device: &pci::Device) -> Option<Model> {
    if device.vendor != INTEL || device.class != CLASS_NETWORK {
        return None;
    }
    let (name, family, quirks, _) = MODELS
        .iter()
        .find(|(_, _, _, ids)| ids.contains(&device.device))?;
    Some(Model {
        name,
        family,
        quirks: *quirks,
    })
}

#[cfg(test)]
mod tests {
    use super::MODELS;
    use alloc::vec::Vec;

    #[test]
    fn no_chip_is_listed_twice() {
        let mut all: Vec<u16> = MODELS.iter().flat_map(|m| m.3.to_vec()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        // Those that QEMU has.
        for id in [0x100e, 0x100c, 0x100f, 0x10d3, 0x10c9] {
            assert!(all.contains(&id), "{id:x}");
        }
    }
}
