//! Who a node is: its own ed25519 key, by which it proves that it is the one it was.
//!
//! A node signs a challenge of whoever asks; `docs/adr/0007-the-nodes-key.md` says where its
//! key comes from and what opens it.

use crate::Hash;
use crate::key::{KeyPair, PublicKey, Signature};
use alloc::string::String;
use core::fmt::Write;
use serde::{Deserialize, Serialize};

/// What a node's signature over a challenge is for; see [`KeyPair::sign`].
pub const CHALLENGE_DOMAIN: &str = "skep-node-challenge-v1";
/// Fewest bytes of a challenge: nobody meets one again by chance.
pub const CHALLENGE_BYTES_MIN: usize = 16;
/// Most bytes of a challenge.
pub const CHALLENGE_BYTES_MAX: usize = 64;

/// What hashing a key into a node ID is for.
const ID_DOMAIN: &[u8] = b"skep node id\n";
/// Pairs of bytes in a node ID.
const ID_PAIRS: usize = 5;

/// The key of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its public half.
    pub key: PublicKey,
    /// How long it lasts.
    pub kept: Kept,
    /// Why it does not last although the machine has a TPM, and what to do, for people.
    pub problem: Option<String>,
}

/// How long a node's key lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// For this boot only.
    Boot,
    /// The TPM keeps it for the machine started by this ramdisk.
    Image,
    /// The TPM keeps it for the machine started by this loader and the owner's signature,
    /// whatever release that is on.
    Owner,
}

impl Identity {
    /// The node's ID: a short name of its key for people to compare, 80 bits in hexadecimal
    /// digits.
    #[must_use]
    pub fn id(&self) -> String {
        node_id(&self.key)
    }
}

/// See [`Identity::id`].
#[must_use]
pub fn node_id(key: &PublicKey) -> String {
    let mut hasher = crate::hash::Hasher::new();
    hasher.update(ID_DOMAIN);
    hasher.update(&key.0);
    let Hash(hash) = hasher.finish();
    let mut id = String::new();
    for (place, pair) in hash.chunks(2).take(ID_PAIRS).enumerate() {
        if place > 0 {
            id.push('-');
        }
        for byte in pair {
            let _ = write!(id, "{byte:02x}");
        }
    }
    id
}

/// Signs a challenge as the node with this key.
#[must_use]
pub fn prove(pair: &KeyPair, challenge: &[u8]) -> Signature {
    pair.sign(CHALLENGE_DOMAIN, &[challenge])
}

/// Whether the node with this key has signed this challenge.
#[must_use]
pub fn is_proof(key: &PublicKey, challenge: &[u8], signature: &Signature) -> bool {
    key.verifies(CHALLENGE_DOMAIN, &[challenge], signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_key_and_challenge() {
        let [one, two] = [1, 2].map(|n| KeyPair::from_seed([n; 32]).unwrap());
        let proof = prove(&one, b"sixteen bytes...");
        assert!(is_proof(&one.public(), b"sixteen bytes...", &proof));
        assert!(!is_proof(&one.public(), b"sixteen bytes..,", &proof));
        assert!(!is_proof(&two.public(), b"sixteen bytes...", &proof));
        // Nothing else that the key may sign passes for a proof.
        let other = one.sign("skep-owner-request-v1", &[b"sixteen bytes..."]);
        assert!(!is_proof(&one.public(), b"sixteen bytes...", &other));
    }

    #[test]
    fn an_id_is_its_keys() {
        let id = node_id(&PublicKey([7; 32]));
        assert_eq!(id.len(), 5 * 4 + 4);
        assert_eq!(id, node_id(&PublicKey([7; 32])));
        assert_ne!(id, node_id(&PublicKey([8; 32])));
    }
}
