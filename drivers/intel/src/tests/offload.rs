//! Checksums left to the device, and its word on those that came.

use super::*;
use net::{PartialChecksum, Transport};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

/// A packet of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) v6: bool,
    pub(super) transport: Transport,
    pub(super) is_tagged: bool,
}

pub(super) const TCP: Kind = Kind {
    v6: false,
    transport: Transport::Tcp,
    is_tagged: false,
};

impl Kind {
    pub(super) fn network(self) -> usize {
        if self.is_tagged { 18 } else { 14 }
    }

    /// A frame with `data` behind a header of TCP or UDP, and its checksums right.
    pub(super) fn frame(self, data: &[u8]) -> Vec<u8> {
        let address = |n: u16| match self.v6 {
            true => IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, n),
            false => IpAddress::v4(10, 0, 0, n as u8),
        };
        let (from, to) = (address(1), address(2));
        let (protocol, header) = match self.transport {
            Transport::Tcp => (IpProtocol::Tcp, 20),
            Transport::Udp => (IpProtocol::Udp, 8),
        };
        let ip = IpRepr::new(from, to, protocol, header + data.len(), 64);
        let mut frame = vec![0x11; self.network() + ip.buffer_len()];
        if self.is_tagged {
            frame[12..16].copy_from_slice(&[0x81, 0, 0, 9]);
        }
        let kind = if self.v6 { [0x86, 0xdd] } else { [8, 0] };
        frame[self.network() - 2..self.network()].copy_from_slice(&kind);
        let packet = &mut frame[self.network()..];
        ip.emit(&mut *packet, &ChecksumCapabilities::default());
        let segment = &mut packet[ip.header_len()..];
        segment[header..].copy_from_slice(data);
        match self.transport {
            Transport::Tcp => TcpPacket::new_unchecked(segment).fill_checksum(&from, &to),
            Transport::Udp => {
                let len = segment.len() as u16;
                let mut packet = UdpPacket::new_unchecked(segment);
                packet.set_len(len);
                packet.fill_checksum(&from, &to);
            }
        }
        frame
    }

    /// The same with what the device is to write left out.
    pub(super) fn partial(self, data: &[u8]) -> (Vec<u8>, PartialChecksum) {
        let mut frame = self.frame(data);
        let partial = PartialChecksum::prepare(&mut frame, self.network(), self.transport);
        (frame, partial.unwrap())
    }
}

fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for is_tagged in [false, true] {
        for v6 in [false, true] {
            for transport in [Transport::Tcp, Transport::Udp] {
                kinds.push(Kind {
                    v6,
                    transport,
                    is_tagged,
                });
            }
        }
    }
    kinds
}

/// What has left, once there is this much.
pub(super) fn sent(fake: &Fake, count: usize) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let end = Instant::now() + PATIENCE;
    while sent.len() < count && Instant::now() < end {
        sent.append(&mut fake.take_sent());
    }
    sent
}

#[test]
fn the_device_completes_what_is_partial() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        for kind in kinds() {
            for len in [0, 1, 2, 3, 700, 1400, 1399] {
                let data: Vec<u8> = (0..len).map(|n| (n * 7 + len) as u8).collect();
                let (mut frame, partial) = kind.partial(&data);
                assert_ne!(frame, kind.frame(&data));
                assert!(s.nic.transmit_partial(&mut frame, partial));
                s.nic.flush();
                let left = sent(&s.fake, 1);
                assert_eq!(left, [kind.frame(&data)], "{} {kind:?} {len}", family.name);
            }
        }
    }
}

#[test]
fn finished_frames_are_left_alone() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        // A fragment, wrong checksums, another protocol: all as they are, even behind a
        // frame that the device completes.
        let mut fragment = TCP.frame(&[7; 31]);
        fragment[14 + 6] = 0x20;
        let mut wrong = TCP.frame(&[7; 31]);
        wrong[14 + 20 + 16] ^= 0xff;
        let mut other = TCP.frame(&[7; 31]);
        other[14 + 9] = 132;
        for finished in [fragment, wrong, other, vec![3; 60]] {
            let (mut frame, partial) = TCP.partial(&[9; 100]);
            assert!(s.nic.transmit_partial(&mut frame, partial));
            assert!(s.nic.transmit(&finished));
            s.nic.flush();
            let left = sent(&s.fake, 2);
            assert_eq!(left, [TCP.frame(&[9; 100]), finished], "{}", family.name);
        }
    }
}

/// One context for many frames of a kind; one more after a reset, for the device has
/// forgotten it.
#[test]
fn a_context_is_told_once() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        let send = |kind: Kind| {
            let (mut frame, partial) = kind.partial(&[1; 50]);
            assert!(s.nic.transmit_partial(&mut frame, partial));
            s.nic.flush();
            assert_eq!(sent(&s.fake, 1), [kind.frame(&[1; 50])]);
        };
        (0..3 * transmit::COUNT).for_each(|_| send(TCP));
        assert_eq!(s.fake.contexts(), 1, "{}", family.name);
        send(Kind { v6: true, ..TCP });
        send(TCP);
        assert_eq!(s.fake.contexts(), 3, "{}", family.name);
        let resets = s.fake.resets();
        s.fake.set_faults(Faults {
            wrong_length: true,
            ..Faults::default()
        });
        assert!(s.fake.receive(&[0; 60]));
        assert!(within(SOON, || s.fake.resets() > resets));
        s.fake.set_faults(Faults::default());
        assert!(within(SOON, || s.nic.room() > 0 && s.nic.status().resets > 0));
        assert!(within(SOON, || s.fake.register(TCTL) & TCTL_ENABLE != 0));
        sleep(Duration::from_millis(50));
        send(TCP);
        assert_eq!(s.fake.contexts(), 4, "{}", family.name);
    }
}

/// Whatever room is told of is there, contexts or not, and none is lost when they alternate.
#[test]
fn contexts_take_room_and_give_it_back() {
    for family in FAMILIES {
        for reports_contexts in [false, true] {
            let s = start(family, Made::default());
            s.fake.set_faults(Faults {
                keeps_frames: true,
                reports_contexts,
                ..Faults::default()
            });
            let kinds = [TCP, Kind { v6: true, ..TCP }];
            let mut wanted = Vec::new();
            while s.nic.room() > 0 {
                let kind = kinds[wanted.len() % 2];
                let (mut frame, partial) = kind.partial(&[wanted.len() as u8; 40]);
                assert!(s.nic.transmit_partial(&mut frame, partial));
                wanted.push(kind.frame(&[wanted.len() as u8; 40]));
                s.nic.flush();
            }
            assert_eq!(wanted.len(), FRAMES);
            assert_eq!(s.nic.room(), 0, "a context is no frame that has left");
            s.fake.set_faults(Faults::default());
            assert!(within(PATIENCE, || s.nic.room() == FRAMES));
            assert_eq!(sent(&s.fake, wanted.len()), wanted, "{}", family.name);
        }
    }
}

#[test]
fn checksums_count_as_right_only_if_the_device_says_so() {
    let nothing = Checked::default();
    let both = Checked {
        header: true,
        transport: true,
    };
    let header = Checked {
        transport: false,
        ..both
    };
    let transport = Checked {
        header: false,
        ..both
    };
    for family in FAMILIES {
        let s = start(family, Made::default());
        // Bit 4 says "UDP" only where descriptors are extended.
        let udp = match family.shape {
            Shape::Legacy => nothing,
            Shape::Extended => transport,
        };
        let said = [
            (0, nothing),
            (0x60, both),
            (0x40, header),
            (0x20, transport),
            (0x10, udp),
            (0x60 | 1 << 2, nothing),
            (0x60 | 1 << 29, nothing),
            (0x60 | 1 << 30, nothing),
            (0x60 | 3 << 29, nothing),
            (0x60, both),
        ];
        for (n, (checks, wanted)) in said.into_iter().enumerate() {
            s.fake.set_faults(Faults {
                checks,
                ..Faults::default()
            });
            assert!(s.fake.receive(&[1; 60]));
            let got = || s.above.frames.lock().unwrap().len() == n + 1;
            assert!(within(PATIENCE, got), "{}", family.name);
            let checked = s.above.checked.lock().unwrap()[n];
            assert_eq!(checked, wanted, "{} {checks:x}", family.name);
        }
    }
}

/// The wrong context would be worse than none: what leaves is checked by protocol.
#[test]
fn frames_of_the_tests_are_right() {
    for kind in kinds() {
        let frame = kind.frame(&[5; 33]);
        let packet = &frame[kind.network()..];
        let (from, to, segment) = if kind.v6 {
            let p = Ipv6Packet::new_checked(packet).unwrap();
            (p.src_addr().into(), p.dst_addr().into(), p.payload())
        } else {
            let p = Ipv4Packet::new_checked(packet).unwrap();
            assert!(p.verify_checksum());
            (p.src_addr().into(), p.dst_addr().into(), p.payload())
        };
        assert!(match kind.transport {
            Transport::Tcp => TcpPacket::new_unchecked(segment).verify_checksum(&from, &to),
            Transport::Udp => UdpPacket::new_unchecked(segment).verify_checksum(&from, &to),
        });
    }
}
