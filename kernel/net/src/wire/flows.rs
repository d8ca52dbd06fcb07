//! Which connection a segment belongs to.

use super::Conn;
use crate::error::{Error, Result};
use crate::keyhash::{self, KeyedMap, KeyedState};
use crate::node::NetNode;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use machine::sync::SpinLock;
use machine::time::Instant;
use smoltcp::wire::{TcpControl, TcpPacket, TcpSeqNumber};

/// Locks the table is split over.
const SHARDS: usize = 16;
/// How long a closed connection's late segments are answered.
const LATE: Duration = Duration::from_secs(30);
/// Most closed connections remembered.
const LATE_MAX: usize = 4096;

/// A connection's addresses on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Ours, with the node's port.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
}

/// What a late segment says.
pub(crate) struct Segment {
    fin: bool,
    rst: bool,
    /// The sequence number after it.
    end: u32,
}

impl Segment {
    pub(crate) fn of(tcp: &TcpPacket<&[u8]>) -> Segment {
        Segment {
            fin: tcp.fin(),
            rst: tcp.rst(),
            end: (tcp.seq_number() + tcp.segment_len()).0 as u32,
        }
    }
}

/// A connection that we closed first, after its end (`TIME-WAIT`).
struct Late {
    until: Instant,
    seq: u32,
    ack: u32,
}

impl Late {
    /// Whether `segment` is the connection's FIN once more: our acknowledgement was
    /// lost. The FIN of an older connection between the same ports is not; its
    /// sender would take the answer for a mistake, send the FIN again at once, and
    /// so on for as long as the answers come.
    fn is_asked_for(&self, segment: &Segment) -> bool {
        segment.fin && !segment.rst && segment.end == self.ack
    }
}

pub(crate) struct Flows {
    hash: KeyedState,
    shards: [SpinLock<KeyedMap<Flow, Arc<Conn>>>; SHARDS],
    late: SpinLock<(KeyedMap<Flow, Late>, VecDeque<Flow>)>,
    /// Connections that found the link full.
    blocked: SpinLock<Vec<Weak<Conn>>>,
}

impl Flows {
    pub(crate) fn new() -> Flows {
        Flows {
            hash: KeyedState::random(),
            shards: [(); SHARDS].map(|()| SpinLock::new(keyhash::map())),
            late: SpinLock::new((keyhash::map(), VecDeque::new())),
            blocked: SpinLock::new(Vec::new()),
        }
    }

    fn shard(&self, flow: &Flow) -> &SpinLock<KeyedMap<Flow, Arc<Conn>>> {
        let at = self.hash.hash_one(flow) % SHARDS as u64;
        let [first, ..] = &self.shards;
        self.shards.get(at as usize).unwrap_or(first)
    }

    /// The connection of `flow`.
    pub(crate) fn find(&self, flow: &Flow) -> Option<Arc<Conn>> {
        self.shard(flow).lock().get(flow).cloned()
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] if there is one with the same addresses.
    pub(super) fn insert(&self, flow: Flow, conn: Arc<Conn>) -> Result<()> {
        let mut shard = self.shard(&flow).lock();
        if shard.contains_key(&flow) {
            return Err(Error::AddressInUse);
        }
        shard.try_reserve(1)?;
        shard.insert(flow, conn);
        drop(shard);
        self.late.lock().0.remove(&flow);
        Ok(())
    }

    /// Whether these addresses are taken, or were until a moment ago.
    pub(super) fn is_taken(&self, flow: &Flow) -> bool {
        self.shard(flow).lock().contains_key(flow) || self.late.lock().0.contains_key(flow)
    }

    /// Removes a connection that is over.
    pub(super) fn remove(&self, flow: &Flow, conn: *const Conn) {
        let mut shard = self.shard(flow).lock();
        let same = shard.get(flow).is_some_and(|c| Arc::as_ptr(c) == conn);
        let gone = if same { shard.remove(flow) } else { None };
        drop(shard);
        drop(gone);
    }

    /// Remembers a connection that we closed first.
    pub(super) fn remember(&self, flow: Flow, seq: u32, ack: u32) {
        let mut guard = self.late.lock();
        let (map, order) = &mut *guard;
        let now = Instant::now();
        while let Some(first) = order.front() {
            let over = map.get(first).is_none_or(|l| l.until <= now);
            if !over && order.len() < LATE_MAX {
                break;
            }
            map.remove(first);
            order.pop_front();
        }
        if map.try_reserve(1).is_ok() && order.try_reserve(1).is_ok() {
            let until = now.after(LATE);
            map.insert(flow, Late { until, seq, ack });
            order.push_back(flow);
        }
    }

    /// Answers a segment of a connection that is over; whether it was one.
    pub(crate) fn answer_late(&self, node: &NetNode, flow: &Flow, segment: &Segment) -> bool {
        let guard = self.late.lock();
        let Some(late) = guard.0.get(flow).filter(|l| l.until > Instant::now()) else {
            return false;
        };
        let (seq, ack, asked) = (late.seq, late.ack, late.is_asked_for(segment));
        drop(guard);
        if asked {
            node.send_bare(
                (flow.local.ip().into(), flow.local.port()),
                (flow.remote.ip().into(), flow.remote.port()),
                (
                    TcpControl::None,
                    TcpSeqNumber(seq as i32),
                    Some(TcpSeqNumber(ack as i32)),
                ),
            );
        }
        true
    }

    /// `conn` waits for room on the link; false if there is no memory for another entry.
    pub(super) fn wait_for_link(&self, conn: Weak<Conn>) -> bool {
        let mut list = self.blocked.lock();
        let is_listed = list.try_reserve(1).is_ok();
        if is_listed {
            list.push(conn);
        }
        is_listed
    }

    /// The link has room again.
    pub(crate) fn resume(&self) {
        if self.blocked.lock().is_empty() {
            return;
        }
        let list = core::mem::take(&mut *self.blocked.lock());
        for conn in list.iter().filter_map(Weak::upgrade) {
            conn.unblocked();
        }
    }

    /// Calls `f` for every connection.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<Conn>)) {
        for shard in &self.shards {
            let all: Vec<_> = shard.lock().values().cloned().collect();
            all.iter().for_each(&mut f);
        }
    }

    /// A next hop does not answer: connections being made through it fail.
    pub(crate) fn unreachable(&self, through: impl Fn(IpAddr) -> bool) {
        self.for_each(|c| {
            if through(c.flow().remote.ip()) {
                c.no_route();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fin_that_was_acknowledged_is_answered_again() {
        let late = Late {
            until: Instant(u64::MAX),
            seq: 900,
            ack: 101,
        };
        let segment = |fin, rst, end| Segment { fin, rst, end };
        assert!(late.is_asked_for(&segment(true, false, 101)));
        assert!(!late.is_asked_for(&segment(true, false, 57)));
        assert!(!late.is_asked_for(&segment(false, false, 101)));
        assert!(!late.is_asked_for(&segment(true, true, 101)));
    }
}
