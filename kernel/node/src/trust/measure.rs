//! What this start of the machine is made of, told to the TPM register by register before
//! any of it runs, and written down so that an owner can compute the registers again.
//!
//! | register | what | by |
//! | --- | --- | --- |
//! | 9 | `release`: the signed head of a release, as its BLAKE3 | UEFI loader |
//! | 9 | `ramdisk`: all of it, unpacked if it was packed | kernel |
//! | 12 | `command line`, then `skep.toml` and each manifest beside it | kernel |
//! | 14 | `release key`: the key that the loader trusts | UEFI loader |
//! | 14 | `owner`: the key that the node obeys | kernel |
//!
//! Each is SHA-256 of the bytes, as `sha256sum` says it. Registers 9 and 12 are those of
//! images and configuration by the TCG's and Linux's custom, 14 is that of who may sign.

use super::Trust;
use alloc::string::String;
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};
use skep_api::PublicKey;
use skep_api::boot::Handover;
use skep_api::boot::measured::{PCR_AUTHORITY, PCR_CONFIGURATION, PCR_IMAGE};
use skep_api::control::hardware::{MEASUREMENTS_MAX, Measurement};
use skep_api::hash::hex;
use skep_tpm::Digest;

/// Bytes hashed between two chances for other threads.
const PIECE: usize = 64 << 10;

impl Trust {
    /// Tells the TPM of the ramdisk and of what the loader has said, and writes down what
    /// the loader has told the TPM itself.
    #[inline(never)]
    pub(crate) fn measure_start(&mut self, ramdisk: &[u8], handover: Option<&Handover>) {
        if self.get().is_none() {
            return;
        }
        if let Some(measured) = handover.and_then(|said| said.measured.as_ref()) {
            self.is_loader_measured = true;
            self.note("release", PCR_IMAGE, &sha256(&measured.head.0), "loader");
            let key = sha256(&measured.key.0);
            self.note("release key", PCR_AUTHORITY, &key, "loader");
        }
        self.measure("ramdisk", PCR_IMAGE, ramdisk);
        let direct = machine::boot::command_line();
        let line = handover.map_or(direct, |said| said.command_line.as_bytes());
        self.measure("command line", PCR_CONFIGURATION, line);
    }

    /// Tells the TPM of what the owner wrote beside the ramdisk, and whose node it is.
    #[inline(never)]
    pub(crate) fn measure_owner(
        &mut self,
        settings: Option<&[u8]>,
        manifests: &[(String, Vec<u8>)],
        owner: &PublicKey,
    ) {
        if let Some(settings) = settings {
            self.measure("skep.toml", PCR_CONFIGURATION, settings);
        }
        for (name, bytes) in manifests {
            let what = alloc::format!("manifest {name}");
            self.measure(&what, PCR_CONFIGURATION, bytes);
        }
        self.measure("owner", PCR_AUTHORITY, &owner.0);
    }

    fn measure(&mut self, what: &str, pcr: u32, bytes: &[u8]) {
        let Some(tpm) = self.get() else {
            return;
        };
        let digest = sha256(bytes);
        match tpm.extend(pcr, &digest) {
            Ok(()) => self.note(what, pcr, &digest, "kernel"),
            Err(e) => {
                // A start that is not measured must not look like one that is.
                log::error!("TPM: {what} is not measured: {e}");
                self.is_complete = false;
            }
        }
    }

    fn note(&mut self, what: &str, pcr: u32, digest: &Digest, by: &str) {
        log::debug!(
            "TPM: {what} measured into {pcr} by the {by}: {}",
            hex(digest)
        );
        if self.log.len() >= MEASUREMENTS_MAX || self.log.try_reserve(1).is_err() {
            log::error!("TPM: no room to write down that {what} is measured");
            self.is_complete = false;
            return;
        }
        self.log.push(Measurement {
            pcr,
            what: String::from(what),
            digest: hex(digest),
            by: String::from(by),
        });
    }
}

/// SHA-256 of long input, without keeping the CPU from others.
fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    for piece in bytes.chunks(PIECE) {
        hasher.update(piece);
        machine::thread::cond_resched();
    }
    hasher.finalize().into()
}
