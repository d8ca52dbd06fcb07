//! System calls: where a program's request becomes a call into a room.
//!
//! [`table`] names every call once: number, name, handler, arguments, and how
//! complete it is. Dispatch, trace names, the counters of unknown calls and
//! `docs/compatibility.md` all come from it.
//!
//! A handler decodes its arguments, calls the room and turns the answer into a
//! number; it reads like its man page. This crate is the only one that knows
//! `errno` ([`Errno`]). There is one file per family of calls.
//!
//! The path of a call: trap → [`hooks`] → [`table::dispatch`] → handler.
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

#[cfg(test)]
mod account_tests;
mod adjtime;
mod attrs;
#[cfg(test)]
mod compatibility;
mod convert;
#[cfg(test)]
mod core_tests;
mod ctx;
#[cfg(test)]
mod debug_tests;
mod errno;
mod events;
mod exec;
mod fcntl;
mod file;
#[cfg(test)]
mod files_tests;
mod fs;
mod futex;
mod hints;
#[cfg(test)]
mod hints_tests;
pub mod hooks;
mod ids;
mod ipc;
mod kcmp;
mod lease;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod limits_tests;
mod memory;
#[cfg(test)]
mod memory_tests;
mod misc;
mod names;
mod path;
#[cfg(test)]
mod pi_tests;
mod pidfd;
mod policy;
mod poll;
mod prctl;
mod process;
mod process_vm;
mod ptrace;
#[cfg(test)]
mod ptrace_tests;
#[cfg(test)]
mod rseq_tests;
#[cfg(test)]
mod scenario_tests;
mod sched;
mod seccomp;
#[cfg(test)]
mod seccomp_tests;
mod sigio;
mod signal;
mod socket;
mod stat;
pub mod table;
mod terminal;
#[cfg(test)]
mod terminal_tests;
#[cfg(test)]
mod testing;
mod time;
mod time_types;
mod timer;
mod transfer;
mod usage;

pub use ctx::Ctx;
pub use errno::{Errno, SysResult};
