//! The memory calls as a program sees them: answers and error numbers.

use crate::testing::{DATA, Prog, Stage};
use linux_raw_sys::general as nr;
use machine::user;

const PAGE: usize = 4096;
const RW: usize = 3;
const PRIVATE: usize = 0x22;
const SHARED: usize = 0x21;
const FIXED: usize = 0x10;
const NO_REPLACE: usize = 0x10_0000;
const EPERM: i64 = -1;
const EBADF: i64 = -9;
const ENOMEM: i64 = -12;
const EFAULT: i64 = -14;
const EBUSY: i64 = -16;
const EEXIST: i64 = -17;
const EINVAL: i64 = -22;
const ENOSPC: i64 = -28;
const EOPNOTSUPP: i64 = -95;

fn mmap(p: &mut Prog<'_>, addr: usize, pages: usize, prot: usize, flags: usize) -> i64 {
    p.call(
        nr::__NR_mmap,
        &[addr, pages * PAGE, prot, flags, usize::MAX, 0],
    )
}

#[test]
fn mapping_and_unmapping() {
    Stage::new().run(|p| {
        let at = mmap(p, 0, 3, RW, PRIVATE) as usize;
        assert_eq!(at % PAGE, 0);
        user::write_value(at + 2 * PAGE, &5u64).unwrap();
        assert_eq!(p.call(nr::__NR_mprotect, &[at, 3 * PAGE, 1]), 0);
        assert!(user::write_value(at, &5u64).is_err());
        assert_eq!(mmap(p, at, 1, RW, PRIVATE | NO_REPLACE), EEXIST);
        assert_eq!(mmap(p, at, 1, RW, PRIVATE | FIXED), at as i64);
        assert_eq!(p.call(nr::__NR_munmap, &[at, 3 * PAGE]), 0);
        assert!(user::read_value::<u64>(at + 2 * PAGE).is_err());
        assert_eq!(p.call(nr::__NR_munmap, &[at, 3 * PAGE]), 0);
    });
}

#[test]
fn nonsense_has_the_error_numbers_of_linux() {
    Stage::new().run(|p| {
        assert_eq!(mmap(p, 0, 0, RW, PRIVATE), EINVAL);
        assert_eq!(mmap(p, 0, 1, RW, 0x20), EINVAL);
        assert_eq!(mmap(p, 0, 1, RW, 0x23 | 0x8_0000), EOPNOTSUPP);
        assert_eq!(mmap(p, 0, 1 << 40, RW, PRIVATE), ENOMEM);
        assert_eq!(mmap(p, 5, 1, RW, PRIVATE | FIXED), EINVAL);
        assert_eq!(mmap(p, 0, 1, RW, PRIVATE | FIXED), EPERM);
        assert_eq!(mmap(p, 0, 1, RW, 0x2), EBADF);
        assert_eq!(mmap(p, 0, 1, RW, PRIVATE | 0x4_0000), ENOMEM);
        let odd = p.call(nr::__NR_mmap, &[0, PAGE, RW, PRIVATE, 0, 5]);
        assert_eq!(odd, EINVAL);
        let at = mmap(p, 0, 2, RW, PRIVATE) as usize;
        assert_eq!(p.call(nr::__NR_munmap, &[at + 1, PAGE]), EINVAL);
        assert_eq!(p.call(nr::__NR_munmap, &[at, 0]), EINVAL);
        assert_eq!(p.call(nr::__NR_mprotect, &[at + 1, PAGE, 1]), EINVAL);
        assert_eq!(p.call(nr::__NR_mprotect, &[at, PAGE, 0x100]), EINVAL);
        assert_eq!(p.call(nr::__NR_mprotect, &[0x10000, PAGE, 1]), ENOMEM);
        assert_eq!(p.call(nr::__NR_madvise, &[at, PAGE, 12]), EINVAL);
        assert_eq!(p.call(nr::__NR_madvise, &[at, PAGE, 100]), EPERM);
        assert_eq!(p.call(nr::__NR_madvise, &[0x10000, PAGE, 4]), ENOMEM);
        assert_eq!(p.call(nr::__NR_mremap, &[at, PAGE, PAGE, 8, 0]), EINVAL);
        assert_eq!(p.call(nr::__NR_mremap, &[at, PAGE, PAGE, 2, at]), EINVAL);
        assert_eq!(
            p.call(nr::__NR_mremap, &[0x10000, PAGE, PAGE, 1, 0]),
            EFAULT
        );
        assert_eq!(p.call(nr::__NR_msync, &[at, PAGE, 5]), EINVAL);
        assert_eq!(p.call(nr::__NR_pkey_alloc, &[0, 0]), ENOSPC);
    });
}

#[test]
fn the_heap_and_moved_memory() {
    Stage::new().run(|p| {
        let at = mmap(p, 0, 2, RW, PRIVATE) as usize;
        user::write_value(at + PAGE, &7u64).unwrap();
        let to = p.call(nr::__NR_mremap, &[at, 2 * PAGE, 64 * PAGE, 1, 0]) as usize;
        assert_eq!(user::read_value::<u64>(to + PAGE), Ok(7));
        user::write_value(to + 63 * PAGE, &8u64).unwrap();
        assert_eq!(p.call(nr::__NR_madvise, &[to, 64 * PAGE, 4]), 0);
        assert_eq!(user::read_value::<u64>(to + PAGE), Ok(0));
        let end = p.call(nr::__NR_brk, &[0]);
        assert_eq!(p.call(nr::__NR_brk, &[1]), end);
    });
}

#[test]
fn locking_residency_and_writing_back() {
    Stage::new().run(|p| {
        let at = mmap(p, 0, 3, RW, SHARED) as usize;
        user::write_value(at + PAGE, &1u8).unwrap();
        assert_eq!(p.call(nr::__NR_mincore, &[at, 3 * PAGE, DATA]), 0);
        assert_eq!(p.get::<[u8; 3]>(DATA), [0, 1, 0]);
        assert_eq!(p.call(nr::__NR_mincore, &[at, 3 * PAGE, 0x10000]), EFAULT);
        assert_eq!(p.call(nr::__NR_mincore, &[0x10000, PAGE, DATA]), ENOMEM);
        assert_eq!(p.call(nr::__NR_mlock, &[at, 3 * PAGE]), 0);
        assert_eq!(p.call(nr::__NR_mincore, &[at, 3 * PAGE, DATA]), 0);
        assert_eq!(p.get::<[u8; 3]>(DATA), [1; 3]);
        assert_eq!(p.call(nr::__NR_msync, &[at, PAGE, 2]), EBUSY);
        assert_eq!(p.call(nr::__NR_munlockall, &[]), 0);
        assert_eq!(p.call(nr::__NR_msync, &[at, 3 * PAGE, 4]), 0);
        assert_eq!(p.call(nr::__NR_mlock2, &[at, PAGE, 2]), EINVAL);
        assert_eq!(p.call(nr::__NR_mlockall, &[4]), EINVAL);
    });
}

#[test]
fn who_goes_first_when_memory_runs_out() {
    const EACCES: i64 = -13;
    Stage::new().run(|p| {
        p.put(DATA, b"/proc/self/oom_score_adj\0");
        let fd = p.call(nr::__NR_open, &[DATA, 1, 0]);
        assert!(fd >= 0, "{fd}");
        let write = |p: &mut Prog<'_>, text: &[u8; 4]| {
            p.put(DATA, text);
            p.call(nr::__NR_write, &[fd as usize, DATA, text.len()])
        };
        // Root of a capsule decides, also without CAP_SYS_RESOURCE.
        assert_eq!(write(p, b"-500"), 4);
        assert_eq!(write(p, b"-200"), 4);
        assert_eq!(p.call(nr::__NR_setuid, &[1000]), 0);
        assert_eq!(write(p, b"-201"), EACCES);
        assert_eq!(write(p, b"+100"), 4);
        assert_eq!(write(p, b"-200"), 4);
        assert_eq!(write(p, b"-999"), EACCES);
    });
}
