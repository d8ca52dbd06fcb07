//! One message that leaves as many datagrams (`UDP_SEGMENT`, udp(7)): programs that speak
//! QUIC hand over a window's worth of packets in one call.

use crate::error::{Error, Result};
use crate::interfaces::LOOPBACK_MTU;
use crate::stack::{NetStack, Route};
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Most datagrams that one message makes (`UDP_MAX_SEGMENTS` of Linux 6.9 and later).
const SEGMENTS_MAX: usize = 128;
/// Bytes of the headers of UDP over IPv4 and IPv6.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// Bytes of data in each datagram of a message of `len` to `to`, of which the program
/// wants `wanted` in each; `None` if it leaves as one.
///
/// # Errors
/// As `udp_send_skb` of Linux: [`Error::MessageSize`] if a datagram would not go out
/// whole, for none of them may be in fragments; [`Error::INVALID`] if there are too many;
/// [`Error::NetworkUnreachable`].
pub(super) fn size(
    stack: &NetStack,
    to: SocketAddr,
    wanted: u16,
    len: usize,
) -> Result<Option<usize>> {
    let wanted = usize::from(wanted);
    if wanted == 0 {
        return Ok(None);
    }
    let mtu = match stack.route(to.ip())? {
        Route::Local { .. } => LOOPBACK_MTU,
        Route::Wire { .. } => stack.node().mtu(),
    };
    let headers = if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    if headers + len.min(wanted) > mtu {
        return Err(Error::MessageSize);
    }
    if len > wanted * SEGMENTS_MAX {
        return Err(Error::INVALID);
    }
    Ok((len > wanted).then_some(wanted))
}

/// Shows `send` the datagrams of `size` bytes, the last one with what is left.
///
/// # Errors
/// No memory, and what `send` answers: those before it have left then.
pub(super) fn each(
    data: &[u8],
    size: usize,
    mut send: impl FnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    for part in data.chunks(size) {
        let mut datagram = Vec::new();
        datagram.try_reserve_exact(part.len())?;
        datagram.extend_from_slice(part);
        send(datagram)?;
    }
    Ok(())
}
