//! What outlives the power: the fake keeps what was not flushed in a cache that forgets,
//! when the whole machine loses its power and when the disk alone does.

use super::{Sata, any_fault, honest, kinds, listen, read, start, wait_for, write};
use crate::Hba;
use crate::fake::{Character, Fake, FakeBus, Fault};
use machine::block::{BlockDevice, BlockError, Trouble};
use proptest::prelude::*;
use std::vec::Vec;

/// Sectors that are written to.
const SECTORS: usize = 8;

/// What a sector may hold.
type May = Vec<Vec<u8>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64, u8),
    Flush,
    /// The disk is pulled and put back, with time for the driver to see it gone or not.
    Replug(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..SECTORS as u64, 1u8..255).prop_map(|(sector, value)| Step::Write(sector, value)),
        4 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Replug),
    ]
}

/// Pulls the disk and puts it back.
fn replug(disk: &Sata, fake: &Fake, is_slow: bool) {
    fake.plug(false);
    if is_slow {
        wait_for(|| read(disk, 0) == Err(BlockError::Gone));
    }
    fake.plug(true);
    wait_for(|| read(disk, 0).is_ok());
}

#[test]
fn a_flush_does_not_vouch_for_what_went_with_the_power() {
    for is_slow in [true, false] {
        let (disk, fake) = honest();
        write(&disk, 1, 1).unwrap();
        disk.flush().unwrap();
        replug(&disk, &fake, is_slow);
        // Nothing can have been lost.
        assert_eq!(disk.flush(), Ok(()));
        write(&disk, 1, 2).unwrap();
        replug(&disk, &fake, is_slow);
        assert_eq!(read(&disk, 1), Ok(1));
        assert_eq!(disk.flush(), Err(BlockError::Failed));
        write(&disk, 1, 3).unwrap();
        assert_eq!((disk.flush(), read(&disk, 1)), (Ok(()), Ok(3)));
    }
}

/// A flush that is under way when the disk loses its power fails, or is given again and
/// does not vouch either.
#[test]
fn nor_does_one_that_was_under_way() {
    let (disk, fake) = honest();
    let told = listen(&disk);
    write(&disk, 1, 1).unwrap();
    fake.state.lock().faults = Vec::from([Fault::Pulled]);
    assert_eq!(disk.flush(), Err(BlockError::Gone));
    wait_for(|| *told.lock() == [Trouble::Pulled]);
    fake.plug(true);
    wait_for(|| read(&disk, 1) == Ok(0));
    assert_eq!(disk.flush(), Err(BlockError::Failed));
    assert_eq!(disk.flush(), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever happens before the power goes: what was written before a flush that was
    /// acknowledged, or something newer, is there afterwards.
    #[test]
    fn what_was_flushed_outlives_the_power(
        kind in 0usize..8,
        steps in prop::collection::vec((any_step(), any_fault()), 1..24),
        stay in any::<u8>(),
    ) {
        let (disk, fake) = start(kinds()[kind].clone());
        let zeros: May = std::vec![Vec::from([0]); SECTORS];
        // With the cache, and without it.
        let (mut seen, mut kept) = (zeros.clone(), zeros);
        for (step, fault) in steps {
            fake.state.lock().faults = fault.into_iter().collect();
            match step {
                Step::Write(sector, value) => {
                    let sector = sector as usize;
                    if write(&disk, sector as u64, value).is_ok() {
                        seen[sector].clear();
                    }
                    seen[sector].push(value);
                    kept[sector].push(value);
                }
                Step::Flush if disk.flush().is_ok() => kept = seen.clone(),
                // It tells that anything since the last good one may be lost.
                Step::Flush => seen = kept.clone(),
                Step::Replug(is_slow) => {
                    fake.state.lock().faults.clear();
                    replug(&disk, &fake, is_slow);
                }
            }
        }
        let medium = fake.cut_power(|n| stay >> (n % 8) & 1 != 0);
        prop_assert_eq!(disk.flush(), Err(BlockError::Gone));
        // The same disk in another machine.
        let fake = Fake::new(Character::default());
        fake.state.lock().disk = medium;
        let disk = Hba::start(FakeBus(fake)).ok().unwrap().remove(0);
        for (sector, may_be) in kept.iter().enumerate() {
            let found = read(&disk, sector as u64).unwrap();
            prop_assert!(may_be.contains(&found), "{sector}: {found} is none of {may_be:?}");
        }
    }
}
