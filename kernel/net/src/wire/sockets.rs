//! smoltcp sockets and their buffers, used again.
//!
//! smoltcp takes its two buffers when a socket is made and keeps them. They are
//! not the program's buffers (those are rings that grow by pages), but they bound
//! how much can be in flight. A stack has a budget for them, and every connection
//! takes at most a sixteenth of what is left: the first get 256 KiB each way, many
//! connections get less each, down to 8 KiB. Sockets that are done are kept for
//! the next connection, so that their buffers are not zeroed again.

use crate::error::{Error, Result};
use crate::spares::Spares;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::Account;
use machine::addr::PAGE_SIZE;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;

const BUFFER_MIN: usize = 8 << 10;
const BUFFER_MAX: usize = 256 << 10;
/// The budget of a stack, as a part of its memory and at least and at most.
const BUDGET_PART: usize = 8;
const BUDGET_MIN: usize = 512 << 10;
const BUDGET_MAX: usize = 8 << 20;
/// Most sockets kept for the next connection, and most bytes of their buffers.
const SPARE_MAX: usize = 32;
const SPARE_BYTES_MAX: usize = 2 << 20;

/// A socket with its buffers. Its pages are charged while it lives.
pub(crate) struct WireSocket {
    pub(super) set: SocketSet<'static>,
    pub(super) handle: SocketHandle,
    /// Bytes of each of its two buffers.
    size: usize,
    account: Arc<Account>,
    /// The pool's count of bytes in use, while this is in use.
    used: Option<Arc<AtomicUsize>>,
}

impl WireSocket {
    /// Whether both sides still send.
    pub(super) fn is_open(&mut self) -> bool {
        self.tcp().state() == tcp::State::Established
    }

    fn new(size: usize, account: &Arc<Account>) -> Result<WireSocket> {
        let pages = 2 * size / PAGE_SIZE;
        account.charge(pages)?;
        let buffer = || -> Result<Vec<u8>> {
            let mut v = Vec::new();
            v.try_reserve_exact(size)?;
            v.resize(size, 0);
            Ok(v)
        };
        let buffers = buffer().and_then(|a| Ok((a, buffer()?)));
        let (rx, tx) = buffers.inspect_err(|_| account.uncharge(pages))?;
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(tcp::Socket::new(
            tcp::SocketBuffer::new(rx),
            tcp::SocketBuffer::new(tx),
        ));
        Ok(WireSocket {
            set,
            handle,
            size,
            account: account.clone(),
            used: None,
        })
    }

    fn idle(&mut self) {
        if let Some(used) = self.used.take() {
            used.fetch_sub(2 * self.size, Ordering::Relaxed);
        }
    }

    pub(super) fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

impl Drop for WireSocket {
    fn drop(&mut self) {
        self.idle();
        self.account.uncharge(2 * self.size / PAGE_SIZE);
    }
}

/// Where a stack's connections get their sockets.
pub(crate) struct SocketPool {
    account: Arc<Account>,
    /// Bytes in sockets that are in use.
    used: Arc<AtomicUsize>,
    spare: Spares<WireSocket>,
}

impl SocketPool {
    pub(crate) fn new(account: Arc<Account>) -> SocketPool {
        SocketPool {
            account,
            used: Arc::new(AtomicUsize::new(0)),
            spare: Spares::new(),
        }
    }

    fn size(&self) -> usize {
        let memory = self.account.limit().saturating_mul(PAGE_SIZE);
        let budget = (memory / BUDGET_PART).clamp(BUDGET_MIN, BUDGET_MAX);
        let left = budget.saturating_sub(self.used.load(Ordering::Relaxed));
        let part = (left / 32).clamp(BUFFER_MIN, BUFFER_MAX);
        // A power of two: smoltcp's ring divides by it.
        1 << part.ilog2()
    }

    /// A socket that is closed.
    ///
    /// # Errors
    /// The account is at its limit, or memory has run out.
    pub(super) fn take(&self) -> Result<WireSocket> {
        let size = self.size();
        let mut socket = match self.spare.take(|s| s.size == size) {
            Some(s) => s,
            None => WireSocket::new(size, &self.account).map_err(|_| Error::NoBuffers)?,
        };
        self.used.fetch_add(2 * socket.size, Ordering::Relaxed);
        socket.used = Some(self.used.clone());
        Ok(socket)
    }

    /// Takes a socket back whose connection is over.
    pub(super) fn give(&self, mut socket: WireSocket) {
        socket.idle();
        let size = socket.size;
        self.spare.keep(socket, |kept| {
            let bytes: usize = kept.iter().map(|s| 2 * s.size).sum();
            kept.len() < SPARE_MAX && bytes + 2 * size <= SPARE_BYTES_MAX
        });
    }

    /// The capsule has ended: lets all spare sockets go, and keeps none from now on.
    pub(crate) fn close(&self) {
        self.spare.close();
    }
}
