//! Counts of system calls and how long they took, while the owner asks for it.
//!
//! One recorder at a time is in force. While there is one, all calls are watched
//! ([`crate::trace::watch_all`]), which a call finds out with the one look that it has
//! for tracing anyway: with no recorder a call costs what it did without this file. A
//! recorder ends with the first call after its time; what it has counted stays to be read
//! until there is another.

use crate::{Thread, World};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use machine::sync::{Once, SpinLock};
use machine::time::Instant;

/// Classes of durations: class `i` has those below 2^i nanoseconds that no class before
/// has; the last has all that is longer.
pub const CLASSES: usize = 40;

/// Names by number, for whoever reads a recorder; those of the system-call table.
static NAMES: Once<&'static [&'static str]> = Once::new();
static CURRENT: SpinLock<Option<Arc<Recorder>>> = SpinLock::new(None);

/// Which calls there are. The kernel says so once at boot.
pub fn set_names(names: &'static [&'static str]) {
    NAMES.call_once(|| names);
}

/// The name of a call; empty if it has none.
#[must_use]
pub fn name(number: usize) -> &'static str {
    NAMES
        .get()
        .and_then(|n| n.get(number))
        .copied()
        .unwrap_or("")
}

/// Counts calls for a time.
pub struct Recorder {
    rows: Vec<Row>,
    /// Whose calls count; everybody's if there is none.
    world: Option<Weak<World>>,
    began: Instant,
    until: Instant,
    over: AtomicBool,
}

#[derive(Default)]
struct Row {
    made: AtomicU64,
    failed: AtomicU64,
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
    classes: Classes,
}

struct Classes([AtomicU32; CLASSES]);

impl Default for Classes {
    fn default() -> Classes {
        Classes([const { AtomicU32::new(0) }; CLASSES])
    }
}

/// What is known of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: usize,
    /// How often it began.
    pub made: u64,
    /// How often it answered with an error.
    pub failed: u64,
    /// Nanoseconds of all that returned.
    pub total_ns: u64,
    /// The longest of them.
    pub longest_ns: u64,
    /// How many by their duration, see [`CLASSES`].
    pub classes: [u32; CLASSES],
}

/// The class of a duration.
fn class(ns: u64) -> usize {
    ((u64::BITS - ns.leading_zeros()) as usize).min(CLASSES - 1)
}

impl Recorder {
    fn new(
        calls: usize,
        world: Option<&Arc<World>>,
        began: Instant,
        until: Instant,
    ) -> crate::Result<Recorder> {
        let mut rows = Vec::new();
        rows.try_reserve_exact(calls)?;
        rows.resize_with(calls, Row::default);
        Ok(Recorder {
            rows,
            world: world.map(Arc::downgrade),
            began,
            until,
            over: AtomicBool::new(false),
        })
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// When it ends, or ended.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// The capsule whose calls count, unless it has gone meanwhile or all count.
    #[must_use]
    pub fn world(&self) -> Option<Arc<World>> {
        self.world.as_ref()?.upgrade()
    }

    /// What it has counted, by number.
    pub fn calls(&self) -> impl Iterator<Item = Call> {
        let made = self.rows.iter().enumerate();
        made.filter(|(_, row)| row.made.load(Relaxed) != 0)
            .map(|(number, row)| Call {
                number,
                made: row.made.load(Relaxed),
                failed: row.failed.load(Relaxed),
                total_ns: row.total_ns.load(Relaxed),
                longest_ns: row.longest_ns.load(Relaxed),
                classes: row.classes.0.each_ref().map(|c| c.load(Relaxed)),
            })
    }

    fn counts(&self, world: &Arc<World>) -> bool {
        let Some(only) = &self.world else { return true };
        only.as_ptr() == Arc::as_ptr(world)
    }

    fn begin(&self, world: &Arc<World>, number: usize, now: Instant) -> Option<Timed> {
        let row = self.rows.get(number).filter(|_| self.counts(world))?;
        row.made.fetch_add(1, Relaxed);
        Some(Timed {
            recorder: self.began,
            number,
            began: now,
        })
    }

    fn end(&self, call: &Timed, failed: bool, now: Instant) {
        let Some(row) = self.rows.get(call.number) else {
            return;
        };
        let ns = now.0.saturating_sub(call.began.0);
        row.failed.fetch_add(u64::from(failed), Relaxed);
        row.total_ns.fetch_add(ns, Relaxed);
        row.longest_ns.fetch_max(ns, Relaxed);
        if let Some(class) = row.classes.0.get(class(ns)) {
            class.fetch_add(1, Relaxed);
        }
    }

    /// Ends it for good, once.
    fn finish(&self) {
        if !self.over.swap(true, SeqCst) {
            crate::trace::watch_all(false);
        }
    }
}

/// A call under way. It holds no reference: a thread may end in a call, and then nothing
/// on its stack is dropped.
pub struct Timed {
    /// When the recorder began that counts it.
    recorder: Instant,
    number: usize,
    began: Instant,
}

/// Records all calls, or those of `world`, until `until`, instead of what was recorded
/// before.
///
/// # Errors
/// [`crate::Error::NoMemory`].
pub fn start(world: Option<&Arc<World>>, until: Instant) -> crate::Result<()> {
    let calls = NAMES.get().map_or(0, |n| n.len());
    let new = Recorder::new(calls, world, Instant::now(), until)?;
    crate::trace::watch_all(true);
    let old = CURRENT.lock().replace(Arc::new(new));
    if let Some(old) = old {
        old.finish();
    }
    Ok(())
}

/// The recorder in force, or the last one.
#[must_use]
pub fn current() -> Option<Arc<Recorder>> {
    CURRENT.lock().clone()
}

/// A thread begins a call.
#[must_use]
pub fn begin(me: &Thread, number: usize) -> Option<Timed> {
    let recorder = current()?;
    if recorder.over.load(Relaxed) {
        return None;
    }
    let now = Instant::now();
    if now >= recorder.until {
        recorder.finish();
        return None;
    }
    recorder.begin(me.process().world(), number, now)
}

/// The call has returned to the thread that began it.
pub fn end(call: &Timed, failed: bool) {
    if let Some(recorder) = current().filter(|r| r.began == call.recorder) {
        recorder.end(call, failed, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        Recorder::new(3, None, Instant(100), Instant(200)).unwrap()
    }

    fn timed(number: usize, began: u64) -> Timed {
        Timed {
            recorder: Instant(100),
            number,
            began: Instant(began),
        }
    }

    #[test]
    fn durations_fall_into_classes_of_powers_of_two() {
        let bounds = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 3),
            (1023, 10),
            (1024, 11),
        ];
        for (ns, expected) in bounds {
            assert_eq!(class(ns), expected, "{ns}");
        }
        assert_eq!(class(u64::MAX), CLASSES - 1);
        assert_eq!(class((1 << (CLASSES - 1)) - 1), CLASSES - 1);
    }

    #[test]
    fn what_returns_is_timed_and_what_does_not_is_counted() {
        let r = recorder();
        for _ in 0..3 {
            r.rows[1].made.fetch_add(1, Relaxed);
        }
        r.end(&timed(1, 100), false, Instant(105));
        r.end(&timed(1, 100), true, Instant(109));
        let calls: Vec<_> = r.calls().collect();
        let [call] = calls.as_slice() else {
            panic!("{calls:?}")
        };
        assert_eq!((call.number, call.made, call.failed), (1, 3, 1));
        assert_eq!((call.total_ns, call.longest_ns), (14, 9));
        assert_eq!((call.classes[3], call.classes[4]), (1, 1));
        assert_eq!(call.classes.iter().sum::<u32>(), 2);
    }

    #[test]
    fn numbers_beyond_the_table_are_nobodys() {
        let r = recorder();
        r.end(&timed(3, 100), false, Instant(101));
        assert_eq!(r.calls().count(), 0);
    }
}
