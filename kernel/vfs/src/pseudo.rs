//! What procfs, sysfs and cgroupfs are made of: files whose text is made when
//! they are read.

use crate::error::{Error, Result};
use crate::file::{FileOps, OpenFile, Opening, Seek};
use crate::inode::{Attr, DirEntry, Emit, Inode, Kind, Link, NewAttr, SetAttr};
use crate::mount::{FileSystem, FsStat, Tree, next_device};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::PageCharge;
use machine::io::{Sink, Source};
use machine::sync::{Mutex, SpinLock};

/// Most bytes one write to such a file can have.
const WRITE_MAX: usize = 4096;

/// Bytes that `write!` can be used on.
#[derive(Default)]
pub struct Text(pub Vec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.try_reserve(s.len()).map_err(|_| fmt::Error)?;
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// The content of a file that is made when it is read.
pub trait Content: Send + Sync {
    /// Appends the content.
    ///
    /// # Errors
    /// [`Error::NoProcess`] when what it tells about is gone.
    fn read(&self, out: &mut Text) -> Result<()>;

    /// Takes what a program wrote.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] where nothing can be written; [`Error::Invalid`].
    fn write(&self, _bytes: &[u8]) -> Result<()> {
        Err(Error::NotPermitted)
    }
}

impl<F: Fn(&mut Text) -> fmt::Result + Send + Sync> Content for F {
    fn read(&self, out: &mut Text) -> Result<()> {
        self(out).map_err(|_| Error::NoMemory)
    }
}

/// A file system of such files.
pub struct PseudoFs {
    name: &'static str,
    magic: u64,
    dev: u64,
    next_ino: AtomicU64,
}

impl PseudoFs {
    /// A file system of type `name`, with its number in statfs(2).
    #[must_use]
    pub fn new(name: &'static str, magic: u64) -> Arc<PseudoFs> {
        Arc::new(PseudoFs {
            name,
            magic,
            dev: next_device(),
            next_ino: AtomicU64::new(1),
        })
    }

    /// Attributes of a further node, which belongs to `uid` and `gid`.
    #[must_use]
    pub fn attr(&self, kind: Kind, mode: u32, (uid, gid): (u32, u32)) -> Attr {
        let ino = self.next_ino.fetch_add(1, Relaxed);
        self.attr_with(ino, kind, mode, (uid, gid))
    }

    /// The same with a number of one's own choice.
    #[must_use]
    pub fn attr_with(&self, ino: u64, kind: Kind, mode: u32, (uid, gid): (u32, u32)) -> Attr {
        let new = NewAttr {
            kind,
            mode,
            uid,
            gid,
        };
        Attr::new(self.dev, ino, new)
    }

    /// A file of root's.
    #[must_use]
    pub fn file(&self, mode: u32, content: Arc<dyn Content>) -> Arc<dyn Inode> {
        TextFile::inode(self.attr(Kind::File, mode, (0, 0)), content)
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(&self, target: &str) -> Arc<dyn Inode> {
        Arc::new(TextLink {
            attr: self.attr(Kind::Symlink, 0o777, (0, 0)),
            target: Arc::from(target.as_bytes()),
        })
    }

    /// An empty directory.
    #[must_use]
    pub fn dir(&self) -> Arc<StaticDir> {
        Arc::new(StaticDir {
            attr: self.attr(Kind::Directory, 0o555, (0, 0)),
            entries: SpinLock::new(Vec::new()),
        })
    }

    /// The tree below `root`.
    #[must_use]
    pub fn tree(self: Arc<Self>, root: Arc<dyn Inode>) -> Arc<Tree> {
        Tree::new(self, root)
    }
}

impl FileSystem for PseudoFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn stat(&self) -> FsStat {
        FsStat {
            magic: self.magic,
            block_size: 4096,
            ..FsStat::default()
        }
    }
}

/// A directory whose entries are put there by the kernel and stay.
pub struct StaticDir {
    attr: Attr,
    entries: SpinLock<Vec<(String, Arc<dyn Inode>)>>,
}

impl StaticDir {
    /// Adds an entry.
    pub fn add(&self, name: &str, inode: Arc<dyn Inode>) {
        if inode.attr().kind == Kind::Directory {
            self.attr.add_links(1);
        }
        self.entries.lock().push((String::from(name), inode));
    }

    /// Adds an entry at `path`, making the directories on the way.
    pub fn add_at(&self, fs: &PseudoFs, path: &str, inode: Arc<dyn Inode>) {
        match path.split_once('/') {
            None => self.add(path, inode),
            Some((first, rest)) => self.subdir(fs, first).add_at(fs, rest, inode),
        }
    }

    /// The directory `name`, made if it is not there.
    pub fn subdir(&self, fs: &PseudoFs, name: &str) -> SubDir {
        if let Ok(there) = Inode::lookup(self, name.as_bytes()) {
            return SubDir(there);
        }
        let new: Arc<dyn Inode> = fs.dir();
        self.add(name, new.clone());
        SubDir(new)
    }

    /// The entry `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Arc<dyn Inode>> {
        let entries = self.entries.lock();
        let found = entries.iter().find(|(n, _)| n.as_bytes() == name);
        found.map(|(_, i)| i.clone())
    }

    /// Lists the entries, their positions beginning at `base`.
    pub fn list_from(&self, base: u64, from: u64, emit: &mut Emit<'_>) -> bool {
        let entries = self.entries.lock();
        let skip = usize::try_from(from.saturating_sub(base)).unwrap_or(usize::MAX);
        for (i, (name, inode)) in entries.iter().enumerate().skip(skip) {
            let entry = DirEntry {
                name: name.as_bytes(),
                ino: inode.attr().ino,
                kind: inode.attr().kind,
                next: base + i as u64 + 1,
            };
            if !emit(entry) {
                return false;
            }
        }
        true
    }
}

/// A directory within a tree that is being built.
pub struct SubDir(Arc<dyn Inode>);

impl SubDir {
    /// As [`StaticDir::add_at`]. Nothing happens below what is no directory.
    pub fn add_at(&self, fs: &PseudoFs, path: &str, inode: Arc<dyn Inode>) {
        if let Some(dir) = self.0.as_any().downcast_ref::<StaticDir>() {
            dir.add_at(fs, path, inode);
        }
    }
}

impl Inode for StaticDir {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.get(name).ok_or(Error::NotFound)
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        self.list_from(2, from, emit);
        Ok(())
    }
}

/// A symbolic link with a fixed target.
struct TextLink {
    attr: Attr,
    target: Arc<[u8]>,
}

impl Inode for TextLink {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn link_target(&self) -> Result<Link> {
        Ok(Link::Target(self.target.clone()))
    }
}

/// A file whose text is made when it is read.
pub struct TextFile {
    attr: Attr,
    content: Arc<dyn Content>,
}

impl TextFile {
    /// A file with this content.
    pub fn inode(attr: Attr, content: Arc<dyn Content>) -> Arc<dyn Inode> {
        Arc::new(TextFile { attr, content })
    }
}

impl Inode for TextFile {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn truncate(&self, _: u64) -> Result<()> {
        // `echo x > /proc/sys/...` opens with O_TRUNC.
        Ok(())
    }

    fn open(self: Arc<Self>, _: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(OpenText {
            content: self.content.clone(),
            snapshot: Mutex::new(Snapshot::default()),
        }))
    }
}

/// An open text file. What a reader sees is made when it reads at the start, so
/// that reading on shows one state.
struct OpenText {
    content: Arc<dyn Content>,
    snapshot: Mutex<Snapshot>,
}

#[derive(Default)]
struct Snapshot {
    text: Vec<u8>,
    /// A program may open many files and leave them open.
    _charge: Option<PageCharge>,
}

impl FileOps for OpenText {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_positional(&self) -> bool {
        true
    }

    fn pread(&self, file: &OpenFile, sink: &mut Sink<'_>, offset: u64) -> Result<usize> {
        let mut snapshot = self.snapshot.lock();
        if offset == 0 {
            *snapshot = Snapshot::default();
            let mut text = Text::default();
            self.content.read(&mut text)?;
            *snapshot = Snapshot {
                _charge: Some(file.hold(text.0.capacity())?),
                text: text.0,
            };
        }
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = snapshot.text.get(at..).unwrap_or(&[]);
        Ok(sink.put(rest)?)
    }

    fn pwrite(&self, _: &OpenFile, source: &mut Source<'_>, _: u64) -> Result<usize> {
        let n = source.left().min(WRITE_MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(n)?;
        bytes.resize(n, 0);
        source.take(&mut bytes)?;
        self.content.write(&bytes)?;
        Ok(n)
    }

    fn seek(&self, _: &OpenFile, from: u64, to: Seek) -> Result<u64> {
        match to {
            Seek::Set(_) | Seek::Current(_) => to.within(from, 0),
            _ => Err(Error::Invalid),
        }
    }
}
