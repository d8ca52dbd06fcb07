//! The command response buffer (PC Client Platform TPM Profile 1.05, 6.5.3): commands and
//! responses lie in memory, a control area says when.

use crate::TpmError;
use crate::poll::{self, Clock};
use crate::transport::{Registers, TIMEOUT_B, TIMEOUT_C, Transport};
use crate::wire::{HEADER_BYTES, declared_len};
use core::time::Duration;

/// Registers of the locality, before the control area.
pub(crate) const LOCALITY_CONTROL: usize = 0x08;
pub(crate) const LOCALITY_STATUS: usize = 0x0c;
pub(crate) const REQUEST_ACCESS: u32 = 1 << 0;
pub(crate) const RELINQUISH: u32 = 1 << 1;
pub(crate) const GRANTED: u32 = 1 << 0;

/// Registers of the control area.
pub(crate) const REQUEST: usize = 0x00;
pub(crate) const STATUS: usize = 0x04;
pub(crate) const CANCEL: usize = 0x08;
pub(crate) const START: usize = 0x0c;
const COMMAND_SIZE: usize = 0x18;
const COMMAND_LOW: usize = 0x1c;
const COMMAND_HIGH: usize = 0x20;
const RESPONSE_SIZE: usize = 0x24;
const RESPONSE_LOW: usize = 0x28;
const RESPONSE_HIGH: usize = 0x2c;

/// Bits of [`REQUEST`], cleared by the TPM when it has done so.
pub(crate) const GET_READY: u32 = 1 << 0;
pub(crate) const GO_IDLE: u32 = 1 << 1;
/// In [`STATUS`]: it has failed for good.
pub(crate) const FATAL: u32 = 1 << 0;

/// What a register without a device behind it reads as.
const NOTHING: u32 = u32::MAX;

/// Longest buffer that is used of a longer one.
const BUFFER_BYTES_MAX: usize = 4096;

/// The buffer of locality 0.
pub(crate) struct Crb<R, C> {
    /// The registers to ask for the locality with, if there are any.
    pub(crate) locality: Option<R>,
    pub(crate) control: R,
    pub(crate) command: Buffer<R>,
    pub(crate) response: Buffer<R>,
    pub(crate) clock: C,
}

/// One of the two buffers; they may be the same memory.
pub(crate) struct Buffer<R> {
    pub(crate) bytes: R,
    pub(crate) len: usize,
}

/// Where the command buffer and the response buffer are, and how long they are, as far
/// as they are used.
pub(crate) fn buffers(control: &impl Registers) -> [(u64, usize); 2] {
    let place = |size, low, high| {
        let [size, low, high] = [size, low, high].map(|at| control.read_u32(at));
        let phys = u64::from(high) << 32 | u64::from(low);
        (phys, (size as usize).min(BUFFER_BYTES_MAX))
    };
    [
        place(COMMAND_SIZE, COMMAND_LOW, COMMAND_HIGH),
        place(RESPONSE_SIZE, RESPONSE_LOW, RESPONSE_HIGH),
    ]
}

impl<R: Registers, C: Clock> Transport for Crb<R, C> {
    fn name(&self) -> &'static str {
        "CRB"
    }

    fn exchange(
        &self,
        command: &[u8],
        response: &mut [u8],
        within: Duration,
    ) -> Result<usize, TpmError> {
        self.claim()?;
        let done = self.transact(command, response, within);
        self.control.write_u32(REQUEST, GO_IDLE);
        if let Some(locality) = &self.locality {
            locality.write_u32(LOCALITY_CONTROL, RELINQUISH);
        }
        done
    }

    fn pause(&self, time: Duration) {
        self.clock.pause(time);
    }
}

impl<R: Registers, C: Clock> Crb<R, C> {
    fn transact(
        &self,
        command: &[u8],
        response: &mut [u8],
        within: Duration,
    ) -> Result<usize, TpmError> {
        self.control.write_u32(REQUEST, GET_READY);
        self.wait(&self.control, REQUEST, TIMEOUT_C, |r| r & GET_READY == 0)?;
        if command.len() > self.command.len {
            return Err(TpmError::TooLong);
        }
        for (at, byte) in command.iter().enumerate() {
            self.command.bytes.write_u8(at, *byte);
        }
        self.control.write_u32(START, 1);
        let answered = self.wait(&self.control, START, within, |s| s & 1 == 0);
        if let Err(why) = answered {
            self.cancel();
            return Err(why.instead_of_silence(TpmError::Silent));
        }
        match self.control.read_u32(STATUS) {
            NOTHING => Err(TpmError::Gone),
            status if status & FATAL != 0 => Err(TpmError::Failed),
            _ => self.receive(response),
        }
    }

    /// Waits until a register is as `wanted`.
    fn wait(
        &self,
        registers: &R,
        at: usize,
        within: Duration,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<(), TpmError> {
        let look = || match registers.read_u32(at) {
            NOTHING => Some(Err(TpmError::Gone)),
            value => wanted(value).then_some(Ok(())),
        };
        poll::until(&self.clock, within, look).unwrap_or(Err(TpmError::NotReady))
    }

    fn claim(&self) -> Result<(), TpmError> {
        let Some(locality) = &self.locality else {
            return Ok(());
        };
        locality.write_u32(LOCALITY_CONTROL, REQUEST_ACCESS);
        self.wait(locality, LOCALITY_STATUS, TIMEOUT_C, |s| s & GRANTED != 0)
            .map_err(|e| e.instead_of_silence(TpmError::NoLocality))
    }

    /// Has the TPM end the command that it is at.
    fn cancel(&self) {
        self.control.write_u32(CANCEL, 1);
        // What then comes is not wanted any more.
        let _ = self.wait(&self.control, START, TIMEOUT_B, |s| s & 1 == 0);
        self.control.write_u32(CANCEL, 0);
    }

    fn receive(&self, response: &mut [u8]) -> Result<usize, TpmError> {
        let byte = |at: usize| self.response.bytes.read_u8(at);
        let header: [u8; HEADER_BYTES] = core::array::from_fn(byte);
        let len = declared_len(&header);
        if len < HEADER_BYTES {
            return Err(TpmError::Malformed);
        }
        let response = response
            .get_mut(..len)
            .filter(|_| len <= self.response.len)
            .ok_or(TpmError::TooLong)?;
        for (at, place) in response.iter_mut().enumerate() {
            // The device may change the header under our eyes: what was checked counts.
            *place = header.get(at).copied().unwrap_or_else(|| byte(at));
        }
        Ok(len)
    }
}
