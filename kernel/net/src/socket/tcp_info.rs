//! `TCP_INFO` (tcp(7)).

use super::{Kind, Socket};
use crate::error::{Error, Result};
use crate::wire::Info;
use alloc::vec::Vec;

/// Bytes of `struct tcp_info`, as Linux has it since 5.4.
const LEN: usize = 232;
/// Numbers of states in `net/tcp_states.h`.
const LISTEN: u8 = 10;

impl Socket {
    /// `struct tcp_info`. What is not known is 0: window of congestion and time-out, which
    /// the engine keeps to itself, and all but state and sizes of a connection over
    /// loopback, which has no segments.
    pub(super) fn tcp_info(&self) -> Result<Vec<u8>> {
        let Kind::Tcp(t) = &self.kind else {
            return Err(Error::NoOption);
        };
        let info = t
            .link()
            .ok()
            .and_then(|l| l.conn.as_ref().map(|c| c.info()));
        let info = info.unwrap_or_else(|| Info {
            state: if t.is_listening() { LISTEN } else { t.state() },
            ..Info::default()
        });
        Ok(encode(&info, self.stack.node().mtu()))
    }
}

/// Writes what is known of a connection over a link of that MTU.
fn encode(info: &Info, mtu: usize) -> Vec<u8> {
    let mut v = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = v.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    let (f, word) = (&info.figures, |n: usize| {
        u32::try_from(n).unwrap_or(u32::MAX)
    });
    put(0, &[info.state]);
    let mss = word(mtu.saturating_sub(40));
    let unacknowledged = word(info.unacknowledged).div_ceil(mss.max(1));
    for (at, n) in [
        (16, mss),
        (20, mss),
        (24, unacknowledged),
        (60, word(mtu)),
        (68, f.rtt),
        (72, f.rtt_variation),
        (84, mss),
        (100, f.retransmitted),
        (136, f.segments_out),
        (140, f.segments_in),
        (148, f.rtt_min),
        (152, f.data_segments_in),
        (156, f.data_segments_out),
    ] {
        put(at, &n.to_ne_bytes());
    }
    let acknowledged = f.bytes_taken.saturating_sub(info.unacknowledged as u64);
    for (at, n) in [
        (120, acknowledged),
        (128, f.bytes_received),
        (200, f.bytes_sent),
        (208, f.bytes_retransmitted),
    ] {
        put(at, &n.to_ne_bytes());
    }
    v.to_vec()
}
