//! Options about multicast groups (ip(7), ipv6(7), RFC 3678).

use super::{Kind, Socket};
use crate::addr::Address;
use crate::error::{Error, Result};
use crate::groups::{LINK, LOOPBACK, Sender};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::Ordering::Relaxed;

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const IP_MULTICAST_IF: i32 = 32;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_DROP_MEMBERSHIP: i32 = 36;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_DROP_SOURCE_MEMBERSHIP: i32 = 40;
const IPV6_MULTICAST_IF: i32 = 17;
const IPV6_JOIN_GROUP: i32 = 20;
const IPV6_LEAVE_GROUP: i32 = 21;
// The same numbers for both families.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
/// Bytes of `struct sockaddr_storage`.
const STORAGE: usize = 128;

/// What a program asks for.
enum Change {
    Join,
    Leave,
    Sender(Sender, IpAddr),
}

impl Socket {
    /// Sets an option about groups; `None` if `name` is none.
    pub(super) fn set_group_option(
        &self,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Option<Result<()>> {
        let groups = match &self.kind {
            Kind::Udp(udp) => Some(udp.groups()),
            Kind::Raw(raw) => Some(raw.groups()),
            // Only to say what Linux says.
            Kind::Tcp(_) => None,
            Kind::Unix(_) | Kind::Netlink(_) | Kind::Packet(_) => return None,
        };
        match (level, name) {
            (SOL_IP, IP_MULTICAST_IF) if groups.is_some() => return Some(self.set_link_v4(value)),
            (SOL_IPV6, IPV6_MULTICAST_IF) if groups.is_some() => {
                return Some(self.set_link_v6(value));
            }
            _ => {}
        }
        let parsed = self.group_change(level, name, value)?;
        let Some(groups) = groups else {
            return Some(Err(Error::Protocol));
        };
        Some(parsed.and_then(|(group, link, change)| match change {
            Change::Join => groups.join(&self.stack, group, link),
            Change::Leave => groups.leave(&self.stack, group, link),
            Change::Sender(what, who) => groups.sender(&self.stack, (group, link), who, what),
        }))
    }

    /// The value of an option about groups.
    pub(super) fn group_option(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        let o = &self.options;
        match (level, name, &self.kind) {
            (SOL_IP, IP_MULTICAST_IF, Kind::Udp(_) | Kind::Raw(_)) => {
                Some(o.multicast_address.load(Relaxed).to_be_bytes().to_vec())
            }
            (SOL_IPV6, IPV6_MULTICAST_IF, Kind::Udp(_) | Kind::Raw(_)) => {
                Some(o.multicast_link.load(Relaxed).to_ne_bytes().to_vec())
            }
            _ => None,
        }
    }

    /// Which group on which link is to be changed how; `None` for other options.
    fn group_change(
        &self,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Option<Result<(IpAddr, u32, Change)>> {
        let sender = |what| move |who| Change::Sender(what, who);
        let old = matches!(name, IP_ADD_MEMBERSHIP..=IP_DROP_SOURCE_MEMBERSHIP);
        Some(match (level, name) {
            (SOL_IP, IP_ADD_MEMBERSHIP) => self.request_v4(value, Change::Join),
            (SOL_IP, IP_DROP_MEMBERSHIP) => self.request_v4(value, Change::Leave),
            (SOL_IP, _) if old => {
                let what = match name {
                    IP_UNBLOCK_SOURCE => Sender::Unblock,
                    IP_BLOCK_SOURCE => Sender::Block,
                    IP_ADD_SOURCE_MEMBERSHIP => Sender::Join,
                    _ => Sender::Leave,
                };
                self.sender_request_v4(value, what)
            }
            (SOL_IPV6, IPV6_JOIN_GROUP) => self.request_v6(value, Change::Join),
            (SOL_IPV6, IPV6_LEAVE_GROUP) => self.request_v6(value, Change::Leave),
            (SOL_IP | SOL_IPV6, MCAST_JOIN_GROUP) => self.request(value, |_| Change::Join, false),
            (SOL_IP | SOL_IPV6, MCAST_LEAVE_GROUP) => self.request(value, |_| Change::Leave, false),
            (SOL_IP | SOL_IPV6, MCAST_BLOCK_SOURCE) => {
                self.request(value, sender(Sender::Block), true)
            }
            (SOL_IP | SOL_IPV6, MCAST_UNBLOCK_SOURCE) => {
                self.request(value, sender(Sender::Unblock), true)
            }
            (SOL_IP | SOL_IPV6, MCAST_JOIN_SOURCE_GROUP) => {
                self.request(value, sender(Sender::Join), true)
            }
            (SOL_IP | SOL_IPV6, MCAST_LEAVE_SOURCE_GROUP) => {
                self.request(value, sender(Sender::Leave), true)
            }
            _ => return None,
        })
    }

    /// `struct ip_mreq` or `struct ip_mreqn`: group, address, number.
    fn request_v4(&self, value: &[u8], change: Change) -> Result<(IpAddr, u32, Change)> {
        let group = group(v4(value, 0)?.into())?;
        let address = v4(value, 4)?;
        let number = word(value, 8).unwrap_or(0);
        let link = self.link_of(group, address, number)?;
        Ok((group, link, change))
    }

    /// `struct ip_mreq_source`: group, address, sender.
    fn sender_request_v4(&self, value: &[u8], what: Sender) -> Result<(IpAddr, u32, Change)> {
        let group = group(v4(value, 0)?.into())?;
        let link = self.link_of(group, v4(value, 4)?, 0)?;
        Ok((group, link, Change::Sender(what, v4(value, 8)?.into())))
    }

    /// `struct ipv6_mreq`: group, number.
    fn request_v6(&self, value: &[u8], change: Change) -> Result<(IpAddr, u32, Change)> {
        let octets: [u8; 16] = array(value, 0)?;
        let group = group(Ipv6Addr::from(octets).into())?;
        let link = self.link_of(group, Ipv4Addr::UNSPECIFIED, word(value, 16)?)?;
        Ok((group, link, change))
    }

    /// `struct group_req` or `struct group_source_req`: number, group, sender.
    fn request(
        &self,
        value: &[u8],
        change: impl Fn(IpAddr) -> Change,
        with_sender: bool,
    ) -> Result<(IpAddr, u32, Change)> {
        let address = |at: usize| {
            let bytes = value.get(at..at + STORAGE).ok_or(Error::INVALID)?;
            match Address::parse(bytes) {
                Ok(Address::Inet(a)) if a.is_ipv6() == self.is_v6() => Ok(a.ip()),
                Ok(Address::Inet(_)) => Err(Error::AddressNotAvailable),
                _ => Err(Error::INVALID),
            }
        };
        let group = group(address(8)?)?;
        let link = self.link_of(group, Ipv4Addr::UNSPECIFIED, word(value, 0)?)?;
        let sender = match with_sender {
            true => address(8 + STORAGE)?,
            false => group,
        };
        Ok((group, link, change(sender)))
    }

    /// The interface that a program names by number, or else by its address; or the
    /// one that datagrams to `group` leave on.
    ///
    /// # Errors
    /// No device: there is no such interface, or the capsule may not go out on it.
    fn link_of(&self, group: IpAddr, address: Ipv4Addr, number: u32) -> Result<u32> {
        let named = match number {
            0 if address.is_unspecified() => None,
            0 if address.is_loopback() => Some(LOOPBACK),
            0 if self.stack.node().is_local(address.into()) => Some(LINK),
            0 => return Err(Error::NO_DEVICE),
            number => Some(number),
        };
        match named {
            Some(LOOPBACK) => Ok(LOOPBACK),
            // Membership makes the node speak on the link: it is for who may.
            Some(LINK) if self.stack.may_go_out() && self.stack.node().link().is_some() => Ok(LINK),
            Some(_) => Err(Error::NO_DEVICE),
            None => match self.stack.route(group) {
                Ok(_) => Ok(LINK),
                Err(_) => Err(Error::NO_DEVICE),
            },
        }
    }

    /// `IP_MULTICAST_IF`: an address, or one of the structures above.
    fn set_link_v4(&self, value: &[u8]) -> Result<()> {
        let (address, number) = match value.len() {
            0..4 => return Err(Error::INVALID),
            4..8 => (v4(value, 0)?, 0),
            _ => (v4(value, 4)?, word(value, 8).unwrap_or(0)),
        };
        let link = match (address.is_unspecified(), number) {
            (true, 0) => 0,
            _ => self
                .named_link(address, number)
                .ok_or(Error::AddressNotAvailable)?,
        };
        self.options.multicast_link.store(link, Relaxed);
        let number = u32::from(address);
        self.options.multicast_address.store(number, Relaxed);
        Ok(())
    }

    fn set_link_v6(&self, value: &[u8]) -> Result<()> {
        let link = match word(value, 0)? {
            0 => 0,
            number => self
                .named_link(Ipv4Addr::UNSPECIFIED, number)
                .ok_or(Error::NO_DEVICE)?,
        };
        self.options.multicast_link.store(link, Relaxed);
        Ok(())
    }

    fn named_link(&self, address: Ipv4Addr, number: u32) -> Option<u32> {
        let node = self.stack.node();
        match number {
            0 if address.is_loopback() => Some(LOOPBACK),
            0 if node.is_local(address.into()) => Some(LINK),
            LOOPBACK => Some(LOOPBACK),
            LINK if node.link().is_some() => Some(LINK),
            _ => None,
        }
    }
}

/// `ip`, if it is a group.
fn group(ip: IpAddr) -> Result<IpAddr> {
    match ip.is_multicast() {
        true => Ok(ip),
        false => Err(Error::INVALID),
    }
}

fn array<const N: usize>(value: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = value.get(at..at + N).and_then(|b| b.try_into().ok());
    bytes.ok_or(Error::INVALID)
}

fn v4(value: &[u8], at: usize) -> Result<Ipv4Addr> {
    array::<4>(value, at).map(Ipv4Addr::from)
}

fn word(value: &[u8], at: usize) -> Result<u32> {
    array(value, at).map(u32::from_ne_bytes)
}
