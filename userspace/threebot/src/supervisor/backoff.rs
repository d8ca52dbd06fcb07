//! How long to wait before a restart, and when to speak of a crash loop.
//!
//! The first restart is immediate. Each further exit in a row doubles the wait from the manifest's
//! first to its longest (never above 60 s), with jitter so that capsules that died together do
//! not come back in step. A run of ten seconds halves the count, one as long as the manifest's
//! crash window forgets it. There is no last attempt.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Millis;

/// No wait is longer, whatever the manifest says.
pub const CAP_MS: Millis = 60_000;
/// The wait before the second restart in a row is no shorter, whatever the manifest says.
pub const FLOOR_MS: Millis = 10;
/// A run this long halves the count of exits in a row.
pub const STEADY_MS: Millis = 10_000;

/// The manifest's say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Wait before the second restart in a row.
    pub initial: Millis,
    /// Longest wait.
    pub longest: Millis,
    /// A run this long forgets all earlier exits.
    pub window: Millis,
    /// This many exits within the window are a crash loop.
    pub loop_exits: usize,
}

/// The memory that the next wait is computed from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Exits in a row.
    streak: u32,
    /// Times of the last exits, at most [`Pace::loop_exits`].
    recent: VecDeque<Millis>,
    looping: bool,
}

impl Backoff {
    /// Counts an exit at `now` of a run that lasted `ran`, and says how long to wait.
    /// `random` is any number.
    pub fn after_exit(&mut self, now: Millis, ran: Millis, pace: &Pace, random: u32) -> Millis {
        self.forgive(ran, pace);
        self.recent.push_back(now);
        while self.recent.len() > pace.loop_exits {
            self.recent.pop_front();
        }
        let oldest = self.recent.front().copied().unwrap_or(now);
        if self.recent.len() >= pace.loop_exits && now.saturating_sub(oldest) <= pace.window {
            self.looping = true;
        }
        let wait = wait_ms(self.streak, pace, random);
        self.streak = self.streak.saturating_add(1);
        wait
    }

    /// Counts a start that did not even make a process: never retried at once.
    pub fn after_failed_start(&mut self, now: Millis, pace: &Pace, random: u32) -> Millis {
        self.streak = self.streak.max(1);
        self.after_exit(now, 0, pace, random)
    }

    /// Whether it is in a crash loop.
    pub fn is_looping(&self) -> bool {
        self.looping
    }

    /// Ends the crash loop: the capsule has run for the whole window.
    pub fn settle(&mut self) {
        self.looping = false;
        self.recent.clear();
    }

    /// Forgets everything: the owner asked for a fresh start.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn forgive(&mut self, ran: Millis, pace: &Pace) {
        if ran >= pace.window {
            self.streak = 0;
        } else if ran >= STEADY_MS {
            self.streak /= 2;
        }
    }
}

/// The wait after `streak` earlier exits in a row: 0, then the first wait doubling, ±25 %, capped.
fn wait_ms(streak: u32, pace: &Pace, random: u32) -> Millis {
    let Some(doublings) = streak.checked_sub(1) else {
        return 0;
    };
    let longest = pace.longest.clamp(FLOOR_MS, CAP_MS);
    let initial = pace.initial.clamp(FLOOR_MS, longest);
    let base = (initial << doublings.min(20)).min(longest);
    let percent = 75 + Millis::from(random % 51);
    (base * percent / 100).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        initial: 100,
        longest: 60_000,
        window: 60_000,
        loop_exits: 5,
    };

    #[test]
    fn first_is_immediate_then_doubles_to_the_cap() {
        let mut backoff = Backoff::default();
        let middle = 25; // 75 + 25: no jitter
        let waits: Vec<_> = (0..13)
            .map(|i| backoff.after_exit(i, 0, &PACE, middle))
            .collect();
        let expected = [
            0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000,
        ];
        assert_eq!(waits, expected);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for random in 0..1000 {
            let wait = wait_ms(4, &PACE, random);
            assert!((600..=1000).contains(&wait), "{wait}");
            assert!(wait_ms(u32::MAX, &PACE, random) <= CAP_MS);
        }
    }

    #[test]
    fn a_manifest_cannot_ask_for_a_busy_loop_or_for_giving_up() {
        let hasty = Pace {
            initial: 0,
            longest: 0,
            ..PACE
        };
        assert!(wait_ms(2, &hasty, 0) >= FLOOR_MS * 3 / 4);
        let never = Pace {
            initial: 86_400_000,
            longest: 86_400_000,
            ..PACE
        };
        assert!(wait_ms(9, &never, 50) <= CAP_MS);
    }

    #[test]
    fn long_runs_are_forgiven() {
        let mut backoff = Backoff::default();
        for now in 0..8 {
            backoff.after_exit(now, 0, &PACE, 25);
        }
        assert_eq!(backoff.clone().after_exit(9, PACE.window, &PACE, 25), 0);
        assert_eq!(
            backoff.after_exit(9, STEADY_MS, &PACE, 25),
            800,
            "8 in a row halved to 4"
        );
        let mut steady = Backoff::default();
        for now in 0..100 {
            assert_eq!(steady.after_exit(now * STEADY_MS, STEADY_MS, &PACE, 7), 0);
        }
    }

    #[test]
    fn five_exits_in_a_minute_are_a_loop() {
        let mut backoff = Backoff::default();
        for now in [0, 10, 20, 30] {
            backoff.after_exit(now, 0, &PACE, 0);
            assert!(!backoff.is_looping());
        }
        backoff.after_exit(PACE.window, 0, &PACE, 0);
        assert!(backoff.is_looping());
        backoff.settle();
        assert!(!backoff.is_looping());
        let mut slow = Backoff::default();
        for now in 0..10 {
            slow.after_exit(now * 20_000, 0, &PACE, 0);
            assert!(!slow.is_looping());
        }
    }

    #[test]
    fn a_failed_start_never_retries_at_once() {
        assert!(Backoff::default().after_failed_start(0, &PACE, 0) >= 75);
    }
}
