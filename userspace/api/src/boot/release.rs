//! A release of the system as it lies in a slot, and as it travels: the same bytes.
//!
//! It is a FAT volume, which every computer can look into, whose reserved sectors hold
//! what our loaders and the kernel go by: [`Release`], signed. The
//! loader reads kernel and ramdisk by their places and checks their hashes; the kernel
//! checks the hash of all before it lets a slot be started.
//!
//! ```text
//! 0      boot sector of the volume
//! 512    the signed head, 3584 bytes: see `encode`
//! 4096   rest of the volume: allocation table, folder, files
//! ```

use super::put;
use crate::bytes::{array, u16_at, u32_at, u64_at};
use crate::{Hash, KeyPair, PublicKey, Signature};
use alloc::string::String;

/// Where the signed head begins in a slot.
pub const HEAD_AT: usize = 512;
/// Bytes from the beginning of a slot to the end of the head.
pub const HEAD_END: usize = 4096;
/// Bytes of the signed head.
pub const HEAD_BYTES: usize = HEAD_END - HEAD_AT;
/// Most bytes of a kernel's command line.
pub const COMMAND_LINE_BYTES_MAX: usize = 1024;
/// What kernel and ramdisk begin on in the slot, and the slot ends on: a block of any disk.
pub const ALIGNMENT: u64 = 4096;
/// Most bytes of a release.
pub const RELEASE_BYTES_MAX: u64 = 2 << 30;
/// What the signature is for; part of the signed message.
pub const SIGNING_DOMAIN: &str = "skep release";
/// How long a new release may take to become healthy, unless it says otherwise.
pub const HEALTH_SECONDS_DEFAULT: u32 = 300;

const MAGIC: [u8; 8] = *b"SKEPREL1";
const VERSION_AT: usize = 8;
const LEN_AT: usize = 16;
const KERNEL_AT: usize = 24;
const RAMDISK_AT: usize = 72;
const VOLUME_HASH_AT: usize = 120;
const KEY_AT: usize = 152;
const HEALTH_AT: usize = 184;
const TRIES_AT: usize = 188;
const COMMAND_LINE_LEN_AT: usize = 190;
const COMMAND_LINE_AT: usize = 192;
const SIGNATURE_AT: usize = HEAD_BYTES - 64;

/// A file of the volume, in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, in bytes from the beginning of the slot.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub hash: Hash,
}

/// What the signed head of a release says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Grows from release to release; a node takes no lower one.
    pub version: u64,
    /// Bytes of the whole, a multiple of [`ALIGNMENT`].
    pub len: u64,
    /// The kernel, an ELF file.
    pub kernel: Piece,
    /// The ramdisk; of length 0 when there is none.
    pub ramdisk: Piece,
    /// BLAKE3 of all bytes but the head: the first [`HEAD_AT`], then those from
    /// [`HEAD_END`] on.
    pub volume: Hash,
    /// Who signed it.
    pub key: PublicKey,
    /// Seconds from the kernel's start within which the node must be healthy.
    pub health_seconds: u32,
    /// How often it may be started without having been healthy.
    pub tries: u8,
    /// What the kernel is told.
    pub command_line: String,
}

/// Why a release is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// There is none.
    #[error("there is no release in it")]
    Missing,
    /// It is signed with another key than this node's.
    #[error("it is signed by another key than this node's release key")]
    WrongKey,
    /// The signature does not belong to the head.
    #[error("its signature is wrong")]
    BadSignature,
    /// The head is signed and contradicts itself.
    #[error("its head makes no sense")]
    BadHead,
    /// The kernel is not the one that was signed.
    #[error("its kernel is not the one that was signed")]
    BadKernel,
    /// The ramdisk is not the one that was signed.
    #[error("its ramdisk is not the one that was signed")]
    BadRamdisk,
    /// Anything else in it is not what was signed.
    #[error("its bytes are not those that were signed")]
    BadVolume,
}

impl Release {
    /// Reads and checks the head, `head` being the [`HEAD_BYTES`] from [`HEAD_AT`] on.
    ///
    /// # Errors
    /// [`ReleaseError`], checked in the order missing, key, signature, sense.
    pub fn verify(head: &[u8], key: &PublicKey) -> Result<Self, ReleaseError> {
        let release = Self::decode(head)?;
        if release.key != *key {
            return Err(ReleaseError::WrongKey);
        }
        let signed = head.get(..SIGNATURE_AT).ok_or(ReleaseError::Missing)?;
        let signature = array(head, SIGNATURE_AT).ok_or(ReleaseError::Missing)?;
        if !key.verifies(SIGNING_DOMAIN, &[signed], &Signature(signature)) {
            return Err(ReleaseError::BadSignature);
        }
        if release.is_sensible() {
            Ok(release)
        } else {
            Err(ReleaseError::BadHead)
        }
    }

    /// What the head claims, unchecked: for showing, never for acting upon.
    ///
    /// # Errors
    /// [`ReleaseError::Missing`], [`ReleaseError::BadHead`].
    pub fn decode(head: &[u8]) -> Result<Self, ReleaseError> {
        if head.len() != HEAD_BYTES || array(head, 0) != Some(MAGIC) {
            return Err(ReleaseError::Missing);
        }
        Self::read(head).ok_or(ReleaseError::BadHead)
    }

    fn read(head: &[u8]) -> Option<Self> {
        let piece = |at: usize| {
            Some(Piece {
                offset: u64_at(head, at)?,
                len: u64_at(head, at + 8)?,
                hash: Hash(array(head, at + 16)?),
            })
        };
        let len = usize::from(u16_at(head, COMMAND_LINE_LEN_AT)?);
        if len > COMMAND_LINE_BYTES_MAX {
            return None;
        }
        let command_line = head.get(COMMAND_LINE_AT..COMMAND_LINE_AT + len)?;
        Some(Self {
            version: u64_at(head, VERSION_AT)?,
            len: u64_at(head, LEN_AT)?,
            kernel: piece(KERNEL_AT)?,
            ramdisk: piece(RAMDISK_AT)?,
            volume: Hash(array(head, VOLUME_HASH_AT)?),
            key: PublicKey(array(head, KEY_AT)?),
            health_seconds: u32_at(head, HEALTH_AT)?,
            tries: *head.get(TRIES_AT)?,
            command_line: String::from(core::str::from_utf8(command_line).ok()?),
        })
    }

    /// Whether everything lies where it can lie.
    fn is_sensible(&self) -> bool {
        let lies_inside = |piece: &Piece| {
            let end = piece.offset.checked_add(piece.len);
            piece.len == 0
                || piece.offset >= HEAD_END as u64
                    && piece.offset.is_multiple_of(ALIGNMENT)
                    && end.is_some_and(|end| end <= self.len)
        };
        self.len.is_multiple_of(ALIGNMENT)
            && self.len > HEAD_END as u64
            && self.len <= RELEASE_BYTES_MAX
            && self.kernel.len > 0
            && lies_inside(&self.kernel)
            && lies_inside(&self.ramdisk)
    }

    /// The signed head, for [`HEAD_AT`]. The key it names becomes that of `pair`.
    #[must_use]
    pub fn sign(&self, pair: &KeyPair) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let command_line = self.command_line.as_bytes();
        let command_line = command_line
            .get(..command_line.len().min(COMMAND_LINE_BYTES_MAX))
            .unwrap_or_default();
        put(&mut head, 0, &MAGIC);
        put(&mut head, VERSION_AT, &self.version.to_le_bytes());
        put(&mut head, LEN_AT, &self.len.to_le_bytes());
        for (at, piece) in [(KERNEL_AT, &self.kernel), (RAMDISK_AT, &self.ramdisk)] {
            put(&mut head, at, &piece.offset.to_le_bytes());
            put(&mut head, at + 8, &piece.len.to_le_bytes());
            put(&mut head, at + 16, &piece.hash.0);
        }
        put(&mut head, VOLUME_HASH_AT, &self.volume.0);
        put(&mut head, KEY_AT, &pair.public().0);
        put(&mut head, HEALTH_AT, &self.health_seconds.to_le_bytes());
        put(&mut head, TRIES_AT, &[self.tries]);
        // No longer than its limit, which 16 bits hold.
        let len = command_line.len() as u16;
        put(&mut head, COMMAND_LINE_LEN_AT, &len.to_le_bytes());
        put(&mut head, COMMAND_LINE_AT, command_line);
        let signature = pair.sign(
            SIGNING_DOMAIN,
            &[head.get(..SIGNATURE_AT).unwrap_or_default()],
        );
        put(&mut head, SIGNATURE_AT, &signature.0);
        head
    }
}

#[cfg(test)]
mod tests;
