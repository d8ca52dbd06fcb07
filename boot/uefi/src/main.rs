//! The loader that UEFI firmware starts: it takes the slot that the disk's boot state
//! names, checks that the release in it is signed by the key built into this file and
//! whole, and starts its kernel. A slot that fails the check is named on screen and
//! serial line and the other one is tried.
//!
//! The kernel sees the same `bootloader_api` contract as under BIOS or PVH, and a page
//! behind its ramdisk that says what was started (`skep_api::boot::handover`).
#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod disk;
mod enter;
mod measure;

use core::{fmt, hint::black_box, panic::PanicInfo, time::Duration};
use disk::{Disk, StoredState};
use skep_api::boot::disk::Extent;
use skep_api::boot::handover::{BootSlot, HANDOVER_BYTES, Handover};
use skep_api::boot::release::{HEAD_AT, HEAD_END, Piece};
use skep_api::boot::state::Status;
use skep_api::boot::{LOADER_KEY_MARKER, Release, ReleaseError, Slot};
use skep_api::hash::Hasher;
use skep_api::{Hash, PublicKey};
use uefi::{
    Status as UefiStatus,
    boot::{self, AllocateType},
    mem::memory_map::MemoryType,
    prelude::entry,
    runtime::{self, ResetType},
};

/// How long a message of failure stays before the machine goes on.
const READING_TIME: Duration = Duration::from_secs(10);
const PAGE: usize = 4096;

/// The key whose releases are started, behind a marker by which whoever writes a disk
/// finds it in this file and puts the owner's there.
#[repr(C)]
struct KeyPlace {
    marker: [u8; 32],
    key: [u8; 32],
}

static KEY: KeyPlace = KeyPlace {
    marker: LOADER_KEY_MARKER,
    key: [0; 32],
};

/// Why nothing is started, or not this slot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    NotFromDisk,
    NoSlots,
    NoKey,
    NoSlot,
    BeyondSlot,
    Read,
    NoMemory,
    Refused(ReleaseError),
    NothingLeft,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFromDisk => f.write_str("this loader was not started from a disk"),
            Self::NoSlots => f.write_str("the disk has no readable partition table"),
            Self::NoKey => f.write_str("this loader has no release key; write the disk anew"),
            Self::NoSlot => f.write_str("the disk has no such slot"),
            Self::BeyondSlot => f.write_str("its release is larger than the slot"),
            Self::Read => f.write_str("the disk cannot be read"),
            Self::NoMemory => f.write_str("there is not enough memory for its release"),
            Self::Refused(why) => why.fmt(f),
            Self::NothingLeft => f.write_str("no slot holds a release that can be started"),
        }
    }
}

#[entry]
fn main() -> UefiStatus {
    let Err(why) = start();
    console::say(format_args!("cannot start this node: {why}"));
    boot::stall(READING_TIME);
    // The firmware goes on with its next boot option.
    UefiStatus::LOAD_ERROR
}

/// Starts a slot; comes back only when there is none to start.
fn start() -> Result<core::convert::Infallible, Failure> {
    let key = release_key()?;
    let mut disk = Disk::of_this_program()?;
    let mut stored = disk.state();
    let mut choice = stored.state.choose();
    for _ in Slot::BOTH {
        let slot = choice.slot;
        let is_stored = choice.store.is_none_or(|new| disk.store(&mut stored, new));
        if may_start(&stored, slot, is_stored) {
            match load(&mut disk, &stored, slot, &key) {
                Ok(loaded) => loaded.measured().enter(),
                Err(why) => {
                    console::say(format_args!("slot {} is not started: {why}", slot.name()));
                }
            }
        }
        choice = stored.state.refuse(slot);
    }
    Err(Failure::NothingLeft)
}

/// A new release whose tries cannot be counted is not started while the other slot holds
/// one that was healthy: it might be started for ever.
fn may_start(stored: &StoredState, slot: Slot, is_stored: bool) -> bool {
    let has_other = stored.state.slot(slot.other()).status == Status::Good;
    if !is_stored {
        console::say(format_args!("the boot state cannot be written"));
    }
    is_stored || !stored.is_trial(slot) || !has_other
}

/// The key in this file, unless nobody has put one there.
fn release_key() -> Result<PublicKey, Failure> {
    // Not what the compiler sees, but what the file holds by now.
    let place = black_box(&KEY);
    if place.key == [0; 32] {
        return Err(Failure::NoKey);
    }
    Ok(PublicKey(place.key))
}

/// A release in memory, checked.
struct Loaded {
    kernel: &'static [u8],
    ramdisk: &'static mut [u8],
    handover: Handover,
    /// BLAKE3 of the release's signed head.
    head: Hash,
}

/// Reads the release in `slot` and checks it.
fn load(
    disk: &mut Disk,
    stored: &StoredState,
    slot: Slot,
    key: &PublicKey,
) -> Result<Loaded, Failure> {
    let extent = disk.slot(slot).ok_or(Failure::NoSlot)?;
    let head = pages(HEAD_END)?;
    disk.read_slot(extent, 0, head, |_, _| ())?;
    let release = Release::verify(&head[HEAD_AT..], key).map_err(Failure::Refused)?;
    let kernel = piece(disk, extent, &release.kernel, 0, ReleaseError::BadKernel)?;
    let ramdisk = piece(
        disk,
        extent,
        &release.ramdisk,
        HANDOVER_BYTES,
        ReleaseError::BadRamdisk,
    )?;
    let head = Hash::of(&head[HEAD_AT..HEAD_END]);
    let handover = Handover {
        ramdisk_len: release.ramdisk.len,
        slot: Some(BootSlot {
            slot,
            is_trial: stored.is_trial(slot),
            disk: disk.guid,
            version: release.version,
            health_seconds: release.health_seconds,
            key: *key,
            measured: None,
        }),
        command_line: release.command_line,
    };
    Ok(Loaded {
        kernel,
        ramdisk,
        handover,
        head,
    })
}

/// Reads a piece into pages of its own, `spare` bytes more than it needs, and checks
/// that it is the one that was signed.
fn piece(
    disk: &mut Disk,
    extent: Extent,
    piece: &Piece,
    spare: usize,
    refusal: ReleaseError,
) -> Result<&'static mut [u8], Failure> {
    let len = usize::try_from(piece.len).map_err(|_| Failure::NoMemory)?;
    let whole = len.next_multiple_of(PAGE);
    let memory = pages(whole + spare)?;
    let mut hasher = Hasher::new();
    disk.read_slot(extent, piece.offset, &mut memory[..whole], |at, bytes| {
        hasher.update(&bytes[..bytes.len().min(len - at)]);
    })?;
    if hasher.finish() == piece.hash {
        Ok(memory)
    } else {
        Err(Failure::Refused(refusal))
    }
}

/// Whole pages that are never given back.
fn pages(len: usize) -> Result<&'static mut [u8], Failure> {
    let count = len.div_ceil(PAGE).max(1);
    let memory = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, count)
        .map_err(|_| Failure::NoMemory)?;
    // SAFETY: the firmware gave these pages to us alone, mapped one to one, and they are
    // never given back; what it left in them are bytes like any.
    Ok(unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), len) })
}

impl Loaded {
    /// Tells the TPM what is about to be started: nothing of it has run yet, and no other
    /// slot comes in its place.
    fn measured(mut self) -> Self {
        if let Some(slot) = &mut self.handover.slot
            && measure::measure(&self.head, &slot.key)
        {
            slot.measured = Some(self.head);
        }
        self
    }

    fn enter(self) -> ! {
        let page_at = self.ramdisk.len() - HANDOVER_BYTES;
        self.ramdisk[page_at..].copy_from_slice(&self.handover.encode());
        drop(self.handover);
        enter::enter(self.kernel, self.ramdisk)
    }
}

/// Says what went wrong and starts the machine again: a new release then uses up its
/// tries and the old one comes back.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::say(format_args!("cannot start the kernel: {info}"));
    if console::has_firmware() {
        boot::stall(READING_TIME);
    }
    runtime::reset(ResetType::COLD, UefiStatus::ABORTED, None)
}
