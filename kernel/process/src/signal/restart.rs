//! Calls that a signal interrupted: to be made again, or to fail with `EINTR`
//! (signal(7), "Interruption of system calls").
//!
//! A handler of such a call leaves a special number in `rax`, which no program
//! ever sees: here it becomes `EINTR`, or the program counter goes back to the
//! `syscall` instruction.

use super::ThreadSignals;
use machine::thread::UserRegs;

/// Bytes of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;
/// Number of restart_syscall(2).
const RESTART_SYSCALL: u64 = 219;
/// In `orig_rax`: not in a system call.
const NO_CALL: u64 = u64::MAX;

const EINTR: i64 = 4;
const ERESTARTSYS: i64 = 512;
const ERESTARTNOINTR: i64 = 513;
const ERESTART_RESTARTBLOCK: i64 = 516;

fn interrupted(regs: &UserRegs) -> Option<i64> {
    let error = (regs.rax as i64).wrapping_neg();
    (regs.orig_rax != NO_CALL && (ERESTARTSYS..=ERESTART_RESTARTBLOCK).contains(&error))
        .then_some(error)
}

fn again(regs: &mut UserRegs, number: u64) {
    regs.rax = number;
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
    regs.orig_rax = NO_CALL;
}

/// A handler is about to run; `restart` is its `SA_RESTART`.
pub(super) fn before_handler(restart: bool, regs: &mut UserRegs) {
    match interrupted(regs) {
        None => {}
        Some(ERESTARTNOINTR) => again(regs, regs.orig_rax),
        Some(ERESTARTSYS) if restart => again(regs, regs.orig_rax),
        Some(_) => {
            regs.rax = (-EINTR) as u64;
            regs.orig_rax = NO_CALL;
        }
    }
}

/// No handler ran, so the interruption goes unnoticed.
pub(super) fn without_handler(signals: &ThreadSignals, regs: &mut UserRegs) {
    match interrupted(regs) {
        None => {}
        Some(ERESTART_RESTARTBLOCK) if signals.restart.lock().is_some() => {
            again(regs, RESTART_SYSCALL);
        }
        Some(_) => again(regs, regs.orig_rax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Restart;

    const ERESTARTNOHAND: i64 = 514;

    fn regs(error: i64) -> UserRegs {
        UserRegs {
            rax: (-error) as u64,
            orig_rax: 7,
            rip: 0x1002,
            ..UserRegs::default()
        }
    }

    fn outcome(r: &UserRegs) -> (i64, u64) {
        (r.rax as i64, r.rip)
    }

    #[test]
    fn handlers_see_the_rules_of_signal_7() {
        for (error, flag, want) in [
            (ERESTARTSYS, false, (-EINTR, 0x1002)),
            (ERESTARTSYS, true, (7, 0x1000)),
            (ERESTARTNOINTR, false, (7, 0x1000)),
            (ERESTARTNOHAND, true, (-EINTR, 0x1002)),
            (ERESTART_RESTARTBLOCK, true, (-EINTR, 0x1002)),
            (EINTR, true, (-EINTR, 0x1002)),
        ] {
            let mut r = regs(error);
            before_handler(flag, &mut r);
            assert_eq!(outcome(&r), want, "{error} {flag}");
            // A second handler finds nothing left to decide.
            before_handler(flag, &mut r);
            assert_eq!(outcome(&r), want);
        }
    }

    #[test]
    fn without_a_handler_calls_go_on() {
        let s = ThreadSignals::default();
        let mut r = regs(ERESTARTNOHAND);
        without_handler(&s, &mut r);
        assert_eq!(outcome(&r), (7, 0x1000));
        s.set_restart(Restart::Sleep {
            clock: 1,
            deadline: 0,
            remaining: 0,
        });
        let mut r = regs(ERESTART_RESTARTBLOCK);
        without_handler(&s, &mut r);
        assert_eq!(outcome(&r), (219, 0x1000));
        // A value that only looks like one, outside a call.
        let mut r = UserRegs {
            orig_rax: NO_CALL,
            ..regs(ERESTARTSYS)
        };
        without_handler(&s, &mut r);
        assert_eq!(outcome(&r), (-ERESTARTSYS, 0x1002));
    }
}
