//! The kernel's log: one line a message, to the serial line, to further sinks,
//! and to a ring that the crash record and the API read.

use crate::sync::{IrqLock, Once};
#[cfg(target_os = "none")]
use crate::time::Instant;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes the ring keeps.
pub const RING_BYTES: usize = 32 << 10;
const LINE_MAX: usize = 512;
const SINKS_MAX: usize = 4;

/// Another place log lines go to.
pub trait LogSink: Sync {
    /// Takes a line with its newline. Must not log, wait or allocate.
    fn line(&self, text: &[u8]);
}

struct Ring {
    bytes: [u8; RING_BYTES],
    /// Bytes ever written; the ring holds the last of them.
    written: u64,
    /// Somebody uses the serial line for something else, since so many were written.
    held_at: Option<u64>,
}

static RING: IrqLock<Ring> = IrqLock::new(Ring {
    bytes: [0; RING_BYTES],
    written: 0,
    held_at: None,
});
static SINKS: [Once<&'static dyn LogSink>; SINKS_MAX] = [const { Once::new() }; SINKS_MAX];

/// Whether lines go to the serial line.
static SERIAL: AtomicBool = AtomicBool::new(true);

/// Sends lines to the serial line, as at first, or does so no more. A panic is
/// told there all the same.
pub fn set_serial(on: bool) {
    SERIAL.store(on, Relaxed);
}

/// Whether the log goes to the serial line.
#[must_use]
pub fn has_serial() -> bool {
    SERIAL.load(Relaxed)
}

/// Keeps messages from the serial line until [`release_serial`]; a panic is told there all
/// the same.
pub fn hold_serial() {
    let mut ring = RING.lock();
    ring.held_at = ring.held_at.or(Some(ring.written));
}

/// Lets messages go to the serial line again, first those that were kept: what the ring
/// still has of them.
pub fn release_serial() {
    let mut piece = [0; 256];
    loop {
        let mut ring = RING.lock();
        let Some(from) = ring.held_at else { return };
        let (start, n) = ring.copy(from, &mut piece);
        if n == 0 {
            ring.held_at = None;
            return;
        }
        ring.held_at = Some(start + n as u64);
        drop(ring);
        if SERIAL.load(Relaxed) {
            crate::arch::console_write(&piece[..n]);
        }
    }
}

/// A line that is cut where it gets too long.
struct Line {
    text: [u8; LINE_MAX],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        // One byte stays free for the newline.
        let n = s.len().min(LINE_MAX - 1 - self.len);
        self.text[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

#[cfg(target_os = "none")]
struct Logger;

#[cfg(target_os = "none")]
impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut line = Line {
            text: [0; LINE_MAX],
            len: 0,
        };
        let ms = Instant::now().0 / 1_000_000;
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            _ => "",
        };
        // Writing to a `Line` cannot fail.
        let _ = write!(
            line,
            "[{:4}.{:03}] {level}{}",
            ms / 1000,
            ms % 1000,
            record.args()
        );
        let len = line.len;
        line.text[len] = b'\n';
        write(&line.text[..=len]);
    }

    fn flush(&self) {}
}

/// Makes this the log of the `log` crate's macros.
#[cfg(target_os = "none")]
pub(crate) fn init() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Writes a line without time and level, cut where it gets too long.
pub fn write_line(text: core::fmt::Arguments<'_>) {
    let mut line = Line {
        text: [0; LINE_MAX],
        len: 0,
    };
    // Writing to a `Line` cannot fail.
    let _ = line.write_fmt(text);
    let len = line.len;
    line.text[len] = b'\n';
    write(&line.text[..=len]);
}

/// Writes raw text to all places.
pub fn write(text: &[u8]) {
    let mut ring = RING.lock();
    for b in text {
        let at = (ring.written % RING_BYTES as u64) as usize;
        ring.bytes[at] = *b;
        ring.written += 1;
    }
    let is_held = ring.held_at.is_some();
    drop(ring);
    if SERIAL.load(Relaxed) && !is_held {
        crate::arch::console_write(text);
    }
    for sink in SINKS.iter().filter_map(Once::get) {
        sink.line(text);
    }
}

/// Sends lines to `sink` too; whether there was room for one more sink.
pub fn add_sink(sink: &'static dyn LogSink) -> bool {
    for slot in &SINKS {
        let mut mine = false;
        slot.call_once(|| {
            mine = true;
            sink
        });
        if mine {
            return true;
        }
    }
    false
}

/// Copies log bytes from offset `from` on (counted from boot) to `out`; the offset
/// they really begin at, and how many there are. What the ring has lost is skipped.
pub fn read(from: u64, out: &mut [u8]) -> (u64, usize) {
    RING.lock().copy(from, out)
}

impl Ring {
    /// As [`read`].
    fn copy(&self, from: u64, out: &mut [u8]) -> (u64, usize) {
        let start = from
            .max(self.written.saturating_sub(RING_BYTES as u64))
            .min(self.written);
        let n = ((self.written - start) as usize).min(out.len());
        for (i, b) in out[..n].iter_mut().enumerate() {
            *b = self.bytes[((start + i as u64) % RING_BYTES as u64) as usize];
        }
        (start, n)
    }
}

/// Bytes ever logged.
#[must_use]
pub fn written() -> u64 {
    RING.lock().written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_bytes() {
        let before = written();
        write(b"first\n");
        for _ in 0..RING_BYTES {
            write(b"x");
        }
        write(b"last\n");
        let mut out = [0; 16];
        let (start, n) = read(written() - 5, &mut out);
        assert_eq!((start, &out[..n]), (written() - 5, &b"last\n"[..]));
        let (start, _) = read(before, &mut out);
        assert!(start > before);
    }
}
