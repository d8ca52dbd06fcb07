//! Requests that change a node, signed by its owner.
//!
//! # How
//!
//! 1. The client asks `GET /api/v1/challenge` and gets a [`Challenge`]: 32 bytes that this node
//!    made, good for [`CHALLENGE_MS`] and for one request.
//! 2. It signs the [`signed_bytes`] of its request with the owner's ed25519 key and sends the
//!    request with the three headers of [`SignedHeaders`].
//! 3. The node checks with [`Verifier::verify`]; a refusal is HTTP 401 with a JSON body
//!    `{"error":"refused","reason":…}`, the reason being the [`OwnerError`]'s text.
//!
//! Challenges rather than time stamps: a node may have no clock that can be trusted, and a
//! challenge from the node itself proves freshness without one. The node keeps no memory of
//! challenges given out (anyone may ask for them, so that memory could be flooded): a challenge
//! carries its own time and a keyed BLAKE3 under a secret of this run. Only *used* challenges are
//! remembered, and only after a good signature, so only the owner can fill that memory. After a
//! restart of the 3Bot the secret is new, and old challenges are refused.
//!
//! # What is signed
//!
//! ASCII lines, each ended by a line feed: [`DOMAIN`], the method in capitals, path with query as
//! sent, the node's name, the challenge in hexadecimal, BLAKE3 of the body in hexadecimal. The
//! client must put in the name of the node that it *means*, not one that the other side gave it:
//! so a node cannot pass another node's challenge on to the owner.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::hash::hex;
use ed25519_compact::{PublicKey, SecretKey, Signature};

/// First line of what is signed: separates these signatures from all others by the same key.
pub const DOMAIN: &str = "skep-owner-request-v1";
/// Header with the signer's public key: 64 hexadecimal digits.
pub const HEADER_KEY: &str = "skep-key";
/// Header with the challenge: 64 hexadecimal digits.
pub const HEADER_CHALLENGE: &str = "skep-challenge";
/// Header with the signature: 128 hexadecimal digits.
pub const HEADER_SIGNATURE: &str = "skep-signature";
/// How long a challenge is good, in milliseconds.
pub const CHALLENGE_MS: u64 = 60_000;
/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 32;
/// Most requests that the owner may send within [`CHALLENGE_MS`].
pub const USED_MAX: usize = 1024;

const TIME_BYTES: usize = 8;
const SALT_BYTES: usize = 8;
const OPEN_BYTES: usize = TIME_BYTES + SALT_BYTES;

/// 32 bytes that a node made: its time, a salt, and a proof that it was this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; CHALLENGE_BYTES]);

impl Challenge {
    /// As 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

/// The parts of a request that its signature covers.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// HTTP method in capitals.
    pub method: &'a str,
    /// Path with query, as sent in the request line.
    pub path: &'a str,
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

/// The values of the three headers, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeaders {
    /// For [`HEADER_KEY`].
    pub key: String,
    /// For [`HEADER_CHALLENGE`].
    pub challenge: String,
    /// For [`HEADER_SIGNATURE`].
    pub signature: String,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerError {
    /// One of the three headers is missing.
    Unsigned,
    /// A header is not the right number of hexadecimal digits.
    BadHeader,
    /// The key is none of the owner's.
    UnknownKey,
    /// This node, in this run, did not make the challenge.
    ForeignChallenge,
    /// The challenge is older than [`CHALLENGE_MS`].
    Expired,
    /// The challenge was used before.
    Replayed,
    /// The signature does not fit the request.
    BadSignature,
    /// More than [`USED_MAX`] requests within [`CHALLENGE_MS`].
    TooMany,
}

impl core::fmt::Display for OwnerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "the request is not signed by the owner",
            Self::BadHeader => "a signature header is malformed",
            Self::UnknownKey => "the signing key is not the owner's",
            Self::ForeignChallenge => "the challenge was not made by this node in this run",
            Self::Expired => "the challenge is too old",
            Self::Replayed => "the challenge was used before",
            Self::BadSignature => "the signature does not fit the request",
            Self::TooMany => "too many signed requests in a minute",
        })
    }
}

impl core::error::Error for OwnerError {}

/// The bytes that the owner signs; see the module's description.
#[must_use]
pub fn signed_bytes(parts: &RequestParts<'_>, node: &str, challenge: Challenge) -> Vec<u8> {
    let challenge = challenge.to_hex();
    let body_hash = hex(blake3::hash(parts.body).as_bytes());
    let lines = [
        DOMAIN,
        parts.method,
        parts.path,
        node,
        &challenge,
        &body_hash,
    ];
    let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Signs a request: what the command line and every other client does.
#[must_use]
pub fn sign(
    key: &SecretKey,
    node: &str,
    challenge: Challenge,
    parts: &RequestParts<'_>,
) -> SignedHeaders {
    let signature = key.sign(signed_bytes(parts, node, challenge), None);
    SignedHeaders {
        key: hex(key.public_key().as_ref()),
        challenge: challenge.to_hex(),
        signature: hex(signature.as_ref()),
    }
}

/// The node's side: makes challenges and checks signed requests.
#[derive(Debug)]
pub struct Verifier {
    node: String,
    owner_keys: Vec<[u8; 32]>,
    secret: [u8; 32],
    /// Challenges used and not yet expired, with the time they were made, oldest use first.
    used: VecDeque<(u64, Challenge)>,
}

impl Verifier {
    /// For the node of this name and its owner's public keys. `secret` must be random and new in
    /// every run.
    #[must_use]
    pub fn new(node: String, owner_keys: Vec<[u8; 32]>, secret: [u8; 32]) -> Self {
        Self {
            node,
            owner_keys,
            secret,
            used: VecDeque::new(),
        }
    }

    /// Makes a challenge. `now_ms` is any clock that never goes back; `salt` is random.
    #[must_use]
    pub fn challenge(&self, now_ms: u64, salt: [u8; SALT_BYTES]) -> Challenge {
        let mut open = [0; OPEN_BYTES];
        open[..TIME_BYTES].copy_from_slice(&now_ms.to_le_bytes());
        open[TIME_BYTES..].copy_from_slice(&salt);
        self.seal(&open)
    }

    /// Checks a request and uses its challenge up. `None` for a header that is missing.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn verify(
        &mut self,
        now_ms: u64,
        headers: Option<&SignedHeaders>,
        parts: &RequestParts<'_>,
    ) -> Result<(), OwnerError> {
        let headers = headers.ok_or(OwnerError::Unsigned)?;
        let key: [u8; 32] = unhex(&headers.key).ok_or(OwnerError::BadHeader)?;
        let signature: [u8; 64] = unhex(&headers.signature).ok_or(OwnerError::BadHeader)?;
        let challenge = Challenge::from_hex(&headers.challenge).ok_or(OwnerError::BadHeader)?;
        if !self.owner_keys.contains(&key) {
            return Err(OwnerError::UnknownKey);
        }
        let made_ms = self.opened(challenge)?;
        if now_ms.saturating_sub(made_ms) > CHALLENGE_MS {
            return Err(OwnerError::Expired);
        }
        let message = signed_bytes(parts, &self.node, challenge);
        PublicKey::new(key)
            .verify(message, &Signature::new(signature))
            .map_err(|_| OwnerError::BadSignature)?;
        self.use_up(now_ms, made_ms, challenge)
    }

    fn use_up(
        &mut self,
        now_ms: u64,
        made_ms: u64,
        challenge: Challenge,
    ) -> Result<(), OwnerError> {
        self.used
            .retain(|(made, _)| now_ms.saturating_sub(*made) <= CHALLENGE_MS);
        if self.used.iter().any(|(_, used)| *used == challenge) {
            return Err(OwnerError::Replayed);
        }
        if self.used.len() >= USED_MAX {
            return Err(OwnerError::TooMany);
        }
        self.used.push_back((made_ms, challenge));
        Ok(())
    }

    fn seal(&self, open: &[u8; OPEN_BYTES]) -> Challenge {
        let proof = blake3::keyed_hash(&self.secret, open);
        let mut bytes = [0; CHALLENGE_BYTES];
        bytes[..OPEN_BYTES].copy_from_slice(open);
        bytes[OPEN_BYTES..].copy_from_slice(&proof.as_bytes()[..CHALLENGE_BYTES - OPEN_BYTES]);
        Challenge(bytes)
    }

    /// The time in a challenge, if this verifier made it. `blake3::Hash` compares in constant
    /// time, so that a proof cannot be guessed byte by byte.
    fn opened(&self, challenge: Challenge) -> Result<u64, OwnerError> {
        let (open, _) = challenge
            .0
            .split_first_chunk::<OPEN_BYTES>()
            .ok_or(OwnerError::ForeignChallenge)?;
        let again = self.seal(open);
        if blake3::Hash::from_bytes(again.0) != blake3::Hash::from_bytes(challenge.0) {
            return Err(OwnerError::ForeignChallenge);
        }
        let (time, _) = open
            .split_first_chunk::<TIME_BYTES>()
            .ok_or(OwnerError::ForeignChallenge)?;
        Ok(u64::from_le_bytes(*time))
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
