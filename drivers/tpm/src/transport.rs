//! What the two interfaces have in common.

use crate::TpmError;
use core::time::Duration;
use machine::mmio::Mmio;

/// Time-outs of the interface (TIS 1.3, table 15): those of its younger form, the PC Client
/// profile 1.05, are the same or shorter.
pub(crate) const TIMEOUT_A: Duration = Duration::from_millis(750);
pub(crate) const TIMEOUT_B: Duration = Duration::from_secs(2);
pub(crate) const TIMEOUT_C: Duration = Duration::from_millis(750);
pub(crate) const TIMEOUT_D: Duration = Duration::from_millis(750);

/// A way to the TPM.
pub(crate) trait Transport: Send + Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Sends a command and waits for its response, whose length is returned: at least that
    /// of a header, and what the header says.
    ///
    /// # Errors
    /// [`TpmError`]; the TPM has been told to forget the command.
    fn exchange(
        &self,
        command: &[u8],
        response: &mut [u8],
        within: Duration,
    ) -> Result<usize, TpmError>;

    /// Lets time pass.
    fn pause(&self, time: Duration);
}

/// Registers, wherever they are.
pub(crate) trait Registers: Send + Sync {
    fn read_u8(&self, at: usize) -> u8;
    fn write_u8(&self, at: usize, value: u8);
    fn read_u32(&self, at: usize) -> u32;
    fn write_u32(&self, at: usize, value: u32);
}

impl Registers for Mmio {
    fn read_u8(&self, at: usize) -> u8 {
        Mmio::read_u8(self, at)
    }

    fn write_u8(&self, at: usize, value: u8) {
        Mmio::write_u8(self, at, value);
    }

    fn read_u32(&self, at: usize) -> u32 {
        Mmio::read_u32(self, at)
    }

    fn write_u32(&self, at: usize, value: u32) {
        Mmio::write_u32(self, at, value);
    }
}
