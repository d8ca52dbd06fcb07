//! The one deadline that a healthy node always has: when to look after capsules next.
//!
//! tokio keeps its timers in a wheel and wakes several times on the way to one that is
//! seconds away. A timer of the kernel wakes once, at the time, and so is all that an
//! idle node wakes for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::supervisor::Millis;

/// A timer of the kernel.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// What it is set to.
    at: Option<Millis>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    ///
    /// The kernel has no more timers or descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types whose descriptor may change; \
                      an OwnedFd's does not"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, at: None })
    }

    /// Waits from `now` until `at`, or for ever. Given up half-way and waited for again, it goes on.
    ///
    /// # Errors
    ///
    /// The timer cannot be set or read.
    pub async fn wait(&mut self, now: Millis, at: Option<Millis>) -> io::Result<()> {
        if self.at != at {
            self.set(now, at)?;
        }
        loop {
            let mut ready = self.timer.readable().await?;
            match rustix::io::read(&self.timer, &mut [0; 8]) {
                Ok(_) => {
                    self.at = None;
                    return Ok(());
                }
                // It was set anew since it went off.
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set(&mut self, now: Millis, at: Option<Millis>) -> io::Result<()> {
        // Rounded up: waking too early would only mean to wait again. And never
        // nothing, which takes the alarm back.
        let left = at.map(|at| Duration::from_millis(at.saturating_sub(now) + 1));
        let left = left.unwrap_or_default();
        let value = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value)?;
        self.at = at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_goes_off_at_its_time_and_can_be_moved() {
        let mut alarm = Alarm::new().unwrap();
        let start = Instant::now();
        let short = Duration::from_millis(20);
        for far in [Some(60_000), None] {
            let waited = tokio::time::timeout(short, alarm.wait(0, far)).await;
            assert!(waited.is_err());
        }
        let before = start.elapsed();
        alarm.wait(100, Some(130)).await.unwrap();
        let took = start.elapsed() - before;
        assert!(took >= Duration::from_millis(30) && took < Duration::from_secs(50));
        // What is past goes off at once, again and again.
        alarm.wait(200, Some(130)).await.unwrap();
        alarm.wait(200, Some(130)).await.unwrap();
    }
}
