//! An adapter with one disk, made of plain memory, honest and not, for tests.

use crate::identify::tests::answer;
use crate::registers::{
    CAP, CAP_64, CAP_CLO, CAP_NCQ, CI, CLB, CMD, CMD_CLO, CMD_RECEIVE, CMD_RECEIVING, CMD_RUNNING,
    CMD_START, FB, GHC, GHC_INTERRUPTS, IS, IS_PHY, IS_TASK, PI, PX_IE, PX_IS, SACT, SCTL, SERR,
    SIG, SIG_DISK, SSTS, TFD, port,
};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::bus::Bus;
use machine::host::{device_read, device_write};
use machine::irq::IrqEvent;
use machine::sync::SpinLock;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;
/// Blocks of the disk.
pub(crate) const BLOCKS: usize = 16384;
/// The port that has a disk.
const PORT: u8 = 2;

/// What goes wrong with the next commands that are not the driver's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is never answered.
    Silence,
    /// It is answered without an interrupt.
    NoInterrupt,
    /// The disk reports that it failed.
    Failed,
    /// That, and is busy from then on.
    FailedBusy,
    /// Something goes wrong on the link.
    Link,
    /// The disk is pulled.
    Pulled,
    /// The adapter is pulled.
    Gone,
}

/// How adapter and disk are, for the whole test.
#[derive(Clone, Debug)]
pub(crate) struct Character {
    pub(crate) queues: bool,
    /// The disk has a log of what failed.
    pub(crate) has_log: bool,
    /// What was queued beside a command that failed goes on, until its link is reset.
    pub(crate) goes_on: bool,
    /// The disk answers after this many resets of its link, and never again.
    pub(crate) resets: u32,
    /// The adapter stops when it is told to.
    pub(crate) stops: bool,
    pub(crate) is_wired: bool,
    /// What registers read as when the adapter is gone.
    pub(crate) absent: u32,
}

impl Default for Character {
    fn default() -> Self {
        Character {
            queues: true,
            has_log: true,
            goes_on: false,
            resets: u32::MAX,
            stops: true,
            is_wired: false,
            absent: u32::MAX,
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    global: BTreeMap<usize, u32>,
    port: BTreeMap<usize, u32>,
    /// What the disk holds, its cache included.
    pub(crate) disk: Vec<u8>,
    /// What it holds without power: as it was at the last flush.
    medium: Vec<u8>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) serial: &'static str,
    pub(crate) flushes: u32,
    pub(crate) most_at_once: u32,
    pub(crate) resets: u32,
    pub(crate) reads_of_log: u32,
    /// After a failure nothing goes on until the port is started again.
    is_halted: bool,
    failed_tag: Option<u8>,
    /// Writes that go on: their numbers, where on the disk, and what.
    stragglers: Vec<(u32, usize, Vec<u8>)>,
    /// Numbers that ended while no answers were taken, as QEMU remembers them.
    unanswered: u32,
    /// Address field of the next answer.
    answer: u32,
    /// Commands that were never answered.
    silenced: u32,
    /// Commands held back, so that several are under way at once.
    pub(crate) is_slow: bool,
    is_plugged: bool,
    is_master: bool,
    is_gone: bool,
}

/// The adapter, shared by test and driver.
pub(crate) struct Fake {
    pub(crate) character: Character,
    pub(crate) state: SpinLock<State>,
    event: IrqEvent,
}

/// The driver's end of it.
pub(crate) struct FakeBus(pub(crate) Arc<Fake>);

impl Fake {
    pub(crate) fn new(character: Character) -> Arc<Fake> {
        let mut state = State {
            disk: alloc::vec![0; BLOCK * BLOCKS],
            medium: alloc::vec![0; BLOCK * BLOCKS],
            serial: "FAKE-1",
            is_plugged: true,
            is_master: true,
            ..State::default()
        };
        state.port.insert(TFD, 0x50);
        state.port.insert(SIG, SIG_DISK);
        Arc::new(Fake {
            event: IrqEvent::new("fake").unwrap(),
            character,
            state: SpinLock::new(state),
        })
    }

    /// Pulls the disk, which loses what it has not flushed, or puts one in.
    pub(crate) fn plug(&self, is_plugged: bool) {
        let mut state = self.state.lock();
        state.plug(is_plugged);
        let raised = state.interrupt(IS_PHY);
        drop(state);
        self.raise(raised);
    }

    /// Takes the power of adapter and disk away, and gives what the disk holds then. A
    /// cache empties itself in any order: of the blocks that were not flushed, those that
    /// `stay` picks are there.
    pub(crate) fn cut_power(&self, stay: impl Fn(usize) -> bool) -> Vec<u8> {
        let state = &mut *self.state.lock();
        state.is_gone = true;
        let cached = state.disk.chunks(BLOCK).enumerate();
        for (n, block) in cached.filter(|(n, _)| stay(*n)) {
            state.medium[n * BLOCK..][..BLOCK].copy_from_slice(block);
        }
        state.medium.clone()
    }

    /// Lets what went on reach the disk.
    pub(crate) fn straggle(&self) {
        self.state.lock().straggle();
    }

    fn raise(&self, raised: bool) {
        if raised {
            self.event.raise();
        }
    }

    /// Does what was held back.
    pub(crate) fn go_on(&self) {
        let mut state = self.state.lock();
        state.is_slow = false;
        let raised = self.run(&mut state);
        drop(state);
        self.raise(raised);
    }

    /// Does what is in the list; whether to interrupt.
    fn run(&self, state: &mut State) -> bool {
        let mut raised = false;
        let mask = state.reg(CI) & !state.silenced;
        state.most_at_once = state.most_at_once.max(mask.count_ones());
        if state.is_slow {
            return false;
        }
        for number in (0..32u32).filter(|n| mask >> n & 1 != 0) {
            let runs = state.reg(CMD) & CMD_START != 0 && state.is_plugged;
            if state.is_halted || !runs || state.is_gone {
                break;
            }
            raised |= self.command(state, number);
        }
        raised
    }

    /// Remembers the writes that were queued beside command `failed`.
    fn go_on_after(&self, state: &mut State, failed: u32) {
        let others = state.reg(CI) & state.reg(SACT) & !(1 << failed);
        for number in (0..32u32).filter(|n| others >> n & 1 != 0) {
            let (frame, memory) = fetch(state, number);
            if frame[2] == 0x61 {
                let bytes = memory.take(memory.len());
                let at = block(&frame) * BLOCK;
                state.stragglers.push((number, at, bytes));
            }
        }
    }

    fn command(&self, state: &mut State, number: u32) -> bool {
        let (frame, memory) = fetch(state, number);
        let is_queued = matches!(frame[2], 0x60 | 0x61);
        assert_eq!(
            is_queued,
            state.reg(SACT) >> number & 1 != 0,
            "queued and active"
        );
        let has_error = state.reg(TFD) & 1 != 0;
        assert!(!(is_queued && has_error), "queued after an error");
        let own = matches!(frame[2], 0xec | 0x2f);
        let fault = (!own && !state.faults.is_empty()).then(|| state.faults.remove(0));
        match fault {
            Some(Fault::Silence) => {
                state.silenced |= 1 << number;
                return false;
            }
            Some(Fault::Failed | Fault::FailedBusy) => {
                let busy = if fault == Some(Fault::Failed) {
                    0
                } else {
                    0x80
                };
                if self.character.goes_on {
                    self.go_on_after(state, number);
                }
                return state.fail(number, is_queued, busy);
            }
            Some(Fault::Link) => {
                state.is_halted = true;
                return state.interrupt(1 << 27);
            }
            Some(Fault::Pulled) => {
                state.plug(false);
                return state.interrupt(IS_PHY);
            }
            Some(Fault::Gone) => {
                state.is_gone = true;
                return false;
            }
            _ => {}
        }
        if !self.execute(state, &frame, &memory) {
            return state.fail(number, is_queued, 0);
        }
        let answer = core::mem::take(&mut state.answer);
        state.put(state.address(FB) + 0x44, &answer.to_le_bytes());
        state.set(CI, state.reg(CI) & !(1 << number));
        let mut ended = 1 << number;
        state.set(TFD, 0x50);
        if is_queued {
            ended |= core::mem::take(&mut state.unanswered);
        }
        state.set(SACT, state.reg(SACT) & !ended);
        let raised = state.interrupt(if is_queued { 8 } else { 1 });
        raised && fault != Some(Fault::NoInterrupt)
    }

    fn execute(&self, state: &mut State, f: &[u8; 20], memory: &Memory) -> bool {
        let block = block(f);
        let plain = usize::from(u16::from_le_bytes([f[12], f[13]]));
        let queued = usize::from(u16::from_le_bytes([f[3], f[11]]));
        match f[2] {
            0xec => {
                let answer = answer(BLOCKS as u64, self.character.queues, state.serial);
                memory.fill(state, &answer);
            }
            0x2f => {
                state.reads_of_log += 1;
                if !self.character.has_log {
                    return false;
                }
                let mut page = [0; 512];
                page[0] = state.failed_tag.unwrap_or(0x80);
                memory.fill(state, &page);
            }
            0xea => {
                state.flushes += 1;
                state.medium.copy_from_slice(&state.disk);
            }
            0xb0 if f[3] == 0xd0 => {
                let mut record = [0; 512];
                (record[2], record[7]) = (194, 41);
                memory.fill(state, &record);
            }
            0xb0 => state.answer = 0x2c_f400,
            0x06 => {
                let ranges = memory.take(BLOCK);
                for range in ranges.chunks_exact(8) {
                    let word = u64::from_le_bytes(range.try_into().unwrap());
                    let start = (word & 0xffff_ffff_ffff) as usize * BLOCK;
                    let len = (word >> 48) as usize * BLOCK;
                    state.disk[start..start + len].fill(0xdd);
                }
            }
            command @ (0x60 | 0x61 | 0x25 | 0x35) => {
                let count = if command >= 0x60 { queued } else { plain };
                let range = block * BLOCK..(block + count) * BLOCK;
                assert_eq!(range.len(), memory.len(), "count and memory differ");
                if range.end > state.disk.len() {
                    return false;
                }
                if matches!(command, 0x60 | 0x25) {
                    let bytes = state.disk[range].to_vec();
                    memory.fill(state, &bytes);
                } else {
                    let bytes = memory.take(range.len());
                    state.disk[range].copy_from_slice(&bytes);
                }
            }
            _ => return false,
        }
        true
    }
}

/// The command in a slot of the list, and its memory.
fn fetch(state: &State, number: u32) -> ([u8; 20], Memory) {
    let list = state.address(CLB);
    let mut header = [0; 32];
    assert!(device_read(list + u64::from(number) * 32, &mut header));
    let word = u32::from_le_bytes(header[..4].try_into().unwrap());
    let table = u64::from_le_bytes(header[8..16].try_into().unwrap());
    assert!(table.is_multiple_of(128) && word & 0x1f == 5);
    let mut frame = [0; 20];
    assert!(device_read(table, &mut frame));
    (frame, Memory::read(table, (word >> 16) as usize))
}

/// The first block that a command means.
fn block(f: &[u8; 20]) -> usize {
    u64::from_le_bytes([f[4], f[5], f[6], f[8], f[9], f[10], 0, 0]) as usize
}

/// The memory that a command lists.
struct Memory(Vec<(u64, usize)>);

impl Memory {
    fn read(table: u64, entries: usize) -> Memory {
        let entry = |n: usize| {
            let mut bytes = [0; 16];
            assert!(device_read(table + 0x80 + 16 * n as u64, &mut bytes));
            let phys = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u32::from_le_bytes(bytes[12..].try_into().unwrap()) as usize + 1;
            assert!(len <= PAGE_SIZE && len.is_multiple_of(2));
            (phys, len)
        };
        Memory((0..entries).map(entry).collect())
    }

    fn len(&self) -> usize {
        self.0.iter().map(|(_, len)| len).sum()
    }

    fn fill(&self, state: &State, mut bytes: &[u8]) {
        for (phys, len) in &self.0 {
            let (now, later) = bytes.split_at(bytes.len().min(*len));
            state.put(*phys, now);
            bytes = later;
        }
        assert!(bytes.is_empty());
    }

    fn take(&self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for (phys, len) in &self.0 {
            let mut part = alloc::vec![0; *len];
            assert!(device_read(*phys, &mut part));
            all.extend(part);
        }
        assert_eq!(all.len(), len);
        all
    }
}

impl State {
    fn reg(&self, register: usize) -> u32 {
        self.port.get(&register).copied().unwrap_or(0)
    }

    fn set(&mut self, register: usize, value: u32) {
        self.port.insert(register, value);
    }

    fn address(&self, register: usize) -> u64 {
        u64::from(self.reg(register)) | u64::from(self.reg(register + 4)) << 32
    }

    fn put(&self, phys: u64, bytes: &[u8]) {
        if self.is_master {
            assert!(device_write(phys, bytes));
        }
    }

    fn plug(&mut self, is_plugged: bool) {
        self.is_plugged = is_plugged;
        if !is_plugged {
            self.disk.copy_from_slice(&self.medium);
        }
        self.is_halted = true;
        self.silenced = 0;
    }

    fn straggle(&mut self) {
        for (number, at, bytes) in core::mem::take(&mut self.stragglers) {
            self.disk[at..][..bytes.len()].copy_from_slice(&bytes);
            if self.reg(CMD) & CMD_RECEIVE == 0 {
                self.unanswered |= 1 << number;
            }
        }
    }

    fn fail(&mut self, number: u32, is_queued: bool, busy: u32) -> bool {
        self.is_halted = true;
        self.failed_tag = is_queued.then_some(number as u8);
        // As QEMU does: the bit of a failed queued command stays in one register.
        self.set(CI, self.reg(CI) & !(1 << number));
        self.set(TFD, 0x0441 | busy);
        self.interrupt(IS_TASK)
    }

    /// Sets interrupts of the port; whether the event is to be raised.
    fn interrupt(&mut self, bits: u32) -> bool {
        self.set(PX_IS, self.reg(PX_IS) | bits);
        if self.reg(PX_IS) & self.reg(PX_IE) == 0 {
            return false;
        }
        let pending = self.global.get(&IS).copied().unwrap_or(0);
        self.global.insert(IS, pending | 1 << PORT);
        self.global
            .get(&GHC)
            .is_some_and(|g| g & GHC_INTERRUPTS != 0)
    }
}

impl Bus for FakeBus {
    fn read_u32(&self, offset: usize) -> u32 {
        let state = self.0.state.lock();
        if state.is_gone {
            return self.0.character.absent;
        }
        let base = port(PORT);
        if !(base..base + 0x80).contains(&offset) {
            return match offset {
                // 32 commands on each of six ports, of which two are there.
                CAP if self.0.character.queues => CAP_64 | CAP_NCQ | CAP_CLO | 31 << 8 | 5,
                CAP => CAP_64 | CAP_CLO | 31 << 8 | 5,
                PI => 1 << PORT | 1 << 4,
                _ => state.global.get(&offset).copied().unwrap_or(0),
            };
        }
        match offset - base {
            SSTS if state.is_plugged => 0x123,
            SSTS => 0,
            register => state.reg(register),
        }
    }

    fn write_u32(&self, offset: usize, value: u32) {
        let fake = &self.0;
        let mut state = fake.state.lock();
        let base = port(PORT);
        if state.is_gone {
            return;
        }
        if !(base..base + 0x80).contains(&offset) {
            let old = state.global.get(&offset).copied().unwrap_or(0);
            let new = if offset == IS { old & !value } else { value };
            state.global.insert(offset, new);
            return;
        }
        let register = offset - base;
        let old = state.reg(register);
        let mut raised = false;
        match register {
            PX_IS | SERR => state.set(register, old & !value),
            SACT => state.set(SACT, old | value),
            CMD => {
                let started = value & CMD_START != 0;
                let mut now = value & !(CMD_RUNNING | CMD_RECEIVING | CMD_CLO);
                if started || !fake.character.stops {
                    now |= CMD_RUNNING;
                }
                if value & CMD_RECEIVE != 0 {
                    now |= CMD_RECEIVING;
                }
                state.set(CMD, now);
                if now & CMD_RECEIVE == 0 {
                    state.straggle();
                }
                if value & CMD_CLO != 0 {
                    let status = state.reg(TFD) & !0x88;
                    state.set(TFD, status);
                }
                if !started {
                    state.set(CI, 0);
                    state.set(SACT, 0);
                } else if old & CMD_START == 0 {
                    assert_eq!(state.reg(TFD) & 0x88, 0, "started while busy");
                    state.is_halted = false;
                }
            }
            SCTL if old & 0xf == 1 && value & 0xf == 0 => {
                state.set(SCTL, value);
                state.resets += 1;
                state.silenced = 0;
                state.straggle();
                let back = state.resets <= fake.character.resets;
                state.set(TFD, if back { 0x50 } else { 0x80 });
            }
            CI => {
                state.set(CI, old | value);
                raised = fake.run(&mut state);
            }
            _ => state.set(register, value),
        }
        drop(state);
        fake.raise(raised);
    }

    fn interrupts(&self) -> usize {
        1
    }

    fn interrupt(&self, _: usize) -> &IrqEvent {
        &self.0.event
    }

    fn set_cpu(&self, _: usize, _: usize) {}

    fn is_wired(&self) -> bool {
        self.0.character.is_wired
    }

    fn set_master(&self, on: bool) {
        self.0.state.lock().is_master = on;
    }

    fn is_present(&self) -> bool {
        !self.0.state.lock().is_gone
    }
}
