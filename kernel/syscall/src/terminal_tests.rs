//! Terminals and jobs, played through from the system call down.

use crate::testing::{DATA, Prog, Stage, code};
use alloc::string::String;
use linux_raw_sys::general as nr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::SeqCst};

const EIO: i64 = -5;
const ENOTTY: i64 = -25;
const EPERM: i64 = -1;
const ENXIO: i64 = -6;
const RDWR: usize = 2;
const NOCTTY: usize = 0o400;
const TCGETS: usize = 0x5401;
const TCSETS: usize = 0x5402;
const TIOCSCTTY: usize = 0x540e;
const TIOCGPGRP: usize = 0x540f;
const TIOCSPGRP: usize = 0x5410;
const TIOCSTI: usize = 0x5412;
const TIOCGWINSZ: usize = 0x5413;
const TIOCSWINSZ: usize = 0x5414;
const FIONREAD: usize = 0x541b;
const TIOCNOTTY: usize = 0x5422;
const TIOCGSID: usize = 0x5429;
const TIOCGPTN: usize = 0x8004_5430;
const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTPEER: usize = 0x5441;
const WUNTRACED: usize = 2;
const HUP: u32 = 1;
const WINCH: u32 = 28;
const TTIN: i32 = 21;
const ARG: usize = DATA + 0x400;
const TEXT: usize = DATA + 0x800;

fn open(p: &mut Prog<'_>, path: &str, flags: usize) -> i64 {
    let mut name = [0u8; 32];
    name[..path.len()].copy_from_slice(path.as_bytes());
    p.put(ARG, &name);
    p.call(nr::__NR_openat, &[-100isize as usize, ARG, flags])
}

fn ioctl(p: &mut Prog<'_>, fd: i64, command: usize, arg: usize) -> i64 {
    p.call(nr::__NR_ioctl, &[fd as usize, command, arg])
}

/// A value that a command gives.
fn ask(p: &mut Prog<'_>, fd: i64, command: usize) -> Result<i32, i64> {
    match ioctl(p, fd, command, ARG) {
        0 => Ok(p.get(ARG)),
        e => Err(e),
    }
}

fn tell(p: &mut Prog<'_>, fd: i64, command: usize, value: i32) -> i64 {
    p.put(ARG, &value);
    ioctl(p, fd, command, ARG)
}

fn write(p: &mut Prog<'_>, fd: i64, text: &str) -> i64 {
    for (i, b) in text.bytes().enumerate() {
        p.put(TEXT + i, &b);
    }
    p.call(nr::__NR_write, &[fd as usize, TEXT, text.len()])
}

fn read(p: &mut Prog<'_>, fd: i64) -> Result<String, i64> {
    let n = p.call(nr::__NR_read, &[fd as usize, TEXT, 200]);
    if n < 0 {
        return Err(n);
    }
    let bytes: [u8; 200] = p.get(TEXT);
    Ok(String::from_utf8_lossy(&bytes[..n as usize]).into_owned())
}

/// Reads just `text`.
fn expect(p: &mut Prog<'_>, fd: i64, text: &str) {
    let mut seen = String::new();
    while seen.len() < text.len() {
        let n = p.call(nr::__NR_read, &[fd as usize, TEXT, text.len() - seen.len()]);
        assert!(n > 0, "{n} after {seen:?}");
        let bytes: [u8; 200] = p.get(TEXT);
        seen.push_str(&String::from_utf8_lossy(&bytes[..n as usize]));
    }
    assert_eq!(seen, text);
}

fn close(p: &mut Prog<'_>, fd: i64) {
    assert_eq!(p.call(nr::__NR_close, &[fd as usize]), 0);
}

/// A pair; the slave is opened without becoming a controlling terminal.
fn pair(p: &mut Prog<'_>) -> (i64, i64) {
    let master = open(p, "/dev/ptmx", RDWR);
    assert!(master >= 0, "{master}");
    assert_eq!(tell(p, master, TIOCSPTLCK, 0), 0);
    let slave = ioctl(p, master, TIOCGPTPEER, RDWR | NOCTTY);
    assert!(slave >= 0, "{slave}");
    (master, slave)
}

#[test]
fn a_pair_is_named_sized_and_set() {
    Stage::new().run(|p| {
        let (master, slave) = pair(p);
        assert_eq!(ask(p, master, TIOCGPTN), Ok(0));
        // The peer has the name that its number says.
        let link = alloc::format!("/proc/self/fd/{slave}");
        let mut name = [0u8; 32];
        name[..link.len()].copy_from_slice(link.as_bytes());
        p.put(ARG, &name);
        let n = p.call(nr::__NR_readlink, &[ARG, TEXT, 64]);
        let text: [u8; 10] = p.get(TEXT);
        assert_eq!((n, &text), (10, b"/dev/pts/0"));
        p.put(ARG, &[24u16, 80, 0, 0]);
        assert_eq!(ioctl(p, master, TIOCSWINSZ, ARG), 0);
        p.put(ARG, &[0u16; 4]);
        assert_eq!(ioctl(p, slave, TIOCGWINSZ, ARG), 0);
        assert_eq!(p.get::<[u16; 4]>(ARG), [24, 80, 0, 0]);
        assert_eq!(ioctl(p, slave, TCGETS, ARG), 0);
        let mut modes: [u32; 4] = p.get(ARG);
        assert_eq!(modes[3] & 0o12, 0o12);
        modes[3] &= !0o12;
        p.put(ARG, &modes);
        assert_eq!(ioctl(p, slave, TCSETS, ARG), 0);
        assert_eq!(write(p, master, "raw"), 3);
        assert_eq!(ask(p, slave, FIONREAD), Ok(3));
        assert_eq!(read(p, slave).as_deref(), Ok("raw"));
        assert_eq!(ioctl(p, slave, TIOCSTI, TEXT), EIO);
        assert_eq!(ask(p, slave, TIOCGPGRP), Err(ENOTTY));
        assert_eq!(ioctl(p, slave, TIOCGPTN, ARG), ENOTTY);
        close(p, master);
        assert_eq!(read(p, slave).as_deref(), Ok(""));
        assert_eq!(write(p, slave, "x"), EIO);
        assert_eq!(open(p, "/dev/tty", RDWR), ENXIO);
    });
}

/// The second process leads a session of its own with a terminal; the first one
/// holds the master and sees what becomes of it.
#[test]
fn a_session_has_a_terminal_and_loses_it() {
    static SLAVE: AtomicI64 = AtomicI64::new(0);
    static MASTER: AtomicI64 = AtomicI64::new(0);
    static HUNG: AtomicU32 = AtomicU32::new(0);
    static RESIZED: AtomicU32 = AtomicU32::new(0);
    let on_hup = code(|_| {
        HUNG.fetch_add(1, SeqCst);
    });
    let on_winch = code(|_| {
        RESIZED.fetch_add(1, SeqCst);
    });
    let leader = code(move |p| {
        let slave = SLAVE.load(SeqCst);
        // Only the first process is to hold the other end.
        let master = MASTER.load(SeqCst);
        close(p, master);
        let me = p.call(nr::__NR_setsid, &[]) as i32;
        assert_eq!(open(p, "/dev/tty", RDWR), ENXIO);
        assert_eq!(ioctl(p, slave, TIOCSCTTY, 0), 0);
        let tty = open(p, "/dev/tty", RDWR);
        assert_eq!(ask(p, tty, TIOCGPGRP), Ok(me));
        assert_eq!(ask(p, tty, TIOCGSID), Ok(me));
        assert_eq!(tell(p, tty, TIOCSPGRP, 1), EPERM);
        p.handle(HUP, on_hup, 0);
        p.handle(WINCH, on_winch, 0);
        assert_eq!(write(p, tty, "ready\n"), 6);
        while RESIZED.load(SeqCst) == 0 {
            p.call(nr::__NR_pause, &[]);
        }
        assert_eq!(write(p, tty, "resized\n"), 8);
        while HUNG.load(SeqCst) == 0 {
            p.call(nr::__NR_pause, &[]);
        }
        assert_eq!(read(p, tty).as_deref(), Ok(""));
        assert_eq!(open(p, "/dev/tty", RDWR), ENXIO);
        p.exit(9);
    });
    Stage::new().run(move |p| {
        let (master, slave) = pair(p);
        SLAVE.store(slave, SeqCst);
        MASTER.store(master, SeqCst);
        let child = i64::from(p.fork(leader));
        expect(p, master, "ready\r\n");
        p.put(ARG, &[50u16, 100, 0, 0]);
        assert_eq!(ioctl(p, master, TIOCSWINSZ, ARG), 0);
        expect(p, master, "resized\r\n");
        close(p, master);
        assert_eq!(p.wait(child, 0), (child, 9 << 8));
    });
}

/// A shell with one job: keys stop, continue and interrupt it, and reading in the
/// background stops it.
#[test]
fn jobs_are_controlled_from_the_keyboard() {
    static SLAVE: AtomicI64 = AtomicI64::new(0);
    let job = code(|p| {
        let tty = SLAVE.load(SeqCst);
        // As the shell does, too: whoever comes first.
        assert_eq!(p.call(nr::__NR_setpgid, &[0, 0]), 0);
        // Reads in the background until it is allowed to.
        let got = read(p, tty);
        assert_eq!(got.as_deref(), Ok("for the job\n"));
        write(p, tty, "read\n");
        loop {
            p.call(nr::__NR_pause, &[]);
        }
    });
    let shell = code(move |p| {
        let tty = SLAVE.load(SeqCst);
        let me = p.call(nr::__NR_setsid, &[]);
        assert_eq!(ioctl(p, tty, TIOCSCTTY, 0), 0);
        // As shells do: the signals of the background are not for them.
        p.put(DATA + 0x9000, &[1u64, 0, 0, 0]);
        for signal in [21, 22, 20, 2] {
            p.call(nr::__NR_rt_sigaction, &[signal, DATA + 0x9000, 0, 8]);
        }
        // A job does not inherit that: its handlers are reset by what follows.
        p.put(DATA + 0x9000, &[0u64, 0, 0, 0]);
        for signal in [21, 20, 2] {
            p.call(nr::__NR_rt_sigaction, &[signal, DATA + 0x9000, 0, 8]);
        }
        let child = i64::from(p.fork(job));
        assert_eq!(p.call(nr::__NR_setpgid, &[child as usize, 0]), 0);
        p.put(DATA + 0x9000, &[1u64, 0, 0, 0]);
        for signal in [20, 2] {
            p.call(nr::__NR_rt_sigaction, &[signal, DATA + 0x9000, 0, 8]);
        }
        // It stops when it reads, being in the background.
        assert_eq!(p.wait(child, WUNTRACED), (child, TTIN << 8 | 0x7f));
        assert_eq!(tell(p, tty, TIOCSPGRP, child as i32), 0);
        assert_eq!(p.call(nr::__NR_kill, &[(-child) as usize, 18]), 0);
        // ^Z stops it, ^C ends it.
        assert_eq!(p.wait(child, WUNTRACED), (child, 20 << 8 | 0x7f));
        assert_eq!(tell(p, tty, TIOCSPGRP, me as i32), 0);
        write(p, tty, "stopped\n");
        assert_eq!(tell(p, tty, TIOCSPGRP, child as i32), 0);
        assert_eq!(p.call(nr::__NR_kill, &[(-child) as usize, 18]), 0);
        write(p, tty, "again\n");
        assert_eq!(p.wait(child, WUNTRACED), (child, 2));
        assert_eq!(ioctl(p, tty, TIOCNOTTY, 0), 0);
        p.exit(0);
    });
    Stage::new().run(move |p| {
        let (master, slave) = pair(p);
        SLAVE.store(slave, SeqCst);
        // No echo, so that only programs speak.
        assert_eq!(ioctl(p, slave, TCGETS, ARG), 0);
        let mut modes: [u32; 4] = p.get(ARG);
        modes[3] &= !0o10;
        p.put(ARG, &modes);
        assert_eq!(ioctl(p, slave, TCSETS, ARG), 0);
        let child = i64::from(p.fork(shell));
        assert_eq!(write(p, master, "for the job\n"), 12);
        expect(p, master, "read\r\n");
        assert_eq!(write(p, master, "\x1a"), 1);
        expect(p, master, "stopped\r\nagain\r\n");
        p.nap();
        assert_eq!(write(p, master, "\x03"), 1);
        assert_eq!(p.wait(child, 0), (child, 0));
    });
}
