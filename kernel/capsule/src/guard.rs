//! What keeps the hardware watchdog fed (design D9, level 0).
//!
//! A thread looks every few seconds and feeds the watchdog while
//!
//! * every CPU and the timers' thread have moved ([`machine::health`]), and
//! * the 3Bot has answered a ping lately. Its death or hang alone is healed by the
//!   [`crate::keeper`] long before this counts; it counts when one restart after the
//!   other does not bring it back. A 3Bot that has never answered in this boot is not held to it:
//!   starting again would not help a node whose 3Bot cannot run; and
//! * a node that goes down gets there.
//!
//! A CPU that stands still while others run is a lock-up that a panic describes
//! better than a reset: then there is a crash record. It is looked for on two CPUs, which
//! may soon wait for the one that stands still themselves (`machine::x86::tlb`). The watchdog remains for what no
//! code of this kernel survives: no CPU runs threads, or the panic itself hangs.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use machine::AllocError;
use machine::cpu::{self, CPUS_MAX};
use machine::health::{Part, Pulse, STEP};
use machine::pci::Address;
use machine::sync::SpinLock;
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::watchdog::Watchdog;
use skep_api::control::WatchdogInfo;

/// Time between two looks: long enough for a step of every part.
const ROUND: Duration = Duration::from_secs(5);
const _: () = assert!(ROUND.as_secs() > STEP.as_secs());
/// What the watchdog is set to.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Looks without a step after which the watchdog is not fed. One may be missed by
/// chance.
const MISSED_HUNGRY: u32 = 2;
/// And those after which a part has locked up: 20 to 25 seconds.
const MISSED_LOCKED: u32 = 4;
/// How long a 3Bot that has answered before may be silent: the keeper needs up to 20 s
/// to see that it hangs, and has tried to start it again many times then.
const SILENCE: Duration = Duration::from_secs(90);
/// How long the node may take to go down.
const GOING_DOWN: Duration = Duration::from_secs(60);

/// The watchdog, and what it hears of the node.
pub struct Guard {
    dog: Option<Dog>,
    has_fired: bool,
    news: News,
    /// Why it is not being fed.
    withheld: SpinLock<Option<String>>,
}

struct Dog {
    device: Box<dyn Watchdog>,
    timeout: Duration,
}

/// Moments in nanoseconds since boot; 0: not yet.
#[derive(Debug, Default)]
struct News {
    /// When the 3Bot last answered.
    answered: AtomicU64,
    /// When the node began to go down.
    closing: AtomicU64,
}

/// What a look leads to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All is well.
    Feed,
    /// It is not; the watchdog decides whether there is time for it to get better.
    Withhold(String),
    /// It will not get better.
    LockedUp(Part),
}

impl News {
    fn judge(&self, now: Instant, (part, missed): (Part, u32)) -> Verdict {
        if missed >= MISSED_LOCKED {
            return Verdict::LockedUp(part);
        }
        if missed >= MISSED_HUNGRY {
            return Verdict::Withhold(format!("{part} stands still"));
        }
        let since = |moment: &AtomicU64| match moment.load(Relaxed) {
            0 => None,
            at => Some(now.since(Instant(at))),
        };
        match (since(&self.closing), since(&self.answered)) {
            (Some(t), _) if t > GOING_DOWN => {
                Verdict::Withhold(String::from("the node does not get down"))
            }
            (None, Some(t)) if t > SILENCE => {
                Verdict::Withhold(String::from("the 3Bot does not come back"))
            }
            _ => Verdict::Feed,
        }
    }
}

impl Guard {
    /// Starts the watchdog, if there is one, and the thread that feeds it.
    ///
    /// # Errors
    /// No memory for the threads.
    pub fn start(device: Option<Box<dyn Watchdog>>) -> Result<Arc<Guard>, AllocError> {
        let pulse = Pulse::start()?;
        let has_fired = device.as_ref().is_some_and(|d| d.has_fired());
        if has_fired {
            log::warn!("the watchdog has reset this machine: it did not run any more");
        }
        let guard = Arc::new(Guard {
            dog: device.and_then(Dog::start),
            has_fired,
            news: News::default(),
            withheld: SpinLock::new(None),
        });
        // A thread that sleeps on a CPU which stands still does not wake: so there is a
        // second one, elsewhere, that only looks.
        let others = cpu::count().min(CPUS_MAX) - 1;
        if others > 0 {
            let pulse = pulse.clone();
            let lookout = Builder::new("lookout").affinity(1 << others);
            lookout.spawn(move || look_out(pulse))?;
        }
        let watcher = guard.clone();
        let feeder = Builder::new("guard").affinity(1);
        feeder.spawn(move || watcher.watch(pulse))?;
        Ok(guard)
    }

    fn watch(&self, mut pulse: Pulse) {
        loop {
            // A sleep without interruption ends at its time only.
            let _ = thread::sleep_until(Instant::now().after(ROUND), false);
            let verdict = self.news.judge(Instant::now(), pulse.look());
            self.act(verdict);
        }
    }

    fn act(&self, verdict: Verdict) {
        match verdict {
            Verdict::Feed => {
                if let Some(dog) = &self.dog {
                    dog.device.feed();
                }
                if self.withheld.lock().take().is_some() {
                    log::info!("all is well again: the watchdog is fed");
                }
            }
            Verdict::Withhold(why) => {
                if self.withheld.lock().as_ref() != Some(&why) {
                    log::error!("{why}: the watchdog is not fed");
                    *self.withheld.lock() = Some(why);
                }
            }
            Verdict::LockedUp(part) => locked_up(part),
        }
    }

    /// The 3Bot has answered a ping.
    pub(crate) fn answered(&self) {
        self.news.answered.store(Instant::now().0, Relaxed);
    }

    /// The node begins to go down.
    pub(crate) fn going_down(&self) {
        self.news.closing.store(Instant::now().0, Relaxed);
    }

    /// The node is down: what comes now takes as long as it takes.
    pub(crate) fn end(&self) {
        if let Some(dog) = &self.dog {
            dog.device.stop();
        }
    }

    /// Whether it was the watchdog that started this boot.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.has_fired
    }

    /// The PCI function that the watchdog is a part of, and the watchdog's name.
    #[must_use]
    pub fn device(&self) -> Option<(Address, &'static str)> {
        let device = &self.dog.as_ref()?.device;
        Some((device.address(), device.name()))
    }

    /// What there is to tell; `None` without a watchdog.
    #[must_use]
    pub fn info(&self) -> Option<WatchdogInfo> {
        let dog = self.dog.as_ref()?;
        Some(WatchdogInfo {
            device: String::from(dog.device.name()),
            timeout_ms: u32::try_from(dog.timeout.as_millis()).unwrap_or(u32::MAX),
            withheld: self.withheld.lock().clone(),
        })
    }
}

impl Dog {
    fn start(device: Box<dyn Watchdog>) -> Option<Dog> {
        match device.start(TIMEOUT) {
            Ok(timeout) => {
                log::info!(
                    "watchdog {}: resets the machine after {}.{} s without food",
                    device.name(),
                    timeout.as_secs(),
                    timeout.subsec_millis() / 100
                );
                Some(Dog { device, timeout })
            }
            Err(e) => {
                log::warn!("watchdog {} is of no use: {e}", device.name());
                None
            }
        }
    }
}

/// Looks for parts that stand still, and does nothing else.
fn look_out(mut pulse: Pulse) {
    loop {
        // A sleep without interruption ends at its time only.
        let _ = thread::sleep_until(Instant::now().after(ROUND), false);
        let (part, missed) = pulse.look();
        if missed >= MISSED_LOCKED {
            locked_up(part);
        }
    }
}

#[expect(clippy::panic, reason = "the kernel does not do its work any more")]
fn locked_up(part: Part) {
    panic!(
        "{part} has not run for {} seconds",
        ROUND.as_secs() * u64::from(MISSED_LOCKED)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const WELL: (Part, u32) = (Part::Timers, 0);

    fn at(seconds: u64) -> Instant {
        Instant(1 + seconds * 1_000_000_000)
    }

    fn judge(news: &News, seconds: u64) -> Verdict {
        news.judge(at(seconds), WELL)
    }

    #[test]
    fn parts_that_stand_still_are_not_forgiven() {
        let news = News::default();
        let with = |missed| news.judge(at(50), (Part::Cpu(1), missed));
        assert_eq!((with(0), with(1)), (Verdict::Feed, Verdict::Feed));
        for missed in 2..4 {
            let said = Verdict::Withhold(String::from("CPU 1 stands still"));
            assert_eq!(with(missed), said);
        }
        assert_eq!(with(4), Verdict::LockedUp(Part::Cpu(1)));
    }

    #[test]
    fn only_a_3bot_that_has_answered_must_go_on() {
        let news = News::default();
        assert_eq!(judge(&news, 10_000), Verdict::Feed);
        news.answered.store(at(100).0, Relaxed);
        assert_eq!(judge(&news, 190), Verdict::Feed);
        assert!(matches!(judge(&news, 191), Verdict::Withhold(_)));
        news.answered.store(at(195).0, Relaxed);
        assert_eq!(judge(&news, 200), Verdict::Feed);
    }

    #[test]
    fn a_node_that_goes_down_may_take_its_time_but_not_for_ever() {
        let news = News::default();
        news.answered.store(at(100).0, Relaxed);
        news.closing.store(at(180).0, Relaxed);
        // The 3Bot is stopped then.
        assert_eq!(judge(&news, 240), Verdict::Feed);
        assert!(matches!(judge(&news, 241), Verdict::Withhold(_)));
    }

    /// Counts what it is told.
    #[derive(Default)]
    struct Told(Arc<Mutex<(u32, u32)>>);

    impl Watchdog for Told {
        fn name(&self) -> &'static str {
            "told"
        }
        fn address(&self) -> Address {
            Address {
                bus: 0,
                device: 4,
                function: 0,
            }
        }
        fn has_fired(&self) -> bool {
            true
        }
        fn start(&self, timeout: Duration) -> Result<Duration, machine::watchdog::WatchdogError> {
            Ok(timeout)
        }
        fn feed(&self) {
            self.0.lock().unwrap().0 += 1;
        }
        fn stop(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    #[test]
    fn the_watchdog_gets_food_while_all_is_well_only() {
        let told = Told::default();
        let counts = told.0.clone();
        let guard = Guard {
            dog: Dog::start(Box::new(told)),
            has_fired: true,
            news: News::default(),
            withheld: SpinLock::new(None),
        };
        guard.act(Verdict::Feed);
        guard.act(Verdict::Withhold(String::from("why")));
        guard.act(Verdict::Withhold(String::from("why")));
        assert_eq!(counts.lock().unwrap().0, 1);
        assert_eq!(guard.info().unwrap().withheld.unwrap(), "why");
        guard.act(Verdict::Feed);
        assert_eq!(counts.lock().unwrap().0, 2);
        assert_eq!(guard.info().unwrap().withheld, None);
        guard.end();
        assert_eq!(counts.lock().unwrap().1, 1);
    }
}
