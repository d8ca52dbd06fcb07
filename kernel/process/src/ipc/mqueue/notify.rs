//! Who is told when a message comes to an empty queue (mq_notify(3)).

use crate::Pid;
use alloc::sync::Weak;
use net::Socket;
use vfs::file::OpenFile;

/// Bytes that a thread that waits to be told is told (`NOTIFY_COOKIE_LEN`).
pub const COOKIE_LEN: usize = 32;
/// What their last one says then.
const WOKEN_UP: u8 = 1;
/// It will not be told any more.
const REMOVED: u8 = 2;

/// How a process is told.
#[derive(Clone, Debug)]
pub enum How {
    /// Not at all: only the place is taken (`SIGEV_NONE`).
    Nothing,
    /// By a signal, with a value (`SIGEV_SIGNAL`).
    Signal {
        /// Its number.
        number: u8,
        /// What goes with it.
        value: u64,
    },
    /// By a message on a netlink socket, from which a thread of the C library reads
    /// (`SIGEV_THREAD`). A socket that is closed hears nothing.
    Socket {
        /// Which.
        socket: Weak<OpenFile>,
        /// The message, but for its last byte.
        cookie: [u8; COOKIE_LEN],
    },
}

impl How {
    /// `sigev_notify`, as the status of a queue shows it.
    pub(super) fn kind(&self) -> u8 {
        match self {
            How::Signal { .. } => 0,
            How::Nothing => 1,
            How::Socket { .. } => 2,
        }
    }

    /// The number of the signal, or 0.
    pub(super) fn signal(&self) -> u8 {
        match self {
            How::Signal { number, .. } => *number,
            _ => 0,
        }
    }
}

/// Who is told when a message comes to the empty queue, once.
#[derive(Clone, Debug)]
pub struct Notify {
    /// The process.
    pub pid: Pid,
    /// How it is told.
    pub how: How,
}

impl Notify {
    /// A message has come. A signal is the caller's to send.
    pub(super) fn come(&self) {
        self.write(WOKEN_UP);
    }

    /// It is withdrawn, by the process, its end, or the end of a descriptor.
    pub(super) fn withdrawn(&self) {
        self.write(REMOVED);
    }

    fn write(&self, what: u8) {
        let How::Socket { socket, cookie } = &self.how else {
            return;
        };
        let Some(file) = socket.upgrade() else {
            return;
        };
        let mut message = *cookie;
        if let Some(last) = message.last_mut() {
            *last = what;
        }
        if let Some(socket) = file.downcast::<Socket>() {
            // One that is full loses the news, as on Linux.
            let _ = socket.deliver_netlink(&message);
        }
    }
}
