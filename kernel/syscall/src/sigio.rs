//! `SIGIO`: readiness told by a signal (`O_ASYNC`, `FIOASYNC`).

use crate::ctx::Ctx;
use crate::errno::Errno;
use alloc::sync::{Arc, Weak};
use machine::user;
use process::signal::{Origin, SigInfo, Signal, code};
use process::{Process, World};
use vfs::sigio::{Owner, Recipient, Target};
use vfs::{Events, Observer, OpenFile};

/// Sends the signal to whoever owns the description.
struct Announcer {
    world: Weak<World>,
    to: Arc<Recipient>,
    /// The descriptor by which signals were asked for.
    fd: i32,
}

/// `si_code` of what happened, and the events that it stands for (fcntl(2), `F_SETSIG`).
fn reason(events: Events) -> (i32, Events) {
    if events.contains(Events::HUP) {
        (code::POLL_HUP, Events::HUP | Events::ERR)
    } else if events.contains(Events::ERR) {
        (code::POLL_ERR, Events::ERR)
    } else if events.contains(Events::IN) {
        (code::POLL_IN, Events::READABLE)
    } else {
        (code::POLL_OUT, Events::WRITABLE | Events::WRBAND)
    }
}

impl Observer for Announcer {
    fn notify(&self, events: Events) -> bool {
        let to = self.to.get();
        let world = self.world.upgrade().filter(|_| to.owner != Owner::Nobody);
        let Some(world) = world else {
            return false;
        };
        let (code, band) = reason(events);
        tell(&world, to, (code, band.bits(), self.fd));
        true
    }
}

/// Tells the owner of a description that its lease is to be given up.
pub(crate) fn tell_lease(world: &World, to: Target, fd: i32) {
    // `POLLIN | POLLRDNORM | POLLMSG`
    tell(world, to, (code::POLL_MSG, 0x441, fd));
}

/// Sends the signal of `to` for what happened on a descriptor: code, events, number.
fn tell(world: &World, to: Target, (code, band, fd): (i32, u32, i32)) {
    let (signal, info) = match Signal::new(usize::from(to.signal)) {
        None => (Signal::IO, SigInfo::kernel(Signal::IO)),
        Some(signal) => (signal, SigInfo::io(signal, code, band, fd)),
    };
    // A full queue loses the signal's details, as on Linux, but not the news.
    let tell = |p: &Process| {
        if p.signal(signal, info, Origin::Inside).is_err() {
            p.raise(Signal::IO);
        }
    };
    match to.owner {
        Owner::Nobody => {}
        Owner::Process(p) => world.process(p).iter().for_each(|p| tell(p)),
        Owner::Group(g) => world.group_members(g).iter().for_each(|p| tell(p)),
        Owner::Thread(t) => {
            if let Some(t) = world.thread(t)
                && t.signal(signal, info, Origin::Inside).is_err()
            {
                t.raise(Signal::IO);
            }
        }
    }
}

/// `F_SETOWN`: a process, or minus a group.
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub(crate) fn set_owner(ctx: &Ctx<'_>, file: &OpenFile, who: i32) -> Result<(), Errno> {
    let owner = match who {
        0 => Owner::Nobody,
        i32::MIN => return Err(Errno::EINVAL),
        1.. => Owner::Process(who.unsigned_abs()),
        _ => Owner::Group(who.unsigned_abs()),
    };
    change_owner(ctx, file, owner)
}

/// `F_GETOWN`.
pub(crate) fn owner(file: &OpenFile) -> i32 {
    match file.signal_target().owner {
        Owner::Nobody => 0,
        Owner::Thread(n) | Owner::Process(n) => n as i32,
        Owner::Group(n) => -(n as i32),
    }
}

/// `F_SETOWN_EX`: a `struct f_owner_ex` at `addr`.
///
/// # Errors
/// `EFAULT`, `EINVAL`, `ESRCH`.
pub(crate) fn set_owner_ex(ctx: &Ctx<'_>, file: &OpenFile, addr: usize) -> Result<(), Errno> {
    let [kind, number]: [i32; 2] = user::read_value(addr)?;
    let owner: fn(u32) -> Owner = match kind {
        0 => Owner::Thread,
        1 => Owner::Process,
        2 => Owner::Group,
        _ => return Err(Errno::EINVAL),
    };
    match u32::try_from(number).map_err(|_| Errno::ESRCH)? {
        0 => change_owner(ctx, file, Owner::Nobody),
        number => change_owner(ctx, file, owner(number)),
    }
}

/// `F_GETOWN_EX`.
///
/// # Errors
/// `EFAULT`.
pub(crate) fn owner_ex(file: &OpenFile, addr: usize) -> Result<(), Errno> {
    let (kind, number) = match file.signal_target().owner {
        Owner::Thread(n) => (0, n),
        Owner::Nobody => (1, 0),
        Owner::Process(n) => (1, n),
        Owner::Group(n) => (2, n),
    };
    Ok(user::write_value(addr, &[kind, number])?)
}

fn change_owner(ctx: &Ctx<'_>, file: &OpenFile, owner: Owner) -> Result<(), Errno> {
    let world = ctx.world();
    let is_there = match owner {
        Owner::Nobody => true,
        // Linux finds processes by the numbers of their threads, too.
        Owner::Thread(n) | Owner::Process(n) => {
            world.thread(n).is_some() || world.process(n).is_some()
        }
        Owner::Group(n) => !world.group_members(n).is_empty(),
    };
    if !is_there {
        return Err(Errno::ESRCH);
    }
    file.change_signal_target(|t| t.owner = owner);
    Ok(())
}

/// `F_SETSIG`; 0 is `SIGIO` without details.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn set_signal(file: &OpenFile, number: usize) -> Result<(), Errno> {
    let number = match number {
        0 => 0,
        n => Signal::new(n).ok_or(Errno::EINVAL)?.number(),
    };
    file.change_signal_target(|t| t.signal = number);
    Ok(())
}

/// Switches signals about the readiness of `file` on or off.
pub(crate) fn set(ctx: &Ctx<'_>, fd: usize, file: &OpenFile, on: bool) -> Result<(), Errno> {
    let fd = fd as i32;
    if !on {
        file.stop_async();
        return Ok(());
    }
    let world = Arc::downgrade(ctx.world());
    Ok(file.start_async(|to| Arc::new(Announcer { world, to, fd }))?)
}
