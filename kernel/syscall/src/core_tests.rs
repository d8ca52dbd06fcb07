//! Core files, and what `wait` tells of them.

use crate::testing::{DATA, Prog, Stage, code};
use linux_raw_sys::general as nr;
use std::vec;
use std::vec::Vec;

const CORE: usize = 4;
const SIGABRT: usize = 6;

fn set_limit(p: &mut Prog<'_>, bytes: u64) {
    p.put(DATA, &[bytes, u64::MAX]);
    assert_eq!(p.call(nr::__NR_setrlimit, &[CORE, DATA]), 0);
}

/// A child that aborts; its wait status.
fn aborted(p: &mut Prog<'_>) -> i32 {
    let child = code(|p| {
        p.put(DATA + 0x2000, b"remember");
        let me = p.call(nr::__NR_getpid, &[]) as usize;
        p.call(nr::__NR_kill, &[me, SIGABRT]);
        p.exit(1);
    });
    let pid = i64::from(p.fork(child));
    p.wait(pid, 0).1
}

fn open(p: &mut Prog<'_>, name: &[u8]) -> i64 {
    for (i, b) in name.iter().chain(&[0]).enumerate() {
        p.put(DATA + 0x4000 + i, b);
    }
    p.call(nr::__NR_open, &[DATA + 0x4000, 0, 0])
}

/// All of the file `core`.
fn core(p: &mut Prog<'_>) -> Vec<u8> {
    let fd = open(p, b"core");
    assert!(fd >= 0, "{fd}");
    let (fd, mut all) = (fd as usize, Vec::new());
    loop {
        let n = p.call(nr::__NR_read, &[fd, DATA + 0x6000, 0x8000]);
        assert!(n >= 0);
        if n == 0 {
            return all;
        }
        let mut part = vec![0; n as usize];
        machine::user::read(DATA + 0x6000, &mut part).unwrap();
        all.extend(part);
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Kind and content of each note.
fn notes(core: &[u8]) -> Vec<(u32, Vec<u8>)> {
    assert_eq!(word(core, 64), 4, "the notes come first");
    let (mut at, len) = (long(core, 72) as usize, long(core, 96) as usize);
    let (end, mut found) = (at + len, Vec::new());
    while at < end {
        let (name, len) = (word(core, at) as usize, word(core, at + 4) as usize);
        let kind = word(core, at + 8);
        let from = at + 12 + name.next_multiple_of(4);
        found.push((kind, core[from..from + len].to_vec()));
        at = from + len.next_multiple_of(4);
    }
    found
}

/// The bytes that the file has of memory at `addr`.
fn memory(core: &[u8], addr: u64, len: usize) -> Option<Vec<u8>> {
    let count = usize::from(u16::from_le_bytes([core[56], core[57]]));
    (1..count).map(|n| 64 + n * 56).find_map(|h| {
        let (at, start, size) = (long(core, h + 8), long(core, h + 16), long(core, h + 32));
        let from = (at + addr.checked_sub(start).filter(|d| *d < size)?) as usize;
        Some(core[from..from + len].to_vec())
    })
}

#[test]
fn a_core_file_has_threads_and_memory() {
    Stage::new().run(|p| {
        set_limit(p, u64::MAX);
        assert_eq!(aborted(p), 0x80 | SIGABRT as i32);
        let core = core(p);
        assert_eq!(&core[..4], b"\x7fELF");
        assert_eq!((core[16], core[18]), (4, 62));
        let data = memory(&core, DATA as u64 + 0x2000, 8).unwrap();
        assert_eq!(&data, b"remember");
        let notes = notes(&core);
        let kinds: Vec<u32> = notes.iter().map(|n| n.0).collect();
        assert_eq!(kinds[..5], [1, 3, 0x5349_4749, 6, 0x4649_4c45]);
        let status = &notes[0].1;
        assert_eq!((status.len(), word(status, 0)), (336, SIGABRT as u32));
        // The program counter, in the closure that stands for the kernel's calls.
        assert!((0x40_0000..0x42_0000).contains(&long(status, 112 + 128)));
        let program = &notes[1].1;
        assert_eq!((program.len(), &program[40..44]), (136, &b"init"[..]));
        assert_eq!(notes[2].1.len(), 128);
        let files = &notes[4].1;
        assert_eq!(long(files, 8), 4096);
        assert!(files.windows(5).any(|w| w == b"/init"));
    });
}

#[test]
fn siblings_are_in_a_core_file() {
    let sibling = code(|p| {
        p.call(nr::__NR_pause, &[]);
    });
    let child = code(move |p| {
        // CLONE_VM, FS, FILES, SIGHAND, THREAD.
        let flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;
        for _ in 0..3 {
            let args = [flags, DATA + 0x9_0000];
            assert!(p.call_at(sibling, nr::__NR_clone, &args) > 0);
        }
        p.nap();
        let me = p.call(nr::__NR_getpid, &[]) as usize;
        p.call(nr::__NR_kill, &[me, SIGABRT]);
        p.exit(1);
    });
    Stage::new().run(move |p| {
        set_limit(p, u64::MAX);
        let pid = i64::from(p.fork(child));
        assert_eq!(p.wait(pid, 0).1, 0x80 | SIGABRT as i32);
        let core = core(p);
        let notes = notes(&core);
        let threads = notes.iter().filter(|n| n.0 == 1);
        let mut tids: Vec<u32> = threads.map(|n| word(&n.1, 32)).collect();
        tids.sort_unstable();
        let first = pid as u32;
        assert_eq!(tids, [first, first + 1, first + 2, first + 3]);
    });
}

#[test]
fn limits_and_links_keep_cores_away() {
    Stage::new().run(|p| {
        // As a program starts: none.
        assert_eq!(aborted(p), SIGABRT as i32);
        assert_eq!(open(p, b"core"), -2);
        set_limit(p, 4095);
        assert_eq!(aborted(p), SIGABRT as i32);
        assert_eq!(open(p, b"core"), -2);
        // One that is cut off is one.
        set_limit(p, 8192);
        assert_eq!(aborted(p), 0x80 | SIGABRT as i32);
        assert!(core(p).len() <= 8192);
        // Not what looks like a trap.
        p.put(DATA + 0x5000, b"core\0");
        p.put(DATA + 0x5010, b"link\0");
        let link = [DATA + 0x5000, DATA + 0x5010];
        assert_eq!(p.call(nr::__NR_link, &link), 0);
        set_limit(p, u64::MAX);
        assert_eq!(aborted(p), SIGABRT as i32);
        // Nor of who wants none (PR_SET_DUMPABLE).
        assert_eq!(p.call(nr::__NR_unlink, &[DATA + 0x5010]), 0);
        assert_eq!(p.call(nr::__NR_prctl, &[4, 0]), 0);
        assert_eq!(aborted(p), SIGABRT as i32);
        assert_eq!(p.call(nr::__NR_prctl, &[4, 1]), 0);
        assert_eq!(aborted(p), 0x80 | SIGABRT as i32);
    });
}

#[test]
fn a_kill_ends_the_dump_of_a_large_mapping() {
    const SIGKILL: usize = 9;
    let child = code(|p| {
        // 1 TiB, shared and anonymous: years of reading, and not a byte to write.
        let (prot, flags) = (3, 0x1 | 0x20 | 0x4000);
        let args = [0, 1 << 40, prot, flags, usize::MAX, 0];
        assert!(p.call(nr::__NR_mmap, &args) > 0);
        let me = p.call(nr::__NR_getpid, &[]) as usize;
        p.call(nr::__NR_kill, &[me, SIGABRT]);
        p.exit(1);
    });
    Stage::new().run(move |p| {
        set_limit(p, u64::MAX);
        let pid = i64::from(p.fork(child));
        p.nap();
        assert_eq!(p.call(nr::__NR_kill, &[pid as usize, SIGKILL]), 0);
        // What there is by then is a core file that is cut off.
        let status = p.wait(pid, 0).1 & 0x7f;
        assert!(status == SIGABRT as i32 || status == SIGKILL as i32);
    });
}
