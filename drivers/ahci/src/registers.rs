//! Registers of an adapter and its ports (AHCI 1.3.1, 3).

/// Capabilities.
pub(crate) const CAP: usize = 0x00;
/// Global control.
pub(crate) const GHC: usize = 0x04;
/// Ports that have interrupts pending.
pub(crate) const IS: usize = 0x08;
/// Ports that are implemented.
pub(crate) const PI: usize = 0x0c;
/// More capabilities.
pub(crate) const CAP2: usize = 0x24;
/// Hand-over between firmware and driver.
pub(crate) const BOHC: usize = 0x28;

/// The adapter reaches memory above 4 GiB.
pub(crate) const CAP_64: u32 = 1 << 31;
/// It queues commands.
pub(crate) const CAP_NCQ: u32 = 1 << 30;
/// It can clear a busy disk's status.
pub(crate) const CAP_CLO: u32 = 1 << 24;

pub(crate) const GHC_AHCI: u32 = 1 << 31;
pub(crate) const GHC_INTERRUPTS: u32 = 1 << 1;
pub(crate) const GHC_RESET: u32 = 1 << 0;

pub(crate) const CAP2_HANDOFF: u32 = 1 << 0;
pub(crate) const BOHC_FIRMWARE: u32 = 1 << 0;
pub(crate) const BOHC_DRIVER: u32 = 1 << 1;

/// Command list, 64 bits.
pub(crate) const CLB: usize = 0x00;
/// Where answers go, 64 bits.
pub(crate) const FB: usize = 0x08;
/// Interrupts pending.
pub(crate) const PX_IS: usize = 0x10;
/// Interrupts wanted.
pub(crate) const PX_IE: usize = 0x14;
pub(crate) const CMD: usize = 0x18;
/// Status and error of the disk.
pub(crate) const TFD: usize = 0x20;
/// What kind of device is attached.
pub(crate) const SIG: usize = 0x24;
/// The link.
pub(crate) const SSTS: usize = 0x28;
pub(crate) const SCTL: usize = 0x2c;
pub(crate) const SERR: usize = 0x30;
/// Queued commands that the disk has.
pub(crate) const SACT: usize = 0x34;
/// Commands that the adapter has.
pub(crate) const CI: usize = 0x38;

/// The first register of a port.
pub(crate) fn port(number: u8) -> usize {
    0x100 + 0x80 * usize::from(number)
}

pub(crate) const CMD_START: u32 = 1 << 0;
pub(crate) const CMD_SPIN_UP: u32 = 1 << 1;
pub(crate) const CMD_POWER: u32 = 1 << 2;
/// Clears a busy disk's status.
pub(crate) const CMD_CLO: u32 = 1 << 3;
pub(crate) const CMD_RECEIVE: u32 = 1 << 4;
pub(crate) const CMD_RECEIVING: u32 = 1 << 14;
pub(crate) const CMD_RUNNING: u32 = 1 << 15;
/// The link is active.
pub(crate) const CMD_ACTIVE: u32 = 1 << 28;

/// An answer to a command, in one of four forms.
const IS_ANSWERS: u32 = 0b1111;
/// A device was attached.
pub(crate) const IS_CONNECT: u32 = 1 << 6;
/// The link came up or went down.
pub(crate) const IS_PHY: u32 = 1 << 22;
/// The disk says that a command failed.
pub(crate) const IS_TASK: u32 = 1 << 30;
/// Trouble between adapter and memory, or on the link.
pub(crate) const IS_LINK: u32 = 1 << 27 | 1 << 28 | 1 << 29;
/// The interrupts that are wanted.
pub(crate) const IE_WANTED: u32 = IS_ANSWERS | IS_CONNECT | IS_PHY | IS_TASK | IS_LINK;

pub(crate) const TFD_ERROR: u32 = 1 << 0;
/// Busy, or about to move data.
pub(crate) const TFD_BUSY: u32 = 1 << 7 | 1 << 3;

pub(crate) const SIG_DISK: u32 = 0x0000_0101;

/// A device is there and the link works; in the low four bits.
pub(crate) const SSTS_UP: u32 = 3;
/// Begins the link anew.
pub(crate) const SCTL_RESET: u32 = 1;
/// No power saving, so that an interrupt says that the disk is gone.
pub(crate) const SCTL_NO_SLEEP: u32 = 3 << 8;

/// What a bus without an answer reads as.
pub(crate) const ALL_ONES: u32 = u32::MAX;
