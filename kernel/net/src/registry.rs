//! The sockets of a stack by their numbers, for who asks what there is (sock_diag(7)).

use crate::error::Result;
use crate::socket::Socket;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Bound;
use machine::sync::SpinLock;

/// All sockets of one stack.
#[derive(Default)]
pub(crate) struct Registry(SpinLock<BTreeMap<u64, Weak<Socket>>>);

impl Registry {
    /// Takes in a new socket.
    pub(crate) fn add(&self, socket: &Arc<Socket>) {
        let weak = Arc::downgrade(socket);
        self.0.lock().insert(socket.number(), weak);
    }

    /// Forgets one that goes.
    pub(crate) fn remove(&self, number: u64) {
        let gone = self.0.lock().remove(&number);
        drop(gone);
    }

    /// At most `most` sockets whose numbers are greater than `number`, in order.
    ///
    /// # Errors
    /// No memory for the list.
    pub(crate) fn after(&self, number: u64, most: usize) -> Result<Vec<Arc<Socket>>> {
        let mut found = Vec::new();
        found.try_reserve_exact(most)?;
        // A socket that turns out to be the last reference is dropped by the caller, when
        // the lock is free: it comes here.
        let sockets = self.0.lock();
        let rest = sockets.range((Bound::Excluded(number), Bound::Unbounded));
        found.extend(rest.filter_map(|(_, s)| s.upgrade()).take(most));
        Ok(found)
    }
}
