//! The drivers against controllers and sticks made of software, honest and not.

mod durable;
mod fake;

use crate::{Above, Host, UsbDisk, start_on};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use fake::{Answer, Mischief, SHAPE, Shape, Usb, Xhc};
use machine::Account;
use machine::block::{BlockDevice, BlockError, Trouble};
use machine::frame::Frame;
use machine::keys::Key;
use machine::time::Instant;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

/// What a stick does wrong with its next commands that move data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    StallData,
    StallStatus,
    WrongTag,
    WrongMark,
    ShortStatus,
    LongStatus,
    EmptyStatus,
    PhaseError,
    BigResidue,
    Lie,
    Silence,
    WireError,
    Sense(u8, u8),
}

/// A stick, and what a test shares with it.
struct Shared {
    /// What the disk holds, its cache included.
    disk: Vec<u8>,
    /// What it holds without power: as it was at the last flush.
    medium: Vec<u8>,
    faults: VecDeque<Fault>,
    commands: Vec<u8>,
    resets: u32,
    is_protected: bool,
    block_len: u32,
}

#[derive(Clone)]
struct Handle(Arc<Mutex<Shared>>);

struct Stick {
    shared: Handle,
    serial: u8,
    /// Descriptors with this in their place.
    device: Vec<u8>,
    configuration: Vec<u8>,
    last_unit: Option<u8>,
    reply: VecDeque<Answer>,
    writes: Option<(usize, usize)>,
    takes_nothing: bool,
    sense: (u8, u8),
}

const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 0xf4, 0x46, 1, 0, 0, 1, 0, 0, 1, 1];
const CONFIGURATION: [u8; 32] = [
    9, 2, 32, 0, 1, 1, 0, 0xc0, 0, 9, 4, 0, 0, 2, 8, 6, 0x50, 0, 7, 5, 0x81, 2, 0, 2, 0, 7, 5,
    0x02, 2, 0, 2, 0,
];
const SECTORS: usize = 1024;

impl Handle {
    fn new() -> Handle {
        Handle(Arc::new(Mutex::new(Shared {
            disk: vec![0; SECTORS * 512],
            medium: vec![0; SECTORS * 512],
            faults: VecDeque::new(),
            commands: Vec::new(),
            resets: 0,
            is_protected: false,
            block_len: 512,
        })))
    }

    fn stick(&self) -> Box<Stick> {
        Box::new(Stick {
            shared: self.clone(),
            serial: b'1',
            device: DEVICE.to_vec(),
            configuration: CONFIGURATION.to_vec(),
            last_unit: None,
            reply: VecDeque::new(),
            writes: None,
            takes_nothing: false,
            sense: (0, 0),
        })
    }

    fn fail(&self, faults: &[Fault]) {
        self.0.lock().unwrap().faults = faults.iter().copied().collect();
    }

    /// What the stick holds after a sudden pull. A cache empties itself in any order: of
    /// the blocks that were not flushed, those that `stay` picks are there.
    fn pulled(&self, stay: impl Fn(usize) -> bool) -> Vec<u8> {
        let shared = self.0.lock().unwrap();
        let mut medium = shared.medium.clone();
        let cached = shared.disk.chunks(512).enumerate();
        for (n, block) in cached.filter(|(n, _)| stay(*n)) {
            medium[n * 512..][..512].copy_from_slice(block);
        }
        medium
    }

    fn count(&self, command: u8) -> usize {
        let shared = self.0.lock().unwrap();
        shared.commands.iter().filter(|c| **c == command).count()
    }
}

fn big(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))
}

impl Stick {
    /// The data a command gives.
    fn answer(&self, shared: &Shared, cdb: &[u8], (at, count): (usize, usize)) -> Vec<u8> {
        let len = shared.block_len as usize;
        match cdb[0] {
            0x12 => {
                let mut said = vec![0; 36];
                said[8..24].copy_from_slice(&b"Skep    Teststick"[..16]);
                said
            }
            0x03 => {
                let (key, code) = self.sense;
                let mut said = vec![0; 18];
                (said[0], said[2], said[12]) = (0x70, key, code);
                said
            }
            0x1a => vec![3, 0, if shared.is_protected { 0x80 } else { 0 }, 0],
            0x25 => {
                let blocks = shared.disk.len() / len;
                let mut said = (blocks as u32 - 1).to_be_bytes().to_vec();
                said.extend(shared.block_len.to_be_bytes());
                said
            }
            0x28 | 0x88 => shared.disk[at * len..(at + count) * len].to_vec(),
            _ => Vec::new(),
        }
    }

    /// A command has come; data and status will be fetched, or sent.
    fn command(&mut self, cbw: &[u8]) {
        let tag: [u8; 4] = cbw[4..8].try_into().unwrap();
        let wanted = u32::from_le_bytes(cbw[8..12].try_into().unwrap()) as usize;
        let cdb = &cbw[15..];
        let mut shared = self.shared.0.lock().unwrap();
        shared.commands.push(cdb[0]);
        let moves = matches!(cdb[0], 0x28 | 0x2a | 0x88 | 0x8a | 0x35);
        let fault = if moves {
            shared.faults.pop_front()
        } else {
            None
        };
        let fault = fault.unwrap_or(Fault::None);
        let len = shared.block_len as usize;
        let (at, count) = match cdb[0] {
            0x88 | 0x8a => (big(&cdb[2..10]), big(&cdb[10..14])),
            _ => (big(&cdb[2..6]), big(&cdb[7..9])),
        };
        let mut status = 0;
        let mut data = self.answer(&shared, cdb, (at, count));
        if let Fault::Sense(key, code) = fault {
            self.sense = (key, code);
            status = 1;
            data.clear();
        }
        let mut residue = wanted as u32 - (data.len().min(wanted)) as u32;
        self.writes = None;
        if cdb[0] == 0x35 && status == 0 {
            let shared = &mut *shared;
            shared.medium.copy_from_slice(&shared.disk);
        }
        let is_write = matches!(cdb[0], 0x2a | 0x8a);
        self.takes_nothing = is_write && status != 0;
        if is_write && status == 0 {
            self.writes = Some((at * len, wanted));
            residue = 0;
        }
        let mut csw = b"USBS".to_vec();
        csw.extend(tag);
        match fault {
            Fault::WrongTag => csw[4] ^= 1,
            Fault::WrongMark => csw[0] ^= 1,
            Fault::PhaseError => status = 2,
            Fault::BigResidue => residue = u32::MAX,
            Fault::Lie => data.truncate(data.len() / 2),
            _ => {}
        }
        csw.extend(residue.to_le_bytes());
        csw.push(status);
        match fault {
            Fault::ShortStatus => csw.truncate(5),
            Fault::LongStatus => csw.extend([0; 20]),
            _ => {}
        }
        drop(shared);
        let is_in = wanted > 0 && cbw[12] & 0x80 != 0;
        self.set_replies(fault, is_in.then_some(data), csw);
    }

    /// What will be fetched after a command: its data, its status.
    fn set_replies(&mut self, fault: Fault, data: Option<Vec<u8>>, csw: Vec<u8>) {
        self.reply.clear();
        if let Some(data) = data {
            self.reply.push_back(match fault {
                Fault::Silence => Answer::Silence,
                Fault::WireError => Answer::Error,
                Fault::StallData => Answer::Stall,
                _ if data.is_empty() => Answer::Stall,
                _ => Answer::Done(data),
            });
        }
        match fault {
            Fault::StallStatus => self.reply.push_back(Answer::Stall),
            Fault::EmptyStatus => self.reply.push_back(Answer::Done(Vec::new())),
            Fault::Silence if self.writes.is_some() => self.reply.push_back(Answer::Silence),
            _ => {}
        }
        self.reply.push_back(Answer::Done(csw));
    }
}

impl Usb for Stick {
    fn speed(&self) -> u32 {
        3
    }

    fn reset(&mut self) {
        self.reply.clear();
        (self.writes, self.takes_nothing) = (None, false);
        self.shared.0.lock().unwrap().resets += 1;
    }

    fn control(&mut self, setup: [u8; 8], _: &[u8]) -> Answer {
        let len = usize::from(setup[6]) | usize::from(setup[7]) << 8;
        let cut = |bytes: &[u8]| Answer::Done(bytes[..bytes.len().min(len)].to_vec());
        match (setup[0], setup[1], setup[3]) {
            (0x80, 6, 1) => cut(&self.device),
            (0x80, 6, 2) => cut(&self.configuration),
            (0x80, 6, 3) => cut(&[4, 3, self.serial, 0]),
            (0xa1, 0xfe, _) => match self.last_unit {
                Some(last) => cut(&[last]),
                None => Answer::Stall,
            },
            (0x00, 9, _) | (0x02, 1, _) => Answer::Done(Vec::new()),
            (0x21, 0xff, _) => {
                self.reply.clear();
                Answer::Done(Vec::new())
            }
            _ => Answer::Stall,
        }
    }

    fn output(&mut self, endpoint: u8, bytes: &[u8]) -> Answer {
        assert_eq!(endpoint, 2);
        if core::mem::take(&mut self.takes_nothing) {
            return Answer::Stall;
        }
        if let Some((at, len)) = self.writes.take() {
            assert_eq!(bytes.len(), len);
            self.shared.0.lock().unwrap().disk[at..at + len].copy_from_slice(bytes);
            return Answer::Done(Vec::new());
        }
        assert_eq!((bytes.len(), &bytes[..4]), (31, &b"USBC"[..]));
        self.command(bytes);
        Answer::Done(Vec::new())
    }

    fn input(&mut self, endpoint: u8, _: usize) -> Answer {
        assert_eq!(endpoint, 1);
        match self.reply.front() {
            Some(Answer::Silence) | None => Answer::Silence,
            Some(_) => self.reply.pop_front().unwrap_or(Answer::Silence),
        }
    }
}

#[derive(Default)]
struct Seen {
    added: Mutex<Vec<Arc<UsbDisk>>>,
    gone: Mutex<Vec<Arc<UsbDisk>>>,
    keys: Mutex<Vec<Key>>,
    troubles: Arc<Mutex<Vec<Trouble>>>,
}

impl Above for Seen {
    fn disk_added(&self, disk: Arc<UsbDisk>) {
        let troubles = self.troubles.clone();
        disk.observe(Box::new(move |t| troubles.lock().unwrap().push(t)));
        self.added.lock().unwrap().push(disk);
    }

    fn disk_gone(&self, disk: &Arc<UsbDisk>) {
        self.gone.lock().unwrap().push(disk.clone());
    }

    fn key(&self, key: Key) {
        self.keys.lock().unwrap().push(key);
    }
}

fn wait(what: &str, limit_s: u64, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(limit_s);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Bench {
    xhc: Xhc,
    seen: Arc<Seen>,
    host: Arc<Host>,
}

impl Bench {
    fn start(xhc: &Xhc) -> Bench {
        let seen = Arc::new(Seen::default());
        let host = start_on(Box::new(xhc.clone()), 1, seen.clone()).unwrap();
        Bench {
            xhc: xhc.clone(),
            seen,
            host,
        }
    }

    fn settle(&self) {
        assert!(
            self.host
                .settle(Instant::now().after(Duration::from_secs(20)))
        );
    }

    fn added(&self) -> usize {
        self.seen.added.lock().unwrap().len()
    }

    fn disk(&self, n: usize) -> Arc<UsbDisk> {
        wait("a disk", 20, || self.added() > n);
        self.seen.added.lock().unwrap()[n].clone()
    }
}

/// A stick at port 2 of a controller, and the disk it became.
fn with_stick() -> (Bench, Handle, Arc<UsbDisk>) {
    let (xhc, handle) = (Xhc::new(SHAPE), Handle::new());
    xhc.plug(2, handle.stick());
    let bench = Bench::start(&xhc);
    bench.settle();
    let disk = bench.disk(0);
    (bench, handle, disk)
}

fn pages(count: usize, fill: u8) -> Vec<Frame> {
    let page = |_| {
        let frame = Frame::zeroed(Account::kernel()).unwrap();
        frame.write(0, &[fill; 4096]);
        frame
    };
    (0..count).map(page).collect()
}

fn bytes(frames: &[Frame], len: usize) -> Vec<u8> {
    let mut all = vec![0; frames.len() * 4096];
    for (frame, part) in frames.iter().zip(all.chunks_mut(4096)) {
        frame.read(0, part);
    }
    all.truncate(len);
    all
}

/// Writes and reads back across several requests' worth of pages.
fn works(disk: &UsbDisk, fill: u8) {
    const LEN: usize = 70 * 4096 + 512;
    disk.write(8, &pages(71, fill), LEN).unwrap();
    disk.flush().unwrap();
    let read = pages(71, 0);
    disk.read(8, &read, LEN).unwrap();
    assert!(bytes(&read, LEN).iter().all(|b| *b == fill));
}

#[test]
fn a_stick_becomes_a_disk() {
    for (context, scratchpads) in [(32, 0), (64, 3)] {
        let shape = Shape {
            context,
            scratchpads,
            ..SHAPE
        };
        let (xhc, handle) = (Xhc::new(shape), Handle::new());
        xhc.plug(3, handle.stick());
        let bench = Bench::start(&xhc);
        bench.settle();
        assert_eq!(bench.added(), 1, "known once the bus has settled");
        let disk = bench.disk(0);
        assert_eq!((disk.sectors(), disk.block_len()), (SECTORS as u64, 512));
        assert!(!disk.is_read_only() && disk.place() == "3");
        let identity = disk.identity();
        assert_eq!(
            (&identity.model[..], &identity.serial[..]),
            ("Skep Teststic", "1")
        );
        works(&disk, 0x5a);
        let shared = handle.0.lock().unwrap();
        assert!(
            shared.disk[4096..4096 + 71 * 4096 - 3584]
                .iter()
                .all(|b| *b == 0x5a)
        );
        assert!(shared.disk[..4096].iter().all(|b| *b == 0));
    }
}

#[test]
fn transfers_beyond_the_end_and_to_protected_disks_are_refused() {
    let (xhc, handle) = (Xhc::new(SHAPE), Handle::new());
    handle.0.lock().unwrap().is_protected = true;
    xhc.plug(1, handle.stick());
    let bench = Bench::start(&xhc);
    let disk = bench.disk(0);
    let page = pages(1, 1);
    assert!(disk.is_read_only());
    assert_eq!(disk.write(0, &page, 512), Err(BlockError::ReadOnly));
    let end = SECTORS as u64;
    assert_eq!(disk.read(end - 1, &page, 1024), Err(BlockError::OutOfRange));
    assert_eq!(disk.read(end - 1, &page, 512), Ok(()));
    assert_eq!(disk.read(0, &page, 100), Err(BlockError::OutOfRange));
}

#[test]
fn a_bus_with_nothing_on_it_settles() {
    let bench = Bench::start(&Xhc::new(SHAPE));
    let start = Instant::now();
    bench.settle();
    assert!(Instant::now().since(start) < Duration::from_secs(5));
    assert_eq!(bench.added(), 0);
}

#[test]
fn several_units_are_several_disks() {
    let (xhc, handle) = (Xhc::new(SHAPE), Handle::new());
    let mut stick = handle.stick();
    stick.last_unit = Some(2);
    xhc.plug(1, stick);
    let bench = Bench::start(&xhc);
    bench.settle();
    assert_eq!(bench.added(), 3);
}

#[test]
fn lost_interrupts_cost_time_only() {
    let (xhc, handle) = (Xhc::new(SHAPE), Handle::new());
    xhc.plug(1, handle.stick());
    xhc.set_mischief(Mischief {
        no_interrupts: true,
        ..Mischief::default()
    });
    let bench = Bench::start(&xhc);
    let disk = bench.disk(0);
    disk.write(0, &pages(1, 3), 4096).unwrap();
    assert_eq!(handle.0.lock().unwrap().disk[4095], 3);
    assert!(bench.host.counters().lost_interrupts.load(SeqCst) > 0);
    assert_eq!(bench.host.counters().resets.load(SeqCst), 0);
}

#[test]
fn events_about_nothing_are_no_matter() {
    let (bench, _, disk) = with_stick();
    bench.xhc.set_mischief(Mischief {
        nonsense: true,
        ..Mischief::default()
    });
    works(&disk, 7);
    works(&disk, 8);
    assert!(bench.seen.troubles.lock().unwrap().is_empty());
}

#[test]
fn a_controller_that_reports_too_much_left_is_not_believed() {
    let (bench, _, disk) = with_stick();
    bench.xhc.set_mischief(Mischief {
        residue: true,
        ..Mischief::default()
    });
    let start = Instant::now();
    assert!(disk.read(0, &pages(1, 0), 4096).is_err());
    assert!(Instant::now().since(start) < Duration::from_secs(30));
}

#[test]
fn each_fault_of_a_stick_is_survived() {
    for fault in [
        Fault::StallStatus,
        Fault::WrongTag,
        Fault::WrongMark,
        Fault::ShortStatus,
        Fault::LongStatus,
        Fault::EmptyStatus,
        Fault::PhaseError,
        Fault::BigResidue,
        Fault::WireError,
        Fault::Sense(6, 0x29),
        Fault::Sense(2, 0x04),
        Fault::Sense(0xb, 0),
    ] {
        let (bench, handle, disk) = with_stick();
        works(&disk, 1);
        handle.fail(&[fault, Fault::None, fault]);
        works(&disk, 2);
        assert_eq!(handle.0.lock().unwrap().faults.len(), 0, "{fault:?} came");
        assert!(!disk.is_gone() && bench.added() == 1, "{fault:?}");
    }
}

#[test]
fn what_the_disk_refuses_is_an_error_at_once() {
    let (bench, handle, disk) = with_stick();
    let page = pages(1, 9);
    for (fault, error) in [
        (Fault::Sense(3, 0x11), BlockError::Failed),
        (Fault::Sense(7, 0x27), BlockError::ReadOnly),
        (Fault::Lie, BlockError::Failed),
        (Fault::StallData, BlockError::Failed),
    ] {
        handle.fail(&[fault]);
        assert_eq!(disk.read(64, &page, 4096), Err(error), "{fault:?}");
        assert_eq!(disk.read(64, &page, 4096), Ok(()));
    }
    let told = bench.seen.troubles.lock().unwrap().clone();
    let told: Vec<_> = told.iter().map(|t| std::format!("{t}")).collect();
    assert_eq!(told, vec!["reading at sector 64 failed"; 3]);
    // A stick without a cache does not know the command.
    handle.fail(&[Fault::Sense(5, 0x20)]);
    assert_eq!((disk.flush(), disk.flush()), (Ok(()), Ok(())));
    assert_eq!(handle.count(0x35), 1);
}

#[test]
fn a_silent_stick_is_reset_and_goes_on() {
    let (bench, handle, disk) = with_stick();
    works(&disk, 1);
    let before = handle.0.lock().unwrap().resets;
    handle.fail(&[Fault::Silence]);
    works(&disk, 2);
    assert!(handle.0.lock().unwrap().resets > before);
    assert_eq!(*bench.seen.troubles.lock().unwrap(), [Trouble::Reset]);
    assert_eq!(bench.added(), 1, "it is the same disk");
}

#[test]
fn a_stick_that_is_always_silent_is_an_error_and_no_hang() {
    let (_bench, handle, disk) = with_stick();
    handle.fail(&[Fault::Silence; 30]);
    let start = Instant::now();
    let result = disk.read(0, &pages(1, 0), 4096);
    assert!(matches!(
        result,
        Err(BlockError::TimedOut | BlockError::Gone)
    ));
    assert!(Instant::now().since(start) < Duration::from_secs(30));
}

#[test]
fn a_pulled_stick_fails_at_once_and_another_comes() {
    let (bench, handle, disk) = with_stick();
    works(&disk, 1);
    // One request is under way and will not be answered.
    handle.fail(&[Fault::Silence]);
    let under_way = {
        let disk = disk.clone();
        std::thread::spawn(move || {
            let start = Instant::now();
            let result = disk.read(0, &pages(64, 0), 64 * 4096);
            (result, Instant::now().since(start))
        })
    };
    std::thread::sleep(Duration::from_millis(50));
    let pulled = Instant::now();
    bench.xhc.pull(2);
    let (result, _) = under_way.join().unwrap();
    assert_eq!(result, Err(BlockError::Gone));
    assert!(Instant::now().since(pulled) < Duration::from_secs(1));
    wait("that it is told", 5, || {
        bench.seen.gone.lock().unwrap().len() == 1
    });
    assert_eq!(
        bench.seen.troubles.lock().unwrap().last(),
        Some(&Trouble::Pulled)
    );
    assert_eq!(disk.write(0, &pages(1, 1), 512), Err(BlockError::Gone));
    assert_eq!(disk.flush(), Err(BlockError::Gone));
    handle.fail(&[]);
    bench.xhc.plug(2, handle.stick());
    let again = bench.disk(1);
    works(&again, 4);
    assert_eq!(
        disk.read(0, &pages(1, 0), 512),
        Err(BlockError::Gone),
        "for good"
    );
}

#[test]
fn a_controller_that_breaks_down_is_started_anew() {
    for mischief in [
        Mischief {
            no_commands: true,
            ..Mischief::default()
        },
        Mischief {
            host_error: true,
            ..Mischief::default()
        },
    ] {
        let (bench, handle, disk) = with_stick();
        works(&disk, 1);
        let before = bench.xhc.resets();
        bench.xhc.set_mischief(mischief);
        if mischief.no_commands {
            // The endpoint cannot be stopped.
            handle.fail(&[Fault::Silence]);
        }
        let user = {
            let disk = disk.clone();
            std::thread::spawn(move || works(&disk, 2))
        };
        wait("a failure", 20, || {
            bench.host.counters().resets.load(SeqCst) > 0
        });
        bench.xhc.set_mischief(Mischief::default());
        user.join().unwrap();
        assert!(bench.xhc.resets() > before);
        assert_eq!(bench.added(), 1, "it is the same disk");
    }
}

#[test]
fn a_controller_that_vanishes_ends_everything() {
    let (bench, handle, disk) = with_stick();
    works(&disk, 1);
    handle.fail(&[Fault::Silence]);
    let user = {
        let disk = disk.clone();
        std::thread::spawn(move || disk.read(0, &pages(1, 0), 4096))
    };
    std::thread::sleep(Duration::from_millis(50));
    bench.xhc.set_mischief(Mischief {
        gone: true,
        ..Mischief::default()
    });
    assert!(user.join().unwrap().is_err());
    wait("that it is told", 30, || {
        bench.seen.gone.lock().unwrap().len() == 1
    });
    assert_eq!(disk.flush(), Err(BlockError::Gone));
}

#[test]
fn another_stick_in_its_place_is_another_disk() {
    let (bench, handle, disk) = with_stick();
    handle.fail(&[Fault::Silence]);
    let user = {
        let disk = disk.clone();
        std::thread::spawn(move || disk.read(0, &pages(1, 0), 4096))
    };
    std::thread::sleep(Duration::from_millis(30));
    // Too fast for the port to tell of it: as the same, but with another number.
    let mut other = Handle::new().stick();
    other.serial = b'2';
    bench.xhc.plug(2, other);
    assert!(user.join().unwrap().is_err());
    bench.disk(1);
    assert!(disk.is_gone());
}

#[test]
fn a_controller_that_gives_a_slot_twice_is_not_believed() {
    let (bench, handle, disk) = with_stick();
    bench.xhc.set_mischief(Mischief {
        same_slot: true,
        ..Mischief::default()
    });
    bench.xhc.plug(1, handle.stick());
    wait("a failure", 20, || {
        bench.host.counters().resets.load(SeqCst) > 0
    });
    bench.xhc.set_mischief(Mischief::default());
    bench.disk(1);
    works(&disk, 6);
}

/// A keyboard whose reports a test gives.
struct Keyboard(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Usb for Keyboard {
    fn speed(&self) -> u32 {
        2
    }

    fn control(&mut self, setup: [u8; 8], _: &[u8]) -> Answer {
        const CONFIGURATION: [u8; 34] = [
            9, 2, 34, 0, 1, 1, 0, 0xa0, 50, 9, 4, 0, 0, 1, 3, 1, 1, 0, 9, 0x21, 0x11, 1, 0, 1,
            0x22, 63, 0, 7, 5, 0x81, 3, 8, 0, 10,
        ];
        let mut device = DEVICE;
        (device[7], device[16]) = (8, 0);
        let len = usize::from(setup[6]);
        let cut = |bytes: &[u8]| Answer::Done(bytes[..bytes.len().min(len)].to_vec());
        match (setup[0], setup[1], setup[3]) {
            (0x80, 6, 1) => cut(&device),
            (0x80, 6, 2) => cut(&CONFIGURATION),
            (0x21, 10, _) => Answer::Stall,
            (0x00 | 0x21, ..) => Answer::Done(Vec::new()),
            _ => Answer::Stall,
        }
    }

    fn output(&mut self, _: u8, _: &[u8]) -> Answer {
        Answer::Stall
    }

    fn input(&mut self, endpoint: u8, _: usize) -> Answer {
        assert_eq!(endpoint, 1);
        let report = self.0.lock().unwrap().pop_front();
        report.map_or(Answer::Silence, Answer::Done)
    }
}

#[test]
fn keys_of_a_keyboard_arrive() {
    let (xhc, reports) = (Xhc::new(SHAPE), Arc::new(Mutex::new(VecDeque::new())));
    xhc.plug(4, Box::new(Keyboard(reports.clone())));
    let bench = Bench::start(&xhc);
    bench.settle();
    for report in [
        &[2, 0, 0x0b, 0, 0, 0, 0, 0][..],
        &[0; 8],
        &[0, 0, 0x4e],
        &[9; 8],
    ] {
        reports.lock().unwrap().push_back(report.to_vec());
    }
    xhc.poke(1, 3);
    let expected = [Key::Char(b'H'), Key::PageDown];
    wait("the keys", 10, || {
        bench.seen.keys.lock().unwrap().len() >= 2
    });
    assert_eq!(bench.seen.keys.lock().unwrap()[..2], expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever descriptors say, the bus settles, and a good stick beside works.
    #[test]
    fn hostile_descriptors_end(
        device in prop::collection::vec(any::<u8>(), 0..24),
        configuration in prop::collection::vec(any::<u8>(), 0..80),
        keep in 0usize..32,
    ) {
        let (xhc, good) = (Xhc::new(SHAPE), Handle::new());
        let mut bad = Handle::new().stick();
        if device.len() % 2 == 0 {
            bad.device = device;
        }
        // The beginning as it should be, so that some get far.
        let mut mixed = CONFIGURATION[..keep].to_vec();
        mixed.extend(configuration);
        bad.configuration = mixed;
        xhc.plug(1, bad);
        xhc.plug(2, good.stick());
        let bench = Bench::start(&xhc);
        bench.settle();
        let all = bench.seen.added.lock().unwrap().clone();
        let disk = all.iter().find(|d| d.place() == "2");
        works(disk.expect("the good stick"), 9);
    }
}
