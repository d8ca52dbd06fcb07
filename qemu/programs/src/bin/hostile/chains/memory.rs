//! Memory that changes while it is used.

use super::Chain;
use crate::{
    objects::PAGE,
    raw::sys,
    worker::{child, pause, reap},
};
use std::ptr;

const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Reads or writes a byte of every page; whoever does may die of it.
fn touch(address: i64, pages: usize, write: bool) {
    for page in 0..pages {
        let at = (address as u64 + (page * PAGE) as u64) as *mut u8;
        // SAFETY: none: the process exists to have it done.
        unsafe {
            match write {
                true => ptr::write_volatile(at, 1),
                false => drop(ptr::read_volatile(at)),
            }
        }
    }
}

/// A mapped file becomes shorter while two processes use the mapping.
pub(super) fn shrunk_file(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let pages = 2 + random.below(30);
    let file = sys!(libc::SYS_memfd_create, c"shrunk".as_ptr(), 0);
    sys!(libc::SYS_ftruncate, file, pages * PAGE);
    let kind = random.of(&[libc::MAP_SHARED, libc::MAP_PRIVATE]);
    let at = sys!(libc::SYS_mmap, 0, pages * PAGE, BOTH, kind, file, 0);
    if at > 0 {
        let (write, left) = (random.once_in(2), random.below(pages * PAGE));
        let locked = random.once_in(4);
        let made = child(chain.shared, || {
            if locked {
                sys!(libc::SYS_mlock, at, pages * PAGE);
            }
            for _ in 0..20 {
                touch(at, pages, write);
            }
        });
        for size in [left, pages * PAGE, left / 2, 0] {
            sys!(libc::SYS_ftruncate, file, size);
            sys!(libc::SYS_fallocate, file, 3, 0, size);
            sys!(
                libc::SYS_madvise,
                at,
                pages * PAGE,
                random.of(&[4, 9, 22, 23])
            );
        }
        reap(made);
        sys!(libc::SYS_munmap, at, pages * PAGE);
    }
    sys!(libc::SYS_close, file);
}

/// A tree of processes with private and shared pages, of which some give theirs back.
pub(super) fn shared_and_forked(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let pages = 4 + random.below(60);
    let kind = random.of(&[libc::MAP_SHARED, libc::MAP_PRIVATE]) | libc::MAP_ANONYMOUS;
    let at = sys!(libc::SYS_mmap, 0, pages * PAGE, BOTH, kind, -1, 0);
    if at <= 0 {
        return;
    }
    touch(at, pages, true);
    let hole = at + (random.below(pages) * PAGE) as i64;
    let advice = random.of(&[4, 8, 9, 10, 18, 21]);
    let shared = chain.shared;
    let made = child(shared, || {
        let second = child(shared, || {
            touch(at, pages, true);
            sys!(libc::SYS_munmap, hole, PAGE);
            touch(at, pages, false);
        });
        sys!(libc::SYS_madvise, at, pages * PAGE, advice);
        touch(at, pages, true);
        reap(second);
    });
    sys!(libc::SYS_mprotect, hole, PAGE, libc::PROT_READ);
    sys!(libc::SYS_munmap, hole, PAGE);
    reap(made);
    sys!(libc::SYS_munmap, at, pages * PAGE);
}

/// A mapping is moved, grown and cut until little is left of it.
pub(super) fn remapped(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let mut pages = 8;
    let mut at = sys!(libc::SYS_mmap, 0, pages * PAGE, BOTH, 0x22, -1, 0);
    for _ in 0..12 {
        if at <= 0 {
            return;
        }
        let wanted = 1 + random.below(40);
        let start = at + (random.below(pages) * PAGE) as i64;
        let protection = random.of(&[0, 1, 3, 3, 3, 5]);
        sys!(libc::SYS_mprotect, start, PAGE, protection);
        sys!(libc::SYS_mprotect, at, pages * PAGE, BOTH);
        let moved = sys!(libc::SYS_mremap, at, pages * PAGE, wanted * PAGE, 1);
        if moved > 0 {
            (at, pages) = (moved, wanted);
            touch(at, pages, true);
        } else {
            sys!(libc::SYS_munmap, at, pages * PAGE);
            return;
        }
    }
    sys!(libc::SYS_munmap, at, pages * PAGE);
}

/// One process uses memory while another one, which shares all of it, throws it away.
pub(super) fn advised_by_two(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let pages = 16;
    let at = sys!(libc::SYS_mmap, 0, pages * PAGE, BOTH, 0x21, -1, 0);
    if at <= 0 {
        return;
    }
    let made = child(chain.shared, || {
        for _ in 0..30 {
            touch(at, pages, true);
        }
    });
    let remote = [at as u64, (pages * PAGE) as u64];
    for _ in 0..10 {
        let advice = random.of(&[4, 8, 9, 20, 21]);
        sys!(libc::SYS_madvise, at, pages * PAGE, advice);
        let room = chain.scratch.room(4096, random);
        let local = [room, 4096];
        sys!(
            libc::SYS_process_vm_readv,
            made,
            local.as_ptr(),
            1,
            remote.as_ptr(),
            1,
            0
        );
        pause(0);
    }
    reap(made);
    sys!(libc::SYS_munmap, at, pages * PAGE);
}
