//! Debug registers through ptrace(2), as debuggers and LTP's ptrace08 to ptrace10 use them.

use crate::hooks::Hooks;
use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use machine::host::breakpoints;
use machine::thread::{Breakpoints, Exception, Hooks as _};

const PEEKUSER: usize = 3;
const POKEUSER: usize = 6;
const CONT: usize = 7;
const GETSIGINFO: usize = 0x4202;
const WALL: usize = 0x4000_0000;
const STOP: i32 = 19;
const TRAP: i32 = 5;
const CHLD: i32 = 17;
const EIO: i64 = -5;
const EINVAL: i64 = -22;
const OUT: usize = DATA + 0x6000;
const TRAP_HWBKPT: i32 = 4;
const RESUME: u64 = 0x1_0000;

/// `offsetof(struct user, u_debugreg[n])`
fn register(n: usize) -> usize {
    848 + 8 * n
}

fn ptrace(p: &mut Prog<'_>, request: usize, pid: i64, addr: usize, data: usize) -> i64 {
    p.call(nr::__NR_ptrace, &[request, pid as usize, addr, data])
}

fn peek(p: &mut Prog<'_>, pid: i64, n: usize) -> u64 {
    assert_eq!(ptrace(p, PEEKUSER, pid, register(n), OUT), 0);
    p.get(OUT)
}

fn poke(p: &mut Prog<'_>, pid: i64, n: usize, value: usize) -> i64 {
    ptrace(p, POKEUSER, pid, register(n), value)
}

fn stopped(code: i32) -> i32 {
    code << 8 | 0x7f
}

/// Stops as a tracee of its parent.
fn offer(p: &mut Prog<'_>) {
    assert_eq!(ptrace(p, 0, 0, 0, 0), 0);
    let me = p.call(nr::__NR_getpid, &[]);
    p.call(nr::__NR_kill, &[me as usize, STOP as usize]);
}

#[test]
fn registers_are_checked_and_read_back() {
    let child = code(|p| {
        offer(p);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        let quiet = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| peek(p, pid, n));
        assert_eq!(quiet, [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0]);
        // ptrace10: an address that is not in force can be changed.
        for address in [1, 2] {
            assert_eq!(poke(p, pid, 0, address), 0);
            assert_eq!(peek(p, pid, 0), address as u64);
        }
        // ptrace08: the kernel's addresses are refused, in force or not.
        for control in [0, 1] {
            assert_eq!(poke(p, pid, 7, control), 0);
            for address in [0x7fff_ffff_f000, 0xffff_8000_0000_0000, usize::MAX] {
                assert_eq!(poke(p, pid, 0, address), EINVAL);
                assert_eq!(peek(p, pid, 0), 2);
            }
        }
        // Ports, code of two bytes, and what is not aligned.
        for control in [0x2_0001, 0x4_0001, 0xd_0001] {
            assert_eq!(poke(p, pid, 7, control), EINVAL);
            assert_eq!(peek(p, pid, 7), 1);
        }
        assert_eq!((poke(p, pid, 4, 0), poke(p, pid, 5, 0)), (EIO, EIO));
        assert_eq!(ptrace(p, PEEKUSER, pid, register(8), OUT), EIO);
        assert_eq!(ptrace(p, PEEKUSER, pid, register(0) + 1, OUT), EIO);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, 0));
    });
}

#[test]
fn what_is_met_is_told_and_what_is_made_has_none() {
    const ALL: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;
    let none = code(|p| p.exit(usize::from(breakpoints() != Breakpoints::default())));
    let thread = code(|p| {
        assert_eq!(breakpoints(), Breakpoints::default());
        p.call(nr::__NR_exit, &[0]);
    });
    let child = code(move |p| {
        offer(p);
        let want = Breakpoints::new([DATA, 0x40_0000, 0, 0], 10 | 0xd << 16);
        assert_eq!(Some(breakpoints()), want);
        // The data was written.
        p.regs.rip = 0x1234;
        Hooks.exception(p.regs, Exception::Debug(1));
        assert_eq!(p.regs.rflags & RESUME, 0);
        p.call(nr::__NR_getuid, &[]);
        // The instruction is about to be executed.
        Hooks.exception(p.regs, Exception::Debug(2));
        assert_eq!(p.regs.rflags & RESUME, RESUME);
        p.call(nr::__NR_getuid, &[]);
        // None of those in force: nothing happens.
        Hooks.exception(p.regs, Exception::Debug(4));
        p.call(nr::__NR_getuid, &[]);
        let young = i64::from(p.fork(none));
        assert_eq!(p.wait(young, WALL), (young, 0));
        assert!(p.call_at(thread, nr::__NR_clone, &[ALL, 0, 0, 0, 0]) > 0);
        assert_eq!(Some(breakpoints()), want);
        p.put(DATA, b"/none\0");
        let code = p.call(nr::__NR_execve, &[DATA, 0, 0]);
        panic!("execve: {code}");
    });
    let stage = Stage::new();
    stage.install("/none", none);
    stage.run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, stopped(STOP)));
        // Four bytes of data written, and an instruction executed.
        assert_eq!(poke(p, pid, 0, DATA), 0);
        assert_eq!(poke(p, pid, 1, 0x40_0000), 0);
        assert_eq!(poke(p, pid, 7, 5 | 0xd << 16), 0);
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        for (n, what) in [(0, 1), (1, 2)] {
            assert_eq!(p.wait(pid, WALL), (pid, stopped(TRAP)));
            assert_eq!(ptrace(p, GETSIGINFO, pid, 0, OUT), 0);
            assert_eq!((p.get::<i32>(OUT), p.get(OUT + 8)), (TRAP, TRAP_HWBKPT));
            if n == 0 {
                assert_eq!(p.get::<u64>(OUT + 16), 0x1234);
            }
            assert_eq!(peek(p, pid, 6), 0xffff_0ff0 | what);
            assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        }
        // Its child has ended.
        assert_eq!(p.wait(pid, WALL), (pid, stopped(CHLD)));
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        // It has become another program.
        assert_eq!(p.wait(pid, WALL), (pid, stopped(TRAP)));
        assert_eq!((peek(p, pid, 0), peek(p, pid, 7)), (0, 0));
        assert_eq!(ptrace(p, CONT, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, 0));
    });
}
