//! Rings that driver and controller share (xHCI 1.2, 4.9).

use super::trb::{CHAIN, CYCLE, TOGGLE, TRB, Trb, kind};
use machine::AllocError;
use machine::dma::{DmaRing, Reach};

/// Blocks of a ring: a page full.
const BLOCKS: usize = 256;
/// The last block of a ring that the driver writes leads back to its start.
const LINK: usize = BLOCKS - 1;

/// Most blocks of one transfer: fewer than a ring has, so that it never meets its
/// own end.
pub(crate) const TRANSFER_MAX: usize = 128;

fn write(memory: &DmaRing, index: usize, trb: Trb) {
    let at = index * TRB;
    memory.write_u64(at, trb.parameter);
    memory.write_u32(at + 8, trb.status);
    // Last: with its cycle bit the block belongs to the controller.
    memory.write_u32(at + 12, trb.control);
}

/// A ring the driver writes: commands, or transfers of one endpoint.
pub(crate) struct Ring {
    memory: DmaRing,
    at: usize,
    cycle: bool,
}

impl Ring {
    pub(crate) fn new(reach: Reach) -> Result<Ring, AllocError> {
        Ok(Ring {
            memory: DmaRing::new(reach, BLOCKS * TRB)?,
            at: 0,
            cycle: true,
        })
    }

    /// Address of the next block and the cycle bit it will have, in the lowest bit.
    pub(crate) fn position(&self) -> u64 {
        self.address_of(self.at) | u64::from(self.cycle)
    }

    /// The physical address of a block.
    pub(crate) fn address_of(&self, index: usize) -> u64 {
        self.memory.phys() + (index * TRB) as u64
    }

    /// Which block an address means.
    pub(crate) fn index_of(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.memory.phys())?).ok()?;
        let index = offset / TRB;
        (offset.is_multiple_of(TRB) && index < LINK).then_some(index)
    }

    /// Writes blocks that belong together, at most [`TRANSFER_MAX`]; calls `note`
    /// with the place of each. The controller sees the first of them last.
    pub(crate) fn push(&mut self, trbs: &[Trb], mut note: impl FnMut(usize)) {
        let first = (self.at, self.cycle);
        for (n, trb) in trbs.iter().enumerate() {
            note(self.at);
            // The first one still belongs to the driver.
            let cycle = if n == 0 { !self.cycle } else { self.cycle };
            let mut trb = *trb;
            trb.control = trb.control & !CYCLE | u32::from(cycle);
            write(&self.memory, self.at, trb);
            self.advance(trb.control & CHAIN);
        }
        if let Some(trb) = trbs.first() {
            let (index, cycle) = first;
            let control = trb.control & !CYCLE | u32::from(cycle);
            self.memory.write_u32(index * TRB + 12, control);
        }
    }

    fn advance(&mut self, chain: u32) {
        self.at += 1;
        if self.at == LINK {
            let flags = TOGGLE | chain | u32::from(self.cycle);
            let link = Trb::new(kind::LINK, self.memory.phys(), 0, flags);
            write(&self.memory, LINK, link);
            self.at = 0;
            self.cycle = !self.cycle;
        }
    }
}

/// The ring the controller writes: events, for the first interrupter.
pub(crate) struct EventRing {
    memory: DmaRing,
    /// The table of its segments, of which there is one.
    table: DmaRing,
    at: usize,
    cycle: bool,
}

impl EventRing {
    pub(crate) fn new(reach: Reach) -> Result<EventRing, AllocError> {
        let memory = DmaRing::new(reach, BLOCKS * TRB)?;
        let table = DmaRing::new(reach, 64)?;
        table.write_u64(0, memory.phys());
        table.write_u32(8, BLOCKS as u32);
        Ok(EventRing {
            memory,
            table,
            at: 0,
            cycle: true,
        })
    }

    /// Physical address of the segment table.
    pub(crate) fn table(&self) -> u64 {
        self.table.phys()
    }

    /// Physical address of the next event.
    pub(crate) fn position(&self) -> u64 {
        self.memory.phys() + (self.at * TRB) as u64
    }

    /// The next event, if the controller has written it.
    pub(crate) fn next(&mut self) -> Option<Trb> {
        let at = self.at * TRB;
        let control = self.memory.read_u32(at + 12);
        if (control & CYCLE != 0) != self.cycle {
            return None;
        }
        let trb = Trb {
            parameter: self.memory.read_u64(at),
            status: self.memory.read_u32(at + 8),
            control,
        };
        self.at += 1;
        if self.at == BLOCKS {
            self.at = 0;
            self.cycle = !self.cycle;
        }
        Some(trb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::host::device_read;
    use std::vec;
    use std::vec::Vec;

    fn block(address: u64) -> (u64, u32) {
        let mut bytes = [0; 16];
        assert!(device_read(address, &mut bytes));
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (u64::from(word(0)) | u64::from(word(4)) << 32, word(12))
    }

    #[test]
    fn a_transfer_across_the_end_is_chained_through_the_link() {
        let mut ring = Ring::new(Reach::ALL).unwrap();
        let start = ring.address_of(0);
        for _ in 0..253 {
            ring.push(&[Trb::status(true)], |_| {});
        }
        let piece = |n: u64, is_last| Trb::normal(n << 12, 4096, 1, is_last);
        let mut places = Vec::new();
        let trbs = [piece(1, false), piece(2, false), piece(3, true)];
        ring.push(&trbs, |n| places.push(n));
        assert_eq!(places, vec![253, 254, 0]);
        let (to, link) = block(start + 255 * 16);
        assert_eq!(
            (to, link & (CYCLE | TOGGLE | CHAIN)),
            (start, CYCLE | TOGGLE | CHAIN)
        );
        assert_eq!(block(start).1 & CYCLE, 0, "the cycle bit has turned");
        assert_eq!(block(start + 253 * 16).1 & CYCLE, 1);
        assert_eq!(ring.position(), start + 16);
        assert_eq!(ring.index_of(start + 254 * 16), Some(254));
        for wrong in [start + 255 * 16, start + 8, start - 16, start + 4096, 0] {
            assert_eq!(ring.index_of(wrong), None);
        }
    }

    #[test]
    fn events_are_taken_once_and_around_the_end() {
        let mut ring = EventRing::new(Reach::ALL).unwrap();
        assert_eq!(ring.next(), None);
        for round in 0..600u64 {
            let cycle = u32::from(round / 256 % 2 == 0);
            let at = (round % 256) as usize;
            let trb = Trb::new(kind::PORT_EVENT, round, 0, cycle);
            write(&ring.memory, at, trb);
            assert_eq!(ring.next().map(|t| t.parameter), Some(round));
            assert_eq!(ring.next(), None);
        }
    }
}
