//! Descriptors, files and what waits for them.

use super::{
    AT, CLOEXEC, FCNTL, FILE, IOCTL, MOVE_MOUNT, Makes, OPEN, RW, Row, SIZE8, SPLICE, makes, row,
};
use crate::{kinds::Kind::*, objects::Class, structs::Shape::*};

pub(super) const TRANSFERS: &[Row] = &[
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

pub(super) const EVENTS: &[Row] = &[
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

pub(super) const TREE: &[Row] = &[
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

pub(super) const ATTRIBUTES: &[Row] = &[
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
