//! Work for the kernel that has no end of its own: periods of a nanosecond, words that
//! change as fast as they are tried, copies of gigabytes.

use crate::process::{End, in_child};
use std::{
    mem,
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);
/// How long each storm blows.
const BLOW: Duration = Duration::from_millis(1500);

/// Tries everything.
pub(crate) fn run() -> Result<(), String> {
    for (name, storm) in [
        ("timers", timers as fn() -> i32),
        ("a changing lock", changing_lock),
        ("a changing word", changing_word),
    ] {
        match in_child(LIMIT, storm)? {
            End::Status(0) => {}
            end => return Err(format!("{name}: {end:?}")),
        }
    }
    // It is far too much to come to an end: it is the kill that has to work.
    match in_child(Duration::from_millis(200), copies)? {
        End::Late => Ok(()),
        end => Err(format!("copies: {end:?}")),
    }
}

/// Timers of all kinds, with the shortest period there is.
fn timers() -> i32 {
    let period = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1,
    };
    let setting = libc::itimerspec {
        it_interval: period,
        it_value: period,
    };
    let micro = libc::timeval {
        tv_sec: 0,
        tv_usec: 1,
    };
    let interval = libc::itimerval {
        it_interval: micro,
        it_value: micro,
    };
    // SAFETY: all structures are valid, and of the kinds the calls want.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_IGN);
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        let mut blocked = mem::zeroed();
        libc::sigemptyset(&mut blocked);
        libc::sigaddset(&mut blocked, libc::SIGRTMIN());
        libc::sigprocmask(libc::SIG_BLOCK, &blocked, null_mut());
        for i in 0..64 {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = [libc::SIGRTMIN(), libc::SIGUSR1][i % 2];
            let mut timer = null_mut();
            let made = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer);
            if made != 0 || libc::timer_settime(timer, 0, &setting, null_mut()) != 0 {
                return 1;
            }
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, 0);
            if fd < 0 || libc::timerfd_settime(fd, 0, &setting, null_mut()) != 0 {
                return 2;
            }
        }
        libc::setitimer(libc::ITIMER_REAL, &interval, null_mut());
    }
    thread::sleep(BLOW);
    0
}

fn futex(word: &AtomicU32, op: i32, value: u32, second: &AtomicU32, packed: u32) -> i64 {
    // SAFETY: both words live; no timeout is given where one would be read.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op | libc::FUTEX_PRIVATE_FLAG,
            value,
            0,
            second.as_ptr(),
            packed,
        )
    }
}

/// Runs `work` again and again while another thread runs `change` without a pause.
fn against(change: impl Fn() + Sync, work: impl Fn()) -> i32 {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                change();
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < BLOW {
            work();
        }
        over.store(true, SeqCst);
    });
    0
}

/// A lock that knows its owner, whose other bits never rest.
fn changing_lock() -> i32 {
    const OWNER_DIED: u32 = 0x4000_0000;
    let word = AtomicU32::new(0);
    // SAFETY: asks for a number.
    let me = unsafe { libc::gettid() } as u32;
    against(
        || {
            for _ in 0..1000 {
                word.fetch_xor(OWNER_DIED, SeqCst);
            }
        },
        || {
            word.store(me, SeqCst);
            futex(&word, libc::FUTEX_UNLOCK_PI, 0, &word, 0);
            word.store(0, SeqCst);
            futex(&word, libc::FUTEX_TRYLOCK_PI, 0, &word, 0);
        },
    )
}

/// A word that the kernel is to change, and that never rests.
fn changing_word() -> i32 {
    const ADD_ONE: u32 = 1 << 28 | 1 << 12;
    let (word, other) = (AtomicU32::new(0), AtomicU32::new(0));
    against(
        || {
            for _ in 0..1000 {
                word.fetch_add(1, SeqCst);
            }
        },
        || {
            futex(&other, libc::FUTEX_WAKE_OP, 1, &word, ADD_ONE);
        },
    )
}

/// Copies two gigabytes from itself to itself, for ever.
fn copies() -> i32 {
    const BYTES: usize = 2 << 20;
    let (from, mut to) = (vec![1u8; BYTES], vec![0u8; BYTES]);
    let remote = [libc::iovec {
        iov_base: from.as_ptr() as *mut _,
        iov_len: BYTES,
    }; 1024];
    let local = [libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: BYTES,
    }; 1024];
    loop {
        // SAFETY: the buffers are this process's own and only read and written here.
        let copied = unsafe {
            libc::process_vm_readv(
                libc::getpid(),
                local.as_ptr(),
                1024,
                remote.as_ptr(),
                1024,
                0,
            )
        };
        if copied <= 0 {
            return 1;
        }
    }
}
