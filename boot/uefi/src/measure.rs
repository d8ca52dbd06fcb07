//! What is started, told to the machine's TPM by way of its firmware (TCG EFI Protocol
//! Specification 1.00, 6.6). `skep_api::boot::measured` says which registers.
//!
//! The signed head of the release is all that needs telling: it names kernel and ramdisk by
//! their hashes, which the loader has checked.

use crate::console;
use skep_api::boot::measured::{PCR_AUTHORITY, PCR_IMAGE};
use skep_api::{Hash, PublicKey};
use uefi::{
    boot,
    proto::tcg::{
        EventType, PcrIndex,
        v2::{HashLogExtendEventFlags, PcrEventInputs, Tcg},
    },
};

/// Tells the TPM of the release with this head and of the key that signed it; whether it
/// knows of both. Without a TPM that the firmware drives there is nothing to tell.
pub(crate) fn measure(head: &Hash, key: &PublicKey) -> bool {
    let Some(mut tcg) = boot::get_handle_for_protocol::<Tcg>()
        .and_then(boot::open_protocol_exclusive::<Tcg>)
        .ok()
    else {
        return false;
    };
    if !tcg.get_capability().is_ok_and(|told| told.tpm_present()) {
        return false;
    }
    for (pcr, what, bytes) in [
        (PCR_IMAGE, "release", &head.0),
        (PCR_AUTHORITY, "release key", &key.0),
    ] {
        let told = PcrEventInputs::new_in_box(PcrIndex(pcr), EventType::IPL, what.as_bytes())
            .and_then(|event| {
                tcg.hash_log_extend_event(HashLogExtendEventFlags::empty(), bytes, &event)
            });
        if let Err(why) = told {
            console::say(format_args!("the TPM is not told of the {what}: {why}"));
            return false;
        }
    }
    true
}
