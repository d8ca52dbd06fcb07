//! The signed manifest and the node configuration.

mod common;

use skep_api::KeyPair;
use skep_api::manifest::{
    MANIFEST_VERSION, MANIFEST_VERSION_FIRST, Manifest, ManifestError, Outbound, Probe, Problem,
    SIGNING_DOMAIN, SignedManifest,
};
use skep_api::node::{NODE_VERSION, NodeConfig, NodeError};

const NOW: u64 = 1500;

#[test]
fn a_signed_manifest_comes_back() {
    let signed = SignedManifest::decode(&common::signed_manifest()).unwrap();
    let owners = [
        KeyPair::from_seed([9; 32]).unwrap().public(),
        common::owner().public(),
    ];
    assert_eq!(signed.verify(&owners, NOW), Ok(common::manifest()));
}

#[test]
fn refusals_say_why() {
    let bytes = common::signed_manifest();
    let owners = [common::owner().public()];
    let verify = |bytes: &[u8], now| SignedManifest::decode(bytes)?.verify(&owners, now);

    assert_eq!(verify(b"hello", NOW), Err(ManifestError::BadEncoding));
    assert_eq!(verify(&bytes[..100], NOW), Err(ManifestError::BadEncoding));
    assert!(matches!(
        verify(&[0; 70_000], NOW),
        Err(ManifestError::TooLong(70_000))
    ));

    let mut other = bytes.clone();
    for unknown in [0, MANIFEST_VERSION + 1] {
        other[8] = unknown;
        let refused = Err(ManifestError::UnknownVersion(unknown));
        assert_eq!(verify(&other, NOW), refused);
    }
    // The version is signed too.
    other[8] = MANIFEST_VERSION;
    assert_eq!(verify(&other, NOW), Err(ManifestError::BadSignature));

    let stranger = KeyPair::from_seed([2; 32]).unwrap();
    let foreign = SignedManifest::sign(&common::manifest(), &stranger)
        .unwrap()
        .encode();
    assert_eq!(
        verify(&foreign, NOW),
        Err(ManifestError::WrongKey(stranger.public()))
    );

    let mut claimed = foreign;
    claimed[9..41].copy_from_slice(&owners[0].0);
    assert_eq!(verify(&claimed, NOW), Err(ManifestError::BadSignature));

    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(verify(&changed, NOW), Err(ManifestError::BadSignature));
    changed = bytes.clone();
    changed.push(0);
    assert_eq!(verify(&changed, NOW), Err(ManifestError::BadSignature));

    let early = ManifestError::NotYetValid {
        valid_from: 1000,
        now: 999,
    };
    assert_eq!(verify(&bytes, 999), Err(early));
    assert!(verify(&bytes, 1000).is_ok() && verify(&bytes, 2000).is_ok());
    let late = ManifestError::Expired {
        not_after: 2000,
        now: 2001,
    };
    assert_eq!(verify(&bytes, 2001), Err(late));
}

#[test]
fn only_what_a_version_added_needs_it() {
    let owners = [common::owner().public()];
    let (plain, with) = (
        common::signed_manifest(),
        common::signed_manifest_with_devices(),
    );
    assert_eq!((plain[8], with[8]), (MANIFEST_VERSION_FIRST, 2));
    let signed = SignedManifest::decode(&with).unwrap();
    let devices = signed.verify(&owners, NOW).unwrap().devices;
    assert_eq!(devices, ["vda", "vdb"]);
    let raw = common::signed_manifest_with_raw_network();
    assert_eq!(raw[8], MANIFEST_VERSION);
    let signed = SignedManifest::decode(&raw).unwrap();
    let manifest = signed.verify(&owners, NOW).unwrap();
    assert_eq!(manifest, common::manifest_with_raw_network());
    let inspected = SignedManifest::decode(&plain).unwrap();
    assert_eq!(inspected.payload_unverified(), Ok(common::manifest()));
}

/// Wraps any payload as the owner's tool would, to reach the checks behind the signature.
fn sign_raw(version: u8, payload: &[u8]) -> Vec<u8> {
    let signature = common::owner().sign(SIGNING_DOMAIN, &[&[version], payload]);
    let mut bytes = Vec::from(*b"SKEPSIGN");
    bytes.push(version);
    bytes.extend_from_slice(&common::owner().public().0);
    bytes.extend_from_slice(&signature.0);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn a_good_signature_does_not_excuse_a_bad_payload() {
    let owners = [common::owner().public()];
    let verify = |bytes: &[u8]| SignedManifest::decode(bytes)?.verify(&owners, NOW);
    let bad = Err(ManifestError::BadPayload);
    let first = MANIFEST_VERSION_FIRST;
    let good = &common::signed_manifest()[105..];
    assert_eq!(verify(&sign_raw(first, good)), Ok(common::manifest()));
    let second = &common::signed_manifest_with_devices()[105..];
    let devices = verify(&sign_raw(2, second)).unwrap();
    assert_eq!(devices, common::manifest_with_devices());
    let newest = &common::signed_manifest_with_raw_network()[105..];
    // No version is taken for another, and none has anything after it.
    let all = [(first, good), (2, second), (MANIFEST_VERSION, newest)];
    for (version, payload) in all {
        for (other, _) in all.iter().filter(|(other, _)| *other != version) {
            assert_eq!(
                verify(&sign_raw(*other, payload)),
                bad,
                "{version} as {other}"
            );
        }
        assert_eq!(verify(&sign_raw(version, b"")), bad);
        for tail in [&[0][..], &[0x80], &[1, 0], &[0xff; 9]] {
            assert_eq!(verify(&sign_raw(version, &[payload, tail].concat())), bad);
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_field_is_checked_and_named() {
    let probe = |check| Probe {
        check,
        interval_ms: 1,
        timeout_ms: 1,
        failure_threshold: 1,
    };
    type Change = Box<dyn Fn(&mut Manifest)>;
    let change = |f: fn(&mut Manifest)| -> Change { Box::new(f) };
    let cases: Vec<(&str, Problem, Change)> = vec![
        ("name", Problem::NotAName, change(|m| m.name = "Web".into())),
        (
            "name",
            Problem::NotAName,
            change(|m| m.name = "-web".into()),
        ),
        (
            "name",
            Problem::NotAName,
            change(|m| m.name = "a".repeat(64)),
        ),
        ("command", Problem::Empty, change(|m| m.command.clear())),
        (
            "command",
            Problem::NotAbsolute,
            change(|m| m.command[0] = "nginx".into()),
        ),
        (
            "command",
            Problem::Nul,
            change(|m| m.command[1] = "a\0b".into()),
        ),
        (
            "environment",
            Problem::NotAVariable,
            change(|m| m.environment[0].0 = "A=B".into()),
        ),
        (
            "environment",
            Problem::Duplicate,
            change(|m| m.environment[1].0 = "LANG".into()),
        ),
        (
            "working_directory",
            Problem::NotAbsolute,
            change(|m| m.working_directory.clear()),
        ),
        (
            "limits.memory_bytes",
            Problem::TooSmall(1 << 20),
            change(|m| m.limits.memory_bytes = 5),
        ),
        (
            "limits.cpu_share",
            Problem::TooSmall(1),
            change(|m| m.limits.cpu_share = 0),
        ),
        (
            "limits.files",
            Problem::TooSmall(3),
            change(|m| m.limits.files = 2),
        ),
        (
            "ports.node",
            Problem::TooSmall(1),
            change(|m| m.ports[0].node = 0),
        ),
        (
            "ports",
            Problem::Duplicate,
            change(|m| m.ports.push(m.ports[0])),
        ),
        (
            "probes.liveness",
            Problem::NotPublished,
            change(|m| m.ports[0].capsule = 81),
        ),
        (
            "restart.backoff_max_ms",
            Problem::TooSmall(10),
            change(|m| m.restart.backoff_max_ms = 9),
        ),
        (
            "stop.signal",
            Problem::TooLarge(64),
            change(|m| m.stop.signal = 65),
        ),
        (
            "start_after",
            Problem::Itself,
            change(|m| m.start_after.push("web-1".into())),
        ),
        (
            "devices",
            Problem::NotADevice,
            change(|m| m.devices.push("../vda".into())),
        ),
        (
            "devices",
            Problem::NotADevice,
            change(|m| m.devices.push(String::new())),
        ),
        (
            "devices",
            Problem::NotADevice,
            change(|m| m.devices.push("a".repeat(32))),
        ),
        (
            "devices",
            Problem::Duplicate,
            change(|m| m.devices = vec!["vda".into(), "vda".into()]),
        ),
        (
            "devices",
            Problem::TooLong(16),
            change(|m| m.devices = vec!["vda".into(); 17]),
        ),
        (
            "raw_network",
            Problem::NeedsOutbound,
            change(|m| (m.raw_network, m.outbound) = (true, Outbound::Deny)),
        ),
        (
            "validity.not_after",
            Problem::EndsBeforeStart,
            change(|m| m.validity.not_after = Some(9)),
        ),
    ];
    for (field, problem, apply) in cases {
        let mut manifest = common::manifest();
        manifest.probes.startup = None;
        apply(&mut manifest);
        let error = manifest.validate().unwrap_err();
        assert_eq!((error.field, error.problem), (field, problem));
        let refused = SignedManifest::sign(&manifest, &common::owner());
        assert_eq!(refused, Err(ManifestError::Field(error)));
    }
    let mut manifest = common::manifest();
    manifest.outbound = Outbound::Allow;
    manifest.probes.startup = Some(probe(skep_api::manifest::Check::Exec(vec![])));
    assert_eq!(manifest.validate().unwrap_err().problem, Problem::Empty);
}

#[test]
fn the_wire_format_does_not_change_by_accident() {
    // A new hash here means that nodes in the field cannot read the new manifests:
    // raise MANIFEST_VERSION or NODE_VERSION instead of changing it.
    let manifest = skep_api::Hash::of(&common::signed_manifest()).to_string();
    assert_eq!(&manifest[..16], "f1210b342f866848");
    let devices = skep_api::Hash::of(&common::signed_manifest_with_devices()).to_string();
    assert_eq!(&devices[..16], "0ac6d59731ad5146");
    let raw = skep_api::Hash::of(&common::signed_manifest_with_raw_network()).to_string();
    assert_eq!(&raw[..16], "ac672e02961058af");
    let node = skep_api::Hash::of(&common::node_config().encode().unwrap()).to_string();
    assert_eq!(&node[..16], "4377d9c741ff4fb7");
    let tree = skep_api::Hash::of(&common::tree()).to_string();
    assert_eq!(&tree[..16], "6f078a58136fb5b3");
    let bundle = skep_api::Hash::of(&common::bundle()).to_string();
    assert_eq!(&bundle[..16], "5d5e9b46c480c1b8");
}

#[test]
fn a_node_configuration_comes_back_or_says_why_not() {
    let config = common::node_config();
    let bytes = config.encode().unwrap();
    assert_eq!(NodeConfig::decode(&bytes), Ok(config.clone()));
    assert_eq!(NodeConfig::decode(&[]), Err(NodeError::Length(0)));
    assert_eq!(NodeConfig::decode(&[9]), Err(NodeError::UnknownVersion(9)));
    assert_eq!(
        NodeConfig::decode(&[NODE_VERSION, 1]),
        Err(NodeError::BadEncoding)
    );
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(NodeConfig::decode(&longer), Err(NodeError::BadEncoding));
    let mut twice = config;
    twice.start.push("web-1".into());
    assert!(matches!(twice.encode(), Err(NodeError::Field(error)) if error.field == "start"));
}
