//! The end of a pseudo-terminal that shows it to somebody: a terminal window, an
//! SSH server, `script`.

use super::devpts::Terminals;
use super::{Terminal, ioctl};
use crate::cred::Credentials;
use crate::dentry::Dentry;
use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::file::{FileOps, OpenFile, OpenFlags};
use crate::mount::Path;
use alloc::sync::Arc;
use core::any::Any;
use machine::FileCharge;
use machine::io::{Sink, Source};
use machine::wait::Until;

/// Bytes moved in one step.
const STEP: usize = 512;

/// The master of a pseudo-terminal.
pub struct Master {
    pub(super) terminal: Arc<Terminal>,
    pub(super) owner: Arc<Terminals>,
}

impl Drop for Master {
    fn drop(&mut self) {
        self.owner.forget(self.terminal.number());
        self.terminal.master_gone();
    }
}

/// What one look at the queue gave.
enum Taken {
    /// So many bytes, a packet's head included.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nobody is left to write.
    Over,
}

impl Master {
    /// Opens the slave without its name (`TIOCGPTPEER`). `file` is the master's
    /// own description, which knows the mount that the slave is named in; `charge`
    /// pays for the new one.
    ///
    /// # Errors
    /// As for opening it by name.
    pub fn open_peer(
        &self,
        file: &OpenFile,
        flags: OpenFlags,
        cred: &Credentials,
        charge: FileCharge,
    ) -> Result<Arc<OpenFile>> {
        let inode = self.owner.inode(self.terminal.number()).ok_or(Error::Io)?;
        let slave = self.terminal.open_slave(flags, cred)?;
        let path = file.path().map(|p| {
            let name = alloc::format!("{}", self.terminal.number());
            Path {
                mount: p.mount.clone(),
                dentry: Dentry::uncached(p.mount.tree().root(), name.as_bytes(), inode),
            }
        });
        Ok(OpenFile::new(slave, flags, path, charge))
    }

    /// Takes output, headed by a 0 in packet mode; or what packet mode has to tell.
    fn take(&self, out: &mut [u8]) -> Taken {
        let mut state = self.terminal.state.lock();
        if state.packet
            && state.news != 0
            && let Some(first) = out.first_mut()
        {
            *first = core::mem::take(&mut state.news);
            return Taken::Bytes(1);
        }
        let head = usize::from(state.packet);
        if head == out.len() && state.line.shown() > 0 {
            // Room for the head alone.
            out.fill(0);
            return Taken::Bytes(head);
        }
        let full = !state.line.takes_output();
        let n = state
            .line
            .take_output(out.get_mut(head..).unwrap_or(&mut []));
        if n == 0 {
            return match state.abandoned {
                true => Taken::Over,
                false => Taken::Nothing,
            };
        }
        let room = full && state.line.takes_output();
        drop(state);
        if let Some(first) = out.first_mut().filter(|_| head == 1) {
            *first = 0;
        }
        if room {
            self.terminal.slave_hub.notify(Events::WRITABLE);
        }
        Taken::Bytes(n + head)
    }
}

impl FileOps for Master {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        if sink.left() == 0 {
            return Ok(0);
        }
        let hub = &self.terminal.master_hub;
        let mut got = 0;
        loop {
            let mut step = [0; STEP];
            let max = sink.left().min(STEP);
            match self.take(step.get_mut(..max).unwrap_or(&mut [])) {
                Taken::Bytes(n) => {
                    match sink.put(step.get(..n).unwrap_or(&[])) {
                        Err(_) if got > 0 => return Ok(got),
                        put => got += put?,
                    }
                    // A packet is one read.
                    let packet = self.terminal.state.lock().packet;
                    // Somebody may write as fast as this reads.
                    let stop = machine::thread::pause();
                    if packet || n < max || sink.left() == 0 || stop {
                        return Ok(got);
                    }
                }
                _ if got > 0 => return Ok(got),
                Taken::Over => return Err(Error::Io),
                Taken::Nothing if file.nonblocking() => return Err(Error::WouldBlock),
                Taken::Nothing => {
                    let ready = || {
                        let events = self.terminal.state.lock().master_events();
                        events
                            .intersects(Events::READABLE | Events::HUP)
                            .then_some(())
                    };
                    hub.wait_readable(Until::INTERRUPTED, ready)?;
                }
            }
        }
    }

    fn write(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        let t = &self.terminal;
        let mut written = 0;
        while source.left() > 0 {
            let mut step = [0; STEP];
            let n = source.take(&mut step)?;
            let mut rest = step.get(..n).unwrap_or(&[]);
            while !rest.is_empty() {
                let mut state = t.state.lock();
                let (n, happened) = state.line.receive(rest);
                let readable = state.line.readable(1);
                drop(state);
                rest = rest.get(n..).unwrap_or(&[]);
                written += n;
                t.act(happened, 0);
                if readable {
                    t.slave_hub.notify(Events::READABLE);
                }
                // A line that is full takes what is typed without end.
                if machine::thread::pause() && written > 0 {
                    return Ok(written);
                }
                if rest.is_empty() {
                    break;
                }
                let ready = || t.state.lock().line.takes_input().then_some(());
                let waited = match file.nonblocking() {
                    true => Err(Error::WouldBlock),
                    false => t.master_hub.wait_writable(Until::INTERRUPTED, ready),
                };
                match waited {
                    Ok(()) => {}
                    Err(_) if written > 0 => return Ok(written),
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(written)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        self.terminal.state.lock().master_events()
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.terminal.master_hub)
    }

    fn ioctl(&self, _: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        ioctl::on_master(&self.terminal, command, arg)
    }

    fn info(&self, _: &OpenFile, out: &mut dyn core::fmt::Write) {
        let _ = writeln!(out, "tty-index:\t{}", self.terminal.number());
    }
}
