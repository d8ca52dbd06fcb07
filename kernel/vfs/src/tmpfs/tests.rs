//! Trees, walks and files, through the same calls a program makes.

use super::*;
use crate::context::FsContext;
use crate::cred::{Caps, Credentials};
use crate::dentry::Dentry;
use crate::entries::RenameFlags;
use crate::file::{OpenFile, OpenFlags, Seek};
use crate::inode::{NewNode, RenameMode};
use crate::mount::{Mount, MountFlags, Tree};
use crate::open::How;
use crate::walk::{At, Caller, LastLink, Resolve};
use machine::Frame;
use machine::io::{Sink, Source};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

mod seals;
mod space;

struct World {
    account: Arc<Account>,
    fs: FsContext,
    cred: Credentials,
}

impl World {
    fn over(tmp: Arc<TmpFs>) -> World {
        let account = tmp.account().clone();
        let root = tmp.make_root().unwrap();
        let mount = Mount::root(Tree::new(tmp, root), MountFlags::empty(), "root");
        World {
            account,
            fs: FsContext::new(mount.path()),
            cred: Credentials::root(Caps::all()),
        }
    }

    fn new() -> World {
        let account = Arc::new(Account::new(4000).unwrap());
        World::over(TmpFs::build(account, Config::default(), None))
    }

    fn who(&self) -> Caller<'_> {
        Caller {
            fs: &self.fs,
            cred: &self.cred,
        }
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        let how = How {
            flags,
            mode: 0o644,
            resolve: Resolve::empty(),
        };
        self.who().open(
            At::Cwd,
            path.as_bytes(),
            &how,
            machine::FileCharge::kernel(),
        )
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let flags = OpenFlags::CREATE | OpenFlags::WRITE_ONLY | OpenFlags::TRUNCATE;
        let f = self.open(path, flags)?;
        assert_eq!(f.write(&mut Source::kernel(bytes))?, bytes.len());
        Ok(())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let f = self.open(path, OpenFlags::empty())?;
        let mut out = vec![0; 1 << 16];
        let n = f.read(&mut Sink::kernel(&mut out))?;
        out.truncate(n);
        Ok(out)
    }

    fn mkdir(&self, path: &str) -> Result<()> {
        let made = self
            .who()
            .make(At::Cwd, path.as_bytes(), Kind::Directory, 0o755, &[]);
        made.map(|_| ())
    }

    fn symlink(&self, target: &str, path: &str) -> Result<()> {
        let text = target.as_bytes();
        let made = self
            .who()
            .make(At::Cwd, path.as_bytes(), Kind::Symlink, 0o777, text);
        made.map(|_| ())
    }

    fn unlink(&self, path: &str) -> Result<()> {
        self.who().unlink(At::Cwd, path.as_bytes())
    }

    fn rmdir(&self, path: &str) -> Result<()> {
        self.who().rmdir(At::Cwd, path.as_bytes())
    }

    fn rename(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        let (f, t) = (from.as_bytes(), to.as_bytes());
        self.who().rename((At::Cwd, f), (At::Cwd, t), flags)
    }

    fn list(&self, path: &str) -> Vec<String> {
        let dir = self.who().inode(At::Cwd, path.as_bytes(), LastLink::Follow);
        let dir = dir.unwrap();
        let mut out = Vec::new();
        let mut from = 2;
        // Two at a time, to go through the positions.
        loop {
            let mut n = 0;
            dir.list(from, &mut |e| {
                if n == 2 {
                    return false;
                }
                n += 1;
                from = e.next;
                out.push(String::from_utf8(e.name.to_vec()).unwrap());
                true
            })
            .unwrap();
            if n == 0 {
                out.sort();
                return out;
            }
        }
    }

    fn path_of(&self, path: &str) -> String {
        let p = self
            .who()
            .lookup(At::Cwd, path.as_bytes(), LastLink::Follow);
        String::from_utf8(p.unwrap().display(&self.fs.root()).unwrap()).unwrap()
    }
}

#[test]
fn paths_resolve() {
    let w = World::new();
    w.mkdir("/a").unwrap();
    w.mkdir("/a/b").unwrap();
    w.write("/a/b/f", b"text").unwrap();
    w.symlink("../a/./b", "/a/l").unwrap();
    w.symlink("/a/l/f", "/abs").unwrap();
    w.symlink("loop2", "/loop").unwrap();
    w.symlink("loop", "/loop2").unwrap();
    assert_eq!(w.read("/a/l/f").unwrap(), b"text");
    assert_eq!(w.read("//a//b/../b/./f").unwrap(), b"text");
    assert_eq!(w.read("/abs").unwrap(), b"text");
    assert_eq!(w.path_of("/a/l/.."), "/a");
    assert_eq!(w.path_of("/../../a/b/"), "/a/b");
    assert_eq!(w.read("/abs/").unwrap_err(), Error::NotDirectory);
    assert_eq!(w.read("/a/b/f/").unwrap_err(), Error::NotDirectory);
    assert_eq!(w.read("/a/b/f/x").unwrap_err(), Error::NotDirectory);
    assert_eq!(w.read("/loop").unwrap_err(), Error::TooManyLinks);
    assert_eq!(w.read("/a/x").unwrap_err(), Error::NotFound);
    assert_eq!(w.read("").unwrap_err(), Error::NotFound);
    let long = "/".to_string() + &"n".repeat(256);
    assert_eq!(w.read(&long).unwrap_err(), Error::NameTooLong);
    assert_eq!(w.mkdir("/a/").unwrap_err(), Error::Exists);
    w.mkdir("/new/").unwrap();
    w.unlink("/abs").unwrap();
    assert_eq!(w.list("/a"), ["b", "l"]);
}

#[test]
fn open_flags_are_honoured() {
    let w = World::new();
    w.write("/f", b"old").unwrap();
    w.symlink("f", "/l").unwrap();
    w.symlink("made", "/dangling").unwrap();
    let excl = OpenFlags::CREATE | OpenFlags::EXCLUSIVE | OpenFlags::WRITE_ONLY;
    assert_eq!(w.open("/f", excl).unwrap_err(), Error::Exists);
    assert_eq!(w.open("/dangling", excl).unwrap_err(), Error::Exists);
    assert_eq!(
        w.open("/l", OpenFlags::NOFOLLOW).unwrap_err(),
        Error::TooManyLinks
    );
    assert_eq!(
        w.open("/f", OpenFlags::DIRECTORY).unwrap_err(),
        Error::NotDirectory
    );
    assert_eq!(
        w.open("/", OpenFlags::READ_WRITE).unwrap_err(),
        Error::IsDirectory
    );
    w.write("/dangling", b"through").unwrap();
    assert_eq!(w.read("/made").unwrap(), b"through");
    let p = w.open("/l", OpenFlags::PATH | OpenFlags::NOFOLLOW).unwrap();
    assert_eq!(p.stat().mode & 0o170_000, 0o120_000);
    assert_eq!(
        p.read(&mut Sink::kernel(&mut [0; 4])),
        Err(Error::BadDescriptor)
    );
    let append = w
        .open("/f", OpenFlags::WRITE_ONLY | OpenFlags::APPEND)
        .unwrap();
    append.write(&mut Source::kernel(b"+new")).unwrap();
    assert_eq!(w.read("/f").unwrap(), b"old+new");
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let w = World::new();
    let tmpfile = OpenFlags::TMPFILE_BIT | OpenFlags::DIRECTORY | OpenFlags::READ_WRITE;
    let f = w.open("/", tmpfile).unwrap();
    f.write(&mut Source::kernel(b"x")).unwrap();
    assert_eq!((f.stat().nlink, w.list("/").len()), (0, 0));
    w.who().link(f.path().unwrap(), At::Cwd, b"/named").unwrap();
    assert_eq!(w.read("/named").unwrap(), b"x");
    assert_eq!(f.stat().nlink, 1);
}

#[test]
fn permissions_hold() {
    let mut w = World::new();
    w.mkdir("/d").unwrap();
    w.write("/d/secret", b"s").unwrap();
    let secret = w
        .who()
        .lookup(At::Cwd, b"/d/secret", LastLink::Follow)
        .unwrap();
    w.who().chmod(&secret, 0o600).unwrap();
    w.write("/mine", b"m").unwrap();
    w.cred = Credentials::user(1000, 1000);
    assert_eq!(w.read("/d/secret").unwrap_err(), Error::AccessDenied);
    assert_eq!(w.write("/d/new", b"").unwrap_err(), Error::AccessDenied);
    // The root directory is sticky: others' files stay.
    assert_eq!(w.unlink("/mine").unwrap_err(), Error::NotPermitted);
    w.write("/own", b"").unwrap();
    w.unlink("/own").unwrap();
    assert_eq!(
        w.who().chmod(&secret, 0o777).unwrap_err(),
        Error::NotPermitted
    );
}

#[test]
fn renames_follow_the_rules() {
    let w = World::new();
    for d in ["/a", "/a/b", "/full", "/full/x", "/empty"] {
        w.mkdir(d).unwrap();
    }
    w.write("/f", b"f").unwrap();
    w.write("/g", b"g").unwrap();
    let none = RenameFlags::empty();
    assert_eq!(w.rename("/a", "/a/b/c", none).unwrap_err(), Error::Invalid);
    assert_eq!(w.rename("/a", "/full", none).unwrap_err(), Error::NotEmpty);
    assert_eq!(w.rename("/a/b", "/a", none).unwrap_err(), Error::NotEmpty);
    assert_eq!(w.rename("/f", "/a", none).unwrap_err(), Error::IsDirectory);
    assert_eq!(w.rename("/a", "/f", none).unwrap_err(), Error::NotDirectory);
    assert_eq!(
        w.rename("/f", "/g", RenameFlags::NOREPLACE).unwrap_err(),
        Error::Exists
    );
    let open = w.open("/a/b", OpenFlags::empty()).unwrap();
    w.rename("/a", "/empty", none).unwrap();
    assert_eq!(
        open.path().unwrap().display(&w.fs.root()),
        Ok(b"/empty/b".to_vec())
    );
    w.rename("/f", "/g", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (w.read("/f").unwrap(), w.read("/g").unwrap()),
        (b"g".to_vec(), b"f".to_vec())
    );
    w.rename("/f", "/empty/b/f", none).unwrap();
    assert_eq!(w.read("/empty/b/f").unwrap(), b"g");
    assert_eq!(w.list("/"), ["empty", "full", "g"]);
    let links = |p: &str| {
        w.who()
            .inode(At::Cwd, p.as_bytes(), LastLink::Stay)
            .unwrap()
            .attr()
            .nlink()
    };
    assert_eq!((links("/"), links("/empty"), links("/full")), (4, 3, 3));
}

#[test]
fn a_removed_directory_takes_no_entries() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    let d = w.who().lookup(At::Cwd, b"/d", LastLink::Follow).unwrap();
    w.fs.set_cwd(d);
    w.rmdir("../d").unwrap();
    assert_eq!(w.write("x", b"").unwrap_err(), Error::NotFound);
    assert_eq!(w.path_of("/"), "/");
    assert_eq!(
        w.fs.cwd().display(&w.fs.root()),
        Ok(b"/d (deleted)".to_vec())
    );
}

#[test]
fn mounts_are_crossed_both_ways() {
    let w = World::new();
    w.mkdir("/mnt").unwrap();
    w.write("/mnt/hidden", b"").unwrap();
    let at = w.who().lookup(At::Cwd, b"/mnt", LastLink::Follow).unwrap();
    let inner = TmpFs::tree(w.account.clone(), Config::default()).unwrap();
    let mount = Mount::attach(&at, inner, MountFlags::empty(), "tmpfs").unwrap();
    w.mkdir("/mnt/in").unwrap();
    assert_eq!(w.list("/mnt"), ["in"]);
    assert_eq!(w.path_of("/mnt/in/../.."), "/");
    assert_eq!(w.path_of("/mnt/in"), "/mnt/in");
    let none = RenameFlags::empty();
    assert_eq!(
        w.rename("/mnt/in", "/out", none).unwrap_err(),
        Error::CrossDevice
    );
    assert_eq!(w.rmdir("/mnt").unwrap_err(), Error::Busy);
    mount.detach();
    assert_eq!(w.list("/mnt"), ["hidden"]);
}

#[test]
fn restricted_walks_stay_inside() {
    let w = World::new();
    w.mkdir("/jail").unwrap();
    w.write("/jail/f", b"in").unwrap();
    w.write("/f", b"out").unwrap();
    w.symlink("/f", "/jail/abs").unwrap();
    let jail = w.open("/jail", OpenFlags::empty()).unwrap();
    let open = |path: &'static str, resolve| {
        let how = How {
            resolve,
            ..How::default()
        };
        let f = w.who().open(
            At::File(&jail),
            path.as_bytes(),
            &how,
            machine::FileCharge::kernel(),
        )?;
        let mut b = [0; 8];
        let n = f.read(&mut Sink::kernel(&mut b))?;
        Ok(b[..n].to_vec())
    };
    assert_eq!(open("../f", Resolve::empty()).unwrap(), b"out");
    assert_eq!(open("../f", Resolve::BENEATH), Err(Error::CrossDevice));
    assert_eq!(open("abs", Resolve::BENEATH), Err(Error::CrossDevice));
    assert_eq!(open("abs", Resolve::IN_ROOT).unwrap(), b"in");
    assert_eq!(open("../../f", Resolve::IN_ROOT).unwrap(), b"in");
    assert_eq!(open("abs", Resolve::NO_SYMLINKS), Err(Error::TooManyLinks));
}

#[test]
fn space_is_limited_and_given_back() {
    let account = Arc::new(Account::new(1000).unwrap());
    let config = Config {
        pages_max: Some(4),
        nodes_max: 6,
        ..Config::default()
    };
    let tmp = TmpFs::build(account.clone(), config, None);
    let w = World::over(tmp.clone());
    let f = w
        .open("/f", OpenFlags::CREATE | OpenFlags::READ_WRITE)
        .unwrap();
    assert_eq!(f.write(&mut Source::kernel(&[1; 20_000])), Ok(16_384));
    assert_eq!(f.write(&mut Source::kernel(&[1])), Err(Error::NoSpace));
    f.ops().truncate(&f, 5000).unwrap();
    assert_eq!(tmp.pages(), 2);
    f.pwrite(&mut Source::kernel(&[1; 8192]), 1 << 30).unwrap();
    f.ops().fallocate(&f, 3, 0, 1 << 31).unwrap();
    assert_eq!((tmp.pages(), f.stat().size), (0, (1 << 30) + 8192));
    let made = (0..9).filter(|i| w.write(&std::format!("/n{i}"), b"").is_ok());
    assert_eq!(made.count(), 4);
    for i in 0..4 {
        w.unlink(&std::format!("/n{i}")).unwrap();
    }
    drop((w, f, tmp));
    assert_eq!(account.used(), 0);
}

#[test]
fn very_deep_trees_end_without_recursion() {
    let w = World::new();
    for _ in 0..3000 {
        w.mkdir("d").unwrap();
        let d = w.who().lookup(At::Cwd, b"d", LastLink::Follow).unwrap();
        w.fs.set_cwd(d);
    }
    drop(w);
}

#[test]
fn holes_are_found() {
    let w = World::new();
    let f = w
        .open("/f", OpenFlags::CREATE | OpenFlags::READ_WRITE)
        .unwrap();
    f.pwrite(&mut Source::kernel(&[1; 10]), 10_000).unwrap();
    assert_eq!(f.seek(Seek::Data(0)), Ok(8192));
    assert_eq!(f.seek(Seek::Hole(9000)), Ok(10_010));
    assert_eq!(f.seek(Seek::Hole(0)), Ok(0));
    assert_eq!(f.seek(Seek::Data(20_000)), Err(Error::NoDevice));
    assert_eq!(f.seek(Seek::End(-10)), Ok(10_000));
}

/// `/bin/sh` (two pages and a bit), `/etc/conf`, `/etc/link`, `/etc/sub/`.
struct Image(Vec<Frame>);

const NAMES: [&[(&str, u32)]; 7] = [
    &[("bin", 1), ("etc", 2)],
    &[("sh", 3)],
    &[("conf", 4), ("link", 5), ("sub", 6)],
    &[],
    &[],
    &[],
    &[],
];

fn image_byte(at: usize) -> u8 {
    (at * 31 / 7) as u8
}

impl Image {
    fn new() -> Arc<Image> {
        let frame = |p: usize| {
            let f = Frame::zeroed(Account::kernel()).unwrap();
            let end = (9000 - p * PAGE_SIZE).min(PAGE_SIZE);
            let bytes: Vec<u8> = (0..end).map(|i| image_byte(p * PAGE_SIZE + i)).collect();
            f.write(0, &bytes);
            f
        };
        Arc::new(Image((0..3).map(frame).collect()))
    }
}

impl LowerTree for Image {
    fn count(&self) -> u32 {
        7
    }

    fn node(&self, index: u32) -> Option<LowerNode> {
        let children = NAMES.get(index as usize)?.len() as u32;
        let kind = match index {
            3 => LowerKind::File { size: 9000 },
            4 => LowerKind::File { size: 5 },
            5 => LowerKind::Symlink,
            _ => LowerKind::Directory { children },
        };
        Some(LowerNode {
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 1,
        })
    }

    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let mut all = NAMES[dir as usize].iter();
        all.find(|(n, _)| n.as_bytes() == name).map(|(_, i)| *i)
    }

    fn child(&self, dir: u32, n: u32, emit: &mut EmitChild<'_>) {
        if let Some((name, i)) = NAMES[dir as usize].get(n as usize) {
            emit(name.as_bytes(), *i, self.node(*i).unwrap().kind);
        }
    }

    fn target(&self, _: u32) -> Option<Arc<[u8]>> {
        Some(Arc::from(&b"conf"[..]))
    }

    fn page(&self, _: u32, page: u64) -> Result<Frame> {
        self.0.get(page as usize).cloned().ok_or(Error::Io)
    }
}

fn over_image() -> (World, Arc<TmpFs>) {
    let account = Arc::new(Account::new(100).unwrap());
    let tmp = TmpFs::build(account, Config::default(), Some(Image::new()));
    (World::over(tmp.clone()), tmp)
}

#[test]
fn an_image_shows_through() {
    let (w, tmp) = over_image();
    let want: Vec<u8> = (0..9000).map(image_byte).collect();
    assert!(w.read("/bin/sh").unwrap() == want);
    assert_eq!(w.read("/etc/link").unwrap(), &want[..5]);
    assert_eq!(w.list("/etc"), ["conf", "link", "sub"]);
    assert_eq!(tmp.pages(), 0);
    let stat = w
        .who()
        .inode(At::Cwd, b"/bin/sh", LastLink::Stay)
        .unwrap()
        .stat();
    assert_eq!((stat.ino, stat.size, stat.mode), (4, 9000, 0o100_755));
}

#[test]
fn an_image_is_changed_page_by_page() {
    let (w, tmp) = over_image();
    let mut want: Vec<u8> = (0..9000).map(image_byte).collect();
    let f = w.open("/bin/sh", OpenFlags::READ_WRITE).unwrap();
    f.pwrite(&mut Source::kernel(b"new"), 5000).unwrap();
    want[5000..5003].copy_from_slice(b"new");
    assert!(w.read("/bin/sh").unwrap() == want);
    assert_eq!(tmp.pages(), 1);
    // Cut in the middle of a lower page, then grown: the rest is zeros.
    f.ops().truncate(&f, 100).unwrap();
    f.ops().truncate(&f, 9000).unwrap();
    want[100..].fill(0);
    assert!(w.read("/bin/sh").unwrap() == want);
    let (w, _) = over_image();
    let f = w.open("/bin/sh", OpenFlags::READ_WRITE).unwrap();
    f.ops().fallocate(&f, 3, 1000, 7500).unwrap();
    let mut want: Vec<u8> = (0..9000).map(image_byte).collect();
    want[1000..8500].fill(0);
    assert!(w.read("/bin/sh").unwrap() == want);
}

#[test]
fn entries_of_an_image_can_go() {
    let (w, _) = over_image();
    w.unlink("/etc/conf").unwrap();
    assert_eq!(w.read("/etc/link").unwrap_err(), Error::NotFound);
    assert_eq!(w.list("/etc"), ["link", "sub"]);
    assert_eq!(w.rmdir("/etc").unwrap_err(), Error::NotEmpty);
    w.write("/etc/conf", b"mine").unwrap();
    assert_eq!(w.list("/etc"), ["conf", "link", "sub"]);
    assert_eq!(w.read("/etc/link").unwrap(), b"mine");
    w.unlink("/etc/conf").unwrap();
    assert_eq!(w.read("/etc/conf").unwrap_err(), Error::NotFound);
    w.rename("/bin/sh", "/etc/sub/sh", RenameFlags::empty())
        .unwrap();
    assert_eq!(
        (w.list("/bin").len(), w.list("/etc/sub")),
        (0, vec!["sh".into()])
    );
    w.rmdir("/bin").unwrap();
    w.rename("/etc", "/bin", RenameFlags::empty()).unwrap();
    assert_eq!(w.read("/bin/sub/sh").unwrap().len(), 9000);
    assert_eq!(w.list("/"), ["bin"]);
    w.mkdir("/etc").unwrap();
    assert_eq!(w.list("/etc").len(), 0);
}

#[derive(Clone, Debug)]
enum Op {
    Write(u8, u16, u16),
    Truncate(u8, u16),
    Unlink(u8),
    Rename(u8, u8),
    Link(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let file = || 0..4u8;
    prop_oneof![
        (file(), 0..20_000u16, 1..9_000u16).prop_map(|(f, o, l)| Op::Write(f, o, l)),
        (file(), 0..20_000u16).prop_map(|(f, l)| Op::Truncate(f, l)),
        file().prop_map(Op::Unlink),
        (file(), file()).prop_map(|(a, b)| Op::Rename(a, b)),
        (file(), file()).prop_map(|(a, b)| Op::Link(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn files_behave_like_byte_strings(ops in prop::collection::vec(op(), 1..40)) {
        let w = World::new();
        let name = |f: u8| std::format!("/f{f}");
        // Names lead to contents; hard links share one.
        let mut names: BTreeMap<u8, usize> = BTreeMap::new();
        let mut contents: Vec<Vec<u8>> = Vec::new();
        for (i, op) in ops.into_iter().enumerate() {
            match op {
                Op::Write(f, at, len) => {
                    let (at, len) = (at as usize, len as usize);
                    let bytes = vec![i as u8 + 1; len];
                    let flags = OpenFlags::CREATE | OpenFlags::READ_WRITE;
                    let file = w.open(&name(f), flags).unwrap();
                    file.pwrite(&mut Source::kernel(&bytes), at as u64).unwrap();
                    let id = *names.entry(f).or_insert_with(|| {
                        contents.push(Vec::new());
                        contents.len() - 1
                    });
                    let c = &mut contents[id];
                    c.resize(c.len().max(at + len), 0);
                    c[at..at + len].copy_from_slice(&bytes);
                }
                Op::Truncate(f, len) => {
                    let path = w.who().lookup(At::Cwd, name(f).as_bytes(), LastLink::Stay);
                    prop_assert_eq!(path.is_ok(), names.contains_key(&f));
                    if let Ok(p) = path {
                        w.who().truncate(&p, len.into()).unwrap();
                        contents[names[&f]].resize(len.into(), 0);
                    }
                }
                Op::Unlink(f) => {
                    prop_assert_eq!(w.unlink(&name(f)).is_ok(), names.remove(&f).is_some());
                }
                Op::Rename(a, b) => {
                    let done = w.rename(&name(a), &name(b), RenameFlags::empty());
                    prop_assert_eq!(done.is_ok(), names.contains_key(&a));
                    // Two links to one file: nothing happens.
                    if done.is_ok() && names.get(&a) != names.get(&b) {
                        let id = names.remove(&a).unwrap();
                        names.insert(b, id);
                    }
                }
                Op::Link(a, b) => {
                    let from = w.who().lookup(At::Cwd, name(a).as_bytes(), LastLink::Stay);
                    let Ok(from) = from else { continue };
                    let done = w.who().link(&from, At::Cwd, name(b).as_bytes());
                    prop_assert_eq!(done.is_ok(), !names.contains_key(&b));
                    if done.is_ok() {
                        names.insert(b, names[&a]);
                    }
                }
            }
            for f in 0..4 {
                let want = names.get(&f).map(|id| &contents[*id]);
                let have = w.read(&name(f)).ok();
                prop_assert!(have.as_ref() == want);
            }
        }
    }
}

#[test]
fn directories_nest_deeper_than_paths_and_stacks() {
    let account = Arc::new(Account::new(1 << 20).unwrap());
    let tree = TmpFs::tree(account.clone(), Config::default()).unwrap();
    let root = Mount::root(tree, MountFlags::empty(), "root");
    let new = NewNode {
        attr: NewAttr {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
        },
        target: &[],
        rdev: 0,
    };
    let mut at = root.path();
    for depth in 0..700 {
        let inode = at.inode().unwrap().create(b"below", &new).unwrap();
        let too_long = at.display(&root.path()) == Err(Error::NameTooLong);
        // Six bytes each, and `PATH_MAX` has one for the end.
        assert_eq!(too_long, depth > 4095 / 6, "{depth}");
        at.dentry = Dentry::uncached(&at.dentry, b"below", inode);
    }
    let mut inode = at.inode().unwrap().clone();
    for _ in 0..100_000 {
        inode = inode.create(b"below", &new).unwrap();
    }
    drop((inode, at, root));
    assert_eq!(account.used(), 0);
}

#[test]
fn names_and_targets_are_paid_for() {
    let account = Arc::new(Account::new(500).unwrap());
    let tree = TmpFs::tree(account.clone(), Config::default()).unwrap();
    let root = tree.root().inode().unwrap().clone();
    let attr = |kind| NewAttr {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    let empty = account.used();
    let link = NewNode {
        attr: attr(Kind::Symlink),
        target: &[b'x'; 4000],
        rdev: 0,
    };
    let name = |n: usize| std::format!("{n:0>250}").into_bytes();
    let made = (0..).take_while(|n| root.create(&name(*n), &link).is_ok());
    let made = made.count();
    // Each takes 4000 bytes and its name, and its share of a page as a node.
    assert!((200..500).contains(&made), "{made}");
    for n in 0..made {
        root.unlink(&name(n)).unwrap();
    }
    assert_eq!(account.used(), empty);
    let file = NewNode {
        attr: attr(Kind::File),
        target: &[],
        rdev: 0,
    };
    let file = root.create(b"file", &file).unwrap();
    let linked = (0..5000).take_while(|n| root.link(&name(*n), &file).is_ok());
    let linked = linked.count();
    assert!(linked > 4000, "{linked}");
    assert!(account.used() > linked * 256 / 4096);
    root.rename(&name(0), &*root, b"short", RenameMode::Replace)
        .unwrap();
    drop((file, root, tree));
    assert_eq!(account.used(), 0);
}
