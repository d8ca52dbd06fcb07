//! Tracers and tracees, played through from the system call down.

use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

const TRACEME: usize = 0;
const PEEKDATA: usize = 2;
const PEEKUSER: usize = 3;
const POKEDATA: usize = 5;
const POKEUSER: usize = 6;
const CONT: usize = 7;
const GETREGS: usize = 12;
const SETREGS: usize = 13;
const ATTACH: usize = 16;
const DETACH: usize = 17;
const SYSCALL: usize = 24;
const SETOPTIONS: usize = 0x4200;
const GETEVENTMSG: usize = 0x4201;
const GETSIGINFO: usize = 0x4202;
const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const LISTEN: usize = 0x4208;
const CALL_INFO: usize = 0x420e;

const WALL: usize = 0x4000_0000;
const NOHANG: usize = 1;
const UNTRACED: usize = 2;
const KILL: i32 = 9;
const CONT_SIGNAL: i32 = 18;
const STOP: i32 = 19;
const TRAP: i32 = 5;
const CHLD: i32 = 17;
const ESRCH: i64 = -3;
const EPERM: i64 = -1;
const EIO: i64 = -5;
const ECHILD: i64 = -10;
/// Where tracers keep what they ask for.
const OUT: usize = DATA + 0x6000;
/// Offsets of `orig_rax` and `rax` in `struct user`.
const ORIG_RAX: usize = 120;
const RAX: usize = 80;

fn ptrace(p: &mut Prog<'_>, request: usize, pid: i64, addr: usize, data: usize) -> i64 {
    p.call(nr::__NR_ptrace, &[request, pid as usize, addr, data])
}

fn stopped(code: i32) -> i32 {
    code << 8 | 0x7f
}

fn kill(p: &mut Prog<'_>, pid: i64, signal: i32) -> i64 {
    p.call(nr::__NR_kill, &[pid as usize, signal as usize])
}

fn peek_user(p: &mut Prog<'_>, pid: i64, at: usize) -> i64 {
    assert_eq!(ptrace(p, PEEKUSER, pid, at, OUT), 0);
    p.get(OUT)
}

/// A child that asks to be traced, stops, and makes a few calls.
fn traced_child() -> u64 {
    code(|p| {
        assert_eq!(ptrace(p, TRACEME, 0, 0, 0), 0);
        let me = p.call(nr::__NR_getpid, &[]);
        assert_eq!(kill(p, me, STOP), 0);
        let uid = p.call(nr::__NR_getuid, &[]);
        p.exit(uid as usize);
    })
}

#[test]
fn calls_are_seen_changed_and_left_out() {
    let child = traced_child();
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        assert_eq!(p.wait(pid, WALL | NOHANG).0, 0);
        assert_eq!(ptrace(p, SETOPTIONS, pid, 0, 1), 0);
        assert_eq!(ptrace(p, SYSCALL, pid, 0, 0), 0);
        assert_eq!(p.wait(-1, WALL), (pid, stopped(TRAP | 0x80)));
        let number = i64::from(nr::__NR_getuid);
        assert_eq!(peek_user(p, pid, ORIG_RAX), number);
        assert_eq!(peek_user(p, pid, RAX), -38);
        assert_eq!(ptrace(p, CALL_INFO, pid, 88, OUT), 80);
        assert_eq!((p.get::<u8>(OUT), p.get::<i64>(OUT + 24)), (1, number));
        // The call is not made; what it answers is the tracer's choice.
        assert_eq!(ptrace(p, POKEUSER, pid, ORIG_RAX, usize::MAX), 0);
        assert_eq!(ptrace(p, SYSCALL, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(TRAP | 0x80)));
        assert_eq!(ptrace(p, CALL_INFO, pid, 88, OUT), 33);
        assert_eq!((p.get::<u8>(OUT), p.get::<i64>(OUT + 24)), (2, -38));
        assert_eq!(ptrace(p, POKEUSER, pid, RAX, 77), 0);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, 77 << 8));
    });
}

#[test]
fn signals_pass_through_the_tracer() {
    let child = code(|p| {
        assert_eq!(ptrace(p, TRACEME, 0, 0, 0), 0);
        let me = p.call(nr::__NR_getpid, &[]);
        for signal in [12, 15, CHLD] {
            assert_eq!(kill(p, me, signal), 0);
        }
        p.exit(3);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        // Deadly ones are swallowed, an ignored one is seen.
        for signal in [12, 15, CHLD] {
            assert_eq!(p.wait(pid, WALL), (pid, stopped(signal)));
            assert_eq!(ptrace(p, GETSIGINFO, pid, 0, OUT), 0);
            assert_eq!(p.get::<i32>(OUT), signal);
            assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        }
        assert_eq!(p.wait(pid, WALL), (pid, 3 << 8));
        // One that the tracer gives instead is delivered.
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, stopped(12)));
        assert_eq!(ptrace(p, CONT, pid, 0, 6), 0);
        assert_eq!(p.wait(pid, WALL), (pid, 6));
    });
}

#[test]
fn what_is_stopped_is_the_tracers_at_once() {
    let child = code(|p| {
        let me = p.call(nr::__NR_getpid, &[]);
        kill(p, me, STOP);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        for seize in [false, true].repeat(20) {
            let pid = i64::from(p.fork(child));
            assert_eq!(p.wait(pid, WALL | UNTRACED), (pid, stopped(STOP)));
            let how = if seize { SEIZE } else { ATTACH };
            assert_eq!(ptrace(p, how, pid, 0, 0), 0);
            // Without a `wait` in between.
            let number = i64::from(nr::__NR_kill);
            assert_eq!(peek_user(p, pid, ORIG_RAX), number);
            assert_eq!(ptrace(p, DETACH, pid, 0, 0), 0);
            kill(p, pid, CONT_SIGNAL);
            assert_eq!(p.wait(pid, WALL), (pid, 0));
        }
    });
}

#[test]
fn a_debugger_attaches_reads_writes_and_leaves() {
    let child = code(|p| {
        p.put(DATA + 0x100, &0x1234u64);
        loop {
            p.call(nr::__NR_sched_yield, &[]);
            let word: u64 = p.get(DATA + 0x100);
            if word == 0x4321 {
                p.exit(9);
            }
        }
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        p.nap();
        assert_eq!(ptrace(p, PEEKDATA, pid, DATA, OUT), ESRCH);
        assert_eq!(ptrace(p, ATTACH, 1, 0, 0), EPERM);
        assert_eq!(ptrace(p, ATTACH, pid, 0, 0), 0);
        assert_eq!(ptrace(p, ATTACH, pid, 0, 0), EPERM);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        assert_eq!(ptrace(p, PEEKDATA, pid, DATA + 0x100, OUT), 0);
        assert_eq!(p.get::<u64>(OUT), 0x1234);
        assert_eq!(ptrace(p, GETREGS, pid, 0, OUT), 0);
        assert_eq!(ptrace(p, SETREGS, pid, 0, OUT), 0);
        // Its code cannot be written by itself.
        assert_eq!(ptrace(p, POKEDATA, pid, 0x40_0000, 0xcc), 0);
        assert_eq!(ptrace(p, PEEKDATA, pid, 0x40_0000, OUT), 0);
        assert_eq!(p.get::<u64>(OUT), 0xcc);
        assert_eq!(ptrace(p, PEEKDATA, pid, 0x10_0000, OUT), EIO);
        assert_eq!(ptrace(p, POKEDATA, pid, DATA + 0x100, 0x4321), 0);
        assert_eq!(ptrace(p, DETACH, pid, 0, 0), 0);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), ESRCH);
        assert_eq!(p.wait(pid, 0), (pid, 9 << 8));
    });
}

#[test]
fn children_and_threads_of_a_tracee_are_followed() {
    let grandchild = code(|p| p.exit(4));
    let child = code(move |p| {
        assert_eq!(ptrace(p, TRACEME, 0, 0, 0), 0);
        let me = p.call(nr::__NR_getpid, &[]);
        kill(p, me, STOP);
        let pid = i64::from(p.fork(grandchild));
        assert_eq!(p.wait(pid, 0), (pid, 4 << 8));
        p.exit(5);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        assert_eq!(ptrace(p, SETOPTIONS, pid, 0, 2 | 0x40), 0);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        let (mut told, mut ends) = (0, 0);
        let mut young = 0;
        loop {
            match p.wait(-1, WALL) {
                (ECHILD, _) => break,
                (who, status) if status == stopped(TRAP | 1 << 8) => {
                    assert_eq!(who, pid);
                    assert_eq!(ptrace(p, GETEVENTMSG, pid, 0, OUT), 0);
                    young = p.get::<i64>(OUT);
                    told += 1;
                    assert_eq!(ptrace(p, CONT, who, 0, 0), 0);
                }
                (who, status) if status == stopped(TRAP | 6 << 8) => {
                    assert_eq!(ptrace(p, GETEVENTMSG, who, 0, OUT), 0);
                    let want = if who == pid { 5 } else { 4 };
                    assert_eq!(p.get::<i64>(OUT), want << 8);
                    assert_eq!(ptrace(p, CONT, who, 0, 0), 0);
                }
                (who, status) if status & 0xff == 0x7f => {
                    let signal = status >> 8;
                    let pass = if signal == STOP { 0 } else { signal };
                    assert_eq!(ptrace(p, CONT, who, 0, pass as usize), 0);
                }
                (who, status) => {
                    let want = if who == pid { 5 } else { 4 };
                    assert_eq!(status, want << 8);
                    ends += 1;
                }
            }
        }
        assert_ne!(young, 0);
        assert_eq!((told, ends), (1, 2));
    });
}

#[test]
fn a_seized_tracee_is_interrupted_and_listens() {
    const EVENT_STOP: i32 = 128 << 8;
    let child = code(|p| {
        loop {
            p.call(nr::__NR_sched_yield, &[]);
        }
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(ptrace(p, INTERRUPT, pid, 0, 0), ESRCH);
        assert_eq!(ptrace(p, SEIZE, pid, 0, 1 << 20), 0);
        assert_eq!(p.wait(pid, WALL | NOHANG).0, 0);
        assert_eq!(ptrace(p, INTERRUPT, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(TRAP | EVENT_STOP)));
        assert_eq!(ptrace(p, LISTEN, pid, 0, 0), EIO);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        kill(p, pid, STOP);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        assert_eq!(ptrace(p, CONT, pid, 0, STOP as usize), 0);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP | EVENT_STOP)));
        assert_eq!(ptrace(p, LISTEN, pid, 0, 0), 0);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), ESRCH);
        kill(p, pid, 18);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(TRAP | EVENT_STOP)));
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(18)));
        kill(p, pid, KILL);
        assert_eq!(p.wait(pid, WALL), (pid, KILL));
    });
}

#[test]
fn tracees_outlive_their_tracer_unless_it_wants_otherwise() {
    static PID: AtomicI64 = AtomicI64::new(0);
    for options in [0, 1 << 20] {
        let child = code(|p| {
            for _ in 0..200 {
                p.call(nr::__NR_sched_yield, &[]);
                p.nap();
                if PID.load(SeqCst) < 0 {
                    p.exit(8);
                }
            }
        });
        let tracer = code(move |p| {
            let pid = PID.load(SeqCst);
            assert_eq!(ptrace(p, SEIZE, pid, 0, options), 0);
            assert_eq!(ptrace(p, INTERRUPT, pid, 0, 0), 0);
            assert_eq!(p.wait(pid, WALL).0, pid);
            p.exit(0);
        });
        Stage::new().run(move |p| {
            let pid = i64::from(p.fork(child));
            PID.store(pid, SeqCst);
            let other = i64::from(p.fork(tracer));
            assert_eq!(p.wait(other, 0), (other, 0));
            PID.store(-1, SeqCst);
            let want = if options == 0 { 8 << 8 } else { KILL };
            assert_eq!(p.wait(pid, 0), (pid, want));
        });
    }
}

#[test]
fn a_kill_ends_a_tracee_in_every_stop() {
    let child = code(|p| {
        assert_eq!(ptrace(p, TRACEME, 0, 0, 0), 0);
        let me = p.call(nr::__NR_getpid, &[]);
        kill(p, me, STOP);
        p.call(nr::__NR_getuid, &[]);
        p.exit(1);
    });
    Stage::new().run(move |p| {
        for rounds in 0..5 {
            let pid = i64::from(p.fork(child));
            assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
            // Entry, exit, entry of the last call, and the event before the end.
            assert_eq!(ptrace(p, SETOPTIONS, pid, 0, 1 | 0x40), 0);
            for _ in 0..rounds {
                assert_eq!(ptrace(p, SYSCALL, pid, 0, 0), 0);
                assert_eq!(p.wait(pid, WALL).1 & 0xff, 0x7f);
            }
            kill(p, pid, KILL);
            let mut last = p.wait(pid, WALL).1;
            while last & 0xff == 0x7f {
                last = p.wait(pid, WALL).1;
            }
            // On its last way out the process had an end already.
            let want = if rounds == 4 { 1 << 8 } else { KILL };
            assert_eq!(last, want, "after {rounds}");
        }
    });
}

#[test]
fn the_end_of_a_traced_thread_is_told() {
    const VM_THREAD: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;
    let second = code(|p| {
        p.call(nr::__NR_exit, &[6]);
    });
    let child = code(move |p| {
        assert_eq!(ptrace(p, TRACEME, 0, 0, 0), 0);
        let me = p.call(nr::__NR_getpid, &[]);
        kill(p, me, STOP);
        assert!(p.call_at(second, nr::__NR_clone, &[VM_THREAD, 0, 0, 0, 0]) > 0);
        p.call(nr::__NR_pause, &[]);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        assert_eq!(ptrace(p, SETOPTIONS, pid, 0, 8), 0);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, stopped(TRAP | 3 << 8)));
        assert_eq!(ptrace(p, GETEVENTMSG, pid, 0, OUT), 0);
        let tid: i64 = p.get(OUT);
        assert_eq!(p.wait(tid, WALL), (tid, stopped(STOP)));
        assert_eq!(ptrace(p, CONT, tid, 0, 0), 0);
        assert_eq!(p.wait(tid, WALL), (tid, 6 << 8));
        assert_eq!(p.wait(tid, WALL).0, ECHILD);
        kill(p, pid, KILL);
        assert_eq!(p.wait(-1, WALL), (pid, KILL));
    });
}
