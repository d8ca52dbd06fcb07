//! The programs of filters: classic BPF over the data of one system call.
//!
//! A [`Program`] exists only if it was found to be harmless: it jumps forward only,
//! and so ends after at most as many steps as it has instructions; it loads within
//! the data alone; it reads no word of its memory that it has not written on every
//! way there; it ends with an answer. The rules are those of seccomp(2) and of the
//! kernel's `Documentation/networking/filter.rst`.

use crate::{Error, Result};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Instructions that a program may have (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;
/// Words of memory that a program has (`BPF_MEMWORDS`).
const WORDS: usize = 16;
/// Bytes of [`Data`].
const DATA_BYTES: u32 = size_of::<Data>() as u32;

/// `struct sock_filter`: one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Instruction {
    /// What is done, and with what.
    pub code: u16,
    /// Instructions passed over if the condition holds.
    pub when: u8,
    /// Instructions passed over if it does not.
    pub otherwise: u8,
    /// A constant, a place or a distance.
    pub k: u32,
}

/// `struct seccomp_data`: what a program looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Data {
    /// Number of the call.
    pub number: i32,
    /// The convention it is made by (`AUDIT_ARCH_*`).
    pub architecture: u32,
    /// Where it was made: the instruction after it.
    pub instruction: u64,
    /// Its arguments, whether it takes them or not.
    pub arguments: [u64; 6],
}

/// What is computed from two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    Add,
    Subtract,
    Multiply,
    Divide,
    Or,
    And,
    Left,
    Right,
    Exclusive,
}

/// How two operands are compared, both without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    Greater,
    AtLeast,
    /// They have a bit in common.
    Bits,
}

/// Where the second operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Constant,
    Index,
}

/// What an instruction means. `A` is the accumulator, `X` the index register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// `A` from the data at `k`.
    Load,
    /// `A`, or `X`, from `k`.
    LoadConstant,
    IndexConstant,
    /// From the length of the data.
    LoadLength,
    IndexLength,
    /// From the memory.
    LoadWord,
    IndexWord,
    /// To the memory.
    Store,
    StoreIndex,
    Compute(Sum, Operand),
    Negate,
    Jump,
    JumpIf(Test, Operand),
    ReturnConstant,
    Return,
    /// `X` from `A`, and the other way round.
    ToIndex,
    FromIndex,
}

/// The parts of a code (`linux/bpf_common.h`).
mod part {
    pub(super) const ALU: u16 = 4;
    pub(super) const JMP: u16 = 5;
    /// Flag of [`ALU`] and [`JMP`]: the second operand is `X`.
    pub(super) const X: u16 = 8;
}

impl Meaning {
    /// What `code` means; nothing if it may not be in a filter.
    fn of(code: u16) -> Option<Meaning> {
        let operand = match code & part::X {
            0 => Operand::Constant,
            _ => Operand::Index,
        };
        Some(match code {
            0x20 => Meaning::Load,
            0x00 => Meaning::LoadConstant,
            0x01 => Meaning::IndexConstant,
            0x80 => Meaning::LoadLength,
            0x81 => Meaning::IndexLength,
            0x60 => Meaning::LoadWord,
            0x61 => Meaning::IndexWord,
            0x02 => Meaning::Store,
            0x03 => Meaning::StoreIndex,
            0x84 => Meaning::Negate,
            0x05 => Meaning::Jump,
            0x06 => Meaning::ReturnConstant,
            0x16 => Meaning::Return,
            0x07 => Meaning::ToIndex,
            0x87 => Meaning::FromIndex,
            _ if code & 0x07 == part::ALU => Meaning::Compute(Sum::of(code & !0x0f)?, operand),
            _ if code & 0x07 == part::JMP => Meaning::JumpIf(Test::of(code & !0x0f)?, operand),
            _ => return None,
        })
    }
}

impl Sum {
    fn of(part: u16) -> Option<Sum> {
        Some(match part {
            0x00 => Sum::Add,
            0x10 => Sum::Subtract,
            0x20 => Sum::Multiply,
            0x30 => Sum::Divide,
            0x40 => Sum::Or,
            0x50 => Sum::And,
            0x60 => Sum::Left,
            0x70 => Sum::Right,
            0xa0 => Sum::Exclusive,
            _ => return None,
        })
    }

    /// The result; none for a division by zero, which ends the program.
    #[inline]
    fn of_operands(self, a: u32, b: u32) -> Option<u32> {
        Some(match self {
            Sum::Add => a.wrapping_add(b),
            Sum::Subtract => a.wrapping_sub(b),
            Sum::Multiply => a.wrapping_mul(b),
            Sum::Divide => return a.checked_div(b),
            Sum::Or => a | b,
            Sum::And => a & b,
            // Only the low five bits count.
            Sum::Left => a.wrapping_shl(b),
            Sum::Right => a.wrapping_shr(b),
            Sum::Exclusive => a ^ b,
        })
    }
}

impl Test {
    fn of(part: u16) -> Option<Test> {
        Some(match part {
            0x10 => Test::Equal,
            0x20 => Test::Greater,
            0x30 => Test::AtLeast,
            0x40 => Test::Bits,
            _ => return None,
        })
    }

    #[inline]
    fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Test::Equal => a == b,
            Test::Greater => a > b,
            Test::AtLeast => a >= b,
            Test::Bits => a & b != 0,
        }
    }
}

/// A program that was checked.
#[derive(Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it keeps the rules; no memory.
    pub fn new(instructions: Vec<Instruction>) -> Result<Program> {
        if !(1..=INSTRUCTIONS_MAX).contains(&instructions.len()) {
            return Err(Error::Invalid);
        }
        let ends = instructions.last().and_then(|last| Meaning::of(last.code));
        let answers = matches!(ends, Some(Meaning::ReturnConstant | Meaning::Return));
        let kept = (instructions.iter().enumerate())
            .all(|(at, instruction)| check(instruction, instructions.len() - at - 1));
        if !answers || !kept || !memory_is_written_first(&instructions)? {
            return Err(Error::Invalid);
        }
        Ok(Program(instructions))
    }

    /// Its instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none, which no program is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its answer about a call.
    #[must_use]
    pub fn run(&self, data: &Data) -> u32 {
        // Nothing but a mistake in the check lets a program end without one; that the
        // worst is assumed then.
        self.steps(data, [0; WORDS]).unwrap_or(0)
    }

    /// Runs it with this in its memory; nothing if it leaves its bounds.
    fn steps(&self, data: &Data, mut memory: [u32; WORDS]) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut rest = self.0.iter();
        loop {
            let now = rest.next()?;
            let k = now.k;
            let operand = |operand| match operand {
                Operand::Constant => k,
                Operand::Index => x,
            };
            match Meaning::of(now.code)? {
                Meaning::Load => a = load(data, k)?,
                Meaning::LoadConstant => a = k,
                Meaning::IndexConstant => x = k,
                Meaning::LoadLength => a = DATA_BYTES,
                Meaning::IndexLength => x = DATA_BYTES,
                Meaning::LoadWord => a = *memory.get(k as usize)?,
                Meaning::IndexWord => x = *memory.get(k as usize)?,
                Meaning::Store => *memory.get_mut(k as usize)? = a,
                Meaning::StoreIndex => *memory.get_mut(k as usize)? = x,
                Meaning::Compute(sum, second) => match sum.of_operands(a, operand(second)) {
                    Some(result) => a = result,
                    None => return Some(0),
                },
                Meaning::Negate => a = a.wrapping_neg(),
                Meaning::Jump => skip(&mut rest, k as usize),
                Meaning::JumpIf(test, second) => {
                    let distance = match test.holds(a, operand(second)) {
                        true => now.when,
                        false => now.otherwise,
                    };
                    skip(&mut rest, usize::from(distance));
                }
                Meaning::ReturnConstant => return Some(k),
                Meaning::Return => return Some(a),
                Meaning::ToIndex => x = a,
                Meaning::FromIndex => a = x,
            }
        }
    }
}

/// Passes over some instructions; beyond the end nothing is left.
#[inline]
fn skip(rest: &mut core::slice::Iter<'_, Instruction>, count: usize) {
    if count != 0 {
        rest.nth(count - 1);
    }
}

/// The word of the data at this place.
#[inline]
fn load(data: &Data, at: u32) -> Option<u32> {
    let bytes = data.as_bytes().get(at as usize..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// Whether an instruction with `left` others behind it keeps the rules by itself.
fn check(instruction: &Instruction, left: usize) -> bool {
    let k = instruction.k;
    match Meaning::of(instruction.code) {
        None => false,
        Some(Meaning::Load) => k.is_multiple_of(4) && k < DATA_BYTES,
        Some(Meaning::LoadWord | Meaning::IndexWord | Meaning::Store | Meaning::StoreIndex) => {
            (k as usize) < WORDS
        }
        Some(Meaning::Compute(Sum::Divide, Operand::Constant)) => k != 0,
        Some(Meaning::Compute(Sum::Left | Sum::Right, Operand::Constant)) => k < u32::BITS,
        Some(Meaning::Jump) => (k as usize) < left,
        Some(Meaning::JumpIf(..)) => {
            usize::from(instruction.when.max(instruction.otherwise)) < left
        }
        Some(_) => true,
    }
}

/// Whether every word that is read was written on each way there. All jumps must have
/// been found to stay within the program.
fn memory_is_written_first(instructions: &[Instruction]) -> Result<bool> {
    // For each instruction, the words that all ways to it have written.
    let mut written: Vec<u16> = Vec::new();
    let room = written.try_reserve_exact(instructions.len());
    room.map_err(|_| Error::NoMemory)?;
    written.resize(instructions.len(), u16::MAX);
    let mut here = 0u16;
    for (at, instruction) in instructions.iter().enumerate() {
        here &= written.get(at).copied().unwrap_or(0);
        let word = 1u16.checked_shl(instruction.k).unwrap_or(0);
        let mut reach = |distance: usize, known: u16| {
            if let Some(target) = written.get_mut(at + 1 + distance) {
                *target &= known;
            }
        };
        match Meaning::of(instruction.code) {
            Some(Meaning::Store | Meaning::StoreIndex) => here |= word,
            Some(Meaning::LoadWord | Meaning::IndexWord) if here & word == 0 => return Ok(false),
            Some(Meaning::Jump) => {
                reach(instruction.k as usize, here);
                // What follows is reached by jumps alone.
                here = u16::MAX;
            }
            Some(Meaning::JumpIf(..)) => {
                reach(usize::from(instruction.when), here);
                reach(usize::from(instruction.otherwise), here);
                here = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
