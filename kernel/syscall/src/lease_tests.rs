//! Leases from the system call down.

use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const EAGAIN: i64 = -11;
const READ: usize = 0;
const WRITE: usize = 1;
const NONE: usize = 2;
const RDWR: usize = 2;
const NONBLOCK: usize = 0o4000;
const SIGIO: u32 = 29;

fn open(p: &mut Prog<'_>, flags: usize) -> i64 {
    p.put(DATA + 0x200, b"/file\0");
    p.call(nr::__NR_open, &[DATA + 0x200, flags | 0o100, 0o600])
}

fn lease(p: &mut Prog<'_>, fd: i64, kind: usize) -> i64 {
    p.call(nr::__NR_fcntl, &[fd as usize, 1024, kind])
}

fn held(p: &mut Prog<'_>, fd: i64) -> i64 {
    p.call(nr::__NR_fcntl, &[fd as usize, 1025])
}

fn close(p: &mut Prog<'_>, fd: i64) {
    assert_eq!(p.call(nr::__NR_close, &[fd as usize]), 0);
}

#[test]
fn leases_depend_on_who_has_the_file_open() {
    Stage::new().run(|p| {
        let writer = open(p, RDWR);
        assert_eq!(held(p, writer), NONE as i64);
        assert_eq!(lease(p, writer, NONE), EAGAIN);
        assert_eq!(lease(p, writer, READ), EAGAIN);
        assert_eq!(lease(p, writer, 7), -22);
        assert_eq!(lease(p, writer, WRITE), 0);
        assert_eq!(held(p, writer), WRITE as i64);
        assert_eq!(open(p, NONBLOCK), EAGAIN);
        assert_eq!(held(p, writer), READ as i64);
        assert_eq!(lease(p, writer, NONE), 0);
        let reader = open(p, NONBLOCK);
        assert!(reader >= 0);
        assert_eq!(lease(p, writer, WRITE), EAGAIN);
        assert_eq!(lease(p, reader, READ), EAGAIN);
        close(p, writer);
        assert_eq!(lease(p, reader, READ), 0);
        // What is closed holds nothing.
        close(p, reader);
        let writer = open(p, RDWR | NONBLOCK);
        assert!(writer >= 0);
        let pipe = p.call(nr::__NR_pipe, &[DATA]);
        let end = i64::from(p.get::<i32>(DATA));
        assert_eq!((pipe, lease(p, end, READ)), (0, -22));
    });
}

#[test]
fn a_holder_is_told_and_waited_for() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    static FD: AtomicU32 = AtomicU32::new(0);
    let handler = code(|_| {
        TOLD.fetch_add(1, SeqCst);
    });
    let opener = code(|p| {
        let fd = open(p, RDWR);
        assert!(fd >= 0, "{fd}");
        // It came after the holder had seen it coming.
        p.exit(if TOLD.load(SeqCst) == 1 { 5 } else { 6 });
    });
    Stage::new().run(move |p| {
        p.handle(SIGIO, handler, 0);
        let fd = open(p, 0);
        assert_eq!(lease(p, fd, READ), 0);
        let pid = i64::from(p.fork(opener));
        while TOLD.load(SeqCst) == 0 {
            p.call(nr::__NR_getppid, &[]);
            p.nap();
        }
        // WNOHANG: it waits.
        assert_eq!(p.wait(pid, 1).0, 0);
        assert_eq!(held(p, fd), NONE as i64);
        assert_eq!(lease(p, fd, NONE), 0);
        assert_eq!(p.wait(pid, 0), (pid, 5 << 8));
        // truncate(2) is in the way as well.
        assert_eq!(lease(p, fd, READ), 0);
        FD.store(fd as u32, SeqCst);
        let cut = code(|p| {
            // Its copy of the descriptor would hold the lease, too.
            close(p, i64::from(FD.load(SeqCst)));
            p.put(DATA + 0x200, b"/file\0");
            let n = p.call(nr::__NR_truncate, &[DATA + 0x200, 9]);
            p.exit(n as usize & 0xff);
        });
        let pid = i64::from(p.fork(cut));
        while TOLD.load(SeqCst) == 1 {
            p.call(nr::__NR_getppid, &[]);
            p.nap();
        }
        close(p, fd);
        assert_eq!(p.wait(pid, 0), (pid, 0));
    });
}
