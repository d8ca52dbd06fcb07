//! Datagrams that are sent in parts (`MSG_MORE`, udp(7)).

use super::{DATAGRAM_MAX, Header, Udp};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::stack::NetStack;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use machine::PageCharge;
use machine::addr::PAGE_SIZE;
use machine::sync::SpinLock;

/// A datagram that is not whole yet.
struct Part {
    to: Option<SocketAddr>,
    header: Header,
    data: Vec<u8>,
    _charge: PageCharge,
}

/// What a socket has gathered.
#[derive(Default)]
pub(super) struct Joined {
    /// Whether there is something, to look at without the lock.
    begun: AtomicBool,
    part: SpinLock<Option<Part>>,
}

/// What is to be sent: where to, with which header.
type Whole = (Option<SocketAddr>, Header, Message);

impl Udp {
    /// Whether a part of a datagram came and the last one did not.
    #[inline]
    pub(crate) fn is_joining(&self) -> bool {
        self.joined.begun.load(Relaxed)
    }

    /// Takes `message` in as a part of a datagram, which `more` follow or not; the
    /// datagram, once it is whole. The first part says where it goes.
    ///
    /// # Errors
    /// [`Error::DestinationRequired`]; [`Error::MessageSize`], and what was gathered is
    /// lost; no memory.
    pub(crate) fn join(
        &self,
        stack: &NetStack,
        (to, header, message): Whole,
        more: bool,
    ) -> Result<Option<Whole>> {
        let begun = &self.joined.begun;
        if to.is_none() && self.remote().is_err() {
            return Err(Error::DestinationRequired);
        }
        // How it is cut is settled with the first part, too.
        let header = Header {
            segment: Some(header.segment(&self.core.options)),
            ..header
        };
        let charge = stack.account().hold(DATAGRAM_MAX.div_ceil(PAGE_SIZE))?;
        let mut slot = self.joined.part.lock();
        let mut part = slot.take().unwrap_or(Part {
            to,
            header,
            data: Vec::new(),
            _charge: charge,
        });
        begun.store(false, Relaxed);
        if part.data.len() + message.data.len() > DATAGRAM_MAX {
            return Err(Error::MessageSize);
        }
        part.data.try_reserve(message.data.len())?;
        part.data.extend_from_slice(&message.data);
        if more {
            *slot = Some(part);
            begun.store(true, Relaxed);
            return Ok(None);
        }
        let whole = Message {
            data: part.data,
            ..message
        };
        Ok(Some((part.to, part.header, whole)))
    }
}
