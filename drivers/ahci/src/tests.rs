//! The driver against an adapter and a disk that misbehave.

mod durable;

use crate::fake::{BLOCK, BLOCKS, Character, Fake, FakeBus, Fault};
use crate::{AhciError, Disk, Hba};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::block::{BlockDevice, BlockError, Operation, Trouble};
use machine::frame::Frame;
use machine::sync::SpinLock;
use machine::time::Instant;
use proptest::prelude::*;

type Sata = Arc<Disk<FakeBus>>;

fn start(character: Character) -> (Sata, Arc<Fake>) {
    let fake = Fake::new(character);
    let mut disks = Hba::start(FakeBus(fake.clone())).ok().unwrap();
    assert_eq!(disks.len(), 1);
    (disks.remove(0), fake)
}

fn honest() -> (Sata, Arc<Fake>) {
    start(Character::default())
}

/// Of every kind that answers.
fn kinds() -> Vec<Character> {
    let mut all = Vec::new();
    for n in 0..8 {
        all.push(Character {
            queues: n & 1 == 0,
            has_log: n & 2 == 0,
            is_wired: n & 4 == 0,
            ..Character::default()
        });
    }
    all
}

fn frames(count: usize, fill: impl Fn(usize) -> u8) -> Vec<Frame> {
    let frame = |n| {
        let frame = Frame::zeroed(Account::kernel()).unwrap();
        frame.write(0, &[fill(n); PAGE_SIZE]);
        frame
    };
    (0..count).map(frame).collect()
}

fn write(disk: &Sata, sector: u64, fill: u8) -> Result<(), BlockError> {
    disk.write(sector, &frames(1, |_| fill), BLOCK)
}

fn read(disk: &Sata, sector: u64) -> Result<u8, BlockError> {
    let pages = frames(1, |_| 0xee);
    disk.read(sector, &pages, BLOCK)?;
    let mut bytes = [0; BLOCK];
    pages[0].read(0, &mut bytes);
    assert!(bytes.iter().all(|b| *b == bytes[0]));
    Ok(bytes[0])
}

/// What the disk tells from now on.
fn listen(disk: &Sata) -> Arc<SpinLock<Vec<Trouble>>> {
    let told = Arc::new(SpinLock::new(Vec::new()));
    let into = told.clone();
    disk.observe(Box::new(move |t| into.lock().push(t)));
    told
}

fn wait_for(what: impl Fn() -> bool) {
    let deadline = Instant::now().after(Duration::from_secs(5));
    while !what() {
        assert!(Instant::now() < deadline, "it never happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn resets(disk: &Sata) -> u64 {
    disk.adapter().counters.resets.load(Relaxed)
}

#[test]
fn large_and_small_transfers_there_and_back() {
    for kind in kinds() {
        let (disk, fake) = start(kind);
        assert_eq!((disk.sectors(), disk.block_len()), (BLOCKS as u64, BLOCK));
        let pages = 3 * crate::command::PAGES_MAX + 1;
        let len = pages * PAGE_SIZE - BLOCK;
        disk.write(8, &frames(pages, |n| (n as u8).wrapping_add(1)), len)
            .unwrap();
        let back = frames(pages, |_| 0);
        disk.read(8, &back, len).unwrap();
        for (n, frame) in back.iter().enumerate() {
            let mut bytes = [0; PAGE_SIZE];
            frame.read(0, &mut bytes);
            let end = if n + 1 == pages {
                PAGE_SIZE - BLOCK
            } else {
                PAGE_SIZE
            };
            assert!(bytes[..end].iter().all(|b| *b == (n as u8).wrapping_add(1)));
            assert!(bytes[end..].iter().all(|b| *b == 0));
        }
        assert_eq!(fake.state.lock().disk[8 * BLOCK + len], 0);
    }
}

#[test]
fn flush_discard_and_zeroes() {
    let (disk, fake) = honest();
    disk.flush().unwrap();
    assert_eq!(fake.state.lock().flushes, 1);
    for (how, value) in [(Operation::Discard, 0xdd), (Operation::WriteZeroes, 0)] {
        write(&disk, 10, 1).unwrap();
        write(&disk, 11, 2).unwrap();
        disk.clear(how, 11, 3000).unwrap();
        assert_eq!((read(&disk, 10), read(&disk, 11)), (Ok(1), Ok(value)));
    }
    let end = disk.sectors();
    let beyond = disk.clear(Operation::Discard, end - 1, 2);
    assert_eq!(beyond, Err(BlockError::OutOfRange));
}

/// Several commands are under way at once, and one that cannot be queued still gets its
/// turn among many that can.
#[test]
fn commands_are_queued_and_a_flush_gets_its_turn() {
    let (disk, fake) = honest();
    fake.state.lock().is_slow = true;
    let threads: Vec<_> = (0..40u64)
        .map(|n| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                for round in 0..5 {
                    write(&disk, n, round).unwrap();
                }
            })
        })
        .collect();
    wait_for(|| fake.state.lock().most_at_once > 1);
    let flusher = disk.clone();
    let flush = std::thread::spawn(move || flusher.flush().unwrap());
    fake.go_on();
    flush.join().unwrap();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert!(fake.state.lock().disk[..40 * BLOCK].iter().all(|b| *b == 4));
}

#[test]
fn a_failure_is_told_and_nothing_else_suffers() {
    for kind in kinds() {
        let (disk, fake) = start(kind.clone());
        let told = listen(&disk);
        write(&disk, 5, 7).unwrap();
        for fault in [Fault::Failed, Fault::FailedBusy] {
            fake.state.lock().faults = Vec::from([fault, fault]);
            let asked = fake.state.lock().reads_of_log;
            // Without a log the command is tried once more, alone, and fails again.
            assert_eq!(read(&disk, 5), Err(BlockError::Failed), "{kind:?}");
            wait_for(|| !told.lock().is_empty());
            let failed = Trouble::Failed {
                operation: Operation::Read,
                sector: 5,
            };
            assert_eq!(told.lock().pop(), Some(failed));
            fake.state.lock().faults.clear();
            assert_eq!(read(&disk, 5), Ok(7));
            let looked = fake.state.lock().reads_of_log > asked;
            assert_eq!(looked, kind.queues);
        }
        assert_eq!(resets(&disk), 0);
    }
}

#[test]
fn of_many_commands_only_the_bad_one_fails() {
    for has_log in [true, false] {
        let (disk, fake) = start(Character {
            has_log,
            ..Character::default()
        });
        fake.state.lock().is_slow = true;
        let threads: Vec<_> = (0..12u64)
            .map(|n| {
                let disk = disk.clone();
                std::thread::spawn(move || write(&disk, n, 9))
            })
            .collect();
        wait_for(|| fake.state.lock().most_at_once >= 6);
        // The third fails; without a log it is tried once more, alone, and works.
        fake.state.lock().faults =
            Vec::from([Fault::NoInterrupt, Fault::NoInterrupt, Fault::Failed]);
        fake.go_on();
        let ends: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let failed = ends.iter().filter(|e| e.is_err()).count();
        assert_eq!(failed, usize::from(has_log), "{ends:?}");
        for (n, end) in ends.iter().enumerate() {
            let now = read(&disk, n as u64).unwrap();
            assert_eq!(now == 9, end.is_ok());
        }
    }
}

/// Of a disk that goes on with what else it had, nothing arrives once the program was told
/// that it is written, and has written something else; nor is its end taken for another's.
#[test]
fn what_went_on_beside_a_failure_comes_to_an_end() {
    const AT_ONCE: u32 = 8;
    let (disk, fake) = start(Character {
        has_log: false,
        goes_on: true,
        ..Character::default()
    });
    let write_all = |value: u8, faults: &[Fault]| {
        {
            let mut state = fake.state.lock();
            (state.is_slow, state.most_at_once) = (true, 0);
            state.faults = faults.to_vec();
        }
        let threads: Vec<_> = (0..u64::from(AT_ONCE))
            .map(|n| {
                let disk = disk.clone();
                std::thread::spawn(move || write(&disk, n, value))
            })
            .collect();
        wait_for(|| fake.state.lock().most_at_once == AT_ONCE);
        fake.go_on();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
    };
    write_all(1, &[Fault::Failed]);
    write_all(2, &[]);
    fake.straggle();
    let found: Vec<_> = (0..AT_ONCE).map(|n| read(&disk, n.into())).collect();
    assert_eq!(found, alloc::vec![Ok(2); AT_ONCE as usize]);
}

#[test]
fn its_health_is_read() {
    let (disk, _) = honest();
    let health = disk.health().unwrap();
    assert_eq!((health.is_failing, health.temperature), (true, Some(41)));
    assert_eq!(disk.identity().serial, "FAKE-1");
}

#[test]
fn an_interrupt_that_is_lost_costs_a_moment() {
    let (disk, fake) = honest();
    fake.state.lock().faults = Vec::from([Fault::NoInterrupt]);
    let begun = Instant::now();
    write(&disk, 1, 1).unwrap();
    assert!(Instant::now().since(begun) < Duration::from_millis(250));
    assert_eq!(resets(&disk), 0);
}

#[test]
fn silence_and_link_errors_end_in_a_reset_and_then_in_an_error() {
    for kind in kinds() {
        for fault in [Fault::Silence, Fault::Link] {
            let (disk, fake) = start(kind.clone());
            let told = listen(&disk);
            fake.state.lock().faults = Vec::from([fault]);
            write(&disk, 3, 4).unwrap();
            assert_eq!(
                (read(&disk, 3), resets(&disk)),
                (Ok(4), 1),
                "{kind:?} {fault:?}"
            );
            assert_eq!(*told.lock(), [Trouble::Reset]);
            fake.state.lock().faults = Vec::from([fault; 3]);
            assert_eq!(write(&disk, 3, 5), Err(BlockError::TimedOut));
            fake.state.lock().faults.clear();
            assert_eq!(read(&disk, 3), Ok(4));
        }
    }
}

#[test]
fn a_pulled_disk_is_gone_at_once_and_comes_back() {
    for kind in kinds() {
        let (disk, fake) = start(kind);
        let told = listen(&disk);
        write(&disk, 1, 6).unwrap();
        disk.flush().unwrap();
        fake.state.lock().faults = Vec::from([Fault::Pulled]);
        let begun = Instant::now();
        assert_eq!(write(&disk, 3, 4), Err(BlockError::Gone));
        assert!(Instant::now().since(begun) < Duration::from_millis(900));
        assert_eq!(read(&disk, 1), Err(BlockError::Gone));
        wait_for(|| *told.lock() == [Trouble::Pulled]);
        fake.plug(true);
        wait_for(|| told.lock().len() == 2);
        assert_eq!(told.lock()[1], Trouble::Returned);
        assert_eq!(read(&disk, 1), Ok(6));
        // Pulled while nothing is under way.
        fake.plug(false);
        wait_for(|| told.lock().len() == 3);
        assert_eq!(read(&disk, 1), Err(BlockError::Gone));
        // Another disk is not taken for this one.
        fake.state.lock().serial = "FAKE-2";
        fake.plug(true);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(read(&disk, 1), Err(BlockError::Gone));
    }
}

#[test]
fn what_does_not_come_back_is_given_up() {
    let never = Character {
        resets: 0,
        ..Character::default()
    };
    let (disk, fake) = start(never);
    let told = listen(&disk);
    fake.state.lock().faults = Vec::from([Fault::Silence]);
    assert_eq!(write(&disk, 3, 4), Err(BlockError::Gone));
    wait_for(|| *told.lock() == [Trouble::GivenUp]);
    for absent in [u32::MAX, 0] {
        let (disk, fake) = start(Character {
            absent,
            ..Character::default()
        });
        let told = listen(&disk);
        fake.state.lock().faults = Vec::from([Fault::Gone]);
        assert_eq!(write(&disk, 3, 4), Err(BlockError::Gone));
        wait_for(|| *told.lock() == [Trouble::GivenUp]);
    }
}

#[test]
fn an_adapter_that_cannot_be_used_is_an_error() {
    let fake = Fake::new(Character {
        stops: false,
        ..Character::default()
    });
    let answer = Hba::start(FakeBus(fake)).err();
    assert_eq!(answer, Some(AhciError::NotStopped));
    let fake = Fake::new(Character::default());
    fake.plug(false);
    assert!(Hba::start(FakeBus(fake)).ok().unwrap().is_empty());
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Fault::NoInterrupt)),
        1 => Just(Some(Fault::Failed)),
        1 => Just(Some(Fault::FailedBusy)),
        1 => Just(Some(Fault::Link)),
        1 => Just(Some(Fault::Silence)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever happens, a block holds what was last acknowledged, or what a failed
    /// write would have put there.
    #[test]
    fn nothing_acknowledged_is_lost(
        kind in 0usize..8,
        steps in prop::collection::vec((0u64..8, 1u8..255, any_fault()), 1..20)
    ) {
        let (disk, fake) = start(kinds()[kind].clone());
        let mut may_be: Vec<Vec<u8>> = std::vec![Vec::from([0]); 8];
        for (sector, value, fault) in steps {
            fake.state.lock().faults = fault.into_iter().collect();
            let at = &mut may_be[sector as usize];
            match write(&disk, sector, value) {
                Ok(()) => *at = Vec::from([value]),
                Err(_) => at.push(value),
            }
            fake.state.lock().faults.clear();
            let found = read(&disk, sector).unwrap();
            prop_assert!(at.contains(&found), "{found} is none of {at:?}");
        }
    }
}
