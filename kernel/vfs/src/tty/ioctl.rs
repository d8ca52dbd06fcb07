//! Terminal control (ioctl_tty(2)).

use super::termios::{Control, Local, Locks, TERMIO_BYTES, TERMIOS_BYTES, TERMIOS2_BYTES, Termios};
use super::{Happened, Terminal, TtySignal, WindowSize, packet};
use crate::error::{Error, Result};
use crate::event::Events;
use alloc::sync::Arc;
use machine::user;

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCGETA: u32 = 0x5405;
const TCSETA: u32 = 0x5406;
const TCSETAW: u32 = 0x5407;
const TCSETAF: u32 = 0x5408;
const TCSBRK: u32 = 0x5409;
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
pub(super) const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCSTI: u32 = 0x5412;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TIOCCONS: u32 = 0x541d;
const TIOCPKT: u32 = 0x5420;
const TIOCNOTTY: u32 = 0x5422;
const TIOCSETD: u32 = 0x5423;
const TIOCGETD: u32 = 0x5424;
const TCSBRKP: u32 = 0x5425;
const TIOCSBRK: u32 = 0x5427;
const TIOCCBRK: u32 = 0x5428;
const TIOCGSID: u32 = 0x5429;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGDEV: u32 = 0x8004_5432;
const TIOCSIG: u32 = 0x4004_5436;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCGEXCL: u32 = 0x8004_5440;
const TIOCGLCKTRMIOS: u32 = 0x5456;
/// Whoever calls has seen to it that the caller may.
const TIOCSLCKTRMIOS: u32 = 0x5457;

fn give(arg: usize, value: i32) -> Result<usize> {
    user::write_value(arg, &value)?;
    Ok(0)
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A command to the master.
pub(super) fn on_master(t: &Arc<Terminal>, command: u32, arg: usize) -> Result<usize> {
    match command {
        TIOCGPTN => give(arg, t.number() as i32),
        TIOCSPTLCK => {
            let lock: i32 = user::read_value(arg)?;
            t.state.lock().locked = lock != 0;
            Ok(0)
        }
        TIOCGPTLCK => give(arg, i32::from(t.state.lock().locked)),
        TIOCPKT => {
            let on: i32 = user::read_value(arg)?;
            let mut state = t.state.lock();
            if !state.packet || on == 0 {
                state.news = 0;
            }
            state.packet = on != 0;
            Ok(0)
        }
        TIOCGPKT => give(arg, i32::from(t.state.lock().packet)),
        TIOCSIG => {
            let number = u32::try_from(arg).map_err(|_| Error::Invalid)?;
            let foreground = t.foreground();
            t.jobs.signal_number(foreground, number)?;
            Ok(0)
        }
        FIONREAD => give(arg, int(t.state.lock().line.shown())),
        TIOCGPGRP => give(arg, t.foreground() as i32),
        TIOCGSID => match t.state.lock().session {
            0 => Err(Error::NotTerminal),
            session => give(arg, session as i32),
        },
        // What the master reads is what the slave writes.
        TCFLSH if arg == 0 || arg == 2 => {
            flush(t, false, true);
            Ok(0)
        }
        TCFLSH if arg == 1 => Ok(0),
        _ => common(t, command, arg),
    }
}

/// A command to the slave.
pub(super) fn on_slave(t: &Arc<Terminal>, command: u32, arg: usize) -> Result<usize> {
    match command {
        FIONREAD => give(arg, int(t.state.lock().line.pending())),
        TIOCGPGRP => {
            check_own(t)?;
            give(arg, t.foreground() as i32)
        }
        TIOCGSID => {
            check_own(t)?;
            let session = t.state.lock().session;
            give(arg, session as i32)
        }
        TCFLSH => {
            t.check_foreground(TtySignal::BackgroundWrite)?;
            match arg {
                0 => flush(t, true, false),
                1 => flush(t, false, true),
                2 => flush(t, true, true),
                _ => return Err(Error::Invalid),
            }
            Ok(0)
        }
        _ => common(t, command, arg),
    }
}

/// The caller's own controlling terminal alone answers this.
fn check_own(t: &Arc<Terminal>) -> Result<()> {
    let job = t.jobs.caller().and_then(|j| j.terminal);
    let own = job.is_some_and(|own| Arc::ptr_eq(&own, t));
    own.then_some(()).ok_or(Error::NotTerminal)
}

fn common(t: &Arc<Terminal>, command: u32, arg: usize) -> Result<usize> {
    match command {
        TCGETS | TCGETS2 | TCGETA => get(t, command, arg),
        TCSETS | TCSETSW | TCSETSF | TCSETS2 | TCSETSW2 | TCSETSF2 | TCSETA | TCSETAW | TCSETAF => {
            set(t, command, arg)
        }
        // Output is with the master at once: there is nothing to wait for, and no
        // line to break.
        TCSBRK | TCSBRKP => {
            t.check_foreground(TtySignal::BackgroundWrite)?;
            Ok(0)
        }
        TIOCSBRK | TIOCCBRK => Ok(0),
        TCXONC => flow(t, arg),
        TIOCEXCL | TIOCNXCL => {
            t.state.lock().exclusive = command == TIOCEXCL;
            Ok(0)
        }
        TIOCGLCKTRMIOS => {
            let locks = t.state.lock().locks;
            user::write(arg, &locks.to_bytes())?;
            Ok(0)
        }
        TIOCSLCKTRMIOS => {
            let mut bytes = [0; TERMIOS_BYTES];
            user::read(arg, &mut bytes)?;
            t.state.lock().locks = Locks::from_bytes(&bytes);
            Ok(0)
        }
        TIOCGEXCL => give(arg, i32::from(t.state.lock().exclusive)),
        TIOCSCTTY => take_control(t).map(|()| 0),
        TIOCNOTTY => {
            check_own(t)?;
            give_up_control(t);
            Ok(0)
        }
        TIOCSPGRP => set_foreground(t, arg).map(|()| 0),
        TIOCGWINSZ => {
            let size = t.state.lock().size;
            user::write_value(arg, &size)?;
            Ok(0)
        }
        TIOCSWINSZ => {
            resize(t, user::read_value(arg)?);
            Ok(0)
        }
        TIOCOUTQ => give(arg, 0),
        TIOCGETD => give(arg, 0),
        TIOCSETD => match user::read_value::<i32>(arg)? {
            0 => Ok(0),
            _ => Err(Error::Invalid),
        },
        TIOCGDEV => give(arg, t.device() as i32),
        // Typing on behalf of others is how jobs break out (Linux 6.2 refuses it
        // the same way).
        TIOCSTI => Err(Error::Io),
        TIOCCONS => Err(Error::NotPermitted),
        _ => Err(Error::NotTerminal),
    }
}

fn get(t: &Arc<Terminal>, command: u32, arg: usize) -> Result<usize> {
    let termios = *t.state.lock().line.termios();
    let bytes = termios.to_bytes();
    match command {
        TCGETA => user::write(arg, &termios.to_termio())?,
        TCGETS => user::write(arg, bytes.get(..TERMIOS_BYTES).unwrap_or(&[]))?,
        _ => user::write(arg, &bytes)?,
    }
    Ok(0)
}

fn set(t: &Arc<Terminal>, command: u32, arg: usize) -> Result<usize> {
    t.check_foreground(TtySignal::BackgroundWrite)?;
    let old = *t.state.lock().line.termios();
    let new = match command {
        TCSETA | TCSETAW | TCSETAF => {
            old.with_termio(&user::read_value::<[u8; TERMIO_BYTES]>(arg)?)
        }
        TCSETS | TCSETSW | TCSETSF => {
            let mut bytes = [0; TERMIOS_BYTES];
            user::read(arg, &mut bytes)?;
            old.with_bytes(&bytes)
        }
        _ => {
            let mut bytes = [0; TERMIOS2_BYTES];
            user::read(arg, &mut bytes)?;
            old.with_bytes(&bytes)
        }
    };
    if matches!(command, TCSETSF | TCSETSF2 | TCSETAF) {
        flush(t, true, false);
    }
    let new = t.state.lock().locks.hold(&old, new);
    apply(t, &old, new);
    Ok(0)
}

/// New settings are in force; packet mode and readers hear of them.
fn apply(t: &Terminal, old: &Termios, new: Termios) {
    let mut state = t.state.lock();
    let started = state.line.set_termios(new);
    let readable = state.line.readable(1);
    drop(state);
    let mut news = 0;
    let external = (old.local | new.local).contains(Local::EXTPROC);
    if old.usual_flow() != new.usual_flow() || external {
        news |= match new.usual_flow() {
            true => packet::DO_STOP,
            false => packet::NO_STOP,
        };
    }
    if external {
        news |= packet::IOCTL;
    }
    let mut happened = Happened::empty();
    happened.set(Happened::STARTED, started);
    t.act(happened, news);
    if readable {
        t.slave_hub.notify(Events::READABLE);
    }
}

/// tcflush(3)
fn flush(t: &Terminal, input: bool, output: bool) {
    let mut state = t.state.lock();
    let mut news = 0;
    if input {
        state.line.flush_input();
        news |= packet::FLUSH_READ;
    }
    if output {
        state.line.flush_output();
        news |= packet::FLUSH_WRITE;
    }
    drop(state);
    t.act(Happened::empty(), news);
    if output {
        t.slave_hub.notify(Events::WRITABLE);
    }
    if input {
        t.master_hub.notify(Events::WRITABLE);
    }
}

/// tcflow(3)
fn flow(t: &Arc<Terminal>, action: usize) -> Result<usize> {
    t.check_foreground(TtySignal::BackgroundWrite)?;
    let mut happened = Happened::empty();
    let mut state = t.state.lock();
    match action {
        0 if state.line.set_stopped(true) => happened |= Happened::STOPPED,
        1 if state.line.set_stopped(false) => happened |= Happened::STARTED,
        0 | 1 => {}
        2 | 3 => {
            // The other side is asked to stop or to go on.
            let which = if action == 2 {
                Control::Stop
            } else {
                Control::Start
            };
            let c = state.line.termios().char(which);
            if c != 0 {
                state.line.write(&[c]);
            }
        }
        _ => return Err(Error::Invalid),
    }
    drop(state);
    t.act(happened, 0);
    Ok(0)
}

fn resize(t: &Terminal, size: WindowSize) {
    let mut state = t.state.lock();
    let old = core::mem::replace(&mut state.size, size);
    let foreground = state.foreground;
    drop(state);
    if old != size && foreground != 0 {
        t.jobs.signal(foreground, TtySignal::Resized);
    }
}

/// `TIOCSCTTY`
fn take_control(t: &Arc<Terminal>) -> Result<()> {
    let job = t.jobs.caller().ok_or(Error::NotPermitted)?;
    let mut state = t.state.lock();
    let own = state.session == job.session;
    if job.leads && own {
        return Ok(());
    }
    if !job.leads || job.terminal.is_some() || state.session != 0 || state.dead {
        return Err(Error::NotPermitted);
    }
    (state.session, state.foreground) = (job.session, job.group);
    drop(state);
    t.jobs.control(Some(t.clone()));
    Ok(())
}

/// `TIOCNOTTY`: the leader of a session takes the terminal away from all of it.
fn give_up_control(t: &Arc<Terminal>) {
    let Some(job) = t.jobs.caller() else { return };
    if job.leads {
        let foreground = t.leader_left(job.session);
        if foreground != 0 {
            // Signals that go with a hang-up.
            for number in [1, 18] {
                // Both are signals.
                let _ = t.jobs.signal_number(foreground, number);
            }
        }
    }
    t.jobs.control(None);
}

/// `TIOCSPGRP`
fn set_foreground(t: &Arc<Terminal>, arg: usize) -> Result<()> {
    t.check_foreground(TtySignal::BackgroundWrite)
        .map_err(|e| match e {
            Error::Io => Error::NotTerminal,
            other => other,
        })?;
    let job = t.jobs.caller().ok_or(Error::NotTerminal)?;
    let own = job.terminal.is_some_and(|own| Arc::ptr_eq(&own, t));
    if !own || t.state.lock().session != job.session {
        return Err(Error::NotTerminal);
    }
    let group: i32 = user::read_value(arg)?;
    let group = u32::try_from(group).map_err(|_| Error::Invalid)?;
    let session = t.jobs.session_of(group).ok_or(Error::NoProcess)?;
    if session != job.session {
        return Err(Error::NotPermitted);
    }
    t.state.lock().foreground = group;
    Ok(())
}
