//! Filters that threads put on their own system calls (seccomp(2)).
//!
//! A thread has a chain of filters, the newest first, which its children share with
//! it. All of them judge each call, and the strictest answer counts. A thread with
//! filters counts as watched ([`crate::trace::some_watched`]); as long as there is
//! none, no call looks here.

pub mod bpf;

use crate::signal::{SigInfo, Signal};
use crate::trace::{self, Event};
use crate::{Error, ExitStatus, Pid, Result, Slot, Thread};
use alloc::sync::Arc;
use bpf::{Data, Program};
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};
use machine::PageCharge;
use machine::thread::UserRegs;

/// `AUDIT_ARCH_X86_64`
const ARCHITECTURE: u32 = 0xc000_003e;
/// The call is not there, as the value for `rax`.
const ENOSYS: u64 = (-38i64) as u64;
/// The largest error number that a filter can give.
const ERROR_MAX: u32 = 4095;
/// Instructions of all filters of a thread, each filter counting for
/// [`FILTER_COSTS`] more.
const CHAIN_MAX: usize = 32_768;
const FILTER_COSTS: usize = 4;

/// Answers of filters (`SECCOMP_RET_*`), without their lower half, which is a value.
/// The strictest has the smallest number, with sign.
pub mod action {
    #![expect(missing_docs, reason = "seccomp(2) has the meanings")]
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x3_0000;
    pub const ERRNO: u32 = 0x5_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The half of an answer that is the action.
    pub(super) const MASK: u32 = 0xffff_0000;
}

/// What there is on a thread's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Free = 0,
    /// Only `read`, `write`, `exit` and `rt_sigreturn` are allowed.
    Strict = 1,
    /// Filters.
    Filter = 2,
}

/// A filter, and those that were there before it.
struct Filter {
    program: Program,
    previous: Option<Arc<Filter>>,
    /// What this one and all before it count against [`CHAIN_MAX`].
    costs: usize,
    /// Answers other than `ALLOW` are logged.
    logs: bool,
    _charge: PageCharge,
}

impl Filter {
    /// The strictest answer of all, and whether it is logged. Of answers that are
    /// equally strict the newest filter's counts.
    fn judge(&self, data: &Data) -> (u32, bool) {
        let (mut answer, mut logs) = (self.program.run(data), self.logs);
        let mut next = self.previous.as_deref();
        while let Some(filter) = next {
            let other = filter.program.run(data);
            if strictness(other) < strictness(answer) {
                (answer, logs) = (other, filter.logs);
            }
            next = filter.previous.as_deref();
        }
        (answer, logs)
    }
}

fn strictness(answer: u32) -> i32 {
    (answer & action::MASK) as i32
}

impl Drop for Filter {
    /// One after another: a chain can be too long for the stack.
    fn drop(&mut self) {
        let mut next = self.previous.take();
        while let Some(mut filter) = next.and_then(Arc::into_inner) {
            next = filter.previous.take();
        }
    }
}

/// A thread's side of it.
pub(crate) struct Seccomp {
    mode: AtomicU8,
    /// Changed under the lock of the process's threads, by one of them.
    filter: Slot<Filter>,
}

impl Default for Seccomp {
    fn default() -> Self {
        Seccomp {
            mode: AtomicU8::new(Mode::Free as u8),
            filter: Slot::new(None),
        }
    }
}

impl Drop for Seccomp {
    fn drop(&mut self) {
        if self.mode() != Mode::Free {
            trace::watch_all(false);
        }
    }
}

impl Seccomp {
    fn mode(&self) -> Mode {
        match self.mode.load(SeqCst) {
            1 => Mode::Strict,
            2 => Mode::Filter,
            _ => Mode::Free,
        }
    }

    fn set_mode(&self, mode: Mode) {
        if self.mode.swap(mode as u8, SeqCst) == Mode::Free as u8 {
            trace::watch_all(true);
        }
    }

    fn set_filter(&self, filter: Arc<Filter>) {
        self.filter.set(filter);
        self.set_mode(Mode::Filter);
    }

    /// A new thread has what its maker has. Under the lock of the maker's process, so
    /// that filters which another thread brings cannot pass it by.
    pub(crate) fn inherit(&self, maker: &Seccomp) {
        match maker.mode() {
            Mode::Free => {}
            Mode::Strict => self.set_mode(Mode::Strict),
            Mode::Filter => {
                if let Some(filter) = maker.filter.get() {
                    self.set_filter(filter);
                }
            }
        }
    }

    /// Whether another thread's filter may take the place of this one's: it must come
    /// after it.
    fn may_follow(&self, chain: Option<&Arc<Filter>>) -> bool {
        match self.mode() {
            Mode::Free => true,
            Mode::Strict => false,
            Mode::Filter => {
                let own = self.filter.get();
                let same = |f: &&Arc<Filter>| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, f));
                core::iter::successors(chain, |f| f.previous.as_ref()).any(|f| same(&f))
            }
        }
    }
}

/// What becomes of a call that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Made,
    /// It is not made; `rax` is set.
    NotMade,
    /// The thread ends, and no other with it.
    ThreadEnds,
}

impl Thread {
    /// What there is on its calls.
    #[must_use]
    pub fn seccomp_mode(&self) -> Mode {
        self.seccomp.mode()
    }

    /// How many filters it has.
    #[must_use]
    pub fn seccomp_filters(&self) -> usize {
        let newest = self.seccomp.filter.get();
        core::iter::successors(newest.as_ref(), |f| f.previous.as_ref()).count()
    }

    /// Allows itself four calls only (`SECCOMP_SET_MODE_STRICT`).
    ///
    /// # Errors
    /// [`Error::Invalid`] if it has filters.
    pub fn set_seccomp_strict(&self) -> Result<()> {
        let _inner = self.process().inner.lock();
        if self.seccomp.mode() == Mode::Filter {
            return Err(Error::Invalid);
        }
        self.seccomp.set_mode(Mode::Strict);
        Ok(())
    }

    /// Adds a filter to this thread's, the calling one, or with `all` to those of all
    /// threads of the process, which then have the same. Tells the number of a thread
    /// for which that is not possible; no filter was added then.
    ///
    /// # Errors
    /// [`Error::Invalid`] in strict mode; no memory, also for too many filters.
    pub fn add_seccomp_filter(
        &self,
        program: Program,
        logs: bool,
        all: bool,
    ) -> Result<Option<Pid>> {
        let process = self.process();
        let account = process.world().account();
        let bytes = program.len() * size_of::<bpf::Instruction>() + size_of::<Filter>();
        let charge = account.hold(bytes.div_ceil(machine::addr::PAGE_SIZE))?;
        // Held until the filter is in its place, so that another thread which brings
        // filters at the same time comes before or after this one.
        let inner = process.inner.lock();
        if self.seccomp.mode() == Mode::Strict {
            return Err(Error::Invalid);
        }
        let previous = self.seccomp.filter.get();
        let before = previous.as_ref().map_or(0, |f| f.costs + FILTER_COSTS);
        let costs = before + program.len();
        if costs > CHAIN_MAX {
            return Err(Error::NoMemory);
        }
        let filter = Arc::new(Filter {
            program,
            previous,
            costs,
            logs,
            _charge: charge,
        });
        if all {
            let follows = |t: &&Arc<Thread>| t.seccomp.may_follow(filter.previous.as_ref());
            if let Some(stranger) = inner.threads.iter().find(|t| !follows(t)) {
                return Ok(Some(stranger.tid()));
            }
            for thread in &inner.threads {
                thread.seccomp.set_filter(filter.clone());
            }
        }
        self.seccomp.set_filter(filter);
        Ok(None)
    }

    /// What becomes of the call that `regs` ask for.
    pub fn judge_call(&self, regs: &mut UserRegs) -> Verdict {
        /// `read`, `write`, `rt_sigreturn`, `exit`.
        const ALLOWED_IN_STRICT_MODE: [u64; 4] = [0, 1, 15, 60];
        match self.seccomp.mode() {
            Mode::Free => Verdict::Made,
            Mode::Strict if ALLOWED_IN_STRICT_MODE.contains(&regs.orig_rax) => Verdict::Made,
            Mode::Strict => self.end_alone(Signal::KILL),
            Mode::Filter => self.filtered(regs),
        }
    }

    fn filtered(&self, regs: &mut UserRegs) -> Verdict {
        let answer = self.answer(regs);
        if answer & action::MASK != action::TRACE {
            return self.obey(answer, regs);
        }
        regs.rax = ENOSYS;
        if !self.wants(Event::Seccomp) {
            return Verdict::NotMade;
        }
        self.trace_event(regs, Event::Seccomp, u64::from(answer & !action::MASK));
        // The tracer may have chosen another call, or none.
        if (regs.orig_rax as i32) < 0 || self.must_end() {
            return Verdict::NotMade;
        }
        let answer = self.answer(regs);
        match answer & action::MASK {
            // It has just been asked.
            action::TRACE => Verdict::Made,
            _ => self.obey(answer, regs),
        }
    }

    /// The answer of the filters about the call that `regs` ask for.
    fn answer(&self, regs: &UserRegs) -> u32 {
        let data = Data {
            number: regs.orig_rax as i32,
            architecture: ARCHITECTURE,
            instruction: regs.rip,
            arguments: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        let filter = self.seccomp.filter.get();
        let judged = filter.map(|f| f.judge(&data));
        let (answer, logs) = judged.unwrap_or((action::ALLOW, false));
        let told = match answer & action::MASK {
            action::ALLOW => false,
            action::LOG | action::KILL_PROCESS | action::KILL_THREAD => true,
            _ => logs,
        };
        let world = self.process().world();
        // Each call's number once: what a program can repeat must not fill the log.
        if told && world.filtered_calls().count(regs.orig_rax as usize) {
            log::info!(
                "capsule {}: {} ({}): a filter answers {answer:#x} to system call {}",
                world.name(),
                self.tid(),
                self.comm(),
                regs.orig_rax as i32,
            );
        }
        answer
    }

    fn obey(&self, answer: u32, regs: &mut UserRegs) -> Verdict {
        let value = answer & !action::MASK;
        match answer & action::MASK {
            action::ALLOW | action::LOG => Verdict::Made,
            action::ERRNO => {
                regs.rax = u64::from(value.min(ERROR_MAX)).wrapping_neg();
                Verdict::NotMade
            }
            action::TRAP => {
                let number = regs.orig_rax;
                regs.rax = number;
                let info = SigInfo::filtered(value, regs.rip, number as u32, ARCHITECTURE);
                self.force(Signal::SYS, info);
                Verdict::NotMade
            }
            // Nobody listens.
            action::USER_NOTIF => {
                regs.rax = ENOSYS;
                Verdict::NotMade
            }
            action::KILL_THREAD => self.end_alone(Signal::SYS),
            // An action that nobody knows is the strictest.
            _ => self.end_with_process(Signal::SYS),
        }
    }

    /// The thread ends; if it is the only one, its process by this signal.
    fn end_alone(&self, signal: Signal) -> Verdict {
        match self.process().thread_count() {
            0 | 1 => self.end_with_process(signal),
            _ => Verdict::ThreadEnds,
        }
    }

    fn end_with_process(&self, signal: Signal) -> Verdict {
        self.process().begin_exit(ExitStatus::Killed(signal));
        Verdict::NotMade
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use bpf::Instruction;
    use machine::Account;

    fn filter(answer: u32, previous: Option<Arc<Filter>>, account: &Account) -> Arc<Filter> {
        let program = vec![Instruction {
            code: 0x06,
            when: 0,
            otherwise: 0,
            k: answer,
        }];
        Arc::new(Filter {
            program: Program::new(program).unwrap(),
            previous,
            costs: 1,
            logs: answer & 1 != 0,
            _charge: account.hold(1).unwrap(),
        })
    }

    const CALL: Data = Data {
        number: 1,
        architecture: ARCHITECTURE,
        instruction: 0,
        arguments: [0; 6],
    };

    #[test]
    fn the_strictest_answer_counts_and_of_equals_the_newest() {
        let account = Account::new(100).unwrap();
        let judge = |answers: &[u32]| {
            let add = |chain, answer: &u32| Some(filter(*answer, chain, &account));
            let chain = answers.iter().fold(None, add);
            chain.unwrap().judge(&CALL)
        };
        use action::*;
        let order = [
            KILL_PROCESS,
            KILL_THREAD,
            TRAP,
            ERRNO,
            USER_NOTIF,
            TRACE,
            LOG,
            ALLOW,
        ];
        for (at, strict) in order.iter().enumerate() {
            for lenient in &order[at..] {
                assert_eq!(judge(&[*strict, *lenient]).0, *strict);
                assert_eq!(judge(&[*lenient, *strict]).0, *strict);
            }
        }
        assert_eq!(judge(&[ERRNO | 1, ERRNO | 2]), (ERRNO | 2, false));
        assert_eq!(judge(&[ERRNO | 1, ALLOW]), (ERRNO | 1, true));
    }

    #[test]
    fn a_long_chain_goes_without_filling_the_stack() {
        let account = Account::new(100_000).unwrap();
        let add = |chain, _| Some(filter(action::ALLOW, chain, &account));
        let chain = (0..100_000).fold(None, add);
        drop(chain);
    }
}
