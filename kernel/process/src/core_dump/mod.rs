//! Core files (core(5)): what a program was when a signal ended it, for debuggers.
//!
//! A signal whose default action is to dump has the thread that takes it gather the
//! registers of its siblings, which stand still meanwhile on their way out, and write
//! the file `core` in its working directory. `RLIMIT_CORE` bounds it; at first that is
//! 0, and there are none.

mod image;
mod notes;

use crate::limits::{INFINITE, Resource};
use crate::signal::{SigInfo, Signal};
use crate::status::ExitStatus;
use crate::trace::General;
use crate::{Process, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::addr::PAGE_SIZE;
use machine::io::Source;
use machine::sync::SpinLock;
use machine::thread::{self, UserRegs};
use machine::time::Instant;
use machine::wait::Until;
use vfs::open::How;
use vfs::{At, Caller, Kind, OpenFile, OpenFlags};

/// How long siblings are waited for; who sleeps where no signal reaches it is left out.
const PATIENCE: Duration = Duration::from_secs(5);
/// The smallest file that Linux begins (`min_coredump`).
const SMALLEST: u64 = PAGE_SIZE as u64;
/// Name of the file (`kernel.core_pattern`).
const NAME: &[u8] = b"core";
/// `PR_GET_DUMPABLE` of a program that may be looked into.
const DUMPABLE: u8 = 1;

/// A thread as the file shows it.
struct Portrait {
    tid: crate::Pid,
    general: General,
    /// Floating-point and vector state; empty for want of memory.
    extended: Vec<u8>,
    pending: u64,
    blocked: u64,
    times: crate::Times,
}

impl Portrait {
    /// Of the calling thread.
    fn of(me: &Thread, regs: &UserRegs) -> Portrait {
        Portrait {
            tid: me.tid(),
            general: General::of(regs, thread::segment_bases()),
            extended: me.fpu_image(),
            pending: me.pending_signals().0,
            blocked: me.signals.blocked().0,
            times: me.times(),
        }
    }
}

/// Where the threads of a process meet for a dump.
#[derive(Default)]
pub(crate) struct Gathering(SpinLock<Meeting>);

#[derive(Default)]
struct Meeting {
    open: bool,
    arrived: usize,
    portraits: Vec<Portrait>,
}

impl Gathering {
    /// Opens it; whether nobody else has.
    fn open(&self) -> bool {
        let mut meeting = self.0.lock();
        !core::mem::replace(&mut meeting.open, true)
    }

    fn is_open(&self) -> bool {
        self.0.lock().open
    }
}

/// Ends the process of the calling thread by `signal`, with a core file if there may
/// be one.
pub(crate) fn end_by(me: &Arc<Thread>, regs: &UserRegs, signal: Signal, info: &SigInfo) {
    let process = me.process();
    let limit = process.limits().soft(Resource::Core);
    let wanted = limit >= SMALLEST && process.dumpable() == DUMPABLE;
    if !wanted || !process.core.open() {
        process.begin_exit(ExitStatus::Killed(signal));
        return;
    }
    // Siblings that end from here on come to the meeting.
    if process.begin_exit(ExitStatus::Dumped(signal)) {
        let others = process.wait_for_siblings();
        if dump(me, regs, info, &others, limit).is_none() {
            process.change_exit(ExitStatus::Killed(signal));
        }
    }
    process.core.0.lock().open = false;
    process.threads_queue.wake_all();
}

impl Thread {
    /// Before it ends: stays until a sibling has written what the threads were.
    pub(crate) fn attend_dump(&self, regs: &UserRegs) {
        let process = self.process();
        if !process.core.is_open() {
            return;
        }
        let portrait = Portrait::of(self, regs);
        let mut meeting = process.core.0.lock();
        if !meeting.open {
            return;
        }
        meeting.arrived += 1;
        // Without memory the file lacks this thread.
        if meeting.portraits.try_reserve(1).is_ok() {
            meeting.portraits.push(portrait);
        }
        drop(meeting);
        process.threads_queue.wake_all();
        let over = || (!process.core.is_open()).then_some(());
        process.threads_queue.wait(over);
    }
}

impl Process {
    /// Has all other threads of the process stand still; as what they do.
    fn wait_for_siblings(&self) -> Vec<Portrait> {
        let all_here = || {
            let arrived = self.core.0.lock().arrived;
            (arrived + 1 >= self.thread_count()).then_some(())
        };
        let until = Until {
            deadline: Some(Instant::now().after(PATIENCE)),
            interruptible: false,
        };
        // Whoever is late is left out.
        let _ = self.threads_queue.wait_until(until, all_here);
        core::mem::take(&mut self.core.0.lock().portraits)
    }
}

/// Writes the file; nothing if it was not even begun.
fn dump(
    me: &Arc<Thread>,
    regs: &UserRegs,
    info: &SigInfo,
    others: &[Portrait],
    limit: u64,
) -> Option<()> {
    let space = me.space.get()?;
    let file = create(me)?;
    let plan = image::Plan::of(&space)?;
    let notes = notes::all(me, &plan, &Portrait::of(me, regs), info, others)?;
    let mut out = Writer {
        file: &file,
        limit,
        process: me.process(),
    };
    out.put(0, &plan.headers(notes.len())?)?;
    // From here on there is a core file, complete or not, as on Linux.
    let rest = out
        .put(plan.notes_at(), &notes)
        .and_then(|()| plan.write(&space, notes.len(), &mut out));
    if rest.is_none() {
        log::info!(
            "capsule {}: the core file of {} is cut off",
            me.process().world().name(),
            me.process().pid(),
        );
    }
    Some(())
}

/// Opens the file, empty, with the rights of the program. What is there must be a file
/// of the same user without another name: a link could lead the dump anywhere.
fn create(me: &Thread) -> Option<Arc<OpenFile>> {
    let (fs, cred) = (me.fs.get()?, me.cred.get()?);
    let caller = Caller {
        fs: &fs,
        cred: &cred,
    };
    let how = How {
        flags: OpenFlags::READ_WRITE | OpenFlags::CREATE | OpenFlags::NOFOLLOW,
        mode: 0o600,
        ..How::default()
    };
    let charge = me.process().world().account().charge_file()?;
    let file = caller.open(At::Cwd, NAME, &how, charge).ok()?;
    let stat = file.stat();
    let fits = stat.mode & 0o170_000 == Kind::File.mode()
        && stat.nlink == 1
        && stat.uid == cred.fsuid
        && stat.mode & 0o077 == 0;
    if !fits {
        return None;
    }
    file.truncate(0).ok()?;
    Some(file)
}

/// Writes at given places up to the limit. `None` means that there is no use in going
/// on.
struct Writer<'a> {
    file: &'a OpenFile,
    limit: u64,
    process: &'a Process,
}

impl Writer<'_> {
    /// Whether there is use in looking at what would end at `end`: the process was not
    /// killed, and the limit is not reached. To be asked for each page, also of those that
    /// hold nothing: a mapping can be as large as the address space.
    fn goes_on(&self, end: u64) -> Option<()> {
        let over = self.limit != INFINITE && end > self.limit;
        (!over && !self.process.was_killed()).then_some(())
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Option<()> {
        let end = at.checked_add(bytes.len() as u64)?;
        self.goes_on(end)?;
        let mut source = Source::kernel(bytes);
        let n = self.file.pwrite(&mut source, at).ok()?;
        (n == bytes.len()).then_some(())
    }

    /// Gives the file its length where it ends with pages that hold nothing.
    fn finish(&mut self, len: u64) -> Option<()> {
        if self.limit != INFINITE && len > self.limit {
            return None;
        }
        if self.file.stat().size < len {
            self.file.truncate(len).ok()?;
        }
        Some(())
    }
}
