//! What `/proc/PID` tells of a process's account: what it has read and written, and who
//! has logged in.

use crate::testing::{DATA, Prog, Stage, code};
use alloc::string::String;
use linux_raw_sys::general as nr;

const EPERM: i64 = -1;
const EBADF: i64 = -9;
const EISDIR: i64 = -21;
const EINVAL: i64 = -22;
const ESPIPE: i64 = -29;
const O_CREAT_RDWR: usize = 0o102;

fn open(p: &mut Prog<'_>, path: &str, flags: usize) -> usize {
    let mut name = [0u8; 64];
    name[..path.len()].copy_from_slice(path.as_bytes());
    p.put(DATA, &name);
    let fd = p.call(nr::__NR_open, &[DATA, flags, 0o600]);
    usize::try_from(fd).expect(path)
}

fn text(p: &mut Prog<'_>, path: &str) -> String {
    let fd = open(p, path, 0);
    let n = p.call(nr::__NR_read, &[fd, DATA, 4096]);
    p.call(nr::__NR_close, &[fd]);
    let bytes: [u8; 4096] = p.get(DATA);
    String::from_utf8(bytes[..usize::try_from(n).expect(path)].to_vec()).unwrap()
}

/// `rchar`, `wchar`, `syscr` and `syscw` of `path`, and the length of what told them.
fn io(p: &mut Prog<'_>, path: &str) -> ([usize; 4], usize) {
    let told = text(p, path);
    let mut all = told.lines().map(|l| l.split_once(": ").expect("a colon"));
    let [read, written, reads, writes] = ["rchar", "wchar", "syscr", "syscw"].map(|name| {
        let (found, value) = all.next().expect(name);
        assert_eq!(found, name);
        value.parse().expect(name)
    });
    let rest: alloc::vec::Vec<_> = all.collect();
    let none = ["read_bytes", "write_bytes", "cancelled_write_bytes"].map(|n| (n, "0"));
    assert_eq!(rest, none);
    ([read, written, reads, writes], told.len())
}

/// What `f` adds, without the look at it.
fn added(p: &mut Prog<'_>, f: impl FnOnce(&mut Prog<'_>)) -> [usize; 4] {
    let (before, look) = io(p, "/proc/self/io");
    f(p);
    let (after, _) = io(p, "/proc/self/io");
    let [read, written, reads, writes] = [0, 1, 2, 3].map(|i| after[i] - before[i]);
    [read - look, written, reads - 1, writes]
}

/// Makes a call that answers `expected`; what it adds.
fn call(p: &mut Prog<'_>, number: u32, args: &[usize], expected: i64) -> [usize; 4] {
    added(p, |p| {
        assert_eq!(p.call(number, args), expected, "{number}")
    })
}

#[test]
fn transfers_are_counted_as_linux_counts_them() {
    Stage::new().run(|p| {
        let fd = open(p, "/file", O_CREAT_RDWR);
        let deaf = open(p, "/file", 1);
        p.call(nr::__NR_pipe, &[DATA]);
        let [r, w] = p.get::<[i32; 2]>(DATA).map(|fd| fd as usize);
        let dir = open(p, "/", 0);
        let iov = DATA + 0x2000;
        p.put(iov, &[DATA as u64, 7, DATA as u64, 9]);
        for (number, args, answer, expected) in [
            (nr::__NR_write, &[fd, DATA, 5000][..], 5000, [0, 5000, 0, 1]),
            (nr::__NR_pwrite64, &[fd, DATA, 10, 3], 10, [0, 10, 0, 1]),
            (nr::__NR_writev, &[fd, iov, 2], 16, [0, 16, 0, 1]),
            (nr::__NR_pwritev, &[fd, iov, 2, 9], 16, [0, 16, 0, 1]),
            (nr::__NR_read, &[fd, DATA, 100], 0, [0, 0, 1, 0]),
            (nr::__NR_pread64, &[fd, DATA, 100, 0], 100, [100, 0, 1, 0]),
            (nr::__NR_preadv, &[fd, iov, 2, 0], 16, [16, 0, 1, 0]),
            (nr::__NR_preadv2, &[fd, iov, 2, 0], 16, [16, 0, 1, 0]),
            (nr::__NR_readv, &[fd, iov, 2], 0, [0, 0, 1, 0]),
            (nr::__NR_read, &[77, DATA, 1], EBADF, [0; 4]),
            (nr::__NR_read, &[deaf, DATA, 1], EBADF, [0; 4]),
            (nr::__NR_pread64, &[r, DATA, 1, 0], ESPIPE, [0; 4]),
            (nr::__NR_read, &[dir, DATA, 1], EISDIR, [0, 0, 1, 0]),
            (nr::__NR_sendfile, &[w, fd, 0, 0], 0, [0, 0, 1, 1]),
            (nr::__NR_write, &[w, DATA, 77], 77, [0, 77, 0, 1]),
            (nr::__NR_read, &[r, DATA, 100], 77, [77, 0, 1, 0]),
            (nr::__NR_getdents64, &[dir, DATA, 4], EINVAL, [0; 4]),
        ] {
            assert_eq!(call(p, number, args, answer), expected, "{number} {args:?}");
        }
        p.call(nr::__NR_lseek, &[fd, 0, 0]);
        let sent = call(p, nr::__NR_sendfile, &[w, fd, 0, 300], 300);
        assert_eq!(sent, [300, 300, 1, 1]);
        let copied = call(p, nr::__NR_copy_file_range, &[fd, 0, deaf, 0, 100], 100);
        assert_eq!(copied, [100, 100, 1, 1]);
    });
}

#[test]
fn children_that_were_waited_for_count() {
    let grandchild = code(|p| {
        let fd = open(p, "/file", O_CREAT_RDWR);
        p.call(nr::__NR_write, &[fd, DATA, 1000]);
    });
    let child = code(move |p| {
        let pid = i64::from(p.fork(grandchild));
        p.wait(pid, 0);
        let own = io(p, "/proc/thread-self/io").0;
        assert_eq!(own[1], 0, "a thread's own are its own");
        assert_eq!(io(p, "/proc/self/io").0[1], 1000);
    });
    Stage::new().run(move |p| {
        let pid = p.fork(child);
        p.call(nr::__NR_waitid, &[1, pid as usize, DATA, 4 | 0x0100_0000]);
        assert_eq!(io(p, "/proc/self/io").0[1], 0, "it was only looked at");
        p.wait(pid.into(), 0);
        assert_eq!(io(p, "/proc/self/io").0[1], 1000);
    });
}

#[test]
fn a_login_is_said_once_and_inherited() {
    fn log_in(p: &mut Prog<'_>, path: &str, uid: &str) -> i64 {
        let fd = open(p, path, 1);
        let mut bytes = [0u8; 16];
        bytes[..uid.len()].copy_from_slice(uid.as_bytes());
        p.put(DATA, &bytes);
        p.call(nr::__NR_write, &[fd, DATA, uid.len()])
    }
    const NOBODY: &str = "4294967295";
    const LOGIN: &str = "/proc/self/loginuid";
    const SESSION: &str = "/proc/self/sessionid";
    let child = code(|p| {
        assert_eq!(text(p, LOGIN), "1000");
        assert_eq!(text(p, SESSION), "1");
        assert_eq!(log_in(p, "/proc/1/loginuid", "5"), EPERM, "another's");
        // Root may change it, others may not.
        assert_eq!(log_in(p, LOGIN, "1001"), 4);
        assert_eq!(
            (text(p, LOGIN).as_str(), text(p, SESSION).as_str()),
            ("1001", "2")
        );
        // Who has become another may not even open it any more.
        let fd = open(p, LOGIN, 1);
        assert_eq!(p.call(nr::__NR_setuid, &[1001]), 0);
        p.put(DATA, b"1002");
        assert_eq!(p.call(nr::__NR_write, &[fd, DATA, 4]), EPERM);
        assert_eq!(text(p, LOGIN), "1001");
    });
    Stage::new().run(move |p| {
        assert_eq!(
            (text(p, LOGIN).as_str(), text(p, SESSION).as_str()),
            (NOBODY, NOBODY)
        );
        assert_eq!(log_in(p, LOGIN, "root"), EINVAL);
        assert_eq!(log_in(p, LOGIN, "1000"), 4);
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, 0).1, 0);
        assert_eq!(text(p, LOGIN), "1000");
        assert_eq!(log_in(p, LOGIN, NOBODY), 10);
        assert_eq!(
            (text(p, LOGIN).as_str(), text(p, SESSION).as_str()),
            (NOBODY, NOBODY)
        );
    });
}
