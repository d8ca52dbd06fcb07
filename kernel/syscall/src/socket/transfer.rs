//! Sending and receiving through a socket.

use super::address::{find_socket_file, read_address, write_address};
use super::control::{self, Room};
use super::{Held, interrupted, receive_timeout, send_timeout};
use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::{RW_MAX, read_iovec};
use machine::io::{Sink, Source, UserBuf};
use machine::time::Instant;
use machine::{thread, user};
use net::{MsgFlags, Outgoing, Received, Socket};
use process::signal::Signal;

/// Bytes of `struct msghdr` and of `struct mmsghdr`.
const MSGHDR: usize = 56;
const MMSGHDR: usize = 64;
/// Most messages of one `sendmmsg` or `recvmmsg`.
const MESSAGES_MAX: usize = 1024;

/// `struct msghdr`.
struct Header {
    name: usize,
    name_len: u32,
    iov: usize,
    iov_len: usize,
    control: usize,
    control_len: usize,
}

/// Most parts of a message (`UIO_MAXIOV`).
const IOV_MAX: u64 = 1024;

impl Header {
    fn read(addr: usize) -> Result<Header, Errno> {
        let words: [u64; 7] = user::read_value(addr)?;
        let size = |w: u64| usize::try_from(w).map_err(|_| Errno::EINVAL);
        if (words[1] as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        if words[3] > IOV_MAX {
            return Err(Errno::EMSGSIZE);
        }
        Ok(Header {
            name: size(words[0])?,
            name_len: (words[1] & 0xffff_ffff) as u32,
            iov: size(words[2])?,
            iov_len: size(words[3])?,
            control: size(words[4])?,
            control_len: size(words[5])?,
        })
    }
}

fn buffer(addr: usize, len: usize) -> UserBuf {
    UserBuf {
        addr,
        len: len.min(RW_MAX),
    }
}

fn send(
    ctx: &Ctx<'_>,
    held: &Held,
    source: &mut Source<'_>,
    mut what: Outgoing,
    flags: MsgFlags,
) -> SysResult {
    let socket = held.socket()?;
    control::add_sender(ctx, socket, &mut what)?;
    let result = socket.send(source, what, flags, held.nonblocking());
    result.map_err(|e| {
        let e = interrupted(e, send_timeout(socket));
        let signals = !flags.contains(MsgFlags::NOSIGNAL) && socket.style() != DATAGRAMS;
        if e == Errno::EPIPE && signals {
            ctx.thread().raise(Signal::PIPE);
        }
        e
    })
}

/// Datagram sockets raise no `SIGPIPE`.
const DATAGRAMS: u32 = net::socket::SOCK_DGRAM;

/// sendto(2)
pub(crate) fn sys_sendto(
    ctx: &mut Ctx<'_>,
    fd: usize,
    addr: usize,
    len: usize,
    flags: usize,
    name: usize,
    name_len: usize,
) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let mut what = Outgoing::default();
    if name != 0 {
        let to = read_address(name, name_len)?;
        what.to = Some(find_socket_file(ctx, held.socket()?, to)?);
    }
    let flags = MsgFlags::from_bits_retain(flags as u32);
    send(
        ctx,
        &held,
        &mut Source::user(buffer(addr, len)),
        what,
        flags,
    )
}

/// sendmsg(2)
pub(crate) fn sys_sendmsg(ctx: &mut Ctx<'_>, fd: usize, msg: usize, flags: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    send_message(ctx, &held, msg, MsgFlags::from_bits_retain(flags as u32))
}

fn send_message(ctx: &Ctx<'_>, held: &Held, msg: usize, flags: MsgFlags) -> SysResult {
    let header = Header::read(msg)?;
    let socket = held.socket()?;
    let mut what = Outgoing::default();
    if header.name != 0 && header.name_len != 0 {
        let to = read_address(header.name, header.name_len as usize)?;
        what.to = Some(find_socket_file(ctx, socket, to)?);
    }
    let bufs = read_iovec(header.iov, header.iov_len)?;
    control::read(ctx, socket, header.control, header.control_len, &mut what)?;
    send(ctx, held, &mut Source::user_vec(bufs), what, flags)
}

/// sendmmsg(2)
pub(crate) fn sys_sendmmsg(
    ctx: &mut Ctx<'_>,
    fd: usize,
    messages: usize,
    count: usize,
    flags: usize,
) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let flags = MsgFlags::from_bits_retain(flags as u32);
    let mut done = 0;
    for i in 0..(count as u32 as usize).min(MESSAGES_MAX) {
        let at = messages.wrapping_add(i * MMSGHDR);
        let sent = send_message(ctx, &held, at, flags).and_then(|n| {
            user::write_value(at.wrapping_add(MSGHDR), &(n as u32))?;
            Ok(n)
        });
        match sent {
            Ok(_) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        thread::cond_resched();
    }
    Ok(done)
}

fn receive(held: &Held, sink: &mut Sink<'_>, flags: MsgFlags) -> Result<Received, Errno> {
    let socket = held.socket()?;
    socket
        .receive(sink, flags, held.nonblocking())
        .map_err(|e| interrupted(e, receive_timeout(socket)))
}

/// What a receive answers: with `MSG_TRUNC` the message's own length.
fn length(socket: &Socket, r: &Received, flags: MsgFlags) -> usize {
    if flags.contains(MsgFlags::TRUNC) && socket.style() != net::socket::SOCK_STREAM {
        r.full
    } else {
        r.bytes
    }
}

/// recvfrom(2)
pub(crate) fn sys_recvfrom(
    ctx: &mut Ctx<'_>,
    fd: usize,
    addr: usize,
    len: usize,
    flags: usize,
    name: usize,
    name_len: usize,
) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let flags = MsgFlags::from_bits_retain(flags as u32);
    let r = receive(&held, &mut Sink::user(buffer(addr, len)), flags)?;
    let socket = held.socket()?;
    if name != 0 {
        write_address(name, name_len, r.from.as_ref(), socket.is_v6())?;
    }
    Ok(length(socket, &r, flags))
}

/// recvmsg(2)
pub(crate) fn sys_recvmsg(ctx: &mut Ctx<'_>, fd: usize, msg: usize, flags: usize) -> SysResult {
    let held = Held::new(ctx, fd)?;
    receive_message(ctx, &held, msg, MsgFlags::from_bits_retain(flags as u32))
}

fn receive_message(ctx: &Ctx<'_>, held: &Held, msg: usize, flags: MsgFlags) -> SysResult {
    let header = Header::read(msg)?;
    let socket = held.socket()?;
    let bufs = read_iovec(header.iov, header.iov_len)?;
    let mut r = receive(held, &mut Sink::user_vec(bufs), flags)?;
    let mut room = Room::new(header.control, header.control_len);
    let cloexec = flags.contains(MsgFlags::CMSG_CLOEXEC);
    room.fill(ctx, socket, &mut r, cloexec)?;
    let raw = r.from.as_ref().map(|a| a.to_raw(socket.is_v6()));
    let raw = raw.unwrap_or_default();
    if header.name != 0 {
        let n = raw.len().min(header.name_len as usize);
        user::write(header.name, &raw[..n])?;
        let len = u32::try_from(raw.len()).unwrap_or(0);
        user::write_value(msg.wrapping_add(8), &len)?;
    }
    let mut out = flags & MsgFlags::CMSG_CLOEXEC;
    out.set(MsgFlags::TRUNC, r.bytes < r.full);
    out.set(MsgFlags::CTRUNC, room.cut);
    out.set(MsgFlags::EOR, r.record);
    user::write_value(msg.wrapping_add(40), &(room.used() as u64))?;
    user::write_value(msg.wrapping_add(48), &out.bits())?;
    Ok(length(socket, &r, flags))
}

/// recvmmsg(2). The time-out is looked at after each message, as on Linux.
pub(crate) fn sys_recvmmsg(
    ctx: &mut Ctx<'_>,
    fd: usize,
    messages: usize,
    count: usize,
    flags: usize,
    timeout: usize,
) -> SysResult {
    let held = Held::new(ctx, fd)?;
    let mut flags = MsgFlags::from_bits_retain(flags as u32);
    let deadline = match timeout {
        0 => None,
        at => {
            let [s, ns]: [i64; 2] = user::read_value(at)?;
            let (Ok(s), Ok(ns @ 0..1_000_000_000)) = (u64::try_from(s), u32::try_from(ns)) else {
                return Err(Errno::EINVAL);
            };
            Some(Instant::now().after(core::time::Duration::new(s, ns)))
        }
    };
    let mut done = 0;
    for i in 0..(count as u32 as usize).min(MESSAGES_MAX) {
        let at = messages.wrapping_add(i * MMSGHDR);
        let got = receive_message(ctx, &held, at, flags - MsgFlags::WAITFORONE).and_then(|n| {
            user::write_value(at.wrapping_add(MSGHDR), &(n as u32))?;
            Ok(n)
        });
        match got {
            Ok(_) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        if flags.contains(MsgFlags::WAITFORONE) {
            flags |= MsgFlags::DONTWAIT;
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            break;
        }
        thread::cond_resched();
    }
    Ok(done)
}
