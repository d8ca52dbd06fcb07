//! `/dev`: a tmpfs with the devices every program expects.
//!
//! There are no others: what a manifest grants beyond these is a device of its
//! own ([`DevConfig::nodes`]).

use crate::error::{Error, Result};
use crate::file::{FileOps, Mappable, OpenFile, Opening, Seek};
use crate::inode::{Attr, Inode, Kind, NewAttr, NewNode, Stat};
use crate::mount::{Tree, next_device};
use crate::tmpfs::{Config, TmpFs};
use crate::tty::Terminals;
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use machine::io::{Sink, Source};
use machine::{Account, thread};

/// Random bytes made in one step.
const STEP: usize = 256;

/// Opens a device.
pub type Opener = Arc<dyn Fn(&Opening<'_>) -> Result<Arc<dyn FileOps>> + Send + Sync>;

/// A device node to be shown in `/dev`.
pub struct DevNode {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Whether it is a character or a block device.
    pub kind: Kind,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// User and group that it belongs to.
    pub owner: (u32, u32),
    /// What opening it gives.
    pub opener: Opener,
}

/// What a `/dev` is made of.
pub struct DevConfig {
    /// Who pays for files that programs make in it.
    pub account: Arc<Account>,
    /// What writing to `/dev/console` goes to, if there is one.
    pub console: Option<Arc<dyn FileOps>>,
    /// Devices that the manifest grants.
    pub nodes: Vec<DevNode>,
    /// The terminals of which one may control the process that opens `/dev/tty`.
    pub terminals: Option<Arc<Terminals>>,
}

/// The file system of `/dev`, with the directories `shm`, `pts` and `mqueue` to mount on.
///
/// # Errors
/// [`Error::NoMemory`].
pub fn tree(config: DevConfig) -> Result<Arc<Tree>> {
    let limits = Config {
        mode: 0o755,
        ..Config::default()
    };
    let tree = TmpFs::tree(config.account, limits)?;
    let root = tree.root().inode().ok_or(Error::NoMemory)?.clone();
    let dev = next_device();
    let fixed = |ops: Arc<dyn FileOps>| -> Opener { Arc::new(move |_| Ok(ops.clone())) };
    let node = |name: &'static str, number, opener| DevNode {
        name: name.into(),
        kind: Kind::CharDevice,
        number,
        mode: 0o666,
        owner: (0, 0),
        opener,
    };
    let mut nodes = alloc::vec![
        node("null", (1, 3), fixed(Arc::new(Memory::Null))),
        node("zero", (1, 5), fixed(Arc::new(Memory::Zero))),
        node("full", (1, 7), fixed(Arc::new(Memory::Full))),
        node("random", (1, 8), fixed(Arc::new(Memory::Random))),
        node("urandom", (1, 9), fixed(Arc::new(Memory::Random))),
        node("tty", (5, 0), controlling(config.terminals)),
    ];
    if let Some(console) = config.console {
        nodes.push(DevNode {
            mode: 0o620,
            ..node("console", (5, 1), fixed(console))
        });
    }
    nodes.extend(config.nodes);
    for (i, n) in nodes.into_iter().enumerate() {
        let name = n.name.clone();
        let node = DeviceInode::node(dev, i as u64 + 1, n);
        root.link(name.as_bytes(), &node)?;
    }
    let make = |name: &str, kind, mode, target: &str| {
        let attr = NewAttr {
            kind,
            mode,
            uid: 0,
            gid: 0,
        };
        let new = NewNode {
            attr,
            target: target.as_bytes(),
            rdev: 0,
        };
        root.create(name.as_bytes(), &new)
    };
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        make(name, Kind::Symlink, 0o777, target)?;
    }
    make("shm", Kind::Directory, 0o1777, "")?;
    make("pts", Kind::Directory, 0o755, "")?;
    make("mqueue", Kind::Directory, 0o1777, "")?;
    Ok(tree)
}

/// What opening `/dev/tty` gives.
fn controlling(terminals: Option<Arc<Terminals>>) -> Opener {
    Arc::new(move |how| match &terminals {
        Some(t) => t.open_controlling(how),
        None => Err(Error::NoDevice),
    })
}

/// A device's name in the tree.
struct DeviceInode {
    attr: Attr,
    rdev: u64,
    opener: Opener,
}

impl DeviceInode {
    fn node(dev: u64, ino: u64, n: DevNode) -> Arc<dyn Inode> {
        let new = NewAttr {
            kind: n.kind,
            mode: n.mode,
            uid: n.owner.0,
            gid: n.owner.1,
        };
        let attr = Attr::new(dev, ino, new);
        // The name that is about to be linked is the first.
        attr.drop_links(1);
        let (major, minor) = (u64::from(n.number.0), u64::from(n.number.1));
        Arc::new(DeviceInode {
            attr,
            rdev: major << 8 | minor & 0xff | (minor & !0xff) << 12,
            opener: n.opener,
        })
    }
}

impl Inode for DeviceInode {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Stat {
        let mut s = self.attr.stat(0);
        s.rdev = self.rdev;
        s
    }

    fn open(self: Arc<Self>, how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        (self.opener)(how)
    }
}

/// How much entropy there is (random(4)): once it has been seeded, the generator always
/// has all that `/proc/sys/kernel/random/poolsize` says.
const RNDGETENTCNT: u32 = 0x8004_5200;
const ENTROPY_BITS: i32 = 256;

/// The memory devices (null(4), full(4), random(4)).
enum Memory {
    Null,
    Zero,
    Full,
    Random,
}

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        match self {
            Memory::Null => Ok(0),
            Memory::Zero | Memory::Full => put(sink, |sink, n| sink.put_zeros(n)),
            Memory::Random => put(sink, |sink, n| {
                let mut bytes = [0; STEP];
                let (part, _) = bytes.split_at_mut(n.min(STEP));
                machine::random::fill(part);
                sink.put(part)
            }),
        }
    }

    fn write(&self, _: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        match self {
            Memory::Null | Memory::Zero => Ok(source.left()),
            Memory::Full => Err(Error::NoSpace),
            Memory::Random => {
                let mut bytes = [0; 32];
                let n = source.left();
                source.take(&mut bytes)?;
                machine::random::stir(&bytes);
                Ok(n)
            }
        }
    }

    fn pread(&self, file: &OpenFile, sink: &mut Sink<'_>, _: u64) -> Result<usize> {
        self.read(file, sink)
    }

    fn pwrite(&self, file: &OpenFile, source: &mut Source<'_>, _: u64) -> Result<usize> {
        self.write(file, source)
    }

    fn seek(&self, _: &OpenFile, _: u64, _: Seek) -> Result<u64> {
        Ok(0)
    }

    fn ioctl(&self, _: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        match self {
            Memory::Random if command == RNDGETENTCNT => {
                machine::user::write_value(arg, &ENTROPY_BITS)?;
                Ok(0)
            }
            _ => Err(Error::NotTerminal),
        }
    }

    fn mapping(self: Arc<Self>, _: &OpenFile, _: bool) -> Result<Mappable> {
        match *self {
            Memory::Zero => Ok(Mappable::Anonymous),
            _ => Err(Error::NotSuchDevice),
        }
    }
}

/// Fills the sink in steps of a page, so that a large read lets others run; ends
/// early for a signal.
fn put(
    sink: &mut Sink<'_>,
    step: impl Fn(&mut Sink<'_>, usize) -> core::result::Result<usize, machine::Fault>,
) -> Result<usize> {
    let start = sink.moved();
    while sink.left() > 0 {
        let n = sink.left().min(machine::addr::PAGE_SIZE);
        if step(sink, n).is_err() {
            return match sink.moved() - start {
                0 => Err(Error::BadAddress),
                n => Ok(n),
            };
        }
        if thread::pause() {
            break;
        }
    }
    Ok(sink.moved() - start)
}
