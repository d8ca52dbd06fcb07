//! Restartable sequences (rseq(2), `linux/rseq.h`): a program's per-CPU code that
//! starts over when its thread was interrupted in the middle of it.
//!
//! A thread registers a structure in its memory. Before it goes on in user mode
//! after it was switched out, or after a signal, the kernel writes the CPU's number
//! there, and if the program counter lies in the sequence that the structure
//! points to, it goes to the sequence's abort address instead.

use crate::signal::{SigInfo, Signal};
use crate::{Error, Result, Thread};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use machine::addr::{USER_END, is_user_range};
use machine::thread::UserRegs;
use machine::{cpu, user};

/// Bytes of the structure in its first form, and its alignment.
const BYTES: usize = 32;
/// Bytes of it that have a meaning here (`AT_RSEQ_FEATURE_SIZE`).
pub(crate) const FEATURE_BYTES: u64 = 28;
/// Its alignment (`AT_RSEQ_ALIGN`).
pub(crate) const ALIGN: u64 = BYTES as u64;
/// Most bytes a program may register.
const BYTES_MAX: usize = 4096;
/// Where the address of the sequence, flags, and node and concurrency id lie.
const SEQUENCE_AT: usize = 8;
const FLAGS_AT: usize = 16;
const NODE_AT: usize = 20;
/// `cpu_id` of a thread that is not registered.
const UNKNOWN: u32 = u32::MAX;
/// In `orig_rax`: not in a system call.
const NO_CALL: u64 = u64::MAX;

/// A thread's registration. Only the thread itself uses it, and whoever makes it.
#[derive(Default)]
pub(crate) struct Rseq {
    /// The structure; 0 for none.
    addr: AtomicUsize,
    len: AtomicU32,
    signature: AtomicU32,
    /// The CPU that was written last, plus one.
    written: AtomicU32,
}

impl Rseq {
    /// As a child with a copy of the memory has it.
    pub(crate) fn copied(&self) -> Rseq {
        Rseq {
            addr: AtomicUsize::new(self.addr.load(Relaxed)),
            len: AtomicU32::new(self.len.load(Relaxed)),
            signature: AtomicU32::new(self.signature.load(Relaxed)),
            written: AtomicU32::new(0),
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.addr.load(Relaxed) != 0
    }

    pub(crate) fn clear(&self) {
        self.addr.store(0, Relaxed);
        self.written.store(0, Relaxed);
    }

    /// Writes the CPU's number, also as the concurrency id: no two threads run on
    /// one CPU at the same time.
    fn write_ids(&self, addr: usize, cpu: u32) -> Result<()> {
        user::write_value(addr, &[cpu, cpu])?;
        user::write_value(addr.wrapping_add(NODE_AT), &[0, cpu])?;
        self.written.store(cpu + 1, Relaxed);
        Ok(())
    }

    /// Sends the thread to the abort address if it is inside the sequence.
    fn abort_if_inside(&self, addr: usize, regs: &mut UserRegs) -> Result<()> {
        let at: u64 = user::read_value(addr.wrapping_add(SEQUENCE_AT))?;
        if at == 0 {
            return Ok(());
        }
        let at = usize::try_from(at).map_err(|_| Error::Invalid)?;
        // version and flags, start, length, abort address
        let [head, start, len, abort]: [u64; 4] = user::read_value(at)?;
        let end = start.checked_add(len).ok_or(Error::Invalid)?;
        let limit = USER_END as u64;
        let inside = |ip: u64| ip >= start && ip < end;
        if head as u32 != 0 || start >= limit || end >= limit || abort >= limit || inside(abort) {
            return Err(Error::Invalid);
        }
        let signed: u32 = user::read_value((abort as usize).wrapping_sub(4))?;
        if signed != self.signature.load(Relaxed) {
            return Err(Error::Invalid);
        }
        // An interrupted sequence is used up, and one that is left as well.
        user::write_value(addr.wrapping_add(SEQUENCE_AT), &0u64)?;
        if !inside(regs.rip) {
            return Ok(());
        }
        let flags: u32 = user::read_value(addr.wrapping_add(FLAGS_AT))?;
        if flags != 0 || head >> 32 != 0 {
            return Err(Error::Invalid);
        }
        regs.rip = abort;
        Ok(())
    }
}

impl Thread {
    /// Registers the structure at `addr`.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::BadAddress`]; [`Error::Busy`] if it is
    /// registered already; [`Error::NotPermitted`] if that was with another
    /// signature.
    pub fn register_rseq(&self, addr: usize, len: usize, signature: u32) -> Result<()> {
        let r = &self.rseq;
        if r.is_registered() {
            let same = r.addr.load(Relaxed) == addr && r.len.load(Relaxed) as usize == len;
            if !same {
                return Err(Error::Invalid);
            }
            return Err(match r.signature.load(Relaxed) == signature {
                true => Error::Busy,
                false => Error::NotPermitted,
            });
        }
        if !(BYTES..=BYTES_MAX).contains(&len) || !addr.is_multiple_of(BYTES) || addr == 0 {
            return Err(Error::Invalid);
        }
        if !is_user_range(addr, len) {
            return Err(Error::BadAddress);
        }
        r.write_ids(addr, cpu::current() as u32)?;
        r.len.store(len as u32, Relaxed);
        r.signature.store(signature, Relaxed);
        r.addr.store(addr, Relaxed);
        machine::thread::current().watch_switches(true);
        Ok(())
    }

    /// Forgets the structure at `addr`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not that one; [`Error::NotPermitted`] for
    /// another signature; [`Error::BadAddress`].
    pub fn unregister_rseq(&self, addr: usize, len: usize, signature: u32) -> Result<()> {
        let r = &self.rseq;
        let same = r.addr.load(Relaxed) == addr && r.len.load(Relaxed) as usize == len;
        if !r.is_registered() || !same {
            return Err(Error::Invalid);
        }
        if r.signature.load(Relaxed) != signature {
            return Err(Error::NotPermitted);
        }
        r.clear();
        machine::thread::current().watch_switches(false);
        user::write_value(addr, &[0, UNKNOWN])?;
        user::write_value(addr.wrapping_add(NODE_AT), &[0u32; 2])?;
        Ok(())
    }

    /// Before the calling thread goes on in user mode after it was switched out. A
    /// structure that cannot be used ends in `SIGSEGV`.
    #[inline]
    pub fn resume_rseq(&self, regs: &mut UserRegs) {
        if self.settle_rseq(regs).is_err() {
            self.force(Signal::SEGV, SigInfo::kernel(Signal::SEGV));
        }
    }

    /// Before the calling thread goes on in user mode or in a signal handler.
    ///
    /// # Errors
    /// The structure cannot be used.
    #[inline]
    pub(crate) fn settle_rseq(&self, regs: &mut UserRegs) -> Result<()> {
        match self.rseq.is_registered() {
            true => self.settle(regs),
            false => Ok(()),
        }
    }

    fn settle(&self, regs: &mut UserRegs) -> Result<()> {
        let r = &self.rseq;
        let addr = r.addr.load(Relaxed);
        // No sequence makes system calls.
        if regs.orig_rax == NO_CALL {
            r.abort_if_inside(addr, regs)?;
        }
        let cpu = cpu::current() as u32;
        match r.written.load(Relaxed) != cpu + 1 {
            true => r.write_ids(addr, cpu),
            false => Ok(()),
        }
    }
}
