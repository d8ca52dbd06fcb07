//! Resets for segments that belong to no connection (RFC 9293, 3.10.7.1).

use super::{ETHERNET_HEADER, NetNode};
use core::sync::atomic::{AtomicU64, Ordering};
use machine::time::Instant;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

/// Most resets and ICMP errors in a second: a scan must not turn us into a source of traffic.
const PER_SECOND: u64 = 1000;

/// How many answers were sent in the current second.
#[derive(Default)]
pub(super) struct Limit {
    second: AtomicU64,
    sent: AtomicU64,
}

impl Limit {
    /// Whether one more answer may be sent now.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now().0 / 1_000_000_000;
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.sent.store(0, Ordering::Relaxed);
        }
        self.sent.fetch_add(1, Ordering::Relaxed) < PER_SECOND
    }
}

impl NetNode {
    /// Refuses the segment in `packet`, which came from `from` to `to`.
    pub(super) fn refuse(&self, from: IpAddress, to: IpAddress, packet: &TcpPacket<&[u8]>) {
        let caps = ChecksumCapabilities::default();
        let Ok(segment) = TcpRepr::parse(packet, &from, &to, &caps) else {
            return;
        };
        if segment.control == TcpControl::Rst || !self.resets.take() {
            return;
        }
        let (seq, ack) = match segment.ack_number {
            Some(ack) => (ack, None),
            None => (
                TcpSeqNumber(0),
                Some(segment.seq_number + segment.segment_len()),
            ),
        };
        self.send_bare(
            (to, segment.dst_port),
            (from, segment.src_port),
            (TcpControl::Rst, seq, ack),
        );
    }

    /// Sends a segment without data.
    pub(crate) fn send_bare(
        &self,
        from: (IpAddress, u16),
        to: (IpAddress, u16),
        (control, seq_number, ack_number): (TcpControl, TcpSeqNumber, Option<TcpSeqNumber>),
    ) {
        let caps = ChecksumCapabilities::default();
        let reply = TcpRepr {
            src_port: from.1,
            dst_port: to.1,
            control,
            seq_number,
            ack_number,
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let ip = IpRepr::new(from.0, to.0, IpProtocol::Tcp, reply.buffer_len(), 64);
        let mut frame = [0; ETHERNET_HEADER + 40 + 20];
        let Some(frame) = frame.get_mut(..ETHERNET_HEADER + ip.buffer_len()) else {
            return;
        };
        let (_, packet) = frame.split_at_mut(ETHERNET_HEADER);
        ip.emit(&mut *packet, &caps);
        let Some(segment) = packet.get_mut(ip.header_len()..) else {
            return;
        };
        let mut segment = TcpPacket::new_unchecked(segment);
        reply.emit(&mut segment, &from.0, &to.0, &caps);
        self.transmit(to.0.into(), frame);
        self.flush();
    }
}
