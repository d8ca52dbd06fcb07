//! The file room: everything that is reached through a descriptor or a path.
//!
//! * [`file`]: what an open object can do ([`FileOps`]) and the open file
//!   description ([`OpenFile`]); [`fdtable`]: the descriptors of a process.
//! * [`inode`], [`dentry`], [`mount`], [`context`]: file trees, the name cache,
//!   and where a process stands in them.
//! * [`tmpfs`], [`devfs`], [`procfs`], [`sysfs`]: what trees are made of; [`block`]:
//!   disks.
//! * [`event`]: readiness for `poll` and `epoll`.
//!
//! A `read` comes here from the system-call layer as
//! [`FdTable::get`] → [`OpenFile::read`] → the object's [`FileOps`].
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod attrs;
pub mod block;
pub mod context;
pub mod cred;
pub mod dentry;
pub mod devfs;
pub mod entries;
pub mod epoll;
pub mod error;
pub mod event;
pub mod eventfd;
pub mod fdtable;
pub mod file;
pub mod inode;
pub mod inotify;
pub mod leases;
pub mod locks;
pub mod mount;
pub mod name;
pub mod open;
mod openflags;
pub mod pipe;
pub mod poll;
pub mod procfs;
pub mod pseudo;
pub mod seals;
mod seek;
pub mod sigio;
pub mod sysfs;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;
pub mod walk;
pub mod writers;

pub use context::FsContext;
pub use cred::{Caps, Credentials};
pub use dentry::Dentry;
pub use error::{Error, Result};
pub use event::{Events, Observer, PollHub};
pub use fdtable::FdTable;
pub use file::{FileOps, OpenFile, OpenFlags, Opening};
pub use inode::{Attr, Inode, Kind, Stat};
pub use mount::{FileSystem, Mount, Path, Tree};
pub use walk::{At, Caller, LastLink, Resolve};
