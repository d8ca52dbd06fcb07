//! Connections that have heard something in the frames which a driver gives one after the
//! other, and answer once it has given them all: what a dozen acknowledgements make room for
//! leaves together, and a dozen segments are acknowledged together.

use super::Conn;
use alloc::sync::Arc;
use machine::sync::SpinLock;

/// Connections that may wait at one time; one more makes the first answer.
const CONNS: usize = 16;

/// The connections of one link that have yet to answer.
pub(crate) struct Batch {
    waiting: SpinLock<[Option<Arc<Conn>>; CONNS]>,
}

impl Batch {
    pub(crate) const fn new() -> Batch {
        Batch {
            waiting: SpinLock::new([const { None }; CONNS]),
        }
    }

    /// A packet of `conn` came in that only acknowledges or carries bytes.
    pub(crate) fn input(&self, conn: Arc<Conn>, packet: &[u8]) {
        if !conn.hear(packet) {
            return;
        }
        if let Some(first) = self.add(conn) {
            first.answer();
        }
    }

    /// Adds a connection that is not among them; the one that had to make room.
    fn add(&self, conn: Arc<Conn>) -> Option<Arc<Conn>> {
        let mut waiting = self.waiting.lock();
        let free = waiting.iter_mut().find(|slot| slot.is_none());
        if let Some(slot) = free {
            *slot = Some(conn);
            return None;
        }
        waiting.rotate_left(1);
        waiting.last_mut()?.replace(conn)
    }

    /// All frames have been given.
    pub(crate) fn finish(&self) {
        loop {
            let mut waiting = self.waiting.lock();
            let Some(conn) = waiting.iter_mut().find_map(Option::take) else {
                return;
            };
            drop(waiting);
            conn.answer();
        }
    }
}
