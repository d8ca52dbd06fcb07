//! The image folder: `blobs/HASH` for every blob, and `tree` with the tree's hash.

use super::files::Files;
use anyhow::{Context, Result, bail};
use skep_api::Hash;
use skep_api::tree::{NodeKind, TreeView};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

/// An image folder.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Writes an image to `folder`, replacing an earlier image. The folder changes
    /// at once: an interrupted write leaves the old one.
    pub(crate) fn write(folder: &Path, files: &Files) -> Result<Hash> {
        let (root, blobs) = files.build()?;
        if folder.exists() && !folder.join("tree").is_file() {
            let empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
            if !empty {
                bail!(
                    "{} exists and is not an image; choose another name",
                    folder.display()
                );
            }
        }
        let mut name = folder
            .file_name()
            .context("the image needs a name: use -o NAME")?
            .to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let new = folder.with_file_name(name);
        let unwritable = || format!("cannot write {}", new.display());
        fs::create_dir_all(new.join("blobs")).with_context(unwritable)?;
        for (hash, content) in &blobs {
            let path = new.join("blobs").join(hash.to_string());
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        fs::write(new.join("tree"), format!("{root}\n")).with_context(unwritable)?;
        if folder.exists() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("cannot replace {}", folder.display()))?;
        }
        fs::rename(&new, folder).with_context(unwritable)?;
        Ok(root)
    }

    /// Opens an image folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        if !folder.join("tree").is_file() {
            bail!(
                "{} is not an image; make one with 'skep pack'",
                folder.display()
            );
        }
        Ok(Self {
            folder: folder.into(),
        })
    }

    /// Hash of the image's tree.
    pub(crate) fn root(&self) -> Result<Hash> {
        let path = self.folder.join("tree");
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let wrong = || {
            format!(
                "{} does not hold a hash; pack the image again",
                path.display()
            )
        };
        text.trim().parse().with_context(wrong)
    }

    /// The blob `hash`, checked; `None` when the image has no such blob.
    pub(crate) fn blob(&self, hash: Hash) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join("blobs").join(hash.to_string());
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if Hash::of(&content) != hash {
            bail!("{} is damaged; pack the image again", path.display());
        }
        Ok(Some(content))
    }
}

/// The tree `root` and all blobs that it names, looked up in `stores`. `None` when
/// none of them has the tree.
pub(crate) fn collect(stores: &[Store], root: Hash) -> Result<Option<BTreeMap<Hash, Vec<u8>>>> {
    let find = |hash: Hash| -> Result<Option<Vec<u8>>> {
        for store in stores {
            if let Some(content) = store.blob(hash)? {
                return Ok(Some(content));
            }
        }
        Ok(None)
    };
    let Some(tree) = find(root)? else {
        return Ok(None);
    };
    let view = TreeView::parse(&tree).with_context(|| format!("blob {root} is not a tree"))?;
    let mut blobs = BTreeMap::new();
    for node in view.nodes() {
        let NodeKind::File { hash, .. } = node.kind else {
            continue;
        };
        if let Entry::Vacant(place) = blobs.entry(hash) {
            let name = String::from_utf8_lossy(node.name);
            place.insert(find(hash)?.with_context(|| {
                format!("blob {hash} ('{name}') is in none of the images; pack again")
            })?);
        }
    }
    blobs.insert(root, tree);
    Ok(Some(blobs))
}
