//! Control data of `sendmsg` and `recvmsg` (cmsg(3)).

use super::identity;
use crate::ctx::Ctx;
use crate::errno::Errno;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use machine::user;
use net::addr::{AF_INET, AF_INET6};
use net::ancillary::FILES_MAX;
use net::options::Switch;
use net::{Identity, Outgoing, Received, Socket};
use smallvec::SmallVec;
use vfs::{Caps, OpenFile};

/// Most bytes of control data in one send (`net.core.optmem_max` of old).
const CONTROL_MAX: usize = 20 << 10;
/// Bytes of `struct cmsghdr`.
const HEADER: usize = 16;
const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_UDP: i32 = 17;
const SOL_IPV6: i32 = 41;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const SO_TIMESTAMP: i32 = 29;
const SO_TIMESTAMPNS: i32 = 35;
const IP_TOS: i32 = 1;
const IP_TTL: i32 = 2;
const IP_PKTINFO: i32 = 8;
const UDP_SEGMENT: i32 = 103;
const IPV6_PKTINFO: i32 = 50;
const IPV6_HOPLIMIT: i32 = 52;
const IPV6_TCLASS: i32 = 67;
/// The link's number as `if_nametoindex` tells it; loopback is 1.
const LINK_INDEX: u32 = 2;

/// Reads the control data of a send into `out`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EBADF`, `EPERM`, `ENOBUFS`, `ETOOMANYREFS`.
pub(super) fn read(
    ctx: &Ctx<'_>,
    socket: &Socket,
    addr: usize,
    len: usize,
    out: &mut Outgoing,
) -> Result<(), Errno> {
    if addr == 0 || len == 0 {
        return Ok(());
    }
    if len > CONTROL_MAX {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    user::read(addr, &mut bytes)?;
    let mut rest = &bytes[..];
    while let Some((header, _)) = rest.split_at_checked(HEADER) {
        let word = |at: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let size = u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| header[i]));
        let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
        if size < HEADER || size > rest.len() {
            return Err(Errno::EINVAL);
        }
        one(ctx, socket, word(8), word(12), &rest[HEADER..size], out)?;
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(())
}

fn one(
    ctx: &Ctx<'_>,
    socket: &Socket,
    level: i32,
    kind: i32,
    data: &[u8],
    out: &mut Outgoing,
) -> Result<(), Errno> {
    let unix = socket.family() == net::addr::AF_UNIX;
    let internet = matches!(socket.family(), AF_INET | AF_INET6);
    if internet && !is_own(socket, level) {
        return Ok(());
    }
    match (level, kind) {
        (SOL_SOCKET, SCM_RIGHTS) if unix => {
            if data.len() / 4 + out.files.len() > FILES_MAX {
                return Err(Errno::EINVAL);
            }
            for fd in data.chunks_exact(4) {
                let fd = i32::from_ne_bytes([fd[0], fd[1], fd[2], fd[3]]);
                out.files.push(ctx.file(fd as usize)?);
            }
            Ok(())
        }
        (SOL_SOCKET, SCM_CREDENTIALS) if unix => {
            let word = |at: usize| {
                let b = data.get(at..at + 4).and_then(|b| b.try_into().ok());
                b.map(u32::from_ne_bytes).ok_or(Errno::EINVAL)
            };
            let claimed = Identity {
                pid: word(0)?,
                uid: word(4)?,
                gid: word(8)?,
            };
            check_claim(ctx, claimed)?;
            out.sender = Some(claimed);
            Ok(())
        }
        // Nothing to them, and no error (`__sock_cmsg_send`).
        (SOL_SOCKET, SCM_RIGHTS | SCM_CREDENTIALS) if internet => Ok(()),
        // Which of our addresses a datagram comes from: there is one per family.
        (SOL_IP, IP_PKTINFO) | (SOL_IPV6, IPV6_PKTINFO) if !unix => Ok(()),
        (SOL_IP, IP_TTL) if !unix => {
            out.header.hops = Some(field(data, 1)?);
            Ok(())
        }
        // One byte, or a number (ip(7)).
        (SOL_IP, IP_TOS) if !unix => {
            let class = match data {
                [class] => *class,
                _ => field(data, 0)?,
            };
            out.header.class = Some(class);
            Ok(())
        }
        (SOL_IPV6, IPV6_HOPLIMIT) if !unix => {
            out.header.hops = field_or_usual(data)?;
            Ok(())
        }
        (SOL_IPV6, IPV6_TCLASS) if !unix => {
            out.header.class = field_or_usual(data)?;
            Ok(())
        }
        // How long the datagrams are that the message is cut into (udp(7)).
        (SOL_UDP, UDP_SEGMENT) => {
            let size = data.try_into().map_err(|_| Errno::EINVAL)?;
            out.header.segment = Some(u16::from_ne_bytes(size));
            Ok(())
        }
        // Of these it only reads what it knows.
        (SOL_IP, _) if socket.is_v6() => Ok(()),
        _ if level != SOL_SOCKET && unix => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether an internet socket looks at control data of `level`: Linux passes over those
/// of other protocols, and over all but the socket's own on streams (`tcp_sendmsg`,
/// `udp_cmsg_send`, `ip_cmsg_send`, `ip6_datagram_send_ctl`).
fn is_own(socket: &Socket, level: i32) -> bool {
    match level {
        SOL_SOCKET => true,
        SOL_UDP => socket.is_udp(),
        SOL_IP => !socket.is_tcp(),
        SOL_IPV6 => socket.is_v6() && !socket.is_tcp(),
        _ => false,
    }
}

/// The number of `data`, from `least` to 255.
fn field(data: &[u8], least: u8) -> Result<u8, Errno> {
    let number = <[u8; 4]>::try_from(data).map(i32::from_ne_bytes);
    let field = number.ok().and_then(|number| u8::try_from(number).ok());
    field.filter(|field| *field >= least).ok_or(Errno::EINVAL)
}

/// As [`field`]; -1 asks for what is usual (RFC 3542, 6.3 and 6.5).
fn field_or_usual(data: &[u8]) -> Result<Option<u8>, Errno> {
    match data == (-1i32).to_ne_bytes() {
        true => Ok(None),
        false => field(data, 0).map(Some),
    }
}

/// A program may claim ids it has; root may claim any (unix(7)).
fn check_claim(ctx: &Ctx<'_>, claimed: Identity) -> Result<(), Errno> {
    let cred = ctx.cred()?;
    let pid = claimed.pid == ctx.process().pid() || cred.has(Caps::SYS_ADMIN);
    let uid = [cred.uid, cred.euid, cred.suid].contains(&claimed.uid) || cred.has(Caps::SETUID);
    let gid = [cred.gid, cred.egid, cred.sgid].contains(&claimed.gid) || cred.has(Caps::SETGID);
    if pid && uid && gid {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Sends of a socket that others want to know the sender of carry it.
pub(super) fn add_sender(ctx: &Ctx<'_>, socket: &Socket, out: &mut Outgoing) -> Result<(), Errno> {
    let unix = socket.family() == net::addr::AF_UNIX;
    if unix && out.sender.is_none() && socket.options().on(Switch::PassCred) {
        out.sender = Some(identity(ctx)?);
    }
    Ok(())
}

/// The program's room for control data of a receive.
pub(super) struct Room {
    addr: usize,
    len: usize,
    used: usize,
    /// Something did not fit (`MSG_CTRUNC`).
    pub(super) cut: bool,
}

impl Room {
    pub(super) fn new(addr: usize, len: usize) -> Room {
        let len = if addr == 0 { 0 } else { len };
        Room {
            addr,
            len,
            used: 0,
            cut: false,
        }
    }

    /// Bytes of control data written.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn left(&self) -> usize {
        self.len.saturating_sub(self.used)
    }

    fn put(&mut self, level: i32, kind: i32, data: &[u8]) -> Result<(), Errno> {
        let size = HEADER + data.len();
        if size > self.left() {
            self.cut = true;
            return Ok(());
        }
        let mut message: SmallVec<[u8; 64]> = SmallVec::new();
        message.extend_from_slice(&(size as u64).to_ne_bytes());
        message.extend_from_slice(&level.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(data);
        let at = self.addr.checked_add(self.used).ok_or(Errno::EFAULT)?;
        user::write(at, &message)?;
        self.used += size.next_multiple_of(8).min(self.left());
        Ok(())
    }

    /// Writes what came with a message; its files become descriptors.
    ///
    /// # Errors
    /// `EFAULT`.
    pub(super) fn fill(
        &mut self,
        ctx: &Ctx<'_>,
        socket: &Socket,
        received: &mut Received,
        cloexec: bool,
    ) -> Result<(), Errno> {
        if let Some(who) = received.sender {
            let ids = [who.pid, who.uid, who.gid].map(u32::to_ne_bytes).concat();
            self.put(SOL_SOCKET, SCM_CREDENTIALS, &ids)?;
        }
        let files = core::mem::take(&mut received.files);
        if !files.is_empty() {
            self.files(ctx, &files, cloexec)?;
        }
        if let Some(time) = received.time {
            self.arrival(socket, time)?;
        }
        match received.packet {
            Some((to, ttl, tos)) => self.packet(socket, to, ttl, tos),
            None => Ok(()),
        }
    }

    /// When the message arrived: microseconds or nanoseconds behind the second.
    fn arrival(&mut self, socket: &Socket, time: i64) -> Result<(), Errno> {
        let (kind, unit) = match socket.options().on(Switch::TimestampNs) {
            true => (SO_TIMESTAMPNS, 1),
            false => (SO_TIMESTAMP, 1000),
        };
        let seconds = time.div_euclid(1_000_000_000);
        let part = time.rem_euclid(1_000_000_000) / unit;
        let words = [seconds, part].map(i64::to_ne_bytes).concat();
        self.put(SOL_SOCKET, kind, &words)
    }

    /// As many files as there is room for; the others are closed.
    fn files(
        &mut self,
        ctx: &Ctx<'_>,
        files: &[Arc<OpenFile>],
        cloexec: bool,
    ) -> Result<(), Errno> {
        let table = ctx.files()?;
        let room = self.left().saturating_sub(HEADER) / 4;
        let mut numbers: SmallVec<[u8; 32]> = SmallVec::new();
        let mut installed: SmallVec<[i32; 8]> = SmallVec::new();
        for file in files.iter().take(room) {
            match table.insert(file.clone(), cloexec, 0, ctx.files_limit()) {
                Ok(fd) => {
                    numbers.extend_from_slice(&fd.to_ne_bytes());
                    installed.push(fd);
                }
                Err(_) => break,
            }
        }
        self.cut |= installed.len() < files.len();
        if installed.is_empty() {
            return Ok(());
        }
        self.put(SOL_SOCKET, SCM_RIGHTS, &numbers).inspect_err(|_| {
            for fd in &installed {
                drop(table.remove(*fd));
            }
        })
    }

    fn packet(&mut self, socket: &Socket, to: IpAddr, ttl: u8, tos: u8) -> Result<(), Errno> {
        let options = socket.options();
        let index = if to.is_loopback() { 1 } else { LINK_INDEX };
        match to {
            IpAddr::V4(ip) => {
                if options.on(Switch::PacketInfo) {
                    // The second is what an answer would come from.
                    let own = match ip.is_multicast() {
                        true => socket.stack().node().ipv4().unwrap_or(ip),
                        false => ip,
                    };
                    let info = [index.to_ne_bytes(), own.octets(), ip.octets()].concat();
                    self.put(SOL_IP, IP_PKTINFO, &info)?;
                }
                if options.on(Switch::ReceiveTtl) {
                    self.put(SOL_IP, IP_TTL, &u32::from(ttl).to_ne_bytes())?;
                }
                if options.on(Switch::ReceiveTos) {
                    self.put(SOL_IP, IP_TOS, &[tos])?;
                }
            }
            IpAddr::V6(_) => {}
        }
        if socket.is_v6() && options.on(Switch::PacketInfo6) {
            let ip = match to {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let info = [&ip.octets()[..], &index.to_ne_bytes()].concat();
            self.put(SOL_IPV6, IPV6_PKTINFO, &info)?;
        }
        if socket.is_v6() && options.on(Switch::ReceiveHopLimit) {
            self.put(SOL_IPV6, IPV6_HOPLIMIT, &u32::from(ttl).to_ne_bytes())?;
        }
        if socket.is_v6() && options.on(Switch::ReceiveClass) {
            self.put(SOL_IPV6, IPV6_TCLASS, &u32::from(tos).to_ne_bytes())?;
        }
        Ok(())
    }
}
