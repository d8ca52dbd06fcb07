//! Sentences for whoever stands before a machine that does not start: on the firmware's
//! console while there is one, and on the first serial port.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::port::Port;

/// Whether the firmware's services, its console among them, are still there.
static HAS_FIRMWARE: AtomicBool = AtomicBool::new(true);

/// Ends the use of the firmware's console.
pub(crate) fn leave_firmware() {
    HAS_FIRMWARE.store(false, Ordering::Relaxed);
}

/// Whether the firmware is still there.
pub(crate) fn has_firmware() -> bool {
    HAS_FIRMWARE.load(Ordering::Relaxed)
}

/// Prints a line.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    if has_firmware() {
        // A screen that cannot be written to is no reason not to start.
        let _ = uefi::system::with_stdout(|screen| writeln!(screen, "skep boot: {line}"));
    }
    let _ = write!(Com1, "skep boot: {line}\r\n");
}

/// The first serial port, as the firmware set it up.
struct Com1;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
const CAN_TAKE_A_BYTE: u8 = 0x20;
/// Looks at the port before a byte is given up: there may be no port.
const LOOKS_MAX: u32 = 100_000;

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (mut data, mut status) = (Port::<u8>::new(DATA), Port::<u8>::new(LINE_STATUS));
        for byte in text.bytes() {
            for _ in 0..LOOKS_MAX {
                // SAFETY: reading the status of a serial port changes nothing else.
                if unsafe { status.read() } & CAN_TAKE_A_BYTE != 0 {
                    break;
                }
            }
            // SAFETY: the port only sends the byte; without a port it is lost.
            unsafe { data.write(byte) };
        }
        Ok(())
    }
}
