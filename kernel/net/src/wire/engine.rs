//! smoltcp interfaces without addresses, which run one connection at a time.

use crate::checksum::Transport;
use crate::node::{ETHERNET_HEADER, NetNode};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use machine::cpu;
use machine::sync::{SpinGuard, SpinLock};
use machine::time::Instant;
use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::HardwareAddress;

/// The machine's time as smoltcp counts it.
pub(crate) fn clock(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// An interface and room for one frame.
pub(crate) struct Engine {
    pub(super) iface: Interface,
    pub(super) scratch: Vec<u8>,
}

/// One engine for each CPU, so that connections on different CPUs do not meet.
pub(crate) struct Engines {
    /// That of the first CPU, and those of the others.
    first: SpinLock<Engine>,
    others: Box<[SpinLock<Engine>]>,
    mtu: usize,
}

fn interface(mtu: usize) -> Interface {
    struct Nothing(usize);
    impl Device for Nothing {
        type RxToken<'a> = Incoming<'a>;
        type TxToken<'a> = Outgoing<'a>;
        fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
            None
        }
        fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
            None
        }
        fn capabilities(&self) -> DeviceCapabilities {
            capabilities(self.0)
        }
    }
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = machine::random::next_u64();
    let mut iface = Interface::new(config, &mut Nothing(mtu), clock(Instant::now()));
    // Whose packet it is has been decided before it comes here.
    iface.set_any_ip(true);
    iface
}

fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut c = DeviceCapabilities::default();
    c.medium = Medium::Ip;
    c.max_transmission_unit = mtu;
    // They are checked, here or by the device, before a packet comes here, and written,
    // here or by the device, behind the engine's back.
    c.checksum.ipv4 = Checksum::None;
    c.checksum.tcp = Checksum::None;
    c
}

impl Engines {
    pub(crate) fn new(mtu: usize) -> Engines {
        let engine = || {
            SpinLock::new(Engine {
                iface: interface(mtu),
                scratch: vec![0; mtu + ETHERNET_HEADER],
            })
        };
        Engines {
            first: engine(),
            others: (1..cpu::count()).map(|_| engine()).collect(),
            mtu,
        }
    }

    /// This CPU's engine.
    pub(super) fn here(&self) -> SpinGuard<'_, Engine> {
        let other = cpu::current().checked_sub(1);
        let other = other.and_then(|n| self.others.get(n));
        other.unwrap_or(&self.first).lock()
    }

    /// An interface that nobody has seen a random number of.
    pub(super) fn fresh(&self) -> Interface {
        interface(self.mtu)
    }
}

/// The link as one connection sees it during one poll.
pub(super) struct Port<'a> {
    pub(super) node: &'a NetNode,
    pub(super) remote: IpAddr,
    pub(super) incoming: Option<&'a [u8]>,
    pub(super) scratch: &'a mut [u8],
    pub(super) sent: &'a mut Sent,
}

/// What a poll has sent.
#[derive(Default)]
pub(super) struct Sent {
    /// Segments.
    pub(super) count: usize,
    /// Sequence and acknowledgement number of the last one.
    pub(super) last: Option<(u32, u32)>,
    /// The link was full.
    pub(super) blocked: bool,
}

pub(super) struct Incoming<'a>(&'a [u8]);

pub(super) struct Outgoing<'a> {
    node: &'a NetNode,
    remote: IpAddr,
    scratch: &'a mut [u8],
    sent: &'a mut Sent,
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let room = self.scratch.len();
        // smoltcp never exceeds the MTU; if it did, the packet would be cut and
        // dropped by its receiver.
        let end = (ETHERNET_HEADER + len).min(room);
        let Some(frame) = self.scratch.get_mut(..end) else {
            return f(&mut []);
        };
        let Some(packet) = frame.get_mut(ETHERNET_HEADER..) else {
            return f(&mut []);
        };
        let r = f(packet);
        self.sent.last = sequence(packet).or(self.sent.last);
        self.sent.count += 1;
        self.node
            .transmit_unsummed(self.remote, frame, Transport::Tcp);
        r
    }
}

/// Sequence and acknowledgement number of a TCP packet of ours.
fn sequence(packet: &[u8]) -> Option<(u32, u32)> {
    let first = *packet.first()?;
    let header = match first >> 4 {
        4 => usize::from(first & 0xf) * 4,
        _ => 40,
    };
    let word = |at: usize| -> Option<u32> {
        let b = packet.get(header + at..header + at + 4)?;
        Some(u32::from_be_bytes(b.try_into().ok()?))
    };
    Some((word(4)?, word(8)?))
}

impl Device for Port<'_> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t>
    where
        Self: 't;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        let out = Outgoing {
            node: self.node,
            remote: self.remote,
            scratch: self.scratch,
            sent: self.sent,
        };
        Some((Incoming(packet), out))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        if self.node.link().is_none_or(|l| l.room() == 0) {
            self.sent.blocked = true;
            return None;
        }
        Some(Outgoing {
            node: self.node,
            remote: self.remote,
            scratch: self.scratch,
            sent: self.sent,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.scratch.len() - ETHERNET_HEADER)
    }
}
