//! `skep unpack`: the files of an image as a folder of this machine.

use super::store::Store;
use anyhow::{Context, Result, bail};
use skep_api::tree::{Node, NodeKind, TreeView};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Which image, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct UnpackArgs {
    /// The image, made by 'skep pack'
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The folder to make; it must not exist
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Writes the files. Owners are kept only when run as root.
pub(crate) fn run(args: &UnpackArgs) -> Result<()> {
    let store = Store::open(&args.image)?;
    let root = store.root()?;
    let tree = store
        .blob(root)?
        .with_context(|| format!("the image has no blob {root}"))?;
    let view = TreeView::parse(&tree)?;
    if args.output.exists() {
        bail!("{} exists; choose another name", args.output.display());
    }
    let mut directories = Vec::new();
    let mut paths: Vec<PathBuf> = Vec::new();
    for node in view.nodes() {
        let path = match paths.get(node.parent as usize) {
            // Names were checked: no '/', no '..'. Links are never followed, since a
            // parent is always a directory made here.
            Some(parent) if node.index != 0 => parent.join(OsStr::from_bytes(node.name)),
            _ => args.output.clone(),
        };
        write(&store, &node, &path).with_context(|| format!("cannot write {}", path.display()))?;
        if matches!(node.kind, NodeKind::Directory { .. }) {
            directories.push((path.clone(), node.mode));
        }
        paths.push(path);
    }
    // Last, so that a directory without write permission can be filled.
    for (path, mode) in directories.iter().rev() {
        set_mode(path, *mode)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u16) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(u32::from(mode)))
        .with_context(|| format!("cannot set the permissions of {}", path.display()))
}

fn write(store: &Store, node: &Node<'_>, path: &Path) -> Result<()> {
    match node.kind {
        NodeKind::Directory { .. } => fs::create_dir(path)?,
        NodeKind::Symlink { target } => symlink(OsStr::from_bytes(target), path)?,
        NodeKind::File { hash, .. } => {
            let content = store
                .blob(hash)?
                .with_context(|| format!("the image has no blob {hash}"))?;
            fs::write(path, content)?;
        }
    }
    // Only root may give files away; for anyone else they stay their own.
    let _ = lchown(path, Some(node.uid), Some(node.gid));
    if matches!(node.kind, NodeKind::File { .. }) {
        set_mode(path, node.mode)?;
    }
    Ok(())
}
