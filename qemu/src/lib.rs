//! The QEMU harness: starts nodes, talks to them, breaks them on purpose.
//!
//! A [`Machine`] says as data what hardware a node gets and what it boots; its
//! [`start`](Machine::start) gives a [`Node`], through which a scenario reads the
//! serial line, makes HTTP requests ([`http`]) and works QEMU itself ([`qmp`]).
//! Many nodes may run at once: host ports and folders are chosen when a node
//! starts. When a `Node` is dropped, or the process that holds it dies in any
//! way, QEMU is killed.
//!
//! Scenarios are the integration tests in `qemu/tests/`, one file per group and
//! one `#[test]` per scenario. `scripts/test` finds them by these names and runs
//! each by itself after everything they need has been built; each file has its
//! `[[test]]` entry in `qemu/Cargo.toml`. A scenario that
//! fails leaves its serial log in `target/qemu-logs/NAME/`. For example:
//!
//! ```no_run
//! use skep_qemu::{Firmware, Machine, seconds};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut node = Machine::new("page-survives-reset")
//!     .firmware(Firmware::Bios)
//!     .cpus(2)
//!     .memory_mib(256)
//!     .start()?;
//! let page = node.wait_http(8081, "/", seconds(30))?;
//! assert!(page.text().contains("nginx"));
//! node.qmp().execute("system_reset")?;
//! node.wait_http(8081, "/", seconds(30))?;
//! # Ok(())
//! # }
//! ```
//!
//! A scenario that needs other capsules than the standard ramdisk has, or faults
//! in what it boots, makes its own with [`ramdisk::Ramdisk`].
//!
//! What a scenario may rely on: the emulator is always TCG, never KVM, so that
//! every machine gives the same verdict; [`long`] tells whether the whole form
//! of a scenario was asked for (`scripts/test --long`).

pub mod ability;
pub mod api;
pub mod artifacts;
pub mod client;
pub mod code;
pub mod command;
pub mod compat;
pub mod dice;
pub mod disks;
pub mod gate;
pub mod gdb;
pub mod http;
pub mod kept_open;
pub mod lan;
pub mod machine;
pub mod medium;
mod nbd;
pub mod node;
pub mod qmp;
pub mod qtest;
pub mod ramdisk;
pub mod screen;
pub mod slots;
pub mod suite;
pub mod switch;
pub mod swtpm;
pub mod terminal;
pub mod trend;
pub mod twin;
pub mod volatile;

pub use artifacts::Artifacts;
pub use client::Visitor;
pub use machine::{Accel, Board, Bridges, Bus, Firmware, Machine};
pub use node::Node;
pub use volatile::VolatileDisk;

use std::time::Duration;

/// A duration of whole seconds, the unit of nearly every limit in a scenario.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Whether scenarios are to run in their whole form, not the short one.
pub fn long() -> bool {
    std::env::var_os("SKEP_LONG").is_some()
}
