//! What devices reach, with units of all kinds.

mod fake;

use super::domain::Domain;
use super::reach::Reach;
use super::unit::{Unit, UnitError};
use crate::account::Account;
use crate::dma::{Direction, DmaBuffer, DmaRing, Loan, Segment};
use crate::frame::Frame;
use crate::pci::Address;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use fake::{ABILITIES, BUFFERS, CACHES_ABSENCE, FAULTS, Fake, QUEUE};

const AT: Address = Address {
    bus: 1,
    device: 4,
    function: 2,
};

fn on(fake: &Fake) -> &'static Unit {
    let unit = fake.unit();
    assert_eq!(fake.reaches(AT, 0x1000), (true, true));
    unit.turn_on().unwrap();
    assert_eq!(fake.reaches(AT, 0x1000), (false, false));
    unit
}

fn domain(unit: &'static Unit, at: Address) -> &'static Domain {
    unit.attach(&[at]).unwrap()
}

fn frames(count: usize) -> Vec<Frame> {
    let frame = |_| Frame::zeroed(Account::kernel()).unwrap();
    (0..count).map(frame).collect()
}

/// All kinds of units.
fn units() -> Vec<Fake> {
    let mut all = Vec::new();
    for capability in [
        ABILITIES,
        ABILITIES | CACHES_ABSENCE,
        ABILITIES & !(1 << 39),
    ] {
        for extended in [QUEUE, QUEUE | 1, 0] {
            all.push(Fake::new(capability, extended));
        }
    }
    all.push(Fake::new(ABILITIES | BUFFERS, QUEUE));
    all
}

const NONE: (bool, bool) = (false, false);

#[test]
fn a_device_reaches_what_it_has_and_no_longer() {
    for fake in units() {
        let unit = on(&fake);
        let other = Address { function: 3, ..AT };
        let reach = Reach::of(domain(unit, AT));
        domain(unit, other);
        for count in [1, 5, 40] {
            let frames = frames(count);
            let at = |n: usize| fake.reaches(AT, frames[n].phys());
            let mut loan = Loan::new(reach, 40).unwrap();
            for (direction, may) in [
                (Direction::ToDevice, (true, false)),
                (Direction::FromDevice, (false, true)),
            ] {
                assert!((0..count).all(|n| at(n) == NONE));
                loan.lend(&frames, direction).unwrap();
                assert!((0..count).all(|n| at(n) == may));
                assert_eq!(fake.reaches(other, frames[0].phys()), NONE);
                loan.end();
            }
            assert!((0..count).all(|n| at(n) == NONE));
            loan.lend(&frames, Direction::ToDevice).unwrap();
            drop(loan);
            assert!((0..count).all(|n| at(n) == NONE));
            assert!(frames.iter().all(|f| f.references() == 1));
        }
    }
}

#[test]
fn a_page_that_is_lent_twice_stays_until_both_are_done() {
    for fake in units() {
        let reach = Reach::of(domain(on(&fake), AT));
        let frames = frames(1);
        let at = || fake.reaches(AT, frames[0].phys());
        let loan = || Loan::new(reach, 1).unwrap();
        let (mut a, mut b) = (loan(), loan());
        a.lend(&frames, Direction::ToDevice).unwrap();
        assert_eq!(at(), (true, false));
        b.lend(&frames, Direction::FromDevice).unwrap();
        assert_eq!(at(), (true, true));
        a.end();
        assert!(at().1);
        b.end();
        assert_eq!(at(), NONE);
    }
}

#[test]
fn rings_are_reached_while_they_live() {
    for fake in units() {
        let reach = Reach::of(domain(on(&fake), AT));
        let ring = DmaRing::new(reach, 3 * 4096).unwrap();
        let (phys, both) = (ring.phys(), (true, true));
        assert_eq!(fake.reaches(AT, phys), both);
        assert_eq!(fake.reaches(AT, phys + 3 * 4096 - 1), both);
        drop(ring);
        assert_eq!(fake.reaches(AT, phys), NONE);
        let many = DmaBuffer::many(reach, 10, 1500).unwrap();
        let first = many[0].phys();
        let kept = many.into_iter().next_back();
        assert_eq!(fake.reaches(AT, first), both);
        drop(kept);
        assert_eq!(fake.reaches(AT, first), NONE);
    }
}

#[test]
fn segments_are_lent_and_come_back() {
    for fake in units() {
        let reach = Reach::of(domain(on(&fake), AT));
        let buffer = DmaBuffer::new(9000).unwrap();
        let phys = buffer.phys();
        let mut all = [
            Segment::buffer(buffer, 5000..9000, Direction::FromDevice),
            Segment::frame(frames(1)[0].clone(), 0..100, Direction::ToDevice),
        ];
        Segment::lend(&mut all, reach).unwrap();
        assert_eq!(fake.reaches(AT, phys), NONE, "not a part of it");
        assert_eq!(fake.reaches(AT, phys + 5000), (false, true));
        assert_eq!(fake.reaches(AT, all[1].phys()), (true, false));
        Segment::take_back(&mut all);
        assert_eq!(fake.reaches(AT, all[1].phys()), NONE);
        Segment::lend(&mut all, reach).unwrap();
        all[0].set_part(0..10);
        assert_eq!(fake.reaches(AT, phys + 5000), NONE);
        Segment::lend(&mut all, reach).unwrap();
        let [first, _] = all;
        assert_eq!(fake.reaches(AT, phys), (false, true));
        let buffer = first.into_buffer().unwrap();
        assert_eq!((buffer.phys(), buffer.len()), (phys, 9000));
        assert_eq!(fake.reaches(AT, phys), NONE);
    }
}

#[test]
fn those_behind_one_name_share_a_domain() {
    let fake = Fake::new(ABILITIES, QUEUE);
    let unit = on(&fake);
    let bridge = Address { device: 0, ..AT };
    let a = unit.attach(&[AT, bridge]).unwrap();
    let b = unit.attach(&[Address { device: 9, ..AT }, bridge]).unwrap();
    assert!(core::ptr::eq(a, b));
    let c = unit.attach(&[Address { bus: 0, ..AT }]).unwrap();
    assert!(!core::ptr::eq(a, c) && a.id() != c.id());
    assert!(core::ptr::eq(
        c,
        unit.attach(&[Address { bus: 0, ..AT }]).unwrap()
    ));
    let ring = DmaRing::new(Reach::of(a), 64).unwrap();
    assert_eq!(fake.reaches(bridge, ring.phys()), (true, true));
    assert_eq!(fake.reaches(Address { bus: 0, ..AT }, ring.phys()), NONE);
}

#[test]
fn what_a_dead_unit_remembers_is_never_used_again() {
    let fake = Fake::new(ABILITIES, QUEUE);
    let reach = Reach::of(domain(on(&fake), AT));
    let frames = frames(1);
    let mut loan = Loan::new(reach, 1).unwrap();
    loan.lend(&frames, Direction::ToDevice).unwrap();
    assert_eq!(fake.reaches(AT, frames[0].phys()), (true, false));
    let ring = DmaRing::new(reach, 64).unwrap();
    let at = ring.phys();
    assert_eq!(fake.reaches(AT, at), (true, true));
    fake.0.lock().is_dead = true;
    loan.end();
    assert_eq!(frames[0].references(), 2, "kept for ever");
    drop(ring);
    for _ in 0..64 {
        assert_ne!(DmaRing::new(Reach::ALL, 64).unwrap().phys(), at);
    }
}

#[test]
fn units_that_cannot_be_used() {
    let of = |capability, extended| {
        let fake = Fake::new(capability, extended);
        Unit::new(Box::new(fake), 1 << 40).err()
    };
    assert_eq!(of(ABILITIES, QUEUE), Some(UnitError::NoTables));
    assert_eq!(of(u64::MAX, QUEUE), Some(UnitError::NoRegisters));
    let dead = Fake::new(ABILITIES, QUEUE);
    dead.0.lock().is_dead = true;
    let unit = dead.unit();
    assert!(unit.turn_on().is_err());
    unit.turn_off();
}

#[test]
fn faults_are_taken_once() {
    let fake = Fake::new(ABILITIES, QUEUE);
    let unit = on(&fake);
    let mut s = fake.0.lock();
    s.set_u64(FAULTS, 0x1234_5000);
    s.set_u64(FAULTS + 8, 1 << 63 | 5 << 32 | 0x0122);
    drop(s);
    let mut seen = Vec::new();
    unit.take_faults(|f| seen.push(f));
    unit.take_faults(|f| seen.push(f));
    let [fault] = &seen[..] else {
        panic!("one fault, not {seen:?}")
    };
    assert_eq!((fault.device, fault.address), (AT, 0x1234_5000));
    assert!(fault.is_write && fault.reason == 5);
}

#[test]
fn threads_share_a_domain() {
    let fake = Fake::new(ABILITIES, QUEUE);
    let reach = Reach::of(domain(on(&fake), AT));
    let shared = Arc::new(frames(3));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (fake, shared) = (fake.clone(), shared.clone());
            std::thread::spawn(move || {
                let mut loan = Loan::new(reach, 3).unwrap();
                for _ in 0..300 {
                    loan.lend(&shared, Direction::ToDevice).unwrap();
                    for frame in &*shared {
                        assert_eq!(fake.reaches(AT, frame.phys()), (true, false));
                    }
                    loan.end();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    for frame in &*shared {
        assert_eq!(fake.reaches(AT, frame.phys()), NONE);
    }
}
