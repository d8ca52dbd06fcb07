//! The driver against a device made of memory, which keeps to the rules or breaks them.

mod fake;
mod joined;
mod offload;
mod wire;

use crate::chip::NicError;
use crate::family::{E1000, E1000E, E1000E_MSIX, Family, IGB, Model, Quirks, Shape};
use crate::nic::{MTU, Nic};
use crate::offload::Layout;
use crate::regs::*;
use crate::ring::{COUNT, Overflow, ReceiveRing, Taken};
use crate::transmit::{self, FRAMES, TransmitRing};
use alloc::sync::Arc;
use alloc::vec::Vec;
use fake::{Fake, Faults, MAC, Made};
use machine::dma::Reach;
use machine::host::device_write;
use net::{Checked, Link, Upper};
use proptest::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::vec;

const FAMILIES: [&Family; 4] = [&E1000, &E1000E, &E1000E_MSIX, &IGB];

/// What the driver gives to the node.
#[derive(Default)]
struct Above {
    frames: Mutex<Vec<Vec<u8>>>,
    checked: Mutex<Vec<Checked>>,
    changes: AtomicUsize,
    ready: AtomicUsize,
}

impl Upper for Above {
    fn receive(&self, frame: &[u8]) {
        self.frames.lock().unwrap().push(frame.to_vec());
    }
    fn receive_checked(&self, frame: &[u8], checked: Checked) {
        self.checked.lock().unwrap().push(checked);
        self.receive(frame);
    }
    fn link_changed(&self) {
        self.changes.fetch_add(1, SeqCst);
    }
    fn transmit_ready(&self) {
        self.ready.fetch_add(1, SeqCst);
    }
}

fn model(family: &'static Family) -> Model {
    Model {
        name: "fake",
        family,
        quirks: Quirks::default(),
    }
}

struct Setup {
    fake: Fake,
    nic: Arc<Nic<Fake>>,
    above: Arc<Above>,
}

fn start(family: &'static Family, made: Made) -> Setup {
    let fake = Fake::new(family, made);
    let (nic, receiver) = Nic::open(fake.clone(), model(family), MTU).unwrap();
    let above = Arc::new(Above::default());
    receiver.start(above.clone()).unwrap();
    Setup { fake, nic, above }
}

/// Waits for something to become true; whether it did in time.
fn within(limit: Duration, f: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if f() {
            return true;
        }
        sleep(Duration::from_millis(2));
    }
    f()
}

/// Sooner than the driver looks by itself, which hides a lost interrupt.
const SOON: Duration = Duration::from_millis(700);
/// Long enough for a busy machine, where it is not about interrupts.
const PATIENCE: Duration = Duration::from_secs(10);

fn frame(n: usize) -> Vec<u8> {
    let mut f = vec![n as u8; 60 + n % 1400];
    f[..8].copy_from_slice(&(n as u64).to_le_bytes());
    f
}

#[test]
fn frames_go_both_ways_around_the_rings() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        assert_eq!(s.nic.mac(), MAC);
        assert!(s.nic.is_up());
        let wanted: Vec<_> = (0..5 * COUNT).map(frame).collect();
        for f in &wanted {
            assert!(s.nic.transmit(f));
            s.nic.flush();
            assert!(within(PATIENCE, || s.fake.receive(f)), "{}", family.name);
        }
        // What was flushed while frames were taken in leaves after them.
        let mut sent = Vec::new();
        while sent.len() < wanted.len() {
            assert!(within(PATIENCE, || s.fake.has_sent()), "{}", family.name);
            sent.append(&mut s.fake.take_sent());
        }
        assert!(sent == wanted, "{}: other frames", family.name);
        let all = || s.above.frames.lock().unwrap().len() == wanted.len();
        assert!(within(PATIENCE, all), "{}", family.name);
        assert_eq!(*s.above.frames.lock().unwrap(), wanted);
        assert_eq!(s.fake.others(), 0, "{}", family.name);
        let status = s.nic.status();
        assert_eq!(status.received.frames, wanted.len() as u64);
        assert_eq!(status.sent, status.received);
        assert_eq!((status.speed_mbit, status.resets), (Some(1000), 0));
    }
}

#[test]
fn nothing_leaves_before_the_flush_and_nothing_too_long() {
    let s = start(&E1000E, Made::default());
    assert!(s.nic.transmit(&[1; 100]));
    assert!(!s.nic.transmit(&[2; 1600]));
    assert!(s.fake.take_sent().is_empty());
    s.nic.flush();
    assert_eq!(s.fake.take_sent(), [[1; 100]]);
}

#[test]
fn the_address_comes_from_the_registers_the_eeprom_or_chance() {
    let of = |made: Made| start(&E1000, made).nic.mac();
    let none = Made {
        mac: None,
        ..Made::default()
    };
    for is_large in [false, true] {
        let eeprom = Some(([2, 4, 6, 8, 10, 12], is_large));
        assert_eq!(of(Made { eeprom, ..none }), [2, 4, 6, 8, 10, 12]);
        let second = Made {
            eeprom,
            port: 1,
            ..none
        };
        assert_eq!(of(second), [2, 4, 6, 8, 10, 13]);
    }
    let group = Made {
        eeprom: Some(([1; 6], false)),
        ..none
    };
    for made in [none, group] {
        let (a, b) = (of(made), of(made));
        assert_eq!(a[0] & 3, 2);
        assert_ne!(a, b);
    }
}

#[test]
fn another_address_outlives_a_reset() {
    let s = start(&E1000E, Made::default());
    assert!(s.nic.set_mac([2, 0, 0, 0, 0, 7]));
    assert_eq!(s.fake.register(RAH0), 7 << 8 | RAH_VALID);
    let resets = s.fake.resets();
    s.fake.set_faults(Faults {
        wrong_length: true,
        ..Faults::default()
    });
    assert!(s.fake.receive(&[0; 60]));
    assert!(within(SOON, || s.fake.resets() > resets));
    s.fake.set_faults(Faults::default());
    assert!(within(SOON, || s.fake.register(RAH0) == 7 << 8 | RAH_VALID));
}

#[test]
fn a_full_ring_tells_when_it_has_room() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        s.fake.set_faults(Faults {
            keeps_frames: true,
            ..Faults::default()
        });
        while s.nic.room() > 0 {
            assert!(s.nic.transmit(&[0; 60]));
        }
        assert!(!s.nic.transmit(&[0; 60]));
        s.nic.flush();
        assert_eq!(s.above.ready.load(SeqCst), 0);
        s.fake.set_faults(Faults::default());
        let told = || s.above.ready.load(SeqCst) > 0;
        assert!(within(Duration::from_millis(1500), told), "{}", family.name);
        assert_eq!(s.nic.room(), FRAMES);
        assert_eq!(s.nic.status().resets, 0);
    }
}

#[test]
fn link_changes_are_told() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        s.fake.set_link(false);
        assert!(within(SOON, || !s.nic.is_up()), "{}", family.name);
        assert_eq!(s.nic.status().speed_mbit, None);
        s.fake.set_link(true);
        assert!(within(SOON, || s.nic.is_up()), "{}", family.name);
        // Each is told after the link's state can be seen.
        assert!(within(SOON, || s.above.changes.load(SeqCst) >= 2));
    }
}

#[test]
fn lost_interrupts_are_made_up_for() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        s.fake.set_faults(Faults {
            loses_interrupts: true,
            ..Faults::default()
        });
        assert!(s.fake.receive(&[7; 60]));
        s.fake.set_link(false);
        let got = || s.above.frames.lock().unwrap().len() == 1 && !s.nic.is_up();
        assert!(within(Duration::from_secs(2), got), "{}", family.name);
    }
}

#[test]
fn a_device_that_keeps_frames_is_reset() {
    for family in [&E1000, &E1000E_MSIX] {
        let s = start(family, Made::default());
        let resets = s.fake.resets();
        s.fake.set_faults(Faults {
            keeps_frames: true,
            ..Faults::default()
        });
        assert!(s.nic.transmit(&[1; 60]));
        s.nic.flush();
        assert!(within(Duration::from_secs(5), || s.fake.resets() > resets));
        s.fake.set_faults(Faults::default());
        assert!(within(SOON, || s.above.ready.load(SeqCst) > 0));
        assert!(s.nic.transmit(&[2; 60]));
        s.nic.flush();
        assert!(within(SOON, || s.fake.take_sent() == [[2; 60]]));
        assert!(within(SOON, || s.fake.receive(&[3; 60])));
        assert!(within(SOON, || s.above.frames.lock().unwrap().len() == 1));
        assert_eq!(s.nic.status().resets, 1);
    }
}

#[test]
fn frames_wait_for_the_link_and_are_no_hang() {
    let s = start(&E1000, Made::default());
    s.fake.set_link(false);
    assert!(within(SOON, || !s.nic.is_up()));
    assert!(s.nic.transmit(&[1; 60]));
    s.nic.flush();
    sleep(Duration::from_millis(3300));
    assert_eq!(s.nic.status().resets, 0);
}

#[test]
fn a_device_that_writes_too_much_is_reset() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        s.fake.set_faults(Faults {
            wrong_length: true,
            ..Faults::default()
        });
        assert!(s.fake.receive(&[1; 60]));
        assert!(within(SOON, || s.nic.status().resets > 0));
        s.fake.set_faults(Faults::default());
        assert!(within(Duration::from_secs(2), || s.fake.receive(&[2; 60])));
        let got = || s.above.frames.lock().unwrap().last() == Some(&vec![2; 60]);
        assert!(within(SOON, got), "{}", family.name);
        // The frame of the wrong length was not believed.
        assert_eq!(s.above.frames.lock().unwrap().len(), 1);
    }
}

#[test]
fn damaged_and_long_frames_are_dropped() {
    let s = start(&E1000, Made::default());
    s.fake.set_faults(Faults {
        damages: true,
        ..Faults::default()
    });
    assert!(s.fake.receive(&[1; 60]));
    assert!(within(SOON, || s.nic.status().received.errors == 1));
    s.fake.set_faults(Faults::default());
    // A frame of two buffers, then a good one.
    assert!(s.fake.receive_part(&[2; 2048], false));
    assert!(s.fake.receive_part(&[2; 100], true));
    assert!(s.fake.receive(&[3; 60]));
    assert!(within(SOON, || s.above.frames.lock().unwrap().len() == 1));
    assert_eq!(s.above.frames.lock().unwrap()[0], [3; 60]);
    assert_eq!(s.nic.status().received.errors, 3);
}

/// What is sent from within [`Upper::receive`] leaves all the same.
#[test]
fn answers_leave_after_their_batch() {
    struct Echo(Mutex<Option<Arc<Nic<Fake>>>>);
    impl Upper for Echo {
        fn receive(&self, frame: &[u8]) {
            let nic = self.0.lock().unwrap().clone().unwrap();
            assert!(nic.transmit(frame));
            nic.flush();
        }
        fn link_changed(&self) {}
        fn transmit_ready(&self) {}
    }
    for family in FAMILIES {
        let fake = Fake::new(family, Made::default());
        let (nic, receiver) = Nic::open(fake.clone(), model(family), MTU).unwrap();
        let echo = Arc::new(Echo(Mutex::new(Some(nic))));
        receiver.start(echo.clone()).unwrap();
        let wanted: Vec<_> = (0..200).map(frame).collect();
        for f in &wanted {
            assert!(within(PATIENCE, || fake.receive(f)));
        }
        let sent = Mutex::new(Vec::new());
        let all = || {
            let mut sent = sent.lock().unwrap();
            sent.extend(fake.take_sent());
            sent.len() == wanted.len()
        };
        assert!(within(PATIENCE, all), "{}", family.name);
        assert_eq!(*sent.lock().unwrap(), wanted);
        *echo.0.lock().unwrap() = None;
    }
}

#[test]
fn a_device_that_is_gone_is_given_up() {
    for family in FAMILIES {
        let s = start(family, Made::default());
        s.fake.set_faults(Faults {
            gone: true,
            ..Faults::default()
        });
        assert!(within(Duration::from_secs(3), || !s.nic.is_up()));
        assert!(within(SOON, || s.above.changes.load(SeqCst) > 0));
        assert!(!s.nic.transmit(&[1; 60]));
        assert_eq!(s.nic.room(), 0);
        s.nic.flush();
        assert!(!s.fake.is_master());
    }
}

#[test]
fn a_device_that_does_not_reset_reaches_no_memory() {
    let fake = Fake::new(&E1000E, Made::default());
    fake.set_faults(Faults {
        no_reset: true,
        ..Faults::default()
    });
    let opened = Nic::open(fake.clone(), model(&E1000E), MTU);
    assert_eq!(opened.err(), Some(NicError::NoReset));
    assert!(!fake.is_master());
}

#[test]
fn a_receiver_that_never_starts_leaves_the_device_without_memory() {
    let fake = Fake::new(&IGB, Made::default());
    let (_nic, receiver) = Nic::open(fake.clone(), model(&IGB), MTU).unwrap();
    assert!(fake.is_master());
    drop(receiver);
    assert!(!fake.is_master());
}

#[test]
fn jumbo_frames_get_larger_buffers() {
    for family in FAMILIES {
        let fake = Fake::new(family, Made::default());
        let (nic, _receiver) = Nic::open(fake.clone(), model(family), 9000).unwrap();
        assert_eq!(nic.mtu(), 9000);
        assert!(nic.transmit(&[1; 9014]));
        assert_ne!(fake.register(RCTL) & RCTL_LONG, 0);
        let short = Model {
            quirks: Quirks {
                no_jumbo: true,
                ..Quirks::default()
            },
            ..model(family)
        };
        let fake = Fake::new(family, Made::default());
        let (nic, _receiver) = Nic::open(fake, short, 9000).unwrap();
        assert_eq!(nic.mtu(), MTU);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a device writes into its ring: frames are no longer than a buffer, and
    /// no more than there are descriptors.
    #[test]
    fn a_ring_full_of_nonsense(
        words in proptest::collection::vec(any::<u64>(), 2 * COUNT),
        is_legacy in any::<bool>(),
    ) {
        let shape = if is_legacy { Shape::Legacy } else { Shape::Extended };
        let mut ring = ReceiveRing::new(Reach::ALL, 2048, shape).unwrap();
        for (at, word) in (ring.phys()..).step_by(8).zip(&words) {
            prop_assert!(device_write(at, &word.to_le_bytes()));
        }
        for _ in 0..2 * COUNT {
            match ring.take(|f, _| assert!(!f.is_empty() && f.len() <= 2048)) {
                Err(Overflow) | Ok(Taken::Nothing) => break,
                Ok(_) => {}
            }
        }
    }

    /// However many a device says are done: no more are free than were used, and what
    /// is filled next is never with the device.
    #[test]
    fn what_leaves_is_counted_in_order(steps in proptest::collection::vec((0usize..40, 0usize..40), 30)) {
        let mut ring = TransmitRing::new(Reach::ALL, 64, Layout::Extended).unwrap();
        let (mut pushed, mut done) = (0usize, 0usize);
        for (push, finish) in steps {
            for _ in 0..push {
                pushed += usize::from(ring.push(&[0; 60], None));
            }
            for _ in 0..finish {
                if done < pushed {
                    let at = ring.phys() + 16 * (done % transmit::COUNT) as u64 + 12;
                    prop_assert!(device_write(at, &TX_DONE.to_le_bytes()));
                    done += 1;
                }
            }
            ring.reclaim();
            prop_assert_eq!(ring.room(), FRAMES - (pushed - done));
            prop_assert_eq!(ring.tail() as usize, pushed % transmit::COUNT);
        }
    }
}
