//! The registers of a remapping unit (Intel VT-d specification 4.1, chapter 11).

use crate::mmio::Mmio;

/// Access to them, so that a unit made of software can stand in for one in tests.
pub(super) trait Registers: Send + Sync {
    fn read_u32(&self, offset: usize) -> u32;
    fn write_u32(&self, offset: usize, value: u32);
    fn read_u64(&self, offset: usize) -> u64;
    fn write_u64(&self, offset: usize, value: u64);
}

impl Registers for Mmio {
    fn read_u32(&self, offset: usize) -> u32 {
        Mmio::read_u32(self, offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        Mmio::write_u32(self, offset, value);
    }

    fn read_u64(&self, offset: usize) -> u64 {
        Mmio::read_u64(self, offset)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        Mmio::write_u64(self, offset, value);
    }
}

/// Version: minor in bits 3:0, major in 7:4 (11.4.1).
pub(super) const VERSION: usize = 0x00;
pub(super) const CAPABILITY: usize = 0x08;
pub(super) const EXTENDED: usize = 0x10;
pub(super) const COMMAND: usize = 0x18;
pub(super) const STATUS: usize = 0x1c;
pub(super) const ROOT: usize = 0x20;
pub(super) const CONTEXT_COMMAND: usize = 0x28;
pub(super) const FAULT_STATUS: usize = 0x34;
pub(super) const FAULT_CONTROL: usize = 0x38;
pub(super) const FAULT_DATA: usize = 0x3c;
pub(super) const FAULT_ADDRESS: usize = 0x40;
pub(super) const FAULT_UPPER_ADDRESS: usize = 0x44;
pub(super) const PROTECTED_ENABLE: usize = 0x64;
pub(super) const QUEUE_TAIL: usize = 0x88;
pub(super) const QUEUE_ADDRESS: usize = 0x90;

/// Bits of the global command register, and of the status that answers (11.4.4).
pub(super) mod global {
    pub(in super::super) const TRANSLATION: u32 = 1 << 31;
    pub(in super::super) const SET_ROOT: u32 = 1 << 30;
    pub(in super::super) const FLUSH_BUFFER: u32 = 1 << 27;
    pub(in super::super) const QUEUE: u32 = 1 << 26;
    pub(in super::super) const INTERRUPTS: u32 = 1 << 25;
    /// What a status says that a command has to repeat: the others are done once.
    pub(in super::super) const KEPT: u32 = 0x96ff_ffff;
}

/// Bits of the fault status register (11.4.9.1).
pub(super) mod fault {
    /// Faults were lost: all records were full.
    pub(in super::super) const OVERFLOW: u32 = 1;
    /// The invalidation queue stands still: a descriptor or an answer is wrong.
    pub(in super::super) const QUEUE: u32 = 0b111 << 4;
}

/// What a unit can do (11.4.2, 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    capability: u64,
    extended: u64,
}

impl Abilities {
    pub(super) fn read(registers: &dyn Registers) -> Abilities {
        Abilities {
            capability: registers.read_u64(CAPABILITY),
            extended: registers.read_u64(EXTENDED),
        }
    }

    /// Whether nothing answers there.
    pub(super) fn is_gone(self) -> bool {
        self.capability == u64::MAX || self.extended == u64::MAX
    }

    /// Domains it tells apart.
    pub(super) fn domains(self) -> usize {
        1 << (4 + 2 * (self.capability & 7)).min(16)
    }

    /// What it wrote has to be flushed from a buffer of its own (RWBF).
    pub(super) fn has_write_buffer(self) -> bool {
        self.capability & 1 << 4 != 0
    }

    /// There is protected memory that firmware may have set up (PLMR, PHMR).
    pub(super) fn has_protected_memory(self) -> bool {
        self.capability & 0b11 << 5 != 0
    }

    /// It may remember that something is not present (CM, 6.1).
    pub(super) fn caches_absence(self) -> bool {
        self.capability & 1 << 7 != 0
    }

    /// Levels of the smallest page tables it walks that cover `limit` bytes.
    pub(super) fn levels(self, limit: u64) -> Option<usize> {
        let width = (self.capability >> 16 & 0x3f) + 1;
        let reach = |levels: usize| 1u64 << (12 + 9 * levels as u64).min(width);
        let walks = |levels: usize| self.capability >> (8 + levels - 2) & 1 != 0;
        (3..=5).find(|levels| walks(*levels) && reach(*levels) >= limit)
    }

    /// Where the fault records are, and how many (FRO, NFR).
    pub(super) fn fault_records(self) -> (usize, usize) {
        let offset = (self.capability >> 24 & 0x3ff) as usize * 16;
        let count = (self.capability >> 40 & 0xff) as usize + 1;
        (offset, count)
    }

    /// Bit of the largest run of pages that one invalidation can name; `None` if it
    /// cannot name pages (PSI, MAMV).
    pub(super) fn page_invalidation(self) -> Option<u8> {
        (self.capability >> 39 & 1 != 0).then_some((self.capability >> 48 & 0x3f) as u8)
    }

    /// It can wait for writes and reads under way (DWD, DRD).
    pub(super) fn drains(self) -> (bool, bool) {
        (
            self.capability & 1 << 54 != 0,
            self.capability & 1 << 55 != 0,
        )
    }

    /// It sees tables in the CPUs' caches (C).
    pub(super) fn is_coherent(self) -> bool {
        self.extended & 1 != 0
    }

    /// It takes invalidations from a queue in memory (QI).
    pub(super) fn has_queue(self) -> bool {
        self.extended & 1 << 1 != 0
    }

    /// Where the registers of IOTLB invalidation are (IRO).
    pub(super) fn iotlb_registers(self) -> usize {
        (self.extended >> 8 & 0x3ff) as usize * 16
    }

    /// Bytes of registers it has.
    pub(super) fn register_bytes(self) -> usize {
        let (offset, count) = self.fault_records();
        (offset + 16 * count).max(self.iotlb_registers() + 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_and_a_server_can_do() {
        // QEMU 7.2: 39 bits, no coherency, one record.
        let qemu = Abilities {
            capability: 0x00d2_008c_2226_0206,
            extended: 0x0f02,
        };
        assert_eq!(qemu.levels(1 << 32), Some(3));
        assert_eq!(qemu.levels(1 << 40), None);
        assert_eq!(qemu.domains(), 1 << 16);
        assert_eq!(qemu.fault_records(), (0x220, 1));
        assert_eq!(qemu.iotlb_registers(), 0xf0);
        assert!(!qemu.is_coherent() && qemu.has_queue() && !qemu.caches_absence());
        assert_eq!(qemu.page_invalidation(), Some(0x12));
        assert_eq!(qemu.drains(), (true, true));
        // A server: 4 levels only, 48 bits, 8 records.
        let server = Abilities {
            capability: 0x08d2_078c_106f_0466,
            extended: 0xf0_20df,
        };
        assert_eq!(server.levels(1 << 32), Some(4));
        assert_eq!(server.fault_records(), (0x100, 8));
        assert!(!server.is_gone());
        assert_eq!(server.register_bytes(), 0x210);
    }
}
