//! The signature around a manifest, and its wire format.

use super::validate::FieldError;
use super::{MAX_MANIFEST_LEN, Manifest};
use crate::key::{KeyPair, PublicKey, Signature};
use alloc::vec::Vec;

/// First bytes of a signed manifest.
const MAGIC: [u8; 8] = *b"SKEPSIGN";
/// Newest version of the manifest's payload that this module reads and writes.
pub const MANIFEST_VERSION: u8 = 3;
/// Oldest version that it reads, and writes where that says all there is to say:
/// nodes that know no other go on taking it. It has neither `devices`, which came with
/// version 2, nor `raw_network`, which came with version 3.
pub const MANIFEST_VERSION_FIRST: u8 = 1;
/// What each version has after the fields of the one before it when it has nothing to
/// say: no devices (a length), no raw network (a bool).
const NOTHING: u8 = 0;
/// What the signature is for; part of the signed message.
pub const SIGNING_DOMAIN: &str = "skep signed manifest";
/// Bytes before the payload: magic number, version, key, signature.
const HEADER_LEN: usize = 8 + 1 + 32 + 64;

/// Why a signed manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not a signed manifest.
    #[error("not a signed manifest")]
    BadEncoding,
    /// The bytes are more than [`MAX_MANIFEST_LEN`].
    #[error("manifest of {0} bytes is larger than the limit")]
    TooLong(usize),
    /// The payload is of another version.
    #[error(
        "manifest of version {0}, this program knows {MANIFEST_VERSION_FIRST} to {MANIFEST_VERSION}"
    )]
    UnknownVersion(u8),
    /// It is signed by a key that does not own this node.
    #[error("signed by {0}, which does not own this node")]
    WrongKey(PublicKey),
    /// The signature does not belong to the payload.
    #[error("the signature does not match the manifest")]
    BadSignature,
    /// The payload is signed but is not a manifest.
    #[error("the signed payload is not a manifest")]
    BadPayload,
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Field(#[from] FieldError),
    /// The manifest has expired.
    #[error("expired at {not_after}, now is {now} (seconds since 1970)")]
    Expired {
        /// Last second at which it was valid.
        not_after: u64,
        /// The time that it was checked for.
        now: u64,
    },
    /// The manifest is not valid yet.
    #[error("valid from {valid_from}, now is {now} (seconds since 1970)")]
    NotYetValid {
        /// First second at which it is valid.
        valid_from: u64,
        /// The time that it was checked for.
        now: u64,
    },
}

/// A manifest with a signature that has yet to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    /// Version of the payload. It is outside the payload so that it is known before
    /// the payload is read, and part of the signed message.
    pub version: u8,
    /// The key that claims to have signed.
    pub key: PublicKey,
    /// The signature over domain, version and payload.
    pub signature: Signature,
    /// The manifest in postcard encoding.
    payload: Vec<u8>,
}

impl SignedManifest {
    /// Signs `manifest`.
    ///
    /// # Errors
    /// [`ManifestError::Field`] when it is not valid, [`ManifestError::TooLong`].
    pub fn sign(manifest: &Manifest, pair: &KeyPair) -> Result<Self, ManifestError> {
        manifest.validate()?;
        let (version, payload) = write(manifest)?;
        if HEADER_LEN + payload.len() > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong(HEADER_LEN + payload.len()));
        }
        let signature = pair.sign(SIGNING_DOMAIN, &[&[version], &payload]);
        Ok(Self {
            version,
            key: pair.public(),
            signature,
            payload,
        })
    }

    /// Reads the wire format. Nothing is verified yet, and the payload is not looked at.
    ///
    /// # Errors
    /// [`ManifestError::TooLong`] or [`ManifestError::BadEncoding`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let rest = bytes
            .strip_prefix(&MAGIC)
            .ok_or(ManifestError::BadEncoding)?;
        let (version, rest) = rest.split_first().ok_or(ManifestError::BadEncoding)?;
        let (key, rest) = rest.split_first_chunk().ok_or(ManifestError::BadEncoding)?;
        let (signature, payload) = rest.split_first_chunk().ok_or(ManifestError::BadEncoding)?;
        Ok(Self {
            version: *version,
            key: PublicKey(*key),
            signature: Signature(*signature),
            payload: payload.into(),
        })
    }

    /// Writes the wire format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(self.version);
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.signature.0);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The manifest, if one of `owners` has signed it, every field has a value that
    /// it can have, and it is valid at `now` (seconds since 1970, UTC).
    ///
    /// # Errors
    /// See [`ManifestError`]; the checks are made in the order version, key,
    /// signature, payload, fields, times.
    pub fn verify(&self, owners: &[PublicKey], now: u64) -> Result<Manifest, ManifestError> {
        self.check_version()?;
        if !owners.contains(&self.key) {
            return Err(ManifestError::WrongKey(self.key));
        }
        let signed: [&[u8]; 2] = [&[self.version], &self.payload];
        if !self.key.verifies(SIGNING_DOMAIN, &signed, &self.signature) {
            return Err(ManifestError::BadSignature);
        }
        let manifest = self.payload_unverified()?;
        manifest.validate()?;
        manifest.validity.check(now)?;
        Ok(manifest)
    }

    /// The manifest as it claims to be: for showing, never for acting upon.
    ///
    /// # Errors
    /// [`ManifestError::UnknownVersion`] or [`ManifestError::BadPayload`].
    pub fn payload_unverified(&self) -> Result<Manifest, ManifestError> {
        self.check_version()?;
        if self.version == MANIFEST_VERSION {
            return read(&self.payload);
        }
        let mut payload = self.payload.clone();
        payload.extend((self.version..MANIFEST_VERSION).map(|_| NOTHING));
        let manifest = read(&payload)?;
        // Otherwise a byte was not read as what it is.
        match write(&manifest) {
            Ok((version, again)) if version == self.version && again == self.payload => {
                Ok(manifest)
            }
            _ => Err(ManifestError::BadPayload),
        }
    }

    fn check_version(&self) -> Result<(), ManifestError> {
        if (MANIFEST_VERSION_FIRST..=MANIFEST_VERSION).contains(&self.version) {
            return Ok(());
        }
        Err(ManifestError::UnknownVersion(self.version))
    }
}

/// The payload of `manifest` in the oldest version that can say it.
fn write(manifest: &Manifest) -> Result<(u8, Vec<u8>), ManifestError> {
    let mut payload = postcard::to_allocvec(manifest).map_err(|_| ManifestError::BadPayload)?;
    let without = [!manifest.raw_network, manifest.devices.is_empty()];
    let mut version = MANIFEST_VERSION;
    for _ in without.iter().take_while(|nothing| **nothing) {
        if payload.pop() != Some(NOTHING) {
            return Err(ManifestError::BadPayload);
        }
        version -= 1;
    }
    Ok((version, payload))
}

/// The manifest of a payload of the newest version.
fn read(payload: &[u8]) -> Result<Manifest, ManifestError> {
    match postcard::take_from_bytes(payload) {
        Ok((manifest, [])) => Ok(manifest),
        _ => Err(ManifestError::BadPayload),
    }
}
