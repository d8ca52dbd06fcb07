//! Damaged input: whatever the bytes are, parsers return and accessors hold.
//!
//! Seeded, so that a failure repeats; `SKEP_FUZZ_ROUNDS` makes it longer.

mod common;

use common::{Random, mutate};
use proptest::prelude::*;
use skep_api::blob::BlobVerifier;
use skep_api::bundle::BundleView;
use skep_api::manifest::{Manifest, SignedManifest};
use skep_api::node::NodeConfig;
use skep_api::settings::{Settings, TEMPLATE};
use skep_api::tree::{NodeKind, TreeView};
use skep_api::{Hash, PublicKey, Signature};

fn rounds(default: usize) -> usize {
    let rounds = std::env::var("SKEP_FUZZ_ROUNDS").ok();
    rounds
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

/// Uses every accessor; a parsed tree must be a tree.
fn use_tree(bytes: &[u8]) -> bool {
    let Ok(view) = TreeView::parse(bytes) else {
        return false;
    };
    assert!(matches!(view.root().kind, NodeKind::Directory { .. }));
    let mut children = 0;
    for node in view.nodes() {
        assert!(node.index == 0 || node.parent < node.index);
        for child in view.children(&node) {
            assert_eq!(child.parent, node.index);
            assert_eq!(view.lookup(&node, child.name), Some(child));
            children += 1;
        }
    }
    assert_eq!(children + 1, view.node_count());
    assert_eq!(view.nodes().count(), view.node_count() as usize);
    true
}

fn use_bundle(bytes: &[u8]) -> bool {
    let Ok(view) = BundleView::parse(bytes) else {
        return false;
    };
    for entry in view.entries() {
        let _ = view.content(&entry);
    }
    for (hash, len) in view.blobs() {
        let Ok(blob) = view.blob(hash) else { continue };
        assert_eq!(blob.data().len() as u64, len);
        if let Ok(data) = blob.verified_data() {
            assert_eq!(Hash::of(data), hash);
        }
    }
    true
}

/// A bundle whose index hash fits, as an attacker would make it.
fn reseal(bytes: &mut [u8]) {
    let Some(index_len) = bytes.get(24..32).and_then(|len| len.try_into().ok()) else {
        return;
    };
    let Ok(index_len) = usize::try_from(u64::from_le_bytes(index_len)) else {
        return;
    };
    let end = index_len.checked_add(96);
    let Some(index) = end.and_then(|end| bytes.get(96..end)) else {
        return;
    };
    let hash = Hash::of(&[&bytes[..64], index].concat());
    bytes[64..96].copy_from_slice(hash.as_bytes());
}

#[test]
fn damaged_trees() {
    let mut random = Random(1);
    let mut accepted = 0;
    let good = common::tree();
    for _ in 0..rounds(60_000) {
        let mut bytes = good.clone();
        mutate(&mut random, &mut bytes);
        accepted += usize::from(use_tree(&bytes));
    }
    // Otherwise the accessors were never tried on anything unusual.
    assert!(accepted > 50, "{accepted}");
}

#[test]
fn damaged_bundles() {
    let good = common::bundle();
    let mut random = Random(2);
    let mut accepted = 0;
    for _ in 0..rounds(3000) {
        let mut bytes = good.clone();
        // Half the damage goes where the structure is.
        if random.below(2) == 0 {
            let mut front = bytes[..600].to_vec();
            mutate(&mut random, &mut front);
            front.resize(600, 0);
            bytes[..600].copy_from_slice(&front);
        } else {
            mutate(&mut random, &mut bytes);
        }
        if random.below(4) != 0 {
            reseal(&mut bytes);
        }
        accepted += usize::from(use_bundle(&bytes));
    }
    assert!(accepted > 50, "{accepted}");
}

#[test]
fn damaged_manifests_and_configurations() {
    let samples = [
        common::signed_manifest(),
        common::signed_manifest_with_devices(),
        common::signed_manifest_with_raw_network(),
    ];
    let config = common::node_config().encode().unwrap();
    let owners = [common::owner().public()];
    let mut random = Random(3);
    for round in 0..rounds(20_000) {
        let (header, payload) = samples[round % samples.len()].split_at(105);
        let mut bytes = payload.to_vec();
        mutate(&mut random, &mut bytes);
        let mut signed = header.to_vec();
        signed.extend_from_slice(&bytes);
        let signed = SignedManifest::decode(&signed).unwrap();
        if let Ok(manifest) = signed.payload_unverified() {
            // Whatever is accepted can be written and read again.
            if manifest.validate().is_ok() {
                let again = SignedManifest::sign(&manifest, &common::owner());
                let again: Result<Manifest, _> = again.unwrap().payload_unverified();
                assert_eq!(again, Ok(manifest));
            }
        }
        if round % 50 == 0 && bytes != payload {
            assert!(signed.verify(&owners, 1500).is_err());
        }
        let mut bytes = config.clone();
        mutate(&mut random, &mut bytes);
        if let Ok(config) = NodeConfig::decode(&bytes) {
            assert_eq!(NodeConfig::decode(&config.encode().unwrap()), Ok(config));
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), len in any::<u64>()) {
        use_tree(&bytes);
        use_bundle(&bytes);
        let _ = NodeConfig::decode(&bytes);
        if let Ok(signed) = SignedManifest::decode(&bytes) {
            let _ = signed.payload_unverified();
        }
        if let Ok(verifier) = BlobVerifier::new(Hash::of(b""), len % 100_000, &bytes[..]) {
            let _ = verifier.verify_all(&bytes);
        }
    }

    #[test]
    fn arbitrary_keys_and_signatures(key: [u8; 32], r: [u8; 32], s: [u8; 32]) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        prop_assert!(!PublicKey(key).verifies("x", &[b"y"], &Signature(signature)));
    }
}

proptest! {
    /// Text that people broke, and bytes that no one wrote: an error has a line of the
    /// file, and its words one line.
    #[test]
    fn settings_are_read_or_told_by_line(
        invented in prop::collection::vec(any::<u8>(), 0..400),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let template = TEMPLATE.replace("\n#", "\n");
        let mut damaged = template.into_bytes();
        for (place, byte) in places {
            let at = place.index(damaged.len());
            damaged[at] = byte;
        }
        for bytes in [invented, damaged] {
            if let Err(error) = Settings::parse(&bytes) {
                let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
                prop_assert!((1..=lines).contains(&error.line), "{error}");
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}
