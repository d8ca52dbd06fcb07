//! Contexts: what controller and driver tell each other of a device (xHCI 1.2, 6.2).

use crate::{Path, Speed};
use machine::AllocError;
use machine::dma::{DmaRing, Reach};

/// Contexts of a device: its slot's and 31 endpoints'.
const CONTEXTS: usize = 32;

/// States of an endpoint (6.2.3).
pub(crate) mod state {
    pub(crate) const RUNNING: u32 = 1;
    pub(crate) const HALTED: u32 = 2;
    pub(crate) const STOPPED: u32 = 3;
    pub(crate) const ERROR: u32 = 4;
}

/// How the data of an endpoint travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Control,
    Bulk,
    Interrupt,
}

/// What the controller is told of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointShape {
    pub(crate) kind: Kind,
    /// Its place in the device context: 1 for the control endpoint, else twice its
    /// number, and one more if it goes in.
    pub(crate) index: u8,
    /// Bytes of a packet.
    pub(crate) max_packet: u16,
    /// Packets that follow each other at once, less one (USB 3).
    pub(crate) burst: u8,
    /// Between two looks at it, as an exponent of 125 µs.
    pub(crate) interval: u8,
}

impl EndpointShape {
    /// The control endpoint of a device.
    pub(crate) fn control(max_packet: u16) -> EndpointShape {
        EndpointShape {
            kind: Kind::Control,
            index: 1,
            max_packet,
            burst: 0,
            interval: 0,
        }
    }

    fn is_in(&self) -> bool {
        self.index & 1 != 0
    }

    /// The words of its context, with its ring at `dequeue`.
    fn words(&self, dequeue: u64) -> [u32; 5] {
        const ERRORS: u32 = 3 << 1;
        let (kind, average) = match (self.kind, self.is_in()) {
            (Kind::Control, _) => (4, 8),
            (Kind::Bulk, false) => (2, 3072),
            (Kind::Bulk, true) => (6, 3072),
            (Kind::Interrupt, false) => (3, u32::from(self.max_packet)),
            (Kind::Interrupt, true) => (7, u32::from(self.max_packet)),
        };
        let interval_bytes = match self.kind {
            Kind::Interrupt => u32::from(self.max_packet) * (u32::from(self.burst) + 1),
            _ => 0,
        };
        let packet = u32::from(self.max_packet) << 16;
        [
            u32::from(self.interval) << 16,
            ERRORS | kind << 3 | u32::from(self.burst) << 8 | packet,
            dequeue as u32,
            (dequeue >> 32) as u32,
            average | interval_bytes << 16,
        ]
    }
}

/// What the controller is told of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HubShape {
    pub(crate) ports: u8,
    /// Time its translator takes, in units of 8 full-speed bits, less one.
    pub(crate) think_time: u8,
}

/// Where a device hangs, as its slot's context says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) path: Path,
    pub(crate) speed: Speed,
    /// The hub that translates for a slow device behind fast ones: its slot, its port.
    pub(crate) translator: Option<(u8, u8)>,
}

/// The memory through which one device's slot is set up and seen.
pub(crate) struct Contexts {
    /// What the driver tells.
    input: DmaRing,
    /// What the controller tells.
    output: DmaRing,
    size: usize,
}

impl Contexts {
    pub(crate) fn new(reach: Reach, size: usize) -> Result<Contexts, AllocError> {
        Ok(Contexts {
            input: DmaRing::new(reach, (CONTEXTS + 1) * size)?,
            output: DmaRing::new(reach, CONTEXTS * size)?,
            size,
        })
    }

    /// Physical addresses of what the driver tells and what the controller tells.
    pub(crate) fn input(&self) -> u64 {
        self.input.phys()
    }

    pub(crate) fn output(&self) -> u64 {
        self.output.phys()
    }

    fn write(&self, context: usize, word: usize, value: u32) {
        self.input.write_u32(context * self.size + word * 4, value);
    }

    /// Starts a command: nothing is changed yet.
    pub(crate) fn clear(&self) {
        for at in (0..self.input.len()).step_by(4) {
            self.input.write_u32(at, 0);
        }
    }

    /// Which contexts the command sets, the slot's being bit 0.
    pub(crate) fn add(&self, contexts: u32) {
        self.write(0, 1, contexts);
    }

    /// Which endpoints' contexts of before the command forgets.
    pub(crate) fn drop_endpoints(&self, contexts: u32) {
        self.write(0, 0, contexts);
    }

    /// Describes the slot; `last` is the highest endpoint in use.
    pub(crate) fn set_slot(&self, place: &Place, last: u8, hub: Option<HubShape>) {
        let speed = place.speed.number() << 20;
        let is_hub = u32::from(hub.is_some()) << 26;
        let route = place.path.route & 0xf_ffff;
        self.write(1, 0, route | speed | is_hub | u32::from(last) << 27);
        let ports = hub.map_or(0, |h| u32::from(h.ports));
        self.write(1, 1, u32::from(place.path.port) << 16 | ports << 24);
        let (slot, port) = place.translator.unwrap_or_default();
        // Only a high-speed hub translates.
        let think_time = match hub {
            Some(h) if place.speed == Speed::High => u32::from(h.think_time & 3),
            _ => 0,
        };
        let translator = u32::from(slot) | u32::from(port) << 8;
        self.write(1, 2, translator | think_time << 16);
    }

    /// Describes an endpoint whose ring is at `dequeue`.
    pub(crate) fn set_endpoint(&self, endpoint: &EndpointShape, dequeue: u64) {
        for (at, word) in endpoint.words(dequeue).into_iter().enumerate() {
            self.write(usize::from(endpoint.index) + 1, at, word);
        }
    }

    /// What state the controller says an endpoint is in.
    pub(crate) fn endpoint_state(&self, index: u8) -> u32 {
        self.output.read_u32(usize::from(index) * self.size) & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        for size in [32, 64] {
            let contexts = Contexts::new(Reach::ALL, size).unwrap();
            let path = Path {
                port: 5,
                route: 0x32,
            };
            let place = Place {
                path,
                speed: Speed::Full,
                translator: Some((9, 2)),
            };
            contexts.set_slot(&place, 4, None);
            contexts.add(0b1_0001);
            let bulk = EndpointShape {
                kind: Kind::Bulk,
                index: 4,
                max_packet: 512,
                burst: 0,
                interval: 0,
            };
            contexts.set_endpoint(&bulk, 0x1_2345_6001);
            let word = |context: usize, n: usize| contexts.input.read_u32(context * size + n * 4);
            assert_eq!(word(0, 1), 0b1_0001);
            assert_eq!(word(1, 0), 0x32 | 1 << 20 | 4 << 27);
            assert_eq!((word(1, 1), word(1, 2)), (5 << 16, 9 | 2 << 8));
            assert_eq!(word(5, 1), 3 << 1 | 2 << 3 | 512 << 16);
            assert_eq!((word(5, 2), word(5, 3)), (0x2345_6001, 1));
            contexts.clear();
            assert_eq!(word(5, 1), 0);
        }
    }

    #[test]
    fn a_hub_and_its_translator() {
        let contexts = Contexts::new(Reach::ALL, 32).unwrap();
        let place = Place {
            path: Path { port: 1, route: 0 },
            speed: Speed::High,
            translator: None,
        };
        let hub = HubShape {
            ports: 4,
            think_time: 2,
        };
        contexts.set_slot(&place, 3, Some(hub));
        let word = |n: usize| contexts.input.read_u32(32 + n * 4);
        assert_eq!(word(0), 3 << 20 | 1 << 26 | 3 << 27);
        assert_eq!((word(1), word(2)), (1 << 16 | 4 << 24, 2 << 16));
    }
}
