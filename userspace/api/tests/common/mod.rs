//! Samples and a seeded mutator that the tests of the wire formats share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses its own part"
)]

use skep_api::bundle::{BundleBuilder, EntryKind};
use skep_api::manifest::{
    Check, Limits, Manifest, Outbound, Port, Probe, Probes, Protocol, Restart, SignedManifest,
    Stop, Validity,
};
use skep_api::node::{Console, Network, NodeConfig};
use skep_api::tree::{Meta, TreeBuilder};
use skep_api::{Hash, KeyPair};

/// The owner of the samples.
pub fn owner() -> KeyPair {
    KeyPair::from_seed([1; 32]).unwrap()
}

/// A manifest that uses every field of the first version.
pub fn manifest() -> Manifest {
    let http = Check::Http {
        port: 80,
        path: "/health".into(),
    };
    let probe = |check| Probe {
        check,
        interval_ms: 1000,
        timeout_ms: 500,
        failure_threshold: 3,
    };
    Manifest {
        name: "web-1".into(),
        sequence: 7,
        tree: Hash::of(b"tree"),
        command: vec!["/usr/sbin/nginx".into(), "-g".into(), "daemon off;".into()],
        environment: vec![
            ("LANG".into(), "C.UTF-8".into()),
            ("EMPTY".into(), String::new()),
        ],
        working_directory: "/".into(),
        user: 33,
        group: 33,
        limits: Limits {
            cpu_quota_percent: Some(150),
            ..Limits::default()
        },
        ports: vec![Port {
            capsule: 80,
            node: 8081,
            protocol: Protocol::Tcp,
        }],
        outbound: Outbound::Deny,
        probes: Probes {
            startup: Some(probe(Check::Tcp(80))),
            liveness: Some(probe(http)),
        },
        restart: Restart::default(),
        stop: Stop {
            signal: 3,
            grace_ms: 5000,
        },
        start_after: vec!["database".into()],
        system: false,
        validity: Validity {
            valid_from: Some(1000),
            not_after: Some(2000),
        },
        devices: Vec::new(),
        raw_network: false,
    }
}

/// The same with devices, which the first version cannot say.
pub fn manifest_with_devices() -> Manifest {
    Manifest {
        devices: vec!["vda".into(), "vdb".into()],
        ..manifest()
    }
}

/// A signed manifest on the wire.
pub fn signed_manifest() -> Vec<u8> {
    SignedManifest::sign(&manifest(), &owner())
        .unwrap()
        .encode()
}

/// The same with the right to raw sockets, which only the newest version can say.
pub fn manifest_with_raw_network() -> Manifest {
    Manifest {
        raw_network: true,
        outbound: Outbound::Allow,
        ..manifest()
    }
}

/// A signed manifest of the second version on the wire.
pub fn signed_manifest_with_devices() -> Vec<u8> {
    SignedManifest::sign(&manifest_with_devices(), &owner())
        .unwrap()
        .encode()
}

/// A signed manifest of the newest version on the wire.
pub fn signed_manifest_with_raw_network() -> Vec<u8> {
    SignedManifest::sign(&manifest_with_raw_network(), &owner())
        .unwrap()
        .encode()
}

/// A node configuration.
pub fn node_config() -> NodeConfig {
    NodeConfig {
        name: "node-1".into(),
        owner: owner().public(),
        system: "threebot".into(),
        start: vec!["web-1".into()],
        network: Network::Static {
            address: [10, 0, 2, 15].into(),
            prefix: 24,
            gateway: Some([10, 0, 2, 2].into()),
            dns: vec![[10, 0, 2, 3].into()],
        },
        vlan: None,
        console: Console::default(),
    }
}

/// A tree blob with every kind of node.
pub fn tree() -> Vec<u8> {
    let meta = Meta {
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: -3,
    };
    let mut tree = TreeBuilder::new();
    tree.add_directory(
        b"/",
        Meta {
            mode: 0o711,
            ..Meta::DIRECTORY
        },
    )
    .unwrap();
    tree.add_directory(
        b"/tmp",
        Meta {
            mode: 0o1777,
            ..Meta::DIRECTORY
        },
    )
    .unwrap();
    tree.add_file(b"/etc/hosts", meta, 5, Hash::of(b"hosts"))
        .unwrap();
    tree.add_file(b"etc/passwd", meta, 0, Hash::of(b""))
        .unwrap();
    tree.add_file(
        b"/usr/bin/sh",
        Meta {
            mode: 0o755,
            ..meta
        },
        9,
        Hash::of(b"sh"),
    )
    .unwrap();
    tree.add_symlink(
        b"/bin",
        Meta {
            mode: 0o777,
            ..meta
        },
        b"usr/bin",
    )
    .unwrap();
    tree.finish().unwrap()
}

/// Contents of the blobs of [`bundle`]: empty, small, exactly one page, several groups.
pub fn blobs() -> Vec<Vec<u8>> {
    let pattern = |len: usize| (0..len).map(|i| (i * 7 % 253) as u8).collect::<Vec<u8>>();
    vec![vec![], pattern(5), pattern(4096), pattern(3 * 16384 + 100)]
}

/// A bundle with a configuration, a manifest and [`blobs`].
pub fn bundle() -> Vec<u8> {
    let mut bundle = BundleBuilder::new();
    bundle
        .add_entry(EntryKind::Node, "node", node_config().encode().unwrap())
        .unwrap();
    bundle
        .add_entry(EntryKind::Manifest, "web-1", signed_manifest())
        .unwrap();
    for blob in blobs() {
        bundle.add_blob(blob).unwrap();
    }
    bundle.finish().unwrap()
}

/// A small deterministic source of random numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Damages bytes the way disks, networks and attackers do.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => {
                bytes.remove(at);
            }
            5 => {
                // Numbers at their limits, where sums overflow.
                let value = [0, 1, u64::MAX, u64::MAX - 4095, 1 << 31, 1 << 63][random.below(6)];
                let end = (at + 8).min(bytes.len());
                let value = value.to_le_bytes();
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            _ => {
                let from = random.below(bytes.len());
                let len = random.below(64).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + len, at);
            }
        }
    }
}
