//! What a device makes of descriptors of frames, as the manuals have it. The bits are
//! numbers here, so that a wrong constant of the driver is found.

use crate::offload::Layout;
use alloc::vec::Vec;
use machine::host::device_read;
use std::vec;

/// Whether these are the words of a context.
pub(super) fn is_context(layout: Layout, [_, high]: [u64; 2]) -> bool {
    let (is_extended, kind) = (high >> 29 & 1 == 1, high >> 20 & 0xf);
    match layout {
        Layout::Extended => is_extended && kind == 0,
        Layout::Advanced => is_extended && kind == 2,
    }
}

/// Adds up `frame[from..=to]` and writes the sum at `at`.
fn insert(frame: &mut [u8], from: usize, to: usize, at: usize) {
    let mut sum = 0u32;
    for pair in frame[from..=to].chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[at..at + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
}

/// The frame that leaves.
pub(super) fn frame(layout: Layout, words: [u64; 2], context: Option<[u64; 2]>) -> Vec<u8> {
    let [address, high] = words;
    let len = (high & 0xffff) as usize;
    let mut frame = vec![0; len];
    assert!(device_read(address, &mut frame));
    // The end of a frame, with a CRC, to be told of.
    assert_eq!(high >> 24 & 0b1011, 0b1011);
    let is_extended = high >> 29 & 1 == 1;
    let sums = high >> 40 & 3;
    match layout {
        Layout::Extended if is_extended => {
            assert_eq!(high >> 20 & 0xf, 1, "data");
            positions(&mut frame, sums, context.expect("a context"));
        }
        Layout::Extended => assert_eq!(high >> 32, 0, "a legacy one has no options here"),
        Layout::Advanced => {
            assert!(is_extended && high >> 20 & 0xf == 3, "data");
            assert_eq!((high >> 46) as usize, len, "the whole length");
            if sums != 0 {
                lengths(&mut frame, sums, context.expect("a context"));
            }
        }
    }
    frame
}

/// By a context of positions (8254x, 3.3.6).
fn positions(frame: &mut [u8], sums: u64, [low, high]: [u64; 2]) {
    let byte = |at: u64| (low >> at & 0xff) as usize;
    let word = |at: u64| (low >> at & 0xffff) as usize;
    let end = |said: usize| if said == 0 { frame.len() - 1 } else { said };
    let (header_end, transport_end) = (end(word(16)), end(word(48)));
    let is_v4 = frame[byte(0).max(12)] >> 4 == 4;
    assert_eq!(high >> 25 & 1 == 1, sums & 1 == 1 && is_v4, "IPv4");
    assert_eq!(high >> 24 & 1 == 1, byte(40) - byte(32) == 16, "TCP");
    if sums & 2 != 0 {
        insert(frame, byte(32), transport_end, byte(40));
    }
    if sums & 1 != 0 {
        insert(frame, byte(0), header_end, byte(8));
    }
}

/// By a context of lengths (82576, 7.2.2): the device knows the protocols.
fn lengths(frame: &mut [u8], sums: u64, [low, high]: [u64; 2]) {
    let (network, header) = ((low >> 9 & 0x7f) as usize, (low & 0x1ff) as usize);
    let segment = network + header;
    let field = match high >> 11 & 3 {
        0 => 6,
        1 => 16,
        other => panic!("a protocol {other}"),
    };
    let is_v4 = high >> 10 & 1 == 1;
    assert_eq!(frame[network] >> 4 == 4, is_v4, "the version");
    if sums & 2 != 0 {
        insert(frame, segment, frame.len() - 1, segment + field);
    }
    if sums & 1 != 0 {
        assert!(is_v4, "only IPv4 has one");
        insert(frame, network, segment - 1, network + 10);
    }
}
