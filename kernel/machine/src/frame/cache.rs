//! Per-CPU stacks of single free frames in front of the buddy allocator.

use super::buddy;
use crate::cpu::{CPUS_MAX, PerCpu};
use crate::sync::IrqLock;

const SIZE: usize = 64;
const BATCH: usize = 32;

struct Stack {
    frames: [u32; SIZE],
    len: usize,
}

static STACKS: PerCpu<IrqLock<Stack>> = PerCpu::new(
    [const {
        IrqLock::new(Stack {
            frames: [0; SIZE],
            len: 0,
        })
    }; CPUS_MAX],
);

/// Frames in all stacks, for the statistics.
pub(super) fn held() -> usize {
    STACKS.iter().map(|s| s.lock().len).sum()
}

/// A free frame, unless only `spare` or fewer are left in the machine.
pub(super) fn take(spare: usize) -> Option<u32> {
    let mut s = STACKS.here().lock();
    if s.len == 0 {
        s.len = buddy::take_many(&mut s.frames[..BATCH], spare);
    }
    s.len = s.len.checked_sub(1)?;
    Some(s.frames[s.len])
}

/// Gives a frame back.
pub(super) fn give(number: u32) {
    let mut s = STACKS.here().lock();
    if s.len == SIZE {
        let keep = SIZE - BATCH;
        buddy::give_many(&s.frames[keep..]);
        s.len = keep;
    }
    let at = s.len;
    s.frames[at] = number;
    s.len += 1;
}
