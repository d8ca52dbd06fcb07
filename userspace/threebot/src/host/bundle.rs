//! The boot bundle as a folder: `node` (an encoded node configuration), `NAME.manifest` (signed
//! manifests), and optionally `crash` (text shown as the record of a kernel crash).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use skep_api::Hash;
use skep_api::control::{CrashRecord, ManifestEntry, ManifestRole, Refusal};
use skep_api::manifest::{Manifest, ManifestError, SignedManifest};
use skep_api::node::NodeConfig;

/// A folder that has been read.
#[derive(Debug)]
pub struct Bundle {
    /// The node's configuration.
    pub node: NodeConfig,
    items: Vec<Item>,
    folder: PathBuf,
}

#[derive(Debug)]
struct Item {
    entry: ManifestEntry,
    bytes: Vec<u8>,
    manifest: Option<Manifest>,
}

impl Bundle {
    /// Reads a folder and verifies its manifests.
    ///
    /// # Errors
    ///
    /// When files cannot be read or there is no good node configuration.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let node = NodeConfig::decode(&fs::read(folder.join("node"))?).map_err(io::Error::other)?;
        let mut items = Vec::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "manifest")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                items.push(item(name, fs::read(&path)?, &node));
            }
        }
        items.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        Ok(Self {
            node,
            items,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn entries(&self) -> Vec<ManifestEntry> {
        self.items.iter().map(|item| item.entry.clone()).collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        Some(&self.find(name)?.bytes)
    }

    /// An entry and its manifest, if it was accepted.
    pub(super) fn manifest(&self, name: &str) -> Option<(&ManifestEntry, Option<&Manifest>)> {
        let item = self.find(name)?;
        Some((&item.entry, item.manifest.as_ref()))
    }

    pub(super) fn crash(&self) -> Option<CrashRecord> {
        let text = fs::read_to_string(self.folder.join("crash")).ok()?;
        Some(super::crash_of(&text))
    }

    pub(super) fn clear_crash(&self) {
        let _ = fs::remove_file(self.folder.join("crash")); // gone is what is wanted
    }

    fn find(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.entry.name == name)
    }
}

fn item(name: &str, bytes: Vec<u8>, node: &NodeConfig) -> Item {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let verified =
        SignedManifest::decode(&bytes).and_then(|signed| signed.verify(&[node.owner], now));
    let role = if name == node.system {
        ManifestRole::System
    } else if node.start.iter().any(|start| start == name) {
        ManifestRole::Start
    } else {
        ManifestRole::Idle
    };
    let (manifest, refusal) = match verified {
        Ok(manifest) => (Some(manifest), None),
        Err(error) => (None, Some(refusal(&error))),
    };
    let entry = ManifestEntry {
        name: name.to_owned(),
        bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        hash: Hash::of(&bytes).0,
        role,
        refusal,
    };
    Item {
        entry,
        bytes,
        manifest,
    }
}

fn refusal(error: &ManifestError) -> Refusal {
    match error {
        ManifestError::UnknownVersion(version) => Refusal::UnknownVersion((*version).into()),
        ManifestError::WrongKey(_) => Refusal::UnknownKey,
        ManifestError::BadSignature => Refusal::BadSignature,
        ManifestError::Expired { not_after, .. } => Refusal::Expired {
            since_unix_ms: not_after.saturating_mul(1000),
        },
        ManifestError::NotYetValid { valid_from, .. } => Refusal::NotYetValid {
            from_unix_ms: valid_from.saturating_mul(1000),
        },
        other => Refusal::Malformed(other.to_string()),
    }
}
