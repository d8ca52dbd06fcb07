//! Processes, their identities, signals and times.

use super::{AT, CLONES, FILE, Makes, PRCTL, PTRACE, Row, SIZE8, makes, row};
use crate::{kinds::Kind::*, objects::Class, structs::Shape::*};

/// Everything that makes, ends or waits for processes.
pub(super) const PROCESSES: &[Row] = &[
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
        &[One(PTRACE), OtherPid, Address, To(Registers)],
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
            OtherPid,
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

pub(super) const IDENTITY: &[Row] = &[
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

pub(super) const SIGNALS: &[Row] = &[
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

pub(super) const TIMES: &[Row] = &[
    row(libc::SYS_nanosleep, &[To(Timespec), Output]),
    row(
        libc::SYS_clock_nanosleep,
        &[Clock, Below(2), To(Timespec), Output],
    ),
    row(libc::SYS_clock_gettime, &[Clock, Output]),
    row(libc::SYS_clock_getres, &[Clock, Output]),
    row(libc::SYS_clock_settime, &[Clock, To(Timespec)]),
    row(libc::SYS_settimeofday, &[To(Timeval), Input]),
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
