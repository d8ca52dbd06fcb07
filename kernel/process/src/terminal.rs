//! Processes as their terminals see them: sessions with a controlling terminal,
//! and what the kernel does with jobs on its behalf (credentials(7), "Sessions and
//! process groups").

use crate::signal::Signal;
use crate::{Pid, Process, Thread, World};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use machine::sync::SpinLock;
use vfs::tty::{Background, Job, Jobs, Terminal, TtySignal};

/// A process's controlling terminal.
#[derive(Default)]
pub(crate) struct Controlling {
    terminal: SpinLock<Option<Arc<Terminal>>>,
    /// Of the leader of a session whose terminal hung up: the group that was in
    /// the foreground, which hears of the leader's end.
    left_behind: AtomicU32,
}

impl Controlling {
    /// What a child starts with.
    pub(crate) fn inherited(&self) -> Controlling {
        Controlling {
            terminal: SpinLock::new(self.get()),
            left_behind: AtomicU32::new(0),
        }
    }

    pub(crate) fn get(&self) -> Option<Arc<Terminal>> {
        self.terminal.lock().clone()
    }

    pub(crate) fn set(&self, terminal: Option<Arc<Terminal>>) {
        let old = core::mem::replace(&mut *self.terminal.lock(), terminal);
        drop(old);
    }

    /// Lets go of `terminal` if it is that one.
    fn release(&self, terminal: &Arc<Terminal>) {
        let mut slot = self.terminal.lock();
        let gone = slot.take_if(|t| Arc::ptr_eq(t, terminal));
        drop(slot);
        drop(gone);
    }
}

impl Process {
    /// Its controlling terminal.
    #[must_use]
    pub fn terminal(&self) -> Option<Arc<Terminal>> {
        self.controlling.get()
    }

    /// It has ended: with the leader of a session goes its terminal, and what ran
    /// in the foreground hears of it.
    pub(crate) fn leave_terminal(&self) {
        let terminal = self.controlling.get();
        self.controlling.set(None);
        if self.session() != Ok(self.pid()) {
            return;
        }
        match terminal {
            Some(t) => {
                let foreground = t.leader_left(self.pid());
                if foreground != 0 {
                    self.world().signal_group(foreground, Signal::HUP);
                }
            }
            None => {
                let group = self.controlling.left_behind.swap(0, Relaxed);
                if group != 0 {
                    self.world().signal_group(group, Signal::HUP);
                    self.world().signal_group(group, Signal::CONT);
                }
            }
        }
    }
}

/// The processes of `world`, for its terminals.
#[must_use]
pub fn jobs(world: &Arc<World>) -> Arc<dyn Jobs> {
    Arc::new(WorldJobs(Arc::downgrade(world)))
}

struct WorldJobs(Weak<World>);

impl WorldJobs {
    /// Runs `f` for the calling thread, if it is of this world.
    fn with_caller<R>(&self, f: impl FnOnce(&Arc<Thread>, &Arc<World>) -> R) -> Option<R> {
        let current = machine::thread::current();
        let me = current.data::<Arc<Thread>>()?;
        let world = self.0.upgrade()?;
        Arc::ptr_eq(me.process().world(), &world).then(|| f(me, &world))
    }
}

fn signal_of(signal: TtySignal) -> Signal {
    match signal {
        TtySignal::Interrupt => Signal::INT,
        TtySignal::Quit => Signal::QUIT,
        TtySignal::Suspend => Signal::TSTP,
        TtySignal::BackgroundRead => Signal::TTIN,
        TtySignal::BackgroundWrite => Signal::TTOU,
        TtySignal::Resized => Signal::WINCH,
    }
}

impl World {
    /// The processes of a session.
    fn session_members(&self, session: Pid) -> Vec<Arc<Process>> {
        let family = self.family.lock();
        let of = |(pid, p): (Pid, &Arc<Process>)| {
            (family.session(pid) == Ok(session)).then(|| p.clone())
        };
        family.all().filter_map(of).collect()
    }
}

impl Jobs for WorldJobs {
    fn caller(&self) -> Option<Job> {
        self.with_caller(|me, world| {
            let process = me.process();
            let family = world.family.lock();
            let pid = process.pid();
            let (session, group) = (family.session(pid).ok()?, family.group(pid).ok()?);
            drop(family);
            Some(Job {
                session,
                group,
                leads: session == pid,
                terminal: process.terminal(),
            })
        })
        .flatten()
    }

    fn control(&self, terminal: Option<Arc<Terminal>>) {
        self.with_caller(|me, _| me.process().controlling.set(terminal));
    }

    fn release(&self, session: u32, terminal: &Arc<Terminal>) {
        let Some(world) = self.0.upgrade() else {
            return;
        };
        for p in world.session_members(session) {
            p.controlling.release(terminal);
        }
    }

    fn hang_up(&self, session: u32, terminal: &Arc<Terminal>, foreground: u32) {
        let Some(world) = self.0.upgrade() else {
            return;
        };
        for p in world.session_members(session) {
            p.controlling.release(terminal);
            if p.pid() == session {
                p.controlling.left_behind.store(foreground, Relaxed);
                p.raise(Signal::HUP);
                p.raise(Signal::CONT);
            }
        }
    }

    fn signal(&self, group: u32, signal: TtySignal) {
        if let Some(world) = self.0.upgrade() {
            world.signal_group(group, signal_of(signal));
        }
    }

    fn background(&self, signal: TtySignal) -> Background {
        let signal = signal_of(signal);
        self.with_caller(|me, world| {
            let process = me.process();
            let (ignored, caught) = process
                .with_actions(|a| (a.ignored().contains(signal), a.caught().contains(signal)))
                .unwrap_or((true, false));
            // The first process of a world would not notice it either.
            let deaf = process.is_unkillable() && !caught;
            if ignored || deaf || me.signals.blocked().contains(signal) {
                return Background::Unheard;
            }
            if process.is_orphaned_group() {
                return Background::Orphaned;
            }
            if let Ok(group) = process.group() {
                world.signal_group(group, signal);
            }
            Background::Signalled
        })
        .unwrap_or(Background::Unheard)
    }

    fn session_of(&self, group: u32) -> Option<u32> {
        let world = self.0.upgrade()?;
        let family = world.family.lock();
        let first = *family.group_members(group).first()?;
        family.session(first).ok()
    }

    fn signal_number(&self, group: u32, number: u32) -> vfs::Result<()> {
        let signal = Signal::new(number as usize).ok_or(vfs::Error::Invalid)?;
        if let Some(world) = self.0.upgrade().filter(|_| group != 0) {
            world.signal_group(group, signal);
        }
        Ok(())
    }
}
