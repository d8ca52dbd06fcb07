//! What calls can name: descriptors, mappings, processes and numbers of objects. Real
//! ones are made first; what calls make later takes their places.
//!
//! All of it is atomics in static memory: threads share it, a fork copies it, and
//! nothing ever waits for a lock that a dead thread held.

use crate::{random::Random, raw::sys};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A page of memory.
pub(crate) const PAGE: usize = 4096;

/// Kinds of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    File,
    Folder,
    Proc,
    Device,
    PipeIn,
    PipeOut,
    Unix,
    UnixDgram,
    Tcp,
    Udp,
    Netlink,
    Terminal,
    Event,
    Timer,
    Epoll,
    Signal,
    Inotify,
    Memfd,
    Pidfd,
    Queue,
    Path,
}

const CLASSES: usize = 21;
const ALL: [Class; CLASSES] = {
    use Class::*;
    [
        File, Folder, Proc, Device, PipeIn, PipeOut, Unix, UnixDgram, Tcp, Udp, Netlink, Terminal,
        Event, Timer, Epoll, Signal, Inotify, Memfd, Pidfd, Queue, Path,
    ]
};
/// Descriptors of each kind that are known at a time.
const KEPT: usize = 6;

/// Numbers of the same kind, of which the last few are remembered. 0 is none.
pub(crate) struct Recent<const N: usize> {
    numbers: [AtomicI32; N],
    next: AtomicU32,
}

impl<const N: usize> Recent<N> {
    const fn new() -> Self {
        Self {
            numbers: [const { AtomicI32::new(0) }; N],
            next: AtomicU32::new(0),
        }
    }

    /// Remembers a number and forgets the oldest, which is returned.
    pub(crate) fn add(&self, number: i64) -> i32 {
        let at = self.next.fetch_add(1, Relaxed) as usize % N;
        self.numbers[at].swap(number as i32, Relaxed)
    }

    /// One of them, or 0.
    pub(crate) fn pick(&self, random: &mut Random) -> i32 {
        self.numbers[random.below(N)].load(Relaxed)
    }
}

static DESCRIPTORS: [Recent<KEPT>; CLASSES] = [const { Recent::new() }; CLASSES];
/// Addresses and sizes of mappings.
static MAPPINGS: [(AtomicU64, AtomicU64); 12] =
    [const { (AtomicU64::new(0), AtomicU64::new(0)) }; 12];
static NEXT_MAPPING: AtomicU32 = AtomicU32::new(0);
/// Processes and threads.
pub(crate) static PIDS: Recent<8> = Recent::new();
/// System V objects.
pub(crate) static SHM: Recent<4> = Recent::new();
pub(crate) static SEM: Recent<4> = Recent::new();
pub(crate) static MSG: Recent<4> = Recent::new();
/// Timers of this process; their number plus one.
pub(crate) static TIMERS: Recent<4> = Recent::new();

/// Remembers a descriptor. The one it takes the place of is closed.
pub(crate) fn add_descriptor(class: Class, descriptor: i64) {
    // The first three stay what they are.
    if descriptor > 2 {
        let old = DESCRIPTORS[class as usize].add(descriptor);
        if old > 2 {
            sys!(libc::SYS_close, old);
        }
    }
}

/// A descriptor of this kind, if there is one.
pub(crate) fn descriptor(class: Class, random: &mut Random) -> i32 {
    DESCRIPTORS[class as usize].pick(random)
}

/// A descriptor of any kind.
pub(crate) fn any_descriptor(random: &mut Random) -> i32 {
    let class = random.of(&ALL);
    descriptor(class, random)
}

/// Remembers a mapping. The one it takes the place of stays mapped or is given back.
pub(crate) fn add_mapping(address: u64, bytes: u64) {
    let at = NEXT_MAPPING.fetch_add(1, Relaxed) as usize % MAPPINGS.len();
    let old = MAPPINGS[at].0.swap(address, Relaxed);
    let old_bytes = MAPPINGS[at].1.swap(bytes, Relaxed);
    if old != 0 {
        sys!(libc::SYS_munmap, old, old_bytes);
    }
}

/// Address and size of a mapping; zeros if there is none.
pub(crate) fn mapping(random: &mut Random) -> (u64, u64) {
    let (address, bytes) = &MAPPINGS[random.below(MAPPINGS.len())];
    (address.load(Relaxed), bytes.load(Relaxed))
}

/// Makes one of each kind; a kernel may lack some.
pub(crate) fn make(random: &mut Random) {
    make_files(random);
    make_sockets();
    make_events();
    make_mappings(random);
    make_ipc(random);
}

/// Makes some of them anew, in case they are gone.
pub(crate) fn renew(random: &mut Random) {
    match random.below(5) {
        0 => make_files(random),
        1 => make_sockets(),
        2 => make_events(),
        3 => make_mappings(random),
        _ => make_ipc(random),
    }
}

/// Files that calls name by their paths.
fn make_files(random: &mut Random) {
    let flags = libc::O_RDWR | libc::O_CREAT;
    for folder in [c"/tmp/d", c"/tmp/d/d", c"/tmp/e"] {
        sys!(libc::SYS_mkdir, folder.as_ptr(), 0o777);
    }
    for path in [c"/tmp/a", c"/tmp/b", c"/tmp/d/c"] {
        let file = sys!(libc::SYS_open, path.as_ptr(), flags, 0o666);
        sys!(libc::SYS_ftruncate, file, random.below(100_000));
        add_descriptor(Class::File, file);
    }
    let link = c"/tmp/link";
    sys!(libc::SYS_symlink, c"d/../link2".as_ptr(), link.as_ptr());
    sys!(
        libc::SYS_symlink,
        c"/tmp/a".as_ptr(),
        c"/tmp/link2".as_ptr()
    );
    sys!(libc::SYS_symlink, c"loop".as_ptr(), c"/tmp/loop".as_ptr());
    sys!(
        libc::SYS_mknod,
        c"/tmp/fifo".as_ptr(),
        libc::S_IFIFO | 0o666,
        0
    );
    let opened = [
        (Class::Folder, c"/tmp", libc::O_RDONLY),
        (Class::Folder, c"/proc", libc::O_RDONLY),
        (Class::Folder, c"/tmp/d", libc::O_RDONLY),
        (Class::Proc, c"/proc/self/status", libc::O_RDONLY),
        (Class::Proc, c"/proc/self/maps", libc::O_RDONLY),
        (Class::Proc, c"/proc/self/mem", libc::O_RDWR),
        (Class::Proc, c"/proc/self/comm", libc::O_RDWR),
        (Class::Device, c"/dev/null", libc::O_RDWR),
        (Class::Device, c"/dev/zero", libc::O_RDWR),
        (Class::Device, c"/dev/urandom", libc::O_RDWR),
        (Class::Path, c"/tmp/a", libc::O_PATH),
        (Class::Path, c"/tmp/link", libc::O_PATH | libc::O_NOFOLLOW),
        (Class::Path, c"/tmp/d", libc::O_PATH),
        (Class::PipeIn, c"/tmp/fifo", libc::O_RDWR | libc::O_NONBLOCK),
        (Class::File, c"/bin/hostile", libc::O_RDONLY),
    ];
    for (class, path, flags) in opened {
        add_descriptor(class, sys!(libc::SYS_open, path.as_ptr(), flags, 0));
    }
    make_terminal();
}

/// Both ends of a terminal.
fn make_terminal() {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let master = sys!(libc::SYS_open, c"/dev/ptmx".as_ptr(), flags, 0);
    let unlocked = 0i32;
    sys!(
        libc::SYS_ioctl,
        master,
        libc::TIOCSPTLCK,
        &raw const unlocked
    );
    let slave = sys!(libc::SYS_ioctl, master, libc::TIOCGPTPEER, flags);
    add_descriptor(Class::Terminal, master);
    add_descriptor(Class::Terminal, slave);
}

/// Remembers both descriptors that a call wrote to `pair`.
pub(crate) fn add_pair(classes: [Class; 2], pair: [i32; 2]) {
    for (class, descriptor) in classes.into_iter().zip(pair) {
        add_descriptor(class, i64::from(descriptor));
    }
}

fn make_sockets() {
    use Class::*;
    let nonblocking = libc::SOCK_NONBLOCK;
    let mut pair = [0i32; 2];
    for (class, kind) in [
        (Unix, libc::SOCK_STREAM),
        (UnixDgram, libc::SOCK_DGRAM),
        (Unix, libc::SOCK_SEQPACKET),
    ] {
        sys!(
            libc::SYS_socketpair,
            libc::AF_UNIX,
            kind,
            0,
            pair.as_mut_ptr()
        );
        add_pair([class, class], pair);
    }
    for (class, family, kind) in [
        (Unix, libc::AF_UNIX, libc::SOCK_STREAM),
        (UnixDgram, libc::AF_UNIX, libc::SOCK_DGRAM),
        (Tcp, libc::AF_INET, libc::SOCK_STREAM),
        (Tcp, libc::AF_INET6, libc::SOCK_STREAM),
        (Tcp, libc::AF_INET, libc::SOCK_STREAM),
        (Udp, libc::AF_INET, libc::SOCK_DGRAM),
        (Udp, libc::AF_INET6, libc::SOCK_DGRAM),
        (Netlink, libc::AF_NETLINK, libc::SOCK_RAW),
    ] {
        let made = sys!(libc::SYS_socket, family, kind | nonblocking, 0);
        add_descriptor(class, made);
    }
}

fn make_events() {
    use Class::*;
    let mut pair = [0i32; 2];
    for flags in [0, libc::O_NONBLOCK] {
        sys!(libc::SYS_pipe2, pair.as_mut_ptr(), flags);
        add_pair([PipeIn, PipeOut], pair);
    }
    let mask = u64::MAX;
    for (class, made) in [
        (Event, sys!(libc::SYS_eventfd2, 1, libc::EFD_NONBLOCK)),
        (Event, sys!(libc::SYS_eventfd2, 0, libc::EFD_SEMAPHORE)),
        (
            Timer,
            sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0),
        ),
        (
            Timer,
            sys!(
                libc::SYS_timerfd_create,
                libc::CLOCK_REALTIME,
                libc::TFD_NONBLOCK
            ),
        ),
        (Epoll, sys!(libc::SYS_epoll_create1, 0)),
        (Epoll, sys!(libc::SYS_epoll_create1, 0)),
        (
            Signal,
            sys!(
                libc::SYS_signalfd4,
                -1,
                &raw const mask,
                8,
                libc::SFD_NONBLOCK
            ),
        ),
        (Inotify, sys!(libc::SYS_inotify_init1, libc::IN_NONBLOCK)),
        (
            Memfd,
            sys!(
                libc::SYS_memfd_create,
                c"m".as_ptr(),
                libc::MFD_ALLOW_SEALING
            ),
        ),
        (Pidfd, sys!(libc::SYS_pidfd_open, sys!(libc::SYS_getpid), 0)),
        (
            Queue,
            sys!(
                libc::SYS_mq_open,
                c"q".as_ptr(),
                libc::O_RDWR | libc::O_CREAT | libc::O_NONBLOCK,
                0o666,
                0
            ),
        ),
    ] {
        add_descriptor(class, made);
    }
}

fn make_mappings(random: &mut Random) {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let memfd = descriptor_first(Class::Memfd);
    sys!(libc::SYS_ftruncate, memfd, 16 * PAGE);
    let file = descriptor_first(Class::File);
    let anonymous = libc::MAP_ANONYMOUS;
    for (protection, flags, from) in [
        (both, libc::MAP_PRIVATE | anonymous, -1),
        (both, libc::MAP_PRIVATE | anonymous, -1),
        (both, libc::MAP_SHARED | anonymous, -1),
        (libc::PROT_READ, libc::MAP_PRIVATE | anonymous, -1),
        (libc::PROT_NONE, libc::MAP_PRIVATE | anonymous, -1),
        (both, libc::MAP_SHARED, memfd),
        (both, libc::MAP_SHARED, file),
        (both, libc::MAP_PRIVATE, file),
    ] {
        let bytes = (1 + random.below(32)) * PAGE;
        let made = sys!(libc::SYS_mmap, 0, bytes, protection, flags, from, 0);
        if made > 0 {
            add_mapping(made as u64, bytes as u64);
        }
    }
}

/// The descriptor of this kind that was made first.
fn descriptor_first(class: Class) -> i32 {
    DESCRIPTORS[class as usize].numbers[0].load(Relaxed)
}

fn make_ipc(random: &mut Random) {
    let create = libc::IPC_CREAT | 0o666;
    // All processes of a run use the same few.
    let key = 1 + random.below(2);
    SHM.add(sys!(libc::SYS_shmget, key, 4 * PAGE, create));
    SHM.add(sys!(libc::SYS_shmget, libc::IPC_PRIVATE, PAGE, create));
    SEM.add(sys!(libc::SYS_semget, key, 3, create));
    MSG.add(sys!(libc::SYS_msgget, key, create));
}

#[cfg(test)]
mod tests {
    use super::{Class, add_descriptor, add_mapping, any_descriptor, mapping};
    use crate::{process, random::Random};

    #[test]
    fn what_was_made_is_found_again() {
        // In a child: what is made is the whole process's.
        let found = process::in_child(std::time::Duration::from_secs(20), || {
            let mut random = Random::new(1);
            super::make_sockets();
            super::make_events();
            add_mapping(0x5000, 0x1000);
            add_descriptor(Class::File, 1);
            let descriptors = (0..1000)
                .filter(|_| any_descriptor(&mut random) > 2)
                .count();
            let known = |_: &i32| mapping(&mut random) == (0x5000, 0x1000);
            let mappings = (0..1000).filter(known).count();
            let one = (0..100).all(|_| super::descriptor(Class::File, &mut random) == 0);
            i32::from(descriptors > 100 && mappings > 20 && one)
        });
        assert_eq!(found, Ok(process::End::Status(1)));
    }
}
