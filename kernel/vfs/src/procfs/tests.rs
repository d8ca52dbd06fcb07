//! A capsule's `/proc`, `/dev` and `/sys` as a program walks them.

use super::*;
use crate::devfs::{self, DevConfig};
use crate::event::Events;
use crate::file::{FileOps, OpenFile, OpenFlags};
use crate::inode::{Kind, NewAttr};
use crate::mount::{Mount, MountFlags};
use crate::open::How;
use crate::pipe::pipe;
use crate::tmpfs::{Config, TmpFs};
use crate::walk::{At, Caller, LastLink};
use crate::{Caps, Credentials, sysfs};
use core::fmt::Write;
use machine::io::{Sink, Source};
use std::sync::OnceLock;
use std::vec;

struct One {
    files: Arc<FdTable>,
    places: Arc<OnceLock<Arc<FsContext>>>,
}

impl ProcProcess for One {
    fn pid(&self) -> u32 {
        7
    }
    fn owner(&self) -> (u32, u32) {
        (0, 0)
    }
    fn threads(&self) -> Vec<u32> {
        vec![7, 9]
    }
    fn files(&self) -> Option<Arc<FdTable>> {
        Some(self.files.clone())
    }
    fn places(&self) -> Option<Arc<FsContext>> {
        self.places.get().cloned()
    }
    fn exe(&self) -> Option<Path> {
        None
    }
    fn names(&self) -> &'static [(&'static str, u32)] {
        &[("comm", 0o644), ("stat", 0o444)]
    }
    fn read(&self, tid: Option<u32>, name: &str, out: &mut Text) -> Result<()> {
        writeln!(out, "{name} of {tid:?}").map_err(|_| Error::NoMemory)
    }
    fn write(&self, _: Option<u32>, name: &str, bytes: &[u8]) -> Result<()> {
        (name == "comm" && bytes == b"new")
            .then_some(())
            .ok_or(Error::Invalid)
    }
}

struct Source1 {
    files: Arc<FdTable>,
    places: Arc<OnceLock<Arc<FsContext>>>,
}

impl ProcSource for Source1 {
    fn pids(&self) -> Vec<u32> {
        vec![7]
    }
    fn process(&self, pid: u32) -> Option<Arc<dyn ProcProcess>> {
        (pid == 7).then(|| -> Arc<dyn ProcProcess> {
            Arc::new(One {
                files: self.files.clone(),
                places: self.places.clone(),
            })
        })
    }
    fn current(&self) -> Option<(u32, u32)> {
        Some((7, 9))
    }
    fn load(&self) -> (usize, usize, u32) {
        (2, 1, 9)
    }
    fn forks(&self) -> u64 {
        3
    }
    fn threads_max(&self) -> u32 {
        100
    }
    fn host_name(&self) -> String {
        "box".into()
    }
    fn set_host_name(&self, _: &[u8]) -> Result<()> {
        Err(Error::NotPermitted)
    }
    fn domain_name(&self) -> String {
        "(none)".into()
    }
    fn set_domain_name(&self, _: &[u8]) -> crate::Result<()> {
        Err(crate::Error::NotPermitted)
    }
}

struct Capsule {
    account: Arc<Account>,
    fs: Arc<FsContext>,
    files: Arc<FdTable>,
    cred: Credentials,
}

impl Capsule {
    fn new() -> Capsule {
        let account = Arc::new(Account::new(2048).unwrap());
        let files = Arc::new(FdTable::new(account.clone()));
        let places = Arc::new(OnceLock::new());
        let group = CpuGroup::new(100, Some(1500));
        let tmp = TmpFs::tree(account.clone(), Config::default()).unwrap();
        let root = Mount::root(tmp, MountFlags::empty(), "root");
        let fs = Arc::new(FsContext::new(root.path()));
        assert!(places.set(fs.clone()).is_ok());
        let c = Capsule {
            account: account.clone(),
            fs,
            files: files.clone(),
            cred: Credentials::root(Caps::all()),
        };
        let net: Arc<dyn Content> = Arc::new(|out: &mut Text| out.write_str("sockets\n"));
        let proc = tree(ProcConfig {
            processes: Arc::new(Source1 { files, places }),
            account: account.clone(),
            group: group.clone(),
            started: machine::time::Instant::now(),
            release: "6.1.0",
            version: "#1",
            files: vec![("net/tcp", net)],
        });
        let dev = devfs::tree(DevConfig {
            account: account.clone(),
            console: None,
            nodes: Vec::new(),
            terminals: None,
        });
        let cgroup = sysfs::cgroup_tree(&sysfs::CgroupConfig {
            account,
            group,
            threads: Arc::new(|| (100, 2)),
        });
        let mounts = [
            ("/proc", proc),
            ("/dev", dev.unwrap()),
            ("/sys", sysfs::tree(&[], Vec::new())),
            ("/sys/fs/cgroup", cgroup),
        ];
        for (path, tree) in mounts {
            // The last one's directory is there already.
            let _ = c
                .who()
                .make(At::Cwd, path.as_bytes(), Kind::Directory, 0o755, &[]);
            let at = c.who().lookup(At::Cwd, path.as_bytes(), LastLink::Follow);
            Mount::attach(&at.unwrap(), tree, MountFlags::empty(), "none").unwrap();
        }
        c
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
            ..How::default()
        };
        self.who().open(
            At::Cwd,
            path.as_bytes(),
            &how,
            machine::FileCharge::kernel(),
        )
    }

    fn read(&self, path: &str) -> Result<String> {
        let f = self.open(path, OpenFlags::empty())?;
        let mut buf = vec![0; 8192];
        let n = f.read(&mut Sink::kernel(&mut buf))?;
        Ok(String::from_utf8(buf[..n].to_vec()).unwrap())
    }

    fn names(&self, path: &str) -> Vec<String> {
        let dir = self.who().inode(At::Cwd, path.as_bytes(), LastLink::Follow);
        let mut out = Vec::new();
        let mut from = 2;
        loop {
            let before = out.len();
            dir.as_ref()
                .unwrap()
                .list(from, &mut |e| {
                    from = e.next;
                    out.push(String::from_utf8(e.name.to_vec()).unwrap());
                    // One at a time, to go through the positions.
                    false
                })
                .unwrap();
            if out.len() == before {
                return out;
            }
        }
    }
}

#[test]
fn system_files_tell_the_capsules_numbers() {
    let c = Capsule::new();
    let mem = c.read("/proc/meminfo").unwrap();
    assert!(mem.starts_with("MemTotal:           8192 kB\n"), "{mem}");
    assert_eq!(c.read("/proc/net/tcp").unwrap(), "sockets\n");
    assert_eq!(c.read("/proc/sys/kernel/hostname").unwrap(), "box\n");
    assert_eq!(c.read("/sys/fs/cgroup/memory.max").unwrap(), "8388608\n");
    assert_eq!(c.read("/sys/fs/cgroup/cpu.max").unwrap(), "150000 100000\n");
    let id = c.read("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(c.read("/proc/sys/kernel/random/boot_id").unwrap(), id);
    assert_eq!((id.len(), &id[14..15]), (37, "4"));
    assert!(
        c.read("/sys/devices/system/cpu/online")
            .unwrap()
            .starts_with('0')
    );
    assert_eq!(
        c.open("/proc/new", OpenFlags::CREATE).unwrap_err(),
        Error::NotFound
    );
}

#[test]
fn processes_are_directories() {
    let c = Capsule::new();
    assert_eq!(c.read("/proc/self/stat").unwrap(), "stat of None\n");
    assert_eq!(
        c.read("/proc/thread-self/comm").unwrap(),
        "comm of Some(9)\n"
    );
    assert_eq!(c.read("/proc/8/stat").unwrap_err(), Error::NotFound);
    assert_eq!(c.read("/proc/07/stat").unwrap_err(), Error::NotFound);
    assert_eq!(c.names("/proc/7/task"), ["7", "9"]);
    let root = c.names("/proc");
    assert_eq!(
        (&*root[0], &*root[1], &*root[root.len() - 1]),
        ("self", "thread-self", "7")
    );
    assert!(c.names("/proc/self").iter().any(|n| n == "fdinfo"));
    let comm = c.open("/proc/7/comm", OpenFlags::READ_WRITE).unwrap();
    assert_eq!(comm.write(&mut Source::kernel(b"new")), Ok(3));
    assert_eq!(comm.write(&mut Source::kernel(b"bad")), Err(Error::Invalid));
    let mounts = c.read("/proc/mounts").unwrap();
    assert!(
        mounts.contains("none /sys/fs/cgroup cgroup2 rw,relatime 0 0\n"),
        "{mounts}"
    );
    let info = c.read("/proc/self/mountinfo").unwrap();
    assert_eq!(info.lines().count(), 5);
    let up = c
        .who()
        .lookup(At::Cwd, b"/proc/self/task/9/../..", LastLink::Follow);
    assert_eq!(up.unwrap().display_from_top(), Ok(b"/proc/7".to_vec()));
}

#[test]
fn descriptors_are_links() {
    let c = Capsule::new();
    let (r, w) = pipe(c.account.clone(), OpenFlags::empty()).unwrap();
    let null = c.open("/dev/null", OpenFlags::READ_WRITE).unwrap();
    for f in [&r, &w, &null] {
        c.files.insert(f.clone(), false, 0, 100).unwrap();
    }
    assert_eq!(c.names("/proc/self/fd"), ["0", "1", "2"]);
    // A pipe is opened once more through its link, as the shell does.
    let again = c.open("/dev/fd/1", OpenFlags::WRITE_ONLY).unwrap();
    again.write(&mut Source::kernel(b"hi")).unwrap();
    assert_eq!(r.poll() & Events::IN, Events::IN);
    let read = c.open("/proc/self/fd/0", OpenFlags::empty()).unwrap();
    let mut b = [0; 4];
    assert_eq!(read.read(&mut Sink::kernel(&mut b)), Ok(2));
    let link = c
        .who()
        .inode(At::Cwd, b"/proc/self/fd/0", LastLink::Stay)
        .unwrap();
    assert!(link.link_text().unwrap().starts_with(b"pipe:["));
    let stat = c
        .who()
        .inode(At::Cwd, b"/proc/self/fd/0", LastLink::Follow)
        .unwrap()
        .stat();
    assert_eq!(stat.ino, r.stat().ino);
    let target = c
        .who()
        .lookup(At::Cwd, b"/proc/self/fd/2", LastLink::Follow)
        .unwrap();
    assert_eq!(target.display_from_top(), Ok(b"/dev/null".to_vec()));
    assert!(
        c.read("/proc/7/fdinfo/1")
            .unwrap()
            .starts_with("pos:\t0\nflags:\t01\n")
    );
    assert_eq!(c.read("/proc/7/fd/3").unwrap_err(), Error::NotFound);
}

#[test]
fn devices_do_what_they_are_known_for() {
    let c = Capsule::new();
    let zero = c.open("/dev/zero", OpenFlags::READ_WRITE).unwrap();
    let mut b = vec![1; 10_000];
    assert_eq!(zero.read(&mut Sink::kernel(&mut b)), Ok(10_000));
    assert!(b.iter().all(|b| *b == 0));
    let random = c.open("/dev/urandom", OpenFlags::empty()).unwrap();
    random.read(&mut Sink::kernel(&mut b)).unwrap();
    assert!(b.iter().any(|b| *b != 0));
    let full = c.open("/dev/full", OpenFlags::WRITE_ONLY).unwrap();
    assert_eq!(full.write(&mut Source::kernel(b"x")), Err(Error::NoSpace));
    assert_eq!(
        c.open("/dev/tty", OpenFlags::empty()).unwrap_err(),
        Error::NoDevice
    );
    assert_eq!(zero.stat().rdev, 0x105);
    assert_eq!(zero.stat().nlink, 1);
    assert!(zero.ops().hub().is_none());
    let sem = OpenFlags::CREATE | OpenFlags::READ_WRITE;
    c.open("/dev/shm/sem.x", sem).unwrap();
    let null: &Arc<dyn FileOps> = zero.ops();
    assert!(null.clone().mapping(&zero, false).is_ok());
}

#[test]
fn a_memfd_is_emptied_through_its_link() {
    let c = Capsule::new();
    let attr = NewAttr {
        kind: Kind::File,
        mode: 0o777,
        uid: 0,
        gid: 0,
    };
    let memfd = TmpFs::memfd(c.account.clone(), &attr, "m", false).unwrap();
    let charge = machine::FileCharge::kernel();
    let file = OpenFile::new(memfd, OpenFlags::READ_WRITE, None, charge);
    file.write(&mut Source::kernel(b"text")).unwrap();
    c.files.insert(file.clone(), false, 0, 100).unwrap();
    let how = OpenFlags::READ_WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let again = c.open("/proc/self/fd/0", how).unwrap();
    assert_eq!(file.stat().size, 0);
    again.write(&mut Source::kernel(b"new")).unwrap();
    assert_eq!(file.stat().size, 3);
}
