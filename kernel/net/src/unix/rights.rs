//! No cycles of sockets in flight.
//!
//! A socket that lies in a queue which only that socket keeps alive would never
//! be freed. Linux lets such cycles arise and collects them; here the send that
//! would close one fails with `ETOOMANYREFS`. A file in flight keeps alive what
//! waits in its own queues; so before a socket goes into a queue, everything
//! reachable through it is looked at, and must not be the queue's own reader.

use super::{Listener, Unix};
use crate::ancillary::Ancillary;
use crate::error::{Error, Result};
use crate::message::MessageQueue;
use crate::ring::Ring;
use crate::socket::Socket;
use crate::stream::Endpoint;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::sync::Mutex;
use smallvec::SmallVec;
use vfs::OpenFile;

/// Most sockets looked at for one message; more than that nested in each other is
/// nothing a program needs.
const LOOKED_AT_MAX: usize = 256;

/// Sends that carry sockets are checked one after the other, so that no two
/// together close a cycle that neither sees.
static CHECK: Mutex<()> = Mutex::new(());

/// Identity of a queue: the address of the object that holds it.
fn mark<T>(queue: &T) -> usize {
    core::ptr::from_ref(queue) as usize
}

/// Runs `send`, which puts `files` into the queues that `target` marks, unless
/// that closes a cycle.
///
/// # Errors
/// [`Error::TooManyReferences`], or what `send` gives.
pub(crate) fn check_loops<R>(
    files: &[Arc<OpenFile>],
    target: usize,
    send: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let sockets = || files.iter().any(|f| is_unix(f));
    if target == 0 || !sockets() {
        return send();
    }
    let _one = CHECK.lock();
    let mut todo: Vec<Arc<OpenFile>> = Vec::new();
    todo.try_reserve(files.len())?;
    todo.extend(files.iter().cloned());
    let mut looked_at: SmallVec<[u64; 16]> = SmallVec::new();
    while let Some(file) = todo.pop() {
        let Some(unix) = file.downcast::<Socket>().and_then(Socket::as_unix) else {
            continue;
        };
        if looked_at.contains(&file.id()) {
            continue;
        }
        if looked_at.len() >= LOOKED_AT_MAX {
            return Err(Error::TooManyReferences);
        }
        looked_at.push(file.id());
        let mut hit = false;
        unix.for_each_queue(&mut |queue, carries| {
            hit |= queue == target;
            carries(&mut |note| {
                let held = note.files.iter().flat_map(crate::ancillary::Files::iter);
                for f in held.filter(|f| is_unix(f)) {
                    if todo.try_reserve(1).is_ok() {
                        todo.push(f.clone());
                    } else {
                        hit = true;
                    }
                }
            });
        });
        if hit {
            return Err(Error::TooManyReferences);
        }
    }
    send()
}

fn is_unix(file: &OpenFile) -> bool {
    file.downcast::<Socket>()
        .is_some_and(|s| s.as_unix().is_some())
}

type Notes<'a> = dyn Fn(&mut dyn FnMut(&Ancillary)) + 'a;

impl Unix {
    /// Mark of the queue that what this socket sends without an address goes to.
    pub(crate) fn outgoing_mark(&self) -> usize {
        match (self.stream(), self.packets()) {
            (Some(e), _) => mark(e.outgoing()),
            (_, Some(e)) => mark(e.outgoing()),
            _ => self
                .peer
                .lock()
                .as_ref()
                .map_or(0, |(weak, _)| weak.as_ptr() as usize),
        }
    }

    /// Mark of the queue that it reads; 0 for none.
    pub(crate) fn incoming_mark(&self) -> usize {
        match (self.stream(), self.packets(), self.inbox()) {
            (Some(e), _, _) => mark(e.incoming()),
            (_, Some(e), _) => mark(e.incoming()),
            (_, _, Some(inbox)) => Arc::as_ptr(inbox) as usize,
            _ => 0,
        }
    }

    /// Every queue that lives as long as this socket does.
    fn for_each_queue(&self, f: &mut dyn FnMut(usize, &Notes<'_>)) {
        fn stream(e: &Endpoint<Ring>, f: &mut dyn FnMut(usize, &Notes<'_>)) {
            f(mark(e.incoming()), &|g| e.incoming().for_each_note(g));
        }
        fn packets(e: &Endpoint<MessageQueue>, f: &mut dyn FnMut(usize, &Notes<'_>)) {
            f(mark(e.incoming()), &|g| e.incoming().for_each_note(g));
        }
        if let Some(e) = self.stream() {
            stream(e, f);
        }
        if let Some(e) = self.packets() {
            packets(e, f);
        }
        if let Some(inbox) = self.inbox() {
            f(Arc::as_ptr(inbox) as usize, &|g| {
                inbox.queue().for_each_note(g);
            });
        }
        match self.listener.get() {
            Some(Listener::Stream(l)) => l.queue.for_each(|p| stream(&p.endpoint, f)),
            Some(Listener::Packets(l)) => l.queue.for_each(|p| packets(&p.endpoint, f)),
            None => {}
        }
    }
}
