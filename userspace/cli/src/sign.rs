//! `skep sign`: a signed manifest from a TOML file and an image.

use crate::image::store::Store;
use crate::key;
use crate::manifest::ManifestSource;
use anyhow::{Context, Result, bail};
use skep_api::Hash;
use skep_api::manifest::SignedManifest;
use skep_api::tree::{NodeKind, TreeView};
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// What to sign, with what, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct SignArgs {
    /// The manifest as TOML
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// The owner's secret key
    #[arg(short, long, value_name = "FILE", default_value = "owner.key")]
    key: PathBuf,
    /// The image that the manifest is for
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "tree")]
    image: Option<PathBuf>,
    /// Name the image by the hash of its tree instead
    #[arg(long, value_name = "HASH", conflicts_with = "image")]
    tree: Option<Hash>,
    /// Where the signed manifest goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Signs.
pub(crate) fn run(args: &SignArgs) -> Result<()> {
    let path = args.manifest.display();
    let text = fs::read_to_string(&args.manifest).with_context(|| format!("cannot read {path}"))?;
    let source = ManifestSource::parse(&text).with_context(|| format!("{path} is wrong"))?;
    let pair = key::load(&args.key)?;
    let store = args.image.as_deref().map(Store::open).transpose()?;
    let tree = match (&store, args.tree) {
        (Some(store), _) => store.root()?,
        (None, Some(tree)) => tree,
        (None, None) => bail!("name the image with --image or --tree"),
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let manifest = source
        .build(tree, now)
        .with_context(|| format!("{path} is wrong"))?;
    if let Some(store) = &store {
        let program = manifest.command.first().map_or("", String::as_str);
        require_program(store, tree, program)?;
    }
    let signed = SignedManifest::sign(&manifest, &pair)?;
    fs::write(&args.output, signed.encode())
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    eprintln!(
        "{} number {} signed by {}",
        manifest.name,
        manifest.sequence,
        pair.public()
    );
    Ok(())
}

/// Most links followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// A typing error in the command would otherwise show only on the node.
fn require_program(store: &Store, root: Hash, program: &str) -> Result<()> {
    let tree = store
        .blob(root)?
        .context("the image has lost its tree; pack it again")?;
    let view = TreeView::parse(&tree)?;
    let mut left: Vec<Vec<u8>> = split(program.as_bytes());
    let mut node = view.root();
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == b".." {
            node = view.node(node.parent).unwrap_or(node);
            continue;
        }
        let missing = || format!("the image has no {program}; correct 'command' or the image");
        let child = view.lookup(&node, &name).with_context(missing)?;
        match child.kind {
            NodeKind::Symlink { target } => {
                links += 1;
                if links > MAX_LINKS {
                    bail!("{program} is a circle of symbolic links; correct the image");
                }
                if target.starts_with(b"/") {
                    node = view.root();
                }
                left.extend(split(target));
            }
            NodeKind::Directory { .. } | NodeKind::File { .. } => node = child,
        }
    }
    if !matches!(node.kind, NodeKind::File { .. }) || node.mode & 0o111 == 0 {
        bail!("{program} of the image is not executable; correct 'command' or the image");
    }
    Ok(())
}

/// The parts of a path, the first one last.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."));
    let mut parts: Vec<_> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}
