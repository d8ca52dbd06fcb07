//! The hardware address: from the registers, where the chip puts it after a reset,
//! else from its EEPROM.

use crate::chip::{Chip, pause};
use crate::regs::{
    EERD, EERD_ADDRESS_LARGE, EERD_ADDRESS_SMALL, EERD_DATA, EERD_DONE_LARGE, EERD_DONE_SMALL,
    EERD_START, RAH0, RAL0, STATUS, STATUS_PORT_SHIFT,
};
use core::time::Duration;
use machine::bus::Bus;

/// How long the EEPROM may take for a word.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// The layout of the register that reads the EEPROM.
#[derive(Clone, Copy)]
struct Reader {
    done: u32,
    address_shift: u32,
}

const READERS: [Reader; 2] = [
    Reader {
        done: EERD_DONE_LARGE,
        address_shift: EERD_ADDRESS_LARGE,
    },
    Reader {
        done: EERD_DONE_SMALL,
        address_shift: EERD_ADDRESS_SMALL,
    },
];

/// The address of a chip that was reset, if it has a valid one.
pub(crate) fn mac<B: Bus>(chip: &Chip<B>) -> Option<[u8; 6]> {
    let [a, b, c, d] = chip.read(RAL0).to_le_bytes();
    let [e, f, ..] = chip.read(RAH0).to_le_bytes();
    let loaded = [a, b, c, d, e, f];
    if is_station(loaded) {
        return Some(loaded);
    }
    from_eeprom(chip).filter(|mac| is_station(*mac))
}

/// Whether an address can be that of one station.
fn is_station(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

fn from_eeprom<B: Bus>(chip: &Chip<B>) -> Option<[u8; 6]> {
    let reader = reader(chip)?;
    let mut mac = [0; 6];
    for (at, bytes) in (0u32..).zip(mac.chunks_exact_mut(2)) {
        bytes.copy_from_slice(&word(chip, reader, at)?.to_le_bytes());
    }
    // The second port's address is one more (82546, 82571, 82576).
    if let Some(last) = mac.last_mut() {
        *last ^= (chip.read(STATUS) >> STATUS_PORT_SHIFT & 0b11) as u8;
    }
    Some(mac)
}

/// Finds out which layout the register has: for word 0 both ask alike.
fn reader<B: Bus>(chip: &Chip<B>) -> Option<Reader> {
    chip.write(EERD, EERD_START);
    let answer = wait(chip, EERD_DONE_LARGE | EERD_DONE_SMALL)?;
    READERS.into_iter().find(|r| answer & r.done != 0)
}

fn word<B: Bus>(chip: &Chip<B>, reader: Reader, at: u32) -> Option<u16> {
    chip.write(EERD, EERD_START | at << reader.address_shift);
    wait(chip, reader.done).map(|answer| (answer >> EERD_DATA) as u16)
}

fn wait<B: Bus>(chip: &Chip<B>, done: u32) -> Option<u32> {
    for _ in 0..TRIES {
        let answer = chip.read(EERD);
        if answer == u32::MAX {
            return None;
        }
        if answer & done != 0 {
            return Some(answer);
        }
        pause(PAUSE);
    }
    None
}
