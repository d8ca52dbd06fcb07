//! Where the machine's TPM 2.0 is.
//!
//! Firmware tells of it in a table of its own (TCG ACPI Specification 1.3, chapter 7).
//! The registers of the first locality are at a fixed place; a command buffer may lie
//! elsewhere, and then says itself where.

use crate::arch;
use crate::firmware::acpi::Tpm2;
use crate::inventory::{MemoryKind, MemoryRange};
use crate::mmio::Mmio;

/// How a TPM is talked to.
#[derive(Clone, Debug)]
pub enum Interface {
    /// Byte by byte through a FIFO (TIS): the registers of locality 0.
    Fifo(Mmio),
    /// Through a command response buffer (CRB).
    Crb {
        /// The registers by which locality 0 is asked for; `None` where the control area
        /// is alone.
        locality: Option<Mmio>,
        /// The control area, 48 bytes.
        control: Mmio,
    },
    /// In a way that needs firmware's help, by its number in the table.
    Other(u32),
    /// Its registers cannot be reached.
    Unreachable,
}

/// Registers of locality 0 (PC Client Platform TPM Profile 1.05, table 9).
const LOCALITY: u64 = 0xfed4_0000;
const LOCALITY_LEN: usize = 0x1000;
/// Of the control area within them, and its length.
const CONTROL_OFFSET: usize = 0x40;
const CONTROL_LEN: usize = 0x30;

/// Start methods that need no help (TCG ACPI Specification, table 8).
const FIFO: u32 = 6;
const CRB: u32 = 7;

/// The TPM that the firmware tells of, if it tells of one.
#[must_use]
pub fn find() -> Option<Interface> {
    Some(reach(arch::tpm2()?))
}

fn reach(told: Tpm2) -> Interface {
    let reached = match told.method {
        FIFO => Mmio::map(LOCALITY, LOCALITY_LEN).map(Interface::Fifo),
        CRB => control_area(told.control),
        other => Some(Interface::Other(other)),
    };
    reached.unwrap_or(Interface::Unreachable)
}

fn control_area(phys: u64) -> Option<Interface> {
    if phys == LOCALITY + CONTROL_OFFSET as u64 {
        let locality = Mmio::map(LOCALITY, LOCALITY_LEN)?;
        let control = locality.part(CONTROL_OFFSET, CONTROL_LEN)?;
        let locality = Some(locality);
        return Some(Interface::Crb { locality, control });
    }
    let control = buffer(phys, CONTROL_LEN)?;
    Some(Interface::Crb {
        locality: None,
        control,
    })
}

/// The command or response buffer that a control area says is at `phys`. `None` if it
/// cannot be mapped, or is memory that the kernel has for its own use: nothing that a
/// device says leads there.
#[must_use]
pub fn buffer(phys: u64, len: usize) -> Option<Mmio> {
    let end = phys.checked_add(len as u64)?;
    let is_usable = |r: MemoryRange| r.kind == MemoryKind::Usable;
    let overlaps = |r: &MemoryRange| r.start < end && phys < r.end;
    let mut overlapping = arch::memory_ranges().filter(overlaps);
    if phys == 0 || overlapping.any(is_usable) {
        return None;
    }
    Mmio::map(phys, len)
}
