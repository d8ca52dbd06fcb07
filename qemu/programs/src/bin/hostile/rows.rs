//! The kinds of arguments of every system call, and what it makes.
//!
//! A test holds it against the kernel's own table: no call may be left out.

use crate::{
    kinds::Kind::{self, *},
    objects::Class,
    structs::Shape::*,
};

/// What a call makes when it succeeds, for later ones to use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Makes {
    Nothing,
    Descriptor(Class),
    /// Two descriptors, behind the argument of this number.
    Pair(Class, Class, usize),
    /// A mapping as long as the argument of this number says.
    Mapping(usize),
    /// A process or thread.
    Process,
    Shm,
    Sem,
    Msg,
    /// A timer, whose number is behind the third argument.
    Timer,
}

/// A call that the program knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) number: i64,
    pub(crate) arguments: &'static [Kind],
    pub(crate) makes: Makes,
}

const fn row(number: i64, arguments: &'static [Kind]) -> Row {
    Row {
        number,
        arguments,
        makes: Makes::Nothing,
    }
}

const fn makes(number: i64, makes: Makes, arguments: &'static [Kind]) -> Row {
    Row {
        number,
        arguments,
        makes,
    }
}

const FILE: Makes = Makes::Descriptor(Class::File);
const TCP: Makes = Makes::Descriptor(Class::Tcp);
/// Flags of `open`.
pub(crate) const OPEN: &[i64] = &[
    1,
    2,
    2,
    0o100,
    0o100,
    0o200,
    0o400,
    0o1000,
    0o2000,
    0o4000,
    0o4000,
    0o200_000,
    0o400_000,
    0o2_000_000,
    0o10_000_000,
    0o20_200_000,
    0o10_000,
    0o4_010_000,
    0o1_000_000,
    0o40_000,
];
const AT: &[i64] = &[0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x8000];
const CLOEXEC: &[i64] = &[0o2_000_000, 0o4000];
const MSG: &[i64] = &[
    0x40,
    0x40,
    0x40,
    0x2,
    0x1,
    0x4,
    0x8,
    0x20,
    0x80,
    0x100,
    0x4000,
    0x8000,
    0x10000,
    0x2000,
    0x4000_0000,
    0x2000_0000,
];
const PROT: &[i64] = &[1, 1, 2, 2, 4, 8, 0x0100_0000, 0x0200_0000];
const MAP: &[i64] = &[
    0x1, 0x2, 0x2, 0x3, 0x10, 0x20, 0x20, 0x20, 0x100, 0x1000, 0x2000, 0x4000, 0x8000, 0x20000,
    0x40000, 0x10_0000, 0x40,
];
const RW: &[i64] = &[1, 2, 4, 8, 16, 32];
const SPLICE: &[i64] = &[1, 2, 2, 4, 8];
const IPC: &[i64] = &[0o1000, 0o1000, 0o2000, 0o666, 0o600, 0o4000];
const COMMANDS: &[i64] = &[0, 1, 2, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19];
const FAMILIES: &[i64] = &[1, 1, 2, 2, 2, 10, 10, 16, 16, 17, 0, 40];
const TYPES: &[i64] = &[1, 1, 2, 2, 3, 5, 0x801, 0x802, 0x805, 0x80801];
const PROTOCOLS: &[i64] = &[0, 0, 0, 0, 6, 17, 1, 58, 255];
const LEVELS: &[i64] = &[1, 1, 1, 6, 6, 0, 41, 17, 270, 263];
const FCNTL: &[i64] = &[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 36, 37, 38, 1024, 1025, 1026, 1030, 1031, 1032,
    1033, 1034, 1035, 1036, 1037, 1038,
];
const FUTEX: &[i64] = &[
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    128,
    129,
    131,
    132,
    133,
    134,
    135,
    136,
    137,
    138,
    139,
    140,
    141,
    256 | 128 | 9,
];
/// Requests of `ptrace`, but for those that only x86's kernel debuggers know.
const PTRACE: &[i64] = &[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 24, 31, 0x4200, 0x4201, 0x4202, 0x4203,
    0x4204, 0x4205, 0x4206, 0x4207, 0x4208, 0x4209, 0x420a, 0x420b, 0x420c, 0x420d, 0x420e, 0x420f,
];
const PRCTL: &[i64] = &[
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    13,
    14,
    15,
    16,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    35,
    36,
    37,
    38,
    39,
    40,
    41,
    42,
    43,
    47,
    53,
    56,
    59,
    0x5961_6d61,
    0x5356_4d41,
];
const IOCTL: &[i64] = &[
    0x5401,
    0x5402,
    0x5403,
    0x5404,
    0x5405,
    0x5409,
    0x540a,
    0x540b,
    0x540c,
    0x540d,
    0x540e,
    0x540f,
    0x5410,
    0x5411,
    0x5412,
    0x5413,
    0x5414,
    0x5415,
    0x541a,
    0x541b,
    0x541b,
    0x541d,
    0x5420,
    0x5421,
    0x5421,
    0x5422,
    0x5423,
    0x5424,
    0x5425,
    0x5429,
    0x5450,
    0x5451,
    0x5452,
    0x5456,
    0x5457,
    0x5460,
    0x8004_5430,
    0x4004_5431,
    0x8004_5432,
    0x8004_5438,
    0x5441,
    0x8901,
    0x8903,
    0x8904,
    0x8905,
    0x8906,
    0x8910,
    0x8912,
    0x8913,
    0x8915,
    0x891b,
    0x8921,
    0x8927,
    0x8933,
    0x8942,
    0x1,
    0x2,
    0x1260,
    0x1268,
    0x8008_1272,
    0x8004_6601,
    0x4004_6602,
    0xc020_660b,
    0x4004_9409,
    0x4008_ae01,
    0x4008_5400,
];
const CLONES: Makes = Makes::Process;
const SIZE8: Kind = One(&[8, 8, 8, 8, 8, 4, 16, 0]);

/// Everything that makes, ends or waits for processes.
const PROCESSES: &[Row] = &[
    makes(libc::SYS_fork, CLONES, &[]),
    makes(libc::SYS_vfork, CLONES, &[]),
    // Its arguments depend on each other: see `worker`.
    makes(
        libc::SYS_clone,
        CLONES,
        &[Wild, Wild, To(Int), To(Int), Wild],
    ),
    makes(
        libc::SYS_clone3,
        CLONES,
        &[To(CloneArgs), One(&[88, 88, 80, 64, 0, 63, 96])],
    ),
    row(libc::SYS_execve, &[Path, To(Arguments), To(Arguments)]),
    row(
        libc::SYS_execveat,
        &[Place, Path, To(Arguments), To(Arguments), Flags(AT)],
    ),
    row(libc::SYS_exit, &[Below(3)]),
    row(libc::SYS_exit_group, &[Below(3)]),
    row(
        libc::SYS_wait4,
        &[
            Pid,
            To(Int),
            Flags(&[1, 1, 1, 2, 8, 0x2000_0000, 0x4000_0000, 0x8000_0000]),
            Output,
        ],
    ),
    row(
        libc::SYS_waitid,
        &[
            One(&[0, 1, 2, 3]),
            Pid,
            Output,
            Flags(&[1, 1, 4, 4, 2, 8, 0x0100_0000, 0x4000_0000]),
            Output,
        ],
    ),
    row(libc::SYS_set_tid_address, &[To(Int)]),
    row(
        libc::SYS_unshare,
        &[Flags(&[
            0x200,
            0x400,
            0x100,
            0x800,
            0x4_0000,
            0x1_0000,
            0x2_0000,
            0x1000_0000,
        ])],
    ),
    makes(
        libc::SYS_pidfd_open,
        Makes::Descriptor(Class::Pidfd),
        &[Pid, Flags(&[0x800, 0x80])],
    ),
    row(libc::SYS_prctl, &[One(PRCTL), Wild, Wild, Wild, Wild]),
    row(
        libc::SYS_arch_prctl,
        &[
            One(&[
                0x1001, 0x1002, 0x1003, 0x1004, 0x1011, 0x1012, 0x1021, 0x1022,
            ]),
            Address,
        ],
    ),
    row(
        libc::SYS_ptrace,
        &[One(PTRACE), Pid, Address, To(Registers)],
    ),
    row(
        libc::SYS_personality,
        &[One(&[0xffff_ffff, 0, 0x0004_0000, 8, 0x0040_0000])],
    ),
    makes(
        libc::SYS_pidfd_getfd,
        FILE,
        &[Fd(Class::Pidfd), AnyFd, Below(2)],
    ),
    row(libc::SYS_kcmp, &[Pid, Pid, Below(9), AnyFd, AnyFd]),
    row(
        libc::SYS_process_vm_readv,
        &[
            Pid,
            To(Iovecs),
            Below(9),
            To(RemoteIovecs),
            Below(9),
            Below(2),
        ],
    ),
    row(
        libc::SYS_process_vm_writev,
        &[
            Pid,
            To(Iovecs),
            Below(9),
            To(RemoteIovecs),
            Below(9),
            Below(2),
        ],
    ),
    row(libc::SYS_setpgid, &[Pid, Pid]),
    row(libc::SYS_getpgid, &[Pid]),
    row(libc::SYS_getsid, &[Pid]),
    row(libc::SYS_setsid, &[]),
    row(
        libc::SYS_seccomp,
        &[Below(5), Flags(&[1, 2, 4, 8, 16, 32]), To(Filter)],
    ),
];

const IDENTITY: &[Row] = &[
    row(libc::SYS_getpid, &[]),
    row(libc::SYS_gettid, &[]),
    row(libc::SYS_getppid, &[]),
    row(libc::SYS_getpgrp, &[]),
    row(libc::SYS_getuid, &[]),
    row(libc::SYS_geteuid, &[]),
    row(libc::SYS_getgid, &[]),
    row(libc::SYS_getegid, &[]),
    row(libc::SYS_getresuid, &[Output, Output, Output]),
    row(libc::SYS_getresgid, &[Output, Output, Output]),
    row(libc::SYS_setuid, &[User]),
    row(libc::SYS_setgid, &[User]),
    row(libc::SYS_setreuid, &[User, User]),
    row(libc::SYS_setregid, &[User, User]),
    row(libc::SYS_setresuid, &[User, User, User]),
    row(libc::SYS_setresgid, &[User, User, User]),
    row(libc::SYS_setfsuid, &[User]),
    row(libc::SYS_setfsgid, &[User]),
    row(libc::SYS_getgroups, &[Length, Output]),
    row(
        libc::SYS_setgroups,
        &[One(&[0, 1, 4, 8, 65536, 65537, -1]), To(Groups)],
    ),
    row(libc::SYS_capget, &[To(Capabilities), Output]),
    row(libc::SYS_capset, &[To(Capabilities), To(Capabilities)]),
];

const TRANSFERS: &[Row] = &[
    row(libc::SYS_read, &[AnyFd, Output, Length]),
    row(libc::SYS_write, &[AnyFd, Input, Length]),
    row(
        libc::SYS_pread64,
        &[Fd(Class::File), Output, Length, Offset],
    ),
    row(
        libc::SYS_pwrite64,
        &[Fd(Class::File), Input, Length, Offset],
    ),
    row(libc::SYS_readv, &[AnyFd, To(Iovecs), Below(9)]),
    row(libc::SYS_writev, &[AnyFd, To(Iovecs), Below(9)]),
    row(
        libc::SYS_preadv,
        &[Fd(Class::File), To(Iovecs), Below(9), Offset, Below(2)],
    ),
    row(
        libc::SYS_pwritev,
        &[Fd(Class::File), To(Iovecs), Below(9), Offset, Below(2)],
    ),
    row(
        libc::SYS_preadv2,
        &[
            Fd(Class::File),
            To(Iovecs),
            Below(9),
            Offset,
            Below(2),
            Flags(RW),
        ],
    ),
    row(
        libc::SYS_pwritev2,
        &[
            Fd(Class::File),
            To(Iovecs),
            Below(9),
            Offset,
            Below(2),
            Flags(RW),
        ],
    ),
    row(libc::SYS_lseek, &[Fd(Class::File), Offset, Below(6)]),
    row(libc::SYS_ioctl, &[AnyFd, One(IOCTL), To(Int)]),
    row(
        libc::SYS_ioctl,
        &[Fd(Class::Terminal), One(IOCTL), To(Termios)],
    ),
    row(libc::SYS_close, &[AnyFd]),
    row(libc::SYS_close_range, &[AnyFd, AnyFd, Flags(&[2, 4, 4])]),
    makes(libc::SYS_dup, FILE, &[AnyFd]),
    makes(libc::SYS_dup2, FILE, &[AnyFd, AnyFd]),
    makes(libc::SYS_dup3, FILE, &[AnyFd, AnyFd, Flags(CLOEXEC)]),
    row(libc::SYS_fcntl, &[AnyFd, One(FCNTL), To(Flock)]),
    row(libc::SYS_fcntl, &[AnyFd, One(FCNTL), Below(70)]),
    row(libc::SYS_flock, &[AnyFd, One(&[1, 2, 5, 6, 8, 8, 4])]),
    row(libc::SYS_fsync, &[AnyFd]),
    row(libc::SYS_fdatasync, &[AnyFd]),
    row(libc::SYS_sync, &[]),
    row(libc::SYS_syncfs, &[AnyFd]),
    row(
        libc::SYS_sync_file_range,
        &[Fd(Class::File), Offset, Length, Below(8)],
    ),
    row(libc::SYS_ftruncate, &[Fd(Class::File), Offset]),
    row(libc::SYS_ftruncate, &[Fd(Class::Memfd), Length]),
    row(
        libc::SYS_fallocate,
        &[
            Fd(Class::File),
            Flags(&[1, 3, 3, 8, 16, 32, 64]),
            Offset,
            Length,
        ],
    ),
    row(
        libc::SYS_fadvise64,
        &[Fd(Class::File), Offset, Length, Below(7)],
    ),
    row(libc::SYS_readahead, &[Fd(Class::File), Offset, Length]),
    row(
        libc::SYS_sendfile,
        &[AnyFd, Fd(Class::File), To(Int), Length],
    ),
    row(
        libc::SYS_splice,
        &[
            Fd(Class::PipeIn),
            To(Int),
            AnyFd,
            To(Int),
            Length,
            Flags(SPLICE),
        ],
    ),
    row(
        libc::SYS_splice,
        &[
            AnyFd,
            To(Int),
            Fd(Class::PipeOut),
            To(Int),
            Length,
            Flags(SPLICE),
        ],
    ),
    row(
        libc::SYS_tee,
        &[Fd(Class::PipeIn), Fd(Class::PipeOut), Length, Flags(SPLICE)],
    ),
    row(
        libc::SYS_vmsplice,
        &[Fd(Class::PipeOut), To(Iovecs), Below(9), Flags(SPLICE)],
    ),
    row(
        libc::SYS_copy_file_range,
        &[
            Fd(Class::File),
            To(Int),
            Fd(Class::File),
            To(Int),
            Length,
            Below(2),
        ],
    ),
];

const EVENTS: &[Row] = &[
    makes(
        libc::SYS_pipe,
        Makes::Pair(Class::PipeIn, Class::PipeOut, 0),
        &[Output],
    ),
    makes(
        libc::SYS_pipe2,
        Makes::Pair(Class::PipeIn, Class::PipeOut, 0),
        &[Output, Flags(&[0o4000, 0o4000, 0o40000, 0o2_000_000])],
    ),
    makes(
        libc::SYS_eventfd,
        Makes::Descriptor(Class::Event),
        &[Length],
    ),
    makes(
        libc::SYS_eventfd2,
        Makes::Descriptor(Class::Event),
        &[Length, Flags(&[1, 0o4000, 0o2_000_000])],
    ),
    makes(
        libc::SYS_timerfd_create,
        Makes::Descriptor(Class::Timer),
        &[Clock, Flags(CLOEXEC)],
    ),
    row(
        libc::SYS_timerfd_settime,
        &[Fd(Class::Timer), Below(4), To(Itimerspec), Output],
    ),
    row(libc::SYS_timerfd_gettime, &[Fd(Class::Timer), Output]),
    makes(
        libc::SYS_memfd_create,
        Makes::Descriptor(Class::Memfd),
        &[Name, Flags(&[1, 2, 2, 4, 8, 16])],
    ),
    makes(
        libc::SYS_inotify_init,
        Makes::Descriptor(Class::Inotify),
        &[],
    ),
    makes(
        libc::SYS_inotify_init1,
        Makes::Descriptor(Class::Inotify),
        &[Flags(CLOEXEC)],
    ),
    row(
        libc::SYS_inotify_add_watch,
        &[
            Fd(Class::Inotify),
            Path,
            Flags(&[0xfff, 0x1000_0000, 0x8000_0000, 0x2000_0000, 0x0100_0000, 2]),
        ],
    ),
    row(libc::SYS_inotify_rm_watch, &[Fd(Class::Inotify), Below(8)]),
    row(libc::SYS_poll, &[To(Pollfds), Below(17), Below(30)]),
    row(
        libc::SYS_ppoll,
        &[To(Pollfds), Below(17), To(Timespec), To(Sigset), SIZE8],
    ),
    row(
        libc::SYS_select,
        &[Below(100), To(Fdset), To(Fdset), To(Fdset), To(Timeval)],
    ),
    row(
        libc::SYS_pselect6,
        &[
            Below(100),
            To(Fdset),
            To(Fdset),
            To(Fdset),
            To(Timespec),
            To(SigsetArgument),
        ],
    ),
    makes(
        libc::SYS_epoll_create,
        Makes::Descriptor(Class::Epoll),
        &[Below(4)],
    ),
    makes(
        libc::SYS_epoll_create1,
        Makes::Descriptor(Class::Epoll),
        &[Flags(CLOEXEC)],
    ),
    row(
        libc::SYS_epoll_ctl,
        &[
            Fd(Class::Epoll),
            One(&[1, 1, 1, 2, 3]),
            AnyFd,
            To(EpollEvent),
        ],
    ),
    row(
        libc::SYS_epoll_wait,
        &[Fd(Class::Epoll), Output, Below(20), Below(30)],
    ),
    row(
        libc::SYS_epoll_pwait,
        &[
            Fd(Class::Epoll),
            Output,
            Below(20),
            Below(30),
            To(Sigset),
            SIZE8,
        ],
    ),
    row(
        libc::SYS_epoll_pwait2,
        &[
            Fd(Class::Epoll),
            Output,
            Below(20),
            To(Timespec),
            To(Sigset),
            SIZE8,
        ],
    ),
    makes(
        libc::SYS_signalfd,
        Makes::Descriptor(Class::Signal),
        &[One(&[-1]), To(Sigset), SIZE8],
    ),
    makes(
        libc::SYS_signalfd4,
        Makes::Descriptor(Class::Signal),
        &[One(&[-1]), To(Sigset), SIZE8, Flags(CLOEXEC)],
    ),
];

const TREE: &[Row] = &[
    makes(libc::SYS_open, FILE, &[Path, Flags(OPEN), Mode]),
    makes(libc::SYS_openat, FILE, &[Place, Path, Flags(OPEN), Mode]),
    makes(
        libc::SYS_openat2,
        FILE,
        &[Place, Path, To(OpenHow), One(&[24, 24, 24, 32, 16, 0])],
    ),
    makes(libc::SYS_creat, FILE, &[Path, Mode]),
    row(libc::SYS_mkdir, &[Path, Mode]),
    row(libc::SYS_mkdirat, &[Place, Path, Mode]),
    row(
        libc::SYS_mknod,
        &[
            Path,
            One(&[0o100_666, 0o010_666, 0o140_666, 0o020_666, 0o060_666, 0o666]),
            Wild,
        ],
    ),
    row(
        libc::SYS_mknodat,
        &[
            Place,
            Path,
            One(&[0o100_666, 0o010_666, 0o140_666, 0o020_666]),
            Wild,
        ],
    ),
    row(libc::SYS_symlink, &[Path, Path]),
    row(libc::SYS_symlinkat, &[Path, Place, Path]),
    row(libc::SYS_link, &[Path, Path]),
    row(libc::SYS_linkat, &[Place, Path, Place, Path, Flags(AT)]),
    row(libc::SYS_unlink, &[Path]),
    row(libc::SYS_unlinkat, &[Place, Path, Flags(AT)]),
    row(libc::SYS_rmdir, &[Path]),
    row(libc::SYS_rename, &[Path, Path]),
    row(libc::SYS_renameat, &[Place, Path, Place, Path]),
    row(
        libc::SYS_renameat2,
        &[Place, Path, Place, Path, One(&[0, 0, 1, 2, 2, 4, 3])],
    ),
    row(libc::SYS_readlink, &[Path, Output, Length]),
    row(libc::SYS_readlinkat, &[Place, Path, Output, Length]),
    row(libc::SYS_getdents, &[Fd(Class::Folder), Output, Length]),
    row(libc::SYS_getdents64, &[Fd(Class::Folder), Output, Length]),
    row(libc::SYS_chdir, &[Path]),
    row(libc::SYS_fchdir, &[Fd(Class::Folder)]),
    row(libc::SYS_chroot, &[Path]),
    row(libc::SYS_getcwd, &[Output, Length]),
    row(libc::SYS_umask, &[Mode]),
    row(libc::SYS_truncate, &[Path, Offset]),
    row(libc::SYS_mount, &[]),
    row(libc::SYS_umount2, &[]),
    row(libc::SYS_pivot_root, &[]),
    row(MOVE_MOUNT, &[]),
];

const MOVE_MOUNT: i64 = 429;

const ATTRIBUTES: &[Row] = &[
    row(libc::SYS_stat, &[Path, Output]),
    row(libc::SYS_lstat, &[Path, Output]),
    row(libc::SYS_fstat, &[AnyFd, Output]),
    row(libc::SYS_newfstatat, &[Place, Path, Output, Flags(AT)]),
    row(
        libc::SYS_statx,
        &[
            Place,
            Path,
            Flags(AT),
            Flags(&[0x7ff, 0x800, 0x1000, 0x2000]),
            Output,
        ],
    ),
    row(libc::SYS_statfs, &[Path, Output]),
    row(libc::SYS_fstatfs, &[AnyFd, Output]),
    row(libc::SYS_chmod, &[Path, Mode]),
    row(libc::SYS_fchmod, &[AnyFd, Mode]),
    row(libc::SYS_fchmodat, &[Place, Path, Mode]),
    row(libc::SYS_fchmodat2, &[Place, Path, Mode, Flags(AT)]),
    row(libc::SYS_chown, &[Path, User, User]),
    row(libc::SYS_lchown, &[Path, User, User]),
    row(libc::SYS_fchown, &[AnyFd, User, User]),
    row(libc::SYS_fchownat, &[Place, Path, User, User, Flags(AT)]),
    row(libc::SYS_utimensat, &[Place, Path, To(Utimes), Flags(AT)]),
    row(libc::SYS_futimesat, &[Place, Path, To(Itimerval)]),
    row(libc::SYS_utimes, &[Path, To(Itimerval)]),
    row(libc::SYS_utime, &[Path, To(Itimerval)]),
    row(libc::SYS_access, &[Path, Below(9)]),
    row(libc::SYS_faccessat, &[Place, Path, Below(9)]),
    row(libc::SYS_faccessat2, &[Place, Path, Below(9), Flags(AT)]),
    row(libc::SYS_getxattr, &[Path, Name, Output, Length]),
    row(libc::SYS_setxattr, &[Path, Name, Input, Length, Below(4)]),
    row(libc::SYS_listxattr, &[Path, Output, Length]),
    row(libc::SYS_removexattr, &[Path, Name]),
    row(libc::SYS_lgetxattr, &[Path, Name, Output, Length]),
    row(libc::SYS_lsetxattr, &[Path, Name, Input, Length, Below(4)]),
    row(libc::SYS_llistxattr, &[Path, Output, Length]),
    row(libc::SYS_lremovexattr, &[Path, Name]),
    row(libc::SYS_fgetxattr, &[AnyFd, Name, Output, Length]),
    row(libc::SYS_fsetxattr, &[AnyFd, Name, Input, Length, Below(4)]),
    row(libc::SYS_flistxattr, &[AnyFd, Output, Length]),
    row(libc::SYS_fremovexattr, &[AnyFd, Name]),
];

const SOCKETS: &[Row] = &[
    makes(
        libc::SYS_socket,
        TCP,
        &[One(FAMILIES), One(TYPES), One(PROTOCOLS)],
    ),
    makes(
        libc::SYS_socketpair,
        Makes::Pair(Class::Unix, Class::Unix, 3),
        &[One(&[1, 1, 1, 2]), One(TYPES), One(PROTOCOLS), Output],
    ),
    row(
        libc::SYS_bind,
        &[Fd(Class::Tcp), To(Sockaddr), One(&[16, 16, 28, 110, 12, 2])],
    ),
    row(
        libc::SYS_bind,
        &[Fd(Class::Unix), To(Sockaddr), One(&[110, 13, 20, 2])],
    ),
    row(libc::SYS_listen, &[Fd(Class::Tcp), Below(10)]),
    makes(
        libc::SYS_accept,
        TCP,
        &[Fd(Class::Tcp), Output, To(Socklen)],
    ),
    makes(
        libc::SYS_accept4,
        Makes::Descriptor(Class::Unix),
        &[Fd(Class::Unix), Output, To(Socklen), Flags(CLOEXEC)],
    ),
    row(
        libc::SYS_connect,
        &[Fd(Class::Tcp), To(Sockaddr), One(&[16, 16, 28, 110])],
    ),
    row(
        libc::SYS_connect,
        &[Fd(Class::Unix), To(Sockaddr), One(&[110, 13, 20, 2])],
    ),
    row(
        libc::SYS_connect,
        &[Fd(Class::Udp), To(Sockaddr), One(&[16, 28])],
    ),
    row(
        libc::SYS_getsockname,
        &[Fd(Class::Tcp), Output, To(Socklen)],
    ),
    row(
        libc::SYS_getpeername,
        &[Fd(Class::Unix), Output, To(Socklen)],
    ),
    row(libc::SYS_shutdown, &[Fd(Class::Tcp), Below(4)]),
    row(
        libc::SYS_setsockopt,
        &[
            Fd(Class::Tcp),
            One(LEVELS),
            Below(70),
            To(Int),
            One(&[4, 4, 8, 16, 0, 1, 255]),
        ],
    ),
    row(
        libc::SYS_setsockopt,
        &[AnyFd, One(LEVELS), Below(70), To(Filter), One(&[16, 4, 8])],
    ),
    row(
        libc::SYS_getsockopt,
        &[AnyFd, One(LEVELS), Below(80), Output, To(Socklen)],
    ),
    row(
        libc::SYS_sendto,
        &[
            Fd(Class::Udp),
            Input,
            Length,
            Flags(MSG),
            To(Sockaddr),
            One(&[16, 28, 0]),
        ],
    ),
    row(
        libc::SYS_sendto,
        &[
            Fd(Class::Netlink),
            Input,
            Length,
            Flags(MSG),
            To(Sockaddr),
            One(&[12, 0]),
        ],
    ),
    row(
        libc::SYS_sendmsg,
        &[Fd(Class::Unix), To(Msghdr), Flags(MSG)],
    ),
    row(libc::SYS_sendmsg, &[Fd(Class::Tcp), To(Msghdr), Flags(MSG)]),
    row(
        libc::SYS_sendmmsg,
        &[Fd(Class::UnixDgram), To(Mmsghdrs), Below(4), Flags(MSG)],
    ),
    row(
        libc::SYS_recvfrom,
        &[
            Fd(Class::Udp),
            Output,
            Length,
            Flags(MSG),
            Output,
            To(Socklen),
        ],
    ),
    row(
        libc::SYS_recvmsg,
        &[Fd(Class::Unix), To(Msghdr), Flags(MSG)],
    ),
    row(
        libc::SYS_recvmsg,
        &[Fd(Class::UnixDgram), To(Msghdr), Flags(MSG)],
    ),
    row(
        libc::SYS_recvmmsg,
        &[AnyFd, To(Mmsghdrs), Below(4), Flags(MSG), To(Timespec)],
    ),
];

const MEMORY: &[Row] = &[
    makes(
        libc::SYS_mmap,
        Makes::Mapping(1),
        &[
            One(&[0]),
            Length,
            Flags(PROT),
            Flags(MAP),
            Fd(Class::File),
            One(&[0, 0, 4096, 65536, 1, -4096]),
        ],
    ),
    makes(
        libc::SYS_mmap,
        Makes::Mapping(1),
        &[
            Address,
            Length,
            Flags(PROT),
            Flags(MAP),
            Fd(Class::Memfd),
            One(&[0, 0, 4096, 65536]),
        ],
    ),
    row(libc::SYS_munmap, &[Address, Length]),
    row(libc::SYS_mprotect, &[Address, Length, Flags(PROT)]),
    makes(
        libc::SYS_mremap,
        Makes::Mapping(2),
        &[Address, Length, Length, Flags(&[1, 1, 3, 4, 5]), Address],
    ),
    row(libc::SYS_brk, &[Wild]),
    row(
        libc::SYS_madvise,
        &[
            Address,
            Length,
            One(&[
                0, 1, 2, 3, 4, 4, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
                25, 100, 102,
            ]),
        ],
    ),
    row(libc::SYS_msync, &[Address, Length, Below(8)]),
    row(libc::SYS_mlock, &[Address, Length]),
    row(libc::SYS_mlock2, &[Address, Length, Below(3)]),
    row(libc::SYS_munlock, &[Address, Length]),
    row(libc::SYS_mlockall, &[Below(8)]),
    row(libc::SYS_munlockall, &[]),
    row(libc::SYS_mincore, &[Address, Length, Output]),
    row(
        libc::SYS_pkey_mprotect,
        &[Address, Length, Flags(PROT), One(&[-1, -1, 0, 1])],
    ),
    row(libc::SYS_pkey_alloc, &[Below(2), Below(4)]),
    row(libc::SYS_pkey_free, &[Below(2)]),
    row(libc::SYS_remap_file_pages, &[]),
    row(
        libc::SYS_membarrier,
        &[
            One(&[0, 1, 2, 4, 8, 16, 32, 64, 128, 256]),
            Below(2),
            Below(4),
        ],
    ),
    row(
        libc::SYS_get_mempolicy,
        &[Output, Output, Length, Address, Below(8)],
    ),
    row(libc::SYS_set_mempolicy, &[Below(8), To(Int), Length]),
    row(
        libc::SYS_mbind,
        &[Address, Length, Below(8), To(Int), Length, Below(8)],
    ),
];

const EXCHANGE: &[Row] = &[
    makes(libc::SYS_shmget, Makes::Shm, &[Key, Length, Flags(IPC)]),
    makes(
        libc::SYS_shmat,
        Makes::Mapping(3),
        &[
            Shm,
            One(&[0]),
            Flags(&[0o10000, 0o20000, 0o40000, 0o100_000]),
            One(&[4096]),
        ],
    ),
    row(
        libc::SYS_shmat,
        &[Shm, Address, Flags(&[0o10000, 0o20000, 0o40000])],
    ),
    row(libc::SYS_shmdt, &[Address]),
    row(libc::SYS_shmctl, &[Shm, One(COMMANDS), Output]),
    makes(libc::SYS_semget, Makes::Sem, &[Key, Below(20), Flags(IPC)]),
    row(libc::SYS_semop, &[Sem, To(Sembufs), Below(7)]),
    row(
        libc::SYS_semtimedop,
        &[Sem, To(Sembufs), Below(7), To(Timespec)],
    ),
    row(libc::SYS_semctl, &[Sem, Below(4), One(COMMANDS), To(Int)]),
    makes(libc::SYS_msgget, Makes::Msg, &[Key, Flags(IPC)]),
    row(
        libc::SYS_msgsnd,
        &[
            Msg,
            To(Message),
            Below(400),
            Flags(&[0o4000, 0o4000, 0o10000]),
        ],
    ),
    row(
        libc::SYS_msgrcv,
        &[
            Msg,
            Output,
            Length,
            One(&[0, 0, 1, -3, 2, i64::MIN]),
            Flags(&[0o4000, 0o4000, 0o10000, 0o20000, 0o40000]),
        ],
    ),
    row(libc::SYS_msgctl, &[Msg, One(COMMANDS), Output]),
    makes(
        libc::SYS_mq_open,
        Makes::Descriptor(Class::Queue),
        &[Name, Flags(OPEN), Mode, To(MqAttr)],
    ),
    row(libc::SYS_mq_unlink, &[Name]),
    row(
        libc::SYS_mq_timedsend,
        &[Fd(Class::Queue), Input, Length, Below(40_000), To(Timespec)],
    ),
    row(
        libc::SYS_mq_timedreceive,
        &[Fd(Class::Queue), Output, Length, Output, To(Timespec)],
    ),
    row(libc::SYS_mq_notify, &[Fd(Class::Queue), To(Sigevent)]),
    row(
        libc::SYS_mq_getsetattr,
        &[Fd(Class::Queue), To(MqAttr), Output],
    ),
    row(
        libc::SYS_futex,
        &[Address, One(FUTEX), Below(4), To(Timespec), Address, Wild],
    ),
    row(
        libc::SYS_futex,
        &[
            To(Futex),
            One(FUTEX),
            Below(2),
            To(Timespec),
            To(Futex),
            Below(3),
        ],
    ),
    row(
        FUTEX_WAITV,
        &[To(FutexWaiters), Below(5), Below(2), To(Timespec), Below(2)],
    ),
    row(
        libc::SYS_set_robust_list,
        &[To(RobustList), One(&[24, 24, 0])],
    ),
    row(libc::SYS_get_robust_list, &[Pid, Output, Output]),
];

const FUTEX_WAITV: i64 = 449;

const SIGNALS: &[Row] = &[
    row(
        libc::SYS_rt_sigaction,
        &[Signal, To(Sigaction), Output, SIZE8],
    ),
    row(
        libc::SYS_rt_sigprocmask,
        &[Below(4), To(Sigset), Output, SIZE8],
    ),
    row(libc::SYS_rt_sigpending, &[Output, SIZE8]),
    row(libc::SYS_rt_sigsuspend, &[To(Sigset), SIZE8]),
    row(
        libc::SYS_rt_sigtimedwait,
        &[To(Sigset), Output, To(Timespec), SIZE8],
    ),
    row(libc::SYS_rt_sigqueueinfo, &[Pid, Signal, To(Siginfo)]),
    row(
        libc::SYS_rt_tgsigqueueinfo,
        &[Pid, Pid, Signal, To(Siginfo)],
    ),
    row(libc::SYS_rt_sigreturn, &[]),
    row(libc::SYS_sigaltstack, &[To(Stack), Output]),
    row(libc::SYS_pause, &[]),
    row(libc::SYS_kill, &[Pid, Signal]),
    row(libc::SYS_tkill, &[Pid, Signal]),
    row(libc::SYS_tgkill, &[Pid, Pid, Signal]),
    row(
        libc::SYS_pidfd_send_signal,
        &[Fd(Class::Pidfd), Signal, To(Siginfo), Below(2)],
    ),
    row(libc::SYS_restart_syscall, &[]),
    row(
        libc::SYS_rseq,
        &[To(Rseq), One(&[32, 32, 0, 33]), Below(2), Wild],
    ),
];

const TIMES: &[Row] = &[
    row(libc::SYS_nanosleep, &[To(Timespec), Output]),
    row(
        libc::SYS_clock_nanosleep,
        &[Clock, Below(2), To(Timespec), Output],
    ),
    row(libc::SYS_clock_gettime, &[Clock, Output]),
    row(libc::SYS_clock_getres, &[Clock, Output]),
    row(libc::SYS_clock_settime, &[Clock, To(Timespec)]),
    row(libc::SYS_settimeofday, &[]),
    row(libc::SYS_adjtimex, &[Output]),
    row(libc::SYS_clock_adjtime, &[Clock, Output]),
    row(libc::SYS_gettimeofday, &[Output, Output]),
    row(libc::SYS_time, &[Output]),
    row(libc::SYS_getitimer, &[Below(4), Output]),
    row(
        libc::SYS_setitimer,
        &[One(&[1, 2, 3]), To(Itimerval), Output],
    ),
    row(libc::SYS_alarm, &[One(&[0, 1])]),
    makes(
        libc::SYS_timer_create,
        Makes::Timer,
        &[Clock, To(Sigevent), Output],
    ),
    row(
        libc::SYS_timer_settime,
        &[Timer, Below(2), To(Itimerspec), Output],
    ),
    row(libc::SYS_timer_gettime, &[Timer, Output]),
    row(libc::SYS_timer_getoverrun, &[Timer]),
    row(libc::SYS_timer_delete, &[Timer]),
];

const THE_REST: &[Row] = &[
    row(libc::SYS_sched_yield, &[]),
    row(libc::SYS_sched_getaffinity, &[Pid, Length, Output]),
    row(libc::SYS_sched_setaffinity, &[Pid, Length, To(Int)]),
    row(libc::SYS_sched_getscheduler, &[Pid]),
    row(libc::SYS_sched_setscheduler, &[Pid, Below(8), To(Int)]),
    row(libc::SYS_sched_getparam, &[Pid, Output]),
    row(libc::SYS_sched_setparam, &[Pid, To(Int)]),
    row(libc::SYS_sched_get_priority_max, &[Below(8)]),
    row(libc::SYS_sched_get_priority_min, &[Below(8)]),
    row(libc::SYS_sched_rr_get_interval, &[Pid, Output]),
    row(
        libc::SYS_sched_getattr,
        &[Pid, Output, One(&[48, 56, 0, 4096]), Below(2)],
    ),
    row(libc::SYS_sched_setattr, &[Pid, To(SchedAttr), Below(2)]),
    row(libc::SYS_getpriority, &[Below(4), Pid]),
    row(
        libc::SYS_setpriority,
        &[Below(4), Pid, One(&[-20, 0, 5, 19, 40, -40])],
    ),
    row(libc::SYS_getcpu, &[Output, Output]),
    row(libc::SYS_ioprio_get, &[Below(4), Pid]),
    row(libc::SYS_ioprio_set, &[Below(4), Pid, Wild]),
    row(libc::SYS_getrusage, &[One(&[0, 1, -1, 2]), Output]),
    row(libc::SYS_times, &[Output]),
    row(libc::SYS_getrlimit, &[Below(17), Output]),
    row(libc::SYS_setrlimit, &[Below(17), To(Rlimit)]),
    row(libc::SYS_prlimit64, &[Pid, Below(17), To(Rlimit), Output]),
    row(libc::SYS_vhangup, &[]),
    row(libc::SYS_uname, &[Output]),
    row(libc::SYS_sethostname, &[Name, Below(70)]),
    row(libc::SYS_setdomainname, &[Name, Below(70)]),
    row(libc::SYS_sysinfo, &[Output]),
    row(libc::SYS_getrandom, &[Output, Length, Below(8)]),
    row(libc::SYS_reboot, &[]),
    row(libc::SYS_kexec_load, &[]),
    row(libc::SYS_kexec_file_load, &[]),
    row(libc::SYS_init_module, &[]),
    row(libc::SYS_finit_module, &[]),
    row(libc::SYS_delete_module, &[]),
    row(libc::SYS_iopl, &[]),
    row(libc::SYS_ioperm, &[]),
    row(libc::SYS_swapon, &[]),
    row(libc::SYS_swapoff, &[]),
    row(libc::SYS_acct, &[]),
    row(libc::SYS_syslog, &[]),
    row(libc::SYS_setns, &[]),
    row(libc::SYS_bpf, &[]),
    row(libc::SYS_perf_event_open, &[]),
    row(libc::SYS_userfaultfd, &[]),
    row(libc::SYS_io_uring_setup, &[]),
    row(libc::SYS_io_uring_enter, &[]),
    row(libc::SYS_io_uring_register, &[]),
];

/// The calls by family, so that each family gets its share.
pub(crate) const FAMILIES_OF_CALLS: [&[Row]; 12] = [
    PROCESSES, IDENTITY, TRANSFERS, EVENTS, TREE, ATTRIBUTES, SOCKETS, MEMORY, EXCHANGE, SIGNALS,
    TIMES, THE_REST,
];

/// The first row of a call.
pub(crate) fn of(number: u64) -> Option<&'static Row> {
    let mut rows = FAMILIES_OF_CALLS.iter().flat_map(|family| family.iter());
    rows.find(|row| row.number as u64 == number)
}

#[cfg(test)]
mod tests {
    use super::of;
    use syscall::table::{NAMES, Status, TABLE};

    #[test]
    fn every_call_of_the_kernel_is_known_with_all_its_arguments() {
        for (number, row) in TABLE.iter().enumerate() {
            if row.status == Status::Missing {
                continue;
            }
            let known = of(number as u64);
            let enough = known.is_some_and(|known| known.arguments.len() >= row.arguments.into());
            assert!(enough, "{}: {:?}", NAMES[number], known);
        }
    }
}
