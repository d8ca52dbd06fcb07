//! Files and folders that two processes change at the same time.

use super::Chain;
use crate::{
    kinds::NUMBERS,
    objects::Class,
    raw::sys,
    worker::{child, descriptor, pause, reap},
};

/// Folders that are moved into each other, read, and removed, by two.
pub(super) fn moved_folders(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let names = [
        c"/tmp/d",
        c"/tmp/d/d",
        c"/tmp/d/d/x",
        c"/tmp/e",
        c"/tmp/e/x",
        c"/tmp/e/x/y",
    ];
    let mut orders = [(0, 0, 0); 24];
    for order in &mut orders {
        *order = (random.below(6), random.below(6), random.below(6));
    }
    let room = chain.scratch.room(4096, random);
    let work = || {
        for (what, from, to) in orders {
            let (from, to) = (names[from].as_ptr(), names[to].as_ptr());
            match what {
                0 => sys!(libc::SYS_mkdir, from, 0o777),
                1 => sys!(libc::SYS_rename, from, to),
                2 => sys!(libc::SYS_renameat2, -100, from, -100, to, 2),
                3 => sys!(libc::SYS_rmdir, from),
                4 => sys!(libc::SYS_chdir, from),
                _ => {
                    let folder = sys!(libc::SYS_open, from, libc::O_RDONLY, 0);
                    sys!(libc::SYS_getdents64, folder, room, 60);
                    sys!(libc::SYS_lseek, folder, what, 0);
                    sys!(libc::SYS_getdents64, folder, room, 4096);
                    sys!(libc::SYS_getcwd, room, 4096);
                    sys!(libc::SYS_close, folder)
                }
            };
        }
    };
    let made = child(chain.shared, work);
    work();
    sys!(libc::SYS_chdir, c"/tmp".as_ptr());
    reap(made);
}

/// Record locks of three owners that wait for each other, one of whom is killed.
pub(super) fn locks_of_two(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let file = descriptor(Class::File, random);
    let wait = random.of(&[7, 7, 38]);
    let mut locks = [[0u64; 4]; 6];
    for lock in &mut locks {
        // Kind, start and length: struct flock.
        *lock = [
            random.below(3) as u64,
            random.below(8) as u64,
            1 + random.below(8) as u64,
            0,
        ];
    }
    let work = |from: usize| {
        for turn in 0..locks.len() {
            let lock = &locks[(turn + from) % locks.len()];
            sys!(libc::SYS_fcntl, file, wait, lock.as_ptr());
        }
    };
    let one = child(chain.shared, || work(1));
    let other = child(chain.shared, || work(3));
    for lock in &locks {
        sys!(libc::SYS_fcntl, file, 6, lock.as_ptr());
        pause(1);
    }
    sys!(libc::SYS_kill, one.max(1 << 20), libc::SIGKILL);
    reap(one);
    reap(other);
}

/// Watches on files that come, go and change their names.
pub(super) fn watched(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let watcher = sys!(libc::SYS_inotify_init1, libc::O_NONBLOCK);
    let names = [c"/tmp/d", c"/tmp/d/w", c"/tmp/e/w", c"/tmp/e"];
    let room = chain.scratch.room(4096, random);
    for _ in 0..16 {
        let (one, other) = (random.of(&names).as_ptr(), random.of(&names).as_ptr());
        match random.below(7) {
            0 | 1 => sys!(
                libc::SYS_inotify_add_watch,
                watcher,
                one,
                random.of(&[0xfff, 0x8000_0400u32])
            ),
            2 => sys!(libc::SYS_inotify_rm_watch, watcher, 1 + random.below(4)),
            3 => sys!(libc::SYS_rename, one, other),
            4 => sys!(libc::SYS_unlink, one),
            5 => sys!(libc::SYS_read, watcher, room, random.of(&[16, 40, 4096])),
            _ => {
                let file = sys!(libc::SYS_open, one, libc::O_RDWR | libc::O_CREAT, 0o666);
                sys!(libc::SYS_write, file, room, 10);
                sys!(libc::SYS_close, file)
            }
        };
    }
    sys!(libc::SYS_close, watcher);
}

/// A program file with a wrong word in its headers is run.
pub(super) fn program_with_faults(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let program = sys!(libc::SYS_open, c"/bin/hostile".as_ptr(), libc::O_RDONLY, 0);
    let copy = sys!(libc::SYS_memfd_create, c"copy".as_ptr(), 0);
    sys!(libc::SYS_sendfile, copy, program, 0, 256 << 10);
    let wrong = random.of(&NUMBERS).to_ne_bytes();
    for _ in 0..1 + random.below(2) {
        // The file's header and those of its first segments.
        let at = random.below(64 + 56 * 6);
        let len = random.of(&[1, 2, 4, 8]);
        sys!(libc::SYS_pwrite64, copy, wrong.as_ptr(), len, at);
    }
    let script = random.once_in(4);
    if script {
        let text = random.of(&[
            "#!/tmp/a x\n",
            "#!\n",
            "#! /proc/self/exe",
            "#!/proc/self/fd/3 \t\n",
        ]);
        sys!(libc::SYS_pwrite64, copy, text.as_ptr(), text.len(), 0);
    }
    let made = child(chain.shared, || {
        let empty = [0u64];
        let list = empty.as_ptr();
        sys!(
            libc::SYS_execveat,
            copy,
            c"".as_ptr(),
            list,
            list,
            libc::AT_EMPTY_PATH
        );
    });
    reap(made);
    sys!(libc::SYS_close, copy);
    sys!(libc::SYS_close, program);
}
