//! System V objects and POSIX queues from the system call down.

use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

const EIDRM: i64 = -43;
const EINVAL: i64 = -22;
const EINTR: i64 = -4;
const CREATE: usize = 0o1000;
const ARG: usize = DATA + 0x400;
const TEXT: usize = DATA + 0x800;
const USR1: u32 = 10;

fn op(p: &mut Prog<'_>, id: i64, number: i16, change: i16, flags: i16) -> i64 {
    p.put(ARG, &[number, change, flags]);
    p.call(nr::__NR_semop, &[id as usize, ARG, 1])
}

fn value(p: &mut Prog<'_>, id: i64) -> i64 {
    p.call(nr::__NR_semctl, &[id as usize, 0, 12])
}

/// Memory that a parent and a child share, and semaphores that hand it over; what
/// the child took is given back when it ends.
#[test]
fn a_child_shares_memory_and_gives_semaphores_back() {
    static SEM: AtomicI64 = AtomicI64::new(0);
    static AT: AtomicI64 = AtomicI64::new(0);
    const UNDO: i16 = 0x1000;
    let child = code(|p| {
        let (sem, at) = (SEM.load(SeqCst), AT.load(SeqCst) as usize);
        // Waits for the parent's word.
        assert_eq!(op(p, sem, 0, -1, UNDO), 0);
        assert_eq!(p.get::<u64>(at), 77);
        p.put(at, &78u64);
        assert_eq!(value(p, sem), 0);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let shm = p.call(nr::__NR_shmget, &[0x1234, 8192, CREATE | 0o600]);
        assert!(shm >= 0, "{shm}");
        let at = p.call(nr::__NR_shmat, &[shm as usize, 0, 0]);
        assert!(at > 0, "{at}");
        p.put(at as usize, &77u64);
        let sem = p.call(nr::__NR_semget, &[0, 1, 0o600]);
        SEM.store(sem, SeqCst);
        AT.store(at, SeqCst);
        let child = i64::from(p.fork(child));
        assert_eq!(p.call(nr::__NR_shmctl, &[shm as usize, 2, TEXT]), 0);
        assert_eq!(p.get::<u64>(TEXT + 48), 8192);
        assert_eq!(p.get::<i32>(TEXT), 0x1234);
        assert_eq!(op(p, sem, 0, 1, 0), 0);
        assert_eq!(p.wait(child, 0), (child, 0));
        assert_eq!(p.get::<u64>(at as usize), 78);
        assert_eq!(value(p, sem), 1);
        // With the child its attachment has gone.
        assert_eq!(p.call(nr::__NR_shmctl, &[shm as usize, 2, TEXT]), 0);
        assert_eq!(p.get::<u64>(TEXT + 88), 1);
        assert_eq!(p.call(nr::__NR_shmctl, &[shm as usize, 0, 0]), 0);
        assert_eq!(p.call(nr::__NR_shmdt, &[at as usize]), 0);
        assert_eq!(p.call(nr::__NR_shmdt, &[at as usize]), EINVAL);
        assert_eq!(p.call(nr::__NR_shmctl, &[shm as usize, 2, TEXT]), EINVAL);
    });
}

#[test]
fn waiting_ends_by_signal_time_and_removal() {
    static SEM: AtomicI64 = AtomicI64::new(0);
    static TIME_IS_OVER: AtomicBool = AtomicBool::new(false);
    let handler = code(|_| {});
    let child = code(move |p| {
        p.handle(USR1, handler, 0);
        let sem = SEM.load(SeqCst);
        assert_eq!(op(p, sem, 0, -1, 0), EINTR);
        p.put(DATA + 0x900, &[0u64, 5_000_000]);
        p.put(ARG, &[0i16, -1, 0]);
        let args = [sem as usize, ARG, 1, DATA + 0x900];
        assert_eq!(p.call(nr::__NR_semtimedop, &args), -11);
        TIME_IS_OVER.store(true, SeqCst);
        assert_eq!(op(p, sem, 0, -1, 0), EIDRM);
        p.exit(5);
    });
    Stage::new().run(move |p| {
        let sem = p.call(nr::__NR_semget, &[0, 1, 0o600]);
        SEM.store(sem, SeqCst);
        let child = i64::from(p.fork(child));
        let waiting = |p: &mut Prog<'_>| p.call(nr::__NR_semctl, &[sem as usize, 0, 14]) == 1;
        while !waiting(p) {
            p.nap();
        }
        p.call(nr::__NR_kill, &[child as usize, USR1 as usize]);
        while !TIME_IS_OVER.load(SeqCst) || !waiting(p) {
            p.nap();
        }
        assert_eq!(p.call(nr::__NR_semctl, &[sem as usize, 0, 0]), 0);
        assert_eq!(p.wait(child, 0), (child, 5 << 8));
    });
}

#[test]
fn messages_of_both_kinds_cross() {
    Stage::new().run(|p| {
        let q = p.call(nr::__NR_msgget, &[0, 0o600]);
        p.put(ARG, &5i64);
        p.put(ARG + 8, b"hello");
        assert_eq!(p.call(nr::__NR_msgsnd, &[q as usize, ARG, 5, 0]), 0);
        p.put(ARG, &2i64);
        assert_eq!(p.call(nr::__NR_msgsnd, &[q as usize, ARG, 1, 0]), 0);
        let args = [q as usize, TEXT, 64, -9isize as usize, 0];
        assert_eq!(p.call(nr::__NR_msgrcv, &args), 1);
        assert_eq!(p.get::<i64>(TEXT), 2);
        assert_eq!(p.call(nr::__NR_msgctl, &[q as usize, 2, TEXT]), 0);
        // One message of five bytes is left.
        assert_eq!(p.get::<[u64; 2]>(TEXT + 72), [5, 1]);
        assert_eq!(p.call(nr::__NR_msgctl, &[q as usize, 0, 0]), 0);

        p.put(ARG, b"queue\0");
        let flags = 0o102;
        let fd = p.call(nr::__NR_mq_open, &[ARG, flags, 0o600, 0]);
        assert!(fd >= 0, "{fd}");
        p.put(TEXT, b"one");
        assert_eq!(
            p.call(nr::__NR_mq_timedsend, &[fd as usize, TEXT, 3, 4, 0]),
            0
        );
        assert_eq!(p.call(nr::__NR_mq_getsetattr, &[fd as usize, 0, TEXT]), 0);
        assert_eq!(p.get::<[u64; 4]>(TEXT), [0, 10, 8192, 1]);
        let args = [fd as usize, TEXT, 8192, ARG + 64, 0];
        assert_eq!(p.call(nr::__NR_mq_timedreceive, &args), 3);
        assert_eq!(p.get::<u32>(ARG + 64), 4);
        p.put(DATA + 0x900, &[1u64, 0]);
        let args = [fd as usize, TEXT, 8192, 0, DATA + 0x900];
        assert_eq!(p.call(nr::__NR_mq_timedreceive, &args), -110);
        assert_eq!(p.call(nr::__NR_mq_unlink, &[ARG]), 0);
    });
}

/// What the C library's thread for `SIGEV_THREAD` reads: that a message has come, or
/// that nobody will tell any more.
#[test]
fn a_queue_tells_on_a_socket() {
    const COOKIE: usize = DATA + 0x1000;
    const READ: usize = DATA + 0x1100;
    Stage::new().run(|p| {
        let socket = p.call(nr::__NR_socket, &[16, 3, 0]) as usize;
        p.put(DATA + 0x200, b"queue\0");
        let open = [DATA + 0x200, 0o102 | 0o4000, 0o600, 0];
        let queue = p.call(nr::__NR_mq_open, &open) as usize;
        p.put(COOKIE, &[7u8; 32]);
        let wish = |p: &mut Prog<'_>, fd: usize| {
            p.put(ARG, &(COOKIE as u64));
            p.put(ARG + 8, &[fd as u32, 2]);
            p.call(nr::__NR_mq_notify, &[queue, ARG])
        };
        let told = |p: &mut Prog<'_>| {
            let n = p.call(nr::__NR_recvfrom, &[socket, READ, 100, 0x40, 0, 0]);
            (n, p.get::<[u8; 32]>(READ)[30..].to_vec())
        };
        assert_eq!(wish(p, queue), -88);
        assert_eq!(wish(p, 99), -9);
        assert_eq!(wish(p, socket), 0);
        assert_eq!(wish(p, socket), -16);
        assert_eq!(told(p).0, -11);
        for _ in 0..2 {
            let send = [queue, COOKIE, 3, 0, 0];
            assert_eq!(p.call(nr::__NR_mq_timedsend, &send), 0);
        }
        assert_eq!(told(p), (32, [7, 1].to_vec()));
        assert_eq!(told(p).0, -11);
        assert_eq!(wish(p, socket), 0);
        assert_eq!(p.call(nr::__NR_mq_notify, &[queue, 0]), 0);
        assert_eq!(told(p), (32, [7, 2].to_vec()));
        // One that is closed hears nothing, and harms nobody.
        assert_eq!(wish(p, socket), 0);
        assert_eq!(p.call(nr::__NR_close, &[socket]), 0);
        assert_eq!(p.call(nr::__NR_close, &[queue]), 0);
    });
}
