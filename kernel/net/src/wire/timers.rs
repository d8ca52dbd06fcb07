//! When connections want to be looked at: one timer of the machine for all.

use super::Conn;
use crate::node::NetNode;
use alloc::collections::BTreeMap;
use alloc::sync::Weak;
use alloc::vec::Vec;
use machine::sync::{Once, SpinLock};
use machine::time::Instant;
use machine::timer::Timer;

/// Most connections looked at before other timers get their turn.
const BATCH: usize = 64;

pub(crate) struct Timers {
    node: Weak<NetNode>,
    queue: SpinLock<BTreeMap<(Instant, u64), Weak<Conn>>>,
    timer: Once<Timer>,
}

impl Timers {
    pub(crate) fn new(node: Weak<NetNode>) -> Timers {
        Timers {
            node,
            queue: SpinLock::new(BTreeMap::new()),
            timer: Once::new(),
        }
    }

    /// Moves the entry of connection `id` from `old` to `new`.
    pub(super) fn set(
        &self,
        id: u64,
        conn: &Weak<Conn>,
        old: Option<Instant>,
        new: Option<Instant>,
    ) {
        let mut queue = self.queue.lock();
        let first_before = queue.first_key_value().map(|(k, _)| k.0);
        let gone = old.and_then(|at| queue.remove(&(at, id)));
        if let Some(at) = new {
            queue.insert((at, id), conn.clone());
        }
        let first = queue.first_key_value().map(|(k, _)| k.0);
        drop(queue);
        drop(gone);
        // A timer that fires too early finds nothing and is set again.
        if first != first_before && first.is_some() {
            self.timer().set(first);
        }
    }

    fn timer(&self) -> &Timer {
        self.timer.call_once(|| {
            let node = self.node.clone();
            Timer::new(move || {
                if let Some(node) = node.upgrade() {
                    node.timers.run();
                }
            })
        })
    }

    fn run(&self) {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut queue = self.queue.lock();
        while due.len() < BATCH {
            match queue.first_key_value() {
                Some((&(at, _), _)) if at <= now => {
                    if due.try_reserve(1).is_err() {
                        break;
                    }
                    due.extend(queue.pop_first());
                }
                _ => break,
            }
        }
        drop(queue);
        for ((at, _), conn) in due {
            if let Some(conn) = conn.upgrade() {
                conn.timer(at);
            }
        }
        let next = self.queue.lock().first_key_value().map(|(k, _)| k.0);
        if next.is_some() {
            self.timer().set(next);
        }
    }
}
