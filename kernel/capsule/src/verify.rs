//! Who may run: signed manifests against the node's owner.
//!
//! The costly part, the signature, is checked once for each entry of the bundle;
//! the validity against the clock is checked every time.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use hashbrown::HashMap;
use machine::sync::{Mutex, Once};
use skep_api::bundle::{BundleError, BundleView, EntryKind};
use skep_api::control::{ManifestEntry, ManifestRole, Refusal};
use skep_api::manifest::{Manifest, ManifestError, Protocol, SignedManifest};
use skep_api::node::NodeConfig;
use skep_api::{Hash, PublicKey};

/// Most bytes of a text in a [`Refusal`].
const TEXT_MAX: usize = 128;
/// 2025-01-01: a clock before this has not been set.
const CLOCK_PLAUSIBLE: u64 = 1_735_689_600;
const NS: i64 = 1_000_000_000;

/// Seconds since 1970, if the clock can be right.
#[must_use]
pub fn now() -> Option<u64> {
    let seconds = u64::try_from(machine::time::wall() / NS).ok()?;
    (seconds >= CLOCK_PLAUSIBLE).then_some(seconds)
}

/// A manifest that the owner has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What it says.
    pub manifest: Manifest,
    /// BLAKE3 of the signed bytes.
    pub hash: Hash,
}

/// A text for people, cut to what a [`Refusal`] may hold.
pub(crate) fn brief(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    String::from(text.get(..end).unwrap_or_default())
}

/// How a manifest's error is told to the 3Bot.
#[must_use]
pub fn refusal(error: &ManifestError) -> Refusal {
    let ms = |seconds: u64| seconds.saturating_mul(1000);
    match error {
        ManifestError::UnknownVersion(v) => Refusal::UnknownVersion(u32::from(*v)),
        ManifestError::WrongKey(_) => Refusal::UnknownKey,
        ManifestError::BadSignature => Refusal::BadSignature,
        ManifestError::Expired { not_after, .. } => Refusal::Expired {
            since_unix_ms: ms(*not_after),
        },
        ManifestError::NotYetValid { valid_from, .. } => Refusal::NotYetValid {
            from_unix_ms: ms(*valid_from),
        },
        ManifestError::BadEncoding
        | ManifestError::TooLong(_)
        | ManifestError::BadPayload
        | ManifestError::Field(_) => Refusal::Malformed(brief(&error.to_string())),
    }
}

/// What to print about a refusal.
#[must_use]
pub fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Malformed(what) => format!("malformed: {what}"),
        Refusal::UnknownVersion(v) => format!("unknown version {v}"),
        Refusal::UnknownKey => String::from("signed by a key that does not own this node"),
        Refusal::BadSignature => String::from("the signature is wrong"),
        Refusal::Expired { .. } => String::from("it has expired"),
        Refusal::NotYetValid { .. } => String::from("it is not valid yet"),
        Refusal::OldSequence(have) => {
            format!("the node has accepted sequence number {have} of that capsule")
        }
        Refusal::Unsupported(what) => format!("unsupported: {what}"),
        Refusal::PortTaken(port) => format!("port {port} is taken"),
        Refusal::BlobMissing(hash) => format!("blob {} is missing", Hash(*hash)),
        Refusal::BlobCorrupt(hash) => format!("blob {} is damaged", Hash(*hash)),
        Refusal::DeviceMissing(device) => format!("there is no device {device}"),
        Refusal::DeviceTaken { device, holder } => {
            format!("device {device} is held by the capsule {holder}")
        }
    }
}

/// Checks everything that does not change with time: version, key, signature,
/// payload, fields.
///
/// # Errors
/// The first that is wrong.
pub fn check_signed(bytes: &[u8], owners: &[PublicKey]) -> Result<Accepted, Refusal> {
    let checked = SignedManifest::decode(bytes).and_then(|signed| {
        // The times are checked last, so an error of theirs means that all else is
        // good.
        match signed.verify(owners, 0) {
            Err(ManifestError::Expired { .. } | ManifestError::NotYetValid { .. }) => {
                signed.payload_unverified()
            }
            other => other,
        }
    });
    Ok(Accepted {
        manifest: checked.map_err(|e| refusal(&e))?,
        hash: Hash::of(bytes),
    })
}

/// Checks the validity of a manifest against the clock. A clock that cannot be
/// right says nothing: a machine whose battery is empty still serves.
///
/// # Errors
/// [`Refusal::Expired`], [`Refusal::NotYetValid`].
pub fn check_times(manifest: &Manifest, now: Option<u64>) -> Result<(), Refusal> {
    let Some(now) = now else { return Ok(()) };
    manifest.validity.check(now).map_err(|e| refusal(&e))
}

/// One manifest of the bundle.
struct Entry {
    name: String,
    /// `Err`: the bundle lost it.
    bytes: Result<&'static [u8], Refusal>,
    hash: Hash,
    role: ManifestRole,
    /// Whether it came with the ramdisk, whose maker may have signed it.
    is_built_in: bool,
    checked: Once<Result<Accepted, Refusal>>,
}

/// The manifests of the boot bundle, and those that the owner put beside it.
pub struct Manifests {
    entries: Vec<Entry>,
    owners: Vec<PublicKey>,
    /// The owner's keys and that of the ramdisk's maker.
    makers: Vec<PublicKey>,
    /// The system capsule's and those that the 3Bot starts, in this order: whose
    /// ports count first.
    order: Vec<String>,
    /// By capsule: the highest sequence number accepted in this boot.
    sequences: Mutex<HashMap<String, u64>>,
}

impl Manifests {
    /// The manifests of `bundle`, which the owner or `maker` has signed, for a node of
    /// this configuration. No signature is checked yet.
    #[must_use]
    pub fn new(bundle: BundleView<'static>, config: &NodeConfig, maker: PublicKey) -> Manifests {
        let mut order = Vec::from([config.system.clone()]);
        order.extend(config.start.iter().cloned());
        let role = |name: &str| role(&order, name);
        let all = bundle.entries().filter(|e| e.kind == EntryKind::Manifest);
        let entries = all.map(|e| Entry {
            name: String::from(e.name),
            bytes: bundle.content(&e).map_err(|why| lost(&why)),
            hash: e.hash,
            role: role(e.name),
            is_built_in: true,
            checked: Once::new(),
        });
        Manifests {
            entries: entries.collect(),
            owners: Vec::from([config.owner]),
            makers: Vec::from([config.owner, maker]),
            order,
            sequences: Mutex::new(HashMap::new()),
        }
    }

    /// Adds a manifest that is not the ramdisk's, for the rest of this boot. It takes
    /// the place of one of the same name if the owner has signed it and it is newer;
    /// if not, it stands beside that and is refused.
    pub fn add(&mut self, name: String, bytes: Vec<u8>) {
        let hash = Hash::of(&bytes);
        let mut entry = Entry {
            role: role(&self.order, &name),
            name,
            // Kept as the ramdisk is: for ever.
            bytes: Ok(bytes.leak()),
            hash,
            is_built_in: false,
            checked: Once::new(),
        };
        let place = self.entries.iter().position(|e| e.name == entry.name);
        let Some((place, old)) = place.and_then(|n| Some((n, self.entries.get(n)?))) else {
            self.entries.push(entry);
            return;
        };
        let is_newer = match (self.checked(&entry), self.checked(old)) {
            (Ok(new), Ok(old)) => new.manifest.sequence > old.manifest.sequence,
            (new, _) => new.is_ok(),
        };
        if is_newer && let Some(slot) = self.entries.get_mut(place) {
            *slot = entry;
            return;
        }
        entry.name = format!("{}-beside", entry.name);
        entry.role = ManifestRole::Idle;
        self.entries.push(entry);
    }

    /// The owner's keys.
    #[must_use]
    pub fn owners(&self) -> &[PublicKey] {
        &self.owners
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    fn checked<'a>(&self, entry: &'a Entry) -> &'a Result<Accepted, Refusal> {
        let signers = match entry.is_built_in {
            true => &self.makers,
            false => &self.owners,
        };
        entry
            .checked
            .call_once(|| check_signed(entry.bytes.clone()?, signers))
    }

    /// The signed bytes of the entry `name`, whatever is in them.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&'static [u8]> {
        self.entry(name)?.bytes.clone().ok()
    }

    /// The manifest of the entry `name`; `None` if there is no such entry.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Result<Accepted, Refusal>> {
        let entry = self.entry(name)?;
        Some(self.verdict(entry, now()))
    }

    /// Takes a manifest that came from elsewhere.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, bytes: &[u8]) -> Result<Accepted, Refusal> {
        let accepted = check_signed(bytes, &self.owners)?;
        check_times(&accepted.manifest, now())?;
        Ok(accepted)
    }

    /// What there is to say of `entry` by itself and beside its neighbours.
    fn verdict(&self, entry: &Entry, now: Option<u64>) -> Result<Accepted, Refusal> {
        let accepted = self.checked(entry).clone()?;
        check_times(&accepted.manifest, now)?;
        self.check_duplicates(entry, &accepted)?;
        Ok(accepted)
    }

    /// Of several manifests of one capsule the one with the highest sequence number
    /// counts, of equals the one that comes first.
    fn check_duplicates(&self, entry: &Entry, mine: &Accepted) -> Result<(), Refusal> {
        for other in &self.entries {
            let Ok(theirs) = self.checked(other) else {
                continue;
            };
            if core::ptr::eq(other, entry) || theirs.manifest.name != mine.manifest.name {
                continue;
            }
            let (have, want) = (theirs.manifest.sequence, mine.manifest.sequence);
            if have > want {
                return Err(Refusal::OldSequence(have));
            }
            if have == want && other.name < entry.name {
                return Err(Refusal::Malformed(brief(&format!(
                    "the same capsule and sequence number as {}",
                    other.name
                ))));
            }
        }
        Ok(())
    }

    /// Remembers that `manifest` was accepted for a start.
    ///
    /// # Errors
    /// [`Refusal::OldSequence`] if a later one of the capsule was.
    pub fn admit(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let mut all = self.sequences.lock();
        match all.get_mut(&manifest.name) {
            Some(have) if *have > manifest.sequence => Err(Refusal::OldSequence(*have)),
            Some(have) => {
                *have = manifest.sequence;
                Ok(())
            }
            None => {
                all.insert(manifest.name.clone(), manifest.sequence);
                Ok(())
            }
        }
    }

    /// All entries with what is to be said of each: what the 3Bot lists. Of
    /// capsules that are to run and want the same node port, the first in the
    /// node's configuration gets it.
    #[must_use]
    pub fn list(&self) -> Vec<ManifestEntry> {
        let now = now();
        let mut list: Vec<_> = self
            .entries
            .iter()
            .map(|entry| {
                let verdict = self.verdict(entry, now);
                let len = entry.bytes.as_ref().map_or(0, |b| b.len());
                ManifestEntry {
                    name: entry.name.clone(),
                    bytes: u32::try_from(len).unwrap_or(u32::MAX),
                    hash: entry.hash.0,
                    role: entry.role,
                    refusal: verdict.err(),
                }
            })
            .collect();
        self.refuse_clashes(&mut list);
        list
    }

    fn refuse_clashes(&self, list: &mut [ManifestEntry]) {
        let mut taken: Vec<(Protocol, u16)> = Vec::new();
        for name in &self.order {
            let Some(line) = list.iter_mut().find(|l| l.name == *name) else {
                continue;
            };
            let entry = self.entry(name).map(|e| self.checked(e));
            let Some(Ok(accepted)) = entry.filter(|_| line.refusal.is_none()) else {
                continue;
            };
            let ports = || accepted.manifest.ports.iter().map(|p| (p.protocol, p.node));
            match ports().find(|p| taken.contains(p)) {
                Some((_, port)) => line.refusal = Some(Refusal::PortTaken(port)),
                None => taken.extend(ports()),
            }
        }
    }
}

/// What a manifest is for, on a node that starts these: the system capsule first.
fn role(order: &[String], name: &str) -> ManifestRole {
    match order.iter().position(|other| other == name) {
        Some(0) => ManifestRole::System,
        Some(_) => ManifestRole::Start,
        None => ManifestRole::Idle,
    }
}

/// How the loss of a bundle's entry is told.
fn lost(why: &BundleError) -> Refusal {
    Refusal::Malformed(brief(&why.to_string()))
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
