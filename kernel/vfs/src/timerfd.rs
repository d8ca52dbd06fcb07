//! timerfd_create(2): a timer to wait for.

use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::file::{FileOps, OpenFile};
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::fmt::Write;
use core::time::Duration;
use machine::io::Sink;
use machine::sync::SpinLock;
use machine::time::{self, Instant};
use machine::timer::Timer;
use machine::wait::Until;

/// The clock a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// UTC; an absolute time is taken as the clock stands when the timer is set.
    Real,
    /// Time since boot.
    Monotonic,
}

/// When a timer expires: first, and then again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Time to the first expiration; zero for a timer that is off.
    pub value: Duration,
    /// Time between further ones; zero for none.
    pub interval: Duration,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The next expiration that was not counted; `None` when the timer is off.
    due: Option<Instant>,
    interval: Duration,
    /// Expirations since the last read.
    expired: u64,
    /// It has rung since the last read: readers know, and further expirations are
    /// counted when somebody asks. So a period costs nothing that nobody reads.
    rung: bool,
}

impl State {
    /// Counts what has expired by now.
    fn advance(&mut self, now: Instant) {
        let Some(due) = self.due.filter(|d| *d <= now) else {
            return;
        };
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        if interval == 0 {
            self.expired += 1;
            self.due = None;
            return;
        }
        let n = (now.0 - due.0) / interval + 1;
        self.expired = self.expired.saturating_add(n);
        let ahead = n.saturating_mul(interval);
        self.due = Some(Instant(due.0.saturating_add(ahead)));
    }
}

/// A timer behind a descriptor.
pub struct TimerFd {
    clock: Clock,
    state: SpinLock<State>,
    hub: PollHub,
    timer: Timer,
}

impl TimerFd {
    /// A timer that is off.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<TimerFd> {
        Arc::new_cyclic(|me: &Weak<TimerFd>| {
            let me = me.clone();
            TimerFd {
                clock,
                state: SpinLock::new(State::default()),
                hub: PollHub::new(),
                timer: Timer::new(move || {
                    if let Some(t) = me.upgrade() {
                        t.ring();
                    }
                }),
            }
        })
    }

    fn ring(&self) {
        let mut state = self.state.lock();
        state.advance(Instant::now());
        state.rung = state.expired > 0;
        if !state.rung {
            // Set anew meanwhile. Under the lock, as everywhere: the last to change
            // the state is the last to set the timer.
            self.timer.set(state.due);
            return;
        }
        drop(state);
        self.hub.notify(Events::READABLE);
    }

    /// Sets it; what was set before. With `absolute` the value is a time of the
    /// timer's clock.
    pub fn set(&self, new: Setting, absolute: bool) -> Setting {
        let now = Instant::now();
        let old = self.get();
        let due = (!new.value.is_zero()).then(|| {
            let start = match (absolute, self.clock) {
                (false, _) => return now.after(new.value),
                (true, Clock::Monotonic) => 0,
                (true, Clock::Real) => time::wall_offset(),
            };
            let at = i128::try_from(new.value.as_nanos()).unwrap_or(i128::MAX);
            let at = at.saturating_sub(i128::from(start)).max(0);
            Instant(u64::try_from(at).unwrap_or(u64::MAX))
        });
        let mut state = self.state.lock();
        *state = State {
            due,
            interval: new.interval,
            expired: 0,
            rung: false,
        };
        self.timer.set(due);
        drop(state);
        old
    }

    /// Time to the next expiration, and the interval.
    #[must_use]
    pub fn get(&self) -> Setting {
        let now = Instant::now();
        let mut state = *self.state.lock();
        state.advance(now);
        Setting {
            // A timer that is on has at least a nanosecond left.
            value: state.due.map_or(Duration::ZERO, |d| {
                d.since(now).max(Duration::from_nanos(1))
            }),
            interval: state.interval,
        }
    }

    fn take(&self) -> Option<u64> {
        let mut state = self.state.lock();
        state.advance(Instant::now());
        let n = core::mem::take(&mut state.expired);
        if n > 0 && core::mem::take(&mut state.rung) {
            self.timer.set(state.due);
        }
        (n > 0).then_some(n)
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        if sink.left() < 8 {
            return Err(Error::Invalid);
        }
        let n = match self.take() {
            Some(n) => n,
            None if file.nonblocking() => return Err(Error::WouldBlock),
            None => self.hub.wait_readable(Until::INTERRUPTED, || self.take())?,
        };
        Ok(sink.put(&n.to_ne_bytes())?)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let mut state = self.state.lock();
        state.advance(Instant::now());
        if state.expired > 0 {
            Events::READABLE
        } else {
            Events::empty()
        }
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.hub)
    }

    fn name(&self, out: &mut dyn Write) {
        let _ = out.write_str("anon_inode:[timerfd]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Observer;
    use crate::file::OpenFlags;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    fn read(f: &OpenFile) -> Result<u64> {
        let mut b = [0; 8];
        f.read(&mut Sink::kernel(&mut b))?;
        Ok(u64::from_ne_bytes(b))
    }

    #[test]
    fn expirations_are_counted() {
        machine::timer::start().unwrap();
        let t = TimerFd::new(Clock::Monotonic);
        let f = OpenFile::new(
            t.clone(),
            OpenFlags::READ_WRITE,
            None,
            machine::FileCharge::kernel(),
        );
        let ms = Duration::from_millis;
        t.set(
            Setting {
                value: ms(5),
                interval: ms(5),
            },
            false,
        );
        assert!(read(&f).unwrap() >= 1);
        std::thread::sleep(ms(30));
        assert!(read(&f).unwrap() >= 4);
        let off = t.set(Setting::default(), false);
        assert_eq!(off.interval, ms(5));
        assert!(off.value <= ms(5));
        f.set_nonblocking(true);
        assert_eq!(read(&f), Err(Error::WouldBlock));
        assert_eq!(t.get(), Setting::default());
    }

    struct Bell(AtomicU32);
    impl Observer for Bell {
        fn notify(&self, _: Events) -> bool {
            self.0.fetch_add(1, Relaxed);
            true
        }
    }

    #[test]
    fn a_short_period_rings_once_for_each_read() {
        machine::timer::start().unwrap();
        let t = TimerFd::new(Clock::Monotonic);
        let bell = Arc::new(Bell(AtomicU32::new(0)));
        t.hub.watch(bell.clone(), Events::IN, false).unwrap();
        let nanosecond = Duration::from_nanos(1);
        let setting = Setting {
            value: nanosecond,
            interval: nanosecond,
        };
        t.set(setting, false);
        for round in 1..=2 {
            while bell.0.load(Relaxed) < round {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(bell.0.load(Relaxed), round);
            // All of the time counts, rung for or not.
            assert!(t.take().unwrap() >= 20_000_000);
        }
    }

    #[test]
    fn a_time_in_the_past_expires_at_once() {
        let t = TimerFd::new(Clock::Real);
        let f = OpenFile::new(
            t.clone(),
            OpenFlags::READ_WRITE,
            None,
            machine::FileCharge::kernel(),
        );
        let value = Duration::from_nanos(1);
        t.set(
            Setting {
                value,
                interval: Duration::ZERO,
            },
            true,
        );
        assert_eq!(f.poll(), Events::READABLE);
        assert_eq!(read(&f), Ok(1));
        assert_eq!(f.poll(), Events::empty());
    }
}
