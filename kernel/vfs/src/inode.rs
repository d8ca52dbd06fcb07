//! What every object of a file tree is: the [`Inode`] trait and the attributes
//! that all of them carry.

use crate::cred::{Caps, Credentials, Want, permits};
use crate::error::{Error, Result};
use crate::file::{FileOps, Opening};
use crate::inotify::Watches;
use crate::locks::FileLocks;
use crate::mount::Path;
use crate::writers::Writers;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};
use machine::Account;
use machine::sync::{Once, SpinLock};

/// Mask of the type bits in a mode.
pub const S_IFMT: u32 = 0o170_000;
/// Type bits of a directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Set-user-id bit.
pub const S_ISUID: u32 = 0o4_000;
/// Set-group-id bit.
pub const S_ISGID: u32 = 0o2_000;
/// Sticky bit: only owners remove entries.
pub const S_ISVTX: u32 = 0o1_000;
/// Longest name of a directory entry (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest path, its final NUL included (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A name in the file tree of a unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    /// Its type bits in a mode.
    #[must_use]
    pub const fn mode(self) -> u32 {
        match self {
            Kind::File => 0o100_000,
            Kind::Directory => S_IFDIR,
            Kind::Symlink => 0o120_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
            Kind::CharDevice => 0o020_000,
            Kind::BlockDevice => 0o060_000,
        }
    }

    /// Its number in a directory entry (`DT_*` of getdents64(2)).
    #[must_use]
    pub const fn dirent(self) -> u8 {
        (self.mode() >> 12) as u8
    }
}

/// What stat(2) tells. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of stat(2)")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u32,
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    /// 512-byte units in use.
    pub blocks: u64,
    pub atime: i64,
    pub mtime: i64,
    pub ctime: i64,
    pub btime: i64,
}

/// What an inode's attributes start from.
#[derive(Clone, Copy, Debug)]
pub struct NewAttr {
    /// What it is.
    pub kind: Kind,
    /// Permission bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The attributes every inode carries; they can be read without a lock.
pub struct Attr {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number, unique on it.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    nlink: AtomicU32,
    atime: AtomicI64,
    mtime: AtomicI64,
    ctime: AtomicI64,
    btime: i64,
    /// Made by the first lock.
    locks: Once<Box<FileLocks>>,
    /// Made by the first watch.
    watches: Once<Box<Watches>>,
    writers: Writers,
}

impl Attr {
    /// Attributes of a new inode, its times now.
    #[must_use]
    pub fn new(dev: u64, ino: u64, new: NewAttr) -> Attr {
        Attr::dated(dev, ino, new, machine::time::wall())
    }

    /// Attributes of an inode whose times are all `when`.
    #[must_use]
    pub fn dated(dev: u64, ino: u64, new: NewAttr, when: i64) -> Attr {
        Attr {
            dev,
            ino,
            kind: new.kind,
            mode: AtomicU32::new(new.mode & 0o7777),
            uid: AtomicU32::new(new.uid),
            gid: AtomicU32::new(new.gid),
            nlink: AtomicU32::new(if new.kind == Kind::Directory { 2 } else { 1 }),
            atime: AtomicI64::new(when),
            mtime: AtomicI64::new(when),
            ctime: AtomicI64::new(when),
            btime: when,
            locks: Once::new(),
            watches: Once::new(),
            writers: Writers::default(),
        }
    }

    /// Who writes it and who runs it.
    #[must_use]
    pub fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Its watches.
    pub fn watches(&self) -> &Watches {
        self.watches
            .call_once(|| Box::new(Watches::new(Vec::new())))
    }

    /// Its watches, if it ever had one.
    #[must_use]
    pub fn watches_if_any(&self) -> Option<&Watches> {
        self.watches.get().map(|w| &**w)
    }

    /// Its locks; `account` pays for them if they are the first.
    pub fn locks(&self, account: &Arc<Account>) -> &FileLocks {
        self.locks
            .call_once(|| Box::new(FileLocks::new(account.clone())))
    }

    /// Its locks, if it ever had one.
    #[inline]
    #[must_use]
    pub fn locks_if_any(&self) -> Option<&FileLocks> {
        self.locks.get().map(|l| &**l)
    }

    /// Type and permission bits.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.kind.mode() | self.mode.load(Relaxed)
    }

    /// Owner.
    #[inline]
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.load(Relaxed)
    }

    /// Group.
    #[inline]
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid.load(Relaxed)
    }

    /// Hard links.
    #[must_use]
    pub fn nlink(&self) -> u32 {
        self.nlink.load(Relaxed)
    }

    /// Counts `n` more links.
    pub fn add_links(&self, n: u32) {
        self.nlink.fetch_add(n, Relaxed);
    }

    /// Counts `n` links less; how many are left.
    pub fn drop_links(&self, n: u32) -> u32 {
        let less = |l: u32| Some(l.saturating_sub(n));
        match self.nlink.fetch_update(Relaxed, Relaxed, less) {
            Ok(before) | Err(before) => before.saturating_sub(n),
        }
    }

    /// The content has changed now.
    #[inline]
    pub fn touch_modified(&self) {
        let now = machine::time::wall();
        self.mtime.store(now, Relaxed);
        self.ctime.store(now, Relaxed);
    }

    /// The attributes have changed now.
    pub fn touch_changed(&self) {
        self.ctime.store(machine::time::wall(), Relaxed);
    }

    /// The content has been read now; noted only when that is news since the last
    /// change, as with Linux's default `relatime`.
    #[inline]
    pub fn touch_accessed(&self) {
        let seen = self.atime.load(Relaxed);
        if seen <= self.mtime.load(Relaxed) || seen <= self.ctime.load(Relaxed) {
            self.atime.store(machine::time::wall(), Relaxed);
        }
    }

    /// Whether `cred` may do `want` here.
    ///
    /// # Errors
    /// [`Error::AccessDenied`].
    #[inline]
    pub fn check(&self, cred: &Credentials, want: Want) -> Result<()> {
        if permits(cred, self.mode(), self.uid(), self.gid(), want) {
            return Ok(());
        }
        Err(Error::AccessDenied)
    }

    /// As [`Attr::stat`] for content of `size` bytes that occupies all of them.
    #[must_use]
    pub fn stat(&self, size: u64) -> Stat {
        Stat {
            dev: self.dev,
            ino: self.ino,
            nlink: self.nlink(),
            mode: self.mode(),
            uid: self.uid(),
            gid: self.gid(),
            rdev: 0,
            size,
            blksize: 4096,
            blocks: size.div_ceil(4096) * 8,
            atime: self.atime.load(Relaxed),
            mtime: self.mtime.load(Relaxed),
            ctime: self.ctime.load(Relaxed),
            btime: self.btime,
        }
    }

    /// Applies a change that has been permitted.
    pub fn apply(&self, change: &SetAttr) {
        if let Some(m) = change.mode {
            self.mode.store(m & 0o7777, Relaxed);
        }
        if let Some(u) = change.uid {
            self.uid.store(u, Relaxed);
        }
        if let Some(g) = change.gid {
            self.gid.store(g, Relaxed);
        }
        if let Some(t) = change.atime {
            self.atime.store(t, Relaxed);
        }
        if let Some(t) = change.mtime {
            self.mtime.store(t, Relaxed);
        }
        self.touch_changed();
    }

    /// Takes away the set-id bits after a write by somebody without
    /// `CAP_FSETID`, as Linux does.
    #[inline]
    pub fn strip_setid(&self, cred: &Credentials) {
        let mode = self.mode.load(Relaxed);
        if mode & (S_ISUID | S_ISGID) != 0 && !cred.has(Caps::FSETID) {
            // Set-group-id without group execution once meant mandatory locking
            // and stays.
            let group = if mode & 0o010 != 0 { S_ISGID } else { 0 };
            self.mode.fetch_and(!(S_ISUID | group), Relaxed);
        }
    }
}

/// A change of attributes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of last access.
    pub atime: Option<i64>,
    /// Time of last change of the content.
    pub mtime: Option<i64>,
}

/// A node to be made in a directory.
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    /// Its kind, mode and owners.
    pub attr: NewAttr,
    /// Where a symbolic link leads.
    pub target: &'a [u8],
    /// Device number of a device node.
    pub rdev: u64,
}

/// Where a symbolic link leads.
pub enum Link {
    /// To this path, from the directory that holds the link.
    Target(Arc<[u8]>),
    /// To this very object (`/proc/PID/fd/N`, `exe`, `cwd`, `root`).
    Object(Path),
}

/// The socket that is bound to a name in the file tree. What it is, only the net
/// room knows.
#[derive(Default)]
pub struct SocketSlot(SpinLock<Option<Weak<dyn Any + Send + Sync>>>);

impl SocketSlot {
    /// Binds `socket`.
    pub fn bind(&self, socket: Weak<dyn Any + Send + Sync>) {
        *self.0.lock() = Some(socket);
    }

    /// The bound socket, while it lives.
    #[must_use]
    pub fn get(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.lock().as_ref()?.upgrade()
    }
}

/// One entry of a directory as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its inode number.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Where the listing goes on after it.
    pub next: u64,
}

/// Takes the entries of a listing; `false` says that there is no room for this
/// one, and ends it.
pub type Emit<'a> = dyn FnMut(DirEntry<'_>) -> bool + 'a;

/// How `rename` treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It takes the source's place (`RENAME_EXCHANGE`).
    Exchange,
}

/// How `setxattr` treats an existing attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSet {
    /// Made or replaced.
    Any,
    /// Must be new (`XATTR_CREATE`).
    Create,
    /// Must exist (`XATTR_REPLACE`).
    Replace,
}

/// An object of a file tree.
///
/// Permissions have been checked by the path walk before any of these is called.
/// The walk also holds the directory's lock around everything that looks up or
/// changes entries, so that an implementation sees one such call per directory at
/// a time.
pub trait Inode: Any + Send + Sync {
    /// Its attributes.
    fn attr(&self) -> &Attr;

    /// Itself, to be recognised by the file system that made it.
    fn as_any(&self) -> &dyn Any;

    /// What stat(2) tells of it.
    fn stat(&self) -> Stat {
        self.attr().stat(0)
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] where they are fixed.
    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.attr().apply(change);
        Ok(())
    }

    /// Opens it. Not called for directories, which all open the same way.
    ///
    /// # Errors
    /// Whatever its kind cannot do; [`Error::NoDevice`] by default.
    fn open(self: Arc<Self>, _how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Err(Error::NoDevice)
    }

    /// Whether it only stands for an object without a path, so that what is
    /// opened here has none either.
    fn is_stand_in(&self) -> bool {
        false
    }

    /// Where the socket bound to this name is kept.
    fn socket(&self) -> Option<&SocketSlot> {
        None
    }

    /// Sets the size of a regular file.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what has none.
    fn truncate(&self, _len: u64) -> Result<()> {
        Err(Error::Invalid)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is none.
    fn link_target(&self) -> Result<Link> {
        Err(Error::Invalid)
    }

    /// What a link shows that leads to an object without a path.
    ///
    /// # Errors
    /// [`Error::Invalid`] for all others.
    fn link_text(&self) -> Result<Vec<u8>> {
        Err(Error::Invalid)
    }

    /// Whether the entries of this directory stay as they are unless they are
    /// changed through it, so that lookups may be remembered.
    fn is_cacheable(&self) -> bool {
        true
    }

    /// The entry `name`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotDirectory`].
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Error::NotDirectory)
    }

    /// Makes a new entry; the walk has seen that there is none of this name.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] where nothing can be made; [`Error::NoSpace`].
    fn create(&self, _name: &[u8], _new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        Err(Error::NotPermitted)
    }

    /// Makes a file without a name (`O_TMPFILE`), with no links.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    fn create_unnamed(&self, _new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        Err(Error::Unsupported)
    }

    /// Gives `target`, an inode of this file system, a further name here.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::TooManyHardLinks`], [`Error::NoSpace`].
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Error::NotPermitted)
    }

    /// Removes the entry `name`, which is no directory.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; [`Error::NotFound`].
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Error::NotPermitted)
    }

    /// Removes the directory `name` if it is empty.
    ///
    /// # Errors
    /// [`Error::NotEmpty`]; [`Error::NotPermitted`].
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Error::NotPermitted)
    }

    /// Moves the entry `name` to `new_name` in `to`, a directory of this file
    /// system (perhaps this one).
    ///
    /// # Errors
    /// [`Error::NotEmpty`] if a directory with entries would be replaced;
    /// [`Error::NotPermitted`].
    fn rename(
        &self,
        _name: &[u8],
        _to: &dyn Inode,
        _new_name: &[u8],
        _mode: RenameMode,
    ) -> Result<()> {
        Err(Error::NotPermitted)
    }

    /// Lists the entries from position `from` on, `.` and `..` aside. Positions
    /// 0 and 1 are those two's; an implementation uses what is above.
    ///
    /// # Errors
    /// [`Error::NotDirectory`].
    fn list(&self, _from: u64, _emit: &mut Emit<'_>) -> Result<()> {
        Err(Error::NotDirectory)
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoData`]; [`Error::Unsupported`].
    fn xattr(&self, _name: &[u8]) -> Result<Arc<Vec<u8>>> {
        Err(Error::Unsupported)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Exists`], [`Error::NoData`],
    /// [`Error::NoSpace`].
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _how: XattrSet) -> Result<()> {
        Err(Error::Unsupported)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoData`]; [`Error::Unsupported`].
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Error::Unsupported)
    }

    /// The names of all extended attributes, each ended by a NUL.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    fn list_xattrs(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}
