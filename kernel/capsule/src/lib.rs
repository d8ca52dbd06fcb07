//! The capsule as a kernel object (design D3): what the owner signed, verified and
//! run, with nothing reachable outside it.
//!
//! * [`medium`], [`blobs`], [`image`]: content out of the ramdisk, hashed piece by
//!   piece when it is first touched (design D4).
//! * [`verify`]: which manifests the owner has signed.
//! * [`Capsules`] is the room, [`Capsule`] one start of a manifest; [`lifecycle`]
//!   is the way from a manifest to a running capsule and back to nothing, [`root`]
//!   its file tree, [`launch`] and [`exec`] its programs, [`log_ring`] what they
//!   print.
//! * [`status`] is what the node's screen shows, [`hardware`] what it is made of.
//! * [`disks`]: which capsule holds which of the node's disks; [`slots`]: the releases on
//!   the one that the node was started from, [`trial`] the first run of a new one.
//! * [`control`] answers the 3Bot over [`device`], with a [`session`] for each
//!   opening; [`events`] tells it what happens. The [`keeper`] is the room's own
//!   thread: it clears up and keeps the 3Bot alive (design D9, level 3). The [`guard`]
//!   feeds the hardware watchdog while all of that works (level 0).
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

pub mod blobs;
mod capsule;
mod control;
mod device;
mod disks;
pub mod events;
mod exec;
pub mod guard;
mod hardware;
pub mod image;
mod keeper;
mod launch;
mod lifecycle;
pub mod log_ring;
pub mod medium;
mod owners;
mod platform;
mod profile;
mod room;
mod root;
mod session;
mod slots;
mod status;
#[cfg(test)]
mod testing;
mod trial;
pub mod verify;

pub use capsule::Capsule;
pub use control::{KERNEL, SESSIONS_MAX};
pub use device::Device;
pub use disks::Disks;
pub use guard::Guard;
pub use owners::OwnersFiles;
pub use platform::{BootLog, Platform};
pub use room::{Capsules, Setup};
pub use slots::Started;
pub use status::StatusPage;
