//! What the check lets through cannot do harm, and means what it says.

use super::{Data, INSTRUCTIONS_MAX, Instruction, Program, WORDS};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
const LOAD: u16 = 0x20;
const ALLOW: u32 = 0x7fff_0000;

fn make(code: u16, when: u8, otherwise: u8, k: u32) -> Instruction {
    Instruction {
        code,
        when,
        otherwise,
        k,
    }
}

fn plain(code: u16, k: u32) -> Instruction {
    make(code, 0, 0, k)
}

fn data(number: i32) -> Data {
    Data {
        number,
        architecture: 0xc000_003e,
        instruction: 0x1234_5678_9abc,
        arguments: [1, 2, 3, 4, 5, 0xffff_ffff_0000_0006],
    }
}

fn answer(instructions: &[Instruction], number: i32) -> Option<u32> {
    let program = Program::new(instructions.to_vec()).ok()?;
    Some(program.run(&data(number)))
}

#[test]
fn a_filter_of_everyday_tells_calls_apart() {
    let filter = [
        plain(LOAD, 4),
        make(0x15, 1, 0, 0xc000_003e),
        plain(RETURN, 0),
        plain(LOAD, 0),
        make(0x15, 0, 1, 59),
        plain(RETURN, 0x5_0001),
        plain(RETURN, ALLOW),
    ];
    assert_eq!(answer(&filter, 59), Some(0x5_0001));
    assert_eq!(answer(&filter, 60), Some(ALLOW));
}

#[test]
fn every_word_of_the_data_can_be_read_and_none_beyond() {
    let word = |at| answer(&[plain(LOAD, at), plain(RETURN_A, 0)], 7);
    assert_eq!((word(0), word(4)), (Some(7), Some(0xc000_003e)));
    assert_eq!((word(8), word(12)), (Some(0x5678_9abc), Some(0x1234)));
    assert_eq!((word(56), word(60)), (Some(6), Some(u32::MAX)));
    for at in [1, 2, 3, 62, 64, 68, u32::MAX, u32::MAX - 3] {
        assert_eq!(word(at), None, "{at}");
    }
}

#[test]
fn sums_are_those_of_32_bits() {
    let sum = |code, a, b| answer(&[plain(0x00, a), plain(code, b), plain(RETURN_A, 0)], 0);
    let with_x = |code, a, b| {
        let load_x = plain(0x01, b);
        answer(
            &[
                plain(0x00, a),
                load_x,
                plain(code | 8, 9),
                plain(RETURN_A, 0),
            ],
            0,
        )
    };
    for (code, a, b, result) in [
        (0x04, u32::MAX, 2, 1),
        (0x14, 1, 2, u32::MAX),
        (0x24, 1 << 31, 3, 1 << 31),
        (0x34, 7, 2, 3),
        (0x44, 5, 2, 7),
        (0x54, 6, 3, 2),
        (0x64, 3, 31, 1 << 31),
        (0x74, 1 << 31, 31, 1),
        (0xa4, 6, 3, 5),
    ] {
        assert_eq!(sum(code, a, b), Some(result), "{code:#x}");
        assert_eq!(with_x(code, a, b), Some(result), "{code:#x} with X");
    }
    assert_eq!(
        answer(&[plain(0x00, 5), plain(0x84, 0), plain(RETURN_A, 0)], 0),
        Some(5u32.wrapping_neg())
    );
    // What is known to be wrong is refused; a zero in X ends the program with zero.
    assert_eq!(
        (sum(0x34, 7, 0), sum(0x64, 7, 32), sum(0x74, 7, 32)),
        (None, None, None)
    );
    assert_eq!(with_x(0x34, 7, 0), Some(0));
    assert_eq!(with_x(0x64, 1, 33), Some(2));
}

#[test]
fn what_seccomp_does_not_allow_is_refused() {
    // Remainders, bytes and halves, loads at X, IP header lengths, unknown classes.
    for code in [
        0x94,
        0x9c,
        0x30,
        0x28,
        0x40,
        0x48,
        0x50,
        0xb1,
        0x0e,
        0x25 | 0x80,
        0x1_06u16,
        0x0c | 2,
    ] {
        assert_eq!(
            answer(&[plain(code, 0), plain(RETURN, 0)], 0),
            None,
            "{code:#x}"
        );
    }
    assert_eq!(answer(&[], 0), None);
    assert_eq!(answer(&[plain(LOAD, 0)], 0), None, "no answer");
    let long = |count| {
        vec![plain(0x00, 1); count - 1]
            .into_iter()
            .chain([plain(RETURN, 3)])
    };
    let longest: Vec<_> = long(INSTRUCTIONS_MAX).collect();
    assert_eq!(answer(&longest, 0), Some(3));
    let longer: Vec<_> = long(INSTRUCTIONS_MAX + 1).collect();
    assert_eq!(answer(&longer, 0), None);
}

#[test]
fn jumps_stay_within_the_program() {
    let jump = |k| answer(&[plain(0x05, k), plain(RETURN, 1), plain(RETURN, 2)], 0);
    assert_eq!(
        (jump(0), jump(1), jump(2), jump(u32::MAX)),
        (Some(1), Some(2), None, None)
    );
    let branch = |when, otherwise| {
        answer(
            &[
                make(0x15, when, otherwise, 0),
                plain(RETURN, 1),
                plain(RETURN, 2),
            ],
            0,
        )
    };
    assert_eq!((branch(1, 0), branch(0, 1)), (Some(2), Some(1)));
    assert_eq!((branch(2, 0), branch(0, 2)), (None, None));
}

#[test]
fn memory_is_read_only_after_it_was_written_on_every_way() {
    let (store, read) = (plain(0x02, 3), plain(0x60, 3));
    let end = plain(RETURN_A, 0);
    assert_eq!(
        answer(&[plain(0x00, 9), store, plain(0x00, 1), read, end], 0),
        Some(9)
    );
    assert_eq!(answer(&[read, end], 0), None);
    assert_eq!(answer(&[plain(0x02, 16), end], 0), None);
    // One way passes the store over.
    let passing = [make(0x15, 1, 0, 5), store, read, end];
    assert_eq!(answer(&passing, 0), None);
    // Both ways store.
    let both = [make(0x15, 0, 2, 5), store, plain(0x05, 1), store, read, end];
    assert_eq!(answer(&both, 0), Some(0));
}

/// Instructions that are often allowed, and often not.
fn instruction() -> impl Strategy<Value = Instruction> {
    const CODES: [u16; 40] = [
        0x20, 0x20, 0x00, 0x01, 0x80, 0x81, 0x60, 0x61, 0x02, 0x02, 0x03, 0x03, 0x84, 0x05, 0x06,
        0x16, 0x07, 0x87, 0x04, 0x0c, 0x14, 0x24, 0x34, 0x3c, 0x44, 0x54, 0x64, 0x6c, 0x74, 0x7c,
        0xa4, 0xac, 0x15, 0x1d, 0x25, 0x35, 0x45, 0x4d, 0x15, 0x35,
    ];
    let code = prop_oneof![
        40 => proptest::sample::select(CODES.to_vec()),
        1 => any::<u16>(),
    ];
    let k = prop_oneof![
        20 => 0u32..4,
        20 => (0u32..16).prop_map(|word| word * 4),
        1 => any::<u32>(),
    ];
    (code, 0u8..4, 0u8..4, k).prop_map(|(code, when, otherwise, k)| make(code, when, otherwise, k))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// A program that is accepted ends within its bounds with an answer, which what
    /// lay in its memory before does not change.
    #[test]
    fn accepted_programs_are_harmless(
        mut instructions in proptest::collection::vec(instruction(), 0..24),
        number in any::<i32>(),
    ) {
        instructions.push(plain(RETURN_A, 0));
        if let Ok(program) = Program::new(instructions) {
            let data = data(number);
            let one = program.steps(&data, [0; WORDS]);
            prop_assert!(one.is_some());
            prop_assert_eq!(one, program.steps(&data, [0xdead_beef; WORDS]));
        }
    }

    #[test]
    fn any_bytes_are_judged_without_harm(
        words in proptest::collection::vec(any::<u64>(), 0..40),
    ) {
        let instructions = words.iter().map(|word| {
            plain(*word as u16, (word >> 32) as u32)
        });
        if let Ok(program) = Program::new(instructions.collect()) {
            prop_assert!(program.steps(&data(1), [0; WORDS]).is_some());
        }
    }
}
