//! Resource limits that are held to, by the calls that run into them.

use crate::testing::{DATA, Stage, code};
use linux_raw_sys::general as nr;
use std::vec::Vec;

const PROCESSES: usize = 6;

#[test]
fn processes_are_counted_by_user() {
    let idle = code(|p| {
        p.call(nr::__NR_pause, &[]);
    });
    let user = code(move |p| {
        assert_eq!(p.call(nr::__NR_setuid, &[77]), 0);
        p.put(DATA, &[3u64, 3]);
        assert_eq!(p.call(nr::__NR_setrlimit, &[PROCESSES, DATA]), 0);
        let children: Vec<i64> = (0..2).map(|_| i64::from(p.fork(idle))).collect();
        assert_eq!(p.call_at(idle, nr::__NR_fork, &[]), -11);
        for pid in &children {
            assert_eq!(p.call(nr::__NR_kill, &[*pid as usize, 9]), 0);
        }
        // One that is not waited for counts on.
        assert_eq!(p.wait(children[0], 0).0, children[0]);
        p.fork(idle);
        assert_eq!(p.call_at(idle, nr::__NR_fork, &[]), -11);
        p.exit(7);
    });
    Stage::new().run(move |p| {
        // What root runs is not the user's.
        for _ in 0..4 {
            p.fork(idle);
        }
        let pid = i64::from(p.fork(user));
        assert_eq!(p.wait(pid, 0), (pid, 7 << 8));
    });
}
