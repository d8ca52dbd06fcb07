//! The node's time: milliseconds since its boot, and the calendar if the node knows it.

use std::cell::Cell;
use std::time::Instant;

use skep_api::control::NodeInfo;

use crate::supervisor::Millis;

/// Follows the kernel's clock from one reading on.
#[derive(Debug)]
pub struct Clock {
    base: Instant,
    base_ns: u64,
    /// Calendar time of the boot, in milliseconds since 1970.
    boot_unix_ms: Cell<Option<u64>>,
}

impl Clock {
    /// Takes the first reading, made just now.
    pub fn new(node: &NodeInfo) -> Self {
        let clock = Self {
            base: Instant::now(),
            base_ns: node.uptime_ns,
            boot_unix_ms: Cell::new(None),
        };
        clock.update(node);
        clock
    }

    /// Takes a later reading: the calendar may have become known.
    pub fn update(&self, node: &NodeInfo) {
        let boot = node
            .unix_ms
            .map(|now| now.saturating_sub(node.uptime_ns / 1_000_000));
        self.boot_unix_ms.set(boot.or(self.boot_unix_ms.get()));
    }

    /// Milliseconds since boot.
    pub fn now(&self) -> Millis {
        let elapsed = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.base_ns.saturating_add(elapsed) / 1_000_000
    }

    /// Milliseconds since 1970, if known.
    pub fn unix_ms(&self) -> Option<u64> {
        self.boot_unix_ms.get().map(|boot| boot + self.now())
    }
}
