//! Two threads on one CPU: one computes, the other sleeps, so that it would be next for
//! a while, and then yields. Fails unless that lets the first one run.
#![forbid(unsafe_code)]

use rustix::thread::{CpuSet, sched_setaffinity, sched_yield};
use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Yields, and the time asleep before each.
const YIELDS: u32 = 50;
const ASLEEP: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let mut one = CpuSet::new();
    one.set(0);
    if let Err(error) = sched_setaffinity(None, &one) {
        println!("cannot stay on one CPU: {error}");
        return ExitCode::FAILURE;
    }
    let steps = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&steps);
    thread::spawn(move || {
        loop {
            counted.fetch_add(1, Relaxed);
        }
    });
    let mut ran = 0;
    for _ in 0..YIELDS {
        thread::sleep(ASLEEP);
        let before = steps.load(Relaxed);
        sched_yield();
        ran += u32::from(steps.load(Relaxed) != before);
    }
    // An interrupt may have come between the look and the yield.
    println!("{ran} of {YIELDS} yields let the other run");
    // An interrupt may have come between the look and the yield.
    match ran * 10 >= YIELDS * 9 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
