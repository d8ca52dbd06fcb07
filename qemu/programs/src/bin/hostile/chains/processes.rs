//! Processes and threads that stop, go on, run other programs and end together.

use super::Chain;
use crate::{
    raw::{self, sys},
    worker::{child, newborn, pause, reap, stack},
};

/// A group of processes that is stopped and continued while its parent ends.
pub(super) fn jobs(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let shared = chain.shared;
    let signals = [random.of(&[19, 20, 21, 22]), random.of(&[18, 9, 1, 19]), 18];
    let parent = child(shared, || {
        sys!(libc::SYS_setpgid, 0, 0);
        for _ in 0..2 {
            let made = child(shared, || {
                for _ in 0..10 {
                    pause(1);
                }
            });
            sys!(libc::SYS_setpgid, made, 0);
        }
        for signal in signals {
            sys!(libc::SYS_kill, 0, signal);
            let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
            sys!(libc::SYS_wait4, -1, 0, flags, 0);
        }
    });
    sys!(libc::SYS_setpgid, parent, parent);
    for signal in signals {
        sys!(libc::SYS_kill, -parent.max(1 << 20), signal);
        let flags =
            libc::WNOHANG | libc::WNOWAIT | libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
        sys!(libc::SYS_waitid, 1, parent, 0, flags, 0);
    }
    reap(parent);
}

/// Threads of which one runs another program, or ends them all.
pub(super) fn threads_that_execute(chain: &mut Chain<'_>) {
    const THREAD: i32 = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    let random = &mut *chain.random;
    let shared = chain.shared;
    let how = random.below(4);
    let traced = random.once_in(3);
    let mut stacks = [0; 3];
    for top in &mut stacks {
        let (start, bytes) = stack(random);
        *top = start + bytes;
    }
    let made = child(shared, || {
        if traced {
            sys!(libc::SYS_ptrace, 0, 0, 0, 0);
        }
        for stack in stacks {
            if shared.may_make() {
                let arguments = [THREAD as u64, stack, 0, 0, 0, 0];
                raw::call_clone(libc::SYS_clone as u64, arguments, newborn);
            }
        }
        pause(1);
        let empty = [0u64];
        let list = empty.as_ptr();
        match how {
            0 => sys!(libc::SYS_execve, c"/bin/hostile".as_ptr(), list, list),
            1 => sys!(libc::SYS_exit, 0),
            2 => sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGSEGV),
            _ => sys!(libc::SYS_unshare, libc::CLONE_FILES | libc::CLONE_FS),
        };
    });
    if made > 0 {
        let pidfd = sys!(libc::SYS_pidfd_open, made, 0);
        let poll = [u64::from(pidfd as u32) | 1 << 32];
        sys!(libc::SYS_poll, poll.as_ptr(), 1, 5);
        let taken = sys!(libc::SYS_pidfd_getfd, pidfd, 3 + random.below(10), 0);
        sys!(libc::SYS_close, taken);
        reap(made);
        sys!(libc::SYS_pidfd_send_signal, pidfd, 9, 0, 0);
        sys!(libc::SYS_close, pidfd);
    }
}

/// Timers that fire into a process that executes or ends, and are deleted meanwhile.
pub(super) fn timers(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let executes = random.once_in(3);
    let clock = random.of(&[0, 1, 2, 3, 7]);
    let how = random.of(&[0, 1, 4]);
    let period = random.of(&[1, 1000, 100_000, 5_000_000]);
    let made = child(chain.shared, || {
        let own = sys!(libc::SYS_gettid) as u64;
        // Value, signal and kind, thread: struct sigevent.
        let event = [7, 34 | how << 32, own, 0, 0, 0, 0, 0];
        let mut numbers = [0i32; 6];
        for number in &mut numbers {
            sys!(
                libc::SYS_timer_create,
                clock,
                event.as_ptr(),
                std::ptr::from_mut(number)
            );
            let times = [0, period, 0, period];
            sys!(libc::SYS_timer_settime, *number, 0, times.as_ptr(), 0);
        }
        pause(2);
        let set = u64::MAX;
        sys!(libc::SYS_rt_sigprocmask, 0, &raw const set, 0, 8);
        pause(1);
        let queued = sys!(libc::SYS_signalfd4, -1, &raw const set, 8, libc::O_NONBLOCK);
        let room = [0u64; 64];
        for number in numbers {
            sys!(libc::SYS_read, queued, room.as_ptr(), 512);
            sys!(libc::SYS_timer_getoverrun, number);
            sys!(libc::SYS_timer_delete, number);
            sys!(
                libc::SYS_rt_sigtimedwait,
                &raw const set,
                0,
                [0u64; 2].as_ptr(),
                8
            );
        }
        if executes {
            let empty = [0u64];
            sys!(
                libc::SYS_execve,
                c"/bin/hostile".as_ptr(),
                empty.as_ptr(),
                empty.as_ptr()
            );
        }
    });
    reap(made);
}
