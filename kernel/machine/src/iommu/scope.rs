//! Which devices an entry of the firmware's table means, and by which names units know a
//! device (Intel VT-d specification 4.1, 8.3.1 and 3.4.1).

use crate::firmware::dmar::{Scope, UnitEntry};
use crate::pci::{Address, Rename};
use alloc::vec::Vec;
use smallvec::SmallVec;

/// What is to be known of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) at: Address,
    /// First and last bus behind it.
    pub(super) behind: (u8, u8),
    /// By which name accesses from behind it come, if not by that of who makes them.
    pub(super) renames: Option<Rename>,
}

/// The machine's bridges.
pub(super) struct Bridges(pub(super) Vec<Bridge>);

impl Bridges {
    fn at(&self, bus: u8, (device, function): (u8, u8)) -> Option<&Bridge> {
        let at = Address {
            bus,
            device,
            function,
        };
        self.0.iter().find(|b| b.at == at)
    }

    /// Whether `scope` means the device at `at`.
    pub(super) fn means(&self, scope: &Scope, at: Address) -> bool {
        let Some((last, bridges)) = scope.path.split_last() else {
            return false;
        };
        let mut bus = scope.bus;
        for hop in bridges {
            match self.at(bus, *hop) {
                Some(bridge) => bus = bridge.behind.0,
                None => return false,
            }
        }
        let is_it = (at.bus, at.device, at.function) == (bus, last.0, last.1);
        let behind = |b: &Bridge| (b.behind.0..=b.behind.1).contains(&at.bus);
        is_it || scope.is_bridge && self.at(bus, *last).is_some_and(behind)
    }

    /// The unit of the list that has the device: one that names it, else the one that has
    /// the rest. Units of other segments have none.
    pub(super) fn unit_of(&self, units: &[UnitEntry], at: Address) -> Option<usize> {
        let here = || units.iter().enumerate().filter(|(_, u)| u.segment == 0);
        let names = |u: &UnitEntry| u.scopes.iter().any(|s| self.means(s, at));
        let named = here().find(|(_, u)| names(u));
        let found = named.or_else(|| here().find(|(_, u)| u.has_the_rest));
        found.map(|(n, _)| n)
    }

    /// The names by which accesses of the device at `at` come.
    pub(super) fn names_of(&self, at: Address) -> SmallVec<[Address; 4]> {
        let mut names = SmallVec::from_slice(&[at]);
        let behind = |b: &&Bridge| (b.behind.0..=b.behind.1).contains(&at.bus);
        for bridge in self.0.iter().filter(behind) {
            if bridge.renames == Some(Rename::Behind) {
                names.push(Address {
                    bus: bridge.behind.0,
                    device: 0,
                    function: 0,
                });
            }
            if bridge.renames.is_some() {
                names.push(bridge.at);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn at(bus: u8, device: u8, function: u8) -> Address {
        Address {
            bus,
            device,
            function,
        }
    }

    fn bridges() -> Bridges {
        let bridge = |at, behind, renames| Bridge {
            at,
            behind,
            renames,
        };
        Bridges(vec![
            bridge(at(0, 0x1c, 0), (1, 3), None),
            bridge(at(1, 0, 0), (2, 3), Some(Rename::Behind)),
            bridge(at(2, 4, 0), (3, 3), Some(Rename::Own)),
        ])
    }

    fn scope(is_bridge: bool, bus: u8, path: &[(u8, u8)]) -> Scope {
        Scope {
            is_bridge,
            bus,
            path: path.to_vec(),
        }
    }

    #[test]
    fn scopes_lead_through_bridges() {
        let b = bridges();
        let device = scope(false, 0, &[(0x1c, 0), (0, 0), (5, 1)]);
        assert!(b.means(&device, at(2, 5, 1)) && !b.means(&device, at(2, 5, 0)));
        let all = scope(true, 0, &[(0x1c, 0)]);
        assert!(b.means(&all, at(3, 1, 0)) && b.means(&all, at(0, 0x1c, 0)));
        assert!(!b.means(&all, at(0, 2, 0)));
        assert!(!b.means(&scope(true, 0, &[(9, 0)]), at(3, 1, 0)));
        assert!(!b.means(&scope(false, 0, &[(9, 0), (0, 0)]), at(0, 0, 0)));
    }

    #[test]
    fn a_unit_that_names_a_device_has_it() {
        let unit = |segment, has_the_rest, scopes| UnitEntry {
            segment,
            has_the_rest,
            registers: 0x1000,
            scopes,
        };
        let units = [
            unit(1, true, vec![]),
            unit(0, true, vec![]),
            unit(0, false, vec![scope(false, 0, &[(2, 0)])]),
        ];
        let b = bridges();
        assert_eq!(b.unit_of(&units, at(0, 2, 0)), Some(2));
        assert_eq!(b.unit_of(&units, at(0, 3, 0)), Some(1));
        assert_eq!(b.unit_of(&units[2..], at(0, 3, 0)), None);
    }

    #[test]
    fn devices_behind_old_bridges_have_other_names() {
        let b = bridges();
        assert_eq!(b.names_of(at(1, 2, 0))[..], [at(1, 2, 0)]);
        assert_eq!(
            b.names_of(at(3, 2, 0))[..],
            [at(3, 2, 0), at(2, 0, 0), at(1, 0, 0), at(2, 4, 0)]
        );
    }
}
