//! Waiting for any of several files (poll(2), select(2)).
//!
//! All files are asked first; only if none is ready does a [`Waiter`] go into
//! their hubs, once, and stay there until the call ends.

use crate::error::{Error, Result};
use crate::event::{Events, Observer, Watch};
use crate::file::OpenFile;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};

/// One file of a poll.
#[derive(Default)]
pub struct Entry {
    /// The file; `None` for an entry that is left out.
    pub file: Option<Arc<OpenFile>>,
    /// What is waited for.
    pub wanted: Events,
    /// What holds.
    pub found: Events,
}

impl Entry {
    #[inline]
    fn ask(&mut self) -> bool {
        if let Some(f) = &self.file {
            self.found = f.poll() & (self.wanted | Events::ALWAYS);
        }
        !self.found.is_empty()
    }
}

/// How many entries have something; each is asked once.
pub fn ask(entries: &mut [Entry]) -> usize {
    let mut n = 0;
    for e in entries {
        n += usize::from(e.ask());
    }
    n
}

#[derive(Default)]
struct Waiter {
    told: AtomicBool,
    queue: WaitQueue,
}

impl Observer for Waiter {
    fn notify(&self, _: Events) -> bool {
        self.told.store(true, SeqCst);
        self.queue.wake_all();
        true
    }
}

/// The places where a waiter hangs; taken out when the wait ends.
struct Watches<'a> {
    entries: &'a mut [Entry],
    watches: Vec<Option<Watch>>,
}

impl Drop for Watches<'_> {
    fn drop(&mut self) {
        for (e, w) in self.entries.iter().zip(&self.watches) {
            if let (Some(f), Some(w)) = (&e.file, w)
                && let Some(hub) = f.ops().hub()
            {
                hub.unwatch(*w);
            }
        }
    }
}

/// Waits until an entry has something or `deadline` has come; how many have, 0
/// when the time is up.
///
/// # Errors
/// [`Error::Interrupted`]; [`Error::NoMemory`].
pub fn wait(entries: &mut [Entry], deadline: Option<Instant>) -> Result<usize> {
    let n = ask(entries);
    if n > 0 || deadline.is_some_and(|d| d <= Instant::now()) {
        return Ok(n);
    }
    let waiter = Arc::new(Waiter::default());
    let mut watches = Watches {
        watches: Vec::new(),
        entries,
    };
    watches.watches.try_reserve_exact(watches.entries.len())?;
    for e in &*watches.entries {
        let hub = e.file.as_ref().and_then(|f| f.ops().hub());
        let interest = e.wanted | Events::ALWAYS;
        let watch = match hub {
            Some(hub) => Some(hub.watch(waiter.clone(), interest, false)?),
            None => None,
        };
        watches.watches.push(watch);
    }
    loop {
        let n = ask(watches.entries);
        if n > 0 {
            return Ok(n);
        }
        let told = || waiter.told.swap(false, SeqCst).then_some(());
        match waiter.queue.wait_until(Until::deadline(deadline), told) {
            Ok(()) => {}
            Err(machine::WaitError::TimedOut) => return Ok(ask(watches.entries)),
            Err(machine::WaitError::Interrupted) => {
                return match ask(watches.entries) {
                    0 => Err(Error::Interrupted),
                    n => Ok(n),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd::EventFd;
    use crate::file::OpenFlags;
    use core::time::Duration;
    use machine::io::Source;
    use std::thread;

    fn event() -> Arc<OpenFile> {
        OpenFile::new(
            Arc::new(EventFd::new(0, false)),
            OpenFlags::READ_WRITE,
            None,
            machine::FileCharge::kernel(),
        )
    }

    fn entry(f: &Arc<OpenFile>, wanted: Events) -> Entry {
        Entry {
            file: Some(f.clone()),
            wanted,
            ..Entry::default()
        }
    }

    #[test]
    fn a_thousand_files_wait_for_one() {
        let files: Vec<_> = (0..1000).map(|_| event()).collect();
        let mut entries: Vec<_> = files.iter().map(|f| entry(f, Events::IN)).collect();
        let soon = Instant::now().after(Duration::from_millis(5));
        assert_eq!(wait(&mut entries, Some(soon)), Ok(0));
        let one = files[700].clone();
        let t = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            one.write(&mut Source::kernel(&1u64.to_ne_bytes())).unwrap();
        });
        assert_eq!(wait(&mut entries, None), Ok(1));
        assert_eq!(entries[700].found, Events::IN);
        t.join().unwrap();
    }

    #[test]
    fn what_is_ready_is_told_at_once() {
        let f = event();
        let mut e = [
            entry(&f, Events::IN),
            entry(&f, Events::OUT),
            Entry::default(),
        ];
        assert_eq!(wait(&mut e, None), Ok(1));
        assert_eq!(e[1].found, Events::OUT);
    }
}
