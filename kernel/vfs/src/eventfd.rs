//! eventfd(2): a counter to wait for.

use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::file::{FileOps, OpenFile};
use core::any::Any;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use machine::io::{Sink, Source};
use machine::wait::Until;

/// The counter never gets there.
const LIMIT: u64 = u64::MAX;

/// A counter. Reading takes all of it, or one with `semaphore`; writing adds.
pub struct EventFd {
    count: AtomicU64,
    semaphore: bool,
    hub: PollHub,
}

impl EventFd {
    /// A counter that starts at `count`.
    #[must_use]
    pub fn new(count: u32, semaphore: bool) -> EventFd {
        EventFd {
            count: AtomicU64::new(u64::from(count)),
            semaphore,
            hub: PollHub::new(),
        }
    }

    fn take(&self) -> Option<u64> {
        let (semaphore, rest) = (self.semaphore, |c: u64| c.checked_sub(1));
        let less = |c| rest(c).map(|r| if semaphore { r } else { 0 });
        let before = self.count.fetch_update(SeqCst, Relaxed, less).ok()?;
        Some(if semaphore { 1 } else { before })
    }

    fn add(&self, n: u64) -> Option<()> {
        let more = |c: u64| c.checked_add(n).filter(|s| *s < LIMIT);
        self.count.fetch_update(SeqCst, Relaxed, more).ok()?;
        Some(())
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        if sink.left() < 8 {
            return Err(Error::Invalid);
        }
        let got = match self.take() {
            Some(n) => n,
            None if file.nonblocking() => return Err(Error::WouldBlock),
            None => self.hub.wait_readable(Until::INTERRUPTED, || self.take())?,
        };
        self.hub.notify(Events::WRITABLE);
        Ok(sink.put(&got.to_ne_bytes())?)
    }

    fn write(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        if source.left() < 8 {
            return Err(Error::Invalid);
        }
        let mut raw = [0; 8];
        source.take(&mut raw)?;
        let n = u64::from_ne_bytes(raw);
        if n == LIMIT {
            return Err(Error::Invalid);
        }
        if self.add(n).is_none() {
            if file.nonblocking() {
                return Err(Error::WouldBlock);
            }
            self.hub.wait_writable(Until::INTERRUPTED, || self.add(n))?;
        }
        self.hub.notify(Events::READABLE);
        Ok(8)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let mut e = Events::empty();
        let count = self.count.load(SeqCst);
        e.set(Events::READABLE, count > 0);
        e.set(Events::WRITABLE, count < LIMIT - 1);
        e
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.hub)
    }

    fn info(&self, _: &OpenFile, out: &mut dyn Write) {
        let _ = writeln!(out, "eventfd-count: {:16x}", self.count.load(Relaxed));
    }

    fn name(&self, out: &mut dyn Write) {
        let _ = out.write_str("anon_inode:[eventfd]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::OpenFlags;
    use std::sync::Arc;
    use std::thread;

    fn new(count: u32, semaphore: bool) -> Arc<OpenFile> {
        let ops = Arc::new(EventFd::new(count, semaphore));
        OpenFile::new(
            ops,
            OpenFlags::READ_WRITE,
            None,
            machine::FileCharge::kernel(),
        )
    }

    fn get(f: &OpenFile) -> Result<u64> {
        let mut b = [0; 8];
        f.read(&mut Sink::kernel(&mut b))?;
        Ok(u64::from_ne_bytes(b))
    }

    fn add(f: &OpenFile, n: u64) -> Result<usize> {
        f.write(&mut Source::kernel(&n.to_ne_bytes()))
    }

    #[test]
    fn counts() {
        let f = new(3, false);
        f.set_nonblocking(true);
        add(&f, 4).unwrap();
        assert_eq!(get(&f), Ok(7));
        assert_eq!(get(&f), Err(Error::WouldBlock));
        assert_eq!(add(&f, u64::MAX), Err(Error::Invalid));
        add(&f, u64::MAX - 1).unwrap();
        assert_eq!(add(&f, 1), Err(Error::WouldBlock));
        assert_eq!(f.poll() & Events::OUT, Events::empty());
    }

    #[test]
    fn a_semaphore_wakes_one_for_each() {
        let f = new(0, true);
        let waiters: std::vec::Vec<_> = (0..3)
            .map(|_| {
                let f = f.clone();
                thread::spawn(move || get(&f))
            })
            .collect();
        add(&f, 3).unwrap();
        for w in waiters {
            assert_eq!(w.join().unwrap(), Ok(1));
        }
    }
}
