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
/// Packets held back for one neighbour.
const HELD_MAX: usize = 4;
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
    held: SmallVec<[Vec<u8>; HELD_MAX]>,
}

pub(super) struct Neighbours {
    table: SpinLock<KeyedMap<IpAddr, Entry>>,
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
            table: SpinLock::new(keyhash::map()),
        }
    }

    /// Where a frame to the neighbour `ip` goes. One that must wait is copied, and
    /// complete.
    pub(super) fn look_up(&self, ip: IpAddr, frame: &Frame<'_>, now: Instant) -> Hop {
        let mut table = self.table.lock();
        if let Some(e) = table.get_mut(&ip) {
            if let Some(mac) = e.mac {
                if now < e.fresh_until || e.ask_at.is_some() {
                    return Hop::Known(mac);
                }
                e.ask_at = Some(now.after(RETRY));
                e.tries = 1;
                return Hop::Stale(mac);
            }
            hold(e, frame);
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
        let e = table.entry(ip).or_default();
        hold(e, frame);
        e.ask_at = Some(now.after(RETRY));
        e.tries = 1;
        Hop::Ask
    }

    /// A neighbour told its address. With `create`, it is remembered even if
    /// nobody asked. The frames that waited for it.
    pub(super) fn learn(
        &self,
        ip: IpAddr,
        mac: [u8; 6],
        create: bool,
        now: Instant,
    ) -> SmallVec<[Vec<u8>; HELD_MAX]> {
        let mut table = self.table.lock();
        let known = table.contains_key(&ip);
        if !known && (!create || !make_room(&mut table)) {
            return SmallVec::new();
        }
        let e = table.entry(ip).or_default();
        e.mac = Some(mac);
        e.fresh_until = now.after(FRESH);
        e.ask_at = None;
        e.tries = 0;
        core::mem::take(&mut e.held)
    }

    /// Whether an answer from `ip` is of use.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.table.lock().contains_key(&ip)
    }

    /// Questions that are due, neighbours that never answered, and when to look
    /// again.
    pub(super) fn poll(&self, now: Instant) -> (Vec<Question>, Vec<IpAddr>, Option<Instant>) {
        let (mut questions, mut gone, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        let mut table = self.table.lock();
        table.retain(|ip, e| {
            let Some(at) = e.ask_at else { return true };
            if at <= now {
                if e.tries >= TRIES_MAX {
                    gone.push(*ip);
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
        self.table.lock().clear();
    }

    /// Calls `f` with every neighbour that has an address.
    pub(super) fn for_each(&self, mut f: impl FnMut(IpAddr, [u8; 6])) {
        let table = self.table.lock();
        let known = table.iter().filter_map(|(ip, e)| Some((*ip, e.mac?)));
        known.for_each(|(ip, mac)| f(ip, mac));
    }
}

fn hold(e: &mut Entry, frame: &Frame<'_>) {
    let mut copy = Vec::new();
    let partial = match frame.missing {
        Missing::Nothing => None,
        Missing::Sums(partial) => Some(partial),
        // A connection that has so much to say has been heard: its neighbour is gone, or is
        // soon found again, and then the segments are sent again.
        Missing::Cuts(_) => return,
    };
    if e.held.len() < HELD_MAX && copy.try_reserve_exact(frame.bytes.len()).is_ok() {
        copy.extend_from_slice(frame.bytes);
        if let Some(partial) = partial {
            partial.complete(&mut copy);
        }
        e.held.push(copy);
    }
}

/// Room for one more: the one that was heard of longest ago goes.
fn make_room(table: &mut KeyedMap<IpAddr, Entry>) -> bool {
    if table.len() >= NEIGHBOURS_MAX {
        let oldest = table
            .iter()
            .min_by_key(|(_, e)| e.fresh_until)
            .map(|(ip, _)| *ip);
        if let Some(ip) = oldest {
            table.remove(&ip);
        }
    }
    table.try_reserve(1).is_ok()
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
        assert!(n.table.lock().len() <= NEIGHBOURS_MAX);
    }
}
