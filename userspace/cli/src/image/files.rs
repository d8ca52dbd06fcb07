//! A file tree in memory, merged from several sources.
//!
//! Later sources win, as when archives are unpacked one over the other: a file
//! replaces a file, a directory merges with a directory, and a path that leads
//! through a symbolic link of the tree ends where the link leads. (Debian's
//! packages still ship `/bin/...`, and `/bin` is a link to `usr/bin`.)

use anyhow::{Result, bail};
use skep_api::Hash;
use skep_api::tree::{Meta, TreeBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Most links followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// One file, directory or link.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Directory,
    File(Rc<[u8]>),
    Symlink(Vec<u8>),
}

/// What becomes of a directory's owner and permissions when it is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// The later source describes it anew.
    Replace,
    /// It stays as it was.
    Keep,
}

/// Contents by hash.
pub(crate) type Blobs = BTreeMap<Hash, Rc<[u8]>>;

/// The tree: absolute paths without the leading `/`, sorted.
#[derive(Debug, Default)]
pub(crate) struct Files {
    entries: BTreeMap<Vec<u8>, Entry>,
}

/// A path as people read it.
pub(crate) fn show(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// Removes `/` at the front and the end, empty parts and `.`.
pub(crate) fn normal(path: &[u8]) -> Result<Vec<u8>> {
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if parts.contains(&&b".."[..]) {
        bail!(
            "{} leads out of its folder; use an archive without '..' in its paths",
            show(path)
        );
    }
    Ok(parts.join(&b'/'))
}

fn parent_of(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let cut = path.iter().rposition(|byte| *byte == b'/');
    match cut {
        Some(at) => Some((path.get(..at)?, path.get(at + 1..)?)),
        None if path.is_empty() => None,
        None => Some((&[], path)),
    }
}

impl Files {
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The path where an entry called `path` lies when its directory is reached
    /// through links.
    pub(crate) fn resolve_parent(&self, path: &[u8]) -> Result<Vec<u8>> {
        let Some((parent, name)) = parent_of(path) else {
            return Ok(Vec::new());
        };
        let mut left = MAX_LINKS;
        let mut at = self.resolve(parent, &mut left)?;
        if !at.is_empty() {
            at.push(b'/');
        }
        at.extend_from_slice(name);
        Ok(at)
    }

    /// Follows every link of `path`, the last part included. Missing parts stay as they are.
    fn resolve(&self, path: &[u8], left: &mut usize) -> Result<Vec<u8>> {
        let mut at: Vec<u8> = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => {
                    at = parent_of(&at).map_or(Vec::new(), |(parent, _)| parent.to_vec());
                    continue;
                }
                _ => {}
            }
            let directory = at.clone();
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(part);
            let Some(Entry {
                kind: Kind::Symlink(target),
                ..
            }) = self.entries.get(&at)
            else {
                continue;
            };
            if *left == 0 {
                bail!(
                    "{} is a circle of symbolic links; repair the image's source",
                    show(path)
                );
            }
            *left -= 1;
            let next = match target.strip_prefix(b"/") {
                Some(absolute) => absolute.to_vec(),
                None => [&directory[..], target].join(&b'/'),
            };
            at = self.resolve(&next, left)?;
        }
        Ok(at)
    }

    /// Adds an entry.
    pub(crate) fn insert(&mut self, path: &[u8], entry: Entry, existing: Existing) -> Result<()> {
        let path = normal(path)?;
        let at = self.resolve_parent(&path)?;
        if let Some((parent, _)) = parent_of(&at) {
            self.require_directory(parent)?;
        }
        match (
            self.entries
                .get_mut(&at)
                .map(|old| (old.meta, old.kind.clone())),
            &entry.kind,
        ) {
            (Some((_, Kind::Directory)), Kind::Directory) if existing == Existing::Keep => Ok(()),
            (Some((_, Kind::Symlink(_))), Kind::Directory) => {
                // A package's directory where the tree has a link to one.
                let mut left = MAX_LINKS;
                let target = self.resolve(&at, &mut left)?;
                self.require_directory(&target)
            }
            (Some((_, Kind::Directory)), Kind::File(_) | Kind::Symlink(_)) => {
                bail!(
                    "{} is a directory in one source and a file in another; remove one",
                    show(&at)
                )
            }
            (Some((_, Kind::File(_))), Kind::Directory) => {
                bail!(
                    "{} is a file in one source and a directory in another; remove one",
                    show(&at)
                )
            }
            _ => {
                self.entries.insert(at, entry);
                Ok(())
            }
        }
    }

    /// Makes sure that `path` and the directories above it exist.
    fn require_directory(&mut self, path: &[u8]) -> Result<()> {
        if let Some((parent, _)) = parent_of(path) {
            self.require_directory(parent)?;
        }
        let implied = || Entry {
            meta: Meta::DIRECTORY,
            kind: Kind::Directory,
        };
        match self
            .entries
            .entry(path.to_vec())
            .or_insert_with(implied)
            .kind
        {
            Kind::Directory => Ok(()),
            Kind::File(_) | Kind::Symlink(_) => {
                bail!(
                    "{} is used as a directory but is not one; repair the source",
                    show(path)
                )
            }
        }
    }

    /// The content of the file that `path` leads to, links followed.
    pub(crate) fn read(&self, path: &[u8]) -> Option<Rc<[u8]>> {
        let mut left = MAX_LINKS;
        match &self.entries.get(&self.resolve(path, &mut left).ok()?)?.kind {
            Kind::File(content) => Some(Rc::clone(content)),
            Kind::Directory | Kind::Symlink(_) => None,
        }
    }

    /// Removes `path` and everything below it; whether there was anything.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<bool> {
        let at = self.resolve_parent(&normal(path)?)?;
        let before = self.entries.len();
        self.entries.retain(|path, _| {
            let below = path.strip_prefix(&at[..]);
            !below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        });
        Ok(self.entries.len() < before)
    }

    /// Sets no time later than `latest`, the custom of reproducible builds.
    pub(crate) fn clamp_times(&mut self, latest: i64) {
        for entry in self.entries.values_mut() {
            entry.meta.mtime = entry.meta.mtime.min(latest);
        }
    }

    /// The tree blob, and every blob of the image by hash, the tree included.
    pub(crate) fn build(&self) -> Result<(Hash, Blobs)> {
        let mut tree = TreeBuilder::new();
        let mut blobs = BTreeMap::new();
        // The same content is often there twice; hash it once.
        let mut known: BTreeMap<*const u8, Hash> = BTreeMap::new();
        for (path, Entry { meta, kind }) in &self.entries {
            let added = match kind {
                Kind::Directory => tree.add_directory(path, *meta),
                Kind::Symlink(target) => tree.add_symlink(path, *meta, target),
                Kind::File(content) => {
                    let hash = *known
                        .entry(content.as_ptr())
                        .or_insert_with(|| Hash::of(content));
                    let size = content.len() as u64;
                    blobs.entry(hash).or_insert_with(|| Rc::clone(content));
                    tree.add_file(path, *meta, size, hash)
                }
            };
            added.map_err(|error| anyhow::anyhow!("{} cannot be packed: {error}", show(path)))?;
        }
        let bytes: Rc<[u8]> = tree.finish()?.into();
        let root = Hash::of(&bytes);
        blobs.insert(root, bytes);
        Ok((root, blobs))
    }

    /// Bytes of all distinct contents.
    pub(crate) fn content_bytes(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let contents = self.entries.values().filter_map(|entry| match &entry.kind {
            Kind::File(content) if seen.insert(content.as_ptr()) => Some(content.len() as u64),
            _ => None,
        });
        contents.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind) -> Entry {
        Entry {
            meta: Meta {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: 5,
            },
            kind,
        }
    }

    fn file(content: &str) -> Entry {
        entry(Kind::File(content.as_bytes().into()))
    }

    #[test]
    fn paths_through_links_end_where_the_links_lead() {
        let mut files = Files::default();
        let add = |files: &mut Files, path: &str, entry| {
            files.insert(path.as_bytes(), entry, Existing::Replace)
        };
        add(&mut files, "usr/bin", entry(Kind::Directory)).unwrap();
        add(&mut files, "bin", entry(Kind::Symlink(b"usr/bin".into()))).unwrap();
        add(&mut files, "./bin/", entry(Kind::Directory)).unwrap();
        add(&mut files, "bin/sh", file("one")).unwrap();
        add(&mut files, "/usr/bin/sh", file("two")).unwrap();
        assert_eq!(files.read(b"bin/sh").unwrap()[..], *b"two");
        assert!(files.get(b"bin/sh").is_none());
        add(
            &mut files,
            "usr/lib",
            entry(Kind::Symlink(b"../usr/./lib64".into())),
        )
        .unwrap();
        add(&mut files, "usr/lib/a", file("x")).unwrap();
        assert!(files.get(b"usr/lib64/a").is_some());
    }

    #[test]
    fn circles_escapes_and_clashes_are_refused() {
        let mut files = Files::default();
        let link = |target: &str| entry(Kind::Symlink(target.as_bytes().into()));
        files.insert(b"a", link("b"), Existing::Replace).unwrap();
        files.insert(b"b", link("a"), Existing::Replace).unwrap();
        assert!(files.insert(b"a/x", file(""), Existing::Replace).is_err());
        assert!(files.insert(b"../x", file(""), Existing::Replace).is_err());
        files.insert(b"d/x", file(""), Existing::Replace).unwrap();
        assert!(files.insert(b"d", file(""), Existing::Replace).is_err());
        assert!(files.insert(b"d/x/y", file(""), Existing::Replace).is_err());
        assert!(
            files
                .insert(b"d/x", entry(Kind::Directory), Existing::Replace)
                .is_err()
        );
    }

    #[test]
    fn an_overlay_keeps_directories_as_they_are() {
        let mut files = Files::default();
        let mut tmp = entry(Kind::Directory);
        tmp.meta.mode = 0o1777;
        files.insert(b"tmp", tmp, Existing::Replace).unwrap();
        files
            .insert(b"tmp", entry(Kind::Directory), Existing::Keep)
            .unwrap();
        assert_eq!(files.get(b"tmp").unwrap().meta.mode, 0o1777);
        files
            .insert(b"tmp", entry(Kind::Directory), Existing::Replace)
            .unwrap();
        assert_eq!(files.get(b"tmp").unwrap().meta.mode, 0o644);
    }
}
