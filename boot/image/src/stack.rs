//! Gives the BIOS stages from the third on a stack with room.
//!
//! The boot sector's stack is the 31 KB below it, and all stages keep it, down to the
//! fourth, whose library fills 30 of them: little more, and it would run over the BIOS's
//! data and off the end of memory. It also shares a page with code that has run, so that an
//! emulator that translates code looks at every write to it.
//!
//! So the third stage begins with a jump to a few instructions behind its end. They move to
//! a stack in the memory that the second stage's file fills with zeroes, put the first
//! instruction back and go there.

use anyhow::{Context as _, Result};

/// Where the second stage loads the third.
const STAGE_3_ADDRESS: u32 = 0x10_0000;
/// The end of the stack: below the selector, and as the calling convention wants it at the
/// entry of a function with one argument.
const STACK: u32 = 0x7_eff4;
/// Bytes of a jump, and so of what it replaces.
const JUMP_BYTES: usize = 5;

/// The third stage with its own stack.
///
/// # Errors
/// It is no stage: too short, or too long for an address.
pub(crate) fn with_stack(stage_3: &[u8]) -> Result<Vec<u8>> {
    let (begins, _) = stage_3
        .split_first_chunk::<JUMP_BYTES>()
        .context("the third boot stage is cut short")?;
    let mut stage = stage_3.to_vec();
    stage.resize(stage.len().next_multiple_of(16), 0);
    let tail = u32::try_from(stage.len()).context("the third boot stage is too long")?;
    stage[..JUMP_BYTES].copy_from_slice(&jump(0, tail));
    // mov eax, [esp + 4]: the only argument.
    stage.extend([0x8b, 0x44, 0x24, 0x04]);
    // mov esp, STACK
    stage.push(0xbc);
    stage.extend(STACK.to_le_bytes());
    // push eax; push 0: nobody returns from this stage.
    stage.extend([0x50, 0x6a, 0x00]);
    // mov dword ptr [STAGE_3_ADDRESS], and mov byte ptr behind it
    stage.extend([0xc7, 0x05]);
    stage.extend(STAGE_3_ADDRESS.to_le_bytes());
    stage.extend(&begins[..4]);
    stage.extend([0xc6, 0x05]);
    stage.extend((STAGE_3_ADDRESS + 4).to_le_bytes());
    stage.push(begins[4]);
    let here = u32::try_from(stage.len())?;
    stage.extend(jump(here, 0));
    Ok(stage)
}

/// `jmp` from one place in the stage to another, in protected mode.
fn jump(from: u32, to: u32) -> [u8; JUMP_BYTES] {
    let distance = to.wrapping_sub(from + JUMP_BYTES as u32);
    let [a, b, c, d] = distance.to_le_bytes();
    [0xe9, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::with_stack;

    #[test]
    fn the_stage_begins_with_a_jump_that_is_taken_back() {
        let stage = with_stack(&[1, 2, 3, 4, 5, 6, 7]).unwrap();
        // To offset 16, from behind the jump.
        assert_eq!(stage[..7], [0xe9, 11, 0, 0, 0, 6, 7]);
        let tail = &stage[16..];
        assert_eq!(tail[4..9], [0xbc, 0xf4, 0xef, 0x07, 0x00]);
        assert_eq!(tail[12..22], [0xc7, 5, 0, 0, 0x10, 0, 1, 2, 3, 4]);
        assert_eq!(tail[22..29], [0xc6, 5, 4, 0, 0x10, 0, 5]);
        // Back to the first byte.
        let distance = i32::from_le_bytes(tail[30..34].try_into().unwrap());
        assert_eq!((tail[29], distance), (0xe9, -(16 + 34)));
        assert_eq!(tail.len(), 34);
    }

    #[test]
    fn what_is_no_stage_is_refused() {
        assert!(with_stack(&[1, 2, 3, 4]).is_err());
    }
}
