//! The kinds of arguments of every system call, and what it makes.
//!
//! A test holds it against the kernel's own table: no call may be left out.

mod files;
mod others;
mod processes;

use crate::{
    kinds::Kind::{self, *},
    objects::Class,
};

/// What a call makes when it succeeds, for later ones to use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Makes {
    Nothing,
    Descriptor(Class),
    /// Two descriptors, behind the argument of this number.
    Pair(Class, Class, usize),
    /// A mapping as long as the argument of this number says.
    Mapping(usize),
    /// A process or thread.
    Process,
    Shm,
    Sem,
    Msg,
    /// A timer, whose number is behind the third argument.
    Timer,
}

/// A call that the program knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) number: i64,
    pub(crate) arguments: &'static [Kind],
    pub(crate) makes: Makes,
}

const fn row(number: i64, arguments: &'static [Kind]) -> Row {
    Row {
        number,
        arguments,
        makes: Makes::Nothing,
    }
}

const fn makes(number: i64, makes: Makes, arguments: &'static [Kind]) -> Row {
    Row {
        number,
        arguments,
        makes,
    }
}

const FILE: Makes = Makes::Descriptor(Class::File);
const TCP: Makes = Makes::Descriptor(Class::Tcp);
/// Flags of `open`.
pub(crate) const OPEN: &[i64] = &[
    1,
    2,
    2,
    0o100,
    0o100,
    0o200,
    0o400,
    0o1000,
    0o2000,
    0o4000,
    0o4000,
    0o200_000,
    0o400_000,
    0o2_000_000,
    0o10_000_000,
    0o20_200_000,
    0o10_000,
    0o4_010_000,
    0o1_000_000,
    0o40_000,
];
const AT: &[i64] = &[0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x8000];
const CLOEXEC: &[i64] = &[0o2_000_000, 0o4000];
const MSG: &[i64] = &[
    0x40,
    0x40,
    0x40,
    0x2,
    0x1,
    0x4,
    0x8,
    0x20,
    0x80,
    0x100,
    0x4000,
    0x8000,
    0x10000,
    0x2000,
    0x4000_0000,
    0x2000_0000,
];
const PROT: &[i64] = &[1, 1, 2, 2, 4, 8, 0x0100_0000, 0x0200_0000];
const MAP: &[i64] = &[
    0x1, 0x2, 0x2, 0x3, 0x10, 0x20, 0x20, 0x20, 0x100, 0x1000, 0x2000, 0x4000, 0x8000, 0x20000,
    0x40000, 0x10_0000, 0x40,
];
const RW: &[i64] = &[1, 2, 4, 8, 16, 32];
const SPLICE: &[i64] = &[1, 2, 2, 4, 8];
const IPC: &[i64] = &[0o1000, 0o1000, 0o2000, 0o666, 0o600, 0o4000];
const COMMANDS: &[i64] = &[0, 1, 2, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19];
const FAMILIES: &[i64] = &[1, 1, 2, 2, 2, 10, 10, 16, 16, 17, 0, 40];
const TYPES: &[i64] = &[1, 1, 2, 2, 3, 5, 0x801, 0x802, 0x805, 0x80801];
const PROTOCOLS: &[i64] = &[0, 0, 0, 0, 6, 17, 1, 58, 255];
const LEVELS: &[i64] = &[1, 1, 1, 6, 6, 0, 41, 17, 270, 263];
const FCNTL: &[i64] = &[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 36, 37, 38, 1024, 1025, 1026, 1030, 1031, 1032,
    1033, 1034, 1035, 1036, 1037, 1038,
];
const FUTEX: &[i64] = &[
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    128,
    129,
    131,
    132,
    133,
    134,
    135,
    136,
    137,
    138,
    139,
    140,
    141,
    256 | 128 | 9,
];
/// Requests of `ptrace`, but for those that only x86's kernel debuggers know.
const PTRACE: &[i64] = &[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 24, 31, 0x4200, 0x4201, 0x4202, 0x4203,
    0x4204, 0x4205, 0x4206, 0x4207, 0x4208, 0x4209, 0x420a, 0x420b, 0x420c, 0x420d, 0x420e, 0x420f,
];
const PRCTL: &[i64] = &[
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    13,
    14,
    15,
    16,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    35,
    36,
    37,
    38,
    39,
    40,
    41,
    42,
    43,
    47,
    53,
    56,
    59,
    0x5961_6d61,
    0x5356_4d41,
];
const IOCTL: &[i64] = &[
    0x5401,
    0x5402,
    0x5403,
    0x5404,
    0x5405,
    0x5409,
    0x540a,
    0x540b,
    0x540c,
    0x540d,
    0x540e,
    0x540f,
    0x5410,
    0x5411,
    0x5412,
    0x5413,
    0x5414,
    0x5415,
    0x541a,
    0x541b,
    0x541b,
    0x541d,
    0x5420,
    0x5421,
    0x5421,
    0x5422,
    0x5423,
    0x5424,
    0x5425,
    0x5429,
    0x5450,
    0x5451,
    0x5452,
    0x5456,
    0x5457,
    0x5460,
    0x8004_5430,
    0x4004_5431,
    0x8004_5432,
    0x8004_5438,
    0x5441,
    0x8901,
    0x8903,
    0x8904,
    0x8905,
    0x8906,
    0x8910,
    0x8912,
    0x8913,
    0x8915,
    0x891b,
    0x8921,
    0x8927,
    0x8933,
    0x8942,
    0x1,
    0x2,
    0x1260,
    0x1268,
    0x8008_1272,
    0x8004_6601,
    0x4004_6602,
    0xc020_660b,
    0x4004_9409,
    0x4008_ae01,
    0x4008_5400,
];
const CLONES: Makes = Makes::Process;
const SIZE8: Kind = One(&[8, 8, 8, 8, 8, 4, 16, 0]);

const MOVE_MOUNT: i64 = 429;

const FUTEX_WAITV: i64 = 449;

/// The calls by family, so that each family gets its share.
pub(crate) const FAMILIES_OF_CALLS: [&[Row]; 12] = [
    processes::PROCESSES,
    processes::IDENTITY,
    files::TRANSFERS,
    files::EVENTS,
    files::TREE,
    files::ATTRIBUTES,
    others::SOCKETS,
    others::MEMORY,
    others::EXCHANGE,
    processes::SIGNALS,
    processes::TIMES,
    others::THE_REST,
];

/// The first row of a call.
pub(crate) fn of(number: u64) -> Option<&'static Row> {
    let mut rows = FAMILIES_OF_CALLS.iter().flat_map(|family| family.iter());
    rows.find(|row| row.number as u64 == number)
}

#[cfg(test)]
mod tests {
    use super::of;
    use syscall::table::{NAMES, Status, TABLE};

    #[test]
    fn every_call_of_the_kernel_is_known_with_all_its_arguments() {
        let mut unknown = Vec::new();
        for (number, row) in TABLE.iter().enumerate() {
            let known = of(number as u64).map(|known| known.arguments.len());
            if row.status != Status::Missing && known.is_none_or(|n| n < row.arguments.into()) {
                unknown.push((NAMES[number], row.arguments, known));
            }
        }
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
