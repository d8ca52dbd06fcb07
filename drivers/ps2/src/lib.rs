//! The keyboard of a PC: the i8042 controller (IBM PS/2 Technical Reference; Intel 8242
//! datasheet) and the scan codes that come through it.
//!
//! The controller is set to translate whatever the keyboard sends to scan code set 1,
//! which is what firmware leaves behind everywhere. A thread sleeps until the
//! controller interrupts, and gives keys to [`machine::keys`].
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod controller;
mod scancode;

use controller::{Controller, Registers};
use core::fmt;
use machine::chipset;
use machine::irq::IrqEvent;
use machine::keys;
use machine::thread::Builder;
use machine::wait::Until;
use scancode::Decoder;

/// Why there is no keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyboardError {
    /// Nothing answers as a keyboard controller does.
    NoController,
    /// No keyboard is plugged in.
    NoKeyboard,
    /// Its interrupt cannot be had.
    NoInterrupt,
    /// No memory for the driver's thread.
    NoMemory,
}

impl fmt::Display for KeyboardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyboardError::NoController => "there is no keyboard controller",
            KeyboardError::NoKeyboard => "no keyboard is plugged in",
            KeyboardError::NoInterrupt => "no interrupt can be had",
            KeyboardError::NoMemory => "no memory for the driver's thread",
        })
    }
}

/// The keyboard's interrupt in the ISA numbering.
const IRQ: u8 = 1;
/// Bytes taken in before the interrupt is allowed again: more than a keyboard buffers.
const BURST_MAX: usize = 64;

/// Takes the keyboard into use and starts the driver's thread.
///
/// # Errors
/// [`KeyboardError`].
pub fn start() -> Result<(), KeyboardError> {
    let controller = Controller::new(chipset::keyboard_controller());
    controller.set_up()?;
    let event = IrqEvent::line("keyboard", IRQ).ok_or(KeyboardError::NoInterrupt)?;
    Builder::new("keyboard")
        .spawn(move || serve(&controller, &event))
        .map(drop)
        .map_err(|_| KeyboardError::NoMemory)
}

fn serve(controller: &Controller<impl Registers>, event: &IrqEvent) {
    let mut decoder = Decoder::default();
    loop {
        take_in(controller, &mut decoder);
        event.rearm();
        // What came before the interrupt was allowed again makes no new one.
        take_in(controller, &mut decoder);
        // Without deadline and signals this ends by an interrupt only.
        let _ = event.wait(Until::default());
    }
}

fn take_in(controller: &Controller<impl Registers>, decoder: &mut Decoder) {
    for _ in 0..BURST_MAX {
        let Some(byte) = controller.take() else {
            return;
        };
        if let Some(key) = decoder.feed(byte) {
            keys::press(key);
        }
    }
}
