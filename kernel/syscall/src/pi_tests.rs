//! Locks that know their owner, from the system call down.

use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const EDEADLK: i64 = -35;
const EPERM: i64 = -1;
const EAGAIN: i64 = -11;
const ESRCH: i64 = -3;
const ETIMEDOUT: i64 = -110;
const LOCK: usize = 6;
const UNLOCK: usize = 7;
const TRYLOCK: usize = 8;
const WAITERS: u32 = 0x8000_0000;
const DIED: u32 = 0x4000_0000;

fn futex(p: &mut Prog<'_>, word: usize, op: usize) -> i64 {
    p.call(nr::__NR_futex, &[word, op, 0, 0])
}

/// Memory that children share.
fn shared(p: &mut Prog<'_>) -> usize {
    let args = [0, 4096, 3, 0x21, usize::MAX, 0];
    let at = p.call(nr::__NR_mmap, &args);
    assert!(at > 0, "{at}");
    at as usize
}

/// Waits until somebody waits for the lock.
fn contended(p: &Prog<'_>, word: usize) {
    while p.get::<u32>(word) & WAITERS == 0 {
        p.nap();
    }
    // The mark comes before the queue.
    p.nap();
}

#[test]
fn only_the_owner_unlocks() {
    Stage::new().run(|p| {
        let word = shared(p);
        assert_eq!(futex(p, word, UNLOCK), EPERM);
        assert_eq!(futex(p, word, LOCK), 0);
        assert_eq!(p.get::<u32>(word), 1);
        assert_eq!(futex(p, word, LOCK), EDEADLK);
        assert_eq!(futex(p, word, UNLOCK), 0);
        assert_eq!(p.get::<u32>(word), 0);
        assert_eq!(futex(p, word, TRYLOCK), 0);
        // A lock of nobody's.
        p.put(word, &77u32);
        assert_eq!(futex(p, word, LOCK), ESRCH);
        // One whose owner has ended is taken with the mark.
        p.put(word, &DIED);
        assert_eq!(futex(p, word, LOCK), 0);
        assert_eq!(p.get::<u32>(word), DIED | 1);
    });
}

#[test]
fn a_lock_is_handed_to_who_waits() {
    static WORD: AtomicUsize = AtomicUsize::new(0);
    static TRIED: AtomicUsize = AtomicUsize::new(0);
    let child = code(|p| {
        let word = WORD.load(SeqCst);
        assert_eq!(futex(p, word, TRYLOCK), EAGAIN);
        p.put(DATA + 0x100, &[1u64, 0]);
        let args = [word, LOCK, 0, DATA + 0x100];
        assert_eq!(p.call(nr::__NR_futex, &args), ETIMEDOUT);
        TRIED.fetch_add(1, SeqCst);
        assert_eq!(futex(p, word, LOCK), 0);
        let me = p.call(nr::__NR_gettid, &[]) as u32;
        assert_eq!(p.get::<u32>(word) & !WAITERS, me);
        p.put(word + 64, &(p.get::<u32>(word + 64) + 1));
        assert_eq!(futex(p, word, UNLOCK), 0);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let word = shared(p);
        WORD.store(word, SeqCst);
        assert_eq!(futex(p, word, LOCK), 0);
        for _ in 0..4 {
            p.fork(child);
        }
        while TRIED.load(SeqCst) < 4 {
            p.nap();
        }
        contended(p, word);
        assert_eq!(futex(p, word, UNLOCK), 0);
        for _ in 0..4 {
            assert_eq!(p.wait(-1, 0).1, 0);
        }
        assert_eq!((p.get::<u32>(word), p.get::<u32>(word + 64)), (0, 4));
    });
}

#[test]
fn a_lock_that_cannot_be_written_keeps_its_waiters() {
    const EFAULT: i64 = -14;
    static WORD: AtomicUsize = AtomicUsize::new(0);
    let child = code(|p| {
        let word = WORD.load(SeqCst);
        assert_eq!(futex(p, word, LOCK), 0);
        assert_eq!(futex(p, word, UNLOCK), 0);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let word = shared(p);
        WORD.store(word, SeqCst);
        assert_eq!(futex(p, word, LOCK), 0);
        p.fork(child);
        contended(p, word);
        let protect = |p: &mut Prog<'_>, rights| p.call(nr::__NR_mprotect, &[word, 4096, rights]);
        assert_eq!(protect(p, 1), 0);
        assert_eq!(futex(p, word, UNLOCK), EFAULT);
        assert_eq!(protect(p, 3), 0);
        assert_eq!(futex(p, word, UNLOCK), 0);
        assert_eq!(p.wait(-1, 0).1, 0);
        assert_eq!(p.get::<u32>(word), 0);
    });
}

#[test]
fn the_lock_of_the_dead_passes_on_marked() {
    static WORD: AtomicUsize = AtomicUsize::new(0);
    let child = code(|p| {
        let word = WORD.load(SeqCst);
        assert_eq!(futex(p, word, LOCK), 0);
        p.put(word + 64, &1u32);
        contended(p, word);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let word = shared(p);
        WORD.store(word, SeqCst);
        p.fork(child);
        while p.get::<u32>(word + 64) == 0 {
            p.nap();
        }
        assert_eq!(futex(p, word, LOCK), 0);
        assert_eq!(p.get::<u32>(word), DIED | 1);
        assert_eq!(futex(p, word, UNLOCK), 0);
        assert_eq!(p.wait(-1, 0).1, 0);
    });
}

#[test]
fn a_circle_is_refused() {
    static WORD: AtomicUsize = AtomicUsize::new(0);
    let child = code(|p| {
        let a = WORD.load(SeqCst);
        assert_eq!(futex(p, a + 4, LOCK), 0);
        p.put(a + 64, &1u32);
        assert_eq!(futex(p, a, LOCK), 0);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let a = shared(p);
        WORD.store(a, SeqCst);
        assert_eq!(futex(p, a, LOCK), 0);
        let child = i64::from(p.fork(child));
        while p.get::<u32>(a + 64) == 0 {
            p.nap();
        }
        contended(p, a);
        assert_eq!(futex(p, a + 4, LOCK), EDEADLK);
        assert_eq!(futex(p, a, UNLOCK), 0);
        assert_eq!(p.wait(child, 0), (child, 0));
    });
}

/// Copies between processes, and a running program that nobody can write.
#[test]
fn memory_of_others_and_busy_programs() {
    const ETXTBSY: i64 = -26;
    const EFAULT: i64 = -14;
    static WORD: AtomicUsize = AtomicUsize::new(0);
    let child = code(|p| {
        let word = WORD.load(SeqCst);
        p.put(DATA + 0x4000, b"in the child");
        p.put(word, &1u32);
        while p.get::<u32>(word) != 2 {
            p.nap();
        }
        assert_eq!(&p.get::<[u8; 12]>(DATA + 0x4000), b"by a parent!");
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let word = shared(p);
        WORD.store(word, SeqCst);
        let child = p.fork(child) as usize;
        while p.get::<u32>(word) != 1 {
            p.nap();
        }
        // Two local pieces, one remote.
        p.put(
            DATA + 0x100,
            &[DATA as u64 + 0x500, 7, DATA as u64 + 0x600, 50],
        );
        p.put(DATA + 0x200, &[DATA as u64 + 0x4000, 12]);
        let args = [child, DATA + 0x100, 2, DATA + 0x200, 1, 0];
        assert_eq!(p.call(nr::__NR_process_vm_readv, &args), 12);
        assert_eq!(&p.get::<[u8; 7]>(DATA + 0x500), b"in the ");
        assert_eq!(&p.get::<[u8; 5]>(DATA + 0x600), b"child");
        p.put(DATA + 0x500, b"by a pa");
        p.put(DATA + 0x600, b"rent!");
        assert_eq!(p.call(nr::__NR_process_vm_writev, &args), 12);
        p.put(DATA + 0x200, &[64u64, 12]);
        assert_eq!(p.call(nr::__NR_process_vm_readv, &args), EFAULT);
        p.put(word, &2u32);
        assert_eq!(p.wait(child as i64, 0), (child as i64, 0));
        assert_eq!(p.call(nr::__NR_process_vm_readv, &args), ESRCH);
        // The program that runs this.
        p.put(DATA, b"/init\0");
        assert_eq!(p.call(nr::__NR_open, &[DATA, 1, 0]), ETXTBSY);
        assert_eq!(p.call(nr::__NR_truncate, &[DATA, 0]), ETXTBSY);
        assert!(p.call(nr::__NR_open, &[DATA, 0, 0]) >= 0);
        // A copy that is open for writing is not run; one that is closed is.
        p.put(DATA, b"/copy\0");
        let fd = p.call(nr::__NR_open, &[DATA, 0o101, 0o755]);
        assert!(fd >= 0);
        assert_eq!(p.call(nr::__NR_execve, &[DATA, 0, 0]), ETXTBSY);
        assert_eq!(p.call(nr::__NR_close, &[fd as usize]), 0);
        assert_eq!(p.call(nr::__NR_execve, &[DATA, 0, 0]), -8);
        assert!(p.call(nr::__NR_open, &[DATA, 1, 0]) >= 0);
    });
}
