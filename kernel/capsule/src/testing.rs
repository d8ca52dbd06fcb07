//! Bundles for tests: in memory, with any fault.

use crate::medium::Medium;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::{Account, Frame};
use skep_api::bundle::{BundleBuilder, EntryKind};
use skep_api::manifest::{
    Limits, Manifest, Outbound, Port, Probes, Protocol, Restart, SignedManifest, Stop, Validity,
};
use skep_api::node::{Console, ENTRY_NAME, Network, NodeConfig};
use skep_api::tree::{Meta, TreeBuilder};
use skep_api::{Hash, KeyPair};

/// A medium in memory. Its frames are copies, charged to the kernel.
pub(crate) struct Memory(pub(crate) &'static [u8]);

impl Memory {
    pub(crate) fn new(bytes: Vec<u8>) -> Box<Memory> {
        Box::new(Memory(bytes.leak()))
    }
}

impl Medium for Memory {
    fn bytes(&self) -> &'static [u8] {
        self.0
    }

    fn frame(&self, offset: usize) -> Option<Frame> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return None;
        }
        let page = self.0.get(offset..)?;
        let frame = Frame::zeroed(Account::kernel()).ok()?;
        frame.write(0, page.get(..PAGE_SIZE).unwrap_or(page));
        Some(frame)
    }
}

pub(crate) fn owner() -> KeyPair {
    KeyPair::from_seed([1; 32]).unwrap()
}

pub(crate) fn stranger() -> KeyPair {
    KeyPair::from_seed([2; 32]).unwrap()
}

pub(crate) fn config(start: &[&str]) -> NodeConfig {
    NodeConfig {
        name: "node".into(),
        owner: owner().public(),
        system: "threebot".into(),
        start: start.iter().map(|s| String::from(*s)).collect(),
        network: Network::Dhcp,
        vlan: None,
        console: Console::default(),
    }
}

pub(crate) fn manifest(name: &str, tree: Hash, node_port: u16) -> Manifest {
    Manifest {
        name: name.into(),
        sequence: 7,
        tree,
        command: Vec::from(["/bin/program".into()]),
        environment: Vec::new(),
        working_directory: "/".into(),
        user: 0,
        group: 0,
        limits: Limits::default(),
        ports: Vec::from([Port {
            capsule: 80,
            node: node_port,
            protocol: Protocol::Tcp,
        }]),
        outbound: Outbound::Deny,
        probes: Probes::default(),
        restart: Restart::default(),
        stop: Stop::default(),
        start_after: Vec::new(),
        system: false,
        validity: Validity::default(),
        devices: Vec::new(),
        raw_network: false,
    }
}

pub(crate) fn signed(manifest: &Manifest, by: &KeyPair) -> Vec<u8> {
    SignedManifest::sign(manifest, by).unwrap().encode()
}

/// A bundle under construction.
pub(crate) struct Bundle(pub(crate) BundleBuilder);

impl Bundle {
    pub(crate) fn new(config: &NodeConfig) -> Bundle {
        let mut builder = BundleBuilder::new();
        builder
            .add_entry(EntryKind::Node, ENTRY_NAME, config.encode().unwrap())
            .unwrap();
        Bundle(builder)
    }

    /// Adds a signed manifest under a name of its own.
    pub(crate) fn manifest(&mut self, entry: &str, bytes: Vec<u8>) {
        self.0.add_entry(EntryKind::Manifest, entry, bytes).unwrap();
    }

    /// Adds a tree of files with their content; its hash.
    pub(crate) fn image(&mut self, files: &[(&str, &[u8])]) -> Hash {
        let mut tree = TreeBuilder::new();
        for (path, content) in files {
            let meta = Meta {
                mode: 0o755,
                uid: 3,
                gid: 4,
                mtime: 5,
            };
            let hash = self.0.add_blob(content.to_vec()).unwrap();
            tree.add_file(path.as_bytes(), meta, content.len() as u64, hash)
                .unwrap();
        }
        self.0.add_blob(tree.finish().unwrap()).unwrap()
    }

    pub(crate) fn build(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}
