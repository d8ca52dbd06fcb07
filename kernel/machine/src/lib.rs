//! The machine room: the one crate that may use `unsafe`.
//!
//! It turns a bare x86-64 machine into safe building blocks, and nothing more:
//! physical [`frame`]s, user [`paging`], [`thread`]s and [`wait`] queues,
//! [`sync`] locks, [`time`], copies from and to [`user`] memory, interrupts and
//! devices, the crash record. Every room above is safe Rust over this API.
//!
//! Two back ends implement it: `x86` on the metal and `host` under an ordinary
//! operating system, so that all rooms above are tested with `cargo test`.
//!
//! # Rules the rooms above rely on
//!
//! * Kernel code is never preempted in kernel mode; it yields where it waits
//!   and where it calls [`thread::cond_resched`].
//! * Interrupt handlers only wake threads; no room code runs in them.
//! * A [`sync::SpinLock`] is never held across a wait or a user-memory copy.
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
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod account;
pub mod addr;
pub mod block;
mod breakpoints;
pub mod bus;
pub mod chipset;
pub mod cpu;
pub mod dma;
pub mod error;
#[cfg_attr(
    not(target_os = "none"),
    allow(dead_code, reason = "the host has no firmware")
)]
mod firmware;
mod fpu;
pub mod frame;
pub mod framebuffer;
pub mod health;
pub mod inventory;
pub mod io;
#[cfg_attr(
    not(target_os = "none"),
    allow(dead_code, reason = "the host has no IOMMU")
)]
pub mod iommu;
pub mod irq;
pub mod keys;
pub mod klog;
pub mod mmio;
mod nice;
#[cfg_attr(
    not(target_os = "none"),
    allow(dead_code, reason = "the host schedules itself")
)]
mod ordered;
pub mod paging;
pub mod panic_screen;
pub mod pci;
pub mod port;
#[cfg(target_os = "none")]
pub mod power;
pub mod random;
mod run_time;
pub mod sample;
#[cfg(any(target_os = "none", test))]
mod scale;
pub mod serial;
mod switches;
pub mod sync;
pub mod thread;
#[cfg(any(target_os = "none", test))]
mod tick;
pub mod time;
pub mod timer;
pub mod topology;
pub mod tpm;
pub mod user;
pub mod vdso;
pub mod virtio;
pub mod wait;
pub mod watchdog;

#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub use x86::crash;
#[cfg(target_os = "none")]
mod x86;
#[cfg(target_os = "none")]
use x86 as arch;

#[cfg(not(target_os = "none"))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    reason = "for tests only"
)]
pub mod host;
#[cfg(not(target_os = "none"))]
use host as arch;

pub use account::{Account, FileCharge, Objects, PageCharge};
pub use error::{AllocError, Fault, WaitError};
pub use frame::Frame;
