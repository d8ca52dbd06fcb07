//! What the loader tells the kernel beyond `bootloader_api`: one page behind the ramdisk,
//! counted in its length.
//!
//! The ramdisk is rounded up to whole pages and the page follows, so the kernel finds it
//! at the end of what it is handed, and cuts it off. A ramdisk without it is what loaders
//! that know nothing of slots hand over.

use super::{Slot, crc32, put};
use crate::bytes::{array, u16_at, u32_at, u64_at};
use crate::{Hash, PublicKey};
use alloc::string::String;

/// Bytes of the page.
pub const HANDOVER_BYTES: usize = 4096;
/// Most bytes of the command line in it.
pub const COMMAND_LINE_BYTES_MAX: usize = 2048;

const MAGIC: [u8; 8] = *b"SKEPHAND";
const FORMAT: u32 = 1;
const COMMAND_LINE_LEN_AT: usize = 12;
const RAMDISK_LEN_AT: usize = 16;
const SLOT_AT: usize = 24;
const TRIAL_AT: usize = 25;
const IS_MEASURED_AT: usize = 26;
const VERSION_AT: usize = 32;
const HEALTH_AT: usize = 40;
const DISK_AT: usize = 48;
const KEY_AT: usize = 64;
const MEASURED_AT: usize = 96;
const COMMAND_LINE_AT: usize = 128;
const STARTED_AT: usize = COMMAND_LINE_AT + COMMAND_LINE_BYTES_MAX;
const CHECKED_AT: usize = STARTED_AT + 8;
const CRC_AT: usize = HANDOVER_BYTES - 4;
const NO_SLOT: u8 = 0xff;

/// Where the kernel was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootSlot {
    /// Which slot.
    pub slot: Slot,
    /// Whether its release has yet to be healthy for the first time.
    pub is_trial: bool,
    /// GUID of the disk, from its partition table.
    pub disk: [u8; 16],
    /// Version of the release.
    pub version: u64,
    /// Seconds within which a new release must be healthy.
    pub health_seconds: u32,
    /// The key that signed it, which the loader trusts.
    pub key: PublicKey,
}

/// What the loader has told the TPM ([`super::measured`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// BLAKE3 of the release's signed head.
    pub head: Hash,
    /// The key that signed it, which the loader trusts.
    pub key: PublicKey,
}

/// When the loader did what, as the processor's time-stamp counter showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderTimes {
    /// The firmware started it.
    pub started: u64,
    /// The release was in memory and checked.
    pub checked: u64,
}

/// The page's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Bytes of the ramdisk itself.
    pub ramdisk_len: u64,
    /// The slot, when it was started from one and not from the network.
    pub slot: Option<BootSlot>,
    /// What the TPM knows of the release, if anything.
    pub measured: Option<Measured>,
    /// What the loader's work took, if it says so.
    pub times: Option<LoaderTimes>,
    /// The kernel's command line.
    pub command_line: String,
}

impl Handover {
    /// The page.
    #[must_use]
    pub fn encode(&self) -> [u8; HANDOVER_BYTES] {
        let mut page = [0; HANDOVER_BYTES];
        let line = self.command_line.as_bytes();
        let line = line
            .get(..line.len().min(COMMAND_LINE_BYTES_MAX))
            .unwrap_or_default();
        put(&mut page, 0, &MAGIC);
        put(&mut page, 8, &FORMAT.to_le_bytes());
        // No longer than its limit, which 16 bits hold.
        let len = line.len() as u16;
        put(&mut page, COMMAND_LINE_LEN_AT, &len.to_le_bytes());
        put(&mut page, RAMDISK_LEN_AT, &self.ramdisk_len.to_le_bytes());
        put(&mut page, SLOT_AT, &[NO_SLOT]);
        if let Some(slot) = &self.slot {
            put(&mut page, SLOT_AT, &[u8::from(slot.slot == Slot::B)]);
            put(&mut page, TRIAL_AT, &[u8::from(slot.is_trial)]);
            put(&mut page, VERSION_AT, &slot.version.to_le_bytes());
            put(&mut page, HEALTH_AT, &slot.health_seconds.to_le_bytes());
            put(&mut page, DISK_AT, &slot.disk);
            put(&mut page, KEY_AT, &slot.key.0);
        }
        if let Some(measured) = &self.measured {
            put(&mut page, IS_MEASURED_AT, &[1]);
            // That of a slot is the same one.
            put(&mut page, KEY_AT, &measured.key.0);
            put(&mut page, MEASURED_AT, &measured.head.0);
        }
        put(&mut page, COMMAND_LINE_AT, line);
        if let Some(times) = &self.times {
            put(&mut page, STARTED_AT, &times.started.to_le_bytes());
            put(&mut page, CHECKED_AT, &times.checked.to_le_bytes());
        }
        let crc = crc32(page.get(..CRC_AT).unwrap_or_default());
        put(&mut page, CRC_AT, &crc.to_le_bytes());
        page
    }

    /// Splits what a loader handed over into the ramdisk and the page's meaning; without
    /// the page all of it is ramdisk.
    #[must_use]
    pub fn split(bytes: &[u8]) -> (&[u8], Option<Self>) {
        Self::try_split(bytes).map_or((bytes, None), |(ramdisk, found)| (ramdisk, Some(found)))
    }

    fn try_split(bytes: &[u8]) -> Option<(&[u8], Self)> {
        let page_at = bytes.len().checked_sub(HANDOVER_BYTES)?;
        let page = bytes.get(page_at..)?;
        if array(page, 0)? != MAGIC
            || u32_at(page, 8)? != FORMAT
            || u32_at(page, CRC_AT)? != crc32(page.get(..CRC_AT)?)
        {
            return None;
        }
        let ramdisk_len = u64_at(page, RAMDISK_LEN_AT)?;
        let len = usize::from(u16_at(page, COMMAND_LINE_LEN_AT)?);
        let line = page.get(COMMAND_LINE_AT..COMMAND_LINE_AT + len)?;
        let key = PublicKey(array(page, KEY_AT)?);
        let slot = match *page.get(SLOT_AT)? {
            NO_SLOT => None,
            index => Some(BootSlot {
                slot: Slot::from_index(index)?,
                is_trial: *page.get(TRIAL_AT)? != 0,
                disk: array(page, DISK_AT)?,
                version: u64_at(page, VERSION_AT)?,
                health_seconds: u32_at(page, HEALTH_AT)?,
                key,
            }),
        };
        let measured = match *page.get(IS_MEASURED_AT)? {
            0 => None,
            _ => Some(Measured {
                head: Hash(array(page, MEASURED_AT)?),
                key,
            }),
        };
        let times = LoaderTimes {
            started: u64_at(page, STARTED_AT)?,
            checked: u64_at(page, CHECKED_AT)?,
        };
        let ramdisk = bytes.get(..usize::try_from(ramdisk_len).ok()?)?;
        let handover = Self {
            ramdisk_len,
            slot,
            measured,
            // Loaders that say nothing of it leave zeroes.
            times: (times.checked != 0).then_some(times),
            command_line: String::from(core::str::from_utf8(line).ok()?),
        };
        (ramdisk.len() <= page_at).then_some((ramdisk, handover))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn handed_over(ramdisk: &[u8], handover: &Handover) -> Vec<u8> {
        let mut bytes = ramdisk.to_vec();
        bytes.resize(ramdisk.len().next_multiple_of(HANDOVER_BYTES), 0);
        bytes.extend_from_slice(&handover.encode());
        bytes
    }

    fn handover(ramdisk_len: u64) -> Handover {
        Handover {
            ramdisk_len,
            slot: Some(BootSlot {
                slot: Slot::B,
                is_trial: true,
                disk: [7; 16],
                version: 12,
                health_seconds: 30,
                key: PublicKey([9; 32]),
            }),
            measured: Some(Measured {
                head: Hash([8; 32]),
                key: PublicKey([9; 32]),
            }),
            times: Some(LoaderTimes {
                started: 5,
                checked: 6,
            }),
            command_line: "log=debug".into(),
        }
    }

    #[test]
    fn the_ramdisk_comes_back_without_the_page() {
        for len in [0, 1, 4096, 5000] {
            let ramdisk = vec![3; len];
            let said = handover(len as u64);
            let bytes = handed_over(&ramdisk, &said);
            assert_eq!(Handover::split(&bytes), (&ramdisk[..], Some(said)));
        }
    }

    #[test]
    fn slot_and_measured_release_come_back_one_without_the_other() {
        let with = |slot, measured| Handover {
            slot,
            measured,
            times: None,
            ..handover(100)
        };
        let both = handover(100);
        for said in [
            with(None, both.measured),
            with(both.slot, None),
            with(None, None),
        ] {
            let bytes = handed_over(&[3; 100], &said);
            assert_eq!(Handover::split(&bytes).1, Some(said));
        }
    }

    #[test]
    fn without_a_whole_page_all_of_it_is_ramdisk() {
        let mut bytes = handed_over(&[3; 100], &handover(100));
        let last = bytes.len() - 100;
        bytes[last] ^= 1;
        assert_eq!(Handover::split(&bytes), (&bytes[..], None));
        assert_eq!(Handover::split(b"short"), (&b"short"[..], None));
        let beyond = handed_over(&[3; 100], &handover(1 << 40));
        assert_eq!(Handover::split(&beyond), (&beyond[..], None));
    }
}
