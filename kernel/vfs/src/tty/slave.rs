//! The end of a pseudo-terminal that programs take for a terminal.

use super::termios::{Control, Local};
use super::{Terminal, TtySignal, ioctl};
use crate::cred::{Caps, Credentials};
use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::file::{FileOps, OpenFile, OpenFlags};
use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use machine::io::{Sink, Source};
use machine::time::Instant;
use machine::wait::Until;

/// Bytes moved in one step, without the lock between two of them.
const STEP: usize = 256;
/// What a slave can do after a hang-up: everything, and nothing works.
const GONE: Events = Events::READABLE
    .union(Events::WRITABLE)
    .union(Events::ALWAYS);

/// An opening of the slave.
pub struct Slave {
    pub(super) terminal: Arc<Terminal>,
    era: u32,
}

/// How a read waits (termios(3), "Canonical and noncanonical mode").
struct Patience {
    least: usize,
    /// The time allowed after each byte, or altogether where `least` is 0.
    time: Option<Duration>,
    lines: bool,
}

impl Terminal {
    /// Opens the slave.
    ///
    /// # Errors
    /// [`Error::Io`] while it is locked and once the master is closed;
    /// [`Error::Busy`] if somebody has it for himself.
    pub(crate) fn open_slave(
        self: &Arc<Self>,
        flags: OpenFlags,
        cred: &Credentials,
    ) -> Result<Arc<Slave>> {
        let mut state = self.state.lock();
        if state.dead || state.locked {
            return Err(Error::Io);
        }
        if state.exclusive && !cred.has(Caps::SYS_ADMIN) {
            return Err(Error::Busy);
        }
        state.slaves += 1;
        state.abandoned = false;
        let era = state.era;
        drop(state);
        if !flags.contains(OpenFlags::NOCTTY) && flags.reads() {
            self.adopt_caller();
        }
        Ok(Arc::new(Slave {
            terminal: self.clone(),
            era,
        }))
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        let t = &self.terminal;
        let mut state = t.state.lock();
        if state.era != self.era {
            return;
        }
        state.slaves = state.slaves.saturating_sub(1);
        if state.slaves > 0 {
            return;
        }
        state.abandoned = true;
        state.exclusive = false;
        let session = core::mem::take(&mut state.session);
        state.foreground = 0;
        drop(state);
        if session != 0 {
            t.jobs.release(session, t);
        }
        t.master_hub.notify(Events::READABLE | Events::HUP);
    }
}

impl Slave {
    /// Whether the terminal has hung up since this was opened.
    pub(super) fn is_cut_off(&self) -> bool {
        self.terminal.state.lock().era != self.era
    }

    fn patience(&self) -> Patience {
        let state = self.terminal.state.lock();
        let t = state.line.termios();
        let tenths = u64::from(t.char(Control::Time));
        Patience {
            least: usize::from(t.char(Control::Min)),
            time: (tenths > 0).then(|| Duration::from_millis(100 * tenths)),
            lines: t.canonical(),
        }
    }

    /// Takes what is there; bytes and whether a line ended. `None` once cut off.
    fn take(&self, out: &mut [u8]) -> Option<(usize, bool)> {
        let mut state = self.terminal.state.lock();
        if state.era != self.era {
            return None;
        }
        let full = !state.line.takes_input();
        let taken = state.line.read(out);
        let room = full && state.line.takes_input();
        drop(state);
        if room {
            self.terminal.master_hub.notify(Events::WRITABLE);
        }
        Some(taken)
    }

    /// Waits for something to read; `false` when `deadline` came first.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let ready = || {
            let state = self.terminal.state.lock();
            (state.era != self.era || state.line.readable(1)).then_some(())
        };
        match self
            .terminal
            .slave_hub
            .wait_readable(Until::deadline(deadline), ready)
        {
            Ok(()) => Ok(true),
            Err(Error::TimedOut) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl FileOps for Slave {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        if sink.left() == 0 || self.is_cut_off() {
            return Ok(0);
        }
        self.terminal.check_foreground(TtySignal::BackgroundRead)?;
        let how = self.patience();
        let after = |d: Duration| Instant::now().after(d);
        // Without a minimum the time runs from the start, else from each byte.
        let (least, mut deadline) = match how.least {
            0 if !how.lines => (1, Some(after(how.time.unwrap_or_default()))),
            n => (n, None),
        };
        let mut got = 0;
        loop {
            let mut step = [0; STEP];
            let max = sink.left().min(STEP);
            let Some((n, ended)) = self.take(step.get_mut(..max).unwrap_or(&mut [])) else {
                return Ok(got);
            };
            if n > 0 {
                match sink.put(step.get(..n).unwrap_or(&[])) {
                    Err(_) if got > 0 => return Ok(got),
                    put => got += put?,
                }
                if how.least > 0 {
                    deadline = how.time.filter(|_| !how.lines).map(after);
                }
            }
            if ended || sink.left() == 0 || how.lines && got > 0 && n == 0 {
                return Ok(got);
            }
            if n > 0 {
                // Somebody may type as fast as this reads.
                if machine::thread::pause() {
                    return Ok(got);
                }
                continue;
            }
            if !how.lines && got >= least {
                return Ok(got);
            }
            if deadline.is_some_and(|d| d <= Instant::now()) {
                return Ok(got);
            }
            let waited = match file.nonblocking() {
                true => Err(Error::WouldBlock),
                false => self.wait(deadline),
            };
            match waited {
                Ok(true) => {}
                Ok(false) => return Ok(got),
                Err(_) if got > 0 => return Ok(got),
                Err(e) => return Err(e),
            }
        }
    }

    fn write(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        let t = &self.terminal;
        let polite = t.state.lock().line.termios().local.contains(Local::TOSTOP);
        if polite {
            t.check_foreground(TtySignal::BackgroundWrite)?;
        }
        let mut written = 0;
        while source.left() > 0 {
            let mut step = [0; STEP];
            let n = source.take(&mut step)?;
            let mut rest = step.get(..n).unwrap_or(&[]);
            while !rest.is_empty() {
                let mut state = t.state.lock();
                if state.era != self.era {
                    return if written > 0 {
                        Ok(written)
                    } else {
                        Err(Error::Io)
                    };
                }
                let n = state.line.write(rest);
                drop(state);
                rest = rest.get(n..).unwrap_or(&[]);
                written += n;
                if n > 0 {
                    t.master_hub.notify(Events::READABLE);
                }
                if rest.is_empty() {
                    break;
                }
                let ready = || {
                    let state = t.state.lock();
                    (state.era != self.era || state.line.takes_output()).then_some(())
                };
                let waited = match file.nonblocking() {
                    true => Err(Error::WouldBlock),
                    false => t.slave_hub.wait_writable(Until::INTERRUPTED, ready),
                };
                match waited {
                    Ok(()) => {}
                    Err(_) if written > 0 => return Ok(written),
                    Err(e) => return Err(e),
                }
            }
            if machine::thread::pause() {
                break;
            }
        }
        if self.is_cut_off() && written == 0 {
            return Err(Error::Io);
        }
        Ok(written)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let state = self.terminal.state.lock();
        if state.era != self.era {
            return GONE;
        }
        let t = state.line.termios();
        let least = match t.char(Control::Time) {
            0 => usize::from(t.char(Control::Min)),
            _ => 1,
        };
        let mut e = Events::empty();
        if state.line.readable(least) {
            e |= Events::READABLE;
        }
        if state.line.takes_output() {
            e |= Events::WRITABLE;
        }
        e
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.terminal.slave_hub)
    }

    fn ioctl(&self, _: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        if self.is_cut_off() {
            return Err(match command {
                ioctl::TIOCSPGRP => Error::NotTerminal,
                _ => Error::Io,
            });
        }
        ioctl::on_slave(&self.terminal, command, arg)
    }
}
