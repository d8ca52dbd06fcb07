//! New threads and processes (clone(2), fork(2), vfork(2)).

use crate::family::Place;
use crate::rseq::Rseq;
use crate::signal::{Actions, Signal, ThreadSignals};
use crate::thread::Parts;
use crate::{Error, Limited, Pid, Process, Result, Thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use bitflags::bitflags;
use core::sync::atomic::Ordering::SeqCst;
use machine::addr::is_user_range;
use machine::thread::{Builder, FpuInit, STACK_PAGES, UserRegs};
use machine::wait::Until;
use mm::AddressSpace;

bitflags! {
    /// What a new task shares with its maker, and how it is made (`CLONE_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        /// Time namespace.
        const NEWTIME = 0x80;
        /// Memory.
        const VM = 0x100;
        /// Root, working directory, umask.
        const FS = 0x200;
        /// Descriptors.
        const FILES = 0x400;
        /// Signal dispositions.
        const SIGHAND = 0x800;
        /// A pidfd of the child goes to the parent.
        const PIDFD = 0x1000;
        /// Trace the child as well.
        const PTRACE = 0x2000;
        /// The parent sleeps until the child has let go of its memory.
        const VFORK = 0x4000;
        /// The caller's parent becomes the parent.
        const PARENT = 0x8000;
        /// A thread of the same process.
        const THREAD = 0x1_0000;
        /// Mount namespace.
        const NEWNS = 0x2_0000;
        /// System V semaphore adjustments.
        const SYSVSEM = 0x4_0000;
        /// The FS base is set.
        const SETTLS = 0x8_0000;
        /// The child's number is written to the parent's memory.
        const PARENT_SETTID = 0x10_0000;
        /// A word of the child is cleared when it ends.
        const CHILD_CLEARTID = 0x20_0000;
        /// Obsolete, without effect.
        const DETACHED = 0x40_0000;
        /// No tracing of the child.
        const UNTRACED = 0x80_0000;
        /// The child's number is written to its memory.
        const CHILD_SETTID = 0x100_0000;
        /// Control-group namespace.
        const NEWCGROUP = 0x200_0000;
        /// Host-name namespace.
        const NEWUTS = 0x400_0000;
        /// System V namespace.
        const NEWIPC = 0x800_0000;
        /// User namespace.
        const NEWUSER = 0x1000_0000;
        /// Pid namespace.
        const NEWPID = 0x2000_0000;
        /// Network namespace.
        const NEWNET = 0x4000_0000;
        /// I/O context.
        const IO = 0x8000_0000;
        /// Handlers are reset (`clone3` only).
        const CLEAR_SIGHAND = 0x1_0000_0000;
        /// Into another control group (`clone3` only).
        const INTO_CGROUP = 0x2_0000_0000;
    }
}

impl CloneFlags {
    /// All that would make a namespace: a capsule is what there is.
    pub const NAMESPACES: CloneFlags = CloneFlags::NEWTIME
        .union(CloneFlags::NEWNS)
        .union(CloneFlags::NEWCGROUP)
        .union(CloneFlags::NEWUTS)
        .union(CloneFlags::NEWIPC)
        .union(CloneFlags::NEWUSER)
        .union(CloneFlags::NEWPID)
        .union(CloneFlags::NEWNET);

    /// Whether they go together (clone(2), "ERRORS").
    fn check(self) -> Result<()> {
        let needs = |a: CloneFlags, b: CloneFlags| !self.contains(a) || self.contains(b);
        let excludes = |a: CloneFlags, b: CloneFlags| !self.contains(a) || !self.intersects(b);
        let fine = needs(CloneFlags::THREAD, CloneFlags::SIGHAND)
            && needs(CloneFlags::SIGHAND, CloneFlags::VM)
            && excludes(CloneFlags::CLEAR_SIGHAND, CloneFlags::SIGHAND)
            && excludes(CloneFlags::PIDFD, CloneFlags::DETACHED | CloneFlags::THREAD)
            && excludes(CloneFlags::FS, CloneFlags::NEWNS | CloneFlags::NEWUSER)
            && excludes(CloneFlags::THREAD, CloneFlags::NEWPID | CloneFlags::NEWUSER)
            && excludes(CloneFlags::SYSVSEM, CloneFlags::NEWIPC)
            && !self.contains(CloneFlags::INTO_CGROUP);
        if fine && self.intersects(CloneFlags::NAMESPACES) {
            return Err(Error::NotPermitted);
        }
        fine.then_some(()).ok_or(Error::Invalid)
    }
}

/// What `clone` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct CloneRequest {
    /// What is shared.
    pub flags: CloneFlags,
    /// The child's stack pointer; 0 to keep the parent's.
    pub stack: usize,
    /// The child's FS base, with [`CloneFlags::SETTLS`].
    pub tls: usize,
    /// Where its number goes in the child's memory, and what is cleared there.
    pub child_tid: usize,
    /// What the parent gets when the child ends.
    pub exit_signal: Option<Signal>,
}

impl CloneRequest {
    /// fork(2).
    #[must_use]
    pub fn fork() -> CloneRequest {
        CloneRequest {
            flags: CloneFlags::empty(),
            stack: 0,
            tls: 0,
            child_tid: 0,
            exit_signal: Some(Signal::CHLD),
        }
    }
}

/// A task that was made and does not run yet: its maker makes it known first.
pub struct NewTask {
    thread: Arc<Thread>,
    machine: Arc<machine::thread::Thread>,
    is_process: bool,
}

/// Makes a task that goes on where the calling thread `me` is, with 0 in `rax`.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::NotPermitted`] for its flags;
/// [`Error::LimitReached`]; [`Error::Interrupted`] if a signal should be looked at
/// first; no memory.
pub fn clone(me: &Arc<Thread>, request: &CloneRequest, regs: &UserRegs) -> Result<NewTask> {
    let flags = request.flags;
    flags.check()?;
    if !is_user_range(request.stack, 0) || !is_user_range(request.tls, 0) {
        return Err(Error::NotPermitted);
    }
    let process = me.process();
    // So that a signal to a whole group cannot miss children being made.
    let deliverable = me.pending_signals().without(me.signals.blocked());
    if !deliverable.is_empty() && !flags.contains(CloneFlags::THREAD) {
        return Err(Error::Interrupted);
    }
    // Before anything is copied; and for good when the task becomes known.
    check_limits(process, process.world().task_count())
        .inspect_err(|_| process.world().tell_limit(Limited::Threads))?;
    let parts = parts(me, flags)?;
    if !process.world().user_has_room(process, &parts.cred) {
        return Err(Error::LimitReached);
    }
    let space = parts.space.clone();
    let thread = if flags.contains(CloneFlags::THREAD) {
        join_process(me, parts)?
    } else {
        let child = make_process(me, request, parts)?;
        child.process().watch_cpu_time();
        child
    };
    set_up(&thread, request);
    let machine = make_machine(me, &thread, request, regs, &space);
    let task = |machine| NewTask {
        thread: thread.clone(),
        machine,
        is_process: !flags.contains(CloneFlags::THREAD),
    };
    match machine {
        Ok(m) => Ok(task(m)),
        Err(e) => {
            withdraw(&thread, !flags.contains(CloneFlags::THREAD));
            Err(e)
        }
    }
}

/// Whether the world has room for one more task.
fn check_limits(process: &Process, tasks: usize) -> Result<()> {
    if tasks as u64 >= u64::from(process.world().threads_max()) {
        return Err(Error::LimitReached);
    }
    Ok(())
}

/// What the new thread shares with `me`, or has copies of.
fn parts(me: &Thread, flags: CloneFlags) -> Result<Parts> {
    let gone = Error::NoProcess;
    let space = me.space.get().ok_or(gone)?;
    let files = me.files.get().ok_or(gone)?;
    let fs = me.fs.get().ok_or(gone)?;
    let signals = ThreadSignals::new(me.signals.blocked());
    if !flags.contains(CloneFlags::VM) || flags.contains(CloneFlags::VFORK) {
        signals.set_alt_stack(me.signals.alt_stack());
    }
    Ok(Parts {
        space: match flags.contains(CloneFlags::VM) {
            true => space,
            false => space.fork()?,
        },
        files: match flags.contains(CloneFlags::FILES) {
            true => files,
            false => Arc::new(files.duplicate()?),
        },
        fs: match flags.contains(CloneFlags::FS) {
            true => fs,
            false => Arc::new((*fs).clone()),
        },
        cred: me.cred.get().ok_or(gone)?,
        signals,
        comm: me.comm_bytes(),
        // A thread registers a structure of its own.
        rseq: match flags.contains(CloneFlags::VM) {
            true => Rseq::default(),
            false => me.rseq.copied(),
        },
        hints: me.hints.inherited(),
        schedule: me.schedule().inherited(),
    })
}

/// A further thread of the process of `me`.
fn join_process(me: &Thread, parts: Parts) -> Result<Arc<Thread>> {
    let process = me.process();
    let mut family = process.world().family.lock();
    check_limits(process, family.tasks())?;
    let tid = family.free_number()?;
    let thread = Arc::new(Thread::new(tid, process.clone(), parts));
    family.add_thread(tid, thread.clone())?;
    let mut inner = process.inner.lock();
    let room = inner.threads.try_reserve(1);
    // A process that ends, or whose other threads do, gets no more of them.
    let leaving = process.exit_status().is_some() || process.exec_by.load(SeqCst) != 0;
    if room.is_err() || leaving {
        drop(inner);
        family.remove_thread(tid);
        return Err(match leaving {
            true => Error::Interrupted,
            false => Error::NoMemory,
        });
    }
    thread.seccomp.inherit(&me.seccomp);
    inner.threads.push(thread.clone());
    Ok(thread)
}

/// A process with its first thread.
fn make_process(me: &Thread, request: &CloneRequest, parts: Parts) -> Result<Arc<Thread>> {
    let maker = me.process();
    let world = maker.world();
    let actions = share_actions(maker, request.flags)?;
    let mut family = world.family.lock();
    if world.is_closing() {
        return Err(Error::LimitReached);
    }
    check_limits(maker, family.tasks())?;
    let parent = match request.flags.contains(CloneFlags::PARENT) {
        // The first process has no parent to give.
        true if maker.ppid() == 0 => return Err(Error::Invalid),
        true => maker.ppid(),
        false => maker.pid(),
    };
    let place = Place {
        parent,
        group: family.group(maker.pid())?,
        session: family.session(maker.pid())?,
    };
    let pid = family.free_number()?;
    let process = Process::new(pid, parent, world.clone(), actions, Some(maker));
    let exit_signal = match request.flags.contains(CloneFlags::PARENT) {
        true => maker.exit_signal.load(SeqCst),
        false => request.exit_signal.map_or(0, Signal::number),
    };
    process.exit_signal.store(exit_signal, SeqCst);
    let process = Arc::new(process);
    let thread = Arc::new(Thread::new(pid, process.clone(), parts));
    process.inner.lock().threads.push(thread.clone());
    let own = maker.inner.lock();
    thread.seccomp.inherit(&me.seccomp);
    drop(own);
    family.add_process(pid, process, place)?;
    if let Err(e) = family.add_thread(pid, thread.clone()) {
        family.reap(pid);
        return Err(e);
    }
    world.count_fork();
    Ok(thread)
}

fn share_actions(maker: &Process, flags: CloneFlags) -> Result<Arc<Actions>> {
    let actions = maker.actions().ok_or(Error::NoProcess)?;
    Ok(if flags.contains(CloneFlags::SIGHAND) {
        actions
    } else if flags.contains(CloneFlags::CLEAR_SIGHAND) {
        Arc::new(actions.without_handlers())
    } else {
        Arc::new(actions.copied())
    })
}

/// Writes down what the new thread does first.
fn set_up(thread: &Thread, request: &CloneRequest) {
    let flags = request.flags;
    let (fs, gs) = machine::thread::segment_bases();
    let first = &thread.first_run;
    let fs = match flags.contains(CloneFlags::SETTLS) {
        true => request.tls,
        false => fs,
    };
    first.fs_base.store(fs, SeqCst);
    first.gs_base.store(gs, SeqCst);
    if flags.contains(CloneFlags::CHILD_SETTID) {
        first.set_tid.store(request.child_tid, SeqCst);
    }
    if flags.contains(CloneFlags::CHILD_CLEARTID) {
        thread.set_clear_child_tid(request.child_tid);
    }
    first.due.store(true, SeqCst);
}

fn make_machine(
    me: &Thread,
    thread: &Arc<Thread>,
    request: &CloneRequest,
    regs: &UserRegs,
    space: &AddressSpace,
) -> Result<Arc<machine::thread::Thread>> {
    let mut regs = *regs;
    regs.rax = 0;
    regs.orig_rax = u64::MAX;
    if request.stack != 0 {
        regs.rsp = request.stack as u64;
    }
    let affinity = machine::thread::current().affinity();
    let share = thread.schedule().share();
    let world = me.process().world();
    let machine = Builder::new(&me.comm())
        .group(world.group().clone())
        .stack(world.account().hold(STACK_PAGES)?)
        .affinity(affinity)
        .share(share)
        .data(Box::new(thread.clone()))
        .user(regs, space.page_table().clone(), FpuInit::Inherit)?;
    thread.set_machine(&machine);
    if thread.schedule().share() != share {
        // It was changed meanwhile, for those that could be found.
        machine.set_share(thread.schedule().share());
    }
    machine.watch_switches(thread.rseq.is_registered());
    // What it does first, and signals that came already, are looked at before it
    // enters user mode.
    machine.raise_attention();
    Ok(machine)
}

/// Takes a task that cannot run out of the world again.
pub(crate) fn withdraw(thread: &Arc<Thread>, is_process: bool) {
    let process = thread.process();
    process
        .inner
        .lock()
        .threads
        .retain(|t| !Arc::ptr_eq(t, thread));
    thread.leave_tracer(true);
    let mut family = process.world().family.lock();
    let gone = family.remove_thread(thread.tid());
    let process = is_process.then(|| {
        family.bury(process.pid());
        family.reap(process.pid())
    });
    drop(family);
    drop((gone, process));
    let parts = (thread.space.take(), thread.files.take(), thread.fs.take());
    drop(parts);
}

impl NewTask {
    /// A process that runs nothing yet.
    pub(crate) fn of_process(
        thread: Arc<Thread>,
        machine: Arc<machine::thread::Thread>,
    ) -> NewTask {
        NewTask {
            thread,
            machine,
            is_process: true,
        }
    }

    /// Its number.
    #[must_use]
    pub fn tid(&self) -> Pid {
        self.thread.tid()
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        self.thread.process()
    }

    /// Has the maker's tracer trace it, too, if it follows children: what the maker
    /// then tells ([`Thread::trace_event`]).
    #[must_use]
    pub fn follow(&self, maker: &Thread, request: &CloneRequest) -> Option<crate::trace::Event> {
        maker.trace_making(&self.thread, request.flags, request.exit_signal)
    }

    /// Lets it run.
    pub fn start(self) {
        self.machine.start();
    }

    /// Forgets it; it never runs.
    pub fn cancel(self) {
        withdraw(&self.thread, self.is_process);
    }
}

/// Waits until `child` has let go of the memory it shares with the calling thread
/// (`CLONE_VFORK`). Only the caller's own end interrupts that.
pub fn wait_for_release(me: &Thread, child: &Process) {
    let over = || (child.released.load(SeqCst) || me.must_end()).then_some(());
    // Without a deadline and uninterruptible, there is no other end.
    let _ = child.released_queue.wait_until(Until::default(), over);
}
