//! Every system call, with arguments chosen to hurt.
//!
//! The first process starts a worker for each few call numbers; workers may die,
//! hang or run wild, and are then cleared away. A sweep is over when every number
//! has had its share, and sweeps go on until the time is up, but at least one is
//! made whole.

use crate::{
    leavings::Leavings,
    pool::{self, Pool},
    process::{End, in_child, kill_all_others},
    random::Random,
};
use std::{
    env, process,
    time::{Duration, Instant},
};

/// Call numbers: Linux's with a good margin, and some that no table has.
const NUMBERS: u64 = 480;
const BEYOND: [u64; 8] = [
    511,
    512,
    1000,
    0x4000_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];
/// Calls made with each number in one sweep.
const SHARE: u64 = 150;
/// Numbers that one worker is given, unless it dies earlier.
const NUMBERS_OF_WORKER: usize = 16;
/// Time that a worker may take.
const WORKER_LIMIT: Duration = Duration::from_secs(8);
/// A call that blocks is interrupted after this time, in microseconds.
const BLOCKED_US: i64 = 20_000;
/// Variable without which nothing is done, so that nobody hurts his own machine.
const CONSENT: &str = "HOSTILE";

/// Makes sweeps for this long.
pub(crate) fn run(time: Duration) -> Result<(), String> {
    if process::id() != 1 || env::var_os(CONSENT).is_none() {
        return Err(format!(
            "calls hurt: only as the first process, with {CONSENT} set"
        ));
    }
    let numbers: Vec<u64> = (0..NUMBERS).chain(BEYOND).collect();
    let progress = Progress(pool::shared_page()?);
    let leavings = Leavings::before();
    let start = Instant::now();
    let mut sweeps = 0;
    while sweeps == 0 || start.elapsed() < time {
        sweep(&numbers, &progress, &leavings, sweeps)?;
        sweeps += 1;
    }
    println!("{sweeps} sweeps in {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// What a worker is doing, for the first process to see.
struct Progress(*mut u64);

impl Progress {
    /// Notes what is done next: position among the numbers, call of its share.
    fn set(&self, position: usize, call: u64) {
        // SAFETY: the page is ours and large enough; only one process writes it.
        unsafe {
            self.0.write_volatile(position as u64);
            self.0.add(1).write_volatile(call);
        }
    }

    fn get(&self) -> (usize, u64) {
        // SAFETY: as in `set`.
        unsafe {
            (
                self.0.read_volatile() as usize,
                self.0.add(1).read_volatile(),
            )
        }
    }
}

fn sweep(
    numbers: &[u64],
    progress: &Progress,
    leavings: &Leavings,
    sweep: u64,
) -> Result<(), String> {
    let mut position = 0;
    let mut call = 0;
    while position < numbers.len() {
        let end = (position + NUMBERS_OF_WORKER).min(numbers.len());
        progress.set(position, call);
        let from = (position, call);
        let ended = in_child(WORKER_LIMIT, || work(numbers, from, end, progress, sweep))?;
        let (at, last) = progress.get();
        // A wild process may have written anything there.
        let at = at.clamp(position, end);
        if ended == End::Unkillable || !kill_all_others() {
            let number = numbers.get(at);
            return Err(format!(
                "call {number:?}, {last} of its share: cannot be killed"
            ));
        }
        leavings.remove();
        (position, call) = match ended {
            End::Status(0) if at == end => (end, 0),
            // It died or hung: on with what comes next.
            _ if last + 1 < SHARE => (at, last.max(call) + 1),
            _ => (at + 1, 0),
        };
    }
    Ok(())
}

/// What a worker does: the shares of the numbers from `from` to `end`.
fn work(numbers: &[u64], from: (usize, u64), end: usize, progress: &Progress, sweep: u64) -> i32 {
    let Ok(pool) = Pool::new() else { return 1 };
    interrupt_what_blocks();
    // SAFETY: `getpid` has no conditions.
    let own = unsafe { libc::getpid() };
    let (first, mut call) = from;
    for (position, number) in numbers.iter().enumerate().take(end).skip(first) {
        let mut random = Random::new(sweep << 32 | (position as u64) << 16 | call);
        while call < SHARE {
            if call % 16 == 0 || call == from.1 {
                pool.stir(&mut random);
            }
            let mut arguments = [0; 6];
            arguments.fill_with(|| pool.argument(&mut random));
            progress.set(position, call);
            raw_call(*number, arguments);
            // SAFETY: neither has conditions.
            if unsafe { libc::getpid() } != own {
                return 0; // the call was a fork, and we are its child
            }
            call += 1;
        }
        call = 0;
    }
    progress.set(end, 0);
    0
}

/// Has a signal come again and again that does nothing but interrupt.
fn interrupt_what_blocks() {
    extern "C" fn nothing(_: i32) {}
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: BLOCKED_US,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: the handler is a function that touches nothing; the structures live
    // through the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
    }
}

/// Makes a system call by its number, whatever it and its arguments are.
fn raw_call(number: u64, arguments: [u64; 6]) -> u64 {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: there is none: the call may do to this process what it likes, and the
    // process exists to have it done.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{Progress, raw_call, run};
    use crate::pool::shared_page;
    use std::time::Duration;

    #[test]
    fn nobody_hurts_his_own_machine() {
        assert!(run(Duration::ZERO).is_err());
    }

    #[test]
    fn calls_reach_the_kernel_and_progress_is_kept() {
        assert_eq!(
            raw_call(libc::SYS_getpid as u64, [0; 6]),
            u64::from(std::process::id())
        );
        assert_eq!(raw_call(100_000, [0; 6]) as i64, -i64::from(libc::ENOSYS));
        let progress = Progress(shared_page().unwrap());
        progress.set(3, 5);
        assert_eq!(progress.get(), (3, 5));
    }
}
