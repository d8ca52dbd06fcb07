//! What a capsule's programs print: a bounded ring with offsets that only grow.
//!
//! The log belongs to a capsule's *name* and goes on over its restarts. The ring
//! begins small and grows with what is printed, up to [`RING_BYTES`].

use crate::events::Hub;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use machine::io::Source;
use machine::sync::SpinLock;
use skep_api::control::{CapsuleId, Event, LOG_CHUNK_BYTES_MAX};
use vfs::{FileOps, OpenFile};

/// Older bytes than these are forgotten.
pub const RING_BYTES: usize = 64 * 1024;
/// Bytes taken from a program at a time, on the stack.
const CHUNK: usize = 512;

#[derive(Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Bytes ever written.
    end: u64,
}

impl Ring {
    /// Takes `bytes`, at most [`CHUNK`]. Without memory to grow, the oldest go.
    fn append(&mut self, bytes: &[u8]) {
        let room = RING_BYTES - self.bytes.len();
        let grown = self.bytes.try_reserve(bytes.len().min(room)).is_ok();
        let room = if grown {
            room
        } else {
            self.bytes.capacity() - self.bytes.len()
        };
        let excess = bytes.len().saturating_sub(room).min(self.bytes.len());
        self.bytes.drain(..excess);
        let fits = self.bytes.capacity() - self.bytes.len();
        let kept = bytes.len().min(fits);
        self.bytes
            .extend(bytes.get(bytes.len() - kept..).unwrap_or_default());
        self.end += bytes.len() as u64;
    }

    fn begin(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }
}

/// The log of the capsules of one name.
pub struct Log {
    ring: SpinLock<Ring>,
    /// The capsule that writes now, by number.
    writer: AtomicU32,
    /// Readers have been told that there is something new.
    announced: AtomicBool,
    hub: Arc<Hub>,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset of the first byte.
    pub from: u64,
    /// Offset after the newest byte there is.
    pub end: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Log {
    /// An empty log whose news go to `hub`.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Arc<Log> {
        Arc::new(Log {
            ring: SpinLock::new(Ring::default()),
            writer: AtomicU32::new(0),
            announced: AtomicBool::new(false),
            hub,
        })
    }

    /// The capsule `id` writes from now on.
    pub fn set_writer(&self, id: CapsuleId) {
        self.writer.store(id.0, Relaxed);
    }

    /// Adds what a program printed.
    pub fn append(&self, bytes: &[u8]) {
        for chunk in bytes.chunks(CHUNK) {
            self.ring.lock().append(chunk);
        }
        if !self.announced.swap(true, Relaxed) {
            let capsule = CapsuleId(self.writer.load(Relaxed));
            self.hub.emit(Event::LogAvailable { capsule });
        }
    }

    /// At most `max` bytes from offset `from` on; what is forgotten is skipped.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn read(&self, from: u64, max: usize) -> Result<Piece, machine::AllocError> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(max.min(LOG_CHUNK_BYTES_MAX).min(RING_BYTES))
            .map_err(|_| machine::AllocError::OutOfMemory)?;
        // What is written from here on is news again.
        self.announced.store(false, Relaxed);
        let ring = self.ring.lock();
        let from = from.clamp(ring.begin(), ring.end);
        // Within the ring, so it fits.
        let skip = (from - ring.begin()) as usize;
        let room = bytes.capacity().min(max.min(LOG_CHUNK_BYTES_MAX));
        bytes.extend(ring.bytes.iter().skip(skip).take(room));
        Ok(Piece {
            from,
            end: ring.end,
            bytes,
        })
    }
}

/// A line being put together for the node's own log.
struct Line {
    bytes: Vec<u8>,
}

const LINE_MAX: usize = 400;

/// Standard output and standard error of a capsule.
pub struct Output {
    log: Arc<Log>,
    /// The node's log shows it too, with the unfinished line.
    echo: Option<(Echo, SpinLock<Line>)>,
}

/// How the node's own log shows what a capsule prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Echo {
    /// As messages after this name.
    Named(alloc::string::String),
    /// As bare lines.
    Raw,
}

impl Output {
    /// Output into `log`, and into the node's log as lines of `echo`.
    #[must_use]
    pub fn new(log: Arc<Log>, echo: Option<Echo>) -> Arc<Output> {
        let line = || {
            SpinLock::new(Line {
                bytes: Vec::with_capacity(LINE_MAX),
            })
        };
        Arc::new(Output {
            log,
            echo: echo.map(|how| (how, line())),
        })
    }

    fn print(&self, bytes: &[u8]) {
        self.log.append(bytes);
        let Some((echo, line)) = &self.echo else {
            return;
        };
        let mut line = line.lock();
        for byte in bytes {
            if *byte == b'\n' || line.bytes.len() == LINE_MAX {
                match echo {
                    Echo::Named(name) => log::info!("{name}: {}", Printable(&line.bytes)),
                    Echo::Raw => {
                        machine::klog::write_line(format_args!("{}", Printable(&line.bytes)))
                    }
                }
                line.bytes.clear();
            }
            if *byte != b'\n' {
                line.bytes.push(*byte);
            }
        }
    }
}

/// Text of a program as far as it can do no harm on a terminal.
struct Printable<'a>(&'a [u8]);

impl core::fmt::Display for Printable<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                out.write_char(if c.is_control() && c != '\t' { '.' } else { c })?;
            }
            if !chunk.invalid().is_empty() {
                out.write_char('\u{fffd}')?;
            }
        }
        Ok(())
    }
}

impl FileOps for Output {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn write(&self, _: &OpenFile, source: &mut Source<'_>) -> vfs::Result<usize> {
        let mut chunk = [0; CHUNK];
        while source.left() > 0 {
            let n = match source.take(&mut chunk) {
                Ok(n) => n,
                Err(_) if source.moved() > 0 => break,
                Err(fault) => return Err(fault.into()),
            };
            self.print(chunk.get(..n).unwrap_or_default());
            machine::thread::cond_resched();
        }
        Ok(source.moved())
    }

    fn stat(&self) -> vfs::Stat {
        vfs::Stat {
            nlink: 1,
            mode: vfs::Kind::Fifo.mode() | 0o600,
            blksize: 4096,
            ..vfs::Stat::default()
        }
    }

    /// `/dev/stdout` is opened by many a server's log file setting.
    fn reopen(
        self: Arc<Self>,
        _: &OpenFile,
        _: &vfs::Opening<'_>,
    ) -> vfs::Result<Arc<dyn FileOps>> {
        Ok(self)
    }

    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = out.write_str("pipe:[log]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use vfs::OpenFlags;

    fn log() -> Arc<Log> {
        Log::new(Hub::new())
    }

    #[test]
    fn old_bytes_leave_and_offsets_stay_true() {
        let log = log();
        for number in 0..RING_BYTES as u64 + 10 {
            log.append(&[number as u8]);
        }
        let end = RING_BYTES as u64 + 10;
        let read = |from, max| log.read(from, max).unwrap();
        assert_eq!((read(0, 2).from, read(0, 2).bytes), (10, vec![10, 11]));
        let last = read(end - 1, 9);
        assert_eq!((last.from, last.bytes), (end - 1, vec![(end - 1) as u8]));
        assert_eq!((read(u64::MAX, 9).from, read(u64::MAX, 9).end), (end, end));
        assert_eq!(read(u64::MAX, 9).bytes, vec![]);
    }

    #[test]
    fn a_program_prints_into_the_log() {
        let log = log();
        let file = OpenFile::new(
            Output::new(log.clone(), Some(Echo::Named("x".into()))),
            OpenFlags::WRITE_ONLY,
            None,
            machine::FileCharge::kernel(),
        );
        let text = "line\n".repeat(300);
        let n = file.write(&mut Source::kernel(text.as_bytes())).unwrap();
        assert_eq!(n, text.len());
        assert_eq!(log.read(0, 1 << 20).unwrap().bytes, text.as_bytes());
        assert!(
            file.read(&mut machine::io::Sink::kernel(&mut [0; 4]))
                .is_err()
        );
    }
}
