//! Sockets: socket(2) and what can be done with one by address and option.
//! Transfers are in [`transfer`], their control data in [`control`].

mod address;
mod control;
mod transfer;

pub(crate) use transfer::{
    sys_recvfrom, sys_recvmmsg, sys_recvmsg, sys_sendmmsg, sys_sendmsg, sys_sendto,
};

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use address::{read_address, write_address};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::{FileCharge, user};
use net::filter::{INSTRUCTION, PROGRAM_MAX};
use net::{Address, Identity, Socket};
use vfs::{Caps, OpenFile, OpenFlags};

const SOCK_NONBLOCK: usize = 0o4000;
const SOCK_CLOEXEC: usize = 0o2_000_000;
const SOL_SOCKET: i32 = 1;
const SO_ATTACH_FILTER: i32 = 26;
/// The bits of the type that are no flags.
const SOCK_TYPE: usize = 0xf;
/// Longest option value that a program can set: `struct group_source_req` has 264 bytes.
const OPTION_MAX: usize = 264;

/// A socket behind a descriptor, held for the time of a call.
pub(crate) struct Held(Arc<OpenFile>);

impl Held {
    /// # Errors
    /// `EBADF`, `ENOTSOCK`.
    pub(crate) fn new(ctx: &Ctx<'_>, fd: usize) -> Result<Held, Errno> {
        let file = ctx.file(fd)?;
        match file.downcast::<Socket>() {
            Some(_) => Ok(Held(file)),
            None => Err(Errno::ENOTSOCK),
        }
    }

    /// # Errors
    /// `ENOTSOCK`, which [`Held::new`] has ruled out.
    pub(crate) fn socket(&self) -> Result<&Socket, Errno> {
        self.0.downcast().ok_or(Errno::ENOTSOCK)
    }

    pub(crate) fn nonblocking(&self) -> bool {
        self.0.nonblocking()
    }
}

/// Who the caller is to others.
pub(crate) fn identity(ctx: &Ctx<'_>) -> Result<Identity, Errno> {
    let cred = ctx.cred()?;
    Ok(Identity {
        pid: ctx.process().pid(),
        uid: cred.euid,
        gid: cred.egid,
    })
}

fn flags(kind: usize) -> Result<(OpenFlags, bool), Errno> {
    if kind & !(SOCK_TYPE | SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut flags = OpenFlags::READ_WRITE;
    if kind & SOCK_NONBLOCK != 0 {
        flags |= OpenFlags::NONBLOCK;
    }
    Ok((flags, kind & SOCK_CLOEXEC != 0))
}

/// A descriptor of `socket`, opened as `kind` says.
fn install(
    ctx: &Ctx<'_>,
    socket: Arc<Socket>,
    kind: usize,
    charge: FileCharge,
) -> Result<i32, Errno> {
    let (flags, cloexec) = flags(kind)?;
    let file = OpenFile::new(socket, flags, None, charge);
    Ok(ctx.files()?.insert(file, cloexec, 0, ctx.files_limit())?)
}

/// A wait that had a time-out of its own must not start over.
pub(crate) fn interrupted(e: net::Error, has_timeout: bool) -> Errno {
    let e = Errno::from(e);
    if has_timeout { e.or_eintr() } else { e }
}

fn receive_timeout(s: &Socket) -> bool {
    net::options::Options::timeout(&s.options().receive_timeout).is_some()
}

fn send_timeout(s: &Socket) -> bool {
    net::options::Options::timeout(&s.options().send_timeout).is_some()
}

/// socket(2)
pub(crate) fn sys_socket(
    ctx: &mut Ctx<'_>,
    family: usize,
    kind: usize,
    protocol: usize,
) -> SysResult {
    flags(kind)?;
    let style = (kind & SOCK_TYPE) as u32;
    // Whether the capsule may is the network's to say; here, whether this program may.
    if Socket::needs_raw(family as u32, style) && !ctx.cred()?.has(Caps::NET_RAW) {
        return Err(Errno::EPERM);
    }
    let charge = ctx.file_charge()?;
    let socket = Socket::new(ctx.world().network(), family as u32, style, protocol as u32)?;
    Ok(install(ctx, socket, kind, charge)? as usize)
}

/// socketpair(2)
pub(crate) fn sys_socketpair(
    ctx: &mut Ctx<'_>,
    family: usize,
    kind: usize,
    protocol: usize,
    out: usize,
) -> SysResult {
    flags(kind)?;
    let style = (kind & SOCK_TYPE) as u32;
    let who = identity(ctx)?;
    let charges = (ctx.file_charge()?, ctx.file_charge()?);
    let stack = ctx.world().network();
    let [a, b] = Socket::pair(stack, family as u32, style, protocol as u32, who)?;
    let files = ctx.files()?;
    let first = install(ctx, a, kind, charges.0)?;
    let second = install(ctx, b, kind, charges.1).inspect_err(|_| drop(files.remove(first)))?;
    let pair = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
    if let Err(e) = user::write(out, &pair) {
        drop((files.remove(first), files.remove(second)));
        return Err(e.into());
    }
    Ok(0)
}

/// bind(2)
pub(crate) fn sys_bind(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let socket = held.socket()?;
    let to = match read_address(addr, len)? {
        // Linux takes an unspecified family for AF_INET's any address here.
        Address::Unspecified if socket.family() == net::addr::AF_INET => {
            Address::Inet(core::net::SocketAddr::from(([0, 0, 0, 0], 0)))
        }
        other => other,
    };
    let to = address::make_socket_file(ctx, socket, to)?;
    socket.bind(to)?;
    Ok(0)
}

/// listen(2)
pub(crate) fn sys_listen(ctx: &mut Ctx<'_>, fd: usize, backlog: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    held.socket()?.listen(backlog as i32, identity(ctx)?)?;
    Ok(0)
}

/// accept(2)
pub(crate) fn sys_accept(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    sys_accept4(ctx, fd, addr, len, 0)
}

/// accept4(2)
pub(crate) fn sys_accept4(
    ctx: &mut Ctx<'_>,
    fd: usize,
    addr: usize,
    len: usize,
    kind: usize,
) -> SysResult {
    if kind & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let held = Held::new(ctx, fd)?;
    let socket = held.socket()?;
    // Before a connection is taken that could not be handed out: it waits instead.
    let charge = ctx.file_charge_and_room()?;
    let (new, from) = socket
        .accept(held.nonblocking())
        .map_err(|e| interrupted(e, receive_timeout(socket)))?;
    let v6 = new.is_v6();
    if addr != 0 {
        write_address(addr, len, Some(&from), v6)?;
    }
    Ok(install(ctx, new, kind, charge)? as usize)
}

/// connect(2)
pub(crate) fn sys_connect(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let socket = held.socket()?;
    let to = address::find_socket_file(ctx, socket, read_address(addr, len)?)?;
    socket
        .connect(&to, identity(ctx)?, held.nonblocking())
        .map_err(|e| interrupted(e, send_timeout(socket)))?;
    Ok(0)
}

/// getsockname(2)
pub(crate) fn sys_getsockname(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let socket = held.socket()?;
    write_address(addr, len, Some(&socket.local()), socket.is_v6())?;
    Ok(0)
}

/// getpeername(2)
pub(crate) fn sys_getpeername(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let socket = held.socket()?;
    write_address(addr, len, Some(&socket.remote()?), socket.is_v6())?;
    Ok(0)
}

/// shutdown(2)
pub(crate) fn sys_shutdown(ctx: &mut Ctx<'_>, fd: usize, how: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let (read, write) = match how as i32 {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    held.socket()?.shutdown(read, write)?;
    Ok(0)
}

/// setsockopt(2)
pub(crate) fn sys_setsockopt(
    ctx: &mut Ctx<'_>,
    fd: usize,
    level: usize,
    name: usize,
    value: usize,
    len: usize,
) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
    let mut buffer = [0; OPTION_MAX];
    let bytes = &mut buffer[..len.min(OPTION_MAX)];
    user::read(value, bytes)?;
    let socket = held.socket()?;
    if (level as i32, name as i32) == (SOL_SOCKET, SO_ATTACH_FILTER) {
        socket.attach_filter(&read_filter(bytes)?)?;
        return Ok(0);
    }
    socket.set_option(level as i32, name as i32, bytes)?;
    Ok(0)
}

/// The instructions that a `struct sock_fprog` leads to.
fn read_filter(program: &[u8]) -> Result<Vec<u8>, Errno> {
    let &[c0, c1, _, _, _, _, _, _, a0, a1, a2, a3, a4, a5, a6, a7, ..] = program else {
        return Err(Errno::EINVAL);
    };
    let count = usize::from(u16::from_ne_bytes([c0, c1]));
    if count > PROGRAM_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count * INSTRUCTION)?;
    bytes.resize(count * INSTRUCTION, 0);
    user::read(
        usize::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        &mut bytes,
    )?;
    Ok(bytes)
}

/// getsockopt(2)
pub(crate) fn sys_getsockopt(
    ctx: &mut Ctx<'_>,
    fd: usize,
    level: usize,
    name: usize,
    value: usize,
    len: usize,
) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let room: i32 = user::read_value(len)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let bytes = held.socket()?.option(level as i32, name as i32)?;
    let n = bytes.len().min(room);
    user::write(value, &bytes[..n])?;
    user::write_value(len, &i32::try_from(n).unwrap_or(i32::MAX))?;
    Ok(0)
}
