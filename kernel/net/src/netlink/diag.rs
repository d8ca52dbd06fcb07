//! Sockets as NETLINK_SOCK_DIAG tells of them (sock_diag(7)): those of the asker's own
//! capsule, all of a kind. A dump goes on as it is read, from the place where it was.

mod inet;
mod unix;

use super::reply::Reply;
use super::{HEADER, NLMSG_DONE, Request};
use crate::error::Result;
use crate::socket::Socket;
use crate::stack::NetStack;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The request, and the message that answers it.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Sockets of one datagram.
const BATCH: usize = 16;
const AF_UNIX: u8 = 1;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;

/// What is asked for.
enum Query {
    Inet(inet::Query),
    Unix(unix::Query),
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Sockets from this place on.
    Sockets(usize),
    /// Connections that no socket has any more, but for so many.
    Orphans(usize),
    Done,
}

/// A dump that is under way.
pub(super) struct Dump {
    request: Request,
    query: Query,
    stage: Stage,
}

/// A 32-bit word of a request.
fn word(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

impl Dump {
    /// The dump that `message` asks for; an error number if there is none.
    pub(super) fn new(
        request: Request,
        message: &[u8],
        stack: &NetStack,
    ) -> core::result::Result<Dump, i32> {
        let body = message.get(HEADER..).unwrap_or_default();
        let query = match request.family {
            super::AF_INET | super::AF_INET6 => Query::Inet(inet::Query::parse(body)?),
            AF_UNIX => Query::Unix(unix::Query::parse(body, stack)?),
            _ => return Err(ENOENT),
        };
        Ok(Dump {
            request,
            query,
            stage: Stage::Sockets(0),
        })
    }

    /// The next datagram, and whether it is the last.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn next(&mut self, stack: &NetStack) -> Result<(Vec<u8>, bool)> {
        let mut out = Reply::new(self.request);
        while out.bytes.is_empty() {
            self.stage = match self.stage {
                Stage::Sockets(place) => {
                    let (found, next) = stack.registry().from(place, BATCH)?;
                    for socket in &found {
                        self.query.tell(socket, &mut out)?;
                    }
                    match next == place {
                        true => Stage::Orphans(0),
                        false => Stage::Sockets(next),
                    }
                }
                Stage::Orphans(skip) => match &mut self.query {
                    Query::Inet(q) => {
                        q.orphans(stack, skip, BATCH, &mut out);
                        match out.bytes.is_empty() {
                            true => Stage::Done,
                            false => Stage::Orphans(skip + BATCH),
                        }
                    }
                    Query::Unix(_) => Stage::Done,
                },
                Stage::Done => {
                    out.message(NLMSG_DONE, |b| b.put(&0i32.to_ne_bytes()));
                    return Ok((out.bytes, true));
                }
            };
        }
        Ok((out.bytes, false))
    }
}

impl Query {
    fn tell(&mut self, socket: &Arc<Socket>, out: &mut Reply) -> Result<()> {
        match self {
            Query::Inet(q) => q.tell(socket, out),
            Query::Unix(q) => {
                q.tell(socket, out);
                Ok(())
            }
        }
    }
}
