//! `getsockopt` and `setsockopt` (socket(7), ip(7), ipv6(7), tcp(7)).

use super::{Kind, Socket};
use crate::addr::{AF_INET6, AF_UNIX};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::options::{BUFFER_MAX, BUFFER_MIN, Options, Switch};
use crate::packet::Packet;
use crate::raw::{self, Raw};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SOL_UDP: i32 = 17;
const SOL_IPV6: i32 = 41;
const SOL_ICMPV6: i32 = 58;
const SOL_RAW: i32 = 255;
const SOL_PACKET: i32 = 263;
const SOL_NETLINK: i32 = 270;

/// Where the kernel writes a checksum, at two levels.
const IPV6_CHECKSUM: i32 = 7;

/// How an option's value is kept.
enum Value<'a> {
    Switch(Switch),
    Number(&'a AtomicU32, core::ops::RangeInclusive<i32>),
}

impl Socket {
    /// The options that are a switch or a number, by level and name.
    fn simple(&self, level: i32, name: i32) -> Option<Value<'_>> {
        use Value::{Number, Switch as Sw};
        let o = &*self.options;
        let tcp = matches!(self.kind, Kind::Tcp(_));
        let udp = matches!(self.kind, Kind::Udp(_));
        let v6 = self.family == AF_INET6;
        let byte = 0..=255;
        Some(match (level, name) {
            (SOL_SOCKET, 2) => Sw(Switch::ReuseAddr),
            (SOL_SOCKET, 5) => Sw(Switch::DontRoute),
            (SOL_SOCKET, 6) => Sw(Switch::Broadcast),
            (SOL_SOCKET, 9) => Sw(Switch::KeepAlive),
            (SOL_SOCKET, 10) => Sw(Switch::OobInline),
            (SOL_SOCKET, 15) => Sw(Switch::ReusePort),
            (SOL_SOCKET, 16) if self.family == AF_UNIX => Sw(Switch::PassCred),
            (SOL_SOCKET, 29) => Sw(Switch::Timestamp),
            (SOL_SOCKET, 35) => Sw(Switch::TimestampNs),
            (SOL_SOCKET, 12) => Number(&o.priority, 0..=6),
            (SOL_SOCKET, 18) => Number(&o.receive_low, 0..=i32::MAX),
            (SOL_TCP, 1) if tcp => Sw(Switch::NoDelay),
            (SOL_TCP, 3) if tcp => Sw(Switch::Cork),
            (SOL_TCP, 12) if tcp => Sw(Switch::QuickAck),
            (SOL_TCP, 4) if tcp => Number(&o.keep_idle, 1..=32767),
            (SOL_TCP, 5) if tcp => Number(&o.keep_interval, 1..=32767),
            (SOL_TCP, 6) if tcp => Number(&o.keep_count, 1..=127),
            (SOL_TCP, 7) if tcp => Number(&o.syn_count, 1..=127),
            (SOL_TCP, 9) if tcp => Number(&o.defer_accept, 0..=i32::MAX),
            (SOL_TCP, 18) if tcp => Number(&o.user_timeout, 0..=i32::MAX),
            (SOL_TCP, 25) if tcp => Number(&o.unsent_low, 0..=i32::MAX),
            // UDP_SEGMENT. Without UDP_GRO (104), which would put together what came in:
            // programs ask for each, as Linux 4.18 had the one only.
            (SOL_UDP, 103) if udp => Number(&o.segment, 0..=0xffff),
            (SOL_IP, 1) => Number(&o.tos, byte),
            (SOL_IP, 2) => Number(&o.ttl, 1..=255),
            (SOL_IP, 3) if matches!(&self.kind, Kind::Raw(r) if !r.is_ping()) => {
                Sw(Switch::HeaderIncluded)
            }
            (SOL_IP, 6 | 7) => Sw(Switch::ReceiveOptions),
            (SOL_IP, 8) => Sw(Switch::PacketInfo),
            (SOL_IP, 10) => Number(&o.mtu_discover, 0..=5),
            (SOL_IP, 11) => Sw(Switch::ReceiveErrors),
            (SOL_IP, 12) => Sw(Switch::ReceiveTtl),
            (SOL_IP, 13) => Sw(Switch::ReceiveTos),
            (SOL_IP, 15) => Sw(Switch::FreeBind),
            (SOL_IP, 24) => Sw(Switch::BindNoPort),
            (SOL_IP, 33) => Number(&o.multicast_ttl, byte),
            (SOL_IP, 34) => Sw(Switch::MulticastLoop),
            (SOL_IP, 49) => Sw(Switch::MulticastAll),
            (SOL_IPV6, 16) if v6 => Number(&o.ttl, 1..=255),
            (SOL_IPV6, 18) if v6 => Number(&o.multicast_ttl, byte),
            (SOL_IPV6, 19) if v6 => Sw(Switch::MulticastLoop),
            (SOL_IPV6, 23) if v6 => Number(&o.mtu_discover6, 0..=5),
            (SOL_IPV6, 25) if v6 => Sw(Switch::ReceiveErrors),
            (SOL_IPV6, 29) if v6 => Sw(Switch::MulticastAll),
            (SOL_IPV6, 26) if v6 => Sw(Switch::V6Only),
            (SOL_IPV6, 49) if v6 => Sw(Switch::PacketInfo6),
            (SOL_IPV6, 51) if v6 => Sw(Switch::ReceiveHopLimit),
            (SOL_IPV6, 62) if v6 => Sw(Switch::DontFragment),
            (SOL_IPV6, 66) if v6 => Sw(Switch::ReceiveClass),
            (SOL_IPV6, 67) if v6 => Number(&o.tos, byte),
            _ => return None,
        })
    }

    /// Sets an option to the bytes of `value`.
    ///
    /// # Errors
    /// [`Error::NoOption`], [`Error::INVALID`].
    pub fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.check_level(level)?;
        if let Some(kept) = self.simple(level, name) {
            // IP_TTL and its like also come as one byte.
            let n = match (int(value), value.first()) {
                (Ok(n), _) => n,
                (Err(_), Some(b)) if level == SOL_IP => i32::from(*b),
                (Err(e), _) => return Err(e),
            };
            match kept {
                Value::Switch(s) => self.switch(s, n != 0)?,
                Value::Number(cell, range) => self.set_number(level, cell, &range, n)?,
            }
            self.configure();
            return Ok(());
        }
        if let Kind::Raw(r) = &self.kind
            && let Some(done) = set_raw_option(r, level, name, value)
        {
            return done;
        }
        if let Kind::Packet(p) = &self.kind
            && let Some(done) = set_packet_option(p, level, name, value)
        {
            return done;
        }
        if let Some(done) = self.set_group_option(level, name, value) {
            return done;
        }
        match (level, name) {
            (SOL_SOCKET, 7 | 32) => self.set_buffer(false, int(value)?),
            (SOL_SOCKET, 8 | 33) => self.set_buffer(true, int(value)?),
            (SOL_SOCKET, 13) => {
                let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or(&[]))?);
                let linger = if on == 0 { -1 } else { seconds.max(0) };
                self.options.linger.store(linger, Relaxed);
                Ok(())
            }
            (SOL_SOCKET, 20 | 66) => set_timeout(&self.options.receive_timeout, value),
            (SOL_SOCKET, 21 | 67) => set_timeout(&self.options.send_timeout, value),
            (SOL_TCP, 8) if matches!(self.kind, Kind::Tcp(_)) => {
                self.options.linger2.store(int(value)?, Relaxed);
                Ok(())
            }
            (SOL_TCP, 13) if matches!(self.kind, Kind::Tcp(_)) => match value {
                b"reno" | b"reno\0" => Ok(()),
                _ => Err(Error::File(vfs::Error::NotFound)),
            },
            // What Linux lets only the administrator do.
            (SOL_SOCKET, 25 | 36) => Err(Error::NOT_PERMITTED),
            _ => Err(Error::NoOption),
        }
    }

    /// Attaches a filter (`SO_ATTACH_FILTER`), whose instructions these are.
    ///
    /// # Errors
    /// [`Error::NoOption`] for all but packet sockets, [`Error::INVALID`].
    pub fn attach_filter(&self, program: &[u8]) -> Result<()> {
        let Kind::Packet(p) = &self.kind else {
            return Err(Error::NoOption);
        };
        p.set_filter(Some(Filter::new(program)?));
        Ok(())
    }

    fn set_number(
        &self,
        level: i32,
        cell: &AtomicU32,
        range: &core::ops::RangeInclusive<i32>,
        n: i32,
    ) -> Result<()> {
        // -1 asks for the default of a time to live.
        let n = match n {
            -1 if core::ptr::eq(cell, &raw const self.options.ttl) => 64,
            -1 if core::ptr::eq(cell, &raw const self.options.tos) && level == SOL_IPV6 => 0,
            -1 if core::ptr::eq(cell, &raw const self.options.multicast_ttl) => 1,
            n => n,
        };
        if !range.contains(&n) {
            return Err(Error::INVALID);
        }
        cell.store(n.unsigned_abs(), Relaxed);
        Ok(())
    }

    fn switch(&self, s: Switch, on: bool) -> Result<()> {
        if s == Switch::V6Only {
            let bound = matches!(self.local(), crate::addr::Address::Inet(a) if a.port() != 0);
            if bound {
                return Err(Error::INVALID);
            }
        }
        self.options.switch(s, on);
        Ok(())
    }

    /// Linux doubles what is asked for, and tells the doubled value.
    fn set_buffer(&self, receive: bool, n: i32) -> Result<()> {
        let asked = usize::try_from(n).unwrap_or(0);
        let bytes = asked.saturating_mul(2).clamp(BUFFER_MIN, BUFFER_MAX);
        let (cell, r, s) = if receive {
            (&self.options.receive_buffer, Some(bytes), None)
        } else {
            (&self.options.send_buffer, None, Some(bytes))
        };
        cell.store(bytes, Relaxed);
        match &self.kind {
            Kind::Udp(u) if receive => u.queue().set_capacity(bytes),
            Kind::Raw(r) if receive => r.queue().set_capacity(bytes),
            Kind::Packet(p) if receive => p.queue().set_capacity(bytes),
            Kind::Unix(u) => u.set_buffers(r, s),
            _ => self.configure(),
        }
        Ok(())
    }

    fn configure(&self) {
        if let Kind::Tcp(t) = &self.kind {
            t.configure(&self.options);
        }
    }

    fn check_level(&self, level: i32) -> Result<()> {
        match (level, &self.kind) {
            (SOL_SOCKET, _) => Ok(()),
            (SOL_TCP | SOL_UDP | SOL_IP, Kind::Tcp(_) | Kind::Udp(_)) => Ok(()),
            (SOL_IP, Kind::Raw(_)) if !self.is_v6() => Ok(()),
            (SOL_RAW | SOL_ICMPV6, Kind::Raw(_)) => Ok(()),
            (SOL_IPV6, Kind::Tcp(_) | Kind::Udp(_) | Kind::Raw(_)) if self.is_v6() => Ok(()),
            (SOL_NETLINK, Kind::Netlink(_)) => Ok(()),
            (SOL_PACKET, Kind::Packet(_)) => Ok(()),
            (_, Kind::Unix(_) | Kind::Netlink(_)) => Err(Error::NotSupported),
            _ => Err(Error::NoOption),
        }
    }

    /// The value of an option.
    ///
    /// # Errors
    /// [`Error::NoOption`]; [`Error::NotConnected`] for the peer's identity.
    pub fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        // Unlike setting, which knows no such option, and unlike IPv6.
        let no_level = matches!(self.check_level(level), Err(Error::NoOption));
        let foreign = matches!(
            (level, &self.kind),
            (SOL_UDP, Kind::Tcp(_)) | (SOL_TCP, Kind::Udp(_))
        );
        if (no_level || foreign) && !self.is_v6() {
            return Err(Error::NotSupported);
        }
        self.check_level(level)?;
        let number = |n: u32| Ok(n.to_ne_bytes().to_vec());
        match self.simple(level, name) {
            Some(Value::Switch(s)) => return number(u32::from(self.options.on(s))),
            Some(Value::Number(cell, _)) => return number(cell.load(Relaxed)),
            None => {}
        }
        if let Kind::Raw(r) = &self.kind
            && let Some(value) = raw_option(r, level, name)
        {
            return Ok(value);
        }
        if let (Kind::Packet(p), SOL_PACKET, 6) = (&self.kind, level, name) {
            return Ok(p.statistics().map(u32::to_ne_bytes).concat());
        }
        if let Some(value) = self.group_option(level, name) {
            return Ok(value);
        }
        let size = |n: usize| number(u32::try_from(n).unwrap_or(u32::MAX));
        match (level, name) {
            (SOL_SOCKET, 3) => number(self.style),
            (SOL_SOCKET, 4) => number(u32::from(self.take_error())),
            (SOL_SOCKET, 7) => size(self.options.sndbuf()),
            (SOL_SOCKET, 8) => size(self.options.rcvbuf()),
            (SOL_SOCKET, 13) => {
                let linger = self.options.linger.load(Relaxed);
                let mut v = i32::from(linger >= 0).to_ne_bytes().to_vec();
                v.extend_from_slice(&linger.max(0).to_ne_bytes());
                Ok(v)
            }
            (SOL_SOCKET, 17) => self.peer_credentials(),
            (SOL_SOCKET, 19) => number(1),
            (SOL_SOCKET, 20 | 66) => Ok(timeout(&self.options.receive_timeout)),
            (SOL_SOCKET, 21 | 67) => Ok(timeout(&self.options.send_timeout)),
            (SOL_SOCKET, 30) => number(u32::from(self.is_listening())),
            (SOL_SOCKET, 36) => number(self.options.mark.load(Relaxed)),
            (SOL_SOCKET, 38) => number(self.protocol),
            (SOL_SOCKET, 39) => number(u32::from(self.family)),
            (SOL_SOCKET, 57) => Ok(self.number.to_ne_bytes().to_vec()),
            (SOL_TCP, 2) if matches!(self.kind, Kind::Tcp(_)) => {
                size(self.stack.node().mtu().saturating_sub(40))
            }
            (SOL_TCP, 8) => Ok(self.options.linger2.load(Relaxed).to_ne_bytes().to_vec()),
            (SOL_TCP, 11) => self.tcp_info(),
            (SOL_TCP, 13) if matches!(self.kind, Kind::Tcp(_)) => Ok(b"reno\0".to_vec()),
            (SOL_IP, 14) | (SOL_IPV6, 24) => size(self.stack.node().mtu()),
            _ => Err(Error::NoOption),
        }
    }

    fn is_listening(&self) -> bool {
        match &self.kind {
            Kind::Tcp(t) => t.is_listening(),
            Kind::Unix(u) => u.is_listening(),
            _ => false,
        }
    }

    /// Takes the pending error.
    fn take_error(&self) -> u16 {
        match &self.kind {
            Kind::Tcp(t) => t.take_error(),
            Kind::Udp(u) => u.take_error(),
            Kind::Raw(r) => r.take_error(),
            Kind::Unix(u) => u.take_error(),
            Kind::Packet(_) | Kind::Netlink(_) => 0,
        }
    }

    /// `struct ucred`.
    fn peer_credentials(&self) -> Result<Vec<u8>> {
        let Kind::Unix(u) = &self.kind else {
            return Err(Error::NoOption);
        };
        let (pid, uid, gid) = match u.peer_identity() {
            Some(i) => (i.pid, i.uid, i.gid),
            // What Linux tells of a socket without a peer.
            None => (0, u32::MAX, u32::MAX),
        };
        let mut v = pid.to_ne_bytes().to_vec();
        v.extend_from_slice(&uid.to_ne_bytes());
        v.extend_from_slice(&gid.to_ne_bytes());
        Ok(v)
    }
}

/// Options that only raw sockets have (raw(7), ipv6(7)); `None` for others.
fn set_raw_option(r: &Raw, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
    match (level, name, r.protocol()) {
        // ICMP_FILTER and ICMP6_FILTER.
        (SOL_RAW, 1, raw::ICMP) | (SOL_ICMPV6, 1, raw::ICMPV6) if !r.is_ping() => {
            let mut unwanted = r.unwanted();
            let words = value.chunks_exact(4).filter_map(|b| b.try_into().ok());
            for (word, bytes) in unwanted.iter_mut().zip(words) {
                *word = u32::from_ne_bytes(bytes);
            }
            r.set_unwanted(unwanted);
            Some(Ok(()))
        }
        (SOL_RAW | SOL_IPV6, IPV6_CHECKSUM, protocol) => Some(int(value).and_then(|at| {
            // That of ICMPv6 is where it is.
            if protocol == raw::ICMPV6 && (level == SOL_IPV6 || at != 2) || at > 0 && at % 2 != 0 {
                return Err(Error::INVALID);
            }
            r.checksum_at().store(at.max(-1), Relaxed);
            Ok(())
        })),
        _ => None,
    }
}

/// Options that only packet sockets have (packet(7)); `None` for others.
fn set_packet_option(p: &Packet, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
    match (level, name) {
        // Membership: the device gives what it hears as it is.
        (SOL_PACKET, 1 | 2) => {
            let kind = value.get(4..6).and_then(|b| b.try_into().ok());
            Some(match kind.map(u16::from_ne_bytes) {
                Some(0..=3) if value.len() >= 16 => Ok(()),
                _ => Err(Error::INVALID),
            })
        }
        // SO_DETACH_FILTER.
        (SOL_SOCKET, 27) => {
            p.set_filter(None);
            Some(Ok(()))
        }
        _ => None,
    }
}

fn raw_option(r: &Raw, level: i32, name: i32) -> Option<Vec<u8>> {
    let words = |n: usize| {
        r.unwanted()
            .iter()
            .take(n)
            .flat_map(|w| w.to_ne_bytes())
            .collect()
    };
    match (level, name, r.protocol()) {
        (SOL_RAW, 1, raw::ICMP) if !r.is_ping() => Some(words(1)),
        (SOL_ICMPV6, 1, raw::ICMPV6) if !r.is_ping() => Some(words(8)),
        (SOL_RAW | SOL_IPV6, IPV6_CHECKSUM, _) => {
            Some(r.checksum_at().load(Relaxed).to_ne_bytes().to_vec())
        }
        _ => None,
    }
}

fn int(value: &[u8]) -> Result<i32> {
    let bytes = value.get(..4).and_then(|b| b.try_into().ok());
    bytes.map(i32::from_ne_bytes).ok_or(Error::INVALID)
}

/// `struct timeval`, of 64-bit numbers on x86-64.
fn set_timeout(cell: &AtomicU64, value: &[u8]) -> Result<()> {
    let word = |at: usize| {
        let bytes = value.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map(i64::from_ne_bytes).ok_or(Error::INVALID)
    };
    let (seconds, micros) = (word(0)?, word(8)?);
    if !(0..1_000_000).contains(&micros) {
        return Err(Error::File(vfs::Error::Foreign(crate::error::DOMAIN)));
    }
    let ns = u64::try_from(seconds)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(micros.unsigned_abs() * 1000);
    cell.store(ns, Relaxed);
    Ok(())
}

fn timeout(cell: &AtomicU64) -> Vec<u8> {
    let ns = Options::timeout(cell).unwrap_or_default();
    let mut v = ns.as_secs().to_ne_bytes().to_vec();
    v.extend_from_slice(&u64::from(ns.subsec_micros()).to_ne_bytes());
    v
}
