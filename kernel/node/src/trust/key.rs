//! The node's own key: made once, kept by the TPM, and given out by it only to a machine
//! that is started as it was then. Without a TPM it lives for one boot.
//!
//! The TPM's own memory holds it, at one handle, so that a node needs no disk for it. What
//! must be as it was is, best first:
//!
//! - [`Kept::Owner`]: the loader's code, Secure Boot, the release key and the owner. The
//!   loader starts only what the release key has signed, so a new release opens the key.
//! - [`Kept::Image`]: the loader's code, the ramdisk, and the owner. Where nobody checked
//!   what was started, only the same start is known to be the owner's.

use super::Trust;
use alloc::string::{String, ToString};
use alloc::{borrow::ToOwned, format};
use machine::random;
use machine::sync::Mutex;
use skep_api::boot::measured::{PCR_AUTHORITY, PCR_IMAGE, PCR_LOADER, PCR_SECURE_BOOT};
use skep_api::identity::{self, Identity, Kept};
use skep_api::{KeyPair, Signature};
use skep_tpm::{PcrSet, Tpm, TpmError};

/// Where the TPM keeps the key: among the handles that are the owner's to choose (TPM 2.0
/// Library, part 2, 7.5: 0x81000000 to 0x817fffff).
const HANDLE: u32 = 0x8153_4b50;
const SEED_BYTES: usize = 32;

/// What the owner is told when the TPM does not open the key.
const SEALED: &str = "the TPM keeps this node's key for another start of the machine \
    (another image, loader or owner): start that again, or have it keep the key of this boot \
    instead by 'skep identity --keep'";
const NOT_MEASURED: &str = "this start of the machine could not be measured";

/// Both halves of the node's key.
pub(crate) struct NodeKey {
    seed: [u8; SEED_BYTES],
    pair: KeyPair,
    told: Mutex<Identity>,
}

impl NodeKey {
    /// The key that the TPM keeps, or a new one, which it keeps from now on if it can. To be
    /// called when all of the start is measured.
    #[inline(never)]
    pub(crate) fn of(trust: &Trust) -> NodeKey {
        let key = match trust.get() {
            None => NodeKey::new(),
            Some(tpm) => with_tpm(trust, tpm),
        };
        let told = key.told();
        match (&told.problem, told.kept) {
            (Some(why), _) => log::warn!("node ID {} for this boot only: {why}", told.id()),
            (None, Kept::Boot) => log::info!("node ID {} for this boot only: no TPM", told.id()),
            (None, _) => log::info!("node ID {}, kept by the TPM", told.id()),
        }
        key
    }

    /// A new key for this boot.
    fn new() -> NodeKey {
        loop {
            let mut seed = [0; SEED_BYTES];
            random::fill(&mut seed);
            // Only the seed of zeros is none, which comes once in 2^256 times.
            if let Some(key) = NodeKey::from_seed(seed, Kept::Boot) {
                return key;
            }
        }
    }

    fn from_seed(seed: [u8; SEED_BYTES], kept: Kept) -> Option<NodeKey> {
        let pair = KeyPair::from_seed(seed)?;
        let told = Identity {
            key: pair.public(),
            kept,
            problem: None,
        };
        Some(NodeKey {
            seed,
            pair,
            told: Mutex::new(told),
        })
    }

    fn for_this_boot(self, why: String) -> NodeKey {
        self.told.lock().problem = Some(why);
        self
    }

    /// What is told of it.
    pub(crate) fn told(&self) -> Identity {
        self.told.lock().clone()
    }

    /// Signs a challenge.
    pub(crate) fn prove(&self, challenge: &[u8]) -> Signature {
        identity::prove(&self.pair, challenge)
    }

    /// Has the TPM keep it instead of any other; whether it does. The owner's word.
    pub(crate) fn keep(&self, trust: &Trust) -> bool {
        let Some(tpm) = trust.get() else {
            return false;
        };
        // Held, so that two of them do not meet.
        let mut told = self.told.lock();
        let done = match tpm.is_kept(HANDLE) {
            Ok(true) => tpm.forget(HANDLE),
            other => other.map(drop),
        };
        let done = done.map_err(|e| e.to_string());
        match done.and_then(|()| seal(trust, tpm, &self.seed)) {
            Ok(kept) => {
                log::warn!("the TPM keeps the key of node ID {} from now on", told.id());
                (told.kept, told.problem) = (kept, None);
                true
            }
            Err(why) => {
                log::error!("the TPM does not keep the node's key: {why}");
                told.problem = Some(why);
                false
            }
        }
    }
}

/// The registers that must be as they were, of a key that is kept so.
fn registers(kept: Kept) -> PcrSet {
    match kept {
        Kept::Owner => PcrSet::of(&[PCR_LOADER, PCR_SECURE_BOOT, PCR_AUTHORITY]),
        Kept::Image | Kept::Boot => PcrSet::of(&[PCR_LOADER, PCR_IMAGE, PCR_AUTHORITY]),
    }
}

fn with_tpm(trust: &Trust, tpm: &Tpm) -> NodeKey {
    match tpm.is_kept(HANDLE) {
        Ok(false) => first(trust, tpm),
        Ok(true) => match open(tpm) {
            Ok(key) => key,
            Err(why) => NodeKey::new().for_this_boot(why),
        },
        Err(e) => NodeKey::new().for_this_boot(format!("the TPM does not tell of its key: {e}")),
    }
}

/// A key for a TPM that keeps none.
fn first(trust: &Trust, tpm: &Tpm) -> NodeKey {
    let mut more = [0; SEED_BYTES];
    match tpm.random(&mut more) {
        Ok(()) => random::stir(&more),
        Err(e) => log::warn!("TPM: no random numbers: {e}"),
    }
    let key = NodeKey::new();
    match seal(trust, tpm, &key.seed) {
        Ok(kept) => {
            key.told.lock().kept = kept;
            key
        }
        Err(why) => key.for_this_boot(why),
    }
}

/// Has the TPM keep a seed; how it does.
fn seal(trust: &Trust, tpm: &Tpm, seed: &[u8]) -> Result<Kept, String> {
    if !trust.is_complete {
        return Err(NOT_MEASURED.to_owned());
    }
    let kept = match trust.is_loader_measured {
        true => Kept::Owner,
        false => Kept::Image,
    };
    match tpm.seal(HANDLE, seed, registers(kept)) {
        Ok(()) => Ok(kept),
        Err(e) => Err(format!("the TPM does not keep a key: {e}")),
    }
}

/// The key that the TPM keeps.
fn open(tpm: &Tpm) -> Result<NodeKey, String> {
    for kept in [Kept::Owner, Kept::Image] {
        let opened = tpm.unseal(HANDLE, registers(kept), |bytes| {
            let seed = bytes.try_into().ok()?;
            NodeKey::from_seed(seed, kept)
        });
        match opened {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => return Err("what the TPM keeps is no key of a node".to_owned()),
            Err(TpmError::OtherState) => {}
            Err(e) => return Err(format!("the TPM does not give out the node's key: {e}")),
        }
    }
    Err(SEALED.to_owned())
}
