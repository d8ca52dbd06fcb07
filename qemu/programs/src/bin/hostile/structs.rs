//! Structures that calls take: right in most of their parts, so that the kernel looks
//! at all of them, and wrong in some.

use crate::{
    kinds::{self, NUMBERS},
    objects::{self, PAGE},
    random::Random,
    scratch::Scratch,
};

/// The structures, after their names in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An integer of 4 or 8 bytes, small or not, to be read or written.
    Int,
    /// A length that fits what follows from it: a socket address's, an option's.
    Socklen,
    Sockaddr,
    Timespec,
    Timeval,
    Itimerspec,
    Itimerval,
    Utimes,
    Sigset,
    /// A set and its size behind a pointer, as `pselect6` takes.
    SigsetArgument,
    Sigaction,
    Sigevent,
    Siginfo,
    Stack,
    Iovecs,
    /// Of another process.
    RemoteIovecs,
    Msghdr,
    Mmsghdrs,
    EpollEvent,
    Pollfds,
    Fdset,
    Flock,
    Sembufs,
    Message,
    MqAttr,
    Rlimit,
    CloneArgs,
    OpenHow,
    Capabilities,
    SchedAttr,
    Futex,
    FutexWaiters,
    RobustList,
    Rseq,
    Termios,
    Arguments,
    Groups,
    Filter,
    Registers,
}

/// The largest structure, in bytes.
const LARGEST: usize = 512;

/// A structure on its way to memory.
struct Bytes {
    bytes: [u8; LARGEST],
    len: usize,
}

impl Bytes {
    fn new() -> Self {
        Self {
            bytes: [0; LARGEST],
            len: 0,
        }
    }

    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
        self
    }

    fn u16(&mut self, value: u64) -> &mut Self {
        self.add(&(value as u16).to_ne_bytes())
    }

    fn u32(&mut self, value: u64) -> &mut Self {
        self.add(&(value as u32).to_ne_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.add(&value.to_ne_bytes())
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.add(&[0; LARGEST][..count])
    }
}

/// Places a structure and returns its address; rarely none.
pub(crate) fn place(shape: Shape, scratch: &mut Scratch, random: &mut Random) -> u64 {
    if random.once_in(16) {
        return 0;
    }
    let mut bytes = Bytes::new();
    fill(shape, &mut bytes, scratch, random);
    if random.once_in(24) && bytes.len >= 8 {
        // One word of it is wrong.
        let at = random.below(bytes.len / 8) * 8;
        let wrong = kinds::wild(scratch, random);
        bytes.bytes[at..at + 8].copy_from_slice(&wrong.to_ne_bytes());
    }
    scratch.put(&bytes.bytes[..bytes.len], random)
}

fn fill(shape: Shape, to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    use Shape::*;
    match shape {
        Int | Socklen => integer(shape, to, random),
        Sockaddr => sockaddr(to, random),
        Timespec | Timeval | Itimerspec | Itimerval | Utimes => times(shape, to, random),
        Sigset | SigsetArgument | Sigaction | Sigevent | Siginfo | Stack => {
            signals(shape, to, scratch, random);
        }
        Iovecs | RemoteIovecs => iovecs(shape, to, scratch, random),
        Msghdr => msghdr(to, scratch, random),
        Mmsghdrs => {
            for _ in 0..3 {
                msghdr(to, scratch, random);
                to.u64(0);
            }
        }
        EpollEvent | Pollfds | Fdset => waits(shape, to, random),
        Sembufs | Message | MqAttr => ipc(shape, to, random),
        CloneArgs => clone_args(to, scratch, random),
        Futex | FutexWaiters | RobustList | Rseq => futexes(shape, to, scratch, random),
        Arguments => arguments(to, scratch, random),
        Filter => filter(to, scratch, random),
        _ => plain(shape, to, random),
    }
}

fn integer(shape: Shape, to: &mut Bytes, random: &mut Random) {
    let value = match shape {
        Shape::Socklen => random.of(&[0, 2, 3, 4, 8, 12, 16, 16, 28, 110, 128, 0xffff_ffff]),
        _ if random.once_in(4) => random.of(&NUMBERS),
        _ => random.below(8) as u64,
    };
    to.u64(value);
}

fn sockaddr(to: &mut Bytes, random: &mut Random) {
    let port = (7000 + random.below(4) as u64) as u16;
    match random.below(7) {
        0..3 => {
            let host = random.of(&[0x0100_007f, 0x0100_007f, 0, 0xffff_ffff, 0x0202_000a]);
            to.u16(libc::AF_INET as u64);
            to.u16(u64::from(port.to_be())).u32(host).u64(0);
        }
        3 => {
            to.u16(libc::AF_INET6 as u64);
            to.u16(u64::from(port.to_be())).u32(0).u64(0);
            to.u64(random.of(&[0, 1 << 56])).u32(0);
        }
        4 | 5 => {
            let name = random.of(&[
                "/tmp/socket\0",
                "/tmp/d/s\0",
                "\0abstract",
                "\0a",
                "/tmp/no/s\0",
            ]);
            to.u16(libc::AF_UNIX as u64).add(name.as_bytes()).zeros(97);
        }
        _ => {
            let family = random.of(&[0, 16, 17, 40, 0xffff]);
            to.u16(family).u16(0).u32(0).u64(random.any());
        }
    }
}

/// Seconds and parts, mostly short.
fn time(to: &mut Bytes, parts: u64, random: &mut Random) {
    match random.below(10) {
        0 => to.u64(random.of(&NUMBERS)).u64(random.of(&NUMBERS)),
        1 => to.u64(0).u64(0),
        2 => to.u64(random.below(3) as u64).u64(0),
        _ => to.u64(0).u64(random.next() % (parts / 100)),
    };
}

fn times(shape: Shape, to: &mut Bytes, random: &mut Random) {
    let (parts, count) = match shape {
        Shape::Timespec => (1_000_000_000, 1),
        Shape::Itimerspec | Shape::Utimes => (1_000_000_000, 2),
        Shape::Timeval => (1_000_000, 1),
        _ => (1_000_000, 2),
    };
    for _ in 0..count {
        time(to, parts, random);
    }
    if shape == Shape::Utimes && random.once_in(3) {
        let special = random.of(&[0x3fff_ffff, 0x3fff_fffe]);
        to.bytes[8..16].copy_from_slice(&u64::to_ne_bytes(special));
    }
}

/// A set of signals that seldom holds the one which ends waiting.
fn sigset(random: &mut Random) -> u64 {
    let set = match random.below(4) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        _ => random.any(),
    };
    let ping = 1 << (libc::SIGALRM - 1);
    if random.once_in(50) { set } else { set & !ping }
}

fn signals(shape: Shape, to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    match shape {
        Shape::Sigset => to.u64(sigset(random)),
        Shape::SigsetArgument => {
            let set = sigset(random);
            let set = scratch.put(&set.to_ne_bytes(), random);
            to.u64(set).u64(random.of(&[8, 8, 8, 16, 0]))
        }
        Shape::Sigaction => {
            let handler = match random.below(6) {
                0 => random.of(&NUMBERS),
                1 => 1,
                _ => crate::worker::ignore as *const () as u64,
            };
            let restorer = crate::worker::restore as *const () as u64;
            to.u64(handler)
                .u64(kinds::flags(&SA_FLAGS, random) | 0x0400_0000)
                .u64(restorer)
                .u64(sigset(random))
        }
        Shape::Sigevent => to
            .u64(random.any())
            .u32(kinds::signal(random))
            .u32(random.of(&[0, 0, 1, 4, 4, 2, 7]))
            .u32(kinds::pid(random) as u64)
            .zeros(44),
        Shape::Siginfo => to
            .u32(kinds::signal(random))
            .u32(0)
            .u32(random.of(&[0xffff_ffff, 0xffff_fffe, 0, 1, 0xffff_fffa]))
            .zeros(116),
        _ => {
            let (address, bytes) = objects::mapping(random);
            to.u64(address)
                .u64(random.of(&[0, 0, 1, 2, 4, 0x8000_0000]))
                .u64(bytes)
        }
    };
}

const SA_FLAGS: [i64; 8] = [
    0x4,
    0x2,
    0x1,
    0x0800_0000,
    0x1000_0000,
    0x4000_0000,
    0x8000_0000,
    0x800,
];

fn iovecs(shape: Shape, to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    for _ in 0..8 {
        let bytes = match random.below(12) {
            0 => random.of(&NUMBERS) as usize,
            1 => 0,
            2 => random.below(40_000),
            _ => random.below(400),
        };
        let base = match random.below(3) {
            _ if shape == Shape::RemoteIovecs => kinds::address(random),
            0 => kinds::address(random),
            _ => scratch.room(bytes.min(400), random),
        };
        to.u64(base).u64(bytes as u64);
    }
}

fn msghdr(to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    let name = match random.below(2) {
        0 => 0,
        _ => place(Shape::Sockaddr, scratch, random),
    };
    let iovecs = place(Shape::Iovecs, scratch, random);
    let (control, control_bytes) = match random.below(3) {
        0 => (0, 0),
        _ => control(scratch, random),
    };
    to.u64(name).u64(random.of(&[0, 16, 28, 110, 3]));
    to.u64(iovecs).u64(random.below(9) as u64);
    to.u64(control).u64(control_bytes).u64(0);
}

/// Control messages: descriptors, credentials, nonsense.
fn control(scratch: &mut Scratch, random: &mut Random) -> (u64, u64) {
    let mut bytes = Bytes::new();
    for _ in 0..1 + random.below(2) {
        let start = bytes.len;
        let (level, kind) = random.of(&[(1, 1), (1, 1), (1, 1), (1, 2), (0, 8), (41, 50), (6, 1)]);
        bytes.u64(0).u32(level).u32(kind);
        if kind == 2 {
            let own = crate::raw::sys!(libc::SYS_getpid) as u64;
            bytes.u32(own).u32(0).u32(0);
        } else {
            for _ in 0..random.below(5) {
                bytes.u32(objects::any_descriptor(random) as u64);
            }
        }
        let len = match random.below(12) {
            0 => random.of(&NUMBERS),
            _ => (bytes.len - start) as u64,
        };
        bytes.bytes[start..start + 8].copy_from_slice(&len.to_ne_bytes());
        bytes.zeros((8 - bytes.len % 8) % 8);
    }
    let len = bytes.len as u64;
    (scratch.put(&bytes.bytes[..bytes.len], random), len)
}

fn waits(shape: Shape, to: &mut Bytes, random: &mut Random) {
    match shape {
        Shape::EpollEvent => {
            let bits = [1, 4, 8, 16, 0x2000, 1 << 28, 1 << 29, 1 << 30, 1 << 31];
            to.u32(kinds::flags(&bits, random)).u64(random.any());
        }
        Shape::Pollfds => {
            for _ in 0..16 {
                to.u32(kinds::descriptor(None, random));
                to.u16(random.below(0x40) as u64).u16(0);
            }
        }
        _ => {
            for _ in 0..16 {
                to.u64(random.next() & random.next());
            }
        }
    }
}

fn ipc(shape: Shape, to: &mut Bytes, random: &mut Random) {
    match shape {
        Shape::Sembufs => {
            for _ in 0..6 {
                to.u16(random.of(&[0, 1, 2, 2, 3, 0xffff]));
                to.u16(random.of(&[0, 1, 1, 0xffff, 0xfffe, 0x7fff, 0x8000]));
                to.u16(random.of(&[0, 0x800, 0x1000, 0x1800, 0x1800]));
            }
        }
        Shape::Message => {
            let kind = random.of(&[1, 2, 3, 0, u64::MAX, i64::MAX as u64]);
            to.u64(kind).zeros(128);
        }
        _ => {
            to.u64(random.of(&[0, 0x800]));
            to.u64(random.of(&[1, 4, 10, u64::MAX, 1 << 30]));
            to.u64(random.of(&[1, 64, 8192, u64::MAX, 1 << 30]));
            to.zeros(40);
        }
    }
}

/// What may be asked of `clone`. Threads and shared memory come with their stack.
pub(crate) fn clone_flags(random: &mut Random) -> u64 {
    const VM: u64 = libc::CLONE_VM as u64;
    const THREAD: u64 = VM | (libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
    let base = random.of(&[0, 0, VM, VM | libc::CLONE_VFORK as u64, THREAD, THREAD]);
    base | kinds::flags(&CLONE_FLAGS, random)
}

const CLONE_FLAGS: [i64; 12] = [
    libc::CLONE_FS as i64,
    libc::CLONE_FILES as i64,
    libc::CLONE_SIGHAND as i64,
    libc::CLONE_PARENT as i64,
    libc::CLONE_SYSVSEM as i64,
    libc::CLONE_PARENT_SETTID as i64,
    libc::CLONE_CHILD_SETTID as i64,
    libc::CLONE_CHILD_CLEARTID as i64,
    libc::CLONE_PTRACE as i64,
    libc::CLONE_UNTRACED as i64,
    libc::CLONE_PIDFD as i64,
    libc::CLONE_NEWNS as i64,
];

fn clone_args(to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    let flags = clone_flags(random);
    let (stack, bytes) = crate::worker::stack(random);
    let signal = random.of(&[0, 17, 17, 17, 9, 65]);
    let signal = if flags & libc::CLONE_THREAD as u64 != 0 {
        0
    } else {
        signal
    };
    to.u64(flags).u64(scratch.room(8, random));
    to.u64(scratch.room(8, random)).u64(scratch.room(8, random));
    to.u64(signal).u64(stack).u64(bytes);
    to.u64(0).u64(0).u64(0).u64(0);
}

fn futexes(shape: Shape, to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    match shape {
        Shape::Futex => {
            let own = crate::raw::sys!(libc::SYS_gettid) as u64;
            to.u64(random.of(&[0, 0, 1, own, own | 1 << 31, 0x4000_0000, 0xffff_ffff]));
        }
        Shape::FutexWaiters => {
            for _ in 0..4 {
                let word = kinds::address(random);
                to.u64(0).u64(word).u32(random.of(&[2, 2, 0x82, 0])).u32(0);
            }
        }
        Shape::RobustList => {
            // A list of one lock, of none, in a circle, or into nowhere.
            let lock = kinds::address(random);
            let next = random.of(&[lock, lock | 1, 0, u64::MAX - 7]);
            to.u64(next).u64(random.of(&[0, 8, u64::MAX, 1 << 40]));
            to.u64(random.of(&[0, lock, lock | 1]));
        }
        _ => {
            let area = scratch.room(32, random);
            to.u32(0).u32(0).u64(area).u32(0).zeros(12);
        }
    }
}

/// Few programs, and lists that end or do not.
fn arguments(to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    for _ in 0..random.below(6) {
        let word = scratch.put(b"nothing\0", random);
        to.u64(word);
    }
    if !random.once_in(10) {
        to.u64(0);
    }
}

/// A program for a packet or call filter, and the structure that names it.
fn filter(to: &mut Bytes, scratch: &mut Scratch, random: &mut Random) {
    let mut program = Bytes::new();
    let count = 1 + random.below(12);
    for _ in 0..count {
        let code = random.of(&[
            0x20, 0x20, 0x15, 0x15, 0x25, 0x35, 0x45, 0x05, 0x06, 0x06, 0x16, 0x04, 0x34, 0x94,
            0xa4, 0x60, 0x61, 0x02, 0x03, 0x07, 0x87, 0x28, 0x30, 0x40, 0x80, 0xb1, 0x3c, 0x74,
        ]);
        let value = match random.below(3) {
            0 => random.of(&[0, 4, 8, 12, 16, 56, 60, 64, 3]),
            1 => random.of(&[0x7fff_0000, 0x5_0001, 0x7ffc_0000, 0x3_0000, 0x7ff0_0001]),
            _ => random.any(),
        };
        program
            .u16(code)
            .add(&[random.below(8) as u8, random.below(8) as u8]);
        program.u32(value);
    }
    // The last one gives an answer, most of the time one that lets live.
    program
        .u16(6)
        .u16(0)
        .u32(random.of(&[0x7fff_0000, 0x7fff_0000, 0x5_0001, 0x7ffc_0000]));
    let at = scratch.put(&program.bytes[..program.len], random);
    let declared = match random.below(12) {
        0 => random.of(&[0, 4096, 4097, 0xffff]),
        _ => count as u64 + 1,
    };
    to.u64(declared).u64(at);
}

/// Structures of numbers.
fn plain(shape: Shape, to: &mut Bytes, random: &mut Random) {
    let small = |random: &mut Random| match random.below(6) {
        0 => random.of(&NUMBERS),
        _ => random.below(4 * PAGE) as u64,
    };
    match shape {
        Shape::Flock => {
            to.u16(random.below(3) as u64)
                .u16(random.below(3) as u64)
                .u32(0);
            to.u64(small(random)).u64(small(random)).u64(0);
        }
        Shape::Rlimit => {
            // High enough for the run to go on.
            let value = random.of(&[64 << 20, 128 << 20, u64::MAX, 1 << 40]);
            to.u64(value).u64(value);
        }
        Shape::OpenHow => {
            to.u64(kinds::flags(crate::rows::OPEN, random));
            to.u64(random.of(&[0, 0, 0o600]))
                .u64(random.below(64) as u64);
        }
        Shape::Capabilities => {
            to.u32(random.of(&[0x2008_0522, 0x2008_0522, 0x1998_0330, 0]))
                .u32(0);
            to.zeros(24);
        }
        Shape::SchedAttr => {
            to.u32(random.of(&[48, 56, 48, 0, 47, 4096]))
                .u32(random.of(&[0, 0, 1, 3, 5, 6]));
            to.u64(0)
                .u32(random.below(20) as u64)
                .u32(random.below(3) as u64)
                .zeros(32);
        }
        Shape::Termios => {
            for _ in 0..4 {
                to.u32(random.any());
            }
            to.add(&[0, 3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26])
                .zeros(24);
        }
        Shape::Groups => {
            for _ in 0..8 {
                to.u32(random.below(2000) as u64);
            }
        }
        Shape::Registers => {
            for _ in 0..27 {
                to.u64(random.of(&NUMBERS));
            }
        }
        _ => {
            to.u64(small(random));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, place};
    use crate::{random::Random, scratch::Scratch};

    #[test]
    fn most_structures_are_whole() {
        let mut scratch = Scratch::new().unwrap();
        let mut random = Random::new(1);
        let (mut families, mut how) = (0, 0);
        for _ in 0..1000 {
            let address = place(Shape::Sockaddr, &mut scratch, &mut random);
            families += usize::from(scratch.read::<u16>(address) == libc::AF_INET as u16);
            let address = place(Shape::CloneArgs, &mut scratch, &mut random);
            how += usize::from(scratch.read::<[u64; 11]>(address)[10] == 0);
        }
        assert!((300..700).contains(&families), "{families}");
        assert!(how > 800, "{how}");
    }
}
