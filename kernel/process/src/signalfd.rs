//! Signals read from a descriptor (signalfd(2)).

use crate::signal::{SigInfo, SigSet, Signal, UNSTOPPABLE, code};
use crate::{Process, Thread};
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::io::Sink;
use machine::thread;
use machine::wait::Until;
use vfs::{Error, Events, FileOps, OpenFile, PollHub, Result};

/// Bytes of `struct signalfd_siginfo`.
const RECORD: usize = 128;

/// What a signalfd is open on: signals of its set that are pending for whoever
/// reads it.
pub struct SignalFd {
    set: AtomicU64,
    /// Whose signals are waited for: the process that made it.
    owner: Arc<Process>,
}

impl SignalFd {
    /// For the signals of `set`, made by `owner`.
    #[must_use]
    pub fn new(set: SigSet, owner: Arc<Process>) -> SignalFd {
        let fd = SignalFd {
            set: AtomicU64::new(0),
            owner,
        };
        fd.set(set);
        fd
    }

    /// Changes the set.
    pub fn set(&self, set: SigSet) {
        self.set.store(set.without(UNSTOPPABLE).0, Relaxed);
        self.owner.signal_hub().notify(Events::READABLE);
    }

    fn wanted(&self) -> SigSet {
        SigSet(self.set.load(Relaxed))
    }

    fn take(&self) -> Option<SigInfo> {
        let current = thread::current();
        let me = current.data::<Arc<Thread>>()?;
        me.take_signal(self.wanted()).map(|(_, info)| info)
    }
}

/// `struct signalfd_siginfo` of `info`.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| {
        for (o, b) in out.iter_mut().skip(at).zip(bytes) {
            *o = *b;
        }
    };
    let [a, b, c, d] = info.payload;
    let low = |v: u64| (v as u32).to_le_bytes();
    let high = |v: u64| ((v >> 32) as u32).to_le_bytes();
    put(0, &info.signo.to_le_bytes());
    put(4, &info.errno.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    match (info.signal(), info.code) {
        (_, code::SI_TIMER) => {
            put(24, &low(a));
            put(32, &high(a));
            put(44, &low(b));
            put(48, &b.to_le_bytes());
        }
        (Some(Signal::CHLD), code) if code > 0 => {
            put(12, &low(a));
            put(16, &high(a));
            put(40, &low(b));
            put(56, &c.to_le_bytes());
            put(64, &d.to_le_bytes());
        }
        (Some(Signal::SEGV | Signal::BUS | Signal::ILL | Signal::FPE), code) if code > 0 => {
            put(72, &a.to_le_bytes());
        }
        _ => {
            put(12, &low(a));
            put(16, &high(a));
            if info.code < 0 {
                put(44, &low(b));
                put(48, &b.to_le_bytes());
            }
        }
    }
    out
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        if sink.left() < RECORD {
            return Err(Error::Invalid);
        }
        let mut next = match self.take() {
            Some(i) => i,
            None if file.nonblocking() => return Err(Error::WouldBlock),
            None => {
                let hub = self.owner.signal_hub();
                hub.wait_readable(Until::INTERRUPTED, || self.take())?
            }
        };
        let mut done = 0;
        loop {
            sink.put(&record(&next))?;
            done += RECORD;
            if sink.left() < RECORD {
                return Ok(done);
            }
            match self.take() {
                Some(i) => next = i,
                None => return Ok(done),
            }
        }
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let current = thread::current();
        let pending = match current.data::<Arc<Thread>>() {
            Some(me) => me.pending_signals(),
            None => SigSet::EMPTY,
        };
        match pending.and(self.wanted()).is_empty() {
            true => Events::empty(),
            false => Events::READABLE,
        }
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(self.owner.signal_hub())
    }

    fn info(&self, _: &OpenFile, out: &mut dyn core::fmt::Write) {
        let _ = writeln!(out, "sigmask:\t{:016x}", self.wanted().0);
    }

    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = out.write_str("anon_inode:[signalfd]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_layout_of_signalfd_2() {
        let r = record(&SigInfo::child(code::CLD_EXITED, 7, 9, 3, (1, 2)));
        let word = |at: usize| u32::from_le_bytes(r[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(8)), (17, 1));
        assert_eq!((word(12), word(16), word(40)), (7, 9, 3));
        assert_eq!((word(56), word(64)), (1, 2));
        let r = record(&SigInfo::timer(Signal::ALRM, 5, 6, 77));
        let word = |at: usize| u32::from_le_bytes(r[at..at + 4].try_into().unwrap());
        assert_eq!((word(24), word(32), word(44)), (5, 6, 77));
    }
}
