//! Registers of a controller (NVM Express Base 1.4, 3.1).

use machine::bus::Bus;

/// Controller capabilities, 64 bits.
pub(crate) const CAP: usize = 0x00;
/// Controller configuration.
pub(crate) const CC: usize = 0x14;
/// Controller status.
pub(crate) const CSTS: usize = 0x1c;
/// Lengths of the admin queues, less one: submission low, completion from bit 16.
pub(crate) const AQA: usize = 0x24;
/// Address of the admin submission queue, 64 bits.
pub(crate) const ASQ: usize = 0x28;
/// Address of the admin completion queue, 64 bits.
pub(crate) const ACQ: usize = 0x30;
/// The first doorbell.
pub(crate) const DOORBELLS: usize = 0x1000;

pub(crate) const CC_ENABLE: u32 = 1 << 0;
/// NVM command set, pages of 4 KiB, round robin, entries of 64 and 16 bytes.
pub(crate) const CC_VALUE: u32 = 6 << 16 | 4 << 20;
/// A notice of shutdown, which ends with the controller's reset.
pub(crate) const CC_NOTICE: u32 = 3 << 14;

pub(crate) const CSTS_READY: u32 = 1 << 0;
/// The controller has failed and wants a reset.
pub(crate) const CSTS_FATAL: u32 = 1 << 1;
/// What a bus without an answer reads as.
pub(crate) const ALL_ONES: u32 = u32::MAX;

/// What a controller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Most entries of an I/O queue.
    pub(crate) entries_max: u32,
    /// Worst time to become ready, or not, in milliseconds.
    pub(crate) ready_ms: u32,
    /// Bytes from one doorbell to the next.
    pub(crate) doorbell_stride: usize,
    /// The NVM command set is there.
    pub(crate) has_nvm: bool,
    /// Pages of 4 KiB are.
    pub(crate) has_4k_pages: bool,
}

impl Capabilities {
    pub(crate) fn decode(cap: u64) -> Capabilities {
        Capabilities {
            entries_max: (cap & 0xffff) as u32 + 1,
            ready_ms: (cap >> 24 & 0xff) as u32 * 500,
            doorbell_stride: 4 << (cap >> 32 & 0xf),
            has_nvm: cap >> 37 & 1 != 0,
            // The least page is 2^(12 + MPSMIN).
            has_4k_pages: cap >> 48 & 0xf == 0,
        }
    }

    /// Doorbells of queue pair `id`: of submissions, and of completions.
    pub(crate) fn doorbells(&self, id: u16) -> (usize, usize) {
        let submission = DOORBELLS + 2 * usize::from(id) * self.doorbell_stride;
        (submission, submission + self.doorbell_stride)
    }
}

/// Reads a register of 64 bits, in halves as every controller allows.
pub(crate) fn read_u64(bus: &impl Bus, register: usize) -> u64 {
    u64::from(bus.read_u32(register)) | u64::from(bus.read_u32(register + 4)) << 32
}

/// Writes one.
pub(crate) fn write_u64(bus: &impl Bus, register: usize, value: u64) {
    bus.write_u32(register, value as u32);
    bus.write_u32(register + 4, (value >> 32) as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_qemu() {
        // MQES 2047, CQR, TO 15, DSTRD 0, CSS NVM and admin only, MPSMAX 4.
        let c = Capabilities::decode(0x0040_2020_0f01_07ff);
        assert_eq!(
            (c.entries_max, c.ready_ms, c.doorbell_stride),
            (2048, 7500, 4)
        );
        assert!(c.has_nvm && c.has_4k_pages);
        assert_eq!(c.doorbells(3), (0x1018, 0x101c));
        let wide = Capabilities::decode(0x0001_0002_0000_0001);
        assert_eq!(wide.doorbells(1), (0x1020, 0x1030));
        assert!(!wide.has_nvm && !wide.has_4k_pages);
    }
}
