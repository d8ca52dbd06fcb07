//! Semaphores, messages and locks in memory, whose users are killed.

use super::Chain;
use crate::{
    objects::PAGE,
    raw::sys,
    worker::{child, pause, reap},
};

/// Semaphores with adjustments to undo, messages and memory that are removed while
/// somebody waits for them.
pub(super) fn semaphores(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let create = libc::IPC_CREAT | 0o666;
    let set = sys!(libc::SYS_semget, libc::IPC_PRIVATE, 2, create);
    let queue = sys!(libc::SYS_msgget, libc::IPC_PRIVATE, create);
    let memory = sys!(libc::SYS_shmget, libc::IPC_PRIVATE, 4 * PAGE, create);
    let undo = random.of(&[0u16, 0x1000]);
    let mut made = [0; 3];
    for (at, made) in made.iter_mut().enumerate() {
        *made = child(chain.shared, || {
            let give = [0u16, 1, undo, 1, 0xffff, undo];
            let at_memory = sys!(libc::SYS_shmat, memory, 0, 0);
            let message = [1 + at as u64, 0, 0, 0];
            sys!(libc::SYS_semop, set, give.as_ptr(), 1);
            sys!(libc::SYS_msgsnd, queue, message.as_ptr(), 16, 0);
            sys!(libc::SYS_semop, set, give.as_ptr(), 2);
            sys!(libc::SYS_msgrcv, queue, message.as_ptr(), 16, 9, 0);
            sys!(libc::SYS_shmdt, at_memory);
        });
    }
    pause(2);
    let order = random.below(3);
    for turn in 0..3 {
        match (turn + order) % 3 {
            0 => sys!(libc::SYS_semctl, set, 0, libc::IPC_RMID, 0),
            1 => sys!(libc::SYS_msgctl, queue, libc::IPC_RMID, 0),
            _ => sys!(libc::SYS_kill, made[0].max(1 << 20), libc::SIGKILL),
        };
        pause(1);
    }
    sys!(libc::SYS_shmctl, memory, libc::IPC_RMID, 0);
    for made in made {
        reap(made);
    }
}

/// Locks of two processes in shared memory: waiting, moving waiters, inheriting, and
/// owners who die.
pub(super) fn locks_in_memory(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let at = sys!(libc::SYS_mmap, 0, PAGE, 3, 0x21, -1, 0);
    if at <= 0 {
        return;
    }
    let mut orders = [(0, 0, 0); 10];
    for order in &mut orders {
        let kind = random.of(&[0, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        *order = (kind, random.below(4) * 8, random.below(4) * 8);
    }
    // A list of robust locks: head, distance to the word, none pending.
    let list = at + 1024;
    // SAFETY: within the page just mapped.
    unsafe {
        let words = list as *mut u64;
        words.write(at as u64 + 16);
        words.add(1).write(0);
        words.add(2).write(0);
        (at as *mut u64).add(2).write(list as u64);
    }
    let time = [0u64, 2_000_000];
    let work = |robust: bool| {
        if robust {
            sys!(libc::SYS_set_robust_list, list, 24);
        }
        for (kind, one, other) in orders {
            let value = match kind {
                4 | 12 | 3 => 1,
                _ => 0,
            };
            let (one, other) = (at + one as i64, at + other as i64);
            sys!(
                libc::SYS_futex,
                one,
                kind,
                value,
                time.as_ptr(),
                other,
                u32::MAX
            );
        }
    };
    let first = child(chain.shared, || work(true));
    let second = child(chain.shared, || work(false));
    pause(1);
    sys!(libc::SYS_kill, first.max(1 << 20), libc::SIGKILL);
    reap(first);
    reap(second);
    sys!(libc::SYS_munmap, at, PAGE);
}
