//! USB: xHCI controllers, hubs, disks (Bulk-Only Transport) and keyboards.
//!
//! A controller has three kinds of threads. One takes its events and wakes who waits
//! for them ([`xhci`]). One, the bus thread, keeps the tree of devices as the ports
//! say it is: it alone gives addresses, takes devices away and sets them up again
//! ([`tree`]). Requests to disks run in the threads of those who make them.
//!
//! Nothing a device says is believed: lengths and numbers are checked, and every wait
//! has an end. A device that misbehaves is reset and set up again; a disk that comes
//! back as the same goes on as the same, and what was under way is tried again.
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

mod descriptor;
mod device;
mod hub;
mod keyboard;
mod storage;
mod tree;
mod work;
mod xhci;

#[cfg(test)]
mod tests;

pub use storage::UsbDisk;
pub use tree::Host;
pub use xhci::Counters;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use machine::bus::{Bus, PciBus};
use machine::keys::Key;
use machine::pci::{self, PciError};
use machine::thread;
use machine::time::Instant;

/// A limit of time. Devices that play dead in tests do so for a fifth of it.
const fn limit(ms: u64) -> Duration {
    Duration::from_millis(if cfg!(test) { ms / 5 } else { ms })
}

/// Sleeps; a sleep without interruption ends at its time only.
fn sleep(time: Duration) {
    let _ = thread::sleep_until(Instant::now().after(time), false);
}

/// What went wrong with a device or its controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsbError {
    /// It is not there any more.
    Gone,
    /// It did not answer in time.
    TimedOut,
    /// The device refused a request, or halted an endpoint.
    Stalled,
    /// A transfer went wrong on the wire, by this completion code of the controller.
    Transfer(u8),
    /// The controller refused a command with this completion code.
    Refused(u8),
    /// It says what cannot be.
    Nonsense(&'static str),
    /// It does not come to rest, or not back from a reset.
    NoReset,
    /// No memory, or none that the controller reaches.
    NoMemory,
    /// The controller's PCI side.
    Pci(PciError),
}

impl From<PciError> for UsbError {
    fn from(e: PciError) -> UsbError {
        UsbError::Pci(e)
    }
}

impl fmt::Display for UsbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsbError::Gone => f.write_str("it is not there any more"),
            UsbError::TimedOut => f.write_str("it does not answer"),
            UsbError::Stalled => f.write_str("it refuses a request"),
            UsbError::Transfer(code) => write!(f, "a transfer went wrong (code {code})"),
            UsbError::Refused(code) => write!(f, "the controller refuses (code {code})"),
            UsbError::Nonsense(what) => write!(f, "it says what cannot be: {what}"),
            UsbError::NoReset => f.write_str("it does not reset"),
            UsbError::NoMemory => f.write_str("no memory"),
            UsbError::Pci(e) => e.fmt(f),
        }
    }
}

/// How fast a device talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    /// 12 Mbit/s.
    Full,
    /// 1.5 Mbit/s.
    Low,
    /// 480 Mbit/s.
    High,
    /// 5 Gbit/s.
    Super,
    /// 10 Gbit/s and more.
    SuperPlus,
}

impl Speed {
    const ALL: [Speed; 5] = [
        Speed::Full,
        Speed::Low,
        Speed::High,
        Speed::Super,
        Speed::SuperPlus,
    ];

    /// The controller's number for it (xHCI 1.2, 7.2.2.1.1).
    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn from_number(number: u32) -> Option<Speed> {
        Speed::ALL.into_iter().find(|s| s.number() == number)
    }

    fn is_usb3(self) -> bool {
        matches!(self, Speed::Super | Speed::SuperPlus)
    }

    /// Bytes of a packet of the control endpoint before the device has told them.
    fn control_packet(self) -> u16 {
        match self {
            Speed::Low | Speed::Full => 8,
            Speed::High => 64,
            Speed::Super | Speed::SuperPlus => 512,
        }
    }
}

/// Where a device hangs: its root port, and the ports of the hubs behind it, four
/// bits each, the first lowest (a route string, xHCI 1.2, 8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    pub(crate) port: u8,
    pub(crate) route: u32,
}

impl Path {
    /// Hubs a route string has room for.
    const DEPTH_MAX: u32 = 5;

    /// How many hubs are before it.
    fn depth(self) -> u32 {
        (32 - self.route.leading_zeros()).div_ceil(4)
    }

    /// What hangs at `port` of the hub here; `None` where USB allows no more hubs.
    fn below(self, port: u8) -> Option<Path> {
        let depth = self.depth();
        if depth >= Path::DEPTH_MAX || !(1..=15).contains(&port) {
            return None;
        }
        Some(Path {
            port: self.port,
            route: self.route | u32::from(port) << (4 * depth),
        })
    }

    /// Whether it is `other` or behind it.
    fn is_within(self, other: Path) -> bool {
        let mask = (1u32 << (4 * other.depth())) - 1;
        self.port == other.port && self.route & mask == other.route
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)?;
        for level in 0..self.depth() {
            write!(f, ".{}", self.route >> (4 * level) & 0xf)?;
        }
        Ok(())
    }
}

/// A port as its hub or controller says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortState {
    pub(crate) is_connected: bool,
    /// Something was plugged in or pulled since the last look.
    pub(crate) has_changed: bool,
}

/// What is above the drivers. The calls come on threads of the drivers.
pub trait Above: Send + Sync {
    /// A disk is there and can be used.
    fn disk_added(&self, disk: Arc<UsbDisk>);

    /// A disk is there no more; it was pulled, or it has been given up. Its observer
    /// has heard of that already.
    fn disk_gone(&self, disk: &Arc<UsbDisk>);

    /// A key was pressed. It must not wait.
    fn key(&self, key: Key);
}

const CLASS_SERIAL_BUS: u8 = 0x0c;
const SUBCLASS_USB: u8 = 0x03;
const INTERFACE_XHCI: u8 = 0x30;

/// Whether a PCI function is an xHCI controller.
#[must_use]
pub fn is_controller(pci: &pci::Device) -> bool {
    (pci.class, pci.subclass, pci.interface) == (CLASS_SERIAL_BUS, SUBCLASS_USB, INTERFACE_XHCI)
}

/// Takes the controller `pci` into use as bus number `number`.
///
/// # Errors
/// [`UsbError`].
pub fn start(pci: &pci::Device, number: u8, above: Arc<dyn Above>) -> Result<Arc<Host>, UsbError> {
    let bus = PciBus::open(pci, 0, "xhci", 1)?;
    start_on(Box::new(bus), number, above)
}

fn start_on(bus: Box<dyn Bus>, number: u8, above: Arc<dyn Above>) -> Result<Arc<Host>, UsbError> {
    Host::start(xhci::Controller::open(bus, number)?, above)
}
