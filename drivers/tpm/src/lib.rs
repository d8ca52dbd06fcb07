//! TPM 2.0: the trusted platform module, by the FIFO interface (TIS) or a command response
//! buffer (CRB), whichever the firmware's table names.
//!
//! [`find`] takes it into use; [`Tpm`] has the commands that a node needs: measuring
//! ([`Tpm::extend`]), random numbers, and a secret that opens only to a machine that was
//! started as before ([`Tpm::seal`]). Locality 0, no interrupts: whoever waits sleeps between
//! looks. Sources: TCG PC Client Platform TPM Profile 1.05 and TIS 1.3 for the interfaces,
//! TPM 2.0 Library 1.59 for the commands ("part" and a number below).
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

mod command;
mod crb;
mod error;
#[cfg(test)]
mod fake;
mod pcr;
mod poll;
mod seal;
#[cfg(test)]
mod swtpm_tests;
#[cfg(test)]
mod tests;
mod tis;
mod transport;
mod wire;

pub use command::{Description, Tpm};
pub use error::TpmError;
pub use pcr::{Bank, DIGEST_BYTES, Digest, PCR_COUNT, PcrSet};
pub use seal::SECRET_BYTES_MAX;

use alloc::boxed::Box;
use crb::{Buffer, Crb};
use machine::mmio::Mmio;
use machine::tpm::{self as place, Interface};
use poll::KernelClock;
use tis::Tis;
use transport::Transport;

/// Takes the machine's TPM into use; `None` if its firmware tells of none.
///
/// # Errors
/// [`TpmError`]: there is one, and it cannot be used.
pub fn find() -> Result<Option<Tpm>, TpmError> {
    let Some(interface) = place::find() else {
        return Ok(None);
    };
    let clock = KernelClock;
    let transport: Box<dyn Transport> = match interface {
        Interface::Fifo(registers) => Box::new(Tis { registers, clock }),
        Interface::Crb { locality, control } => Box::new(crb(locality, control)?),
        Interface::Other(method) => return Err(TpmError::NeedsFirmware(method)),
        Interface::Unreachable => return Err(TpmError::Gone),
    };
    Tpm::open(transport).map(Some)
}

fn crb(locality: Option<Mmio>, control: Mmio) -> Result<Crb<Mmio, KernelClock>, TpmError> {
    let map = |(phys, len)| {
        let bytes = place::buffer(phys, len).ok_or(TpmError::Gone)?;
        Ok(Buffer { bytes, len })
    };
    let [command, response] = crb::buffers(&control);
    Ok(Crb {
        locality,
        control,
        command: map(command)?,
        response: map(response)?,
        clock: KernelClock,
    })
}
