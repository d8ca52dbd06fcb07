//! The driver against a controller that misbehaves.

mod durable;

use crate::fake::{BLOCK, BLOCKS, Character, Fake, FakeBus, Fault, MDTS};
use crate::{Namespace, Nvme, NvmeError};
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

type Disk = Arc<Namespace<FakeBus>>;

fn start(character: Character) -> (Disk, Arc<Fake>) {
    let fake = Fake::new(character);
    let mut disks = Nvme::start(FakeBus(fake.clone())).ok().unwrap();
    assert_eq!(disks.len(), 1);
    (disks.remove(0), fake)
}

fn honest() -> (Disk, Arc<Fake>) {
    start(Character::default())
}

fn frames(count: usize, fill: impl Fn(usize) -> u8) -> Vec<Frame> {
    let frame = |n| {
        let frame = Frame::zeroed(Account::kernel()).unwrap();
        frame.write(0, &[fill(n); PAGE_SIZE]);
        frame
    };
    (0..count).map(frame).collect()
}

fn write(disk: &Disk, sector: u64, fill: u8) -> Result<(), BlockError> {
    disk.write(sector, &frames(1, |_| fill), BLOCK)
}

fn read(disk: &Disk, sector: u64) -> Result<u8, BlockError> {
    let pages = frames(1, |_| 0xee);
    disk.read(sector, &pages, BLOCK)?;
    let mut bytes = [0; BLOCK];
    pages[0].read(0, &mut bytes);
    assert!(bytes.iter().all(|b| *b == bytes[0]));
    Ok(bytes[0])
}

/// What the disk tells from now on.
fn listen(disk: &Disk) -> Arc<SpinLock<Vec<Trouble>>> {
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

fn resets(disk: &Disk) -> u64 {
    disk.controller().counters().resets.load(Relaxed)
}

#[test]
fn large_and_small_transfers_there_and_back() {
    let (disk, fake) = honest();
    assert_eq!((disk.sectors(), disk.block_len()), (BLOCKS as u64, BLOCK));
    assert_eq!(disk.identity().serial, "FAKE-1");
    // More than one command takes, and an end within a page.
    let pages = 3 * (1 << MDTS) + 1;
    let len = pages * PAGE_SIZE - BLOCK;
    disk.write(8, &frames(pages, |n| n as u8 + 1), len).unwrap();
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
        assert!(bytes[..end].iter().all(|b| *b == n as u8 + 1));
        assert!(bytes[end..].iter().all(|b| *b == 0));
    }
    let state = fake.state.lock();
    assert_eq!(state.disk[8 * BLOCK - 1], 0);
    assert_eq!(state.disk[8 * BLOCK + len], 0);
    assert_eq!(state.commands, 8);
}

#[test]
fn flush_discard_and_zeroes() {
    let (disk, fake) = honest();
    disk.flush().unwrap();
    assert_eq!(fake.state.lock().flushes, 1);
    for (how, value) in [(Operation::Discard, 0xdd), (Operation::WriteZeroes, 0)] {
        write(&disk, 10, 1).unwrap();
        write(&disk, 11, 2).unwrap();
        disk.clear(how, 11, 5).unwrap();
        assert_eq!((read(&disk, 10), read(&disk, 11)), (Ok(1), Ok(value)));
    }
    let end = disk.sectors();
    let beyond = disk.clear(Operation::Discard, end - 1, 2);
    assert_eq!(beyond, Err(BlockError::OutOfRange));
    let neither = disk.clear(Operation::Read, 0, 1);
    assert_eq!(neither, Err(BlockError::Unsupported));
}

#[test]
fn fewer_queues_and_interrupts_will_do() {
    for (pairs, interrupts, creates) in [(1, 3, 9), (9, 1, 9), (9, 2, 9), (2, 3, 1)] {
        let (disk, _) = start(Character {
            pairs,
            interrupts,
            creates,
            ..Character::default()
        });
        for n in 0..200 {
            write(&disk, n, n as u8).unwrap();
        }
        assert_eq!(read(&disk, 77), Ok(77));
    }
}

#[test]
fn a_failure_is_told_and_nothing_else_suffers() {
    let (disk, fake) = honest();
    let told = listen(&disk);
    // Unrecovered read error; then an answer to try again later.
    fake.state.lock().faults = Vec::from([Fault::Status(0x281)]);
    assert_eq!(read(&disk, 5), Err(BlockError::Failed));
    wait_for(|| !told.lock().is_empty());
    let failed = Trouble::Failed {
        operation: Operation::Read,
        sector: 5,
    };
    assert_eq!(told.lock().pop(), Some(failed));
    fake.state.lock().faults = Vec::from([Fault::Status(0x082), Fault::Status(0x082)]);
    assert_eq!(write(&disk, 5, 9), Ok(()));
    fake.state.lock().faults = Vec::from([Fault::Status(0x082); 3]);
    assert_eq!(write(&disk, 5, 9), Err(BlockError::TimedOut));
    fake.state.lock().faults = Vec::from([Fault::Status(0x4082)]);
    assert_eq!(write(&disk, 5, 9), Err(BlockError::Failed));
    assert_eq!((resets(&disk), read(&disk, 5)), (0, Ok(9)));
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
fn what_is_late_is_aborted_and_tried_again() {
    let (disk, fake) = start(Character {
        aborts: true,
        ..Character::default()
    });
    fake.state.lock().faults = Vec::from([Fault::Silence]);
    write(&disk, 3, 4).unwrap();
    assert_eq!((read(&disk, 3), resets(&disk)), (Ok(4), 0));
    assert_eq!(fake.state.lock().aborts, 1);
}

#[test]
fn silence_ends_in_a_reset_and_then_in_an_error() {
    let (disk, fake) = honest();
    let told = listen(&disk);
    fake.state.lock().faults = Vec::from([Fault::Silence]);
    write(&disk, 3, 4).unwrap();
    assert_eq!((read(&disk, 3), resets(&disk)), (Ok(4), 1));
    assert_eq!(*told.lock(), [Trouble::Reset]);
    fake.state.lock().faults = Vec::from([Fault::Silence; 3]);
    assert_eq!(write(&disk, 3, 5), Err(BlockError::TimedOut));
    assert_eq!(read(&disk, 3), Ok(4));
}

#[test]
fn answers_to_nothing_lead_to_a_reset_and_no_harm() {
    use Fault::{Twice, WrongHead, WrongId, WrongQueue, WrongTurn};
    for fault in [WrongId, WrongTurn, WrongQueue, WrongHead, Twice] {
        let (disk, fake) = honest();
        fake.state.lock().faults = Vec::from([fault]);
        write(&disk, 3, 4).unwrap();
        write(&disk, 4, 5).unwrap();
        assert_eq!(
            (read(&disk, 3), read(&disk, 4)),
            (Ok(4), Ok(5)),
            "{fault:?}"
        );
        wait_for(|| resets(&disk) == 1);
    }
}

#[test]
fn a_broken_or_stopped_controller_is_back_within_a_second() {
    for fault in [Fault::Fatal, Fault::Stopped] {
        let (disk, fake) = honest();
        write(&disk, 9, 9).unwrap();
        fake.state.lock().faults = Vec::from([fault]);
        let begun = Instant::now();
        write(&disk, 3, 4).unwrap();
        assert!(Instant::now().since(begun) < Duration::from_millis(250));
        assert_eq!((read(&disk, 3), read(&disk, 9)), (Ok(4), Ok(9)));
        assert_eq!(resets(&disk), 1);
    }
}

#[test]
fn a_pulled_controller_is_given_up_at_once() {
    for absent in [u32::MAX, 0] {
        let character = Character {
            absent,
            ..Character::default()
        };
        let (disk, fake) = start(character.clone());
        let told = listen(&disk);
        fake.state.lock().faults = Vec::from([Fault::Pulled]);
        let begun = Instant::now();
        assert_eq!(write(&disk, 3, 4), Err(BlockError::Gone));
        assert_eq!(read(&disk, 3), Err(BlockError::Gone));
        assert!(Instant::now().since(begun) < Duration::from_millis(500));
        wait_for(|| *told.lock() == [Trouble::GivenUp]);
        // Pulled while nothing is under way: the next transfer finds out.
        let (disk, fake) = start(character);
        fake.pull();
        assert_eq!(read(&disk, 3), Err(BlockError::Gone));
    }
}

#[test]
fn a_controller_that_does_not_come_back_is_given_up() {
    for character in [
        Character {
            starts: 1,
            ..Character::default()
        },
        Character {
            changes: true,
            ..Character::default()
        },
    ] {
        let (disk, fake) = start(character);
        let told = listen(&disk);
        fake.state.lock().faults = Vec::from([Fault::Fatal]);
        assert_eq!(write(&disk, 3, 4), Err(BlockError::Gone));
        wait_for(|| *told.lock() == [Trouble::GivenUp]);
        assert_eq!(resets(&disk), 5);
    }
}

#[test]
fn a_controller_that_never_starts_is_an_error() {
    let fake = Fake::new(Character {
        starts: 0,
        ..Character::default()
    });
    let answer = Nvme::start(FakeBus(fake.clone())).err();
    assert_eq!(answer, Some(NvmeError::NotReady));
    let fake = Fake::new(Character::default());
    fake.pull();
    assert_eq!(Nvme::start(FakeBus(fake)).err(), Some(NvmeError::Gone));
}

#[test]
fn a_warning_is_told_each_time() {
    let (disk, fake) = honest();
    let told = listen(&disk);
    for n in 1..4 {
        std::thread::sleep(Duration::from_millis(50));
        fake.warn();
        wait_for(|| *told.lock() == std::vec![Trouble::Warning; n]);
    }
}

#[test]
fn its_health_is_read() {
    let (disk, fake) = honest();
    let health = disk.health().unwrap();
    assert_eq!(
        (health.temperature, health.power_on_hours),
        (Some(27), Some(9))
    );
    assert!(health.is_failing);
    fake.pull();
    let _ = read(&disk, 0);
    wait_for(|| disk.health() == Err(BlockError::Gone));
}

/// More commands than slots, with trouble of all kinds: what was acknowledged is there.
#[test]
fn many_threads_and_much_trouble() {
    const PAGES: usize = 64;
    const SECTORS: u64 = (PAGES * PAGE_SIZE / BLOCK) as u64;
    let (disk, fake) = honest();
    let threads: Vec<_> = (0..12)
        .map(|part| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                let sector = part * SECTORS;
                for round in 1..12u8 {
                    let pages = frames(PAGES, |_| round);
                    disk.write(sector, &pages, PAGES * PAGE_SIZE).unwrap();
                    assert_eq!(read(&disk, sector + SECTORS - 1), Ok(round));
                }
            })
        })
        .collect();
    for fault in [
        Fault::Twice,
        Fault::NoInterrupt,
        Fault::Fatal,
        Fault::WrongId,
    ] {
        std::thread::sleep(Duration::from_millis(20));
        fake.state.lock().faults.push(fault);
    }
    for t in threads {
        t.join().unwrap();
    }
    let state = fake.state.lock();
    let written = 12 * PAGES * PAGE_SIZE;
    assert!(state.disk[..written].iter().all(|b| *b == 11));
    assert!(state.starts > 1);
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Fault::NoInterrupt)),
        1 => Just(Some(Fault::WrongId)),
        1 => Just(Some(Fault::WrongQueue)),
        1 => Just(Some(Fault::Twice)),
        1 => Just(Some(Fault::Fatal)),
        1 => Just(Some(Fault::Stopped)),
        1 => any::<u16>().prop_map(|s| Some(Fault::Status(s & 0x7ff | 1))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever happens, a block holds what was last acknowledged, or what a failed
    /// write would have put there.
    #[test]
    fn nothing_acknowledged_is_lost(
        steps in prop::collection::vec((0u64..8, 1u8..255, any_fault()), 1..40)
    ) {
        let (disk, fake) = honest();
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
