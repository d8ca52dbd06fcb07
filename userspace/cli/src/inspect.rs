//! `skep inspect`: what a file of ours contains, for people.

use crate::image::store::Store;
use crate::key;
use crate::units::{show_bytes, show_milliseconds};
use anyhow::{Context, Result, bail};
use skep_api::boot::packed::is_packed;
use skep_api::bundle::{self, BundleView, EntryKind};
use skep_api::manifest::{Check, Manifest, Outbound, Probe, Protocol, SignedManifest};
use skep_api::node::NodeConfig;
use skep_api::tree::{self, Node, NodeKind, TreeView};
use skep_api::{Hash, PublicKey};
use skep_image::pack;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A signed manifest, a tree, a ramdisk or an image folder
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// Owner to check manifests for: 64 hexadecimal digits or a key file
    #[arg(long, value_name = "KEY")]
    owner: Option<String>,
    /// List every file too
    #[arg(long)]
    files: bool,
}

/// Shows.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let owner = args.owner.as_deref().map(key::public).transpose()?;
    let shown = args.path.display();
    let mut out = String::new();
    if args.path.is_dir() {
        let store = Store::open(&args.path)?;
        let root = store.root()?;
        let tree = store
            .blob(root)?
            .with_context(|| format!("{shown} has no blob {root}"))?;
        show_tree(&mut out, &tree, args.files)?;
    } else {
        let bytes = fs::read(&args.path).with_context(|| format!("cannot read {shown}"))?;
        if is_packed(&bytes) {
            writeln!(out, "packed     {}", show_bytes(bytes.len() as u64))?;
            show_bundle(&mut out, &pack::unpack(&bytes)?, owner, args.files)?;
        } else if bytes.starts_with(&tree::MAGIC) {
            show_tree(&mut out, &bytes, args.files)?;
        } else if bytes.starts_with(&bundle::MAGIC) {
            show_bundle(&mut out, &bytes, owner, args.files)?;
        } else if SignedManifest::decode(&bytes).is_ok() {
            show_manifest(&mut out, &bytes, owner)?;
        } else {
            bail!("{shown} is neither a manifest nor a tree nor a ramdisk; check the file name");
        }
    }
    print!("{out}");
    Ok(())
}

fn show_tree(out: &mut String, bytes: &[u8], files: bool) -> Result<()> {
    let view = TreeView::parse(bytes)?;
    writeln!(out, "tree       {}", Hash::of(bytes))?;
    let sizes = view.nodes().filter_map(|node| match node.kind {
        NodeKind::File { size, hash } => Some((hash, size)),
        NodeKind::Directory { .. } | NodeKind::Symlink { .. } => None,
    });
    let sizes: std::collections::BTreeMap<Hash, u64> = sizes.collect();
    let total = sizes.values().sum();
    writeln!(out, "nodes      {}", view.node_count())?;
    writeln!(
        out,
        "contents   {}, {} different",
        show_bytes(total),
        sizes.len()
    )?;
    if files {
        show_files(out, &view, &view.root(), "/")?;
    }
    Ok(())
}

fn show_files(out: &mut String, view: &TreeView<'_>, node: &Node<'_>, path: &str) -> Result<()> {
    let (kind, tail) = match node.kind {
        NodeKind::Directory { .. } => ('d', String::new()),
        NodeKind::Symlink { target } => ('l', format!(" -> {}", String::from_utf8_lossy(target))),
        NodeKind::File { size, hash } => {
            let hash = hash.to_string();
            (
                '-',
                format!(
                    "  {}  {}",
                    show_bytes(size),
                    hash.get(..16).unwrap_or_default()
                ),
            )
        }
    };
    writeln!(
        out,
        "{kind} {:04o} {}:{} {path}{tail}",
        node.mode, node.uid, node.gid
    )?;
    for child in view.children(node) {
        let slash = if path.ends_with('/') { "" } else { "/" };
        let path = format!("{path}{slash}{}", String::from_utf8_lossy(child.name));
        show_files(out, view, &child, &path)?;
    }
    Ok(())
}

fn show_bundle(
    out: &mut String,
    bytes: &[u8],
    owner: Option<PublicKey>,
    files: bool,
) -> Result<()> {
    let view = BundleView::parse(bytes)?;
    let mut owner = owner;
    writeln!(out, "ramdisk    {}", show_bytes(view.declared_len()))?;
    if view.is_truncated() {
        writeln!(
            out,
            "CUT SHORT  only {} are there",
            show_bytes(bytes.len() as u64)
        )?;
    }
    for entry in view.entries() {
        let content = match view.content(&entry) {
            Ok(content) => content,
            Err(error) => {
                writeln!(out, "\n{:?} {}: {error}", entry.kind, entry.name)?;
                continue;
            }
        };
        writeln!(out)?;
        match entry.kind {
            EntryKind::Node => {
                let config = NodeConfig::decode(content)?;
                owner = owner.or(Some(config.owner));
                show_node(out, &config)?;
            }
            EntryKind::Manifest => show_manifest(out, content, owner)?,
            EntryKind::Unknown(code) => {
                writeln!(out, "entry {} of unknown kind {code}", entry.name)?
            }
        }
    }
    let (mut count, mut total, mut broken) = (0u64, 0, Vec::new());
    for (hash, len) in view.blobs() {
        count += 1;
        total += len;
        if let Err(error) = view
            .blob(hash)
            .and_then(|blob| blob.verified_data().map(|_| ()))
        {
            broken.push(error);
        }
    }
    writeln!(out, "\nblobs      {count}, {}", show_bytes(total))?;
    for error in &broken {
        writeln!(out, "BROKEN     {error}")?;
    }
    if files {
        let trees = view
            .blobs()
            .filter_map(|(hash, _)| view.blob(hash).ok()?.verified_data().ok());
        for tree in trees.filter(|content| content.starts_with(&tree::MAGIC)) {
            writeln!(out)?;
            show_tree(out, tree, true)?;
        }
    }
    Ok(())
}

fn show_node(out: &mut String, config: &NodeConfig) -> Result<()> {
    writeln!(out, "node       {}", config.name)?;
    writeln!(out, "owner      {}", config.owner)?;
    writeln!(out, "system     {}", config.system)?;
    writeln!(out, "start      {}", config.start.join(", "))?;
    writeln!(out, "network    {:?}", config.network)?;
    writeln!(out, "console    {:?}", config.console)?;
    Ok(())
}

fn show_manifest(out: &mut String, bytes: &[u8], owner: Option<PublicKey>) -> Result<()> {
    let signed = SignedManifest::decode(bytes)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    // Without an owner the signature is checked for the key that it claims.
    let verdict = match signed.verify(&[owner.unwrap_or(signed.key)], now) {
        Ok(_) => "good".into(),
        Err(error) => format!("REFUSED: {error}"),
    };
    match signed.payload_unverified() {
        Ok(manifest) => show_fields(out, &manifest)?,
        Err(error) => writeln!(out, "manifest   unreadable: {error}")?,
    }
    writeln!(out, "signed by  {}", signed.key)?;
    writeln!(out, "signature  {verdict}")?;
    Ok(())
}

fn show_fields(out: &mut String, manifest: &Manifest) -> Result<()> {
    let limits = &manifest.limits;
    writeln!(
        out,
        "capsule    {} number {}",
        manifest.name, manifest.sequence
    )?;
    writeln!(out, "tree       {}", manifest.tree)?;
    writeln!(out, "command    {:?}", manifest.command)?;
    for (name, value) in &manifest.environment {
        writeln!(out, "variable   {name}={value}")?;
    }
    let (user, group) = (manifest.user, manifest.group);
    writeln!(
        out,
        "runs in    {} as {user}:{group}",
        manifest.working_directory
    )?;
    let quota = limits
        .cpu_quota_percent
        .map_or(String::new(), |it| format!(" (at most {it} %)"));
    writeln!(
        out,
        "limits     {}, CPU share {}{quota}, {} processes, {} files",
        show_bytes(limits.memory_bytes),
        limits.cpu_share,
        limits.processes,
        limits.files
    )?;
    for port in &manifest.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        writeln!(
            out,
            "port       {protocol} {} on the node is {}",
            port.node, port.capsule
        )?;
    }
    let outbound = match manifest.outbound {
        Outbound::Allow => "allowed",
        Outbound::Deny => "denied",
    };
    writeln!(out, "outbound   {outbound}")?;
    for (name, probe) in [
        ("start-up", &manifest.probes.startup),
        ("liveness", &manifest.probes.liveness),
    ] {
        if let Some(probe) = probe {
            writeln!(out, "{name:<10} {}", show_probe(probe))?;
        }
    }
    show_life(out, manifest)
}

/// How a capsule ends, starts again, and until when it may.
fn show_life(out: &mut String, manifest: &Manifest) -> Result<()> {
    let restart = &manifest.restart;
    let waits = (restart.backoff_initial_ms, restart.backoff_max_ms);
    let waits = (show_milliseconds(waits.0), show_milliseconds(waits.1));
    writeln!(
        out,
        "restart    {:?}, after {} to {}",
        restart.policy, waits.0, waits.1
    )?;
    let grace = show_milliseconds(manifest.stop.grace_ms);
    writeln!(
        out,
        "stop       signal {}, killed after {grace}",
        manifest.stop.signal
    )?;
    if !manifest.start_after.is_empty() {
        writeln!(out, "after      {}", manifest.start_after.join(", "))?;
    }
    if !manifest.devices.is_empty() {
        writeln!(out, "devices    {}", manifest.devices.join(", "))?;
    }
    if manifest.raw_network {
        writeln!(
            out,
            "network    may send and hear anything on the node's link"
        )?;
    }
    if manifest.system {
        writeln!(out, "system     asks for the control device")?;
    }
    let validity = &manifest.validity;
    if let Some(from) = validity.valid_from {
        writeln!(out, "from       {from} (seconds since 1970)")?;
    }
    if let Some(until) = validity.not_after {
        writeln!(out, "until      {until} (seconds since 1970)")?;
    }
    Ok(())
}

fn show_probe(probe: &Probe) -> String {
    let check = match &probe.check {
        Check::Exec(command) => format!("runs {command:?}"),
        Check::Tcp(port) => format!("connects to {port}"),
        Check::Http { port, path } => format!("gets {path} from {port}"),
    };
    format!(
        "{check} every {}, {} failures of {}",
        show_milliseconds(probe.interval_ms),
        probe.failure_threshold,
        show_milliseconds(probe.timeout_ms)
    )
}
