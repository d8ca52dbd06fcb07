//! Unix sockets (`linux/unix_diag.h`).

use super::super::reply::Reply;
use super::{AF_UNIX, EINVAL, SOCK_DIAG_BY_FAMILY, word};
use crate::addr::UnixName;
use crate::socket::Socket;
use crate::stack::NetStack;
use alloc::sync::Arc;
use alloc::vec::Vec;

const ENOMEM: i32 = 12;
/// Bytes of `struct unix_diag_req`.
const REQUEST: usize = 24;
/// Sockets looked at between two looks at the lock.
const STEP: usize = 64;
/// What can be shown, bit by bit.
const SHOW_NAME: u32 = 1;
const SHOW_FILE: u32 = 2;
const SHOW_PEER: u32 = 4;
const SHOW_QUEUES: u32 = 0x10;
/// Attributes.
const NAME: u16 = 0;
const FILE: u16 = 1;
const PEER: u16 = 2;
const QUEUES: u16 = 4;
const SHUTDOWN: u16 = 6;

/// A request for unix sockets.
pub(super) struct Query {
    states: u32,
    show: u32,
    /// Whose queue is whose: marks of what sockets read, with their numbers, in order.
    readers: Vec<(usize, u64)>,
}

impl Query {
    pub(super) fn parse(body: &[u8], stack: &NetStack) -> core::result::Result<Query, i32> {
        if body.len() < REQUEST {
            return Err(EINVAL);
        }
        let show = word(body, 12).ok_or(EINVAL)?;
        let readers = match show & SHOW_PEER {
            0 => Vec::new(),
            _ => readers(stack).map_err(|_| ENOMEM)?,
        };
        Ok(Query {
            states: word(body, 4).ok_or(EINVAL)?,
            show,
            readers,
        })
    }

    fn shows(&self, what: u32) -> bool {
        self.show & what != 0
    }

    /// The number of the socket that reads what is written to the queue of that mark; 0 if
    /// that is closed or was not accepted yet.
    fn reader(&self, mark: usize) -> u32 {
        let at = self.readers.binary_search_by_key(&mark, |(m, _)| *m);
        let found = at.ok().and_then(|at| self.readers.get(at));
        found.map_or(0, |(_, number)| *number as u32)
    }

    /// Tells of `socket` if it is one of those.
    pub(super) fn tell(&self, socket: &Arc<Socket>, out: &mut Reply) {
        let Some(facts) = socket.unix_facts() else {
            return;
        };
        if self.states >> (facts.state & 31) & 1 == 0 {
            return;
        }
        out.message(SOCK_DIAG_BY_FAMILY, |b| {
            b.put(&[AF_UNIX, facts.style, facts.state, 0]);
            b.put(&(socket.number() as u32).to_ne_bytes());
            b.put(&socket.number().to_ne_bytes());
            if self.shows(SHOW_NAME)
                && let Some(name) = text(&facts.name)
            {
                b.attribute(NAME, &name);
            }
            if let (true, UnixName::Path(_, Some(file))) = (self.shows(SHOW_FILE), &facts.name) {
                let [inode, device] = [file.ino as u32, file.dev as u32].map(u32::to_ne_bytes);
                b.attribute(FILE, &[inode, device].concat());
            }
            if self.shows(SHOW_PEER) && facts.marks.1 != 0 {
                b.attribute(PEER, &self.reader(facts.marks.1).to_ne_bytes());
            }
            if self.shows(SHOW_QUEUES) {
                let n = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
                b.attribute(QUEUES, &[n(facts.queues.0), n(facts.queues.1)].concat());
            }
            b.attribute(SHUTDOWN, &[facts.shut]);
        });
    }
}

/// A name as it is in `sun_path`.
fn text(name: &UnixName) -> Option<Vec<u8>> {
    let (before, bytes, after): (&[u8], _, &[u8]) = match name {
        UnixName::Unnamed => return None,
        UnixName::Abstract(bytes) => (b"\0", bytes, b""),
        UnixName::Path(bytes, _) => (b"", bytes, b"\0"),
    };
    Some([before, bytes, after].concat())
}

/// Marks of the queues that the unix sockets of `stack` read.
fn readers(stack: &NetStack) -> crate::error::Result<Vec<(usize, u64)>> {
    let (mut all, mut place) = (Vec::new(), 0);
    loop {
        let (found, next) = stack.registry().from(place, STEP)?;
        all.try_reserve(found.len())?;
        let unix = found
            .iter()
            .filter_map(|s| Some((s.as_unix()?, s.number())));
        all.extend(unix.map(|(u, number)| (u.incoming_mark(), number)));
        if next == place {
            break;
        }
        place = next;
        machine::thread::cond_resched();
    }
    all.sort_unstable();
    Ok(all)
}
