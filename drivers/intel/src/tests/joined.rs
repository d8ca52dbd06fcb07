//! Long segments that the device cuts.

use super::offload::{Kind, TCP, sent};
use super::*;
use crate::family::Cuts;
use net::Joined;

const SIZE: usize = 1448;
/// Which take both versions of IP, or one.
const CUTTING: [&Family; 3] = [&E1000E, &E1000E_MSIX, &IGB];

fn versions(family: &Family) -> &'static [bool] {
    match family.cuts {
        Cuts::Nothing => &[],
        Cuts::V4 => &[false],
        Cuts::Both => &[false, true],
    }
}

/// Bytes that show where they were cut.
fn data(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| (n ^ n >> 8).wrapping_mul(31) as u8)
        .collect()
}

/// A frame with one long segment, which begins at `sequence` and ends with `flags`.
fn long(kind: Kind, data: &[u8], sequence: u32, flags: u8) -> (Vec<u8>, Joined) {
    let mut frame = kind.frame(data);
    let at = kind.network() + if kind.v6 { 40 } else { 20 };
    frame[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[at + 12] = 5 << 4;
    frame[at + 13] = 0x10 | flags;
    let joined = Joined::prepare(&mut frame, kind.network(), SIZE).unwrap();
    (frame, joined)
}

/// The segments that are to leave of it.
fn wanted(kind: Kind, data: &[u8], sequence: u32, flags: u8) -> Vec<Vec<u8>> {
    let count = data.chunks(SIZE).count();
    let cut = data.chunks(SIZE).enumerate().map(|(n, part)| {
        let mut frame = kind.frame(part);
        let at = kind.network() + if kind.v6 { 40 } else { 20 };
        let place = sequence.wrapping_add((n * SIZE) as u32);
        frame[at + 4..at + 8].copy_from_slice(&place.to_be_bytes());
        frame[at + 12] = 5 << 4;
        frame[at + 13] = 0x10 | if n + 1 == count { flags } else { 0 };
        if !kind.v6 {
            let first = kind.network() + 4;
            let number = u16::from_be_bytes([frame[first], frame[first + 1]]);
            let number = number.wrapping_add(n as u16);
            frame[first..first + 2].copy_from_slice(&number.to_be_bytes());
        }
        let partial = net::PartialChecksum::prepare(&mut frame, kind.network(), kind.transport);
        partial.unwrap().complete(&mut frame);
        frame
    });
    cut.collect()
}

#[test]
fn a_long_segment_leaves_as_its_parts() {
    for family in CUTTING {
        let s = start(family, Made::default());
        for v6 in versions(family) {
            assert!(s.nic.joins(*v6));
            for is_tagged in [false, true] {
                let kind = Kind {
                    v6: *v6,
                    is_tagged,
                    ..TCP
                };
                for len in [SIZE + 1, 2 * SIZE, 5 * SIZE - 1, 59_000] {
                    for (sequence, flags) in [(7, 0), (u32::MAX - 2000, 8), (0, 9)] {
                        let data = data(len);
                        let (mut frame, joined) = long(kind, &data, sequence, flags);
                        let room = s.nic.room();
                        assert!(s.nic.transmit_joined(&mut frame, joined));
                        assert!(room - s.nic.room() <= len.div_ceil(SIZE));
                        s.nic.flush();
                        let wanted = wanted(kind, &data, sequence, flags);
                        let left = sent(&s.fake, wanted.len());
                        assert!(left == wanted, "{} {kind:?} {len}", family.name);
                        // Nothing of it is left, and the next one finds room.
                        while s.nic.room() < FRAMES {
                            assert!(s.nic.transmit(&[0; 60]));
                            s.nic.flush();
                            sent(&s.fake, 1);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn only_who_can_is_given_long_segments() {
    let s = start(&E1000, Made::default());
    assert!(!s.nic.joins(false) && !s.nic.joins(true));
    assert_eq!(s.nic.joined_max(), 0);
    let s = start(&E1000E, Made::default());
    assert!(s.nic.joins(false) && !s.nic.joins(true));
    s.fake.set_link(false);
    assert!(within(SOON, || !s.nic.is_up()));
    let hanging = Model {
        quirks: Quirks {
            hangs_in_reset: true,
            ..Quirks::default()
        },
        ..model(&E1000E)
    };
    let fake = Fake::new(&E1000E, Made::default());
    let (nic, _receiver) = Nic::open(fake, hanging, MTU).unwrap();
    assert!(!nic.joins(false));
    assert_eq!(nic.joined_max(), 0);
}

/// A frame that is cut, one that is completed and one that is finished, in all orders: each
/// with what it needs.
#[test]
fn kinds_of_frames_follow_each_other() {
    for family in CUTTING {
        let s = start(family, Made::default());
        let order = [0, 1, 0, 2, 1, 2, 0, 0, 1, 1, 2, 2];
        for kind in order.into_iter().cycle().take(400) {
            let count = match kind {
                0 => {
                    let (mut frame, joined) = long(TCP, &data(3 * SIZE), 1, 8);
                    assert!(s.nic.transmit_joined(&mut frame, joined));
                    3
                }
                1 => {
                    let (mut frame, partial) = TCP.partial(&[9; 100]);
                    assert!(s.nic.transmit_partial(&mut frame, partial));
                    1
                }
                _ => {
                    assert!(s.nic.transmit(&[3; 60]));
                    1
                }
            };
            s.nic.flush();
            let left = sent(&s.fake, count);
            let wanted = match kind {
                0 => wanted(TCP, &data(3 * SIZE), 1, 8),
                1 => vec![TCP.frame(&[9; 100])],
                _ => vec![vec![3; 60]],
            };
            assert!(left == wanted, "{} {kind}", family.name);
            assert!(s.nic.room() > 0);
        }
    }
}

/// One that does not fit is refused whole, and room comes back with what leaves.
#[test]
fn a_full_ring_takes_no_part_of_a_frame() {
    for family in CUTTING {
        let s = start(family, Made::default());
        s.fake.set_faults(Faults {
            keeps_frames: true,
            ..Faults::default()
        });
        let (frame, joined) = long(TCP, &data(20 * SIZE), 5, 0);
        let mut taken = 0;
        while s.nic.transmit_joined(&mut frame.clone(), joined) {
            taken += 1;
        }
        assert_eq!(taken, FRAMES / 20);
        let room = s.nic.room();
        assert_eq!(room, FRAMES - taken * frame.len().div_ceil(1518));
        s.nic.flush();
        assert_eq!(s.nic.status().sent.dropped, 20);
        s.fake.set_faults(Faults::default());
        let left = sent(&s.fake, taken * 20);
        let wanted = wanted(TCP, &data(20 * SIZE), 5, 0);
        assert!(left.chunks(20).all(|part| part == wanted));
        assert!(s.nic.transmit_joined(&mut frame.clone(), joined));
        let sent = s.nic.status().sent;
        assert_eq!(sent.frames, 20 * (taken as u64 + 1));
        let bytes: usize = wanted.iter().map(Vec::len).sum();
        assert_eq!(sent.bytes, bytes as u64 * (taken as u64 + 1));
    }
}
