//! Words before there is a kernel: the first serial port, polled.

use core::fmt;
use x86_64::instructions::port::Port;

const COM1: u16 = 0x3f8;
/// Line status register, and its bit "transmitter holding register empty".
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// Reads of the status before a port that is not there is given up on.
const POLLS_MAX: u32 = 100_000;

/// The first serial port, as a text sink.
pub(crate) struct Com1;

impl fmt::Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            put(byte);
        }
        Ok(())
    }
}

fn put(byte: u8) {
    let mut status = Port::<u8>::new(LINE_STATUS);
    let mut data = Port::<u8>::new(COM1);
    // SAFETY: reading the status of a UART has no side effect that matters
    // here, and nothing else drives the port before the kernel runs.
    let ready = (0..POLLS_MAX).any(|_| unsafe { status.read() } & TRANSMIT_EMPTY != 0);
    if ready {
        // SAFETY: sends one byte; the port is idle, as just seen.
        unsafe { data.write(byte) };
    }
}
