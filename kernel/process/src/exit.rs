//! The end of threads and processes (exit(2), exit_group(2)).

use crate::family::INIT;
use crate::futex::{self, MATCH_ANY, robust};
use crate::signal::{ActionFlags, Origin, Signal};
use crate::status::{Change, ExitStatus};
use crate::{Error, Pid, Process, Result, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use machine::thread::UserRegs;
use mm::AddressSpace;
use vfs::Events;

/// Ends the calling thread, and its process with the last one. A process that
/// nobody has told how to end exits with 0.
pub fn end(me: &Arc<Thread>) -> ! {
    finish(me);
    machine::thread::exit()
}

/// Ends the calling thread alone (exit(2)); `code` counts if it is the last.
pub fn end_thread(me: &Arc<Thread>, regs: &mut UserRegs, code: u8) -> ! {
    me.note_exit_code(code);
    if me.process().thread_count() == 1 {
        me.process().begin_exit(ExitStatus::Exited(code));
    }
    me.stop_before_end(regs);
    end(me)
}

/// Ends the process of the calling thread (exit_group(2)).
pub fn end_process(me: &Arc<Thread>, regs: &mut UserRegs, code: u8) -> ! {
    me.process().begin_exit(ExitStatus::Exited(code));
    me.stop_before_end(regs);
    end(me)
}

/// All of [`end`] but the machine's part. Nothing here may be left on the stack.
fn finish(me: &Arc<Thread>) {
    let process = me.process();
    if let Some(space) = me.space.get() {
        leave_memory(me, &space);
    }
    // The last thread of the program gives its memory back here.
    drop(me.space.take());
    // It is the first thread that `vfork` made.
    if me.tid() == process.pid() {
        process.release_parent();
    }
    drop(me.files.take());
    drop(me.fs.take());
    process.add_ended(me);
    *process.last_comm.lock() = me.comm_bytes();
    // Before its siblings can see that it is gone: one may take over its number.
    let mut family = process.world().family.lock();
    family.remove_thread(me.tid());
    let mut inner = process.inner.lock();
    inner.threads.retain(|t| !Arc::ptr_eq(t, me));
    let last = inner.threads.is_empty();
    if last {
        family.count(process.pid());
    }
    drop(family);
    let change = Process::check_stopped(&mut inner);
    drop(inner);
    me.leave_tracer(last);
    if last {
        process.ended();
    } else {
        process.retarget();
        if let Some(change) = change {
            process.tell_parent(change);
        }
    }
    process.threads_queue.wake_all();
}

/// Has all other threads of the process end, for `execve` by `me`, which gets the
/// process's number if it has another one.
///
/// # Errors
/// [`Error::Interrupted`] if the process ends instead.
pub(crate) fn end_siblings(me: &Arc<Thread>) -> Result<()> {
    let process = me.process();
    let mut inner = process.inner.lock();
    let taken = process.exec_by.load(SeqCst) != 0;
    if taken || process.exit_status().is_some() {
        return Err(Error::Interrupted);
    }
    if inner.threads.len() > 1 {
        process.exec_by.store(me.tid(), SeqCst);
        for t in inner.threads.iter().filter(|t| !Arc::ptr_eq(t, me)) {
            t.alert();
        }
        // A stop that waits for threads that end instead is void.
        inner.stop = None;
        process.stopping.store(false, SeqCst);
        drop(inner);
        let alone = || process.thread_count() == 1 || process.exit_status().is_some();
        process.threads_queue.wait(|| alone().then_some(()));
    } else {
        drop(inner);
    }
    let (old, new) = (me.tid(), process.pid());
    if old != new {
        process.world().family.lock().renumber_thread(old, new);
        me.tid.store(new, SeqCst);
    }
    process.exec_by.store(0, SeqCst);
    match process.exit_status() {
        Some(_) => Err(Error::Interrupted),
        None => Ok(()),
    }
}

/// Tells those who share the memory that this thread is gone: locks it held, and
/// who waits for its end.
pub(crate) fn leave_memory(me: &Thread, space: &Arc<AddressSpace>) {
    robust::release_all(me, space);
    me.process().world().pi().release_all(me);
    let tid_at = me.take_clear_child_tid();
    // With the thread's own reference and the caller's, more than two mean that
    // somebody is left who can see the word.
    if tid_at != 0 && Arc::strong_count(space) > 2 {
        let cleared = machine::user::write_value(tid_at, &0u32);
        if let (Ok(()), Ok(key)) = (cleared, space.futex_key(tid_at)) {
            futex::wake(&key, 1, MATCH_ANY);
        }
    }
}

/// What the end of a process means for others, found out under the tree's lock.
struct Will {
    parent: Option<Arc<Process>>,
    heir: Option<Arc<Process>>,
    /// Children, which have another parent now.
    orphans: Vec<Arc<Process>>,
    /// Groups that nobody can continue any more.
    groups: Vec<Pid>,
}

impl Process {
    /// Lets a parent that waits in `vfork` go on.
    pub(crate) fn release_parent(&self) {
        if !self.released.swap(true, SeqCst) {
            self.released_queue.wake_all();
        }
    }

    /// Its last thread has ended.
    fn ended(self: &Arc<Process>) {
        let status = self.exit_status().unwrap_or(ExitStatus::Exited(0));
        self.begin_exit(status);
        self.release_parent();
        self.drop_timers(true);
        self.release_tracees();
        drop(self.actions.take());
        let program = core::mem::take(&mut *self.program.lock());
        drop(program);
        if self.pid() == INIT {
            self.world().kill_all();
        }
        self.leave_terminal();
        self.world().ipc().process_ended(self.pid());
        let will = self.bury();
        self.tell_tracer(status);
        for child in &will.orphans {
            if let Some(signal) = child.parent_death_signal() {
                child.raise(signal);
            }
        }
        for group in &will.groups {
            self.world().signal_group(*group, Signal::HUP);
            self.world().signal_group(*group, Signal::CONT);
        }
        if let Some(heir) = &will.heir {
            for zombie in will.orphans.iter().filter(|o| o.exit_status().is_some()) {
                zombie.announce(heir);
            }
        }
        if let Some(parent) = &will.parent {
            self.announce(parent);
        } else if self.pid() != INIT {
            // The kernel started it and looks at its status without waiting.
            self.world().family.lock().reap(self.pid());
        }
        self.exit_hub().notify(Events::READABLE);
        if self.pid() == INIT {
            self.world().events().init_exited(status);
        }
        self.world().sweep();
    }

    fn bury(&self) -> Will {
        let mut family = self.world().family.lock();
        let own = family.group(self.pid());
        let before: Vec<Pid> = family.children(self.pid()).to_vec();
        let mut groups: Vec<Pid> = own.into_iter().collect();
        groups.extend(before.iter().filter_map(|c| family.group(*c).ok()));
        groups.sort_unstable();
        groups.dedup();
        // Groups that were orphaned already have had their signals.
        groups.retain(|g| !family.is_orphaned(*g, None));
        let parent = family.process(family.parent(self.pid())).cloned();
        let (heir, orphans) = family.bury(self.pid());
        let stopped = |p: &Pid| family.process(*p).is_some_and(|p| p.is_stopped());
        groups.retain(|g| {
            family.is_orphaned(*g, None) && family.group_members(*g).iter().any(stopped)
        });
        let orphans: Vec<_> = orphans
            .iter()
            .filter_map(|c| family.process(*c).cloned())
            .collect();
        for o in &orphans {
            o.ppid.store(heir, Relaxed);
            // Whoever adopts it expects an ordinary child (`reparent_leader` of Linux).
            o.exit_signal.store(Signal::CHLD.number(), SeqCst);
        }
        Will {
            parent,
            heir: family.process(heir).cloned(),
            orphans,
            groups,
        }
    }

    /// Tells `parent` that this process, a zombie, has ended; if the parent does
    /// not want to know, the zombie goes at once.
    fn announce(&self, parent: &Arc<Process>) {
        if !self.world().family.lock().is_zombie(self.pid()) {
            return;
        }
        let status = self.exit_status().unwrap_or(ExitStatus::Exited(0));
        let signal = Signal::new(usize::from(self.exit_signal.load(Relaxed)));
        let unwanted = signal == Some(Signal::CHLD)
            && parent.actions.with(|a| {
                a.ignored().contains(Signal::CHLD)
                    || a.get(Signal::CHLD).flags().contains(ActionFlags::NOCLDWAIT)
            }) != Some(false);
        if let Some(signal) = signal {
            let info = self.child_info(Change::Ended(status)).with_signal(signal);
            // A standard signal is never refused; another one is lost as on Linux.
            let _ = parent.signal(signal, info, Origin::Inside);
        }
        if unwanted {
            self.world().family.lock().reap(self.pid());
        }
        parent.child_queue.wake_all();
    }
}

impl crate::World {
    /// Once the first process has ended nobody waits for zombies: they go, the
    /// first process last, and with it the world is empty.
    fn sweep(&self) {
        if !self.is_closing() {
            return;
        }
        let mut family = self.family.lock();
        let mut zombies: Vec<Pid> = family.all().map(|(pid, _)| pid).collect();
        zombies.retain(|pid| *pid != INIT && family.is_zombie(*pid));
        let mut gone: Vec<_> = zombies.iter().filter_map(|z| family.reap(*z)).collect();
        let emptied = family.processes() == 1 && family.is_zombie(INIT);
        if emptied {
            gone.extend(family.reap(INIT));
        }
        drop(family);
        drop(gone);
        if emptied {
            self.ipc().clear();
            self.events().emptied();
        }
    }
}
