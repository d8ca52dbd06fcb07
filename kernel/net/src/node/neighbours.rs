//! Hardware addresses of neighbours: a bounded cache over ARP (RFC 826) and
//! neighbour discovery (RFC 4861).
//!
//! A neighbour that is not known yet holds a few packets back while it is asked
//! for. One that has not been heard of for a while is asked again while its old
//! address stays in use.

use super::output::{Frame, Missing};
use crate::keyhash::{self, KeyedMap};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use machine::sync::SpinLock;
use machine::time::Instant;
use smallvec::SmallVec;

/// Most neighbours remembered.
const NEIGHBOURS_MAX: usize = 512;
/// Bytes of packets held back for one neighbour: the longest datagram in fragments, and some
/// more. Linux holds twice as much (`net.ipv4.neigh.default.unres_qlen_bytes`).
const HELD_MAX: usize = 100 << 10;
/// The same for all neighbours.
const HELD_MAX_ALL: usize = 1 << 20;
/// Packets that an entry has room for in itself.
const HELD_FEW: usize = 4;
/// What a packet costs beside its bytes.
const HELD_COST: usize = 64;
/// How long an address is good without being heard of.
const FRESH: Duration = Duration::from_secs(60);
/// Time between questions.
const RETRY: Duration = Duration::from_secs(1);
/// Questions before a neighbour counts as gone.
const TRIES_MAX: u8 = 3;

#[derive(Default)]
struct Entry {
    mac: Option<[u8; 6]>,
    /// When the address stops being fresh.
    fresh_until: Instant,
    /// When the next question is due, if questions are being asked.
    ask_at: Option<Instant>,
    tries: u8,
    held: Held,
    /// Bytes that they cost.
    held_bytes: usize,
}

/// Packets held back, in the order in which they came.
type Held = SmallVec<[Vec<u8>; HELD_FEW]>;

struct Table {
    entries: KeyedMap<IpAddr, Entry>,
    /// Bytes that all packets held back cost.
    held: usize,
}

pub(super) struct Neighbours {
    table: SpinLock<Table>,
}

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// Send it there.
    Known([u8; 6]),
    /// Send it there, and ask whether that still holds.
    Stale([u8; 6]),
    /// It is held back; ask.
    Ask,
    /// It is held back (or dropped); a question is out.
    Wait,
}

/// A question due to a neighbour.
pub(super) struct Question {
    pub(super) to: IpAddr,
    /// Where it was last; a question there needs no broadcast.
    pub(super) mac: Option<[u8; 6]>,
}

impl Neighbours {
    pub(super) fn new() -> Neighbours {
        Neighbours {
            table: SpinLock::new(Table {
                entries: keyhash::map(),
                held: 0,
            }),
        }
    }

    /// Where a frame to the neighbour `ip` goes. One that must wait is copied, and
    /// complete.
    pub(super) fn look_up(&self, ip: IpAddr, frame: &Frame<'_>, now: Instant) -> Hop {
        let mut table = self.table.lock();
        let Table { entries, held } = &mut *table;
        if let Some(e) = entries.get_mut(&ip) {
            if let Some(mac) = e.mac {
                if now < e.fresh_until || e.ask_at.is_some() {
                    return Hop::Known(mac);
                }
                e.ask_at = Some(now.after(RETRY));
                e.tries = 1;
                return Hop::Stale(mac);
            }
            hold(e, frame, held);
            if e.ask_at.is_some() {
                return Hop::Wait;
            }
            e.ask_at = Some(now.after(RETRY));
            e.tries = 1;
            return Hop::Ask;
        }
        if !make_room(&mut table) {
            return Hop::Wait;
        }
        let Table { entries, held } = &mut *table;
        let e = entries.entry(ip).or_default();
        hold(e, frame, held);
        e.ask_at = Some(now.after(RETRY));
        e.tries = 1;
        Hop::Ask
    }

    /// A neighbour told its address. With `create`, it is remembered even if
    /// nobody asked. The frames that waited for it.
    pub(super) fn learn(&self, ip: IpAddr, mac: [u8; 6], create: bool, now: Instant) -> Held {
        let mut table = self.table.lock();
        let known = table.entries.contains_key(&ip);
        if !known && (!create || !make_room(&mut table)) {
            return Held::new();
        }
        let Table { entries, held } = &mut *table;
        let e = entries.entry(ip).or_default();
        *held = held.saturating_sub(core::mem::take(&mut e.held_bytes));
        e.mac = Some(mac);
        e.fresh_until = now.after(FRESH);
        e.ask_at = None;
        e.tries = 0;
        core::mem::take(&mut e.held)
    }

    /// Whether an answer from `ip` is of use.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.table.lock().entries.contains_key(&ip)
    }

    /// Questions that are due, neighbours that never answered, and when to look
    /// again.
    pub(super) fn poll(&self, now: Instant) -> (Vec<Question>, Vec<IpAddr>, Option<Instant>) {
        let (mut questions, mut gone, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        let mut table = self.table.lock();
        let Table { entries, held } = &mut *table;
        entries.retain(|ip, e| {
            let Some(at) = e.ask_at else { return true };
            if at <= now {
                if e.tries >= TRIES_MAX {
                    gone.push(*ip);
                    *held = held.saturating_sub(e.held_bytes);
                    return false;
                }
                e.tries += 1;
                e.ask_at = Some(now.after(RETRY));
                questions.push(Question {
                    to: *ip,
                    mac: e.mac,
                });
            }
            next = match (next, e.ask_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            true
        });
        (questions, gone, next)
    }

    /// Forgets everybody: the network may be another one.
    pub(super) fn clear(&self) {
        let mut table = self.table.lock();
        table.entries.clear();
        table.held = 0;
    }

    /// Calls `f` with every neighbour that has an address.
    pub(super) fn for_each(&self, mut f: impl FnMut(IpAddr, [u8; 6])) {
        let table = self.table.lock();
        let known = table
            .entries
            .iter()
            .filter_map(|(ip, e)| Some((*ip, e.mac?)));
        known.for_each(|(ip, mac)| f(ip, mac));
    }
}

/// Holds a copy of a frame back, if there is room. `held` counts all neighbours' bytes.
fn hold(e: &mut Entry, frame: &Frame<'_>, held: &mut usize) {
    let mut copy = Vec::new();
    let partial = match frame.missing {
        Missing::Nothing => None,
        Missing::Sums(partial) => Some(partial),
        // A connection that has so much to say has been heard: its neighbour is gone, or is
        // soon found again, and then the segments are sent again.
        Missing::Cuts(_) => return,
    };
    let cost = frame.bytes.len() + HELD_COST;
    let fits = *held + cost <= HELD_MAX_ALL && e.held_bytes + cost <= HELD_MAX;
    let has_memory =
        fits && e.held.try_reserve(1).is_ok() && copy.try_reserve_exact(frame.bytes.len()).is_ok();
    if has_memory {
        copy.extend_from_slice(frame.bytes);
        if let Some(partial) = partial {
            partial.complete(&mut copy);
        }
        e.held.push(copy);
        e.held_bytes += cost;
        *held += cost;
    }
}

/// Room for one more: the one that was heard of longest ago goes.
fn make_room(table: &mut Table) -> bool {
    let Table { entries, held } = table;
    if entries.len() >= NEIGHBOURS_MAX {
        let oldest = entries
            .iter()
            .min_by_key(|(_, e)| e.fresh_until)
            .map(|(ip, _)| *ip);
        if let Some(e) = oldest.and_then(|ip| entries.remove(&ip)) {
            *held = held.saturating_sub(e.held_bytes);
        }
    }
    entries.try_reserve(1).is_ok()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn frames_wait_for_an_answer_and_questions_end() {
        let n = Neighbours::new();
        let ip = "10.0.0.2".parse().unwrap();
        let look = |bytes: &[u8], now| n.look_up(ip, &Frame::whole(&mut bytes.to_vec()), now);
        let now = Instant(1);
        assert_eq!(look(b"one", now), Hop::Ask);
        assert_eq!(look(b"two", now), Hop::Wait);
        let held = n.learn(ip, [2; 6], false, now);
        assert_eq!(held.len(), 2);
        assert_eq!(look(b"three", now), Hop::Known([2; 6]));
        let later = now.after(FRESH);
        assert_eq!(look(b"four", later), Hop::Stale([2; 6]));
        let mut at = later;
        for _ in 0..2 {
            at = at.after(RETRY);
            assert_eq!(n.poll(at).0.len(), 1);
        }
        at = at.after(RETRY);
        assert_eq!(n.poll(at).1, [ip]);
        assert!(!n.knows(ip));
    }

    #[test]
    fn strangers_cannot_fill_the_table() {
        let n = Neighbours::new();
        for i in 0..2000u32 {
            let ip = IpAddr::V4(i.into());
            n.learn(ip, [1; 6], true, Instant(u64::from(i)));
        }
        assert!(n.table.lock().entries.len() <= NEIGHBOURS_MAX);
    }

    /// A long datagram waits whole; what waits for one neighbour, and for all, has bounds, and
    /// goes with them.
    #[test]
    fn what_is_held_back_is_bounded() {
        let n = Neighbours::new();
        let ip = |i: u32| IpAddr::V4(i.into());
        let look = |i, len: usize| {
            let mut bytes = std::vec![0; len];
            n.look_up(ip(i), &Frame::whole(&mut bytes), Instant(1));
        };
        let held = || n.table.lock().held;
        (0..45).for_each(|_| look(1, 1514));
        assert_eq!(n.learn(ip(1), [1; 6], false, Instant(1)).len(), 45);
        assert_eq!(held(), 0);
        for i in 2..100 {
            (0..200).for_each(|_| look(i, 1514));
            let of_it = n.table.lock().entries[&ip(i)].held_bytes;
            assert!(of_it <= HELD_MAX && held() <= HELD_MAX_ALL);
        }
        assert!(held() > HELD_MAX_ALL - HELD_MAX);
        // Small packets are not free.
        n.clear();
        assert_eq!(held(), 0);
        (0..5000).for_each(|_| look(1, 1));
        assert!(n.learn(ip(1), [1; 6], false, Instant(1)).len() < 2000);
        // Those that never answer, and those that make room.
        look(2, 100);
        (1..=3).for_each(|s| drop(n.poll(Instant(1).after(s * RETRY))));
        assert_eq!((held(), n.knows(ip(2))), (0, false));
        look(3, 100);
        (1000..2000).for_each(|i| drop(n.learn(ip(i), [1; 6], true, Instant(5))));
        assert_eq!((held(), n.knows(ip(3))), (0, false));
    }
}
