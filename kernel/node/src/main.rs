//! The kernel binary: the order of boot, read aloud.
#![no_std]
#![no_main]

extern crate alloc;

use machine as _;

/// What the kernel does once threads run.
#[expect(
    unsafe_code,
    reason = "the machine room finds the kernel's main function by this name"
)]
#[unsafe(no_mangle)]
fn skep_main() {
    log::info!("threads run");
}
