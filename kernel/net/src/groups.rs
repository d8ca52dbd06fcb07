//! Multicast groups: which a socket is a member of, and which its capsule is.
//!
//! As on Linux, membership belongs to a group *on a link*: a capsule hears what is
//! sent to a group that any of its sockets has joined there, and each socket of the
//! right port takes it unless its own membership or `IP_MULTICAST_ALL` says
//! otherwise (`ip_mc_sf_allow`). On the link the node is a member of what any capsule
//! has joined ([`crate::node`] keeps that list); membership on loopback stays inside
//! the capsule.

use crate::error::{Error, Result};
use crate::node::Protocol;
use crate::stack::NetStack;
use crate::udp::UdpCore;
use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};
use machine::sync::SpinLock;
use smallvec::SmallVec;

/// The number of loopback, as `if_nametoindex` tells it.
pub const LOOPBACK: u32 = 1;
/// The number of the link.
pub const LINK: u32 = 2;
/// Most groups of one socket (`igmp_max_memberships`).
pub const GROUPS_MAX: usize = 20;
/// Most senders that one membership names (`igmp_max_msf`).
pub const SENDERS_MAX: usize = 10;

/// Whose datagrams a member wants.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// Everybody's but these.
    AllBut(SmallVec<[IpAddr; 2]>),
    /// These senders' only.
    Only(SmallVec<[IpAddr; 2]>),
}

/// A group that a socket has joined.
#[derive(Clone, Debug)]
struct Membership {
    group: IpAddr,
    link: u32,
    wanted: Wanted,
}

/// What is done with one sender of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Join for this sender (`IP_ADD_SOURCE_MEMBERSHIP`).
    Join,
    /// Leave for this sender.
    Leave,
    /// Hear everybody but him (`IP_BLOCK_SOURCE`).
    Block,
    /// Hear him again.
    Unblock,
}

/// The groups of one socket.
#[derive(Default)]
pub struct Memberships(SpinLock<SmallVec<[Membership; 1]>>);

impl Memberships {
    /// Joins a group for all senders.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] if it is a member, [`Error::NoBuffers`] at the limit.
    pub(crate) fn join(&self, stack: &Arc<NetStack>, group: IpAddr, link: u32) -> Result<()> {
        self.add(stack, group, link, Wanted::AllBut(SmallVec::new()))
    }

    fn add(&self, stack: &Arc<NetStack>, group: IpAddr, link: u32, wanted: Wanted) -> Result<()> {
        let mut list = self.0.lock();
        if list.iter().any(|m| (m.group, m.link) == (group, link)) {
            return Err(Error::AddressInUse);
        }
        if list.len() >= GROUPS_MAX || list.try_reserve(1).is_err() {
            return Err(Error::NoBuffers);
        }
        stack.join_group(group, link)?;
        list.push(Membership {
            group,
            link,
            wanted,
        });
        Ok(())
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] if it is no member.
    pub(crate) fn leave(&self, stack: &Arc<NetStack>, group: IpAddr, link: u32) -> Result<()> {
        let mut list = self.0.lock();
        let at = list
            .iter()
            .position(|m| (m.group, m.link) == (group, link))
            .ok_or(Error::AddressNotAvailable)?;
        list.swap_remove(at);
        drop(list);
        stack.leave_group(group, link);
        Ok(())
    }

    /// Changes what it hears of one sender of a group.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`], [`Error::INVALID`] where a membership is of the
    /// other kind, [`Error::NoBuffers`] at the limit of senders.
    pub(crate) fn sender(
        &self,
        stack: &Arc<NetStack>,
        (group, link): (IpAddr, u32),
        sender: IpAddr,
        what: Sender,
    ) -> Result<()> {
        let mut list = self.0.lock();
        let found = list.iter_mut().find(|m| (m.group, m.link) == (group, link));
        let Some(m) = found else {
            drop(list);
            // Only a join makes a member of who is none.
            return match what {
                Sender::Join => {
                    let only = SmallVec::from_slice(&[sender]);
                    self.add(stack, group, link, Wanted::Only(only))
                }
                Sender::Leave => Err(Error::AddressNotAvailable),
                Sender::Block | Sender::Unblock => Err(Error::INVALID),
            };
        };
        let (list_of, adds) = match (&mut m.wanted, what) {
            (Wanted::Only(only), Sender::Join) => (only, true),
            (Wanted::Only(only), Sender::Leave) => (only, false),
            (Wanted::AllBut(but), Sender::Block) => (but, true),
            (Wanted::AllBut(but), Sender::Unblock) => (but, false),
            _ => return Err(Error::INVALID),
        };
        match (list_of.iter().position(|s| *s == sender), adds) {
            (Some(_), true) | (None, false) => return Err(Error::AddressNotAvailable),
            (None, true) if list_of.len() >= SENDERS_MAX => return Err(Error::NoBuffers),
            (None, true) => list_of.push(sender),
            (Some(at), false) => drop(list_of.swap_remove(at)),
        }
        let ended = matches!(&m.wanted, Wanted::Only(only) if only.is_empty());
        drop(list);
        if ended {
            self.leave(stack, group, link)?;
        }
        Ok(())
    }

    /// Leaves all groups: the socket closes.
    pub(crate) fn clear(&self, stack: &NetStack) {
        let all = core::mem::take(&mut *self.0.lock());
        for m in all {
            stack.leave_group(m.group, m.link);
        }
    }

    /// Whether the socket takes what `sender` sent to a group that its capsule hears;
    /// `all` is `IP_MULTICAST_ALL`.
    pub(crate) fn take(&self, group: IpAddr, link: u32, sender: IpAddr, all: bool) -> bool {
        let list = self.0.lock();
        match list.iter().find(|m| (m.group, m.link) == (group, link)) {
            None => all,
            Some(m) => match &m.wanted {
                Wanted::AllBut(but) => !but.contains(&sender),
                Wanted::Only(only) => only.contains(&sender),
            },
        }
    }
}

/// The groups of one capsule: group, link, and how many sockets have joined.
pub(crate) type Joined = SpinLock<SmallVec<[(IpAddr, u32, usize); 1]>>;

/// A datagram to a group, on its way to sockets.
#[derive(Clone, Copy)]
pub(crate) struct ToGroup<'a> {
    /// Its sender.
    pub(crate) from: SocketAddr,
    /// Group and port.
    pub(crate) to: SocketAddr,
    pub(crate) data: &'a [u8],
    /// Time to live or hop limit.
    pub(crate) ttl: u8,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
}

impl NetStack {
    /// Counts one more member of a group; the first tells the node.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] if the node is in too many groups.
    pub(crate) fn join_group(self: &Arc<Self>, group: IpAddr, link: u32) -> Result<()> {
        let mut joined = self.joined().lock();
        if let Some(j) = joined.iter_mut().find(|j| (j.0, j.1) == (group, link)) {
            j.2 += 1;
            return Ok(());
        }
        joined.try_reserve(1).map_err(|_| Error::NoBuffers)?;
        if link == LINK {
            self.node().join_group(self, group)?;
        }
        joined.push((group, link, 1));
        Ok(())
    }

    /// Counts one member less; the last tells the node.
    pub(crate) fn leave_group(&self, group: IpAddr, link: u32) {
        let mut joined = self.joined().lock();
        let Some(at) = joined.iter().position(|j| (j.0, j.1) == (group, link)) else {
            return;
        };
        if let Some(j) = joined.get_mut(at).filter(|j| j.2 > 1) {
            j.2 -= 1;
            return;
        }
        joined.swap_remove(at);
        if link == LINK {
            self.node().leave_group(self.id(), group);
        }
    }

    /// Leaves all groups: the capsule ends.
    pub(crate) fn leave_all_groups(&self) {
        let all = core::mem::take(&mut *self.joined().lock());
        for (group, link, _) in all {
            if link == LINK {
                self.node().leave_group(self.id(), group);
            }
        }
    }

    /// Calls `f` with each group and link that the capsule is a member on, and how
    /// many of its sockets are.
    pub(crate) fn for_each_group(&self, mut f: impl FnMut(IpAddr, u32, usize)) {
        for (group, link, count) in self.joined().lock().iter() {
            f(*group, *link, *count);
        }
    }

    /// Gives a datagram that came on `link` to every socket of the capsule that is to
    /// have it. Whether there was one.
    pub(crate) fn deliver_to_group(&self, link: u32, d: &ToGroup<'_>) -> bool {
        let group = d.to.ip();
        let joined = self.joined().lock();
        if !joined.iter().any(|j| (j.0, j.1) == (group, link)) {
            return false;
        }
        drop(joined);
        let mut targets: SmallVec<[Arc<UdpCore>; 4]> = SmallVec::new();
        self.udp().for_each_fit(group, d.to.port(), |core| {
            let wants = core.takes_group(group, link, d.from.ip());
            if wants && targets.try_reserve(1).is_ok() {
                targets.push(core.clone());
            }
        });
        for core in &targets {
            core.deliver(d.from, group, d.data, d.ttl, d.tos);
        }
        !targets.is_empty()
    }

    /// As [`NetStack::deliver_to_group`] for what came from the wire, to the port
    /// that the capsule has for that of the node.
    pub(crate) fn deliver_from_link(&self, d: &ToGroup<'_>) -> bool {
        let list = self.published();
        let port = list
            .iter()
            .find(|p| p.protocol == Protocol::Udp && p.node == d.to.port())
            .map_or(d.to.port(), |p| p.capsule);
        let to = SocketAddr::new(d.to.ip(), port);
        self.deliver_to_group(LINK, &ToGroup { to, ..*d })
    }
}

#[cfg(test)]
mod tests {
    use super::{Memberships, SENDERS_MAX, Sender};
    use crate::error::Error;
    use crate::node::NetNode;
    use crate::stack::StackConfig;
    use alloc::sync::Arc;
    use core::net::{IpAddr, Ipv4Addr};
    use std::vec::Vec;

    const LO: u32 = super::LOOPBACK;

    fn stack() -> Arc<crate::NetStack> {
        let config = StackConfig {
            ports: Vec::new(),
            outbound: false,
            raw: false,
            system: false,
            account: Arc::new(machine::Account::new(100).unwrap()),
            sockets_max: 10,
        };
        NetNode::new().new_stack(config).unwrap()
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(239, 0, 0, last).into()
    }

    fn host(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn the_capsule_is_a_member_while_one_of_its_sockets_is() {
        let s = stack();
        let (a, b) = (Memberships::default(), Memberships::default());
        a.join(&s, ip(1), LO).unwrap();
        b.join(&s, ip(1), LO).unwrap();
        assert_eq!(a.join(&s, ip(1), LO), Err(Error::AddressInUse));
        a.leave(&s, ip(1), LO).unwrap();
        assert_eq!(a.leave(&s, ip(1), LO), Err(Error::AddressNotAvailable));
        let mut seen = Vec::new();
        s.for_each_group(|g, l, n| seen.push((g, l, n)));
        assert_eq!(seen, [(ip(1), LO, 1)]);
        b.clear(&s);
        s.for_each_group(|_, _, _| panic!("a group stayed"));
    }

    #[test]
    fn members_choose_their_senders() {
        let s = stack();
        let m = Memberships::default();
        let of = |what, last| m.sender(&s, (ip(1), LO), host(last), what);
        assert!(m.take(ip(1), LO, host(1), true) && !m.take(ip(1), LO, host(1), false));
        assert_eq!(of(Sender::Block, 1), Err(Error::INVALID));
        of(Sender::Join, 1).unwrap();
        assert!(m.take(ip(1), LO, host(1), false) && !m.take(ip(1), LO, host(2), true));
        assert_eq!(of(Sender::Join, 1), Err(Error::AddressNotAvailable));
        for last in 2..=SENDERS_MAX as u8 {
            of(Sender::Join, last).unwrap();
        }
        assert_eq!(of(Sender::Join, 200), Err(Error::NoBuffers));
        assert_eq!(of(Sender::Block, 1), Err(Error::INVALID));
        for last in 1..=SENDERS_MAX as u8 {
            of(Sender::Leave, last).unwrap();
        }
        s.for_each_group(|_, _, _| panic!("a group without senders stayed"));
        m.join(&s, ip(1), LO).unwrap();
        of(Sender::Block, 7).unwrap();
        assert!(m.take(ip(1), LO, host(1), false) && !m.take(ip(1), LO, host(7), true));
        of(Sender::Unblock, 7).unwrap();
        assert!(m.take(ip(1), LO, host(7), false));
    }
}
