//! The machine's links: one carries the node's packets, the others stand by.
//!
//! The first link with carrier is the node's. When its carrier goes and another link
//! has one, the node moves over: a cable that was put into another port is followed
//! within the time its link needs to come up. The node takes its hardware address
//! along where the device can take it, so that neighbours and leases stay what they
//! were; a link that comes back is not moved to while the other works.

use super::{Checked, Engines, Link, NetEvent, NetNode, Upper, vlan};
use crate::wire::Batch;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use machine::sync::{Once, SpinLock};
use machine::time::Instant;

/// Most links of a machine.
const LINKS_MAX: usize = 8;
/// Ports of one machine negotiate for different times. For so long after the first
/// came up, one that comes before it in the machine's order is taken instead, so that
/// the choice is the same at every boot.
const CHOICE: Duration = Duration::from_secs(3);

/// A link, and what depends on its size.
pub(super) struct Attached {
    pub(super) link: Arc<dyn Link>,
    pub(super) engines: Engines,
    name: String,
}

/// The links. Those that are there stay for ever; one whose device is gone has no
/// carrier any more.
pub(super) struct Links {
    slots: [Once<Attached>; LINKS_MAX],
    /// The one in use, an index into `slots`.
    active: AtomicUsize,
    /// When the choice of the first link is final, in nanoseconds; `u64::MAX` before
    /// any had carrier.
    final_at: AtomicU64,
    /// Held while links are added and chosen. The hardware address of the node, once
    /// a link with carrier gave it.
    choice: SpinLock<Option<[u8; 6]>>,
}

/// What a choice changed.
enum Chosen {
    /// Nothing.
    Same,
    /// Another link is in use, which was in use for the first time or not.
    Moved { is_first: bool },
}

impl Links {
    pub(super) fn new() -> Links {
        Links {
            slots: [const { Once::new() }; LINKS_MAX],
            active: AtomicUsize::new(0),
            final_at: AtomicU64::new(u64::MAX),
            choice: SpinLock::new(None),
        }
    }

    /// The link in use.
    #[inline]
    pub(super) fn active(&self) -> Option<&Attached> {
        self.slots
            .get(self.active.load(Ordering::Relaxed))
            .and_then(Once::get)
    }

    /// All links by name, in the machine's order.
    pub(super) fn all(&self) -> Vec<(String, Arc<dyn Link>)> {
        let there = self.slots.iter().filter_map(Once::get);
        there.map(|a| (a.name.clone(), a.link.clone())).collect()
    }

    fn add(&self, attached: Attached) -> Option<usize> {
        let _choice = self.choice.lock();
        let (index, slot) = (0..)
            .zip(&self.slots)
            .find(|(_, slot)| slot.get().is_none())?;
        slot.call_once(|| attached);
        Some(index)
    }

    fn is_up(&self, index: usize) -> bool {
        let slot = self.slots.get(index).and_then(Once::get);
        slot.is_some_and(|a| a.link.is_up())
    }

    /// Chooses the link to use, as the module says.
    fn choose(&self) -> Chosen {
        let mut mac = self.choice.lock();
        let active = self.active.load(Ordering::Relaxed);
        let now = Instant::now().0;
        let is_open = now < self.final_at.load(Ordering::Relaxed);
        if self.is_up(active) && (!is_open || active == 0) {
            self.note(&mut mac, active, now);
            return Chosen::Same;
        }
        let Some(best) = (0..LINKS_MAX).find(|i| self.is_up(*i)) else {
            return Chosen::Same;
        };
        let is_first = mac.is_none() || is_open;
        if is_first {
            *mac = None;
        }
        self.note(&mut mac, best, now);
        if best == active {
            return Chosen::Same;
        }
        self.active.store(best, Ordering::Relaxed);
        Chosen::Moved { is_first }
    }

    /// Link `index` is in use and has carrier: it takes the node's address, or gives
    /// the node its own.
    fn note(&self, mac: &mut Option<[u8; 6]>, index: usize, now: u64) {
        let Some(attached) = self.slots.get(index).and_then(Once::get) else {
            return;
        };
        let own = attached.link.mac();
        match *mac {
            Some(mac) if mac == own || attached.link.set_mac(mac) => {}
            _ => *mac = Some(own),
        }
        if self.final_at.load(Ordering::Relaxed) == u64::MAX {
            let until = now.saturating_add(CHOICE.as_nanos() as u64);
            self.final_at.store(until, Ordering::Relaxed);
        }
    }
}

/// A link's place in the node: what its driver gives frames and news to.
pub struct Port {
    node: Arc<NetNode>,
    index: usize,
    batch: Batch,
}

impl Port {
    fn is_active(&self) -> bool {
        self.index == self.node.links.active.load(Ordering::Relaxed)
    }
}

impl Upper for Port {
    fn receive(&self, frame: &[u8]) {
        // What comes in on a link that stands by was sent to nobody here, or comes in
        // on the other link too.
        if self.is_active() {
            self.node.receive(frame);
        }
    }

    fn receive_checked(&self, frame: &[u8], checked: Checked) {
        if self.is_active() {
            self.node.receive_as(frame, checked, Some(&self.batch));
        }
    }

    fn received_all(&self) {
        self.batch.finish();
    }

    fn link_changed(&self) {
        self.node.link_changed();
    }

    fn transmit_ready(&self) {
        if self.is_active() {
            self.node.transmit_ready();
        }
    }
}

impl NetNode {
    /// Gives the machine a link more, which people know as `name`; `None` if there are
    /// as many as there can be. Addresses come with [`NetNode::configure_dhcp`] or
    /// [`NetNode::configure_static`].
    pub fn attach_link(self: &Arc<Self>, name: &str, link: Arc<dyn Link>) -> Option<Arc<Port>> {
        let engines = Engines::new(&*link);
        let link = Arc::new(vlan::Tagged::new(link, self.vlan.clone()));
        let index = self.links.add(Attached {
            link,
            engines,
            name: String::from(name),
        })?;
        if index == 0 {
            self.start_timers();
            self.control_rebuild();
        }
        self.link_changed();
        let node = self.clone();
        let batch = Batch::new();
        Some(Arc::new(Port { node, index, batch }))
    }

    /// What people know the link in use as, if there is one.
    #[must_use]
    pub fn link_name(&self) -> Option<&str> {
        self.links.active().map(|a| a.name.as_str())
    }

    /// A driver saw its link go up or down.
    pub fn link_changed(self: &Arc<Self>) {
        if self.is_held() {
            return;
        }
        let chosen = self.links.choose();
        let up = self.link().is_some_and(|l| l.is_up());
        let was_up = self.is_up.swap(up, Ordering::Relaxed);
        let is_first = match chosen {
            Chosen::Same if was_up == up => return,
            Chosen::Same => false,
            Chosen::Moved { is_first } => is_first,
        };
        if matches!(chosen, Chosen::Moved { .. }) {
            self.control_rebuild();
            if !is_first {
                self.tell(NetEvent::LinkMoved);
            }
        }
        if up != was_up {
            self.tell(if up {
                NetEvent::LinkUp
            } else {
                NetEvent::LinkDown
            });
        }
        if up {
            self.control_restart();
            // What was held back for the other link, or while there was none.
            self.transmit_ready();
        }
    }
}
