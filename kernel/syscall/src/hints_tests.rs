//! Hints and comparisons from the system call down.

use crate::testing::{DATA, Stage, code};
use linux_raw_sys::general as nr;

const EINVAL: i64 = -22;
const EFAULT: i64 = -14;
const EBADF: i64 = -9;

#[test]
fn policies_and_priorities_are_kept_and_inherited() {
    let child = code(|p| {
        assert_eq!(p.call(nr::__NR_ioprio_get, &[1, 0]), 2 << 13 | 5);
        assert_eq!(
            p.call(nr::__NR_get_mempolicy, &[DATA, DATA + 8, 64, 0, 0]),
            0
        );
        assert_eq!((p.get::<u32>(DATA), p.get::<u64>(DATA + 8)), (2, 1));
        p.exit(0);
    });
    Stage::new().run(move |p| {
        assert_eq!(p.call(nr::__NR_ioprio_get, &[1, 0]), 0);
        assert_eq!(p.call(nr::__NR_ioprio_set, &[1, 0, 4 << 13]), EINVAL);
        assert_eq!(p.call(nr::__NR_ioprio_set, &[1, 0, 2 << 13 | 5]), 0);
        p.put(DATA, &[1u64, 2]);
        // MPOL_BIND to the one node; to another; and without any.
        assert_eq!(p.call(nr::__NR_set_mempolicy, &[2, DATA, 65]), 0);
        assert_eq!(p.call(nr::__NR_set_mempolicy, &[2, DATA + 8, 65]), EINVAL);
        assert_eq!(p.call(nr::__NR_set_mempolicy, &[2, 0, 0]), EINVAL);
        assert_eq!(p.call(nr::__NR_mbind, &[DATA, 4096, 2, DATA, 65, 0]), 0);
        assert_eq!(p.call(nr::__NR_mbind, &[0x1000, 4096, 0, 0, 0, 0]), EFAULT);
        let child = i64::from(p.fork(child));
        assert_eq!(p.wait(child, 0), (child, 0));
    });
}

#[test]
fn descriptors_are_compared_and_taken() {
    let child = code(|p| {
        loop {
            p.call(nr::__NR_pause, &[]);
        }
    });
    Stage::new().run(move |p| {
        assert_eq!(p.call(nr::__NR_pipe2, &[DATA, 0]), 0);
        let [read, write]: [i32; 2] = p.get(DATA);
        let child = p.fork(child) as usize;
        let mut compare = |what: usize, a: i32, b: i32| {
            let args = [1, child, what, a as usize, b as usize];
            p.call(nr::__NR_kcmp, &args)
        };
        assert_eq!(compare(0, read, read), 0);
        assert_eq!((compare(0, read, write), compare(0, write, read)), (1, 2));
        assert_eq!((compare(1, 0, 0), compare(2, 0, 0)), (3, 3));
        assert_eq!(compare(0, 99, read), EBADF);
        assert_eq!(compare(9, 0, 0), EINVAL);
        let pidfd = p.call(nr::__NR_pidfd_open, &[child, 0]) as usize;
        let taken = p.call(nr::__NR_pidfd_getfd, &[pidfd, read as usize, 0]) as usize;
        assert_eq!(p.call(nr::__NR_kcmp, &[1, 1, 0, taken, read as usize]), 0);
        assert_eq!(p.call(nr::__NR_pidfd_getfd, &[pidfd, 77, 0]), EBADF);
        p.call(nr::__NR_kill, &[child, 9]);
        p.wait(child as i64, 0);
    });
}
