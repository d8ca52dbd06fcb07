//! The FIFO interface (TIS 1.3; PC Client Platform TPM Profile 1.05, 6.5.2): commands and
//! responses pass byte by byte through one register, as many at a time as the TPM says.

use crate::TpmError;
use crate::poll::{self, Clock};
use crate::transport::{Registers, TIMEOUT_A, TIMEOUT_B, TIMEOUT_C, TIMEOUT_D, Transport};
use crate::wire::{HEADER_BYTES, declared_len};
use core::time::Duration;
use machine::time::Instant;

/// Registers of a locality.
pub(crate) const ACCESS: usize = 0x00;
pub(crate) const STATUS: usize = 0x18;
pub(crate) const BURST_LOW: usize = 0x19;
pub(crate) const BURST_HIGH: usize = 0x1a;
pub(crate) const FIFO: usize = 0x24;

/// Bits of [`ACCESS`].
pub(crate) const ACCESS_VALID: u8 = 1 << 7;
pub(crate) const ACTIVE_LOCALITY: u8 = 1 << 5;
pub(crate) const REQUEST_USE: u8 = 1 << 1;

/// Bits of [`STATUS`].
pub(crate) const STATUS_VALID: u8 = 1 << 7;
pub(crate) const COMMAND_READY: u8 = 1 << 6;
pub(crate) const GO: u8 = 1 << 5;
pub(crate) const DATA_AVAILABLE: u8 = 1 << 4;
pub(crate) const EXPECT: u8 = 1 << 3;

/// How long the bytes of a command or a response may take together, which at the time-outs
/// for each of them could be an hour.
const TRANSFER: Duration = Duration::from_secs(5);

/// What a register without a device behind it reads as.
const NOTHING: u8 = 0xff;

/// The FIFO of locality 0.
pub(crate) struct Tis<R, C> {
    pub(crate) registers: R,
    pub(crate) clock: C,
}

impl<R: Registers, C: Clock> Transport for Tis<R, C> {
    fn name(&self) -> &'static str {
        "TIS"
    }

    fn exchange(
        &self,
        command: &[u8],
        response: &mut [u8],
        within: Duration,
    ) -> Result<usize, TpmError> {
        self.claim()?;
        let done = self.transact(command, response, within);
        // Makes it forget a command or the rest of a response, too.
        self.registers.write_u8(STATUS, COMMAND_READY);
        self.registers.write_u8(ACCESS, ACTIVE_LOCALITY);
        done
    }

    fn pause(&self, time: Duration) {
        self.clock.pause(time);
    }
}

impl<R: Registers, C: Clock> Tis<R, C> {
    fn transact(
        &self,
        command: &[u8],
        response: &mut [u8],
        within: Duration,
    ) -> Result<usize, TpmError> {
        self.make_ready()?;
        self.send(command)?;
        self.registers.write_u8(STATUS, GO);
        let answered = STATUS_VALID | DATA_AVAILABLE;
        self.wait_status(within, |s| s & answered == answered)
            .map_err(|e| e.instead_of_silence(TpmError::Silent))?;
        self.receive(response)
    }

    /// Makes locality 0 the active one.
    fn claim(&self) -> Result<(), TpmError> {
        let is_ours = || {
            let access = self.registers.read_u8(ACCESS);
            let wanted = ACCESS_VALID | ACTIVE_LOCALITY;
            match access {
                NOTHING => Some(Err(TpmError::Gone)),
                a => (a & wanted == wanted).then_some(Ok(())),
            }
        };
        if let Some(claimed) = is_ours() {
            return claimed;
        }
        self.registers.write_u8(ACCESS, REQUEST_USE);
        poll::until(&self.clock, TIMEOUT_A, is_ours).unwrap_or(Err(TpmError::NoLocality))
    }

    fn make_ready(&self) -> Result<(), TpmError> {
        let is_ready = |s: u8| s & COMMAND_READY != 0;
        let now = self.registers.read_u8(STATUS);
        if now != NOTHING && is_ready(now) {
            return Ok(());
        }
        self.registers.write_u8(STATUS, COMMAND_READY);
        self.wait_status(TIMEOUT_B, is_ready).map(drop)
    }

    /// Waits until the status is as `wanted`.
    fn wait_status(&self, within: Duration, wanted: impl Fn(u8) -> bool) -> Result<u8, TpmError> {
        let look = || match self.registers.read_u8(STATUS) {
            NOTHING => Some(Err(TpmError::Gone)),
            status => wanted(status).then_some(Ok(status)),
        };
        poll::until(&self.clock, within, look).unwrap_or(Err(TpmError::NotReady))
    }

    /// How many bytes of a transfer that began at `start` may pass now: never 0.
    fn burst(&self, start: Instant) -> Result<usize, TpmError> {
        if self.clock.now().since(start) > TRANSFER {
            return Err(TpmError::NotReady);
        }
        let look = || {
            let low = self.registers.read_u8(BURST_LOW);
            let high = self.registers.read_u8(BURST_HIGH);
            match u16::from_le_bytes([low, high]) {
                0 => None,
                u16::MAX => Some(Err(TpmError::Gone)),
                count => Some(Ok(usize::from(count))),
            }
        };
        poll::until(&self.clock, TIMEOUT_D, look).unwrap_or(Err(TpmError::NotReady))
    }

    fn is_valid_with(&self, bit: u8) -> Result<bool, TpmError> {
        let status = self.wait_status(TIMEOUT_C, |s| s & STATUS_VALID != 0)?;
        Ok(status & bit != 0)
    }

    fn send(&self, command: &[u8]) -> Result<(), TpmError> {
        let start = self.clock.now();
        let mut rest = command;
        while !rest.is_empty() {
            let count = self.burst(start)?.min(rest.len());
            let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            for byte in now {
                self.registers.write_u8(FIFO, *byte);
            }
            rest = later;
            // It wants more as long as there is more, and then no more.
            if self.is_valid_with(EXPECT)? == rest.is_empty() {
                return Err(TpmError::OutOfStep);
            }
        }
        Ok(())
    }

    fn receive(&self, response: &mut [u8]) -> Result<usize, TpmError> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header)?;
        let len = declared_len(&header);
        if len < HEADER_BYTES {
            return Err(TpmError::Malformed);
        }
        let response = response.get_mut(..len).ok_or(TpmError::TooLong)?;
        let (head, body) = response
            .split_first_chunk_mut()
            .ok_or(TpmError::Malformed)?;
        *head = header;
        self.read(body)?;
        match self.is_valid_with(DATA_AVAILABLE)? {
            true => Err(TpmError::Malformed),
            false => Ok(len),
        }
    }

    fn read(&self, mut out: &mut [u8]) -> Result<(), TpmError> {
        let start = self.clock.now();
        while !out.is_empty() {
            if !self.is_valid_with(DATA_AVAILABLE)? {
                return Err(TpmError::Malformed);
            }
            let count = self.burst(start)?.min(out.len());
            let (now, later) = out.split_at_mut_checked(count).ok_or(TpmError::Malformed)?;
            now.fill_with(|| self.registers.read_u8(FIFO));
            out = later;
        }
        Ok(())
    }
}
