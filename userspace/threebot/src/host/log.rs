//! The bounded log of a capsule.

use std::collections::VecDeque;

use skep_api::control::{LOG_CHUNK_BYTES_MAX, Reply};

/// Older bytes than these are forgotten.
const RING_BYTES: usize = 256 * 1024;

/// The newest bytes of a log, and how many there ever were.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Ring {
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.end += bytes.len() as u64;
        let excess = self.bytes.len().saturating_sub(RING_BYTES);
        self.bytes.drain(..excess);
    }

    pub(super) fn read(&self, from_offset: u64, bytes_max: u32) -> Reply {
        let begin = self.end - self.bytes.len() as u64;
        let from_offset = from_offset.clamp(begin, self.end);
        let skip = (from_offset - begin) as usize;
        let most = (bytes_max as usize).min(LOG_CHUNK_BYTES_MAX);
        let bytes = self.bytes.range(skip..).take(most).copied().collect();
        Reply::Log {
            from_offset,
            end_offset: self.end,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_bytes_leave_and_offsets_stay_true() {
        let mut ring = Ring::default();
        for number in 0..RING_BYTES as u64 + 10 {
            ring.append(&[number as u8]);
        }
        let end_offset = RING_BYTES as u64 + 10;
        let read = |from, max| ring.read(from, max);
        assert_eq!(
            read(0, 2),
            Reply::Log {
                from_offset: 10,
                end_offset,
                bytes: vec![10, 11]
            }
        );
        let newest = vec![(end_offset - 1) as u8];
        let from_offset = end_offset - 1;
        assert_eq!(
            read(from_offset, 9),
            Reply::Log {
                from_offset,
                end_offset,
                bytes: newest
            }
        );
        let nothing = Reply::Log {
            from_offset: end_offset,
            end_offset,
            bytes: Vec::new(),
        };
        assert_eq!(read(u64::MAX, 9), nothing);
    }
}
