//! Every system call, in rounds that each follow from a seed.
//!
//! The first process starts the workers of a round and watches them. Workers may die,
//! hang or run wild: what is left of their steps is taken by others, and in the end
//! all are cleared away. What the round made must then be gone too.

use crate::{
    leavings::Leavings,
    process::{self, kill_all_others},
    rows,
    shared::{Shared, THREADS, WORKERS},
    worker::{self, COUNTED_NUMBERS, STEPS},
};
use std::{
    env, process as this,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Time that a round may take.
const ROUND_LIMIT: Duration = Duration::from_secs(15);
/// Processes and threads made in a round, beside the workers, and how often a worker
/// may be replaced.
const BUDGET: i64 = 300;
const REPLACEMENTS: usize = 150;
/// How much longer a run goes on for the numbers whose turn has not come yet.
const PATIENCE: Duration = Duration::from_secs(120);
/// More calls of one number than can have been made.
const PLAUSIBLE: u64 = 1 << 22;
const LOOK: Duration = Duration::from_millis(20);
/// Variable without which nothing is done, so that nobody hurts his own machine.
const CONSENT: &str = "HOSTILE";

/// Makes a round for each of the seeds, and then others for the rest of `time`, with
/// seeds that count up from `next`; or from what the clock shows.
pub(crate) fn run(time: Duration, next: Option<u64>, seeds: &[u64]) -> Result<(), String> {
    if this::id() != 1 || env::var_os(CONSENT).is_none() {
        return Err(format!(
            "calls hurt: only as the first process, with {CONSENT} set"
        ));
    }
    let start = Instant::now();
    let next = next.unwrap_or_else(clock);
    let shared = Shared::new()?;
    let leavings = Leavings::before();
    // SAFETY: the path ends with NUL; both only change attributes.
    unsafe {
        libc::chmod(c"/tmp".as_ptr(), 0o1777);
        libc::umask(0);
    }
    let mut rounds = 0;
    for seed in seeds.iter().copied().chain(next..) {
        let over = start.elapsed() >= time && never_made(shared).is_empty();
        if rounds >= seeds.len().max(1) && (over || start.elapsed() >= time + PATIENCE) {
            break;
        }
        println!("seed {seed:#x}");
        round(shared, seed).map_err(|why| format!("seed {seed:#x}: {why}"))?;
        leavings.remove();
        rounds += 1;
    }
    tell(shared, rounds, start.elapsed())
}

/// Seeds that were probably never tried.
fn clock() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_micros() as u64
}

/// One round: all steps of all workers, or as many as there is time for.
fn round(shared: &'static Shared, seed: u64) -> Result<(), String> {
    shared.begin(BUDGET);
    let deadline = Instant::now() + ROUND_LIMIT;
    let mut workers = [0; WORKERS];
    let mut replacements = 0;
    while Instant::now() < deadline && replacements < REPLACEMENTS {
        for (worker, pid) in workers.iter_mut().enumerate() {
            if *pid == 0 && !through(shared, worker) {
                // Without room for another process one of the next looks finds some.
                *pid = process::start(|| worker::run(shared, seed, worker)).unwrap_or(0);
                replacements += usize::from(*pid != 0);
            }
        }
        if (0..WORKERS).all(|worker| through(shared, worker)) {
            break;
        }
        thread::sleep(LOOK);
        // Whoever was stopped goes on, whoever waits is interrupted.
        // SAFETY: neither touches memory.
        unsafe {
            libc::kill(-1, libc::SIGCONT);
            libc::kill(-1, libc::SIGALRM);
        }
        while let Some(ended) = process::ended_child() {
            for pid in workers.iter_mut().filter(|pid| **pid == ended) {
                *pid = 0;
            }
        }
    }
    kill_all_others()
}

/// Whether all threads of a worker have taken all their steps.
fn through(shared: &Shared, worker: usize) -> bool {
    (0..THREADS).all(|thread| shared.step(worker, thread).load(Relaxed) >= STEPS)
}

/// What was done; an error if a call was never made.
fn tell(shared: &Shared, rounds: usize, time: Duration) -> Result<(), String> {
    let (mut made, mut known, mut succeeded) = (0u64, 0, 0);
    for number in 0..COUNTED_NUMBERS {
        let (calls, successes) = shared.counts(number);
        // What a process that runs wild has written over does not count.
        if u64::from(calls) > PLAUSIBLE {
            continue;
        }
        made += u64::from(calls);
        known += usize::from(rows::of(number as u64).is_some());
        succeeded += usize::from(successes > 0);
    }
    let seconds = time.as_secs_f32();
    println!(
        "{rounds} rounds in {seconds:.1} s: {made} calls, {succeeded} of {known} kinds succeeded"
    );
    match never_made(shared) {
        never if never.is_empty() => Ok(()),
        never => Err(format!("calls that were never made: {never:?}")),
    }
}

/// Numbers whose turn has not come yet.
fn never_made(shared: &Shared) -> Vec<usize> {
    let never = |number: &usize| shared.counts(*number).0 == 0 && !rarely_made(*number as i64);
    (0..COUNTED_NUMBERS).filter(never).collect()
}

/// Calls that a single round may leave out, because they would end it.
fn rarely_made(number: i64) -> bool {
    [
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_chroot,
        libc::SYS_seccomp,
        libc::SYS_close_range,
        libc::SYS_vhangup,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_clone3,
    ]
    .contains(&number)
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::time::Duration;

    #[test]
    fn nobody_hurts_his_own_machine() {
        assert!(run(Duration::ZERO, Some(1), &[]).is_err());
    }
}
