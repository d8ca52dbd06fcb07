//! `ioctl` on sockets (netdevice(7), tcp(7), unix(7)).

use super::{Kind, Socket};
use crate::interfaces::{Interface, interfaces};
use core::net::{IpAddr, Ipv4Addr};
use machine::user;
use vfs::{Error, OpenFile, Result};

const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;
const SIOCOUTQ: u32 = 0x5411;
const SIOCATMARK: u32 = 0x8905;
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
/// Bytes of `struct ifreq`.
const IFREQ: usize = 40;
/// Bytes of an interface's name in it.
const IFNAME: usize = 16;

impl Socket {
    pub(super) fn control(&self, file: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        match command {
            FIONREAD => put_int(arg, self.readable()),
            SIOCOUTQ => put_int(arg, self.unsent()),
            FIONBIO => {
                let mut on = [0; 4];
                user::read(arg, &mut on)?;
                file.set_nonblocking(on != [0; 4]);
                Ok(0)
            }
            SIOCATMARK if matches!(self.kind, Kind::Tcp(_)) => put_int(arg, 0),
            SIOCGIFCONF => self.list_interfaces(arg),
            SIOCGIFNAME => self.interface_name(arg),
            SIOCGIFFLAGS | SIOCGIFADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK | SIOCGIFMETRIC
            | SIOCGIFMTU | SIOCGIFHWADDR | SIOCGIFINDEX | SIOCGIFTXQLEN => {
                self.interface(command, arg)
            }
            // Changing interfaces is not a capsule's business; what is asked for is read
            // first, as on Linux.
            0x8914 | 0x8916 | 0x891a | 0x891c | 0x8922 | 0x8924 => {
                user::read(arg, &mut [0; IFREQ])?;
                Err(Error::NotPermitted)
            }
            _ => Err(Error::NotTerminal),
        }
    }

    /// Bytes that can be read now.
    pub(super) fn readable(&self) -> usize {
        match &self.kind {
            Kind::Tcp(t) => t.link().map_or(0, |l| l.endpoint.incoming().len()),
            Kind::Udp(u) => u.queue().first_len(),
            Kind::Raw(r) => r.queue().first_len(),
            Kind::Packet(p) => p.queue().first_len(),
            Kind::Unix(u) => match (u.stream(), u.packets(), u.inbox()) {
                (Some(e), _, _) => e.incoming().len(),
                (_, Some(e), _) => e.incoming().first_len(),
                (_, _, Some(i)) => i.queue().first_len(),
                _ => 0,
            },
            Kind::Netlink(n) => n.first_len(),
        }
    }

    /// Bytes written that the other side has not taken.
    pub(super) fn unsent(&self) -> usize {
        match &self.kind {
            Kind::Tcp(t) => t.link().map_or(0, |l| {
                let engine = l.conn.as_ref().map_or(0, |c| c.info().unacknowledged);
                l.endpoint.outgoing().len() + engine
            }),
            Kind::Unix(u) => u.stream().map_or(0, |e| e.outgoing().len()),
            Kind::Udp(_) | Kind::Raw(_) | Kind::Packet(_) | Kind::Netlink(_) => 0,
        }
    }

    /// `struct ifconf`: a length and the address of an array of `struct ifreq`.
    fn list_interfaces(&self, arg: usize) -> Result<usize> {
        let mut conf = [0; 16];
        user::read(arg, &mut conf)?;
        let [l0, l1, l2, l3, _, _, _, _, buffer @ ..] = conf;
        let room = usize::try_from(i32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(0);
        let buffer = usize::from_ne_bytes(buffer);
        let mut done = 0;
        for i in interfaces(&self.stack) {
            let Some(IpAddr::V4(ip)) = i.v4.map(|n| IpAddr::V4(n.0)) else {
                continue;
            };
            if buffer != 0 {
                if done + IFREQ > room {
                    break;
                }
                let mut req = [0; IFREQ];
                put_name(&mut req, i.name);
                put_address(&mut req, ip);
                let at = buffer.checked_add(done).ok_or(Error::BadAddress)?;
                user::write(at, &req)?;
            }
            done += IFREQ;
        }
        put_int(arg, done)
    }

    fn interface_name(&self, arg: usize) -> Result<usize> {
        let mut req = [0; IFREQ];
        user::read(arg, &mut req)?;
        let index = u32::from_ne_bytes([req[16], req[17], req[18], req[19]]);
        let all = interfaces(&self.stack);
        let found = all.iter().find(|i| i.index == index);
        put_name(&mut req, found.ok_or(Error::NotSuchDevice)?.name);
        user::write(arg, &req)?;
        Ok(0)
    }

    fn interface(&self, command: u32, arg: usize) -> Result<usize> {
        let mut req = [0; IFREQ];
        user::read(arg, &mut req)?;
        let name = req[..IFNAME].split(|b| *b == 0).next();
        let all = interfaces(&self.stack);
        let found = all.iter().find(|i| Some(i.name.as_bytes()) == name);
        let i = found.ok_or(Error::NotSuchDevice)?;
        req[IFNAME..].fill(0);
        answer(&mut req, command, i)?;
        user::write(arg, &req)?;
        Ok(0)
    }
}

fn answer(req: &mut [u8; IFREQ], command: u32, i: &Interface) -> Result<()> {
    let address = |what: fn((Ipv4Addr, u8)) -> Ipv4Addr| {
        i.v4.map(what)
            .ok_or(Error::Foreign(crate::error::ADDRESS_NOT_AVAILABLE))
    };
    let mut int = |n: u32| req[IFNAME..IFNAME + 4].copy_from_slice(&n.to_ne_bytes());
    match command {
        // `ifr_flags` is a short.
        SIOCGIFFLAGS => int(i.flags & 0xffff),
        SIOCGIFMTU => int(u32::try_from(i.mtu).unwrap_or(u32::MAX)),
        SIOCGIFINDEX => int(i.index),
        SIOCGIFMETRIC => int(0),
        SIOCGIFTXQLEN => int(1000),
        SIOCGIFADDR => put_address(req, address(|(ip, _)| ip)?),
        SIOCGIFNETMASK => put_address(req, address(|(_, p)| mask(p))?),
        SIOCGIFBRDADDR => put_address(req, address(|(ip, p)| ip | !mask(p))?),
        SIOCGIFHWADDR => {
            req[IFNAME..IFNAME + 2].copy_from_slice(&i.hardware.to_ne_bytes());
            req[IFNAME + 2..IFNAME + 8].copy_from_slice(&i.mac);
        }
        _ => return Err(Error::NotTerminal),
    }
    Ok(())
}

fn mask(prefix: u8) -> Ipv4Addr {
    let host = 32 - u32::from(prefix.min(32));
    u32::MAX.checked_shl(host).unwrap_or(0).into()
}

fn put_name(req: &mut [u8; IFREQ], name: &str) {
    req[..IFNAME].fill(0);
    for (to, from) in req[..IFNAME - 1].iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
}

fn put_address(req: &mut [u8; IFREQ], ip: Ipv4Addr) {
    req[IFNAME..IFNAME + 2].copy_from_slice(&crate::addr::AF_INET.to_ne_bytes());
    req[IFNAME + 4..IFNAME + 8].copy_from_slice(&ip.octets());
}

fn put_int(at: usize, n: usize) -> Result<usize> {
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    user::write(at, &n.to_ne_bytes())?;
    Ok(0)
}
