//! A release on its way into memory, wherever it comes from.

use crate::{Failure, enter, measure};
use skep_api::boot::handover::{BootSlot, HANDOVER_BYTES, Handover, LoaderTimes, Measured};
use skep_api::boot::release::{HEAD_AT, HEAD_END, Piece};
use skep_api::boot::{Release, ReleaseError};
use skep_api::hash::Hasher;
use skep_api::{Hash, PublicKey};
use uefi::{
    boot::{self, AllocateType},
    mem::memory_map::MemoryType,
};

const PAGE: usize = 4096;

/// The processor's time-stamp counter.
pub(crate) fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and reading it changes nothing.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Where the bytes of a release are read from.
pub(crate) trait Volume {
    /// Reads `into`, whole pages, from byte `offset` of the release on, and calls `each` with
    /// the place and bytes of every part as it comes. `offset` is a multiple of any block.
    fn read(
        &mut self,
        offset: u64,
        into: &mut [u8],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Failure>;
}

/// A release in memory, checked.
pub(crate) struct Loaded {
    kernel: &'static [u8],
    ramdisk: &'static mut [u8],
    /// What its signed head says.
    pub(crate) release: Release,
    /// BLAKE3 of that head.
    head: Hash,
}

/// Reads a release and checks that `key` has signed it.
pub(crate) fn load(volume: &mut dyn Volume, key: &PublicKey) -> Result<Loaded, Failure> {
    let head = pages(HEAD_END)?;
    volume.read(0, head, &mut |_, _| ())?;
    let release = Release::verify(&head[HEAD_AT..], key).map_err(Failure::Refused)?;
    let kernel = piece(volume, &release.kernel, 0, ReleaseError::BadKernel)?;
    let ramdisk = piece(
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
fn piece(
    volume: &mut dyn Volume,
    piece: &Piece,
    spare: usize,
    refusal: ReleaseError,
) -> Result<&'static mut [u8], Failure> {
    let len = usize::try_from(piece.len).map_err(|_| Failure::NoMemory)?;
    let whole = len.next_multiple_of(PAGE);
    let memory = pages(whole + spare)?;
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

/// Whole pages that are never given back.
pub(crate) fn pages(len: usize) -> Result<&'static mut [u8], Failure> {
    let count = len.div_ceil(PAGE).max(1);
    let memory = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, count)
        .map_err(|_| Failure::NoMemory)?;
    // SAFETY: the firmware gave these pages to us alone, mapped one to one, and they are
    // never given back; what it left in them are bytes like any.
    Ok(unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), len) })
}

impl Loaded {
    /// Tells the TPM what is about to be started, for nothing of it has run yet, and starts
    /// it: from `slot`, or from the network. `started` is when this program was.
    pub(crate) fn enter(self, slot: Option<BootSlot>, started: u64) -> ! {
        let key = self.release.key;
        let measured = measure::measure(&self.head, &key);
        let handover = Handover {
            ramdisk_len: self.release.ramdisk.len,
            slot,
            measured: measured.then_some(Measured {
                head: self.head,
                key,
            }),
            times: Some(LoaderTimes {
                started,
                checked: counter(),
            }),
            command_line: self.release.command_line,
        };
        let page_at = self.ramdisk.len() - HANDOVER_BYTES;
        self.ramdisk[page_at..].copy_from_slice(&handover.encode());
        drop(handover);
        enter::enter(self.kernel, self.ramdisk)
    }
}
