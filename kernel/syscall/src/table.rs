//! The table of system calls.
//!
//! A row is `NUMBER => handler(arguments), status`. The number is Linux's own
//! constant, so it cannot be wrong; a call without a row answers `ENOSYS` and is
//! counted in its capsule ([`process::World::unknown_calls`]).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
pub use crate::names::{NAMES, NUMBERS};
use crate::{ids, misc};
use linux_raw_sys::general as nr;

/// How much of a call there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No row: answers `ENOSYS`.
    Missing,
    /// As its man page says.
    Full,
    /// All but this.
    Partial(&'static str),
    /// Answers an error on purpose, for this reason.
    Refused(&'static str),
}

/// Decodes the arguments and calls the handler.
type Entry = fn(&mut Ctx<'_>) -> SysResult;

/// What the table knows of a number.
#[derive(Clone, Copy)]
pub struct Row {
    pub(crate) entry: Entry,
    /// Arguments it looks at.
    pub arguments: u8,
    /// How much of it there is.
    pub status: Status,
}

/// Handler arguments, in the order of the x86-64 system-call convention.
macro_rules! entry {
    ($f:path, 0) => {
        |c: &mut Ctx<'_>| $f(c)
    };
    ($f:path, 1) => {
        |c: &mut Ctx<'_>| {
            let a = c.regs.rdi as usize;
            $f(c, a)
        }
    };
    ($f:path, 2) => {
        |c: &mut Ctx<'_>| {
            let (a, b) = (c.regs.rdi as usize, c.regs.rsi as usize);
            $f(c, a, b)
        }
    };
    ($f:path, 3) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            $f(c, a, b, d)
        }
    };
    ($f:path, 4) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            let e = c.regs.r10 as usize;
            $f(c, a, b, d, e)
        }
    };
    ($f:path, 5) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            let (e, g) = (c.regs.r10 as usize, c.regs.r8 as usize);
            $f(c, a, b, d, e, g)
        }
    };
    ($f:path, 6) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            let (e, g, h) = (c.regs.r10 as usize, c.regs.r8 as usize, c.regs.r9 as usize);
            $f(c, a, b, d, e, g, h)
        }
    };
}

macro_rules! table {
    ($($number:ident => $family:ident::$f:ident($n:tt), $status:expr;)*) => {{
        #[allow(unused_imports, reason = "rows name what they need")]
        use Status::{Full, Partial, Refused};
        let mut t = [Row { entry: missing, arguments: 0, status: Status::Missing }; NUMBERS];
        $(
            let n = nr::$number as usize;
            assert!(matches!(t[n].status, Status::Missing), "a number has two rows");
            t[n] = Row { entry: entry!($family::$f, $n), arguments: $n, status: $status };
        )*
        t
    }};
}

/// All calls by number.
pub static TABLE: [Row; NUMBERS] = table! {
    // Identity.
    __NR_getpid => ids::sys_getpid(0), Full;
    __NR_gettid => ids::sys_gettid(0), Full;
    __NR_getppid => ids::sys_getppid(0), Full;

    // Odds and ends.
    __NR_reboot => misc::sys_reboot(0), Refused("a capsule does not own the machine (EPERM)");
};

/// Runs the call that `regs` ask for; the value for `rax`.
#[inline]
pub(crate) fn dispatch(ctx: &mut Ctx<'_>) -> SysResult {
    let number = ctx.regs.orig_rax as usize;
    match TABLE.get(number) {
        Some(row) => (row.entry)(ctx),
        None => missing(ctx),
    }
}

/// A call without a row.
#[cold]
fn missing(ctx: &mut Ctx<'_>) -> SysResult {
    let number = ctx.regs.orig_rax as usize;
    if ctx.world().unknown_calls().count(number) {
        let name = NAMES.get(number).copied().filter(|n| !n.is_empty());
        log::warn!(
            "capsule {}: {} ({}) calls unknown system call {number} ({})",
            ctx.world().name(),
            ctx.process().pid(),
            ctx.thread().comm(),
            name.unwrap_or("?"),
        );
    }
    Err(Errno::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name() {
        for (n, row) in TABLE.iter().enumerate() {
            assert!(row.status == Status::Missing || !NAMES[n].is_empty(), "{n}");
        }
        assert_eq!(
            (NAMES[0], NAMES[59], NAMES[449]),
            ("read", "execve", "futex_waitv")
        );
    }
}
