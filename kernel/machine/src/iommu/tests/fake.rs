//! A unit made of software, which does what the specification says. What a device reaches is
//! judged by walking the tables as hardware does, through a cache that remembers as much as
//! hardware may.

use super::super::registers::{
    CAPABILITY, COMMAND, CONTEXT_COMMAND, EXTENDED, QUEUE_ADDRESS, QUEUE_TAIL, ROOT, Registers,
    STATUS, VERSION, global,
};
use super::super::unit::Unit;
use crate::host::{device_read, device_write};
use crate::pci::Address;
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::sync::Arc;
use std::collections::HashMap;

/// 39 and 48 bits, 16 bits of domains, pages named one by one, one fault record.
pub(super) const ABILITIES: u64 =
    6 | 0b110 << 8 | 38 << 16 | 0x22 << 24 | 1 << 39 | 0x12 << 48 | 0b11 << 54;
pub(super) const CACHES_ABSENCE: u64 = 1 << 7;
pub(super) const BUFFERS: u64 = 1 << 4;
pub(super) const QUEUE: u64 = 1 << 1;
/// Where the registers of invalidation are.
const IOTLB: usize = 0xf0;
pub(super) const FAULTS: usize = 0x220;

/// The registers and what the unit remembers.
#[derive(Default)]
pub(super) struct State {
    words: HashMap<usize, u32>,
    head: u64,
    /// Pages by device and number: the address that was found, and what may be done.
    known: HashMap<(Address, u64), u64>,
    forgotten: usize,
    pub(super) is_dead: bool,
}

#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Arc<SpinLock<State>>);

fn word(phys: u64) -> u64 {
    let mut bytes = [0; 8];
    assert!(device_read(phys, &mut bytes), "{phys:#x} is no memory");
    u64::from_le_bytes(bytes)
}

impl State {
    fn get(&self, offset: usize) -> u32 {
        self.words.get(&offset).copied().unwrap_or(0)
    }

    fn get_u64(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    pub(super) fn set_u64(&mut self, offset: usize, value: u64) {
        self.words.insert(offset, value as u32);
        self.words.insert(offset + 4, (value >> 32) as u32);
    }

    /// What the tables say of a page: its address and what may be done.
    fn walk(&self, at: Address, page: u64) -> u64 {
        let root = word(self.get_u64(ROOT) + 16 * u64::from(at.bus));
        if root & 1 == 0 {
            return 0;
        }
        let context = (root & !0xfff) + 16 * u64::from(at.device << 3 | at.function);
        let (low, high) = (word(context), word(context + 8));
        if low & 1 == 0 {
            return 0;
        }
        assert_eq!(low & 0xc, 0, "translated by second-stage tables");
        let levels = (high & 7) + 2;
        let (mut table, mut entry, mut may) = (low & !0xfff, 0, 3);
        for level in (0..levels).rev() {
            let index = page >> (9 * level) & 0x1ff;
            entry = word(table + 8 * index);
            // Bits that hardware wants to be zero.
            assert_eq!(entry & (0xffc | 1 << 62), 0);
            may &= entry & 3;
            if may == 0 {
                return 0;
            }
            table = entry & 0x000f_ffff_ffff_f000;
        }
        (entry & 0x000f_ffff_ffff_f000) | may
    }

    fn forget(&mut self, kind: u64, domain: u64, page: u64) {
        self.forgotten += 1;
        assert!(domain != 0 || kind != 2 && kind != 3);
        // Domains are not told apart here: what is forgotten too much is a fault of the
        // test's only when pages are named.
        self.known.retain(|(_, p), _| kind == 3 && *p != page);
    }

    fn run_queue(&mut self) {
        let (ring, tail) = (self.get_u64(QUEUE_ADDRESS), self.get_u64(QUEUE_TAIL));
        while self.head != tail && !self.is_dead {
            let low = word(ring + self.head);
            let high = word(ring + self.head + 8);
            self.head = (self.head + 16) % 4096;
            match low & 0xf {
                1 => self.forgotten += 1,
                2 => self.forget(low >> 4 & 3, low >> 16 & 0xffff, high >> 12),
                5 => {
                    assert_eq!(low & 0xff0, 1 << 5);
                    assert!(device_write(high, &((low >> 32) as u32).to_le_bytes()));
                }
                kind => panic!("descriptor of kind {kind}"),
            }
        }
    }
}

impl Registers for Fake {
    fn read_u32(&self, offset: usize) -> u32 {
        self.0.lock().get(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        let mut s = self.0.lock();
        match offset {
            COMMAND if s.is_dead => {}
            COMMAND => {
                let kept = value & !global::FLUSH_BUFFER;
                if value & global::QUEUE == 0 {
                    s.head = 0;
                }
                s.words.insert(STATUS, kept);
            }
            // A fault record's top word is cleared by a one.
            offset if offset == FAULTS + 12 => {
                let old = s.get(offset);
                s.words.insert(offset, old & !value);
            }
            _ => {
                s.words.insert(offset, value);
            }
        }
    }

    fn read_u64(&self, offset: usize) -> u64 {
        self.0.lock().get_u64(offset)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        let mut s = self.0.lock();
        s.set_u64(offset, value);
        let is_queue = s.get(STATUS) & global::QUEUE != 0;
        match offset {
            QUEUE_TAIL if is_queue => s.run_queue(),
            offset if s.is_dead || offset != CONTEXT_COMMAND && offset != IOTLB + 8 => {}
            offset => {
                assert!(value >> 63 == 1);
                if offset != CONTEXT_COMMAND {
                    let page = s.get_u64(IOTLB) >> 12;
                    s.forget(value >> 60 & 3, value >> 32 & 0xffff, page);
                }
                s.set_u64(offset, value & !(1 << 63));
            }
        }
    }
}

impl Fake {
    pub(super) fn new(capability: u64, extended: u64) -> Fake {
        let fake = Fake::default();
        let mut s = fake.0.lock();
        s.set_u64(CAPABILITY, capability);
        s.set_u64(EXTENDED, extended | (IOTLB as u64 / 16) << 8);
        s.set_u64(VERSION, 0x10);
        drop(s);
        fake
    }

    /// Whether the device at `at` gets through to where it wants, for reads and writes.
    pub(super) fn reaches(&self, at: Address, phys: u64) -> (bool, bool) {
        let mut s = self.0.lock();
        if s.get(STATUS) & global::TRANSLATION == 0 {
            return (true, true);
        }
        let page = phys >> 12;
        let caches_absence = s.get_u64(CAPABILITY) & CACHES_ABSENCE != 0;
        let found = match s.known.get(&(at, page)) {
            Some(known) => *known,
            None => s.walk(at, page),
        };
        if found != 0 || caches_absence {
            s.known.insert((at, page), found);
        }
        assert!(
            found & 3 == 0 || found >> 12 == page,
            "not the same address"
        );
        (found & 1 != 0, found & 2 != 0)
    }

    pub(super) fn unit(&self) -> &'static Unit {
        let unit = Unit::new(Box::new(self.clone()), 1 << 32).unwrap();
        Box::leak(Box::new(unit))
    }
}
