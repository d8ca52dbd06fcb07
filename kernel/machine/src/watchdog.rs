//! Hardware watchdogs: what drivers provide.

use crate::pci::Address;
use core::fmt;
use core::time::Duration;

/// Why a watchdog cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogError {
    /// The machine's wiring or its firmware keeps it from resetting anything.
    Disabled,
    /// It does not do what it is told.
    Broken,
}

impl fmt::Display for WatchdogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WatchdogError::Disabled => "it is kept from resetting the machine",
            WatchdogError::Broken => "it does not do what it is told",
        })
    }
}

/// A device that resets the machine when it is not fed for some time.
pub trait Watchdog: Send + Sync {
    /// What it is, such as `iTCO`.
    fn name(&self) -> &'static str;

    /// The PCI function that it is a part of.
    fn address(&self) -> Address;

    /// Whether it was this device that reset the machine before this boot.
    fn has_fired(&self) -> bool;

    /// Lets it run: it resets the machine when it was not fed for about `timeout`.
    /// The time that it really takes, at most `timeout`.
    ///
    /// # Errors
    /// [`WatchdogError`]; then it is not running.
    fn start(&self, timeout: Duration) -> Result<Duration, WatchdogError>;

    /// All is well: its time begins anew. Does not wait.
    fn feed(&self);

    /// Stops it, before the machine goes down in order.
    fn stop(&self);
}
