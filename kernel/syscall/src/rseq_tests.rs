//! Restartable sequences and barriers from the system call down.

use crate::hooks::Hooks as Entry;
use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use machine::thread::Hooks;

const EBUSY: i64 = -16;
const EINVAL: i64 = -22;
const EPERM: i64 = -1;
const AREA: usize = DATA + 0x1000;
const SEQUENCE: usize = DATA + 0x1100;
const CODE: usize = DATA + 0x2000;
const SIGNATURE: u32 = 0x5305_3053;

fn rseq(p: &mut Prog<'_>, addr: usize, len: usize, flags: usize, signature: u32) -> i64 {
    let args = [addr, len, flags, signature as usize];
    p.call(nr::__NR_rseq, &args)
}

/// Describes a sequence of 64 bytes that aborts to 128 bytes behind its start.
fn describe(p: &Prog<'_>, signature: u32) -> (u64, u64) {
    let (start, abort) = (CODE as u64, CODE as u64 + 128);
    p.put(SEQUENCE, &[0, start, 64, abort]);
    p.put(CODE + 124, &signature);
    p.put(AREA + 8, &(SEQUENCE as u64));
    (start, abort)
}

/// Where a thread goes on that was switched out at `rip`.
fn interrupted_at(p: &mut Prog<'_>, rip: u64) -> u64 {
    let mut regs = *p.regs;
    (regs.rip, regs.orig_rax) = (rip, u64::MAX);
    Entry.switched(&mut regs);
    regs.rip
}

#[test]
fn an_interrupted_sequence_starts_over() {
    let child = code(|p| {
        // The registration is inherited with the memory.
        assert_eq!(rseq(p, AREA, 32, 0, SIGNATURE), EBUSY);
        describe(p, SIGNATURE + 1);
        interrupted_at(p, CODE as u64 + 1);
        p.call(nr::__NR_getpid, &[]);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        p.put(AREA + 4, &u32::MAX);
        assert_eq!(rseq(p, AREA + 8, 32, 0, SIGNATURE), EINVAL);
        assert_eq!(rseq(p, AREA, 16, 0, SIGNATURE), EINVAL);
        assert_eq!(rseq(p, AREA, 32, 0, SIGNATURE), 0);
        assert!((p.get::<u32>(AREA + 4) as usize) < machine::cpu::count());
        assert_eq!(p.get::<u32>(AREA), p.get::<u32>(AREA + 4));
        assert_eq!(rseq(p, AREA, 32, 0, SIGNATURE), EBUSY);
        assert_eq!(rseq(p, AREA, 32, 0, 1), EPERM);
        let (start, abort) = describe(p, SIGNATURE);
        assert_eq!(interrupted_at(p, start + 63), abort);
        assert_eq!(p.get::<u64>(AREA + 8), 0);
        // Once is enough, and outside nothing happens.
        assert_eq!(interrupted_at(p, start + 63), start + 63);
        describe(p, SIGNATURE);
        assert_eq!(interrupted_at(p, start + 64), start + 64);
        let child = i64::from(p.fork(child));
        assert_eq!(p.wait(child, 0), (child, 11));
        assert_eq!(rseq(p, AREA, 32, 1, 1), EPERM);
        assert_eq!(rseq(p, AREA, 32, 1, SIGNATURE), 0);
        assert_eq!(p.get::<u32>(AREA + 4), u32::MAX);
        assert_eq!(rseq(p, AREA, 32, 1, SIGNATURE), EINVAL);
    });
}

#[test]
fn a_handler_begins_outside_the_sequence() {
    let handler = code(|p| {
        // What the handler goes back to (the context behind siginfo).
        let rip: u64 = p.get(p.regs.rdx as usize + 40 + 16 * 8);
        assert_ne!(rip, CODE as u64 + 1);
        assert_eq!(p.get::<u64>(AREA + 8), SEQUENCE as u64);
    });
    Stage::new().run(move |p| {
        assert_eq!(rseq(p, AREA, 32, 0, SIGNATURE), 0);
        describe(p, SIGNATURE);
        p.handle(10, handler, 0);
        // In a call nobody is in a sequence: it stays as it is.
        assert_eq!(p.call(nr::__NR_kill, &[1, 10]), 0);
    });
}

#[test]
fn barriers_are_registered_first() {
    Stage::new().run(|p| {
        let mut barrier = |command: usize| p.call(nr::__NR_membarrier, &[command, 0, 0]);
        assert_eq!(barrier(0), 0x3ff);
        for (command, registration) in [(8, 16), (32, 64), (128, 256)] {
            assert_eq!(barrier(command), EPERM);
            assert_eq!(barrier(registration), 0);
            assert_eq!(barrier(command), 0);
        }
        assert_eq!((barrier(1), barrier(2), barrier(4)), (0, 0, 0));
        assert_eq!(barrier(512), 16 | 64 | 256 | 4);
        assert_eq!(barrier(1024), EINVAL);
        assert_eq!(barrier(3), EINVAL);
        assert_eq!(p.call(nr::__NR_membarrier, &[8, 1, 0]), EINVAL);
    });
}
