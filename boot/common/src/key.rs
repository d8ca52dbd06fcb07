//! The key whose releases a loader starts.

use crate::Failure;
use core::hint::black_box;
use skep_api::PublicKey;
use skep_api::boot::LOADER_KEY_MARKER;

/// The key behind a marker by which whoever writes a disk finds it in the loader's file and
/// puts the owner's there.
#[repr(C)]
struct KeyPlace {
    marker: [u8; 32],
    key: [u8; 32],
}

static KEY: KeyPlace = KeyPlace {
    marker: LOADER_KEY_MARKER,
    key: [0; 32],
};

/// The key in this file.
///
/// # Errors
/// [`Failure::NoKey`]: nobody has put one there.
pub fn release_key() -> Result<PublicKey, Failure> {
    // Not what the compiler sees, but what the file holds by now.
    let place = black_box(&KEY);
    if place.key == [0; 32] {
        return Err(Failure::NoKey);
    }
    Ok(PublicKey(place.key))
}
