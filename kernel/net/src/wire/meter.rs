//! What a connection measures of itself, for `TCP_INFO` (tcp(7)): the engine keeps its own
//! figures to itself, so they are taken from the segments that go by.

use super::sender::Parsed;
use core::time::Duration;
use machine::time::Instant;

/// Control bits that take a sequence number: FIN and SYN (RFC 9293, 3.4).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Sums and times of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Smoothed round-trip time and its variation (RFC 6298, 2), and the shortest one, in
    /// microseconds; 0 before the first.
    pub rtt: u32,
    /// See `rtt`.
    pub rtt_variation: u32,
    /// See `rtt`.
    pub rtt_min: u32,
    /// Segments that left, and those of them with data.
    pub segments_out: u32,
    /// See `segments_out`.
    pub data_segments_out: u32,
    /// Segments that came, and those of them with data.
    pub segments_in: u32,
    /// See `segments_in`.
    pub data_segments_in: u32,
    /// Segments that left again.
    pub retransmitted: u32,
    /// Bytes of data that left, with those that left again.
    pub bytes_sent: u64,
    /// Bytes of data that left again.
    pub bytes_retransmitted: u64,
    /// Bytes that the engine was given to send.
    pub bytes_taken: u64,
    /// Bytes that came in order.
    pub bytes_received: u64,
}

/// Measures one connection.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) figures: Figures,
    /// What follows the last number that left, once one did.
    next: Option<u32>,
    /// The number that the other side expects, as far as it said.
    expected: Option<u32>,
    /// The number whose acknowledgement is waited for, and since when. There is one at a
    /// time, and none of what left twice (RFC 6298, 3).
    timed: Option<(u32, Instant)>,
}

/// Whether number `a` is before `b`.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Meter {
    /// A segment leaves.
    pub(super) fn sent(&mut self, segment: &Parsed) {
        self.sent_at(segment, Instant::now);
    }

    fn sent_at(&mut self, segment: &Parsed, now: impl FnOnce() -> Instant) {
        let f = &mut self.figures;
        f.segments_out = f.segments_out.wrapping_add(1);
        if segment.data > 0 {
            f.data_segments_out = f.data_segments_out.wrapping_add(1);
            f.bytes_sent += segment.data as u64;
        }
        let controls = (segment.flags & (FIN | SYN)).count_ones();
        let (from, len) = (segment.sequence, segment.data as u32 + controls);
        if len == 0 {
            return;
        }
        let end = from.wrapping_add(len);
        match self.next {
            Some(next) if is_before(from, next) => {
                // A probe of what was acknowledged only asks whether anybody is there.
                if self.expected.is_none_or(|e| !is_before(from, e)) {
                    f.retransmitted = f.retransmitted.wrapping_add(1);
                    f.bytes_retransmitted += segment.data as u64;
                }
                self.timed = None;
                if is_before(next, end) {
                    self.next = Some(end);
                }
            }
            _ => {
                self.next = Some(end);
                if self.timed.is_none() {
                    self.timed = Some((end, now()));
                }
            }
        }
    }

    /// A segment came.
    pub(super) fn heard(&mut self, packet: &[u8]) {
        if let Some(segment) = Parsed::of(packet) {
            self.heard_at(&segment, Instant::now);
        }
    }

    fn heard_at(&mut self, segment: &Parsed, now: impl FnOnce() -> Instant) {
        let f = &mut self.figures;
        f.segments_in = f.segments_in.wrapping_add(1);
        if segment.data > 0 {
            f.data_segments_in = f.data_segments_in.wrapping_add(1);
        }
        let number = segment.acknowledged;
        let is_sent = self.next.is_some_and(|next| !is_before(next, number));
        if segment.flags & ACK == 0 || !is_sent {
            return;
        }
        if self.expected.is_none_or(|e| is_before(e, number)) {
            self.expected = Some(number);
        }
        if let Some((_, since)) = self.timed.take_if(|(end, _)| !is_before(number, *end)) {
            self.took(now().since(since));
        }
    }

    /// A round trip took this long.
    fn took(&mut self, time: Duration) {
        let f = &mut self.figures;
        // Not 0, which means that there was none.
        let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        if f.rtt == 0 {
            (f.rtt, f.rtt_variation, f.rtt_min) = (time, time / 2, time);
            return;
        }
        f.rtt_variation = f.rtt_variation - f.rtt_variation / 4 + f.rtt.abs_diff(time) / 4;
        f.rtt = f.rtt - f.rtt / 8 + time / 8;
        f.rtt_min = f.rtt_min.min(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, acknowledged: u32, flags: u8, data: usize) -> Parsed {
        Parsed {
            network: 20,
            headers: 40,
            sequence,
            acknowledged,
            flags,
            data,
        }
    }

    fn ms(n: u64) -> impl FnOnce() -> Instant {
        move || Instant(n * 1_000_000)
    }

    #[test]
    fn round_trips_are_timed_and_smoothed() {
        let mut m = Meter::default();
        // Numbers go round.
        let start = u32::MAX - 10;
        m.sent_at(&segment(start, 0, SYN, 0), ms(0));
        m.heard_at(&segment(7, start.wrapping_add(1), SYN | ACK, 0), ms(8));
        let f = m.figures;
        assert_eq!((f.rtt, f.rtt_variation, f.rtt_min), (8000, 4000, 8000));
        m.sent_at(&segment(start.wrapping_add(1), 8, ACK, 100), ms(10));
        // Not timed: there is one under way.
        m.sent_at(&segment(start.wrapping_add(101), 8, ACK, 100), ms(11));
        m.heard_at(&segment(8, start.wrapping_add(51), ACK, 0), ms(12));
        m.heard_at(&segment(8, start.wrapping_add(201), ACK, 0), ms(26));
        let f = m.figures;
        assert_eq!((f.rtt, f.rtt_variation, f.rtt_min), (9000, 5000, 8000));
        assert_eq!((f.segments_out, f.data_segments_out), (3, 2));
        assert_eq!((f.segments_in, f.data_segments_in), (3, 0));
        assert_eq!((f.bytes_sent, f.retransmitted), (200, 0));
    }

    #[test]
    fn what_leaves_again_is_counted_and_not_timed() {
        let mut m = Meter::default();
        m.sent_at(&segment(100, 0, ACK, 50), ms(0));
        m.sent_at(&segment(100, 0, ACK, 50), ms(1000));
        m.heard_at(&segment(1, 150, ACK, 3), ms(1005));
        let f = m.figures;
        assert_eq!((f.rtt, f.retransmitted, f.bytes_retransmitted), (0, 1, 50));
        assert_eq!((f.bytes_sent, f.data_segments_in), (100, 1));
        // A probe of a quiet connection.
        m.sent_at(&segment(149, 4, ACK, 1), ms(2000));
        assert_eq!(m.figures.retransmitted, 1);
        m.sent_at(&segment(150, 4, ACK, 10), ms(3000));
        m.heard_at(&segment(4, 160, ACK, 0), ms(3002));
        assert_eq!(m.figures.rtt, 2000);
        // A FIN that leaves again has no bytes.
        m.sent_at(&segment(160, 4, ACK | FIN, 0), ms(4000));
        m.sent_at(&segment(160, 4, ACK | FIN, 0), ms(5000));
        let f = m.figures;
        assert_eq!((f.retransmitted, f.bytes_retransmitted), (2, 50));
    }

    #[test]
    fn strangers_numbers_say_nothing() {
        let mut m = Meter::default();
        m.heard_at(&segment(1, 5, ACK, 0), ms(0));
        m.sent_at(&segment(100, 0, ACK, 50), ms(0));
        // Of what was never sent, and none at all.
        m.heard_at(&segment(1, 151, ACK, 0), ms(3));
        m.heard_at(&segment(1, 150, 0, 0), ms(4));
        assert_eq!(m.figures.rtt, 0);
        m.heard_at(&segment(1, 150, ACK, 0), ms(5));
        assert_eq!(m.figures.rtt, 5000);
        m.heard(&[]);
        m.heard(&[0x45; 30]);
    }
}
