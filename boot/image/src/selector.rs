//! Puts the BIOS selector (`boot/bios`) in front of the second stage.
//!
//! The boot sector loads the second stage to address 0x7e00 and calls its first byte.
//! The file reaches up to half a megabyte, of which most is unused: near its end is room
//! for the selector, and its first instruction becomes a jump there.

use crate::stages::Stages;
use anyhow::{Context as _, Result, ensure};

/// Where the boot sector loads the second stage.
const STAGE_2_ADDRESS: usize = 0x7e00;
/// Where the selector is then, the beginning of a segment.
const SELECTOR_ADDRESS: usize = 0x7f000;
const SELECTOR_AT: usize = SELECTOR_ADDRESS - STAGE_2_ADDRESS;
/// Bytes that it uses with its buffers, and of these its code at most.
const ROOM: usize = 0x800;
const CODE_MAX: usize = 0x400;
/// What stands before its parameters.
const MARKER: &[u8] = b"selector";
/// `jmp` to a segment and offset, in real mode.
const FAR_JUMP: u8 = 0xea;
const FAR_JUMP_BYTES: usize = 5;

/// What is chosen from, in sectors of the disk.
pub(crate) struct ChosenFrom {
    /// The two copies of the boot state.
    pub(crate) copies: [u64; 2],
    /// Beginning and length of the slots.
    pub(crate) slots: [(u64, u64); 2],
}

/// The second stage with the selector in it.
pub(crate) fn fit(stages: &Stages, from: &ChosenFrom) -> Result<Vec<u8>> {
    let mut stage_2 = stages.stage_2.clone();
    let mut selector = stages.selector.clone();
    ensure!(selector.len() <= CODE_MAX, "the BIOS selector is too long");
    let marker = selector
        .windows(MARKER.len())
        .position(|bytes| bytes == MARKER);
    let at = marker.context("the BIOS selector has no parameters")? + MARKER.len();
    let mut parameters = Vec::new();
    let [a, b] = from.slots;
    for sector in from.copies.into_iter().chain([a.0, a.1, b.0, b.1]) {
        let sector = u32::try_from(sector).context("the slots lie beyond 2 TiB")?;
        parameters.extend_from_slice(&sector.to_le_bytes());
    }
    let room = stage_2.get(SELECTOR_AT..SELECTOR_AT + ROOM);
    ensure!(
        room.is_some_and(|room| room.iter().all(|&byte| byte == 0)),
        "the second boot stage has no room for the selector"
    );
    parameters.extend_from_slice(&stage_2[..FAR_JUMP_BYTES]);
    selector
        .get_mut(at..at + parameters.len())
        .context("the BIOS selector is cut short")?
        .copy_from_slice(&parameters);
    stage_2[SELECTOR_AT..][..selector.len()].copy_from_slice(&selector);
    let segment = u16::try_from(SELECTOR_ADDRESS >> 4)?;
    stage_2[..FAR_JUMP_BYTES].copy_from_slice(&[
        FAR_JUMP,
        0,
        0,
        segment.to_le_bytes()[0],
        segment.to_le_bytes()[1],
    ]);
    Ok(stage_2)
}

#[cfg(test)]
mod tests {
    use super::{ChosenFrom, SELECTOR_AT, fit};
    use crate::stages::Stages;

    fn stages() -> Stages {
        let mut stage_2 = vec![0; 0x78000];
        stage_2[..30_000].fill(2);
        Stages {
            boot_sector: Vec::new(),
            stage_2,
            stage_3: Vec::new(),
            stage_4: Vec::new(),
            selector: [&b"\xeb\x3a\x90\x90selector"[..], &[0; 60]].concat(),
            loader: Vec::new(),
        }
    }

    const FROM: ChosenFrom = ChosenFrom {
        copies: [0x100, 0x108],
        slots: [(0x1000, 0x20), (0x2000, 0x20)],
    };

    #[test]
    fn the_second_stage_begins_with_a_jump_that_the_selector_takes_back() {
        let stage_2 = fit(&stages(), &FROM).unwrap();
        assert_eq!(stage_2[..6], [0xea, 0, 0, 0x00, 0x7f, 2]);
        let selector = &stage_2[SELECTOR_AT..];
        assert_eq!(selector[..12], *b"\xeb\x3a\x90\x90selector");
        assert_eq!(selector[12..20], [0, 1, 0, 0, 8, 1, 0, 0]);
        assert_eq!(selector[20..24], 0x1000u32.to_le_bytes());
        assert_eq!(selector[36..41], [2; 5]);
    }

    #[test]
    fn without_room_or_parameters_it_is_refused() {
        let mut used = stages();
        used.stage_2[SELECTOR_AT + 0x700] = 1;
        assert!(fit(&used, &FROM).is_err());
        let mut short = stages();
        short.stage_2.truncate(30_000);
        assert!(fit(&short, &FROM).is_err());
        let mut other = stages();
        other.selector = vec![0; 100];
        assert!(fit(&other, &FROM).is_err());
        let far = ChosenFrom {
            copies: [1 << 32, 0],
            ..FROM
        };
        assert!(fit(&stages(), &far).is_err());
    }
}
