//! The list of capabilities.

use super::config::{CAPABILITIES, COMMAND, ConfigSpace, HAS_CAPABILITIES};
use alloc::vec::Vec;

/// A capability: what it is, and where its registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its ID.
    pub id: u8,
    /// Offset in configuration space.
    pub offset: u16,
}

/// The space holds no more, whatever the list says.
const COUNT_MAX: usize = 48;

/// Follows the list, which a broken device may have closed to a ring.
pub(super) fn read_all(config: &impl ConfigSpace) -> Vec<Capability> {
    let mut found = Vec::new();
    if config.read(COMMAND) & HAS_CAPABILITIES == 0 {
        return found;
    }
    let mut offset = config.read(CAPABILITIES) as u16 & 0xfc;
    while offset >= 0x40 && found.len() < COUNT_MAX {
        let word = config.read(offset);
        if word == u32::MAX {
            break;
        }
        found.push(Capability {
            id: word as u8,
            offset,
        });
        offset = (word >> 8) as u16 & 0xfc;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::config::fake::Fake;
    use super::*;

    #[test]
    fn a_list_and_a_ring() {
        let f = Fake::default();
        assert_eq!(read_all(&f), []);
        f.set(COMMAND, HAS_CAPABILITIES);
        f.set(CAPABILITIES, 0x98);
        f.set(0x98, 0x0000_4011);
        f.set(0x40, 0x0000_0009);
        let list = read_all(&f);
        assert_eq!(
            list,
            [
                Capability {
                    id: 0x11,
                    offset: 0x98
                },
                Capability {
                    id: 9,
                    offset: 0x40
                }
            ]
        );
        f.set(0x40, 0x0000_9809);
        assert_eq!(read_all(&f).len(), COUNT_MAX);
    }
}
