//! The limit on open files of a capsule: what counts, and that all of it is given
//! back.

use crate::testing::{DATA, Prog, Stage, code};
use alloc::sync::Arc;
use linux_raw_sys::general as nr;
use machine::Account;

const ENOENT: i64 = -2;
const ENFILE: i64 = -23;
const EMFILE: i64 = -24;
const AF_UNIX: usize = 1;
const SOCK_STREAM: usize = 1;
const O_CREAT: usize = 0o100;
const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;

fn eventfd(p: &mut Prog<'_>) -> i64 {
    p.call(nr::__NR_eventfd2, &[0, 0])
}

fn close(p: &mut Prog<'_>, fd: i64) {
    assert_eq!(p.call(nr::__NR_close, &[fd as usize]), 0);
}

/// A connected pair; `None` with the error when it is refused.
fn socketpair(p: &mut Prog<'_>) -> Result<[i64; 2], i64> {
    match p.call(nr::__NR_socketpair, &[AF_UNIX, SOCK_STREAM, 0, DATA]) {
        0 => Ok(p.get::<[i32; 2]>(DATA).map(i64::from)),
        e => Err(e),
    }
}

/// Sends a byte and the descriptor `what` through `socket`.
fn send_file(p: &mut Prog<'_>, socket: i64, what: i64) -> i64 {
    let (byte, iov, control, header) = (DATA + 0x100, DATA + 0x140, DATA + 0x180, DATA + 0x200);
    p.put(iov, &[byte as u64, 1]);
    p.put(control, &20u64);
    p.put(control + 8, &[SOL_SOCKET, SCM_RIGHTS, what as u32, 0]);
    p.put(header, &[0, 0, iov as u64, 1, control as u64, 24u64, 0]);
    p.call(nr::__NR_sendmsg, &[socket as usize, header, 0])
}

/// The address of a unix socket at `DATA + 0x300`; its length.
fn address(p: &Prog<'_>) -> usize {
    p.put(DATA + 0x300, &(AF_UNIX as u16));
    p.put(DATA + 0x302, b"\0meeting");
    10
}

/// A stage whose capsule may have `limit` open files.
fn stage(limit: usize) -> (Stage, Arc<Account>) {
    let s = Stage::new();
    s.account.set_files_limit(limit);
    let account = s.account.clone();
    (s, account)
}

#[test]
fn all_processes_together_have_one_limit() {
    let (s, account) = stage(20);
    let seen = account.clone();
    let child = code(move |p| {
        // What was inherited is open once, however many descriptors lead to it.
        assert_eq!(seen.files(), 8);
        for _ in 0..12 {
            assert!(eventfd(p) >= 0);
        }
        assert_eq!(eventfd(p), ENFILE);
        assert_eq!(socketpair(p), Err(ENFILE));
        assert_eq!(p.call(nr::__NR_pipe2, &[DATA, 0]), ENFILE);
        assert_eq!(p.call(nr::__NR_epoll_create1, &[0]), ENFILE);
        assert!(p.call(nr::__NR_dup, &[0]) > 0);
        assert_eq!(seen.files(), 20);
    });
    let mine = account.clone();
    s.run(move |p| {
        for _ in 0..8 {
            assert!(eventfd(p) >= 0);
        }
        let child = i64::from(p.fork(child));
        assert_eq!(p.wait(child, 0), (child, 0));
        assert_eq!(mine.files(), 8);
        assert_eq!(p.call(nr::__NR_dup2, &[0, 30]), 30);
        close(p, 0);
        assert_eq!(mine.files(), 8);
        close(p, 30);
        assert_eq!(mine.files(), 7);
    });
    assert_eq!(account.files(), 0);
}

#[test]
fn a_process_of_its_own_limit_is_told_so() {
    let (s, account) = stage(100);
    s.run(|p| {
        let last = (0..).map(|_| eventfd(p)).find(|fd| *fd < 0);
        assert_eq!(last, Some(EMFILE));
    });
    assert_eq!(account.files(), 0);
}

/// What nobody has a descriptor of any more counts as long as it lives, and then no
/// longer.
#[test]
fn what_is_in_flight_counts() {
    let (s, account) = stage(100);
    let mine = account.clone();
    s.run(move |p| {
        let [a, b] = socketpair(p).unwrap();
        for n in 1..=5 {
            let file = eventfd(p);
            assert_eq!(send_file(p, a, file), 1);
            close(p, file);
            assert_eq!(mine.files(), 2 + n);
        }
        // A pair that lies in the queue of another, with a file in its own.
        let [c, d] = socketpair(p).unwrap();
        let file = eventfd(p);
        assert_eq!(send_file(p, c, file), 1);
        assert_eq!(send_file(p, a, d), 1);
        for fd in [c, d, file] {
            close(p, fd);
        }
        assert_eq!(mine.files(), 2 + 5 + 2);
        // An epoll that watches both ends, and one that watches it.
        let outer = p.call(nr::__NR_epoll_create1, &[0]);
        let inner = p.call(nr::__NR_epoll_create1, &[0]);
        for (epoll, watched) in [(inner, a), (inner, b), (outer, inner)] {
            p.put(DATA, &[1u32, 7, 0]);
            let args = [epoll as usize, 1, watched as usize, DATA];
            assert_eq!(p.call(nr::__NR_epoll_ctl, &args), 0);
        }
        assert_eq!(mine.files(), 2 + 5 + 2 + 2);
    });
    assert_eq!(account.files(), 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_not_made() {
    let (s, account) = stage(3);
    s.run(|p| {
        let name = DATA + 0x100;
        p.put(name, b"/new\0");
        let open = |p: &mut Prog<'_>| p.call(nr::__NR_open, &[name, O_CREAT | 1, 0o600]);
        let taken = [eventfd(p), eventfd(p), eventfd(p)];
        assert_eq!(open(p), ENFILE);
        assert_eq!(p.call(nr::__NR_access, &[name, 0]), ENOENT);
        close(p, taken[0]);
        assert_eq!(open(p), 0);
        assert_eq!(p.call(nr::__NR_access, &[name, 0]), 0);
    });
    assert_eq!(account.files(), 0);
}

#[test]
fn a_connection_that_cannot_be_accepted_waits() {
    let (s, account) = stage(100);
    let mine = account.clone();
    s.run(move |p| {
        let socket = |p: &mut Prog<'_>| p.call(nr::__NR_socket, &[AF_UNIX, SOCK_STREAM, 0]);
        let (listener, client) = (socket(p) as usize, socket(p) as usize);
        let len = address(p);
        assert_eq!(p.call(nr::__NR_bind, &[listener, DATA + 0x300, len]), 0);
        assert_eq!(p.call(nr::__NR_listen, &[listener, 5]), 0);
        assert_eq!(p.call(nr::__NR_connect, &[client, DATA + 0x300, len]), 0);
        mine.set_files_limit(2);
        assert_eq!(p.call(nr::__NR_accept, &[listener, 0, 0]), ENFILE);
        mine.set_files_limit(3);
        assert_eq!(p.call(nr::__NR_accept, &[listener, 0, 0]), 2);
        assert_eq!(mine.files(), 3);
    });
    assert_eq!(account.files(), 0);
}

/// Threads pay for their kernel stacks.
#[test]
fn threads_are_paid_for() {
    let s = Stage::new();
    let account = s.account.clone();
    let mine = account.clone();
    let child = code(|p| {
        p.call(nr::__NR_pause, &[]);
    });
    s.run(move |p| {
        let before = mine.used();
        let child = i64::from(p.fork(child));
        assert!(mine.used() >= before + machine::thread::STACK_PAGES);
        p.call(nr::__NR_kill, &[child as usize, 9]);
        p.wait(child, 0);
        mine.set_limit(mine.used() + machine::thread::STACK_PAGES - 1);
        assert_eq!(p.call(nr::__NR_fork, &[]), -12);
    });
}

#[test]
fn only_unix_sockets_pass_files_and_others_do_not_mind() {
    const EDESTADDRREQ: i64 = -89;
    const AF_INET: usize = 2;
    const SOCK_DGRAM: usize = 2;
    let (s, account) = stage(20);
    s.run(move |p| {
        let socket = p.call(nr::__NR_socket, &[AF_INET, SOCK_DGRAM, 0]);
        let before = account.files();
        // It comes as far as asking where to.
        assert_eq!(send_file(p, socket, 0), EDESTADDRREQ);
        assert_eq!(account.files(), before);
    });
}
