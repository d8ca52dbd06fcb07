//! What keeps devices from memory that is not theirs: Intel's VT-d (specification 4.1).
//!
//! Where the firmware tells of remapping units, each device gets a domain with page tables
//! of its own when its driver takes it into use ([`Reach`]). In it is what is lent to the
//! device now: rings and buffers as long as they live, pages of programs from the moment a
//! request is given to the device until it is done. A device without a driver has no
//! domain and reaches nothing. Addresses are physical ones: a device is told where its
//! memory is, as without an IOMMU, but gets nowhere else. Why so: `docs/adr/0006`.
//!
//! Interrupts are not remapped. Accesses that were refused are counted ([`tallies`]).

mod domain;
mod faults;
mod invalidate;
mod reach;
mod registers;
mod scope;
mod setup;
mod table;
#[cfg(test)]
mod tests;
mod unit;

pub use faults::{Fault, Tally};
pub use reach::Reach;
pub(crate) use reach::{StillReached, pages};
pub use setup::start;
pub use unit::UnitError;

use crate::error::AllocError;
use crate::firmware::dmar::{DmarError, UnitEntry};
use crate::irq::IrqEvent;
use crate::pci::{Device, PciError};
use crate::sync::Once;
use crate::thread::{self, Builder};
use crate::time::Instant;
use crate::wait::Until;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use faults::Tallies;
use scope::Bridges;
use unit::Unit;

/// Whether devices are kept from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The firmware tells of no IOMMU of Intel's.
    NotTold,
    /// What the firmware tells of it is no good.
    Refused(&'static str),
    /// No unit could be turned on.
    Failed(UnitError),
    /// They are.
    On {
        /// Major and minor version of the units.
        version: (u8, u8),
        /// Units that are on.
        units: usize,
        /// Units the firmware tells of.
        of: usize,
    },
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::NotTold => f.write_str("off (the firmware tells of none)"),
            Status::Refused(why) => write!(f, "off (the firmware's table DMAR: {why})"),
            Status::Failed(why) => write!(f, "off ({why})"),
            Status::On { version, units, of } => {
                let (major, minor) = version;
                write!(f, "on (VT-d {major}.{minor}, units {units}")?;
                if units < of {
                    write!(f, " of {of}")?;
                }
                f.write_str(")")
            }
        }
    }
}

/// The IOMMU of the machine.
struct Iommu {
    status: Status,
    /// Units as the firmware tells of them, and those of them that are on.
    entries: Vec<UnitEntry>,
    units: Vec<Option<&'static Unit>>,
    bridges: Bridges,
}

static IOMMU: Once<Iommu> = Once::new();
static TALLIES: Tallies = Tallies::new();

/// Whether devices are kept from memory.
#[must_use]
pub fn status() -> Status {
    IOMMU.get().map_or(Status::NotTold, |i| i.status)
}

/// What was refused since boot, for each device that tried.
#[must_use]
pub fn tallies() -> Vec<Tally> {
    TALLIES.list()
}

/// What `device` reaches; from now on that is what is lent to it, if a unit is on that has
/// it.
///
/// # Errors
/// [`PciError::NoDomain`].
pub(crate) fn reach_of(device: &Device) -> Result<Reach, PciError> {
    match IOMMU.get() {
        Some(iommu) => iommu.reach_of(device).map_err(|_| PciError::NoDomain),
        None => Ok(Reach::ALL),
    }
}

impl Iommu {
    fn reach_of(&self, device: &Device) -> Result<Reach, UnitError> {
        let number = self.bridges.unit_of(&self.entries, device.address);
        match number.and_then(|n| *self.units.get(n)?) {
            Some(unit) => {
                let names = self.bridges.names_of(device.address);
                unit.attach(&names).map(Reach::of)
            }
            None => Ok(Reach::ALL),
        }
    }
}

/// Reads the faults of all units on a thread of its own, counts them, and has `tell` hear
/// of each device now and then.
///
/// # Errors
/// No memory for the thread.
pub fn watch(mut tell: impl FnMut(&Tally) + Send + 'static) -> Result<(), AllocError> {
    /// The least time between two looks: a storm of faults costs no more.
    const REST: Duration = Duration::from_millis(50);
    /// Between two looks while something is to be told, or without interrupts.
    const PAUSE: Duration = Duration::from_secs(2);
    let units = IOMMU.get().map_or(&[][..], |i| &i.units);
    if !units.iter().any(Option::is_some) {
        return Ok(());
    }
    let event = IrqEvent::new("iommu");
    let message = event.as_ref().map(|e| e.message(0));
    let look = move || loop {
        for unit in units.iter().flatten() {
            unit.take_faults(|fault| TALLIES.add(fault));
        }
        while let Some(tally) = TALLIES.due(Instant::now()) {
            tell(&tally);
        }
        // A sleep without interruption ends at its time only.
        let _ = thread::sleep_until(Instant::now().after(REST), false);
        let is_idle = event.is_some() && !TALLIES.owes();
        let until = Until {
            deadline: (!is_idle).then(|| Instant::now().after(PAUSE)),
            interruptible: false,
        };
        match &event {
            // That no interrupt came is as good as one.
            Some(event) => drop(event.wait(until)),
            None => drop(thread::sleep_until(Instant::now().after(PAUSE), false)),
        }
    };
    Builder::new("iommu").spawn(look)?;
    if let Some(message) = message {
        units
            .iter()
            .flatten()
            .for_each(|u| u.interrupt_with(message));
    }
    Ok(())
}

impl From<DmarError> for Status {
    fn from(e: DmarError) -> Status {
        Status::Refused(e.words())
    }
}
