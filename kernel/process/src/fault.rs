//! Page faults and processor exceptions of programs: resolved, or turned into
//! signals.

use crate::signal::{SigInfo, Signal, Trap, code};
use crate::trace::Met;
use crate::{Thread, oom};
use alloc::sync::Arc;
use machine::paging::Access;
use machine::thread::{self, Exception, PageFault, UserRegs};
use mm::FaultError;

/// Bits of the processor's page-fault error code (Intel SDM vol. 3A, 4.7).
const PF_PRESENT: u64 = 1;
const PF_WRITE: u64 = 2;
const PF_USER: u64 = 4;
const PF_FETCH: u64 = 16;

/// Vectors, as `sigcontext` reports them.
const DIVIDE: u64 = 0;
const DEBUG: u64 = 1;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const FLOATING_POINT: u64 = 16;
const ALIGNMENT: u64 = 17;

/// Resolves a page fault of the calling thread; whether the access may be tried
/// again. A fault by the program itself that cannot be resolved raises its signal
/// here; one by a copy of the kernel's makes the call fail with `EFAULT`.
pub fn page_fault(fault: PageFault) -> bool {
    let current = thread::current();
    let Some(me) = current.data::<Arc<Thread>>() else {
        return false;
    };
    let Some(space) = me.space.get() else {
        return false;
    };
    me.count_fault();
    loop {
        let error = match space.handle_fault(fault) {
            Ok(()) => return true,
            Err(e) => e,
        };
        if error == FaultError::OutOfMemory {
            // The chosen one may be this process: then the fault ends here, and
            // the thread on its way out.
            if oom::make_room(me) {
                continue;
            }
            return false;
        }
        if fault.from_user {
            raise(me, fault, error);
        }
        return false;
    }
}

/// Raises the signal of a fault that mm refused.
fn raise(me: &Thread, fault: PageFault, error: FaultError) {
    let (signal, code) = match error {
        FaultError::NotMapped => (Signal::SEGV, code::SEGV_MAPERR),
        FaultError::Denied => (Signal::SEGV, code::SEGV_ACCERR),
        FaultError::Bus => (Signal::BUS, code::BUS_ADRERR),
        FaultError::OutOfMemory => return,
    };
    note(me, PAGE_FAULT, error_code(fault, error), fault.addr);
    me.force(signal, SigInfo::fault(signal, code, fault.addr));
}

fn error_code(fault: PageFault, error: FaultError) -> u64 {
    let when = |on: bool, bit: u64| if on { bit } else { 0 };
    PF_USER
        | when(error == FaultError::Denied, PF_PRESENT)
        | when(fault.access.contains(Access::WRITE), PF_WRITE)
        | when(fault.access.contains(Access::EXEC), PF_FETCH)
}

fn note(me: &Thread, number: u64, error: u64, addr: usize) {
    *me.signals.trap.lock() = Trap {
        number,
        error,
        addr: addr as u64,
    };
}

/// The resume flag of `rflags`.
const RESUME: u64 = 0x1_0000;

/// The signal of a debug exception, if it is one of this thread's.
fn debug(me: &Thread, regs: &mut UserRegs, status: u64) -> Option<SigInfo> {
    let code = match me.debug_exception(status) {
        Met::Step => code::TRAP_TRACE,
        Met::Trap => code::TRAP_BRKPT,
        Met::Nothing => return None,
        Met::Point { before } => {
            if before {
                // Or the instruction would meet it again, and again.
                regs.rflags |= RESUME;
            }
            code::TRAP_HWBKPT
        }
    };
    Some(SigInfo::fault(Signal::TRAP, code, regs.rip as usize))
}

/// Raises the signal of an exception of the calling thread, whose registers are `regs`.
pub fn exception(regs: &mut UserRegs, exception: Exception) {
    let rip = regs.rip as usize;
    let current = thread::current();
    let Some(me) = current.data::<Arc<Thread>>() else {
        return;
    };
    let (number, error, info) = match exception {
        // `page_fault` has raised the signal, unless memory ran out.
        Exception::PageFault { .. } => return,
        Exception::DivideError => (
            DIVIDE,
            0,
            SigInfo::fault(Signal::FPE, code::FPE_INTDIV, rip),
        ),
        Exception::Debug(status) => match debug(me, regs, status) {
            Some(info) => (DEBUG, 0, info),
            None => return,
        },
        Exception::Breakpoint => (BREAKPOINT, 0, SigInfo::kernel(Signal::TRAP)),
        Exception::InvalidOpcode => (
            INVALID_OPCODE,
            0,
            SigInfo::fault(Signal::ILL, code::ILL_ILLOPN, rip),
        ),
        Exception::GeneralProtection(error) => {
            (GENERAL_PROTECTION, error, SigInfo::kernel(Signal::SEGV))
        }
        Exception::FloatingPoint => (
            FLOATING_POINT,
            0,
            SigInfo::fault(Signal::FPE, code::FPE_FLTINV, rip),
        ),
        Exception::AlignmentCheck => (
            ALIGNMENT,
            0,
            SigInfo::fault(Signal::BUS, code::BUS_ADRALN, 0),
        ),
        Exception::Other(vector) => (u64::from(vector), 0, SigInfo::kernel(Signal::SEGV)),
    };
    note(me, number, error, 0);
    if let Some(signal) = info.signal() {
        me.force(signal, info);
    }
}
