//! The loader that UEFI firmware starts: it takes the slot that the disk's boot state
//! names, checks that the release in it is signed by the key built into this file and
//! whole, and starts its kernel. A slot that fails the check is named on screen and
//! serial line and the other one is tried. Firmware that loaded this program from the
//! network has a release there too ([`network`]).
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
mod network;
mod release;

use core::{convert::Infallible, fmt, hint::black_box, panic::PanicInfo, time::Duration};
use disk::{Disk, StoredState};
use skep_api::PublicKey;
use skep_api::boot::handover::BootSlot;
use skep_api::boot::state::Status;
use skep_api::boot::{LOADER_KEY_MARKER, ReleaseError, Slot};
use uefi::{
    Status as UefiStatus, boot,
    prelude::entry,
    runtime::{self, ResetType},
};

/// How long a message of failure stays before the machine goes on.
const READING_TIME: Duration = Duration::from_secs(10);

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
    NotFetched,
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
            Self::NotFetched => f.write_str("its release cannot be fetched from the boot server"),
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

/// Starts a release; comes back only when there is none to start.
fn start() -> Result<Infallible, Failure> {
    let started = release::counter();
    let key = release_key()?;
    match Disk::of_this_program() {
        Ok(disk) => start_slot(disk, &key, started),
        Err(Failure::NotFromDisk) => {
            let mut volume = network::release()?;
            release::load(&mut *volume, &key)?.enter(None, started)
        }
        Err(why) => Err(why),
    }
}

/// Starts a slot of the disk, the other one if the first is not fit for it.
fn start_slot(mut disk: Disk, key: &PublicKey, started: u64) -> Result<Infallible, Failure> {
    let mut stored = disk.state();
    let mut choice = stored.state.choose();
    for _ in Slot::BOTH {
        let slot = choice.slot;
        let is_stored = choice.store.is_none_or(|new| disk.store(&mut stored, new));
        if may_start(&stored, slot, is_stored) {
            let Err(why) = enter_slot(&mut disk, &stored, slot, key, started);
            console::say(format_args!("slot {} is not started: {why}", slot.name()));
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

/// Reads the release in `slot` and starts it, if it may be.
fn enter_slot(
    disk: &mut Disk,
    stored: &StoredState,
    slot: Slot,
    key: &PublicKey,
    started: u64,
) -> Result<Infallible, Failure> {
    let mut volume = disk.volume(slot)?;
    let loaded = release::load(&mut volume, key)?;
    let from = BootSlot {
        slot,
        is_trial: stored.is_trial(slot),
        disk: disk.guid,
        version: loaded.release.version,
        health_seconds: loaded.release.health_seconds,
        key: *key,
    };
    loaded.enter(Some(from), started)
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
