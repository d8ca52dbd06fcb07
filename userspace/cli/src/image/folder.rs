//! Taking a folder of this machine into an image.

use super::files::{Entry, Existing, Files, Kind, show};
use anyhow::{Context, Result};
use skep_api::tree::Meta;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a folder is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It is the image: permissions stay as they are.
    Image,
    /// It is laid over another: directories that exist stay as they are, files get
    /// `rwxr-xr-x` or `rw-r--r--`, so that the umask of a checkout does not matter.
    Overlay,
}

/// Adds everything below `folder`. Everything belongs to root: the owner on this
/// machine means nothing on a node.
///
/// Devices, pipes and sockets are left out; returns their paths.
pub(crate) fn add(files: &mut Files, folder: &Path, manner: Manner) -> Result<Vec<String>> {
    let mut skipped = Vec::new();
    let metadata = fs::metadata(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    if !metadata.is_dir() {
        anyhow::bail!(
            "{} is not a folder; name the folder that holds the files",
            folder.display()
        );
    }
    walk(files, folder, b"", manner, &mut skipped)?;
    Ok(skipped)
}

fn walk(
    files: &mut Files,
    folder: &Path,
    below: &[u8],
    manner: Manner,
    skipped: &mut Vec<String>,
) -> Result<()> {
    let unreadable = || format!("cannot read {}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(folder)
        .and_then(Iterator::collect)
        .with_context(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for item in entries {
        let from = item.path();
        let mut path = below.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(item.file_name().as_bytes());
        let metadata = item
            .metadata()
            .with_context(|| format!("cannot read {}", from.display()))?;
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_symlink() {
            let target = fs::read_link(&from).with_context(unreadable)?;
            Kind::Symlink(target.into_os_string().into_vec())
        } else if metadata.is_file() {
            let content =
                fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            Kind::File(content.into())
        } else {
            skipped.push(show(&path));
            continue;
        };
        let is_directory = matches!(kind, Kind::Directory);
        let meta = Meta {
            mode: mode(&metadata, manner),
            uid: 0,
            gid: 0,
            mtime: metadata.mtime(),
        };
        let existing = match manner {
            Manner::Image => Existing::Replace,
            Manner::Overlay => Existing::Keep,
        };
        files.insert(&path, Entry { meta, kind }, existing)?;
        if is_directory {
            walk(files, &from, &path, manner, skipped)?;
        }
    }
    Ok(())
}

fn mode(metadata: &fs::Metadata, manner: Manner) -> u16 {
    // Twelve bits are left: the cast keeps the value.
    let mode = (metadata.mode() & 0o7777) as u16;
    match manner {
        _ if metadata.is_symlink() => 0o777,
        Manner::Image => mode,
        Manner::Overlay if metadata.is_dir() || mode & 0o100 != 0 => 0o755,
        Manner::Overlay => 0o644,
    }
}
