//! The file tree of a capsule: its image, and what every program takes for granted.

use crate::device::Device;
use crate::image::Lower;
use crate::log_ring::Output;
use crate::room::Capsules;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use machine::io::Source;
use machine::time::Instant;
use machine::{Account, FileCharge};
use process::World;
use vfs::block::{self, Disk};
use vfs::devfs::{self, DevConfig, DevNode};
use vfs::mount::MountFlags;
use vfs::open::How;
use vfs::procfs::{self, ProcConfig};
use vfs::pseudo::{Content, Text};
use vfs::sysfs::{self, CgroupConfig};
use vfs::tmpfs::{Config, TmpFs};
use vfs::tty::Terminals;
use vfs::{At, Caller, Caps, Credentials, Error, FsContext, Kind, LastLink, Mount, OpenFlags};
use vfs::{Result, Tree};

const RESOLVERS: &[u8] = b"/etc/resolv.conf";
/// Restrictions of everything that is mounted beside the image.
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const DEVICES: MountFlags = MountFlags::NOSUID;
const QUEUES: MountFlags = PLAIN.union(MountFlags::NOEXEC);
const NOEXEC_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
/// Major number of "misc" devices, and a minor that Linux gives nobody.
const CONTROL_NUMBER: (u32, u32) = (10, 250);

/// The files of `/proc/net`: where, and as what the network knows them.
const NET_FILES: [(&str, &str); 12] = [
    ("net/dev", "dev"),
    ("net/route", "route"),
    ("net/arp", "arp"),
    ("net/tcp", "tcp"),
    ("net/tcp6", "tcp6"),
    ("net/udp", "udp"),
    ("net/udp6", "udp6"),
    ("net/unix", "unix"),
    ("net/raw", "raw"),
    ("net/if_inet6", "if_inet6"),
    ("net/igmp", "igmp"),
    ("net/igmp6", "igmp6"),
];

/// What a capsule's file tree is told about the capsule.
pub(crate) struct Supplies<'a> {
    /// Its host name.
    pub(crate) host_name: &'a str,
    /// The node's name servers, as `resolv.conf` has them.
    pub(crate) resolvers: String,
    /// Whose control device it gets, if it gets one.
    pub(crate) control: Option<&'a Arc<Capsules>>,
    /// Its processes, for `/proc`.
    pub(crate) world: &'a Arc<World>,
    /// Where what it prints goes, for `/dev/console`.
    pub(crate) output: Arc<Output>,
    /// The disks that it holds.
    pub(crate) disks: Vec<Arc<Disk>>,
    /// User and group that their nodes belong to.
    pub(crate) owner: (u32, u32),
}

/// Acts on a capsule's files as the kernel, past all permissions.
struct Hand {
    fs: FsContext,
    cred: Credentials,
}

impl Hand {
    fn new(root: &Arc<Mount>) -> Hand {
        let fs = FsContext::new(root.path());
        fs.set_umask(0);
        Hand {
            fs,
            cred: Credentials::root(Caps::all()),
        }
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            fs: &self.fs,
            cred: &self.cred,
        }
    }

    /// Makes the directory `path` unless something of that name is there.
    fn directory(&self, path: &[u8], mode: u32) -> Result<()> {
        match self
            .caller()
            .make(At::Cwd, path, Kind::Directory, mode, &[])
        {
            Ok(_) | Err(Error::Exists) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Mounts `tree` on the directory `path`.
    fn mount(
        &self,
        path: &[u8],
        tree: Arc<Tree>,
        flags: MountFlags,
        source: &'static str,
    ) -> Result<()> {
        let at = self.caller().lookup(At::Cwd, path, LastLink::Follow)?;
        Mount::attach(&at, tree, flags, source).map(drop)
    }

    /// Writes the file `path`; with `only_new` one that is there already stays.
    /// Whether it was written.
    fn write(&self, path: &[u8], text: &str, only_new: bool) -> Result<bool> {
        let mut flags = OpenFlags::WRITE_ONLY | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        flags.set(OpenFlags::EXCLUSIVE, only_new);
        let how = How {
            flags,
            mode: 0o644,
            ..How::default()
        };
        match self
            .caller()
            .open(At::Cwd, path, &how, FileCharge::kernel())
        {
            Ok(file) => {
                file.write(&mut Source::kernel(text.as_bytes()))?;
                Ok(true)
            }
            Err(Error::Exists) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Builds the file tree of a capsule over `lower`: the mount at its top, and
/// whether its list of name servers is the kernel's.
pub(crate) fn build(
    account: &Arc<Account>,
    lower: Arc<Lower>,
    supplies: &Supplies<'_>,
) -> Result<(Arc<Mount>, bool)> {
    let tree = TmpFs::tree_over(account.clone(), Config::default(), lower)?;
    let root = Mount::root(tree, MountFlags::empty(), "image");
    let hand = Hand::new(&root);
    for (path, mode) in [
        (&b"/dev"[..], 0o755),
        (b"/etc", 0o755),
        (b"/proc", 0o555),
        (b"/sys", 0o555),
        (b"/tmp", 0o1777),
        (b"/run", 0o755),
    ] {
        hand.directory(path, mode)?;
    }
    mount_all(&hand, account, supplies)?;
    let name = supplies.host_name;
    hand.write(b"/etc/hostname", &format!("{name}\n"), true)?;
    let hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost {name}\n");
    hand.write(b"/etc/hosts", &hosts, true)?;
    let owns_resolvers = hand.write(RESOLVERS, &supplies.resolvers, true)?;
    Ok((root, owns_resolvers))
}

fn mount_all(hand: &Hand, account: &Arc<Account>, supplies: &Supplies<'_>) -> Result<()> {
    let tmpfs = || TmpFs::tree(account.clone(), Config::default());
    let terminals = Terminals::new(process::terminal::jobs(supplies.world), account.clone());
    let dev = devices(account, supplies, &terminals)?;
    hand.mount(b"/dev", dev, DEVICES, "devtmpfs")?;
    hand.mount(b"/dev/pts", terminals.tree(), NOEXEC_DEVICES, "devpts")?;
    let queues = process::ipc::mqueue::tree(supplies.world.clone());
    hand.mount(b"/dev/mqueue", queues, QUEUES, "mqueue")?;
    hand.mount(b"/dev/shm", tmpfs()?, PLAIN, "tmpfs")?;
    hand.mount(b"/tmp", tmpfs()?, PLAIN, "tmpfs")?;
    hand.mount(b"/proc", processes(supplies), PLAIN, "proc")?;
    hand.mount(
        b"/sys",
        sysfs::tree(&supplies.disks, interfaces(supplies.world)),
        PLAIN,
        "sysfs",
    )?;
    let world = supplies.world.clone();
    let threads = move || {
        (
            u64::from(world.threads_max()),
            world.thread_count().0 as u64,
        )
    };
    let cgroup = sysfs::cgroup_tree(&CgroupConfig {
        account: account.clone(),
        group: supplies.world.group().clone(),
        threads: Arc::new(threads),
    });
    hand.mount(b"/sys/fs/cgroup", cgroup, PLAIN, "cgroup2")
}

fn devices(
    account: &Arc<Account>,
    supplies: &Supplies<'_>,
    terminals: &Arc<Terminals>,
) -> Result<Arc<Tree>> {
    let control = supplies.control.map(|room| {
        let room = room.clone();
        DevNode {
            name: "skep".into(),
            kind: Kind::CharDevice,
            number: CONTROL_NUMBER,
            mode: 0o600,
            owner: (0, 0),
            opener: Arc::new(move |_| Ok(Device::open(&room)?)),
        }
    });
    let disks = supplies.disks.iter().map(|d| d.node(supplies.owner));
    devfs::tree(DevConfig {
        account: account.clone(),
        console: Some(supplies.output.clone()),
        nodes: control.into_iter().chain(disks).collect(),
        terminals: Some(terminals.clone()),
    })
}

fn processes(supplies: &Supplies<'_>) -> Arc<Tree> {
    let mut files = further(supplies.world);
    let disks = supplies.disks.clone();
    let partitions = move |out: &mut Text| block::partitions(&disks, out);
    files.push(("partitions", Arc::new(partitions)));
    procfs::tree(ProcConfig {
        processes: process::procfs::source(supplies.world.clone()),
        account: supplies.world.account().clone(),
        group: supplies.world.group().clone(),
        started: Instant::now(),
        release: process::RELEASE,
        version: process::VERSION,
        files,
    })
}

/// What other rooms show in `/proc`.
fn further(world: &Arc<World>) -> Vec<(&'static str, Arc<dyn Content>)> {
    let mut files = network(world);
    files.extend(process::ipc::files(world));
    files
}

/// The files of `/proc/net`.
fn network(world: &World) -> Vec<(&'static str, Arc<dyn Content>)> {
    let file = |(path, name)| {
        let stack = world.network().clone();
        let content = move |out: &mut Text| net::tables::write(&stack, name, out);
        (path, Arc::new(content) as Arc<dyn Content>)
    };
    NET_FILES.map(file).into()
}

/// The interfaces of `/sys/class/net`.
fn interfaces(world: &World) -> Vec<sysfs::Interface> {
    let stack = world.network();
    let file = |name: &'static str, file: &'static str| {
        let content = net::class::InterfaceFile {
            stack: stack.clone(),
            name,
            file,
        };
        (file, Arc::new(content) as Arc<dyn Content>)
    };
    let one = |name| sysfs::Interface {
        name: String::from(name),
        files: net::class::FILES.map(|f| file(name, f)).into(),
    };
    net::class::names(stack).into_iter().map(one).collect()
}

impl Capsules {
    /// The node's name servers, as `resolv.conf` has them.
    pub(crate) fn resolvers(&self) -> String {
        let mut text = String::new();
        for server in &self.net.config().dns {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }

    /// Tells running capsules of the name servers that the node has now.
    pub(crate) fn refresh_resolvers(&self) {
        let text = self.resolvers();
        for capsule in self.all() {
            let Some(parts) = capsule.parts().filter(|p| p.owns_resolvers) else {
                continue;
            };
            if let Err(e) = Hand::new(&parts.root).write(RESOLVERS, &text, false) {
                let name = capsule.name();
                log::warn!("capsule {name}: its list of name servers stays as it is: {e:?}");
            }
        }
    }
}
