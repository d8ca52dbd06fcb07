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
mod machine;
mod measure;
mod network;

use core::{convert::Infallible, panic::PanicInfo, time::Duration};
use machine::Uefi;
use skep_boot::{Failure, Machine as _, release, release_key, start::start_slot};
use uefi::{
    Status as UefiStatus, boot,
    prelude::entry,
    runtime::{self, ResetType},
};

/// How long a message of failure stays before the machine goes on.
const READING_TIME: Duration = Duration::from_secs(10);

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
    let started = Uefi::counter();
    let key = release_key()?;
    match disk::of_this_program() {
        Ok(disk) => start_slot::<Uefi, _>(disk, &key, started),
        Err(Failure::NotFromDisk) => {
            let mut volume = network::release()?;
            release::load::<Uefi>(&mut *volume, &key)?.enter::<Uefi>(None, started)
        }
        Err(why) => Err(why),
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
