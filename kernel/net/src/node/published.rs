//! Which capsule has which port of the node (design D5).

use crate::error::{Error, Result};
use crate::keyhash::{self, KeyedMap};
use crate::stack::NetStack;
use alloc::sync::{Arc, Weak};
use machine::sync::SpinLock;

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of a capsule that is a port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Transport protocol of both.
    pub protocol: Protocol,
    /// The port that the program binds.
    pub capsule: u16,
    /// The port that others connect to.
    pub node: u16,
}

type Ports = KeyedMap<(Protocol, u16), (Weak<NetStack>, u16)>;

pub(super) struct Table(SpinLock<Ports>);

impl Table {
    pub(super) fn new() -> Table {
        Table(SpinLock::new(keyhash::map()))
    }

    /// Publishes all ports of `stack`, or none.
    pub(super) fn publish(&self, stack: &Arc<NetStack>) -> Result<()> {
        let list = stack.published();
        let mut table = self.0.lock();
        let taken = |p: &Published| {
            table
                .get(&(p.protocol, p.node))
                .is_some_and(|(s, _)| s.strong_count() > 0)
        };
        if list.iter().any(taken) {
            return Err(Error::AddressInUse);
        }
        table.try_reserve(list.len())?;
        for p in list {
            table.insert((p.protocol, p.node), (Arc::downgrade(stack), p.capsule));
        }
        Ok(())
    }

    pub(super) fn withdraw(&self, stack: &NetStack) {
        let mine = core::ptr::from_ref(stack);
        self.0
            .lock()
            .retain(|_, (s, _)| !core::ptr::eq(s.as_ptr(), mine));
    }

    pub(super) fn find(&self, protocol: Protocol, port: u16) -> Option<(Arc<NetStack>, u16)> {
        let table = self.0.lock();
        let (stack, port) = table.get(&(protocol, port))?;
        Some((stack.upgrade()?, *port))
    }
}
