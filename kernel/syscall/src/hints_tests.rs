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

#[test]
fn the_dead_have_a_policy_until_they_are_waited_for() {
    const ESRCH: i64 = -3;
    let child = code(|p| p.exit(0));
    Stage::new().run(move |p| {
        let child = i64::from(p.fork(child));
        // P_PID; WEXITED and WNOWAIT.
        let wait = [1, child as usize, 0, 4 | 0x0100_0000, 0];
        assert_eq!(p.call(nr::__NR_waitid, &wait), 0);
        let asked = [child as usize, DATA];
        p.put(DATA, &7i32);
        assert_eq!(p.call(nr::__NR_sched_getscheduler, &asked), 0);
        assert_eq!(p.call(nr::__NR_sched_getparam, &asked), 0);
        assert_eq!(p.get::<i32>(DATA), 0);
        assert_eq!(p.wait(child, 0), (child, 0));
        assert_eq!(p.call(nr::__NR_sched_getscheduler, &asked), ESRCH);
        assert_eq!(p.call(nr::__NR_sched_getparam, &asked), ESRCH);
    });
}

#[test]
fn options_refuse_arguments_that_have_no_meaning() {
    // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, PR_CAP_AMBIENT, PR_SET_SECUREBITS.
    let [set, get, ambient, secure] = [41, 42, 47, 28];
    const EPERM: i64 = -1;
    let child = code(move |p| {
        assert_eq!(p.call(nr::__NR_prctl, &[get]), 1);
        // PR_CAPBSET_DROP wants CAP_SETPCAP, and so do secure bits.
        assert_eq!(p.call(nr::__NR_setuid, &[1000]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[secure, 0]), EPERM);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        assert_eq!(p.call(nr::__NR_prctl, &[set, 1, 1]), EINVAL);
        assert_eq!(p.call(nr::__NR_prctl, &[get]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[set, 1]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[get, 1]), EINVAL);
        // PR_CAP_AMBIENT_CLEAR_ALL and PR_CAP_AMBIENT_IS_SET.
        assert_eq!(p.call(nr::__NR_prctl, &[ambient, 4, 1]), EINVAL);
        assert_eq!(p.call(nr::__NR_prctl, &[ambient, 4]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[ambient, 1, 7, 1]), EINVAL);
        assert_eq!(p.call(nr::__NR_prctl, &[ambient, 1, 7]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[secure, 0]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[secure, 1]), EINVAL);
        let child = i64::from(p.fork(child));
        assert_eq!(p.wait(child, 0), (child, 0));
    });
}
