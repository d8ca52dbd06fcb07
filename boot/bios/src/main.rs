//! The loader that a BIOS starts: it takes the slot that the disk's boot state names, checks
//! that the release in it is signed by the key built into this file and whole, and starts its
//! kernel. A slot that fails the check is named on screen and serial line and the other one is
//! tried: all as under UEFI (`skep_boot`).
//!
//! The file begins with the boot sector (`boot_sector.s`), which reads the rest. `modes.s`
//! brings the processor to 64-bit code, which this is, and back for each call of the BIOS.
//! The kernel sees the same `bootloader_api` contract as under UEFI or PVH.
#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod disk;
mod enter;
mod firmware;
mod memory;
mod screen;

use core::{convert::Infallible, fmt, panic::PanicInfo, time::Duration};
use disk::FirmwareDisk;
use skep_api::{Hash, PublicKey};
use skep_boot::{Failure, Machine, disk::Disk, release_key, start::start_slot};

core::arch::global_asm!(include_str!("boot_sector.s"));
core::arch::global_asm!(include_str!("modes.s"));

/// How long a message of failure stays before the machine goes on.
const READING_TIME: Duration = Duration::from_secs(10);

/// A machine with a BIOS.
struct Bios;

impl Machine for Bios {
    fn say(line: fmt::Arguments<'_>) {
        console::say(line);
    }

    fn pages(len: usize) -> Result<&'static mut [u8], Failure> {
        memory::pages(len)
    }

    fn counter() -> u64 {
        // SAFETY: every x86-64 processor has it, and reading it changes nothing.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn measure(_: &Hash, _: &PublicKey) -> bool {
        // A BIOS tells the TPM of the boot sector only, which knows the rest by a sum that
        // anybody can meet: nobody could believe what we would say. BIOSes' services for TPMs
        // differ in what they extend, too.
        false
    }

    fn enter(kernel: &'static [u8], ramdisk: &'static [u8]) -> ! {
        enter::enter(kernel, ramdisk)
    }
}

/// Bytes of the stack: hashing recurses.
const STACK_BYTES: usize = 128 << 10;

unsafe extern "C" {
    /// Goes on with `go_on` on the stack that ends at `stack` (`modes.s`).
    fn with_stack(drive: u8, started: u64, stack: *mut u8, go_on: extern "C" fn(u8, u64) -> !)
    -> !;
}

/// Called by `modes.s` with the BIOS's number of the disk, on a small stack: low memory is
/// short.
#[unsafe(no_mangle)]
extern "C" fn bios_main(drive: u8) -> ! {
    let started = Bios::counter();
    match stack() {
        // SAFETY: the memory behind the pointer is this stack's alone, and ends on a page;
        // nothing of the old stack is used again.
        Ok(stack) => unsafe { with_stack(drive, started, stack.as_mut_ptr_range().end, go_on) },
        Err(why) => give_up(why),
    }
}

/// Memory for the stack; with it, all memory is known.
fn stack() -> Result<&'static mut [u8], Failure> {
    if !firmware::reaches_high_memory() {
        return Err(Failure::Machine("its memory above 1 MiB cannot be reached"));
    }
    memory::ask()?;
    memory::pages(STACK_BYTES)
}

extern "C" fn go_on(drive: u8, started: u64) -> ! {
    let Err(why) = start(drive, started);
    give_up(why)
}

/// Says why nothing is started, and leaves the machine to the BIOS.
fn give_up(why: Failure) -> ! {
    console::say(format_args!("cannot start this node: {why}"));
    firmware::wait(READING_TIME);
    firmware::next_device()
}

/// Starts a release; comes back only when there is none to start.
fn start(drive: u8, started: u64) -> Result<Infallible, Failure> {
    let key = release_key()?;
    let disk = Disk::with_slots(FirmwareDisk::new(drive)?)?;
    start_slot::<Bios, _>(disk, &key, started)
}

/// Called by `modes.s` when the processor finds something wrong, with the number of the
/// exception and the two words that it pushed.
#[unsafe(no_mangle)]
extern "C" fn bios_exception(number: u64, first: u64, second: u64) -> ! {
    panic!("exception {number} of the processor ({first:#x}, {second:#x})")
}

/// Says what went wrong and starts the machine again: a new release then uses up its tries
/// and the old one comes back.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::text_mode();
    console::say(format_args!("cannot start the kernel: {}", info.message()));
    firmware::wait(READING_TIME);
    firmware::restart()
}
