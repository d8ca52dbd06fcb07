//! From a path to what it names (path_resolution(7), openat2(2)).
//!
//! A [`Walk`] stands at a directory and eats components. A symbolic link pushes
//! its target in front of what is left. Where every name is in the cache a step
//! costs one hash, one short lock and two reference counts, and nothing is
//! allocated.

use crate::context::FsContext;
use crate::cred::{Credentials, Want};
use crate::dentry::Dentry;
use crate::error::{Error, Result};
use crate::file::OpenFile;
use crate::inode::{Inode, Kind, Link, NAME_MAX, PATH_MAX};
use crate::mount::Path;
use crate::name;
use alloc::sync::Arc;
use bitflags::bitflags;
use smallvec::SmallVec;

/// Symbolic links followed in one walk.
const LINKS_MAX: u32 = 40;

bitflags! {
    /// Restrictions of `openat2(2)`, with its numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Resolve: u64 {
        /// Stay on the mount.
        const NO_XDEV = 1;
        /// Follow no links of `/proc/PID`.
        const NO_MAGICLINKS = 2;
        /// Follow no symbolic links.
        const NO_SYMLINKS = 4;
        /// Stay below the starting directory.
        const BENEATH = 8;
        /// Take the starting directory for the root.
        const IN_ROOT = 16;
        /// Only what is in the name cache; this kernel always answers "try
        /// without", which the call's contract allows.
        const CACHED = 32;
    }
}

/// Who walks: working directory, root, and rights.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Root, working directory, umask.
    pub fs: &'a FsContext,
    /// Rights.
    pub cred: &'a Credentials,
}

/// Where a relative path begins.
#[derive(Clone, Copy)]
pub enum At<'a> {
    /// At the working directory (`AT_FDCWD`).
    Cwd,
    /// At this directory.
    File(&'a OpenFile),
}

/// What a walk does with a symbolic link as the last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// Goes on to where it leads.
    Follow,
    /// Stops at the link itself.
    Stay,
}

/// The last component of a path, the walk standing at its directory.
pub(crate) enum Last<'a> {
    /// A name.
    Name(LastName<'a>),
    /// `.`, or a path of slashes only.
    Dot,
    /// `..`
    DotDot,
    /// A link of `/proc/PID` led here: there is no directory and no name.
    Here,
}

/// A name and whether slashes follow it.
pub(crate) struct LastName<'a> {
    text: Text<'a>,
    range: (usize, usize),
    /// The name must lead to a directory.
    pub(crate) slash: bool,
}

impl LastName<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.text
            .bytes()
            .get(self.range.0..self.range.1)
            .unwrap_or(&[])
    }
}

#[derive(Clone)]
enum Text<'a> {
    Given(&'a [u8]),
    Link(Arc<[u8]>),
}

impl Text<'_> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Given(b) => b,
            Text::Link(b) => b,
        }
    }
}

struct Part<'a> {
    text: Text<'a>,
    at: usize,
}

/// A walk under way.
pub(crate) struct Walk<'a> {
    cred: &'a Credentials,
    fs: &'a FsContext,
    /// The directory it must not leave upwards, if that is not the process's root.
    top: Option<Path>,
    /// Where it stands.
    pub(crate) at: Path,
    resolve: Resolve,
    links: u32,
    parts: SmallVec<[Part<'a>; 2]>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        who: &Caller<'a>,
        at: At<'_>,
        path: &'a [u8],
        resolve: Resolve,
    ) -> Result<Walk<'a>> {
        if path.is_empty() {
            return Err(Error::NotFound);
        }
        if path.len() >= PATH_MAX {
            return Err(Error::NameTooLong);
        }
        if resolve.contains(Resolve::CACHED) {
            return Err(Error::WouldBlock);
        }
        let absolute = path.first() == Some(&b'/');
        let scoped = resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
        if absolute && resolve.contains(Resolve::BENEATH) {
            return Err(Error::CrossDevice);
        }
        let start = match at {
            _ if absolute && !scoped => who.fs.root(),
            At::Cwd => who.fs.cwd(),
            At::File(f) => f.path().ok_or(Error::NotDirectory)?.clone(),
        };
        let top = scoped.then(|| start.clone());
        let mut parts = SmallVec::new();
        parts.push(Part {
            text: Text::Given(path),
            at: 0,
        });
        Ok(Walk {
            cred: who.cred,
            fs: who.fs,
            top,
            at: start,
            resolve,
            links: 0,
            parts,
        })
    }

    /// The top of the file tree as this walk sees it.
    fn root(&self) -> Path {
        match &self.top {
            Some(t) => t.clone(),
            None => self.fs.root(),
        }
    }

    /// Walks all of it.
    pub(crate) fn finish(mut self, last_link: LastLink) -> Result<Path> {
        let mut directory = false;
        loop {
            match self.parent()? {
                Last::Name(name) => {
                    directory |= name.slash;
                    let dentry = self.find(name.bytes())?;
                    if self.is_followed(&dentry, last_link, name.slash) {
                        self.follow(&dentry)?;
                        continue;
                    }
                    self.enter(dentry)?;
                }
                Last::Dot => self.check_directory()?,
                Last::DotDot => self.up()?,
                Last::Here => {}
            }
            self.at.inode()?;
            if directory {
                self.check_directory()?;
            }
            return Ok(self.at);
        }
    }

    /// Whether a last component that led to `dentry` is a link to be followed.
    pub(crate) fn is_followed(&self, dentry: &Dentry, last: LastLink, slash: bool) -> bool {
        (last == LastLink::Follow || slash) && is_link(dentry)
    }

    /// Walks to the directory of the last component. To be called again after
    /// [`Walk::follow`].
    pub(crate) fn parent(&mut self) -> Result<Last<'a>> {
        if let Some(last) = self.stride()? {
            return Ok(last);
        }
        loop {
            let Some((text, start, end)) = self.next_component() else {
                return Ok(if self.parts_were_links() {
                    Last::Here
                } else {
                    Last::Dot
                });
            };
            let (is_last, slash) = self.rest();
            let bytes = text.bytes();
            let component = bytes.get(start..end).unwrap_or(&[]);
            let special = matches!(component, b"." | b"..");
            if is_last {
                self.parts.clear();
                return Ok(match component {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(LastName {
                        text: text.clone(),
                        range: (start, end),
                        slash,
                    }),
                });
            }
            if special {
                self.check_directory()?;
                if component == b".." {
                    self.up()?;
                }
                continue;
            }
            let dentry = self.find(component)?;
            if is_link(&dentry) {
                self.follow(&dentry)?;
            } else {
                self.enter(dentry)?;
            }
        }
    }

    /// Walks through what the path as given begins with, as far as that is names of
    /// directories, and gives the last name if it gets there: most walks are nothing else.
    /// It costs a fraction of what the general way does, which goes on from where this
    /// one stops.
    fn stride(&mut self) -> Result<Option<Last<'a>>> {
        let [part] = self.parts.as_slice() else {
            return Ok(None);
        };
        let Text::Given(path) = part.text else {
            return Ok(None);
        };
        let mut rest = path.get(part.at..).unwrap_or(&[]);
        loop {
            rest = after_slashes(rest);
            let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let (component, tail) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            let next = after_slashes(tail);
            if matches!(component, b"" | b"." | b"..") {
                break;
            }
            if next.is_empty() {
                let start = path.len() - rest.len();
                self.parts.clear();
                return Ok(Some(Last::Name(LastName {
                    text: Text::Given(path),
                    range: (start, start + len),
                    slash: !tail.is_empty(),
                })));
            }
            let dentry = self.find(component)?;
            if is_link(&dentry) {
                break;
            }
            self.enter(dentry)?;
            rest = next;
        }
        if let Some(part) = self.parts.first_mut() {
            part.at = path.len() - rest.len();
        }
        Ok(None)
    }

    /// Whether the walk ended in a link of `/proc/PID` rather than in slashes.
    fn parts_were_links(&self) -> bool {
        self.links > 0 && self.at.dentry.dir().is_none()
    }

    /// The next component: its text and where in it.
    #[inline]
    fn next_component(&mut self) -> Option<(Text<'a>, usize, usize)> {
        while let Some(part) = self.parts.last_mut() {
            let bytes = part.text.bytes();
            let mut start = part.at;
            while bytes.get(start) == Some(&b'/') {
                start += 1;
            }
            let mut end = start;
            while bytes.get(end).is_some_and(|b| *b != b'/') {
                end += 1;
            }
            if end > start {
                part.at = end;
                return Some((part.text.clone(), start, end));
            }
            self.parts.pop();
        }
        None
    }

    /// Whether nothing but slashes is left, and whether there are any.
    #[inline]
    fn rest(&self) -> (bool, bool) {
        let mut slash = false;
        for part in &self.parts {
            for b in part.text.bytes().iter().skip(part.at) {
                if *b != b'/' {
                    return (false, slash);
                }
                slash = true;
            }
        }
        (true, slash)
    }

    fn check_directory(&self) -> Result<()> {
        self.at.dentry.dir().map(|_| ()).ok_or(Error::NotDirectory)
    }

    /// The entry `name` of the directory the walk stands at, negative ones
    /// included.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Result<Arc<Dentry>> {
        match self.known(name)? {
            Some(d) => Ok(d),
            None => find_slow(&self.at, name),
        }
    }

    /// As [`Walk::find`], if it is in the cache.
    #[inline]
    pub(crate) fn known(&self, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        let inode = self.at.inode()?;
        if self.at.dentry.dir().is_none() {
            return Err(Error::NotDirectory);
        }
        inode.attr().check(self.cred, Want::EXEC)?;
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        Ok(self.at.dentry.cached(name, name::hash(name)))
    }

    /// Goes to `dentry` below, and on to what is mounted there.
    pub(crate) fn enter(&mut self, dentry: Arc<Dentry>) -> Result<()> {
        if dentry.inode().is_none() {
            return Err(Error::NotFound);
        }
        self.at.dentry = dentry;
        self.cross_mounts()
    }

    #[inline]
    fn cross_mounts(&mut self) -> Result<()> {
        while let Some(mount) = self.at.dentry.mounted() {
            if self.resolve.contains(Resolve::NO_XDEV) {
                return Err(Error::CrossDevice);
            }
            self.at.dentry = mount.tree().root().clone();
            self.at.mount = mount;
        }
        Ok(())
    }

    /// Goes to `..`.
    pub(crate) fn up(&mut self) -> Result<()> {
        self.check_directory()?;
        if self.at.is(&self.root()) {
            if self.resolve.contains(Resolve::BENEATH) {
                return Err(Error::CrossDevice);
            }
            return Ok(());
        }
        let inode = self.at.inode()?;
        inode.attr().check(self.cred, Want::EXEC)?;
        let crosses = Arc::ptr_eq(&self.at.dentry, self.at.mount.tree().root());
        if crosses && self.resolve.contains(Resolve::NO_XDEV) {
            return Err(Error::CrossDevice);
        }
        match self.at.parent() {
            Some(p) => self.at = p,
            // A directory that was removed together with its parent.
            None if self.at.dentry.is_removed() => return Err(Error::NotFound),
            None => return Ok(()),
        }
        self.cross_mounts()
    }

    /// Follows the symbolic link `dentry`.
    pub(crate) fn follow(&mut self, dentry: &Arc<Dentry>) -> Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX || self.resolve.contains(Resolve::NO_SYMLINKS) {
            return Err(Error::TooManyLinks);
        }
        let inode = dentry.inode().ok_or(Error::NotFound)?;
        match inode.link_target()? {
            Link::Target(text) => {
                if text.is_empty() {
                    return Err(Error::NotFound);
                }
                if text.first() == Some(&b'/') {
                    if self.resolve.contains(Resolve::BENEATH) {
                        return Err(Error::CrossDevice);
                    }
                    let root = self.root();
                    let other = !Arc::ptr_eq(&self.at.mount, &root.mount);
                    if other && self.resolve.contains(Resolve::NO_XDEV) {
                        return Err(Error::CrossDevice);
                    }
                    self.at = root;
                }
                self.parts.push(Part {
                    text: Text::Link(text),
                    at: 0,
                });
            }
            Link::Object(path) => {
                if self.resolve.contains(Resolve::NO_MAGICLINKS) {
                    return Err(Error::TooManyLinks);
                }
                let scoped = Resolve::BENEATH | Resolve::IN_ROOT | Resolve::NO_XDEV;
                if self.resolve.intersects(scoped) {
                    return Err(Error::CrossDevice);
                }
                self.at = path;
            }
        }
        Ok(())
    }
}

/// `path` without the slashes it begins with.
#[inline]
fn after_slashes(mut path: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] = path {
        path = rest;
    }
    path
}

fn is_link(dentry: &Dentry) -> bool {
    dentry
        .inode()
        .is_some_and(|i| i.attr().kind == Kind::Symlink)
}

#[cold]
fn find_slow(at: &Path, name: &[u8]) -> Result<Arc<Dentry>> {
    let dir = at.dentry.dir().ok_or(Error::NotDirectory)?;
    let _lock = dir.lock.lock();
    find_locked(at, name)
}

/// As [`Walk::find`] with the directory's lock held; no permissions are checked.
pub(crate) fn find_locked(at: &Path, name: &[u8]) -> Result<Arc<Dentry>> {
    if let Some(d) = at.dentry.cached(name, name::hash(name)) {
        return Ok(d);
    }
    match look_up(at, name) {
        Err(Error::NotFound) if at.inode()?.is_cacheable() => {
            at.dentry.remember(&at.mount.tree().cache, name, None)
        }
        found => found,
    }
}

/// As [`find_locked`], before `name` is made: that it leads nowhere is not remembered.
pub(crate) fn find_to_make(at: &Path, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
    if let Some(d) = at.dentry.cached(name, name::hash(name)) {
        return Ok(d.inode().is_some().then_some(d));
    }
    match look_up(at, name) {
        // Where names are not remembered none is made either: the answer is that.
        Err(Error::NotFound) if at.inode()?.is_cacheable() => Ok(None),
        found => found.map(Some),
    }
}

/// Asks the file system for `name`.
fn look_up(at: &Path, name: &[u8]) -> Result<Arc<Dentry>> {
    let inode = at.inode()?;
    let found = inode.lookup(name)?;
    match inode.is_cacheable() {
        true => at
            .dentry
            .remember(&at.mount.tree().cache, name, Some(found)),
        false => Ok(Dentry::uncached(&at.dentry, name, found)),
    }
}

impl<'a> Caller<'a> {
    /// What `path` names.
    ///
    /// # Errors
    /// Those of path_resolution(7).
    pub fn lookup(&self, at: At<'_>, path: &'a [u8], last: LastLink) -> Result<Path> {
        Walk::new(self, at, path, Resolve::empty())?.finish(last)
    }

    /// As [`Caller::lookup`], with the inode.
    ///
    /// # Errors
    /// As there.
    pub fn inode(&self, at: At<'_>, path: &'a [u8], last: LastLink) -> Result<Arc<dyn Inode>> {
        self.lookup(at, path, last)?.inode().cloned()
    }
}
