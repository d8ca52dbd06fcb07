//! Pseudo-terminals (pty(7)) and the terminal's part of job control.
//!
//! [`Terminal`] is the shared middle of a pair: the slave's line ([`Discipline`]),
//! window size, and whose session it belongs to. A program such as a shell holds
//! the [`Slave`], whoever shows it the [`Master`]. [`devpts`] makes pairs and
//! names them. What a terminal has to know of processes it asks [`Jobs`], which
//! the process room implements.
//!
//! Locks: a terminal's state is a leaf. It is never held while [`Jobs`] is asked,
//! a hub is told, or memory of a program is touched.

pub mod devpts;
mod discipline;
mod ioctl;
mod master;
mod screen;
mod slave;
mod termios;

pub use devpts::Terminals;
pub use discipline::{Discipline, Happened};
pub use master::Master;
pub use slave::Slave;
use termios::Locks;
pub use termios::Termios;

use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use alloc::sync::Arc;
use machine::Account;
use machine::sync::SpinLock;

/// Pages a terminal's queues can take at most, which its capsule pays for: 32 KiB of
/// input, 64 KiB of output (which is a power of two) and 4 KiB of held echo.
const PAGES: usize = 25;
/// Major number of the slaves.
pub const SLAVE_MAJOR: u64 = 136;

/// The signals a terminal sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtySignal {
    /// `SIGINT`
    Interrupt,
    /// `SIGQUIT`
    Quit,
    /// `SIGTSTP`
    Suspend,
    /// `SIGTTIN`
    BackgroundRead,
    /// `SIGTTOU`
    BackgroundWrite,
    /// `SIGWINCH`
    Resized,
}

/// A process as terminals see it.
#[derive(Clone)]
pub struct Job {
    /// Its session.
    pub session: u32,
    /// Its process group.
    pub group: u32,
    /// Whether it leads the session.
    pub leads: bool,
    /// Its controlling terminal.
    pub terminal: Option<Arc<Terminal>>,
}

/// What became of a background process's signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// It blocks or ignores it.
    Unheard,
    /// Nobody could continue its group.
    Orphaned,
    /// Its group got it.
    Signalled,
}

/// What terminals ask of the processes of their capsule.
pub trait Jobs: Send + Sync {
    /// The calling process; `None` for the kernel itself.
    fn caller(&self) -> Option<Job>;
    /// `terminal` controls the calling process from now on; `None` for none.
    fn control(&self, terminal: Option<Arc<Terminal>>);
    /// No process of `session` is controlled by `terminal` any more.
    fn release(&self, session: u32, terminal: &Arc<Terminal>);
    /// As [`Jobs::release`] because the terminal hung up: the session's leader gets
    /// `SIGHUP` and `SIGCONT`, and when it ends, so does the group `foreground`.
    fn hang_up(&self, session: u32, terminal: &Arc<Terminal>, foreground: u32);
    /// Sends `signal` to the process group `group`.
    fn signal(&self, group: u32, signal: TtySignal);
    /// The calling process, in the background, did what earns `signal`.
    fn background(&self, signal: TtySignal) -> Background;
    /// The session of the process group `group`, if there is one.
    fn session_of(&self, group: u32) -> Option<u32>;
    /// As [`Jobs::signal`] with the number of a signal (`TIOCSIG`).
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no signal.
    fn signal_number(&self, group: u32, number: u32) -> Result<()>;
}

/// `struct winsize`: rows, columns, and pixels in both directions.
pub type WindowSize = [u16; 4];

/// Bits of what packet mode tells (`TIOCPKT_*`).
mod packet {
    pub(super) const FLUSH_READ: u8 = 1;
    pub(super) const FLUSH_WRITE: u8 = 2;
    pub(super) const STOP: u8 = 4;
    pub(super) const START: u8 = 8;
    pub(super) const NO_STOP: u8 = 16;
    pub(super) const DO_STOP: u8 = 32;
    pub(super) const IOCTL: u8 = 64;
}

/// What a terminal's lock guards.
#[derive(Default)]
pub(crate) struct State {
    line: Discipline,
    size: WindowSize,
    /// The session it controls; 0 for none.
    session: u32,
    /// The process group in the foreground; 0 for none.
    foreground: u32,
    /// Slaves cannot be opened yet.
    locked: bool,
    /// Nobody but the privileged can open it (`TIOCEXCL`).
    exclusive: bool,
    /// Settings that stay as they are (`TIOCSLCKTRMIOS`).
    locks: Locks,
    packet: bool,
    /// What packet mode has to tell.
    news: u8,
    /// Open slaves.
    slaves: usize,
    /// A slave was open once, and none is now.
    abandoned: bool,
    /// The master is closed.
    dead: bool,
    /// Counts hang-ups: slaves opened before one are no use after it.
    era: u32,
}

/// A pseudo-terminal.
pub struct Terminal {
    number: u32,
    jobs: Arc<dyn Jobs>,
    account: Arc<Account>,
    state: SpinLock<State>,
    slave_hub: PollHub,
    master_hub: PollHub,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.account.uncharge(PAGES);
    }
}

impl Terminal {
    fn new(number: u32, jobs: Arc<dyn Jobs>, account: Arc<Account>) -> Result<Arc<Terminal>> {
        account.charge(PAGES)?;
        Ok(Arc::new(Terminal {
            number,
            jobs,
            account,
            state: SpinLock::new(State {
                locked: true,
                ..State::default()
            }),
            slave_hub: PollHub::new(),
            master_hub: PollHub::new(),
        }))
    }

    /// Its number below `/dev/pts`.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its device number, as stat(2) has it.
    #[must_use]
    pub fn device(&self) -> u64 {
        let minor = u64::from(self.number);
        SLAVE_MAJOR << 8 | minor & 0xff | (minor & !0xff) << 12
    }

    /// The process group in the foreground; 0 for none.
    #[must_use]
    pub fn foreground(&self) -> u32 {
        self.state.lock().foreground
    }

    /// The leader of its session goes: it controls nobody any more. The group that
    /// was in the foreground; 0 for none.
    pub fn leader_left(self: &Arc<Self>, session: u32) -> u32 {
        let mut state = self.state.lock();
        if state.session != session {
            return 0;
        }
        let foreground = core::mem::take(&mut state.foreground);
        state.session = 0;
        drop(state);
        self.jobs.release(session, self);
        foreground
    }

    /// Cuts off everybody who has a slave open, and tells the session (vhangup(2)).
    pub fn hang_up(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.era = state.era.wrapping_add(1);
        let session = core::mem::take(&mut state.session);
        let foreground = core::mem::take(&mut state.foreground);
        if state.slaves > 0 {
            state.abandoned = true;
        }
        state.slaves = 0;
        drop(state);
        if session != 0 {
            self.jobs.hang_up(session, self, foreground);
        }
        let all = Events::READABLE | Events::WRITABLE | Events::ALWAYS;
        self.slave_hub.notify(all);
        self.master_hub.notify(all);
    }

    /// The master is closed.
    fn master_gone(self: &Arc<Self>) {
        self.state.lock().dead = true;
        self.hang_up();
    }

    /// A background process may do this only after a signal; `Err` is what it gets
    /// instead.
    fn check_foreground(self: &Arc<Self>, signal: TtySignal) -> Result<()> {
        let Some(job) = self.jobs.caller() else {
            return Ok(());
        };
        if !job.terminal.is_some_and(|t| Arc::ptr_eq(&t, self)) {
            return Ok(());
        }
        let foreground = self.foreground();
        if foreground == 0 || foreground == job.group {
            return Ok(());
        }
        match self.jobs.background(signal) {
            Background::Unheard if signal == TtySignal::BackgroundRead => Err(Error::Io),
            Background::Unheard => Ok(()),
            Background::Orphaned => Err(Error::Io),
            Background::Signalled => Err(Error::Interrupted),
        }
    }

    /// Becomes the controlling terminal of the caller if it leads a session that
    /// has none, and no other session has this one.
    fn adopt_caller(self: &Arc<Self>) {
        let Some(job) = self.jobs.caller() else {
            return;
        };
        if !job.leads || job.terminal.is_some() {
            return;
        }
        let mut state = self.state.lock();
        if state.session != 0 || state.dead {
            return;
        }
        (state.session, state.foreground) = (job.session, job.group);
        drop(state);
        self.jobs.control(Some(self.clone()));
    }

    /// Acts on what input or a change of settings brought about.
    fn act(&self, happened: Happened, mut news: u8) {
        if happened.contains(Happened::FLUSHED) {
            news |= packet::FLUSH_READ | packet::FLUSH_WRITE;
        }
        if happened.contains(Happened::STOPPED) {
            news |= packet::STOP;
        }
        if happened.contains(Happened::STARTED) {
            news |= packet::START;
        }
        let (foreground, events) = {
            let mut state = self.state.lock();
            state.tell(news);
            (state.foreground, state.master_events())
        };
        for (what, signal) in [
            (Happened::INTERRUPT, TtySignal::Interrupt),
            (Happened::QUIT, TtySignal::Quit),
            (Happened::SUSPEND, TtySignal::Suspend),
        ] {
            if happened.contains(what) && foreground != 0 {
                self.jobs.signal(foreground, signal);
            }
        }
        if !events.is_empty() {
            self.master_hub.notify(events);
        }
        if happened.intersects(Happened::STARTED | Happened::FLUSHED) {
            self.slave_hub.notify(Events::WRITABLE);
            self.master_hub.notify(Events::WRITABLE);
        }
    }
}

impl State {
    /// Notes something for packet mode, if that is on.
    fn tell(&mut self, news: u8) {
        if !self.packet {
            return;
        }
        // The newer of two opposites holds.
        for (a, b) in [
            (packet::STOP, packet::START),
            (packet::NO_STOP, packet::DO_STOP),
        ] {
            if news & a != 0 {
                self.news &= !b;
            }
            if news & b != 0 {
                self.news &= !a;
            }
        }
        self.news |= news;
    }

    /// What the master can do now.
    fn master_events(&self) -> Events {
        let mut e = Events::empty();
        if self.line.shown() > 0 {
            e |= Events::READABLE;
        }
        if self.packet && self.news != 0 {
            e |= Events::READABLE | Events::PRI;
        }
        if self.line.takes_input() {
            e |= Events::WRITABLE;
        }
        if self.abandoned {
            e |= Events::HUP;
        }
        e
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
