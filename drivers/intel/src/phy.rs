//! The PHY, as far as it must be asked: to negotiate when firmware left it asleep.

use crate::chip::{Chip, pause};
use crate::regs::{
    BMCR, BMCR_ASLEEP, BMCR_NEGOTIATE, BMCR_RESTART, MDIC, MDIC_ADDRESS_1, MDIC_ERROR, MDIC_READ,
    MDIC_READY, MDIC_REGISTER_SHIFT, MDIC_WRITE, STATUS, STATUS_LINK_UP,
};
use core::time::Duration;
use machine::bus::Bus;

/// How long the PHY may take for a register (8254x, 13.4.7: 64 microseconds).
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_micros(200);

/// Has the PHY negotiate, unless there is a link or the PHY is not the driver's.
pub(crate) fn wake<B: Bus>(chip: &Chip<B>) {
    let has_link = chip.read(STATUS) & STATUS_LINK_UP != 0;
    if chip.model.quirks.leaves_phy || has_link {
        return;
    }
    // One that does not answer is none of copper, and needs nothing.
    let Some(control) = access(chip, MDIC_READ | BMCR << MDIC_REGISTER_SHIFT) else {
        return;
    };
    let control = control & !BMCR_ASLEEP | BMCR_NEGOTIATE | BMCR_RESTART;
    let _ = access(chip, MDIC_WRITE | BMCR << MDIC_REGISTER_SHIFT | control);
}

/// Reads or writes a register; what the PHY says, if it does.
fn access<B: Bus>(chip: &Chip<B>, command: u32) -> Option<u32> {
    chip.write(MDIC, command | MDIC_ADDRESS_1);
    for _ in 0..TRIES {
        let answer = chip.read(MDIC);
        if answer & MDIC_READY != 0 {
            return (answer & MDIC_ERROR == 0).then_some(answer & 0xffff);
        }
        pause(PAUSE);
    }
    None
}
