//! Chooses the slot under BIOS, before the second stage of the boot loader reads it.
//!
//! The image builder puts this code into the unused end of the second stage, whose first
//! instruction it makes a jump here. It reads the boot state, chooses as
//! `skep_api::boot::state` says, takes a try from a new release, writes the state back,
//! and names the slot's place in the partition table that the second stage goes by. Then
//! it puts the second stage's first instruction back and goes there.
//!
//! It checks no signatures: the stages after it could not be trusted to run what was
//! checked, for nobody has checked them.
#![no_std]
#![no_main]

core::arch::global_asm!(include_str!("selector.s"));

/// There is no Rust code that could.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
