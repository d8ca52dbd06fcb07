//! Sockets, memory, what processes share, and the rest.

use super::{
    CLOEXEC, COMMANDS, FAMILIES, FUTEX, FUTEX_WAITV, IPC, LEVELS, MAP, MSG, Makes, OPEN, PROT,
    PROTOCOLS, Row, TCP, TYPES, makes, row,
};
use crate::{kinds::Kind::*, objects::Class, structs::Shape::*};

pub(super) const SOCKETS: &[Row] = &[
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

pub(super) const MEMORY: &[Row] = &[
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

pub(super) const EXCHANGE: &[Row] = &[
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

pub(super) const THE_REST: &[Row] = &[
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
    row(
        libc::SYS_prlimit64,
        &[OtherPid, Below(17), To(Rlimit), Output],
    ),
    row(libc::SYS_vhangup, &[]),
    row(libc::SYS_uname, &[Output]),
    row(libc::SYS_sysfs, &[Below(5), Below(40), Output]),
    row(libc::SYS_sysfs, &[One(&[1]), Name, Output]),
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
    row(libc::SYS_iopl, &[Below(5)]),
    row(libc::SYS_ioperm, &[Wild, Length]),
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
