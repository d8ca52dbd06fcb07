//! Ramdisks for scenarios: any capsules, any faults.
//!
//! The standard ramdisk is made by the owner's command line, as a user would.
//! Scenarios need ones that no command line would make (a manifest of another
//! owner, a damaged blob), so here a bundle is put together piece by piece from
//! the types that the command line itself is built on.

use crate::{Artifacts, command::output};
use anyhow::{Context as _, Result, anyhow};
use skep_api::{
    Hash, KeyPair, PublicKey,
    bundle::{BundleBuilder, EntryKind},
    manifest::{
        Check, Limits, Manifest, Outbound, Port, Probe, Probes, Protocol, Restart, RestartPolicy,
        SignedManifest, Stop, Validity,
    },
    node::{Console, ENTRY_NAME, LogLevel, Network, NodeConfig},
    tree::{Meta, NodeKind, TreeBuilder, TreeView},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Name of the 3Bot's capsule and, in its image, of its program.
pub const THREEBOT: &str = "threebot";

/// Port of the 3Bot's API and status page.
pub const THREEBOT_PORT: u16 = 8080;

/// The key of the owner that `scripts/run` made, with which the command line
/// signs too.
pub fn owner() -> Result<KeyPair> {
    let path = Artifacts::new().require(Artifacts::new().owner_key())?;
    let text = fs::read_to_string(&path)?;
    let seed = text
        .split_whitespace()
        .last()
        .and_then(|seed| seed.parse::<PublicKey>().ok());
    seed.and_then(|seed| KeyPair::from_seed(seed.0))
        .with_context(|| format!("{} is not an owner's key", path.display()))
}

/// The key of somebody who owns no node.
pub fn stranger() -> Result<KeyPair> {
    KeyPair::from_seed([0x5a; 32]).context("not a seed")
}

/// The files of a capsule: a tree and its blobs.
#[derive(Clone, Debug)]
pub struct Image {
    root: Hash,
    blobs: BTreeMap<Hash, Vec<u8>>,
}

impl Image {
    /// Opens an image folder that `skep pack` wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let root = fs::read_to_string(folder.join("tree"))
            .with_context(|| format!("{} is not an image", folder.display()))?;
        let root: Hash = root.trim().parse().map_err(|error| anyhow!("{error}"))?;
        let blob = |hash: Hash| {
            let path = folder.join("blobs").join(hash.to_string());
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let tree = blob(root)?;
        let mut blobs = BTreeMap::new();
        for node in TreeView::parse(&tree)
            .map_err(|error| anyhow!("{error}"))?
            .nodes()
        {
            if let NodeKind::File { hash, .. } = node.kind {
                blobs.insert(hash, blob(hash)?);
            }
        }
        blobs.insert(root, tree);
        Ok(Self { root, blobs })
    }

    /// Debian's nginx with its default page, as packed for the standard ramdisk.
    pub fn nginx() -> Result<Self> {
        let artifacts = Artifacts::new();
        Self::open(&artifacts.require(artifacts.nginx_image())?)
    }

    /// An image of one program of `qemu/programs`, as `/bin/NAME`.
    pub fn program(name: &str) -> Result<Self> {
        let artifacts = Artifacts::new();
        let bytes = fs::read(artifacts.require(artifacts.program(name))?)?;
        // Folders for what it writes.
        Self::of_files(&[
            (&format!("/bin/{name}"), 0o755, &bytes),
            ("/tmp/.folder", 0o644, b""),
        ])
    }

    /// An image of these files, given as path, mode and content.
    pub fn of_files(files: &[(&str, u16, &[u8])]) -> Result<Self> {
        Self::build(TreeBuilder::new(), BTreeMap::new(), files)
    }

    /// An image of everything in a folder of this machine, as root's.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let packed = Artifacts::new().target().join("qemu-ramdisks/folder-image");
        let cli = Artifacts::new().require(Artifacts::new().cli())?;
        let mut pack = Command::new(cli);
        output(
            pack.arg("pack")
                .arg("--dir")
                .arg(folder)
                .arg("-o")
                .arg(&packed),
        )?;
        Self::open(&packed)
    }

    /// The same image with these files more, whose paths it must not have yet.
    pub fn with_files(&self, files: &[(&str, u16, &[u8])]) -> Result<Self> {
        let failed = |error| anyhow!("the image's tree: {error}");
        let tree = self
            .blobs
            .get(&self.root)
            .context("the image has no tree")?;
        let mut blobs = self.blobs.clone();
        blobs.remove(&self.root);
        let mut builder = TreeBuilder::new();
        // Parents come before their children.
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for node in TreeView::parse(tree).map_err(failed)?.nodes() {
            let mut path = paths.get(node.parent as usize).cloned().unwrap_or_default();
            path.push(b'/');
            path.extend_from_slice(node.name);
            let meta = Meta {
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
                mtime: node.mtime,
            };
            match node.kind {
                NodeKind::File { size, hash } => builder.add_file(&path, meta, size, hash),
                NodeKind::Symlink { target } => builder.add_symlink(&path, meta, target),
                NodeKind::Directory { .. } => builder.add_directory(&path, meta),
            }
            .map_err(failed)?;
            paths.push(path);
        }
        Self::build(builder, blobs, files)
    }

    fn build(
        mut tree: TreeBuilder,
        mut blobs: BTreeMap<Hash, Vec<u8>>,
        files: &[(&str, u16, &[u8])],
    ) -> Result<Self> {
        for (path, mode, data) in files {
            let hash = Hash::of(data);
            let meta = Meta {
                mode: *mode,
                uid: 0,
                gid: 0,
                mtime: 0,
            };
            tree.add_file(path.as_bytes(), meta, data.len() as u64, hash)
                .map_err(|error| anyhow!("{path}: {error}"))?;
            blobs.insert(hash, data.to_vec());
        }
        let tree = tree.finish().map_err(|error| anyhow!("{error}"))?;
        let root = Hash::of(&tree);
        blobs.insert(root, tree);
        Ok(Self { root, blobs })
    }

    /// The bytes of the tree.
    pub fn tree(&self) -> &[u8] {
        self.blobs.get(&self.root).map_or(&[], Vec::as_slice)
    }

    /// Hash of the tree, for a manifest.
    pub fn root(&self) -> Hash {
        self.root
    }
}

/// The manifest in `userspace/capsules/` of a capsule of the standard ramdisk,
/// for `image`.
pub fn standard_manifest(name: &str, image: &Image) -> Result<Manifest> {
    let path = Artifacts::new().out().join(format!("{name}.manifest"));
    let bytes = fs::read(Artifacts::new().require(path)?)?;
    let signed = SignedManifest::decode(&bytes).map_err(|error| anyhow!("{name}: {error}"))?;
    let mut manifest = signed
        .payload_unverified()
        .map_err(|error| anyhow!("{name}: {error}"))?;
    manifest.tree = image.root();
    Ok(manifest)
}

/// The usual console; `SKEP_TRACE=1` in the environment of a scenario adds every
/// system call of every capsule to its serial log.
fn console() -> Console {
    let mut console = Console::default();
    if std::env::var_os("SKEP_TRACE").is_some() {
        console.level = LogLevel::Trace;
    }
    console
}

/// A manifest with the usual settings for everything but its essentials:
/// started as root, restarted always, no ports, no probes.
pub fn manifest(name: &str, image: &Image, command: &[&str]) -> Manifest {
    Manifest {
        name: name.to_string(),
        sequence: 1,
        tree: image.root(),
        command: command.iter().map(|word| word.to_string()).collect(),
        environment: vec![(
            "PATH".to_string(),
            "/usr/sbin:/usr/bin:/sbin:/bin".to_string(),
        )],
        working_directory: "/".to_string(),
        user: 0,
        group: 0,
        limits: Limits::default(),
        ports: Vec::new(),
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

/// A manifest of a capsule that runs the script `/NAME` of its image once, and may reach out.
pub fn scripted(name: &str, image: &Image) -> Manifest {
    let mut capsule = manifest(name, image, &["/bin/bash", &format!("/{name}")]);
    capsule.outbound = Outbound::Allow;
    capsule.restart.policy = RestartPolicy::Never;
    capsule.limits.memory_bytes = 96 << 20;
    capsule
}

/// A TCP port of the capsule, published as the node's port `node`.
pub fn port(capsule: u16, node: u16) -> Port {
    Port {
        capsule,
        node,
        protocol: Protocol::Tcp,
    }
}

/// A probe that fetches a page: every second, 3 failures in a row fail it.
pub fn http_probe(port: u16, path: &str) -> Probe {
    Probe {
        check: Check::Http {
            port,
            path: path.to_string(),
        },
        interval_ms: 1000,
        timeout_ms: 2000,
        failure_threshold: 3,
    }
}

/// A ramdisk in the making: node configuration, signed manifests, blobs.
pub struct Ramdisk {
    /// What the node is told about itself; may be changed until it is written.
    pub config: NodeConfig,
    owner: KeyPair,
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<Hash, Vec<u8>>,
}

impl Ramdisk {
    /// A ramdisk whose node belongs to [`owner`] and runs the 3Bot and nothing else.
    pub fn new() -> Result<Self> {
        let owner = owner()?;
        let mut ramdisk = Self {
            config: NodeConfig {
                name: "node".to_string(),
                owner: owner.public(),
                system: THREEBOT.to_string(),
                start: Vec::new(),
                network: Network::Dhcp,
                vlan: None,
                console: console(),
            },
            owner,
            manifests: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        let artifacts = Artifacts::new();
        let program = fs::read(artifacts.require(artifacts.threebot())?)?;
        let image = Image::of_files(&[(&format!("/bin/{THREEBOT}"), 0o755, &program)])?;
        let threebot = standard_manifest(THREEBOT, &image)?;
        ramdisk.add(&threebot, &image)?;
        Ok(ramdisk)
    }

    /// Adds a capsule that the node starts by itself.
    pub fn capsule(&mut self, manifest: &Manifest, image: &Image) -> Result<()> {
        self.add(manifest, image)?;
        self.config.start.push(manifest.name.clone());
        Ok(())
    }

    /// [`Self::new`] with Debian's nginx on port 8081, as on the standard ramdisk.
    pub fn with_nginx() -> Result<Self> {
        let mut ramdisk = Self::new()?;
        let image = Image::nginx()?;
        ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
        Ok(ramdisk)
    }

    /// Adds a capsule that starts when the owner says so.
    pub fn idle_capsule(&mut self, manifest: &Manifest, image: &Image) -> Result<()> {
        self.add(manifest, image)
    }

    /// The highest hash of a blob, which lies last in the ramdisk.
    pub fn last_blob(&self) -> Hash {
        self.blobs
            .keys()
            .next_back()
            .copied()
            .unwrap_or(Hash([0; 32]))
    }

    /// Adds a capsule whose manifest is `bytes`, whatever they are.
    pub fn capsule_with_bytes(&mut self, name: &str, bytes: Vec<u8>, image: &Image) {
        self.manifests.insert(name.to_string(), bytes);
        self.blobs.extend(image.blobs.clone());
        self.config.start.push(name.to_string());
    }

    fn add(&mut self, manifest: &Manifest, image: &Image) -> Result<()> {
        let signed = SignedManifest::sign(manifest, &self.owner)
            .map_err(|error| anyhow!("manifest of {}: {error}", manifest.name))?;
        self.manifests
            .insert(manifest.name.clone(), signed.encode());
        self.blobs.extend(image.blobs.clone());
        Ok(())
    }

    /// The bytes of the ramdisk.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bundle = BundleBuilder::new();
        let config = self.config.encode().map_err(|error| anyhow!("{error}"))?;
        let failed = |error| anyhow!("the ramdisk cannot be made: {error}");
        bundle
            .add_entry(EntryKind::Node, ENTRY_NAME, config)
            .map_err(failed)?;
        for (name, bytes) in &self.manifests {
            bundle
                .add_entry(EntryKind::Manifest, name, bytes.clone())
                .map_err(failed)?;
        }
        for data in self.blobs.values() {
            bundle.add_blob(data.clone()).map_err(failed)?;
        }
        bundle.finish().map_err(failed)
    }

    /// Writes the ramdisk for the scenario `name` and returns where it is.
    pub fn write(&self, name: &str) -> Result<PathBuf> {
        write_bytes(name, &self.bytes()?)
    }
}

/// Writes bytes that are to be a ramdisk for the scenario `name`: one cut short
/// or with a byte flipped, for example.
pub fn write_bytes(name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let folder = Artifacts::new().target().join("qemu-ramdisks");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::{Image, http_probe, manifest, port, stranger};
    use skep_api::{
        manifest::SignedManifest,
        tree::{NodeKind, TreeView},
    };

    #[test]
    fn an_image_of_files_holds_them_in_its_tree() {
        let image = Image::of_files(&[("/bin/a", 0o755, b"one"), ("/b", 0o644, b"two")]).unwrap();
        let tree = TreeView::parse(&image.blobs[&image.root()]).unwrap();
        let files = tree
            .nodes()
            .filter(|node| matches!(node.kind, NodeKind::File { .. }));
        assert_eq!(files.count(), 2);
        assert_eq!(image.blobs.len(), 3);
    }

    #[test]
    fn files_are_added_beside_everything_that_was_there() {
        let image = Image::of_files(&[("/usr/bin/a", 0o755, b"one")]).unwrap();
        let more = image.with_files(&[("/usr/b", 0o644, b"two")]).unwrap();
        let both: &[(&str, u16, &[u8])] =
            &[("/usr/bin/a", 0o755, b"one"), ("/usr/b", 0o644, b"two")];
        assert_eq!(more.root(), Image::of_files(both).unwrap().root());
        assert!(more.with_files(&[("/usr/b", 0o644, b"three")]).is_err());
    }

    #[test]
    fn a_usual_manifest_is_valid() {
        let image = Image::of_files(&[("/a", 0o755, b"one")]).unwrap();
        let mut manifest = manifest("web", &image, &["/a"]);
        manifest.ports.push(port(80, 8081));
        manifest.probes.liveness = Some(http_probe(80, "/"));
        let pair = stranger().unwrap();
        let signed = SignedManifest::sign(&manifest, &pair).unwrap();
        assert_eq!(signed.verify(&[pair.public()], 1).unwrap(), manifest);
    }
}
