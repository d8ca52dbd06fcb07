//! Filters on system calls, played through from the system call down.

use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;

const SECCOMP: u32 = nr::__NR_seccomp;
const STRICT: usize = 0;
const FILTER: usize = 1;
const AVAILABLE: usize = 2;
const TSYNC: usize = 1;
const SET_NO_NEW_PRIVS: usize = 38;
const GET_SECCOMP: usize = 21;
const SET_SECCOMP: usize = 22;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x5_0000;
const TRAP: u32 = 0x3_0000;
const TRACE: u32 = 0x7ff0_0000;
const EPERM: i64 = -1;
const EACCES: i64 = -13;
const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
const ENOSYS: i64 = -38;
const EOPNOTSUPP: i64 = -95;
const SIGSYS: i32 = 31;
const SIGKILL: i32 = 9;
const PROGRAM: usize = DATA + 0x100;
const HEADER: usize = DATA + 0x80;

fn instruction(code: u64, when: u64, otherwise: u64, k: u32) -> u64 {
    code | when << 16 | otherwise << 24 | u64::from(k) << 32
}

/// Lays down a program; where its header is.
fn lay(p: &mut Prog<'_>, program: &[u64]) -> usize {
    for (at, instruction) in program.iter().enumerate() {
        p.put(PROGRAM + at * 8, instruction);
    }
    p.put(HEADER, &(program.len() as u64));
    p.put(HEADER + 8, &(PROGRAM as u64));
    HEADER
}

/// A filter that answers so to one call, and lets all others pass.
fn lay_one(p: &mut Prog<'_>, number: u32, answer: u32) -> usize {
    let program = [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, number),
        instruction(0x06, 0, 0, answer),
        instruction(0x06, 0, 0, ALLOW),
    ];
    lay(p, &program)
}

fn add(p: &mut Prog<'_>, number: u32, answer: u32) {
    let header = lay_one(p, number, answer);
    assert_eq!(p.call(SECCOMP, &[FILTER, 0, header]), 0);
}

#[test]
fn filters_answer_errors_and_the_strictest_counts() {
    let child = code(|p| {
        // It has them from its parent, and `execve` would keep them too.
        assert_eq!(p.call(nr::__NR_getppid, &[]), -7);
        p.exit(5);
    });
    Stage::new().run(move |p| {
        assert_eq!(p.call(nr::__NR_prctl, &[GET_SECCOMP]), 0);
        add(p, nr::__NR_getppid, ERRNO | 5);
        assert_eq!(p.call(nr::__NR_getppid, &[]), -5);
        // Of equal ones the newest.
        add(p, nr::__NR_getppid, ERRNO | 7);
        assert_eq!(p.call(nr::__NR_getppid, &[]), -7);
        add(p, nr::__NR_getppid, TRACE);
        assert_eq!(p.call(nr::__NR_getppid, &[]), -7);
        assert_eq!(p.call(nr::__NR_prctl, &[GET_SECCOMP]), 2);
        assert!(p.call(nr::__NR_getpid, &[]) > 0);
        // Larger numbers are no errors.
        add(p, nr::__NR_getuid, ERRNO | 0xffff);
        assert_eq!(p.call(nr::__NR_getuid, &[]), -4095);
        // Nobody traces, nobody listens.
        add(p, nr::__NR_getgid, TRACE);
        assert_eq!(p.call(nr::__NR_getgid, &[]), ENOSYS);
        add(p, nr::__NR_geteuid, 0x7fc0_0000);
        assert_eq!(p.call(nr::__NR_geteuid, &[]), ENOSYS);
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, 0), (pid, 5 << 8));
        // Not even strict mode can follow.
        assert_eq!(p.call(SECCOMP, &[STRICT, 0, 0]), EINVAL);
    });
}

#[test]
fn what_filters_kill_dies_of_sigsys_and_strict_mode_kills() {
    let killed = |answer: u32| {
        code(move |p| {
            add(p, nr::__NR_getppid, answer);
            p.call(nr::__NR_getppid, &[]);
            p.exit(1);
        })
    };
    let [process, thread, unknown, trap] = [0x8000_0000, 0, 0x1_0000, TRAP].map(killed);
    let strict = code(|p| {
        assert_eq!(p.call(nr::__NR_prctl, &[SET_SECCOMP, 1]), 0);
        assert_eq!(p.call(nr::__NR_read, &[99, DATA, 1]), -9);
        p.call(nr::__NR_getpid, &[]);
        p.exit(1);
    });
    Stage::new().run(move |p| {
        for child in [process, thread, unknown, trap] {
            let pid = i64::from(p.fork(child));
            assert_eq!(p.wait(pid, 0), (pid, SIGSYS));
        }
        let pid = i64::from(p.fork(strict));
        assert_eq!(p.wait(pid, 0), (pid, SIGKILL));
    });
}

#[test]
fn who_could_gain_rights_must_give_that_up_first() {
    let child = code(|p| {
        assert_eq!(p.call(nr::__NR_setuid, &[1000]), 0);
        let header = lay_one(p, nr::__NR_getppid, ERRNO | 1);
        assert_eq!(p.call(SECCOMP, &[FILTER, 0, header]), EACCES);
        assert_eq!(p.call(nr::__NR_prctl, &[SET_SECCOMP, 2, header]), EACCES);
        assert_eq!(p.call(nr::__NR_prctl, &[SET_NO_NEW_PRIVS, 1, 0, 0, 0]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[SET_SECCOMP, 2, header]), 0);
        assert_eq!(p.call(nr::__NR_getppid, &[]), EPERM);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, 0), (pid, 0));
    });
}

#[test]
fn what_is_wrong_is_refused() {
    Stage::new().run(|p| {
        let header = lay(
            p,
            &[instruction(0x20, 0, 0, 64), instruction(0x06, 0, 0, ALLOW)],
        );
        assert_eq!(p.call(SECCOMP, &[FILTER, 0, header]), EINVAL);
        assert_eq!(p.call(SECCOMP, &[FILTER, 0, 0]), EFAULT);
        // Flags come first; a listener there is not.
        assert_eq!(p.call(SECCOMP, &[FILTER, TSYNC, 0]), EFAULT);
        assert_eq!(p.call(SECCOMP, &[FILTER, 8, 0]), EINVAL);
        assert_eq!(p.call(SECCOMP, &[STRICT, 1, 0]), EINVAL);
        assert_eq!(p.call(SECCOMP, &[STRICT, 0, DATA]), EINVAL);
        assert_eq!(p.call(SECCOMP, &[9, 0, 0]), EINVAL);
        assert_eq!(p.call(nr::__NR_prctl, &[SET_SECCOMP, 3]), EINVAL);
        p.put(HEADER, &0u64);
        assert_eq!(p.call(SECCOMP, &[FILTER, 0, HEADER]), EINVAL);
        p.put(HEADER, &4097u64);
        assert_eq!(p.call(SECCOMP, &[FILTER, 0, HEADER]), EINVAL);
        for (answer, known) in [
            (ALLOW, 0),
            (TRAP, 0),
            (0x7fc0_0000, EOPNOTSUPP),
            (1, EOPNOTSUPP),
        ] {
            p.put(DATA, &answer);
            assert_eq!(p.call(SECCOMP, &[AVAILABLE, 0, DATA]), known, "{answer:#x}");
        }
        // None of that has left a filter.
        assert_eq!(p.call(nr::__NR_prctl, &[GET_SECCOMP]), 0);
    });
}

#[test]
fn filters_of_a_thread_are_bounded_together() {
    Stage::new().run(|p| {
        let mut long = std::vec![instruction(0x00, 0, 0, 1); 4095];
        long.push(instruction(0x06, 0, 0, ALLOW));
        let header = lay(p, &long);
        for _ in 0..7 {
            assert_eq!(p.call(SECCOMP, &[FILTER, 0, header]), 0);
        }
        assert_eq!(p.call(SECCOMP, &[FILTER, 0, header]), -12);
    });
}

#[test]
fn a_tracer_is_asked_and_chooses() {
    const WALL: usize = 0x4000_0000;
    const ORIG_RAX: usize = 120;
    const RAX: usize = 80;
    let ptrace = |p: &mut Prog<'_>, request: usize, pid: i64, at: usize, value: usize| {
        p.call(nr::__NR_ptrace, &[request, pid as usize, at, value])
    };
    let child = code(move |p| {
        assert_eq!(ptrace(p, 0, 0, 0, 0), 0);
        let me = p.call(nr::__NR_getpid, &[]);
        p.call(nr::__NR_kill, &[me as usize, 19]);
        add(p, nr::__NR_getppid, TRACE | 9);
        // The first is made, the second answered by the tracer.
        let real = p.call(nr::__NR_getppid, &[]);
        assert!(real > 0);
        let given = p.call(nr::__NR_getppid, &[]);
        p.exit(given as usize);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, WALL), (pid, 19 << 8 | 0x7f));
        // PTRACE_O_TRACESECCOMP, then PTRACE_CONT.
        assert_eq!(ptrace(p, 0x4200, pid, 0, 0x80), 0);
        assert_eq!(ptrace(p, 7, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, (7 << 8 | 5) << 8 | 0x7f));
        assert_eq!(ptrace(p, 0x4201, pid, 0, DATA), 0);
        assert_eq!(p.get::<u64>(DATA), 9);
        assert_eq!(ptrace(p, 7, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, (7 << 8 | 5) << 8 | 0x7f));
        assert_eq!(ptrace(p, 6, pid, ORIG_RAX, usize::MAX), 0);
        assert_eq!(ptrace(p, 6, pid, RAX, 33), 0);
        assert_eq!(ptrace(p, 7, pid, 0, 0), 0);
        assert_eq!(p.wait(pid, WALL), (pid, 33 << 8));
    });
}
