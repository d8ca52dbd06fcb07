//! Processes, threads, signals, futexes and program start.
//!
//! A [`World`] is what a capsule's processes see of each other: it hands out pids,
//! knows the family tree, and nothing in it can name a process of another world.
//! A [`Process`] is what its [`Thread`]s share.
//!
//! # Locks, outermost first
//!
//! 1. the world's family tree,
//! 2. a process's signal state,
//! 3. a thread's pending signals.
//!
//! All are spin locks with short sections. What can wait (closing files, unmapping
//! memory, copies from and to the program) happens outside them.
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod clone;
mod core_dump;
mod cpu_limit;
pub mod elf;
mod error;
pub mod exec;
pub mod exit;
mod family;
pub mod fault;
pub mod futex;
pub mod ipc;
mod job;
pub mod limits;
mod login;
mod membarrier;
mod oom;
mod pidfd;
mod process;
pub mod procfs;
pub mod profile;
mod program;
mod rseq;
mod schedule;
pub mod seccomp;
pub mod signal;
mod signalfd;
mod slot;
mod spawn;
mod status;
pub mod terminal;
mod thread;
pub mod timers;
pub mod trace;
mod transfers;
mod unknown;
mod usage;
pub mod wait;
mod world;

pub use error::{Error, Result};
pub use login::Login;
pub use membarrier::Barrier;
pub use pidfd::PidFd;
pub use process::Process;
pub use program::{Invocation, Ready, prepare};
pub use schedule::{Policy, Schedule};
pub use signalfd::SignalFd;
pub use slot::Slot;
pub use spawn::Birth;
pub use status::{Change, ExitStatus};
pub use thread::{COMM_LEN, Thread};
pub use transfers::{Counter, Moved, Transfers};
pub use unknown::UnknownCalls;
pub use usage::{Counted, Times};
pub use world::{Events, HOST_NAME_MAX, Limited, World, WorldSpec};

/// The Linux release whose interface this is, as programs parse it (`uname -r`).
pub const RELEASE: &str = "6.1.0-skep";
/// The kernel's own version (`uname -v`).
pub const VERSION: &str = concat!("#1 SMP PREEMPT_DYNAMIC Skep ", env!("CARGO_PKG_VERSION"));

/// The number of a process, thread, process group or session in its world.
pub type Pid = u32;
