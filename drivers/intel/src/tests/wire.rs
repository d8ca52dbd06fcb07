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

/// What leaves of a frame whose buffers these are, the words of one descriptor each.
pub(super) fn frames(
    layout: Layout,
    parts: &[[u64; 2]],
    context: Option<[u64; 2]>,
) -> Vec<Vec<u8>> {
    let mut frame = Vec::new();
    for (n, [address, high]) in parts.iter().enumerate() {
        let mut bytes = vec![0; (high & 0xffff) as usize];
        assert!(device_read(*address, &mut bytes));
        frame.append(&mut bytes);
        // With a CRC; the end of a frame, to be told of, is where it ends.
        let is_last = n + 1 == parts.len();
        let command = if is_last { 0b1011 } else { 0b0010 };
        assert_eq!(high >> 24 & 0b1011, command);
    }
    let [_, high] = parts[0];
    let cut = match layout {
        Layout::Extended => 26,
        Layout::Advanced => 31,
    };
    let is_cut = high >> cut & 1 == 1;
    for [_, other] in parts {
        assert_eq!(other >> cut & 1 == 1, is_cut);
        assert_eq!(other >> 29 & 1, high >> 29 & 1);
        assert_eq!(other >> 20 & 0xf, high >> 20 & 0xf);
    }
    if is_cut {
        return segments(layout, &frame, high, context.expect("a context"));
    }
    assert_eq!(parts.len(), 1);
    vec![whole(layout, frame, high, context)]
}

/// A frame as it leaves that is not cut.
fn whole(layout: Layout, mut frame: Vec<u8>, high: u64, context: Option<[u64; 2]>) -> Vec<u8> {
    let is_extended = high >> 29 & 1 == 1;
    let sums = high >> 40 & 3;
    match layout {
        Layout::Extended if is_extended => {
            assert_eq!(high >> 20 & 0xf, 1, "data");
            let context = context.expect("a context");
            assert_eq!(context[1] >> 26 & 1, 0, "one that cuts");
            positions(&mut frame, sums, context);
        }
        Layout::Extended => assert_eq!(high >> 32, 0, "a legacy one has no options here"),
        Layout::Advanced => {
            assert!(is_extended && high >> 20 & 0xf == 3, "data");
            assert_eq!((high >> 46) as usize, frame.len(), "the whole length");
            if sums != 0 {
                lengths(&mut frame, sums, context.expect("a context"));
            }
        }
    }
    frame
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The segments of a frame that is cut (8254x, 3.5; 82576, 7.2.4): each with a copy of the
/// headers, to which its lengths, its place and checksums are added.
fn segments(layout: Layout, frame: &[u8], high: u64, context: [u64; 2]) -> Vec<Vec<u8>> {
    let [low, told] = context;
    let network = match layout {
        Layout::Extended => (low & 0xff) as usize,
        Layout::Advanced => (low >> 9 & 0x7f) as usize,
    };
    let is_v4 = frame[network] >> 4 == 4;
    let segment = match layout {
        Layout::Extended => (low >> 32 & 0xff) as usize,
        Layout::Advanced => network + (low & 0x1ff) as usize,
    };
    let (header, size) = ((told >> 40 & 0xff) as usize, (told >> 48) as usize);
    let headers = match layout {
        Layout::Extended => {
            assert_eq!(told >> 26 & 1, 1, "the context cuts");
            assert_eq!((told & 0xf_ffff) as usize, frame.len() - header, "data");
            header
        }
        Layout::Advanced => {
            assert_eq!(
                (high >> 46) as usize,
                frame.len() - segment - header,
                "data"
            );
            segment + header
        }
    };
    assert_eq!(headers, segment + usize::from(frame[segment + 12] >> 4) * 4);
    let length = network + if is_v4 { 2 } else { 4 };
    assert_eq!(be16(frame, length), 0, "the length is the device's");
    let (head, data) = frame.split_at(headers);
    let sequence = u32::from_be_bytes(head[segment + 4..segment + 8].try_into().unwrap());
    let count = data.chunks(size).count();
    let cut = data.chunks(size).enumerate().map(|(n, data)| {
        let mut frame = [head, data].concat();
        let len = frame.len() - if is_v4 { network } else { network + 40 };
        frame[length..length + 2].copy_from_slice(&(len as u16).to_be_bytes());
        if is_v4 {
            let number = be16(head, network + 4).wrapping_add(n as u16);
            frame[network + 4..network + 6].copy_from_slice(&number.to_be_bytes());
        }
        let place = sequence.wrapping_add((n * size) as u32);
        frame[segment + 4..segment + 8].copy_from_slice(&place.to_be_bytes());
        if n + 1 < count {
            frame[segment + 13] &= !0b1001;
        }
        // The length belongs to the pseudo-header.
        let sum = u32::from(be16(head, segment + 16)) + (frame.len() - segment) as u32;
        let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
        frame[segment + 16..segment + 18].copy_from_slice(&sum.to_be_bytes());
        let sums = high >> 40 & 3;
        match layout {
            Layout::Extended => positions(&mut frame, sums, context),
            Layout::Advanced => lengths(&mut frame, sums, context),
        }
        frame
    });
    cut.collect()
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
