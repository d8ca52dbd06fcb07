//! Processes that are traced, and do what makes that difficult.

use super::Chain;
use crate::{
    kinds::NUMBERS,
    random::Random,
    raw::sys,
    shared::Shared,
    worker::{child, pause, reap},
};

/// `PTRACE_O_EXITKILL` and whatever follows new processes.
const OPTIONS: u64 = 0x0010_007f;
const TRACEME: u64 = 0;
const PEEK: u64 = 1;
const POKE: u64 = 5;
const CONTINUE: u64 = 7;
const KILL: u64 = 8;
const GETREGS: u64 = 12;
const SETREGS: u64 = 13;
const ATTACH: u64 = 16;
const DETACH: u64 = 17;
const SET_OPTIONS: u64 = 0x4200;
const EVENT_MESSAGE: u64 = 0x4201;
const GET_SIGINFO: u64 = 0x4202;
const SET_SIGINFO: u64 = 0x4203;
const GET_REGSET: u64 = 0x4204;
const SEIZE: u64 = 0x4206;
const INTERRUPT: u64 = 0x4207;
const LISTEN: u64 = 0x4208;

/// Serves stops of tracees for a while: looks, changes, lets go on.
fn serve(first: i64, rounds: usize, chain: &mut Chain<'_>) {
    let flags = libc::WNOHANG | libc::__WALL;
    for _ in 0..rounds {
        let mut status = 0i32;
        // Any child: those that tracees make are traced too.
        let found = sys!(libc::SYS_wait4, -1, &raw mut status, flags, 0);
        if found < 0 {
            return;
        }
        if found == 0 || !libc::WIFSTOPPED(status) {
            if found == first {
                return;
            }
            pause(1);
            continue;
        }
        meddle(found, chain);
        let random = &mut *chain.random;
        let signal = match random.below(3) {
            0 => libc::WSTOPSIG(status) & 0x3f,
            _ => 0,
        };
        let how = random.of(&[CONTINUE, CONTINUE, 24, 24, 9, DETACH, LISTEN]);
        sys!(libc::SYS_ptrace, how, found, 0, signal);
    }
}

/// Looks at a stopped tracee, and changes something.
fn meddle(tracee: i64, chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let mut registers = [0u64; 27];
    let address = registers.as_mut_ptr();
    let vector = [address as u64, 27 * 8];
    match random.below(10) {
        0 => {
            sys!(libc::SYS_ptrace, SET_OPTIONS, tracee, 0, OPTIONS);
        }
        1 => {
            sys!(libc::SYS_ptrace, GETREGS, tracee, 0, address);
            // A selector, flags, the number of a call, an address: all may be wrong.
            registers[random.below(27)] = random.of(&NUMBERS);
            let address = registers.as_ptr();
            sys!(libc::SYS_ptrace, SETREGS, tracee, 0, address);
        }
        2 => {
            sys!(
                libc::SYS_ptrace,
                GET_REGSET,
                tracee,
                random.of(&[1, 2, 0x202]),
                vector.as_ptr()
            );
        }
        3 => {
            sys!(libc::SYS_ptrace, GETREGS, tracee, 0, address);
            let at = registers[random.of(&[16, 19])];
            sys!(libc::SYS_ptrace, PEEK, tracee, at, address);
            sys!(libc::SYS_ptrace, POKE, tracee, at, random.any());
        }
        4 => {
            sys!(libc::SYS_ptrace, GET_SIGINFO, tracee, 0, address);
            sys!(libc::SYS_ptrace, SET_SIGINFO, tracee, 0, address);
        }
        5 => {
            sys!(libc::SYS_ptrace, EVENT_MESSAGE, tracee, 0, address);
        }
        6 => {
            sys!(
                libc::SYS_tgkill,
                tracee,
                tracee,
                random.of(&[9, 19, 18, 10, 11])
            );
        }
        7 => {
            sys!(libc::SYS_ptrace, KILL, tracee, 0, 0);
        }
        _ => {}
    }
}

/// What a tracee does: new processes, a new program, signals, its end.
fn act(shared: &Shared, random: &mut Random) {
    for _ in 0..4 {
        match random.below(5) {
            0 => {
                let made = child(shared, || {});
                pause(1);
                reap(made);
            }
            1 => {
                sys!(
                    libc::SYS_kill,
                    sys!(libc::SYS_getpid),
                    random.of(&[10, 12, 18, 19])
                );
            }
            2 => {
                let empty = [0u64];
                let path = c"/bin/hostile".as_ptr();
                sys!(libc::SYS_execve, path, empty.as_ptr(), empty.as_ptr());
            }
            _ => {
                sys!(libc::SYS_getppid);
                pause(1);
            }
        }
    }
}

/// A child that asks to be traced.
pub(super) fn traced_child(chain: &mut Chain<'_>) {
    let shared = chain.shared;
    let mut own = Random::new(chain.random.next());
    let made = child(shared, || {
        sys!(libc::SYS_ptrace, TRACEME, 0, 0, 0);
        sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGSTOP);
        act(shared, &mut own);
    });
    if made > 0 {
        serve(made, 40, chain);
        reap(made);
    }
}

/// A tracee whose new processes are traced from their beginning, and whose tracer may
/// end in the middle of it.
pub(super) fn traced_fork(chain: &mut Chain<'_>) {
    let shared = chain.shared;
    let mut own = Random::new(chain.random.next());
    let mut second = Random::new(chain.random.next());
    let tracer = child(shared, || {
        let made = child(shared, || act(shared, &mut own));
        let how = second.of(&[SEIZE, ATTACH]);
        sys!(
            libc::SYS_ptrace,
            how,
            made,
            0,
            if how == SEIZE { OPTIONS } else { 0 }
        );
        sys!(libc::SYS_ptrace, INTERRUPT, made, 0, 0);
        let mut chain = Chain {
            shared,
            scratch: &mut *chain.scratch,
            random: &mut second,
        };
        serve(made, 10, &mut chain);
    });
    pause(2);
    reap(tracer);
}

/// A process that works meanwhile is seized, stopped and let go.
pub(super) fn attached(chain: &mut Chain<'_>) {
    let shared = chain.shared;
    let mut own = Random::new(chain.random.next());
    let made = child(shared, || {
        for _ in 0..10 {
            act(shared, &mut own);
        }
    });
    if made <= 0 {
        return;
    }
    let how = chain.random.of(&[SEIZE, ATTACH]);
    sys!(libc::SYS_ptrace, how, made, 0, 0);
    serve(made, 15, chain);
    sys!(libc::SYS_ptrace, INTERRUPT, made, 0, 0);
    serve(made, 15, chain);
    sys!(libc::SYS_ptrace, DETACH, made, 0, chain.random.below(20));
    reap(made);
}

/// The memory of a child, read and written while the child ends or runs another
/// program.
pub(super) fn memory_of_a_child(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let executes = random.once_in(2);
    let made = child(chain.shared, || {
        pause(1);
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
    if made <= 0 {
        return;
    }
    let mut path = *b"/proc/00000/xxxxxxxxx\0";
    for (at, place) in [10_000, 1000, 100, 10, 1].into_iter().enumerate() {
        path[6 + at] = b'0' + (made / place % 10) as u8;
    }
    // Leading zeros are no name of a process.
    let skip = path[6..11]
        .iter()
        .take_while(|digit| **digit == b'0')
        .count();
    path.copy_within(6 + skip.., 6);
    let name_at = 12 - skip;
    for name in [b"mem\0", b"map\0", b"env\0", b"fd\0\0"] {
        let rest: &[u8] = match name {
            b"map\0" => b"maps\0",
            b"env\0" => b"environ\0",
            name => name,
        };
        path[name_at..name_at + rest.len()].copy_from_slice(rest);
        let file = sys!(libc::SYS_open, path.as_ptr(), libc::O_RDWR, 0);
        let file = match file {
            0.. => file,
            _ => sys!(libc::SYS_open, path.as_ptr(), libc::O_RDONLY, 0),
        };
        let at = path.as_ptr();
        let room = chain.scratch.room(4096, random);
        for _ in 0..4 {
            sys!(libc::SYS_pread64, file, room, 4096, at);
            sys!(libc::SYS_pwrite64, file, at, 8, at);
            sys!(libc::SYS_getdents64, file, room, 4096);
            pause(0);
        }
        sys!(libc::SYS_close, file);
    }
    reap(made);
}
