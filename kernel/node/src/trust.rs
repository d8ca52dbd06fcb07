//! The TPM of this machine, where it has one.

mod key;
mod measure;

pub(crate) use key::NodeKey;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use skep_api::boot::measured::{
    PCR_AUTHORITY, PCR_CONFIGURATION, PCR_IMAGE, PCR_LOADER, PCR_SECURE_BOOT,
};
use skep_api::control::hardware::{Measurement, Register, Tpm as Report};
use skep_api::hash::hex;
use skep_tpm::{Tpm, TpmError};

/// Registers that are told.
const TOLD: [u32; 5] = [
    PCR_LOADER,
    PCR_SECURE_BOOT,
    PCR_IMAGE,
    PCR_CONFIGURATION,
    PCR_AUTHORITY,
];

/// The TPM, or why there is none in use.
pub(crate) struct Trust {
    tpm: Result<Option<Tpm>, TpmError>,
    /// What the TPM was told of this start.
    log: Vec<Measurement>,
    /// All of it was told, and written down.
    is_complete: bool,
    /// The loader was measured by the firmware, and has measured who signed the release.
    is_loader_measured: bool,
}

impl Trust {
    /// Takes the TPM into use. A machine whose firmware tells of none loses no time here.
    #[inline(never)]
    pub(crate) fn find() -> Trust {
        let tpm = skep_tpm::find();
        match &tpm {
            Ok(Some(tpm)) => log::info!("TPM 2.0: {}", in_words(tpm)),
            Ok(None) => {}
            Err(e) => log::warn!("TPM: {e}; the node goes on without it"),
        }
        Trust {
            tpm,
            log: Vec::new(),
            is_complete: true,
            is_loader_measured: false,
        }
    }

    fn get(&self) -> Option<&Tpm> {
        self.tpm.as_ref().ok()?.as_ref()
    }

    /// Tells the TPM that the machine goes down.
    pub(crate) fn shut_down(&self) {
        if let Some(Err(e)) = self.get().map(Tpm::shut_down) {
            log::warn!("TPM: it is not told of the end: {e}");
        }
    }

    /// What is told of it.
    pub(crate) fn report(&self) -> Report {
        let tpm = match &self.tpm {
            Ok(Some(tpm)) => tpm,
            Ok(None) => return off("the firmware tells of none"),
            Err(e) => return off(&e.to_string()),
        };
        let told = tpm.description();
        Report {
            on: true,
            state: format!("on ({})", tpm.interface()),
            manufacturer: told.manufacturer.clone(),
            firmware: firmware(told.firmware),
            banks: told.banks.iter().map(ToString::to_string).collect(),
            log: self.log.clone(),
            complete: self.is_complete,
            registers: TOLD
                .into_iter()
                .map_while(|pcr| register(tpm, pcr))
                .collect(),
        }
    }
}

/// A register as it is now; `None` where it cannot be read: a TPM that has died costs its
/// time once then, and not once a register.
fn register(tpm: &Tpm, pcr: u32) -> Option<Register> {
    match tpm.read(pcr) {
        Ok(value) => Some(Register {
            pcr,
            value: hex(&value),
        }),
        Err(e) => {
            log::warn!("TPM: register {pcr} cannot be read: {e}");
            None
        }
    }
}

fn off(why: &str) -> Report {
    Report {
        state: format!("off ({why})"),
        ..Report::default()
    }
}

fn firmware([a, b, c, d]: [u16; 4]) -> String {
    format!("{a}.{b}.{c}.{d}")
}

fn in_words(tpm: &Tpm) -> String {
    let told = tpm.description();
    let (maker, version) = (&told.manufacturer, firmware(told.firmware));
    format!("{}, {maker}, firmware {version}", tpm.interface())
}
