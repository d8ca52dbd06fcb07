//! Commands in their form on the wire: the frame that goes to the disk (Serial ATA 3.4,
//! 10.5.5; ATA Command Set 3) and the adapter's tables (AHCI 1.3.1, 4.2).

/// Bytes of a command's frame.
pub(crate) const FRAME_LEN: usize = 20;
/// Bytes of a command's header in the list.
pub(crate) const HEADER_LEN: usize = 32;
/// Where a command's table lists its memory.
pub(crate) const TABLE_MEMORY: usize = 0x80;
/// Bytes of an entry there.
pub(crate) const ENTRY_LEN: usize = 16;
/// Pages of a command.
pub(crate) const PAGES_MAX: usize = 120;
/// Bytes of a command's table.
pub(crate) const TABLE_LEN: usize = TABLE_MEMORY + PAGES_MAX * ENTRY_LEN;

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Read {
        block: u64,
        count: u32,
    },
    Write {
        block: u64,
        count: u32,
    },
    Flush,
    /// Forget the ranges in the data: one sector of them.
    Trim,
    Identify,
    /// The page of the log that tells of a failed queued command.
    ErrorLog,
    SmartData,
    /// Whether the disk expects to fail: in the answer.
    SmartStatus,
}

/// How the disk wants its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Addresses of 48 bits.
    pub(crate) is_wide: bool,
}

/// Device register: address by blocks.
const LBA: u8 = 0x40;

impl Task {
    /// Whether it can be queued.
    pub(crate) fn is_transfer(self) -> bool {
        matches!(self, Task::Read { .. } | Task::Write { .. })
    }

    /// Whether the adapter reads memory for it.
    pub(crate) fn is_write(self) -> bool {
        matches!(self, Task::Write { .. } | Task::Trim)
    }

    /// Its frame, as a queued command with this tag or alone.
    pub(crate) fn frame(self, dialect: Dialect, tag: Option<u8>) -> [u8; FRAME_LEN] {
        let wide = dialect.is_wide;
        let pick = |w: u8, narrow: u8| if wide { w } else { narrow };
        match (self, tag) {
            (Task::Read { block, count }, Some(tag)) => queued(0x60, block, count, tag),
            (Task::Write { block, count }, Some(tag)) => queued(0x61, block, count, tag),
            (Task::Read { block, count }, None) => plain(pick(0x25, 0xc8), 0, block, count, wide),
            (Task::Write { block, count }, None) => plain(pick(0x35, 0xca), 0, block, count, wide),
            (Task::Flush, _) => plain(pick(0xea, 0xe7), 0, 0, 0, true),
            (Task::Trim, _) => plain(0x06, 1, 0, 1, true),
            (Task::Identify, _) => plain(0xec, 0, 0, 0, true),
            (Task::ErrorLog, _) => plain(0x2f, 0, 0x10, 1, true),
            (Task::SmartData, _) => plain(0xb0, 0xd0, 0xc2_4f00, 1, true),
            (Task::SmartStatus, _) => plain(0xb0, 0xda, 0xc2_4f00, 0, true),
        }
    }
}

fn frame(command: u8, features: u16, block: u64, count: u16, device: u8) -> [u8; FRAME_LEN] {
    let [b0, b1, b2, b3, b4, b5, ..] = block.to_le_bytes();
    let [features_low, features_high] = features.to_le_bytes();
    let [count_low, count_high] = count.to_le_bytes();
    // From host to device, and a command.
    [
        0x27,
        0x80,
        command,
        features_low,
        b0,
        b1,
        b2,
        device,
        b3,
        b4,
        b5,
        features_high,
        count_low,
        count_high,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
}

/// A queued command keeps its count where others have features (13.6.4.1).
fn queued(command: u8, block: u64, count: u32, tag: u8) -> [u8; FRAME_LEN] {
    frame(command, count as u16, block, u16::from(tag) << 3, LBA)
}

fn plain(command: u8, features: u16, block: u64, count: u32, wide: bool) -> [u8; FRAME_LEN] {
    if wide {
        return frame(command, features, block, count as u16, LBA);
    }
    // Four of the 28 bits of the address lie in the device register.
    let high = (block >> 24 & 0xf) as u8;
    frame(
        command,
        features,
        block & 0xff_ffff,
        count as u16 & 0xff,
        LBA | high,
    )
}

/// The first word of a command's header: the frame's length in words, direction, and
/// entries of memory.
pub(crate) fn header(task: Task, entries: usize) -> u32 {
    let write = if task.is_write() { 1 << 6 } else { 0 };
    (FRAME_LEN / 4) as u32 | write | (entries as u32) << 16
}

/// An entry of a command's memory: address, and bytes.
pub(crate) fn entry(phys: u64, len: usize) -> [u32; 4] {
    [
        phys as u32,
        (phys >> 32) as u32,
        0,
        len.saturating_sub(1) as u32,
    ]
}

/// Ranges to forget, in one sector (ACS-3, 7.5.3.2): how many blocks fit into it, and
/// the sector's words for `count` blocks from `block` on.
pub(crate) const TRIM_MAX: u64 = 64 * 0xffff;

pub(crate) fn trim_ranges(block: u64, count: u64) -> [u64; 64] {
    let mut at = block;
    let end = block + count.min(TRIM_MAX);
    core::array::from_fn(|_| {
        let n = (end - at).min(0xffff);
        let range = at & 0xffff_ffff_ffff | n << 48;
        at += n;
        if n == 0 { 0 } else { range }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Dialect = Dialect { is_wide: true };
    const NARROW: Dialect = Dialect { is_wide: false };

    #[test]
    fn frames() {
        let read = Task::Read {
            block: 0x0605_0403_0201,
            count: 0x1234,
        };
        let f = read.frame(WIDE, Some(7));
        assert_eq!(f[..8], [0x27, 0x80, 0x60, 0x34, 1, 2, 3, 0x40]);
        assert_eq!(f[8..14], [4, 5, 6, 0x12, 7 << 3, 0]);
        let f = read.frame(WIDE, None);
        assert_eq!(f[2..8], [0x25, 0, 1, 2, 3, 0x40]);
        assert_eq!(f[8..14], [4, 5, 6, 0, 0x34, 0x12]);
        let write = Task::Write {
            block: 0xa12_3456,
            count: 256,
        };
        let f = write.frame(NARROW, None);
        assert_eq!(
            f[2..14],
            [0xca, 0, 0x56, 0x34, 0x12, 0x4a, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            Task::SmartStatus.frame(WIDE, None)[3..7],
            [0xda, 0, 0x4f, 0xc2]
        );
        assert_eq!(Task::Flush.frame(NARROW, None)[2], 0xe7);
    }

    #[test]
    fn tables() {
        assert_eq!(header(Task::Trim, 3), 3 << 16 | 1 << 6 | 5);
        assert_eq!(entry(0x1_0000_2000, 4096), [0x2000, 1, 0, 4095]);
        let ranges = trim_ranges(10, 0xffff + 5);
        assert_eq!(ranges[..3], [10 | 0xffff << 48, (10 + 0xffff) | 5 << 48, 0]);
        assert_eq!(trim_ranges(0, u64::MAX)[63] >> 48, 0xffff);
        assert!(TABLE_LEN <= 2048 && TABLE_LEN.is_multiple_of(128));
    }
}
