//! Checksums that the device writes: the descriptors that tell it which.
//!
//! A context says where they are in a frame and holds until the next one, so that frames
//! of one kind, most of them, need only the first. There is one queue, and so one context.

use crate::regs::{
    TX_ADVANCED_CONTEXT, TX_ADVANCED_DATA, TX_ADVANCED_IPV4, TX_ADVANCED_TCP, TX_CONTEXT_IPV4,
    TX_CONTEXT_TCP, TX_CRC, TX_END, TX_EXTENDED, TX_EXTENDED_DATA, TX_REPORT, TX_SUM_HEADER,
    TX_SUM_TRANSPORT,
};
use net::{PartialChecksum, Transport};

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

    /// The second word of the descriptor of a frame of `len` bytes, which are all in its
    /// buffer.
    pub(crate) fn data(self, len: usize, checksum: Option<PartialChecksum>) -> u64 {
        let sums = checksum.map_or(0, |checksum| match checksum.header_field() {
            Some(_) => TX_SUM_HEADER | TX_SUM_TRANSPORT,
            None => TX_SUM_TRANSPORT,
        });
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
