//! The table of system calls.
//!
//! A row is `NUMBER => handler(arguments), status`. The number is Linux's own
//! constant, so it cannot be wrong; a call without a row answers `ENOSYS` and is
//! counted in its capsule ([`::process::World::unknown_calls`]).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
pub use crate::names::{NAMES, NUMBERS};
use linux_raw_sys::general as nr;

/// How much of a call there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No row: answers `ENOSYS`.
    Missing,
    /// As its man page says.
    Full,
    /// All but this.
    Partial(&'static str),
    /// Answers an error on purpose, for this reason.
    Refused(&'static str),
}

/// Decodes the arguments and calls the handler; the value for `rax`.
type Entry = fn(&mut Ctx<'_>) -> u64;

/// What the program gets. Made where the handler's answer is known, so that it stays in
/// registers.
#[inline(always)]
fn rax(answer: SysResult) -> u64 {
    match answer {
        Ok(value) => value as u64,
        Err(e) => e.to_rax(),
    }
}

/// What the table knows of a number.
#[derive(Clone, Copy)]
pub struct Row {
    pub(crate) entry: Entry,
    /// Arguments it looks at.
    pub arguments: u8,
    /// How much of it there is.
    pub status: Status,
}

/// Handler arguments, in the order of the x86-64 system-call convention.
macro_rules! entry {
    ($f:path, 0) => {
        |c: &mut Ctx<'_>| rax($f(c))
    };
    ($f:path, 1) => {
        |c: &mut Ctx<'_>| {
            let a = c.regs.rdi as usize;
            rax($f(c, a))
        }
    };
    ($f:path, 2) => {
        |c: &mut Ctx<'_>| {
            let (a, b) = (c.regs.rdi as usize, c.regs.rsi as usize);
            rax($f(c, a, b))
        }
    };
    ($f:path, 3) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            rax($f(c, a, b, d))
        }
    };
    ($f:path, 4) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            let e = c.regs.r10 as usize;
            rax($f(c, a, b, d, e))
        }
    };
    ($f:path, 5) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            let (e, g) = (c.regs.r10 as usize, c.regs.r8 as usize);
            rax($f(c, a, b, d, e, g))
        }
    };
    ($f:path, 6) => {
        |c: &mut Ctx<'_>| {
            let (a, b, d) = (
                c.regs.rdi as usize,
                c.regs.rsi as usize,
                c.regs.rdx as usize,
            );
            let (e, g, h) = (c.regs.r10 as usize, c.regs.r8 as usize, c.regs.r9 as usize);
            rax($f(c, a, b, d, e, g, h))
        }
    };
}

macro_rules! table {
    ($($number:ident => $family:ident::$f:ident($n:tt), $status:expr;)*) => {{
        use Status::{Full, Partial, Refused};
        let mut t = [Row { entry: missing, arguments: 0, status: Status::Missing }; NUMBERS];
        $(
            let n = nr::$number as usize;
            assert!(matches!(t[n].status, Status::Missing), "a number has two rows");
            t[n] = Row { entry: entry!(crate::$family::$f, $n), arguments: $n, status: $status };
        )*
        t
    }};
}

/// All calls by number.
pub static TABLE: [Row; NUMBERS] = table! {
    // Making and ending processes.
    __NR_fork => process::sys_fork(0), Full;
    __NR_vfork => process::sys_vfork(0), Full;
    __NR_clone => process::sys_clone(5), Partial("namespaces are refused (EPERM)");
    __NR_clone3 => process::sys_clone3(2), Partial("no set_tid, cgroup or namespaces");
    __NR_execve => exec::sys_execve(3), Full;
    __NR_execveat => exec::sys_execveat(5), Full;
    __NR_exit => process::sys_exit(1), Full;
    __NR_exit_group => process::sys_exit_group(1), Full;
    __NR_wait4 => process::sys_wait4(4), Full;
    __NR_waitid => process::sys_waitid(5), Full;
    __NR_set_tid_address => process::sys_set_tid_address(1), Full;
    __NR_unshare => process::sys_unshare(1), Partial("files and places only; no namespaces (EPERM)");
    __NR_pidfd_open => pidfd::sys_pidfd_open(2), Full;
    __NR_prctl => prctl::sys_prctl(5), Partial("no PR_SET_MM, no names for memory");
    __NR_arch_prctl => prctl::sys_arch_prctl(2), Full;
    __NR_ptrace => ptrace::sys_ptrace(4), Partial("no SECCOMP_GET_FILTER, SYSEMU; all threads of a tracer may act");
    __NR_seccomp => seccomp::sys_seccomp(3), Partial("no listeners (SECCOMP_FILTER_FLAG_NEW_LISTENER answers EINVAL)");
    __NR_personality => misc::sys_personality(1), Full;

    __NR_pidfd_getfd => kcmp::sys_pidfd_getfd(3), Full;
    __NR_kcmp => kcmp::sys_kcmp(5), Partial("no KCMP_EPOLL_TFD; only files are ordered");

    // Identity.
    __NR_getpid => ids::sys_getpid(0), Full;
    __NR_gettid => ids::sys_gettid(0), Full;
    __NR_getppid => ids::sys_getppid(0), Full;
    __NR_getpgid => ids::sys_getpgid(1), Full;
    __NR_getpgrp => ids::sys_getpgrp(0), Full;
    __NR_setpgid => ids::sys_setpgid(2), Full;
    __NR_getsid => ids::sys_getsid(1), Full;
    __NR_setsid => ids::sys_setsid(0), Full;
    __NR_getuid => ids::sys_getuid(0), Full;
    __NR_geteuid => ids::sys_geteuid(0), Full;
    __NR_getgid => ids::sys_getgid(0), Full;
    __NR_getegid => ids::sys_getegid(0), Full;
    __NR_getresuid => ids::sys_getresuid(3), Full;
    __NR_getresgid => ids::sys_getresgid(3), Full;
    __NR_setuid => ids::sys_setuid(1), Full;
    __NR_setgid => ids::sys_setgid(1), Full;
    __NR_setreuid => ids::sys_setreuid(2), Full;
    __NR_setregid => ids::sys_setregid(2), Full;
    __NR_setresuid => ids::sys_setresuid(3), Full;
    __NR_setresgid => ids::sys_setresgid(3), Full;
    __NR_setfsuid => ids::sys_setfsuid(1), Full;
    __NR_setfsgid => ids::sys_setfsgid(1), Full;
    __NR_getgroups => ids::sys_getgroups(2), Full;
    __NR_setgroups => ids::sys_setgroups(2), Full;
    __NR_capget => ids::sys_capget(2), Full;
    __NR_capset => ids::sys_capset(2), Full;

    // Transfers and descriptors.
    __NR_read => file::sys_read(3), Full;
    __NR_write => file::sys_write(3), Full;
    __NR_pread64 => file::sys_pread64(4), Full;
    __NR_pwrite64 => file::sys_pwrite64(4), Full;
    __NR_readv => file::sys_readv(3), Full;
    __NR_writev => file::sys_writev(3), Full;
    __NR_preadv => file::sys_preadv(4), Full;
    __NR_pwritev => file::sys_pwritev(4), Full;
    __NR_preadv2 => file::sys_preadv2(6), Full;
    __NR_pwritev2 => file::sys_pwritev2(6), Full;
    __NR_lseek => file::sys_lseek(3), Full;
    __NR_ioctl => file::sys_ioctl(3), Partial("the commands of the objects there are");
    __NR_close => file::sys_close(1), Full;
    __NR_close_range => file::sys_close_range(3), Full;
    __NR_dup => file::sys_dup(1), Full;
    __NR_dup2 => file::sys_dup2(2), Full;
    __NR_dup3 => file::sys_dup3(3), Full;
    __NR_fcntl => fcntl::sys_fcntl(3), Partial("no directory notices (EINVAL)");
    __NR_flock => fcntl::sys_flock(2), Full;
    __NR_fsync => file::sys_fsync(1), Full;
    __NR_fdatasync => file::sys_fsync(1), Full;
    __NR_sync => file::sys_sync(0), Full;
    __NR_syncfs => file::sys_syncfs(1), Full;
    __NR_sync_file_range => file::sys_sync_file_range(4), Full;
    __NR_ftruncate => file::sys_ftruncate(2), Full;
    __NR_fallocate => file::sys_fallocate(4), Partial("no collapsing or inserting of ranges");
    __NR_fadvise64 => file::sys_fadvise64(4), Full;
    __NR_readahead => file::sys_readahead(3), Full;

    __NR_sendfile => transfer::sys_sendfile(4), Full;
    __NR_splice => transfer::sys_splice(6), Full;
    __NR_tee => transfer::sys_tee(4), Full;
    __NR_vmsplice => transfer::sys_vmsplice(4), Full;
    __NR_copy_file_range => transfer::sys_copy_file_range(6), Full;

    // Objects behind a descriptor only.
    __NR_pipe => events::sys_pipe(1), Full;
    __NR_pipe2 => events::sys_pipe2(2), Full;
    __NR_eventfd => events::sys_eventfd(1), Full;
    __NR_eventfd2 => events::sys_eventfd2(2), Full;
    __NR_timerfd_create => events::sys_timerfd_create(2), Full;
    __NR_timerfd_settime => events::sys_timerfd_settime(4), Full;
    __NR_timerfd_gettime => events::sys_timerfd_gettime(2), Full;
    __NR_memfd_create => events::sys_memfd_create(2), Partial("no MFD_HUGETLB");

    __NR_inotify_init => events::sys_inotify_init(0), Full;
    __NR_inotify_init1 => events::sys_inotify_init1(1), Full;
    __NR_inotify_add_watch => events::sys_inotify_add_watch(3), Full;
    __NR_inotify_rm_watch => events::sys_inotify_rm_watch(2), Full;

    // Waiting for files.
    __NR_poll => poll::sys_poll(3), Full;
    __NR_ppoll => poll::sys_ppoll(5), Full;
    __NR_select => poll::sys_select(5), Full;
    __NR_pselect6 => poll::sys_pselect6(6), Full;
    __NR_epoll_create => poll::sys_epoll_create(1), Full;
    __NR_epoll_create1 => poll::sys_epoll_create1(1), Full;
    __NR_epoll_ctl => poll::sys_epoll_ctl(4), Full;
    __NR_epoll_wait => poll::sys_epoll_wait(4), Full;
    __NR_epoll_pwait => poll::sys_epoll_pwait(6), Full;
    __NR_epoll_pwait2 => poll::sys_epoll_pwait2(6), Full;

    // Files by name.
    __NR_open => fs::sys_open(3), Full;
    __NR_openat => fs::sys_openat(4), Full;
    __NR_openat2 => fs::sys_openat2(4), Partial("RESOLVE_CACHED always answers EAGAIN");
    __NR_creat => fs::sys_creat(2), Full;
    __NR_mkdir => fs::sys_mkdir(2), Full;
    __NR_mkdirat => fs::sys_mkdirat(3), Full;
    __NR_mknod => fs::sys_mknod(3), Partial("no device nodes (EPERM)");
    __NR_mknodat => fs::sys_mknodat(4), Partial("no device nodes (EPERM)");
    __NR_symlink => fs::sys_symlink(2), Full;
    __NR_symlinkat => fs::sys_symlinkat(3), Full;
    __NR_link => fs::sys_link(2), Full;
    __NR_linkat => fs::sys_linkat(5), Full;
    __NR_unlink => fs::sys_unlink(1), Full;
    __NR_unlinkat => fs::sys_unlinkat(3), Full;
    __NR_rmdir => fs::sys_rmdir(1), Full;
    __NR_rename => fs::sys_rename(2), Full;
    __NR_renameat => fs::sys_renameat(4), Full;
    __NR_renameat2 => fs::sys_renameat2(5), Partial("no RENAME_WHITEOUT");
    __NR_readlink => fs::sys_readlink(3), Full;
    __NR_readlinkat => fs::sys_readlinkat(4), Full;
    __NR_getdents => fs::sys_getdents(3), Full;
    __NR_getdents64 => fs::sys_getdents64(3), Full;
    __NR_chdir => fs::sys_chdir(1), Full;
    __NR_fchdir => fs::sys_fchdir(1), Full;
    __NR_chroot => fs::sys_chroot(1), Full;
    __NR_getcwd => fs::sys_getcwd(2), Full;
    __NR_umask => fs::sys_umask(1), Full;
    __NR_truncate => fs::sys_truncate(2), Full;
    __NR_mount => fs::sys_mount(0), Refused("the file tree is the manifest's (EPERM)");
    __NR_umount2 => fs::sys_mount(0), Refused("the file tree is the manifest's (EPERM)");
    __NR_pivot_root => fs::sys_mount(0), Refused("the file tree is the manifest's (EPERM)");
    __NR_move_mount => fs::sys_mount(0), Refused("the file tree is the manifest's (EPERM)");

    // Attributes of files.
    __NR_stat => stat::sys_stat(2), Full;
    __NR_lstat => stat::sys_lstat(2), Full;
    __NR_fstat => stat::sys_fstat(2), Full;
    __NR_newfstatat => stat::sys_newfstatat(4), Full;
    __NR_statx => stat::sys_statx(5), Full;
    __NR_statfs => stat::sys_statfs(2), Full;
    __NR_fstatfs => stat::sys_fstatfs(2), Full;
    __NR_chmod => attrs::sys_chmod(2), Full;
    __NR_fchmod => attrs::sys_fchmod(2), Full;
    __NR_fchmodat => attrs::sys_fchmodat(3), Full;
    __NR_fchmodat2 => attrs::sys_fchmodat2(4), Full;
    __NR_chown => attrs::sys_chown(3), Full;
    __NR_lchown => attrs::sys_lchown(3), Full;
    __NR_fchown => attrs::sys_fchown(3), Full;
    __NR_fchownat => attrs::sys_fchownat(5), Full;
    __NR_utimensat => attrs::sys_utimensat(4), Full;
    __NR_futimesat => attrs::sys_futimesat(3), Full;
    __NR_utimes => attrs::sys_utimes(2), Full;
    __NR_utime => attrs::sys_utime(2), Full;
    __NR_access => attrs::sys_access(2), Full;
    __NR_faccessat => attrs::sys_faccessat(3), Full;
    __NR_faccessat2 => attrs::sys_faccessat2(4), Full;
    __NR_getxattr => attrs::sys_getxattr(4), Full;
    __NR_setxattr => attrs::sys_setxattr(5), Full;
    __NR_listxattr => attrs::sys_listxattr(3), Full;
    __NR_removexattr => attrs::sys_removexattr(2), Full;
    __NR_lgetxattr => attrs::sys_lgetxattr(4), Full;
    __NR_lsetxattr => attrs::sys_lsetxattr(5), Full;
    __NR_llistxattr => attrs::sys_llistxattr(3), Full;
    __NR_lremovexattr => attrs::sys_lremovexattr(2), Full;
    __NR_fgetxattr => attrs::sys_fgetxattr(4), Full;
    __NR_fsetxattr => attrs::sys_fsetxattr(5), Full;
    __NR_flistxattr => attrs::sys_flistxattr(3), Full;
    __NR_fremovexattr => attrs::sys_fremovexattr(2), Full;

    // Sockets.
    __NR_socket => socket::sys_socket(3), Partial("unix, inet, inet6, packet, netlink route and sock_diag sockets; raw and packet sockets where the manifest grants them (EPERM)");
    __NR_socketpair => socket::sys_socketpair(4), Full;
    __NR_bind => socket::sys_bind(3), Full;
    __NR_listen => socket::sys_listen(2), Full;
    __NR_accept => socket::sys_accept(3), Full;
    __NR_accept4 => socket::sys_accept4(4), Full;
    __NR_connect => socket::sys_connect(3), Full;
    __NR_getsockname => socket::sys_getsockname(3), Full;
    __NR_getpeername => socket::sys_getpeername(3), Full;
    __NR_shutdown => socket::sys_shutdown(2), Full;
    __NR_setsockopt => socket::sys_setsockopt(5), Partial("filters of packet sockets only, no rings, marks, lists of senders of groups, UDP_GRO (ENOPROTOOPT)");
    __NR_getsockopt => socket::sys_getsockopt(5), Partial("as setsockopt; of TCP_INFO what segments tell: state, times, bytes and counts, no windows");
    __NR_sendto => socket::sys_sendto(6), Partial("no urgent data");
    __NR_sendmsg => socket::sys_sendmsg(3), Partial("as sendto");
    __NR_sendmmsg => socket::sys_sendmmsg(4), Partial("as sendto");
    __NR_recvfrom => socket::sys_recvfrom(6), Partial("no urgent data, no error queue");
    __NR_recvmsg => socket::sys_recvmsg(3), Partial("as recvfrom");
    __NR_recvmmsg => socket::sys_recvmmsg(5), Partial("as recvfrom");

    // Memory.
    __NR_mmap => memory::sys_mmap(6), Partial("no reserved huge pages: MAP_HUGETLB answers ENOMEM");
    __NR_munmap => memory::sys_munmap(2), Full;
    __NR_mprotect => memory::sys_mprotect(3), Full;
    __NR_mremap => memory::sys_mremap(5), Partial("MREMAP_DONTUNMAP for private anonymous memory");
    __NR_brk => memory::sys_brk(1), Full;
    __NR_madvise => memory::sys_madvise(3), Partial("no MERGEABLE, COLLAPSE, DONTNEED_LOCKED, GUARD_*");
    __NR_msync => memory::sys_msync(3), Full;
    __NR_mlock => memory::sys_mlock(2), Full;
    __NR_mlock2 => memory::sys_mlock2(3), Full;
    __NR_munlock => memory::sys_munlock(2), Full;
    __NR_mlockall => memory::sys_mlockall(1), Full;
    __NR_munlockall => memory::sys_munlockall(0), Full;
    __NR_mincore => memory::sys_mincore(3), Full;
    __NR_pkey_mprotect => memory::sys_pkey_mprotect(4), Partial("key -1 only");
    __NR_pkey_alloc => memory::sys_pkey_alloc(2), Refused("no protection keys (ENOSPC)");
    __NR_pkey_free => memory::sys_pkey_free(0), Refused("no protection keys (EINVAL)");
    __NR_remap_file_pages => memory::sys_remap_file_pages(0), Refused("deprecated (ENOSYS)");

    // Interprocess communication.
    __NR_shmget => ipc::sys_shmget(3), Partial("no SHM_HUGETLB (ENOMEM)");
    __NR_shmat => ipc::sys_shmat(3), Full;
    __NR_shmdt => ipc::sys_shmdt(1), Full;
    __NR_shmctl => ipc::sys_shmctl(3), Full;
    __NR_semget => ipc::sys_semget(3), Full;
    __NR_semop => ipc::sys_semop(3), Full;
    __NR_semtimedop => ipc::sys_semtimedop(4), Full;
    __NR_semctl => ipc::sys_semctl(4), Full;
    __NR_msgget => ipc::sys_msgget(2), Full;
    __NR_msgsnd => ipc::sys_msgsnd(4), Full;
    __NR_msgrcv => ipc::sys_msgrcv(5), Full;
    __NR_msgctl => ipc::sys_msgctl(3), Full;
    __NR_mq_open => ipc::sys_mq_open(4), Full;
    __NR_mq_unlink => ipc::sys_mq_unlink(1), Full;
    __NR_mq_timedsend => ipc::sys_mq_timedsend(5), Full;
    __NR_mq_timedreceive => ipc::sys_mq_timedreceive(5), Full;
    __NR_mq_notify => ipc::sys_mq_notify(2), Full;
    __NR_mq_getsetattr => ipc::sys_mq_getsetattr(3), Full;

    __NR_process_vm_readv => process_vm::sys_process_vm_readv(6), Full;
    __NR_process_vm_writev => process_vm::sys_process_vm_writev(6), Full;

    // Signals.
    __NR_rt_sigaction => signal::sys_rt_sigaction(4), Full;
    __NR_rt_sigprocmask => signal::sys_rt_sigprocmask(4), Full;
    __NR_rt_sigpending => signal::sys_rt_sigpending(2), Full;
    __NR_rt_sigsuspend => signal::sys_rt_sigsuspend(2), Full;
    __NR_rt_sigtimedwait => signal::sys_rt_sigtimedwait(4), Full;
    __NR_rt_sigqueueinfo => signal::sys_rt_sigqueueinfo(3), Full;
    __NR_rt_tgsigqueueinfo => signal::sys_rt_tgsigqueueinfo(4), Full;
    __NR_rt_sigreturn => signal::sys_rt_sigreturn(0), Full;
    __NR_sigaltstack => signal::sys_sigaltstack(2), Full;
    __NR_pause => signal::sys_pause(0), Full;
    __NR_kill => signal::sys_kill(2), Full;
    __NR_tkill => signal::sys_tkill(2), Full;
    __NR_tgkill => signal::sys_tgkill(3), Full;
    __NR_pidfd_send_signal => signal::sys_pidfd_send_signal(4), Full;
    __NR_restart_syscall => signal::sys_restart_syscall(0), Full;
    __NR_signalfd => signal::sys_signalfd(3), Full;
    __NR_signalfd4 => signal::sys_signalfd4(4), Full;

    // Futexes.
    __NR_futex => futex::sys_futex(6), Partial("threads have no priorities to inherit; locks that know their owner do the rest");
    __NR_futex_waitv => futex::sys_futex_waitv(5), Full;
    __NR_set_robust_list => futex::sys_set_robust_list(2), Full;
    __NR_get_robust_list => futex::sys_get_robust_list(3), Full;

    __NR_rseq => sched::sys_rseq(4), Full;
    __NR_membarrier => sched::sys_membarrier(3), Full;

    // Time.
    __NR_nanosleep => time::sys_nanosleep(2), Full;
    __NR_clock_nanosleep => time::sys_clock_nanosleep(4), Full;
    __NR_clock_gettime => time::sys_clock_gettime(2), Full;
    __NR_clock_getres => time::sys_clock_getres(2), Full;
    __NR_clock_settime => time::sys_clock_settime(2), Refused("the node's clock is not the capsule's (EPERM)");
    __NR_settimeofday => time::sys_settimeofday(2), Refused("the node's clock is not the capsule's (EPERM)");
    __NR_adjtimex => adjtime::sys_adjtimex(1), Partial("tells; the node's clock is not set from a capsule (EPERM)");
    __NR_clock_adjtime => adjtime::sys_clock_adjtime(2), Partial("as adjtimex");
    __NR_gettimeofday => time::sys_gettimeofday(2), Full;
    __NR_time => time::sys_time(1), Full;
    __NR_getitimer => timer::sys_getitimer(2), Full;
    __NR_setitimer => timer::sys_setitimer(3), Full;
    __NR_alarm => timer::sys_alarm(1), Full;
    __NR_timer_create => timer::sys_timer_create(3), Partial("no timers over the CPU time of another process");
    __NR_timer_settime => timer::sys_timer_settime(4), Full;
    __NR_timer_gettime => timer::sys_timer_gettime(2), Full;
    __NR_timer_getoverrun => timer::sys_timer_getoverrun(1), Full;
    __NR_timer_delete => timer::sys_timer_delete(1), Full;

    // Scheduling.
    __NR_sched_yield => sched::sys_sched_yield(0), Full;
    __NR_sched_getaffinity => sched::sys_sched_getaffinity(3), Full;
    __NR_sched_setaffinity => sched::sys_sched_setaffinity(3), Full;
    __NR_sched_getscheduler => policy::sys_sched_getscheduler(1), Full;
    __NR_sched_setscheduler => policy::sys_sched_setscheduler(3), Partial("no realtime policies (EPERM)");
    __NR_sched_getparam => policy::sys_sched_getparam(2), Full;
    __NR_sched_setparam => policy::sys_sched_setparam(2), Partial("no realtime policies (EPERM)");
    __NR_sched_get_priority_max => sched::sys_sched_get_priority_max(1), Full;
    __NR_sched_get_priority_min => sched::sys_sched_get_priority_min(1), Full;
    __NR_sched_rr_get_interval => sched::sys_sched_rr_get_interval(2), Full;
    __NR_sched_getattr => policy::sys_sched_getattr(4), Full;
    __NR_sched_setattr => policy::sys_sched_setattr(3), Partial("no realtime policies (EPERM)");
    __NR_getpriority => policy::sys_getpriority(2), Full;
    __NR_setpriority => policy::sys_setpriority(3), Full;
    __NR_getcpu => sched::sys_getcpu(2), Full;

    __NR_ioprio_get => hints::sys_ioprio_get(2), Full;
    __NR_ioprio_set => hints::sys_ioprio_set(3), Partial("kept and shown; requests are served in their order");
    __NR_get_mempolicy => hints::sys_get_mempolicy(5), Full;
    __NR_set_mempolicy => hints::sys_set_mempolicy(3), Partial("kept and shown; there is one node");
    __NR_mbind => hints::sys_mbind(6), Partial("checked and forgotten; there is one node");

    // Limits and what was used.
    __NR_getrusage => usage::sys_getrusage(2), Partial("CPU time, page faults and resident memory; the rest is zero");
    __NR_times => usage::sys_times(1), Full;
    __NR_getrlimit => usage::sys_getrlimit(2), Full;
    __NR_setrlimit => usage::sys_setrlimit(2), Partial("of RSS, locks and realtime only kept");
    __NR_prlimit64 => usage::sys_prlimit64(4), Partial("as setrlimit");

    // The system.
    __NR_vhangup => terminal::sys_vhangup(0), Full;
    __NR_uname => misc::sys_uname(1), Full;
    __NR_sethostname => misc::sys_sethostname(2), Full;
    __NR_setdomainname => misc::sys_setdomainname(2), Full;
    __NR_sysinfo => misc::sys_sysinfo(1), Partial("no load averages: always 1");
    __NR_sysfs => misc::sys_sysfs(3), Full;
    __NR_getrandom => misc::sys_getrandom(3), Full;

    // What no capsule gets.
    __NR_reboot => misc::sys_not_permitted(0), Refused("a capsule does not own the machine (EPERM)");
    __NR_kexec_load => misc::sys_not_permitted(0), Refused("a capsule does not own the machine (EPERM)");
    __NR_kexec_file_load => misc::sys_not_permitted(0), Refused("a capsule does not own the machine (EPERM)");
    __NR_init_module => misc::sys_not_permitted(0), Refused("there are no modules (EPERM)");
    __NR_finit_module => misc::sys_not_permitted(0), Refused("there are no modules (EPERM)");
    __NR_delete_module => misc::sys_not_permitted(0), Refused("there are no modules (EPERM)");
    __NR_iopl => misc::sys_iopl(1), Refused("devices are the kernel's (EPERM)");
    __NR_ioperm => misc::sys_ioperm(2), Refused("devices are the kernel's (EPERM)");
    __NR_swapon => misc::sys_not_permitted(0), Refused("there is no swap (EPERM)");
    __NR_swapoff => misc::sys_not_permitted(0), Refused("there is no swap (EPERM)");
    __NR_acct => misc::sys_not_permitted(0), Refused("the node accounts for capsules (EPERM)");
    __NR_syslog => misc::sys_not_permitted(0), Refused("the kernel's log is the owner's (EPERM)");
    __NR_setns => misc::sys_not_permitted(0), Refused("there are no namespaces (EPERM)");
    __NR_bpf => misc::sys_not_permitted(0), Refused("no programs in the kernel (EPERM)");
    __NR_perf_event_open => misc::sys_not_permitted(0), Refused("no performance counters (EPERM)");
    __NR_userfaultfd => misc::sys_not_permitted(0), Refused("page faults are the kernel's (EPERM)");
    __NR_io_uring_setup => misc::sys_not_there(0), Refused("programs go without (ENOSYS)");
    __NR_io_uring_enter => misc::sys_not_there(0), Refused("programs go without (ENOSYS)");
    __NR_io_uring_register => misc::sys_not_there(0), Refused("programs go without (ENOSYS)");
};

/// Runs the call that `regs` ask for; the value for `rax`.
#[inline]
pub(crate) fn dispatch(ctx: &mut Ctx<'_>) -> u64 {
    let number = ctx.regs.orig_rax as usize;
    match TABLE.get(number) {
        Some(row) => (row.entry)(ctx),
        None => missing(ctx),
    }
}

/// A call without a row.
#[cold]
fn missing(ctx: &mut Ctx<'_>) -> u64 {
    let number = ctx.regs.orig_rax as usize;
    if ctx.world().unknown_calls().count(number) {
        let name = NAMES.get(number).copied().filter(|n| !n.is_empty());
        log::warn!(
            "capsule {}: {} ({}) calls unknown system call {number} ({})",
            ctx.world().name(),
            ctx.process().pid(),
            ctx.thread().comm(),
            name.unwrap_or("?"),
        );
    }
    Errno::ENOSYS.to_rax()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name() {
        for (n, row) in TABLE.iter().enumerate() {
            assert!(row.status == Status::Missing || !NAMES[n].is_empty(), "{n}");
        }
        assert_eq!(
            (NAMES[0], NAMES[59], NAMES[449]),
            ("read", "execve", "futex_waitv")
        );
    }
}
