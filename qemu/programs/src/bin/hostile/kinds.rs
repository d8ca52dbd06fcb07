//! Kinds of arguments, and how one of a kind is chosen.

use crate::{
    objects::{self, Class, PAGE},
    random::Random,
    scratch::Scratch,
    structs::{self, Shape},
};

/// What an argument is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A descriptor of this kind, or any.
    Fd(Class),
    AnyFd,
    /// A folder's descriptor or `AT_FDCWD`.
    Place,
    Path,
    /// The name of an extended attribute, a thread, a queue or a memory file.
    Name,
    /// An address within a mapping, most often of a page.
    Address,
    /// Bytes of memory, files and buffers.
    Length,
    /// A position in a file.
    Offset,
    /// A number below this.
    Below(usize),
    /// Any of these bits, together.
    Flags(&'static [i64]),
    /// One of these.
    One(&'static [i64]),
    Mode,
    User,
    /// A process; a thread.
    Pid,
    /// The same, but never the first process: root may do with it what it likes, so that
    /// its end would say nothing about the kernel.
    OtherPid,
    Signal,
    Clock,
    /// Something to read from; something to write to.
    Input,
    Output,
    /// A pointer to a structure.
    To(Shape),
    /// Objects of System V, their keys, and timers.
    Key,
    Shm,
    Sem,
    Msg,
    Timer,
    /// Anything at all.
    Wild,
}

/// Numbers at which arithmetic breaks.
pub(crate) const NUMBERS: [u64; 28] = [
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    64,
    255,
    4095,
    4096,
    4097,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0x3fff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_f000,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_fff8,
    u64::MAX - 2,
    u64::MAX - 1,
    u64::MAX,
];

/// Addresses that belong to the kernel, to nobody, or to no machine at all.
const FOREIGN: [u64; 13] = [
    0,
    0xffff_8000_0000_0000,
    0xffff_8000_0010_0000,
    0xffff_8880_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_8010_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ff00_0000_0000,
    0x0000_8000_0000_0000,
    0x0000_7fff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x1000,
    0x4141_4141_4141_4141,
];

/// Paths: some there, some not, some that are no paths. The memory of the first
/// process and its program are not among them: the run would fall with them.
const PATHS: [&[u8]; 37] = [
    b"/tmp/a\0",
    b"/tmp/a\0",
    b"/tmp/b\0",
    b"/tmp/b\0",
    b"/tmp/d\0",
    b"/tmp/d\0",
    b"/tmp/d/c\0",
    b"/tmp/d/d\0",
    b"/tmp/d/d/x\0",
    b"/tmp/e\0",
    b"/tmp/e/x\0",
    b"/tmp/new\0",
    b"/tmp/link\0",
    b"/tmp/link2\0",
    b"/tmp/loop\0",
    b"/tmp/fifo\0",
    b"/tmp/socket\0",
    b"a\0",
    b"d/../a\0",
    b"../tmp/d//./c\0",
    b"/tmp\0",
    b"/\0",
    b"\0",
    b".\0",
    b"..\0",
    b"/proc/self/fd/5\0",
    b"/proc/self/exe\0",
    b"/proc/self/task\0",
    b"/proc/self/maps\0",
    b"/proc/1/status\0",
    b"/proc/sys/kernel/hostname\0",
    b"/dev/null\0",
    b"/dev/ptmx\0",
    b"/dev/tty\0",
    b"/dev/shm/x\0",
    b"/tmp/\xff\xfe/../a//./b\0",
    b"/bin/hostile\0",
];

const NAMES: [&[u8]; 8] = [
    b"user.a\0",
    b"user.b\0",
    b"user.\0",
    b"trusted.a\0",
    b"security.capability\0",
    b"q\0",
    b"m\0",
    b"\0",
];

const CLOCKS: [i64; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, -6, -2, 12];

impl Kind {
    /// An argument of this kind; now and then of none.
    pub(crate) fn choose(self, scratch: &mut Scratch, random: &mut Random) -> u64 {
        if random.once_in(40) {
            return wild(scratch, random);
        }
        match self {
            Kind::Fd(class) => descriptor(Some(class), random),
            Kind::AnyFd => descriptor(None, random),
            Kind::Place if random.once_in(3) => descriptor(Some(Class::Folder), random),
            Kind::Place => libc::AT_FDCWD as u64,
            Kind::Path => path(scratch, random),
            Kind::Name => scratch.put(random.of(&NAMES), random),
            Kind::Address => address(random),
            Kind::Length => length(random),
            Kind::Offset if random.once_in(4) => random.of(&NUMBERS),
            Kind::Offset => random.below(40_000) as u64,
            Kind::Below(limit) => random.below(limit) as u64,
            Kind::Flags(bits) => flags(bits, random),
            Kind::One(choices) => random.of(choices) as u64,
            Kind::Mode if random.once_in(3) => random.below(0o10000) as u64,
            Kind::Mode => 0o777,
            Kind::User => random.of(&[0, 0, 1000, 1001, u64::MAX, 0xffff_ffff, 65534]),
            Kind::Pid => pid(random) as u64,
            Kind::OtherPid => match pid(random) {
                1 => 0,
                other => other as u64,
            },
            Kind::Signal => signal(random),
            Kind::Clock => random.of(&CLOCKS) as u64,
            Kind::Input | Kind::Output if random.once_in(6) => address(random),
            Kind::Input => input(scratch, random),
            Kind::Output => scratch.room(4096, random),
            Kind::To(shape) => structs::place(shape, scratch, random),
            Kind::Key => random.below(4) as u64,
            Kind::Shm => objects::SHM.pick(random) as u64,
            Kind::Sem => objects::SEM.pick(random) as u64,
            Kind::Msg => objects::MSG.pick(random) as u64,
            Kind::Timer => (objects::TIMERS.pick(random) - 1) as u64,
            Kind::Wild => wild(scratch, random),
        }
    }
}

/// Any argument.
pub(crate) fn wild(scratch: &mut Scratch, random: &mut Random) -> u64 {
    match random.below(8) {
        0 => scratch.room(256, random),
        1 => random.of(&FOREIGN).wrapping_add(random.below(PAGE) as u64),
        2 => address(random),
        3 => random.of(&NUMBERS),
        4 => descriptor(None, random),
        5 => random.below(64) as u64,
        6 => path(scratch, random),
        _ => random.any(),
    }
}

/// A descriptor; now and then one of another kind, that never was or cannot be one.
pub(crate) fn descriptor(class: Option<Class>, random: &mut Random) -> u64 {
    match (random.below(24), class) {
        (0, _) => random.of(&[
            999,
            1 << 20,
            0x7fff_ffff,
            0x8000_0000,
            u64::MAX,
            0xffff_ff9c,
        ]),
        (1..3, _) | (_, None) => objects::any_descriptor(random) as u64,
        (_, Some(class)) => match objects::descriptor(class, random) {
            0 => objects::any_descriptor(random) as u64,
            found => found as u64,
        },
    }
}

fn path(scratch: &mut Scratch, random: &mut Random) -> u64 {
    match random.below(60) {
        // As long as a path may be, and longer: no end within the page.
        0 => scratch.put(&[b'/'; 4000], random),
        1 => scratch.put(&[b'x'; 300], random),
        2 => random.of(&FOREIGN),
        _ => scratch.put(random.of(&PATHS), random),
    }
}

/// An address within a mapping.
pub(crate) fn address(random: &mut Random) -> u64 {
    let (start, bytes) = objects::mapping(random);
    if start == 0 || random.once_in(24) {
        return random.of(&FOREIGN);
    }
    let pages = (bytes as usize / PAGE).max(1);
    let page = start + (random.below(pages) * PAGE) as u64;
    match random.below(8) {
        0 => page + random.below(PAGE) as u64,
        1..5 => start,
        _ => page,
    }
}

fn length(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => random.of(&NUMBERS),
        1 => random.any(),
        2..6 => random.below(300) as u64,
        6..10 => ((1 + random.below(16)) * PAGE) as u64,
        10 => random.below(20_000) as u64,
        _ => random.below(1 << 20) as u64,
    }
}

/// Some of these bits; rarely others.
pub(crate) fn flags(bits: &[i64], random: &mut Random) -> u64 {
    let mut value = 0;
    for _ in 0..random.below(4) {
        value |= random.of(bits) as u64;
    }
    match random.below(24) {
        0 => value | 1 << random.below(64),
        _ => value,
    }
}

/// A process or thread: this one, the parent, children, groups, nobody.
pub(crate) fn pid(random: &mut Random) -> i64 {
    match random.below(24) {
        0 => i64::from(random.of(&[0, -1, i32::MAX, i32::MIN, 99_999, 1])),
        1..4 => i64::from(-objects::PIDS.pick(random)),
        4..8 => 0,
        _ => i64::from(objects::PIDS.pick(random)),
    }
}

pub(crate) fn signal(random: &mut Random) -> u64 {
    match random.below(16) {
        0 => random.of(&[0, 65, 64, u64::MAX, 32, 33]),
        1 => libc::SIGKILL as u64,
        2 => libc::SIGSTOP as u64,
        3..6 => libc::SIGCONT as u64,
        6..10 => 34 + random.below(31) as u64,
        _ => 1 + random.below(31) as u64,
    }
}

/// Bytes that mean something to somebody.
fn input(scratch: &mut Scratch, random: &mut Random) -> u64 {
    let mut bytes = [0u8; 64];
    for word in bytes.chunks_exact_mut(8) {
        let value = match random.below(3) {
            0 => random.of(&NUMBERS),
            1 => u64::from_ne_bytes(*b"1 -22\n+9"),
            _ => random.any(),
        };
        word.copy_from_slice(&value.to_ne_bytes());
    }
    scratch.put(&bytes, random)
}

#[cfg(test)]
mod tests {
    use super::{Kind, wild};
    use crate::{objects, random::Random, scratch::Scratch};

    #[test]
    fn wild_arguments_are_of_every_kind() {
        let mut scratch = Scratch::new().unwrap();
        let mut random = Random::new(1);
        let found: Vec<u64> = (0..10_000)
            .map(|_| wild(&mut scratch, &mut random))
            .collect();
        let has = |wanted: &dyn Fn(u64) -> bool| found.iter().any(|value| wanted(*value));
        assert!(has(&|value| value == 0) && has(&|value| value == u64::MAX));
        assert!(has(&|value| value >> 47 == 0x1_ffff), "no kernel address");
        assert!(has(&|value| scratch.read::<u8>(value) == b'/'), "no path");
    }

    #[test]
    fn the_same_numbers_give_the_same_argument() {
        let mut scratch = Scratch::new().unwrap();
        objects::PIDS.add(5);
        for kind in [
            Kind::Length,
            Kind::Signal,
            Kind::Pid,
            Kind::Flags(&[1, 2, 4]),
        ] {
            let mut choose = || kind.choose(&mut scratch, &mut Random::new(3));
            assert_eq!(choose(), choose(), "{kind:?}");
        }
    }
}
