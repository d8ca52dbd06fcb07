//! What outlives the power: the fake keeps what was not flushed in a cache that forgets.

use super::{any_fault, honest, read, start, write};
use crate::Nvme;
use crate::fake::{Character, Fake, FakeBus};
use machine::block::{BlockDevice, BlockError};
use proptest::prelude::*;
use std::vec::Vec;

/// Sectors that are written to.
const SECTORS: usize = 8;

/// Vectors of a test program are few, and drivers never give theirs back.
fn frugal() -> Character {
    Character {
        interrupts: 1,
        ..Character::default()
    }
}

/// What a sector may hold.
type May = Vec<Vec<u8>>;

#[test]
fn the_fake_forgets_what_was_not_flushed() {
    let (disk, fake) = honest();
    write(&disk, 1, 1).unwrap();
    disk.flush().unwrap();
    write(&disk, 1, 2).unwrap();
    write(&disk, 2, 2).unwrap();
    let medium = fake.cut_power(|n| n == 2);
    assert_eq!((medium[512], medium[1024]), (1, 2));
    assert_eq!(disk.flush(), Err(BlockError::Gone));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Whatever happens before the power goes, resets of the controller among it, which
    /// keep the cache: what was written before a flush that was acknowledged, or
    /// something newer, is there afterwards. A step without a value is a flush.
    #[test]
    fn what_was_flushed_outlives_the_power(
        steps in prop::collection::vec(
            (0..SECTORS as u64, prop::option::weighted(0.7, 1u8..255), any_fault()),
            1..40,
        ),
        stay in any::<u8>(),
    ) {
        let (disk, fake) = start(frugal());
        let zeros: May = std::vec![Vec::from([0]); SECTORS];
        // With the cache, and without it.
        let (mut seen, mut kept) = (zeros.clone(), zeros);
        for (sector, value, fault) in steps {
            fake.state.lock().faults = fault.into_iter().collect();
            match value {
                Some(value) => {
                    let at = sector as usize;
                    if write(&disk, sector, value).is_ok() {
                        seen[at].clear();
                    }
                    seen[at].push(value);
                    kept[at].push(value);
                }
                None if disk.flush().is_ok() => kept = seen.clone(),
                None => {}
            }
        }
        let medium = fake.cut_power(|n| stay >> (n % 8) & 1 != 0);
        prop_assert_eq!(disk.flush(), Err(BlockError::Gone));
        // The same disk in another machine.
        let fake = Fake::new(frugal());
        fake.state.lock().disk = medium;
        let disk = Nvme::start(FakeBus(fake)).ok().unwrap().remove(0);
        for (sector, may_be) in kept.iter().enumerate() {
            let found = read(&disk, sector as u64).unwrap();
            prop_assert!(may_be.contains(&found), "{sector}: {found} is none of {may_be:?}");
        }
    }
}
