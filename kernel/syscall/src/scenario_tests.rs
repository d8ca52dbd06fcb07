//! What processes do to each other, played through from the system call down.

use crate::testing::{DATA, News, Prog, Stage, code};
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use process::ExitStatus;
use process::signal::Signal;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

const ECHILD: i64 = -10;
const EINTR: i64 = -4;
const EAGAIN: i64 = -11;
const EPERM: i64 = -1;
const ESRCH: i64 = -3;
const USR1: u32 = 10;
const USR2: u32 = 12;
const CHLD: u32 = 17;
const SA_RESTART: u64 = 0x1000_0000;
const SA_RESETHAND: u64 = 0x8000_0000;
const SIG_IGN: u64 = 1;

fn pause(p: &mut Prog<'_>) -> i64 {
    p.call(nr::__NR_pause, &[])
}

fn kill(p: &mut Prog<'_>, pid: i64, signal: u32) -> i64 {
    p.call(nr::__NR_kill, &[pid as usize, signal as usize])
}

/// Sleeps for `ms` milliseconds.
fn sleep(p: &mut Prog<'_>, ms: u64) -> i64 {
    p.put(DATA + 0x100, &[ms / 1000, ms % 1000 * 1_000_000]);
    p.call(nr::__NR_nanosleep, &[DATA + 0x100, DATA + 0x200])
}

#[test]
fn the_first_process_gives_its_world_an_end() {
    let s = Stage::new();
    s.start(code(|p| p.exit(7)));
    assert_eq!(s.next(), News::Init(ExitStatus::Exited(7)));
    assert_eq!(s.next(), News::Empty);
}

#[test]
fn a_parent_learns_how_its_child_ended() {
    let child = code(|p| p.exit(3));
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(-1, 0), (pid, 3 << 8));
        assert_eq!(p.wait(-1, 0).0, ECHILD);
        assert_eq!(kill(p, pid, 0), ESRCH);
    });
}

#[test]
fn when_the_first_process_ends_all_others_are_killed() {
    let s = Stage::new();
    let forever = code(|p| {
        loop {
            pause(p);
        }
    });
    s.start(code(move |p| {
        for _ in 0..5 {
            p.fork(forever);
        }
        p.exit(0);
    }));
    assert_eq!(s.next(), News::Init(ExitStatus::Exited(0)));
    assert_eq!(s.next(), News::Empty);
    assert_eq!(s.world.thread_count().0, 0);
}

#[test]
fn orphans_are_adopted_and_waited_for() {
    static LEAF: AtomicU32 = AtomicU32::new(0);
    let leaf = code(|p| {
        while p.call(nr::__NR_getppid, &[]) != 1 {
            p.nap();
        }
        p.exit(4);
    });
    // Made to send no signal: whoever adopts it is told of an ordinary child.
    let middle = code(move |p| {
        let pid = p.call_at(leaf, nr::__NR_clone, &[0, 0, 0, 0, 0]);
        LEAF.store(u32::try_from(pid).unwrap_or(0), SeqCst);
    });
    Stage::new().run(move |p| {
        let middle = i64::from(p.fork(middle));
        assert_eq!(p.wait(middle, 0), (middle, 0));
        let leaf = i64::from(LEAF.load(SeqCst));
        assert_eq!(p.wait(-1, 0), (leaf, 4 << 8));
    });
}

#[test]
fn a_handler_runs_before_the_call_that_sent_the_signal_returns() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    static MASK: AtomicU64 = AtomicU64::new(0);
    let handler = code(|p| {
        let (signal, info) = (p.regs.rdi, p.regs.rsi as usize);
        let [signo, _, code]: [i32; 3] = p.get(info);
        let [pid, uid]: [i32; 2] = p.get(info + 16);
        assert_eq!((signo as u64, code, pid, uid), (signal, 0, 1, 0));
        p.call(nr::__NR_rt_sigprocmask, &[0, 0, DATA, 8]);
        MASK.store(p.get(DATA), SeqCst);
        SEEN.fetch_add(1, SeqCst);
    });
    Stage::new().run(move |p| {
        p.handle(USR1, handler, SA_RESETHAND);
        (p.regs.rbx, p.regs.r15) = (0x1234, 0x5678);
        let sp = p.regs.rsp;
        assert_eq!(kill(p, 1, USR1), 0);
        assert_eq!(SEEN.load(SeqCst), 1);
        assert_eq!(MASK.load(SeqCst), 1 << 9);
        assert_eq!((p.regs.rbx, p.regs.r15, p.regs.rsp), (0x1234, 0x5678, sp));
        p.call(nr::__NR_rt_sigprocmask, &[0, 0, DATA, 8]);
        assert_eq!(p.get::<u64>(DATA), 0);
        // The first process of a world is deaf to what it does not handle.
        assert_eq!(kill(p, 1, USR1), 0);
        assert_eq!(kill(p, 1, 9), 0);
        assert_eq!(SEEN.load(SeqCst), 1);
    });
}

#[test]
fn interrupted_calls_end_or_go_on_as_the_handler_says() {
    static HITS: AtomicU32 = AtomicU32::new(0);
    let handler = code(|_| {
        HITS.fetch_add(1, SeqCst);
    });
    let sender = code(|p| {
        for signal in [USR1, USR2] {
            for _ in 0..20 {
                p.nap();
            }
            kill(p, 1, signal);
        }
        for _ in 0..20 {
            p.nap();
        }
        p.exit(5);
    });
    Stage::new().run(move |p| {
        p.handle(USR1, handler, 0);
        p.handle(USR2, handler, SA_RESTART);
        let child = i64::from(p.fork(sender));
        // USR1 ends the wait, USR2 does not.
        assert_eq!(p.wait(child, 0).0, EINTR);
        assert_eq!(HITS.load(SeqCst), 1);
        assert_eq!(p.wait(child, 0), (child, 5 << 8));
        assert_eq!(HITS.load(SeqCst), 2);
    });
}

#[test]
fn an_interrupted_sleep_tells_what_is_left_and_an_ignored_signal_does_not_show() {
    let handler = code(|_| {});
    let sender = code(|p| {
        for signal in [18, USR1] {
            for _ in 0..8 {
                p.nap();
            }
            kill(p, 1, signal);
        }
    });
    Stage::new().run(move |p| {
        p.handle(USR1, handler, SA_RESTART);
        p.fork(sender);
        assert_eq!(sleep(p, 10_000), EINTR);
        let [seconds, _]: [u64; 2] = p.get(DATA + 0x200);
        assert!((8..10).contains(&seconds), "{seconds}");
        assert!(p.wait(-1, 0).0 > 0);
    });
}

#[test]
fn stopping_and_going_on_is_reported() {
    let child = code(|p| {
        loop {
            pause(p);
        }
    });
    Stage::new().run(move |p| {
        const WUNTRACED: usize = 2;
        const WCONTINUED: usize = 8;
        let pid = i64::from(p.fork(child));
        kill(p, pid, 19);
        assert_eq!(p.wait(pid, WUNTRACED), (pid, 0x137f));
        // Told once only.
        assert_eq!(p.wait(pid, WUNTRACED | 1).0, 0);
        kill(p, pid, 18);
        assert_eq!(p.wait(pid, WCONTINUED), (pid, 0xffff));
        kill(p, pid, 19);
        assert_eq!(p.wait(pid, WUNTRACED), (pid, 0x137f));
        // A stopped process cannot withstand this one.
        kill(p, pid, 9);
        assert_eq!(p.wait(pid, 0), (pid, 9));
    });
}

#[test]
fn a_parent_that_does_not_care_has_no_zombies() {
    let child = code(|_| {});
    Stage::new().run(move |p| {
        p.handle(CHLD, SIG_IGN, 0);
        p.fork(child);
        assert_eq!(p.wait(-1, 0).0, ECHILD);
    });
}

/// Flags of a thread as the C library makes it.
const THREAD: u32 = nr::CLONE_VM
    | nr::CLONE_FS
    | nr::CLONE_FILES
    | nr::CLONE_SIGHAND
    | nr::CLONE_THREAD
    | nr::CLONE_SYSVSEM
    | nr::CLONE_PARENT_SETTID
    | nr::CLONE_CHILD_CLEARTID
    | nr::CLONE_SETTLS;

/// Starts a thread that runs `f`; its number is at `tid_at` until it ends.
fn spawn(p: &mut Prog<'_>, f: u64, tid_at: usize) -> i64 {
    let stack = DATA + 0xf_0000;
    let args = [THREAD as usize, stack, tid_at, tid_at, 0x1000];
    p.call_at(f, nr::__NR_clone, &args)
}

/// Waits until the word at `addr` is no longer `value`.
fn futex_wait(p: &mut Prog<'_>, addr: usize, value: u32) {
    while p.get::<u32>(addr) == value {
        p.call(nr::__NR_futex, &[addr, 0, value as usize]);
    }
}

#[test]
fn threads_share_memory_and_are_joined_by_a_futex() {
    let thread = code(|p| {
        assert_eq!(p.call(nr::__NR_getpid, &[]), 1);
        assert_eq!(p.call(nr::__NR_gettid, &[]), 2);
        p.put(DATA + 0x300, &77u32);
        p.call(nr::__NR_exit, &[0]);
    });
    Stage::new().run(move |p| {
        let tid_at = DATA + 0x400;
        assert_eq!(spawn(p, thread, tid_at), 2);
        futex_wait(p, tid_at, 2);
        assert_eq!(p.get::<u32>(tid_at), 0);
        assert_eq!(p.get::<u32>(DATA + 0x300), 77);
        // It is no child.
        assert_eq!(p.wait(-1, 0).0, ECHILD);
    });
}

#[test]
fn exit_group_ends_threads_that_sleep() {
    let thread = code(|p| {
        loop {
            pause(p);
        }
    });
    let child = code(move |p| {
        spawn(p, thread, DATA + 0x400);
        spawn(p, thread, DATA + 0x500);
        p.exit(9);
    });
    Stage::new().run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, 0), (pid, 9 << 8));
    });
}

#[test]
fn execve_by_another_thread_takes_the_number_of_the_first() {
    let s = Stage::new();
    let fresh = code(|p| {
        let pid = p.call(nr::__NR_getpid, &[]);
        assert_eq!(p.call(nr::__NR_gettid, &[]), pid);
        p.exit(21);
    });
    s.install("/fresh", fresh);
    s.write("/script", b"#!/fresh arg\n");
    let thread = code(|p| {
        p.put(DATA, b"/script\0");
        p.put(DATA + 0x100, &[DATA as u64, 0]);
        p.call(nr::__NR_execve, &[DATA, DATA + 0x100, 0]);
        unreachable!("execve came back");
    });
    let child = code(move |p| {
        spawn(p, thread, DATA + 0x400);
        loop {
            pause(p);
        }
    });
    s.run(move |p| {
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, 0), (pid, 21 << 8));
        p.put(DATA, b"/nothing\0");
        assert_eq!(p.call(nr::__NR_execve, &[DATA, 0, 0]), -2);
        p.put(DATA, b"/\0");
        assert_eq!(p.call(nr::__NR_execve, &[DATA, 0, 0]), -13);
    });
}

#[test]
fn a_vfork_parent_waits_for_the_memory() {
    let child = code(|p| {
        p.nap();
        p.put(DATA + 0x300, &1u32);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        p.put(DATA + 0x300, &0u32);
        let pid = p.call_at(child, nr::__NR_vfork, &[]);
        assert_eq!(p.get::<u32>(DATA + 0x300), 1);
        assert_eq!(p.wait(pid, 0), (pid, 0));
    });
}

#[test]
fn blocked_signals_are_fetched_by_sigtimedwait() {
    Stage::new().run(|p| {
        let set = DATA + 0x600;
        p.put(set, &(1u64 << (USR1 - 1)));
        p.call(nr::__NR_rt_sigprocmask, &[0, set, 0, 8]);
        p.put(DATA, &[0u64, 1_000_000]);
        let fetch = [set, DATA + 0x700, DATA, 8];
        assert_eq!(p.call(nr::__NR_rt_sigtimedwait, &fetch), EAGAIN);
        p.call(nr::__NR_tgkill, &[1, 1, USR1 as usize]);
        p.call(nr::__NR_rt_sigpending, &[DATA + 0x800, 8]);
        assert_eq!(p.get::<u64>(DATA + 0x800), 1 << (USR1 - 1));
        assert_eq!(p.call(nr::__NR_rt_sigtimedwait, &fetch), i64::from(USR1));
        let [signo, _, code]: [i32; 3] = p.get(DATA + 0x700);
        assert_eq!((signo, code), (USR1 as i32, -6));
        // And by a descriptor.
        let fd = p.call(nr::__NR_signalfd4, &[usize::MAX, set, 8, 0]) as usize;
        kill(p, 1, USR1);
        assert_eq!(p.call(nr::__NR_read, &[fd, DATA, 256]), 128);
        assert_eq!(p.get::<u32>(DATA), USR1);
    });
}

#[test]
fn sigsuspend_brings_the_mask_back_after_the_handler() {
    let handler = code(|p| {
        p.call(nr::__NR_rt_sigprocmask, &[0, 0, DATA, 8]);
        p.put(DATA + 0x900, &p.get::<u64>(DATA));
    });
    Stage::new().run(move |p| {
        p.handle(USR1, handler, 0);
        let set = DATA + 0x600;
        p.put(set, &(1u64 << (USR1 - 1)));
        p.call(nr::__NR_rt_sigprocmask, &[0, set, 0, 8]);
        kill(p, 1, USR1);
        p.put(set, &(1u64 << (USR2 - 1)));
        assert_eq!(p.call(nr::__NR_rt_sigsuspend, &[set, 8]), EINTR);
        let both = 1u64 << (USR1 - 1) | 1 << (USR2 - 1);
        assert_eq!(p.get::<u64>(DATA + 0x900), both);
        p.call(nr::__NR_rt_sigprocmask, &[0, 0, DATA, 8]);
        assert_eq!(p.get::<u64>(DATA), 1 << (USR1 - 1));
    });
}

#[test]
fn other_users_processes_cannot_be_signalled() {
    let victim = code(|p| {
        loop {
            pause(p);
        }
    });
    let stranger = code(|p| {
        let victim: i64 = p.get(DATA + 0xa00);
        p.call(nr::__NR_setresuid, &[5, 5, 5]);
        assert_eq!(kill(p, victim, 9), EPERM);
        assert_eq!(p.call(nr::__NR_setuid, &[0]), EPERM);
        p.exit(1);
    });
    Stage::new().run(move |p| {
        let victim = i64::from(p.fork(victim));
        p.put(DATA + 0xa00, &victim);
        let stranger = i64::from(p.fork(stranger));
        assert_eq!(p.wait(stranger, 0), (stranger, 1 << 8));
        assert_eq!(kill(p, victim, 15), 0);
        assert_eq!(p.wait(victim, 0), (victim, 15));
    });
}

#[test]
fn an_interval_timer_beats_until_it_is_stopped() {
    static BEATS: AtomicU32 = AtomicU32::new(0);
    let handler = code(|_| {
        BEATS.fetch_add(1, SeqCst);
    });
    Stage::new().run(move |p| {
        p.handle(14, handler, 0);
        p.put(DATA, &[0u64, 3_000, 0, 3_000]);
        assert_eq!(p.call(nr::__NR_setitimer, &[0, DATA, 0]), 0);
        while BEATS.load(SeqCst) < 3 {
            pause(p);
        }
        p.put(DATA, &[0u64; 4]);
        assert_eq!(p.call(nr::__NR_setitimer, &[0, DATA, DATA + 0x100]), 0);
        let [_, interval, ..]: [u64; 4] = p.get(DATA + 0x100);
        assert_eq!(interval, 3_000);
    });
}

#[test]
fn memory_that_runs_out_costs_the_largest_process_of_the_capsule() {
    let s = Stage::limited(700);
    let hog = code(|p| {
        let args = [0, 16 << 20, 3, 0x22, usize::MAX, 0];
        let at = p.call(nr::__NR_mmap, &args) as usize;
        for page in 0..4096 {
            // The kernel's copy stands for the program's own touch.
            if machine::user::write_value(at + page * 4096, &1u8).is_err() {
                break;
            }
        }
        pause(p);
        p.exit(1);
    });
    s.start(code(move |p| {
        let pid = i64::from(p.fork(hog));
        assert_eq!(p.wait(pid, 0), (pid, 9));
    }));
    assert_eq!(s.next(), News::OutOfMemory(2));
    assert_eq!(s.next(), News::Init(ExitStatus::Exited(0)));
    assert_eq!(s.next(), News::Empty);
}

#[test]
fn the_owner_can_end_a_capsule_that_does_not_listen() {
    let s = Stage::new();
    s.start(code(|p| {
        loop {
            pause(p);
        }
    }));
    s.world.signal_init(Signal::TERM);
    s.world.signal_init(Signal::KILL);
    assert_eq!(s.next(), News::Init(ExitStatus::Killed(Signal::KILL)));
    assert_eq!(s.next(), News::Empty);
}

#[test]
fn zombies_count_against_the_limit() {
    let child = code(|_| {});
    Stage::new().run(move |p| {
        let mut made = 0;
        while p.call_at(child, nr::__NR_fork, &[]) > 0 {
            made += 1;
        }
        assert_eq!(made, 63);
        while p.wait(-1, 0).0 > 0 {
            made -= 1;
        }
        assert_eq!(made, 0);
    });
}

#[test]
fn a_fork_bomb_ends_at_the_limit() {
    let forever = code(|p| {
        loop {
            pause(p);
        }
    });
    Stage::new().run(move |p| {
        let mut made = 0;
        loop {
            match p.call_at(forever, nr::__NR_fork, &[]) {
                EAGAIN => break,
                pid => assert!(pid > 0),
            }
            made += 1;
        }
        assert_eq!(made, 63);
    });
}

/// The content of a file, up to 4 KiB of it.
fn read_file(p: &mut Prog<'_>, path: &str) -> Vec<u8> {
    let mut name = [0u8; 64];
    name[..path.len()].copy_from_slice(path.as_bytes());
    p.put(DATA, &name);
    let fd = p.call(nr::__NR_open, &[DATA, 0, 0]);
    assert!(fd >= 0, "{path}: {fd}");
    let n = p.call(nr::__NR_read, &[fd as usize, DATA, 4096]);
    p.call(nr::__NR_close, &[fd as usize]);
    let bytes: [u8; 4096] = p.get(DATA);
    bytes[..usize::try_from(n).expect(path)].to_vec()
}

#[test]
fn proc_tells_about_processes() {
    let child = code(|p| {
        loop {
            pause(p);
        }
    });
    Stage::new().run(move |p| {
        let text = |b: Vec<u8>| alloc::string::String::from_utf8(b).unwrap();
        assert_eq!(read_file(p, "/proc/self/cmdline"), b"init\0");
        let stat = text(read_file(p, "/proc/1/stat"));
        assert!(stat.starts_with("1 (init) R 0 1 1 0 -1 "), "{stat}");
        assert_eq!(stat.split_whitespace().count(), 52, "{stat}");
        let status = text(read_file(p, "/proc/self/status"));
        assert!(status.contains("\nPid:\t1\nPPid:\t0\n"), "{status}");
        let maps = text(read_file(p, "/proc/self/maps"));
        assert!(
            maps.contains("r-xp 00000000") && maps.contains("/init\n"),
            "{maps}"
        );
        assert!(maps.contains("[stack]"), "{maps}");
        let limits = text(read_file(p, "/proc/self/limits"));
        assert!(limits.contains("Max processes             64 "), "{limits}");
        for name in [
            "smaps",
            "smaps_rollup",
            "statm",
            "auxv",
            "oom_score",
            "comm",
        ] {
            let path = alloc::format!("/proc/thread-self/{name}");
            assert!(!read_file(p, &path).is_empty(), "{name}");
        }
        let pid = i64::from(p.fork(child));
        kill(p, pid, 19);
        p.wait(pid, 2);
        let stat = text(read_file(p, "/proc/2/stat"));
        assert!(stat.starts_with("2 (init) T 1 1 1 "), "{stat}");
        kill(p, pid, 9);
        while !text(read_file(p, "/proc/2/stat")).starts_with("2 (init) Z 1 ") {
            p.nap();
        }
        p.wait(pid, 0);
        p.put(DATA, b"/proc/2\0");
        assert_eq!(p.call(nr::__NR_open, &[DATA, 0, 0]), -2);
    });
}

#[test]
fn an_unknown_call_is_counted() {
    let s = Stage::new();
    s.start(code(|p| {
        assert_eq!(p.call(nr::__NR_add_key, &[]), -38);
        assert_eq!(p.call(100_000, &[]), -38);
    }));
    assert_eq!(s.next(), News::Init(ExitStatus::Exited(0)));
    let counts: Vec<_> = s.world.unknown_calls().iter().collect();
    assert_eq!(counts, [(248, 1), (511, 1)]);
}

/// Every call with arguments no program should make: none may panic, none may
/// withstand `SIGKILL`, and none may reach the first process.
#[test]
fn hostile_arguments_are_survived() {
    use crate::table::{NUMBERS, Status, TABLE};
    const NUMBER: usize = DATA + 0xf_f000;
    let values = [
        0,
        1,
        usize::MAX,
        1 << 63,
        0xffff_8000_0000_0000,
        DATA,
        DATA + 1,
        4096,
    ];
    let attacker = code(move |p| {
        let number: u32 = p.get(NUMBER);
        for i in 0..values.len() {
            let args: [usize; 6] =
                core::array::from_fn(|k| values[(i * (k + 1) + k) % values.len()]);
            p.call(number, &args);
        }
    });
    // A task that `clone` makes begins where the call was made.
    let makes_tasks = [
        nr::__NR_fork,
        nr::__NR_vfork,
        nr::__NR_clone,
        nr::__NR_clone3,
    ];
    let numbers: Vec<u32> = (0..NUMBERS as u32)
        .filter(|n| TABLE[*n as usize].status != Status::Missing)
        .filter(|n| !makes_tasks.contains(n) && *n != nr::__NR_rt_sigreturn)
        .collect();
    Stage::new().run(move |p| {
        for number in &numbers {
            p.put(NUMBER, number);
            let pid = i64::from(p.fork(attacker));
            for _ in 0..10 {
                p.nap();
                if p.wait(pid, 1).0 != 0 {
                    break;
                }
            }
            kill(p, pid, 9);
            while p.wait(-1, 0).0 > 0 {}
        }
    });
}

#[test]
fn a_timer_can_count_the_cpu_time_of_a_thread() {
    const THREAD_TIME: usize = 3;
    let of_thread = |tid: i32| ((!tid) << 3 | 2 | 4) as usize;
    Stage::new().run(move |p| {
        let me = p.call(nr::__NR_gettid, &[]) as i32;
        for clock in [THREAD_TIME, of_thread(me)] {
            assert_eq!(p.call(nr::__NR_timer_create, &[clock, 0, DATA]), 0);
            let id = p.get::<i32>(DATA) as usize;
            // An hour, which no test takes.
            p.put(DATA + 64, &[0u64, 0, 3600, 0]);
            assert_eq!(p.call(nr::__NR_timer_settime, &[id, 0, DATA + 64, 0]), 0);
            assert_eq!(p.call(nr::__NR_timer_gettime, &[id, DATA + 64]), 0);
            let left: [u64; 4] = p.get(DATA + 64);
            assert!((3590..=3600).contains(&left[2]), "{left:?}");
        }
        let stranger = of_thread(999);
        let answer = p.call(nr::__NR_timer_create, &[stranger, 0, DATA]);
        assert_eq!(answer, -22);
    });
}
