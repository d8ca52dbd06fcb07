//! Which ports of a capsule are bound, and by whom (the rules of bind(2)).

use crate::error::{Error, Result};
use crate::keyhash::{self, KeyedMap};
use alloc::sync::Arc;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::sync::SpinLock;
use smallvec::SmallVec;

/// First port given to sockets that did not ask for one (`ip_local_port_range`).
pub const EPHEMERAL_FIRST: u16 = 32768;
/// Last of these.
pub const EPHEMERAL_LAST: u16 = 60999;

/// What a socket wants of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// One address, or all of them.
    pub addr: Option<IpAddr>,
    /// The socket is of `AF_INET6`.
    pub v6: bool,
    /// It refuses IPv4 (`IPV6_V6ONLY`).
    pub v6_only: bool,
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
}

impl Claim {
    /// Whether a packet to `ip` is for this claim, and how well it fits.
    fn fits(&self, ip: IpAddr) -> Option<u8> {
        match self.addr {
            Some(a) => (a == ip).then_some(3),
            None if ip.is_ipv6() => self.v6.then_some(2),
            None if !self.v6 => Some(2),
            None => (!self.v6_only).then_some(1),
        }
    }

    fn overlaps(&self, other: &Claim) -> bool {
        let covers = |wild: &Claim, ip: IpAddr| wild.fits(ip).is_some();
        match (self.addr, other.addr) {
            (Some(a), Some(b)) => a == b,
            (Some(a), None) => covers(other, a),
            (None, Some(b)) => covers(self, b),
            (None, None) => self.v6 == other.v6 || !self.v6_only && !other.v6_only,
        }
    }
}

struct Holder<T> {
    id: u32,
    claim: Claim,
    /// Where packets go: a listener, or a datagram socket. None while a TCP socket
    /// is merely bound.
    target: Option<T>,
}

/// How holders of one protocol share ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// `SO_REUSEADDR` on both sides shares a port as long as nobody listens.
    Stream,
    /// `SO_REUSEADDR` on both sides shares a port.
    Datagram,
}

/// The bound ports of one protocol.
pub struct PortTable<T> {
    sharing: Sharing,
    ports: SpinLock<KeyedMap<u16, SmallVec<[Holder<T>; 1]>>>,
    next_id: AtomicU32,
    next_port: AtomicU32,
}

/// A held port; dropping it gives it back.
pub struct Binding<T: Clone> {
    table: Arc<PortTable<T>>,
    port: u16,
    id: u32,
}

impl<T: Clone> PortTable<T> {
    /// A table with no port held.
    #[must_use]
    pub fn new(sharing: Sharing) -> PortTable<T> {
        PortTable {
            sharing,
            ports: SpinLock::new(keyhash::map()),
            next_id: AtomicU32::new(1),
            next_port: AtomicU32::new(machine::random::next_u64() as u32),
        }
    }

    /// A port of the ephemeral range that nobody holds now. Nothing is reserved.
    #[must_use]
    pub fn ephemeral(&self) -> Option<u16> {
        let ports = self.ports.lock();
        (0..=EPHEMERAL_LAST - EPHEMERAL_FIRST)
            .map(|_| self.candidate())
            .find(|p| !ports.contains_key(p))
    }

    fn candidate(&self) -> u16 {
        let span = u32::from(EPHEMERAL_LAST - EPHEMERAL_FIRST) + 1;
        let n = self.next_port.fetch_add(1, Ordering::Relaxed) % span;
        EPHEMERAL_FIRST + u16::try_from(n).unwrap_or(0)
    }

    /// Holds `port`, or any ephemeral one if it is 0.
    ///
    /// # Errors
    /// [`Error::AddressInUse`]; no memory.
    pub fn bind(
        self: &Arc<Self>,
        claim: Claim,
        port: u16,
        target: Option<T>,
    ) -> Result<Binding<T>> {
        let mut ports = self.ports.lock();
        let port = match port {
            0 => (0..=EPHEMERAL_LAST - EPHEMERAL_FIRST)
                .map(|_| self.candidate())
                .find(|p| !ports.contains_key(p))
                .ok_or(Error::AddressInUse)?,
            p => p,
        };
        let clash = |h: &Holder<T>| {
            let shared = claim.reuse_port && h.claim.reuse_port
                || claim.reuse_addr
                    && h.claim.reuse_addr
                    && (self.sharing == Sharing::Datagram || h.target.is_none());
            claim.overlaps(&h.claim) && !shared
        };
        if ports.get(&port).is_some_and(|l| l.iter().any(clash)) {
            return Err(Error::AddressInUse);
        }
        ports.try_reserve(1)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let holders = ports.entry(port).or_default();
        holders.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        holders.push(Holder { id, claim, target });
        Ok(Binding {
            table: self.clone(),
            port,
            id,
        })
    }

    /// Who gets what comes to `ip` and `port`. Among several that fit equally
    /// well, `flow` (a hash of the sender) chooses.
    #[must_use]
    pub fn find(&self, ip: IpAddr, port: u16, flow: u64) -> Option<T> {
        let ports = self.ports.lock();
        let list = ports.get(&port)?;
        if let [one] = list.as_slice() {
            one.claim.fits(ip)?;
            return one.target.clone();
        }
        let grade = |h: &Holder<T>| h.target.as_ref().and_then(|_| h.claim.fits(ip));
        let best = list.iter().filter_map(grade).max()?;
        let equal = || list.iter().filter(|h| grade(h) == Some(best));
        let n = equal().count().max(1) as u64;
        let pick = usize::try_from(flow % n).unwrap_or(0);
        equal().nth(pick).and_then(|h| h.target.clone())
    }

    /// Calls `f` with the target of every holder that fits: who gets a copy of what
    /// is sent to a group.
    pub fn for_each_fit(&self, ip: IpAddr, port: u16, mut f: impl FnMut(&T)) {
        let ports = self.ports.lock();
        for h in ports.get(&port).into_iter().flatten() {
            if let Some(target) = h.target.as_ref().filter(|_| h.claim.fits(ip).is_some()) {
                f(target);
            }
        }
    }

    /// Calls `f` for every holder: port, address, target.
    pub fn for_each(&self, mut f: impl FnMut(u16, &Claim, Option<&T>)) {
        for (port, list) in self.ports.lock().iter() {
            for h in list {
                f(*port, &h.claim, h.target.as_ref());
            }
        }
    }

    /// Takes all targets out, so that nothing comes in any more.
    pub fn clear(&self) {
        let all = core::mem::replace(&mut *self.ports.lock(), keyhash::map());
        drop(all);
    }
}

impl<T: Clone> Binding<T> {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends what comes in to `target` from now on.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] if somebody else listens here already.
    pub fn set_target(&self, target: Option<T>) -> Result<()> {
        let mut ports = self.table.ports.lock();
        let list = ports.get_mut(&self.port).ok_or(Error::INVALID)?;
        let own = |h: &&Holder<T>| h.id == self.id;
        let mine = list.iter().find(own).ok_or(Error::INVALID)?.claim;
        let rival = |h: &Holder<T>| {
            h.id != self.id
                && h.target.is_some()
                && mine.overlaps(&h.claim)
                && !(mine.reuse_port && h.claim.reuse_port)
        };
        if self.table.sharing == Sharing::Stream && target.is_some() && list.iter().any(rival) {
            return Err(Error::AddressInUse);
        }
        let own = list.iter_mut().find(|h| h.id == self.id);
        let own = own.ok_or(Error::INVALID)?;
        let old = core::mem::replace(&mut own.target, target);
        drop(ports);
        drop(old);
        Ok(())
    }

    /// Changes the address the port is held for (a datagram socket that connects).
    pub fn set_address(&self, addr: Option<IpAddr>) {
        if let Some(list) = self.table.ports.lock().get_mut(&self.port) {
            for h in list.iter_mut().filter(|h| h.id == self.id) {
                h.claim.addr = addr;
            }
        }
    }
}

impl<T: Clone> Drop for Binding<T> {
    fn drop(&mut self) {
        let mut ports = self.table.ports.lock();
        let mut gone = None;
        if let Some(list) = ports.get_mut(&self.port) {
            if let Some(at) = list.iter().position(|h| h.id == self.id) {
                gone = Some(list.swap_remove(at));
            }
            if list.is_empty() {
                ports.remove(&self.port);
            }
        }
        drop(ports);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn claim(addr: Option<IpAddr>) -> Claim {
        Claim {
            addr,
            v6: false,
            v6_only: false,
            reuse_addr: false,
            reuse_port: false,
        }
    }

    fn table(s: Sharing) -> Arc<PortTable<u32>> {
        Arc::new(PortTable::new(s))
    }

    #[test]
    fn a_port_is_held_once_and_given_back() {
        let t = table(Sharing::Stream);
        let a = t.bind(claim(None), 80, Some(1)).unwrap();
        assert_eq!(
            t.bind(claim(Some(Ipv4Addr::LOCALHOST.into())), 80, None)
                .err(),
            Some(Error::AddressInUse)
        );
        drop(a);
        assert!(t.bind(claim(None), 80, None).is_ok());
    }

    #[test]
    fn reuse_port_spreads_and_reuse_addr_waits_for_no_listener() {
        let t = table(Sharing::Stream);
        let both = Claim {
            reuse_port: true,
            ..claim(None)
        };
        let held: std::vec::Vec<_> = (0..4).map(|n| t.bind(both, 80, Some(n)).unwrap()).collect();
        let ip = Ipv4Addr::LOCALHOST.into();
        let seen: std::collections::HashSet<_> =
            (0..64).filter_map(|f| t.find(ip, 80, f)).collect();
        assert_eq!(seen.len(), held.len());
        let soft = Claim {
            reuse_addr: true,
            ..claim(None)
        };
        let a = t.bind(soft, 81, None).unwrap();
        let b = t.bind(soft, 81, None).unwrap();
        a.set_target(Some(1)).unwrap();
        assert_eq!(b.set_target(Some(2)), Err(Error::AddressInUse));
    }

    #[test]
    fn the_closest_claim_wins_and_v6_covers_v4_unless_told() {
        let t = table(Sharing::Datagram);
        let v6 = |only| Claim {
            v6: true,
            v6_only: only,
            ..claim(None)
        };
        let lo: IpAddr = Ipv4Addr::LOCALHOST.into();
        let _dual = t.bind(v6(false), 53, Some(1)).unwrap();
        assert!(t.bind(claim(None), 53, Some(2)).is_err());
        assert_eq!(t.find(lo, 53, 0), Some(1));
        let _only = t.bind(v6(true), 54, Some(3)).unwrap();
        let _v4 = t.bind(claim(Some(lo)), 54, Some(4)).unwrap();
        assert_eq!(t.find(lo, 54, 0), Some(4));
        assert_eq!(t.find("::1".parse().unwrap(), 54, 0), Some(3));
    }
}
