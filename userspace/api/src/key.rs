//! The owner's key: ed25519.
//!
//! The same key signs manifests and requests. What a signature is for is part
//! of the signed message: every use has its own [domain](KeyPair::sign), so a
//! signed request can never be passed off as a signed manifest.

use crate::hash::hex_newtype;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The public half of an owner's ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

hex_newtype!(PublicKey, 32);

/// An ed25519 signature, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hash::write_hex(&self.0, out)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hash::write_hex(&self.0, out)
    }
}

impl FromStr for Signature {
    type Err = crate::hash::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::hash::from_hex(text).map(Self)
    }
}

impl PublicKey {
    /// Whether `signature` was made by this key over `parts`, in order, for `domain`.
    ///
    /// `parts` are joined without separators: the caller gives each part a fixed
    /// length or a length prefix, except the last.
    #[must_use]
    pub fn verifies(&self, domain: &str, parts: &[&[u8]], signature: &Signature) -> bool {
        let key = ed25519_compact::PublicKey::new(self.0);
        let signature = ed25519_compact::Signature::new(signature.0);
        let Ok(mut state) = key.verify_incremental(&signature) else {
            return false;
        };
        state.absorb(domain);
        state.absorb([0]);
        for part in parts {
            state.absorb(part);
        }
        state.verify().is_ok()
    }
}

/// Both halves of an owner's key. Keep it off the node.
#[derive(Clone)]
pub struct KeyPair(ed25519_compact::KeyPair);

impl KeyPair {
    /// The key that a secret seed of 32 random bytes stands for.
    ///
    /// `None` for the all-zero seed, which is never the work of a random source.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Option<Self> {
        ed25519_compact::KeyPair::try_from_seed(ed25519_compact::Seed::new(seed))
            .ok()
            .map(Self)
    }

    /// The half that nodes know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.pk)
    }

    /// The secret half, for [`owner::sign`](crate::owner::sign).
    #[must_use]
    pub fn secret(&self) -> &ed25519_compact::SecretKey {
        &self.0.sk
    }

    /// Signs `parts`, in order, for `domain`. The same input gives the same signature.
    ///
    /// The signed message is the domain, a zero byte, then the parts.
    #[must_use]
    pub fn sign(&self, domain: &str, parts: &[&[u8]]) -> Signature {
        let mut message = Vec::from(domain.as_bytes());
        message.push(0);
        for part in parts {
            message.extend_from_slice(part);
        }
        Signature(*self.0.sk.sign(message, None))
    }
}

impl fmt::Debug for KeyPair {
    /// Shows the public half only.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyPair({})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_domain_and_parts_only() {
        let pair = KeyPair::from_seed([7; 32]).unwrap();
        let signature = pair.sign("test", &[b"one", b"two"]);
        let key = pair.public();
        assert!(key.verifies("test", &[b"one", b"two"], &signature));
        assert!(key.verifies("test", &[b"onetwo"], &signature));
        assert!(!key.verifies("tesu", &[b"one", b"two"], &signature));
        assert!(!key.verifies("test", &[b"one", b"twp"], &signature));
        let other = KeyPair::from_seed([8; 32]).unwrap().public();
        assert!(!other.verifies("test", &[b"one", b"two"], &signature));
    }

    #[test]
    fn hostile_keys_and_signatures_are_refused_without_panic() {
        let pair = KeyPair::from_seed([7; 32]).unwrap();
        let signature = pair.sign("test", &[b"x"]);
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            assert!(!PublicKey([byte; 32]).verifies("test", &[b"x"], &signature));
            assert!(
                !pair
                    .public()
                    .verifies("test", &[b"x"], &Signature([byte; 64]))
            );
        }
        assert!(KeyPair::from_seed([0; 32]).is_none());
    }
}
