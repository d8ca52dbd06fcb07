//! smoltcp interfaces without addresses, which run one connection at a time.

use super::sender::{Room, Sender};
use crate::node::Link;
use alloc::boxed::Box;
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
    pub(super) room: Room,
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
        type TxToken<'a> = Outgoing<'a, 'a>;
        fn receive(
            &mut self,
            _: smoltcp::time::Instant,
        ) -> Option<(Incoming<'_>, Outgoing<'_, '_>)> {
            None
        }
        fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_, '_>> {
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
    pub(crate) fn new(link: &dyn Link) -> Engines {
        let mtu = link.mtu();
        let engine = || {
            SpinLock::new(Engine {
                iface: interface(mtu),
                room: Room::new(mtu, link.joined_max()),
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
    pub(super) incoming: Option<&'a [u8]>,
    pub(super) out: Sender<'a>,
}

pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Leave to send one packet.
pub(super) struct Outgoing<'t, 'a>(&'t mut Sender<'a>);

impl TxToken for Outgoing<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.send(len, f)
    }
}

impl<'a> Device for Port<'a> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_, 'a>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&mut self.out)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_, 'a>> {
        self.out.has_room().then_some(Outgoing(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.out.mtu())
    }
}
