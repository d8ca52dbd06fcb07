//! How user threads come into the kernel: the machine room's hooks.

use crate::ctx::Ctx;
use crate::errno::Errno;
use crate::table;
use alloc::sync::Arc;
use machine::thread::{self, UserRegs};
use process::Thread;

/// Runs the system call that `regs` ask for.
#[inline]
pub fn syscall(regs: &mut UserRegs) {
    let current = thread::current();
    let Some(me) = current.data::<Arc<Thread>>() else {
        regs.rax = Errno::ENOSYS.to_rax();
        return;
    };
    let mut ctx = Ctx::new(regs, me);
    let answer = match table::dispatch(&mut ctx) {
        Ok(value) => value as u64,
        Err(e) => e.to_rax(),
    };
    ctx.regs.rax = answer;
}
