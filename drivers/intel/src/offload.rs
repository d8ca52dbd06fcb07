//! Checksums that the device writes, and frames that it cuts into segments: the descriptors
//! that tell it how.
//!
//! A context says where checksums are in a frame and holds until the next one, so that frames
//! of one kind, most of them, need only the first. There is one queue, and so one context.

use crate::regs::{
    TX_ADVANCED_CONTEXT, TX_ADVANCED_CUT, TX_ADVANCED_DATA, TX_ADVANCED_IPV4, TX_ADVANCED_TCP,
    TX_CONTEXT_IPV4, TX_CONTEXT_TCP, TX_CRC, TX_CUT, TX_CUT_HEADER_SHIFT, TX_CUT_SIZE_SHIFT,
    TX_END, TX_EXTENDED, TX_EXTENDED_DATA, TX_REPORT, TX_SUM_HEADER, TX_SUM_TRANSPORT,
};
use net::{Joined, PartialChecksum, Transport};

/// Descriptors of frames that leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A context has positions; frames without one are legacy descriptors (8254x, 3.3.3 to
    /// 3.3.7; 82574, 7.2.10).
    Extended,
    /// A context has lengths of headers, and all descriptors are "advanced" (82576, 7.2.2;
    /// I210, 7.2.2).
    Advanced,
}

impl Layout {
    /// The two words of the context of frames like this one.
    pub(crate) fn context(self, checksum: PartialChecksum) -> [u64; 2] {
        let at = |place: usize| place as u64;
        let (network, segment) = (at(checksum.network()), at(checksum.segment()));
        let is_v4 = checksum.header_field().is_some();
        let is_tcp = checksum.transport() == Transport::Tcp;
        let flag = |is_set: bool, bits: u32| if is_set { bits } else { 0 };
        match self {
            Layout::Extended => {
                // Where it begins, where it is written, its last byte.
                let header = checksum
                    .header_field()
                    .map_or(0, |field| network | at(field) << 8 | (segment - 1) << 16);
                // The last byte is that of the frame: 0.
                let transport = segment | at(checksum.field()) << 8;
                let kind = flag(is_v4, TX_CONTEXT_IPV4) | flag(is_tcp, TX_CONTEXT_TCP);
                [header | transport << 32, u64::from(kind | TX_EXTENDED)]
            }
            Layout::Advanced => {
                let kind = flag(is_v4, TX_ADVANCED_IPV4) | flag(is_tcp, TX_ADVANCED_TCP);
                let kind = kind | TX_ADVANCED_CONTEXT | TX_EXTENDED;
                [(segment - network) | network << 9, u64::from(kind)]
            }
        }
    }

    /// The two words of the context of one frame of `len` bytes that is cut (8254x, 3.3.6;
    /// 82576, 7.2.2.1).
    pub(crate) fn cutting_context(self, joined: Joined, len: usize) -> [u64; 2] {
        let [low, high] = self.context(joined.checksum());
        let size = (joined.size() as u64) << TX_CUT_SIZE_SHIFT;
        let header = |bytes: usize| (bytes as u64) << TX_CUT_HEADER_SHIFT;
        match self {
            Layout::Extended => {
                let data = len.saturating_sub(joined.headers()) as u64;
                let told = size | header(joined.headers());
                [low, high | u64::from(TX_CUT) | data | told << 32]
            }
            Layout::Advanced => {
                let told = size | header(joined.transport_header());
                [low, high | told << 32]
            }
        }
    }

    /// The second word of the descriptor of one buffer, with `len` bytes of a frame that is
    /// cut. `all` are the bytes of the frame, told with its first buffer.
    pub(crate) fn part(self, len: usize, joined: Joined, all: Option<usize>, is_last: bool) -> u64 {
        let end = if is_last { TX_END | TX_REPORT } else { 0 };
        let sums = all.map_or(0, |_| sums(joined.checksum()));
        let (command, status) = match self {
            Layout::Extended => (TX_EXTENDED_DATA | TX_CUT, sums),
            Layout::Advanced => {
                let data = all.map_or(0, |all| all.saturating_sub(joined.headers()));
                (
                    TX_ADVANCED_DATA | TX_ADVANCED_CUT,
                    sums | (data as u32) << 14,
                )
            }
        };
        let command = command | TX_EXTENDED | TX_CRC | end;
        u64::from(command) | len as u64 | u64::from(status) << 32
    }

    /// The second word of the descriptor of a frame of `len` bytes, which are all in its
    /// buffer.
    pub(crate) fn data(self, len: usize, checksum: Option<PartialChecksum>) -> u64 {
        let sums = checksum.map_or(0, sums);
        let whole = TX_END | TX_CRC | TX_REPORT;
        let (command, status) = match self {
            Layout::Extended if checksum.is_none() => (whole, 0),
            Layout::Extended => (whole | TX_EXTENDED | TX_EXTENDED_DATA, sums),
            // Here the length is told once more.
            Layout::Advanced => {
                let command = whole | TX_EXTENDED | TX_ADVANCED_DATA;
                (command, sums | (len as u32) << 14)
            }
        };
        u64::from(command) | len as u64 | u64::from(status) << 32
    }
}

/// Which checksums the device writes.
fn sums(checksum: PartialChecksum) -> u32 {
    match checksum.header_field() {
        Some(_) => TX_SUM_HEADER | TX_SUM_TRANSPORT,
        None => TX_SUM_TRANSPORT,
    }
}
