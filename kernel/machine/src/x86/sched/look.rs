//! Looks at what a CPU runs: for the division of time between programs and kernel, and for
//! profiles. A CPU that rests is not woken for them.

use super::{IDLE, Queue};
use crate::sample::{self, Place};
use core::sync::atomic::{Ordering::AcqRel, Ordering::Relaxed};

/// A look at what the CPU runs is due.
pub(super) fn look(q: &mut Queue, place: Place, now: u64) {
    if q.tick.passes(now) {
        crate::thread::current().met(place != Place::User);
    }
    if now >= q.sample_at {
        q.sample_at = sample::next(now);
        if !q.idle {
            sample::met(place);
        }
    }
    plan_look(q);
}

/// Says when to look next.
pub(super) fn plan_look(q: &mut Queue) {
    q.look_at = match q.idle && !q.tick.stays() {
        true => u64::MAX,
        false => q.tick.at().min(q.sample_at),
    };
}

/// The CPU rests from `now` on, or no longer.
pub(super) fn change_rest(q: &mut Queue, cpu: usize, rests: bool, now: u64) {
    if q.idle != rests {
        q.tick.change(!rests, now);
        q.idle = rests;
        plan_look(q);
    }
    let bit = 1u64 << cpu;
    if rests {
        IDLE.fetch_or(bit, AcqRel);
    } else if IDLE.load(Relaxed) & bit != 0 {
        IDLE.fetch_and(!bit, AcqRel);
    }
}

/// Leaves out the looks that have passed: the CPU rested then.
#[cold]
pub(super) fn skip_looks(q: &mut Queue, now: u64) {
    q.tick.skip(now);
    if q.sample_at <= now {
        q.sample_at = sample::next(now);
    }
    plan_look(q);
}
