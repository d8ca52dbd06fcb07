//! Sentences for whoever stands before a machine that does not start: on the screen, by the
//! BIOS, and on the first serial port.

use crate::firmware::{Registers, call};
use core::fmt::{self, Write};
use x86_64::instructions::port::Port;

/// Prints a line.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // Neither of them fails.
    let _ = write!(Both, "skep boot: {line}\r\n");
}

/// Makes the screen one for text again.
pub(crate) fn text_mode() {
    call(
        0x10,
        Registers {
            eax: 3,
            ..Registers::default()
        },
    );
}

struct Both;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
const CAN_TAKE_A_BYTE: u8 = 0x20;
/// Looks at the port before a byte is given up: there may be no port.
const LOOKS_MAX: u32 = 100_000;

impl Write for Both {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            call(
                0x10,
                Registers {
                    eax: 0x0e00 | u32::from(byte),
                    ebx: 7,
                    ..Registers::default()
                },
            );
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    let (mut data, mut status) = (Port::<u8>::new(DATA), Port::<u8>::new(LINE_STATUS));
    for _ in 0..LOOKS_MAX {
        // SAFETY: reading the status of a serial port changes nothing else.
        if unsafe { status.read() } & CAN_TAKE_A_BYTE != 0 {
            break;
        }
    }
    // SAFETY: the port only sends the byte; without a port it is lost.
    unsafe { data.write(byte) };
}
