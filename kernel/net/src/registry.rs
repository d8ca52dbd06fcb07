//! The sockets of a stack, for who asks what there is (sock_diag(7)). Each has a place, so
//! that coming and going costs the same however many there are.

use crate::error::Result;
use crate::socket::Socket;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use machine::sync::SpinLock;

#[derive(Default)]
struct Places {
    sockets: Vec<Option<Weak<Socket>>>,
    /// Places that are free, with room for all.
    free: Vec<usize>,
}

/// All sockets of one stack.
#[derive(Default)]
pub(crate) struct Registry(SpinLock<Places>);

impl Registry {
    /// A place for a socket that is about to be made.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn place(&self) -> Result<usize> {
        let mut places = self.0.lock();
        if let Some(place) = places.free.pop() {
            return Ok(place);
        }
        places.sockets.try_reserve(1)?;
        // Giving a place back must not need memory.
        let room = places.sockets.capacity();
        places.free.try_reserve(room)?;
        places.sockets.push(None);
        Ok(places.sockets.len() - 1)
    }

    /// The socket that has this place is there.
    pub(crate) fn add(&self, place: usize, socket: &Arc<Socket>) {
        let weak = Arc::downgrade(socket);
        if let Some(slot) = self.0.lock().sockets.get_mut(place) {
            *slot = Some(weak);
        }
    }

    /// It goes.
    pub(crate) fn remove(&self, place: usize) {
        let mut places = self.0.lock();
        let gone = places.sockets.get_mut(place).and_then(Option::take);
        places.free.push(place);
        drop(places);
        drop(gone);
    }

    /// At most `most` sockets at this place and further ones, and the place behind them;
    /// none at the end.
    ///
    /// # Errors
    /// No memory for the list.
    pub(crate) fn from(&self, place: usize, most: usize) -> Result<(Vec<Arc<Socket>>, usize)> {
        let mut found = Vec::new();
        found.try_reserve_exact(most)?;
        // A socket that turns out to be the last reference is dropped by the caller, when
        // the lock is free: it comes here.
        let places = self.0.lock();
        let mut next = place;
        for slot in places.sockets.iter().skip(place) {
            if found.len() == most {
                break;
            }
            next += 1;
            found.extend(slot.as_ref().and_then(Weak::upgrade));
        }
        Ok((found, next))
    }
}
