//! A release on its way into memory, wherever it comes from.

use crate::{Failure, Machine};
use skep_api::boot::handover::{BootSlot, HANDOVER_BYTES, Handover, LoaderTimes, Measured};
use skep_api::boot::release::{HEAD_AT, HEAD_END, Piece};
use skep_api::boot::{Release, ReleaseError};
use skep_api::hash::Hasher;
use skep_api::{Hash, PublicKey};

const PAGE: usize = 4096;

/// Where the bytes of a release are read from.
pub trait Volume {
    /// Reads `into`, whole pages, from byte `offset` of the release on, and calls `each` with
    /// the place and bytes of every part as it comes. `offset` is a multiple of any block.
    ///
    /// # Errors
    /// [`Failure::BeyondSlot`], [`Failure::Read`], [`Failure::NotFetched`].
    fn read(
        &mut self,
        offset: u64,
        into: &mut [u8],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Failure>;
}

/// A release in memory, checked.
pub struct Loaded {
    kernel: &'static [u8],
    ramdisk: &'static mut [u8],
    /// What its signed head says.
    pub release: Release,
    /// BLAKE3 of that head.
    head: Hash,
}

/// Reads a release and checks that `key` has signed it.
///
/// # Errors
/// [`Failure::Refused`], and what reading it can end with.
pub fn load<M: Machine>(volume: &mut dyn Volume, key: &PublicKey) -> Result<Loaded, Failure> {
    let head = M::pages(HEAD_END)?;
    volume.read(0, head, &mut |_, _| ())?;
    let release = Release::verify(&head[HEAD_AT..], key).map_err(Failure::Refused)?;
    let kernel = piece::<M>(volume, &release.kernel, 0, ReleaseError::BadKernel)?;
    let ramdisk = piece::<M>(
        volume,
        &release.ramdisk,
        HANDOVER_BYTES,
        ReleaseError::BadRamdisk,
    )?;
    Ok(Loaded {
        kernel,
        ramdisk,
        head: Hash::of(&head[HEAD_AT..HEAD_END]),
        release,
    })
}

/// Reads a piece into pages of its own, `spare` bytes more than it needs, and checks
/// that it is the one that was signed.
fn piece<M: Machine>(
    volume: &mut dyn Volume,
    piece: &Piece,
    spare: usize,
    refusal: ReleaseError,
) -> Result<&'static mut [u8], Failure> {
    let len = usize::try_from(piece.len).map_err(|_| Failure::NoMemory)?;
    let whole = len.next_multiple_of(PAGE);
    let memory = M::pages(whole + spare)?;
    let mut hasher = Hasher::new();
    volume.read(piece.offset, &mut memory[..whole], &mut |at, bytes| {
        hasher.update(&bytes[..bytes.len().min(len - at)]);
    })?;
    if hasher.finish() == piece.hash {
        Ok(memory)
    } else {
        Err(Failure::Refused(refusal))
    }
}

impl Loaded {
    /// Tells the TPM what is about to be started, for nothing of it has run yet, and starts
    /// it: from `slot`, or from the network. `started` is when this program was.
    pub fn enter<M: Machine>(self, slot: Option<BootSlot>, started: u64) -> ! {
        let key = self.release.key;
        let measured = M::measure(&self.head, &key);
        let handover = Handover {
            ramdisk_len: self.release.ramdisk.len,
            slot,
            measured: measured.then_some(Measured {
                head: self.head,
                key,
            }),
            times: Some(LoaderTimes {
                started,
                checked: M::counter(),
            }),
            command_line: self.release.command_line,
        };
        let page_at = self.ramdisk.len() - HANDOVER_BYTES;
        self.ramdisk[page_at..].copy_from_slice(&handover.encode());
        drop(handover);
        M::enter(self.kernel, self.ramdisk)
    }
}
