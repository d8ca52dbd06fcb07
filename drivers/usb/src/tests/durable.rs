//! What outlives a stick's power: the fake keeps what was not flushed in a cache that
//! forgets.

use super::{Bench, Fault, Handle, bytes, pages, with_stick};
use crate::UsbDisk;
use crate::tests::fake::{SHAPE, Xhc};
use machine::block::{BlockDevice, BlockError};
use proptest::prelude::*;
use std::vec::Vec;

/// Sectors that are written to.
const SECTORS: usize = 8;

/// What a sector may hold.
type May = Vec<Vec<u8>>;

fn read(disk: &UsbDisk, sector: usize) -> u8 {
    let page = pages(1, 0xee);
    disk.read(sector as u64, &page, 512).unwrap();
    bytes(&page, 512)[0]
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Fault::StallStatus)),
        1 => Just(Some(Fault::WrongTag)),
        1 => Just(Some(Fault::ShortStatus)),
        1 => Just(Some(Fault::PhaseError)),
        1 => Just(Some(Fault::Sense(6, 0x29))),
        1 => Just(Some(Fault::Sense(3, 0x0c))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever happens before the stick is pulled: what was written before a flush that
    /// was acknowledged, or something newer, is there afterwards. A step without a value
    /// is a flush.
    #[test]
    fn what_was_flushed_outlives_the_power(
        steps in prop::collection::vec(
            (0..SECTORS, prop::option::weighted(0.7, 1u8..255), any_fault()),
            1..30,
        ),
        stay in any::<u8>(),
    ) {
        let (bench, handle, disk) = with_stick();
        let zeros: May = std::vec![Vec::from([0]); SECTORS];
        // With the cache, and without it.
        let (mut seen, mut kept) = (zeros.clone(), zeros);
        for (sector, value, fault) in steps {
            handle.fail(fault.as_slice());
            match value {
                Some(value) => {
                    if disk.write(sector as u64, &pages(1, value), 512).is_ok() {
                        seen[sector].clear();
                    }
                    seen[sector].push(value);
                    kept[sector].push(value);
                }
                None if disk.flush().is_ok() => kept = seen.clone(),
                None => {}
            }
        }
        let medium = handle.pulled(|n| stay >> (n % 8) & 1 != 0);
        bench.xhc.pull(2);
        super::wait("that it is gone", 5, || disk.flush() == Err(BlockError::Gone));
        // The same stick in another machine.
        let (xhc, handle) = (Xhc::new(SHAPE), Handle::new());
        handle.0.lock().unwrap().disk = medium;
        xhc.plug(2, handle.stick());
        let bench = Bench::start(&xhc);
        let disk = bench.disk(0);
        for (sector, may_be) in kept.iter().enumerate() {
            let found = read(&disk, sector);
            prop_assert!(may_be.contains(&found), "{sector}: {found} is none of {may_be:?}");
        }
    }
}
