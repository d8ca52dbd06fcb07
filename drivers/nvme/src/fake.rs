//! A controller made of plain memory, honest and not, for tests.

use crate::registers::{ACQ, AQA, ASQ, CAP, CC, CSTS, DOORBELLS};
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
/// Blocks of the namespace.
pub(crate) const BLOCKS: usize = 8192;
/// Least pages of a transfer, as a power of two.
pub(crate) const MDTS: u8 = 3;

/// What goes wrong with the next I/O commands, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is never answered.
    Silence,
    /// It is answered without an interrupt.
    NoInterrupt,
    /// The answer names a command that never was.
    WrongId,
    /// The answer names another turn of the same slot.
    WrongTurn,
    /// The answer names another queue.
    WrongQueue,
    /// The answer says that the queue was read beyond its end.
    WrongHead,
    /// The same answer comes twice.
    Twice,
    /// It fails with this status.
    Status(u16),
    /// The controller breaks instead and says so.
    Fatal,
    /// The controller stops, as after a reset by somebody else.
    Stopped,
    /// The controller is pulled.
    Pulled,
}

/// How the controller is, for the whole test.
#[derive(Clone, Debug)]
pub(crate) struct Character {
    /// Pairs of I/O queues it has.
    pub(crate) pairs: u16,
    pub(crate) interrupts: usize,
    /// It answers aborts and gives up the command, instead of ignoring them.
    pub(crate) aborts: bool,
    /// It becomes ready this often, and then never again.
    pub(crate) starts: u32,
    /// It has another serial number after a reset.
    pub(crate) changes: bool,
    /// What registers read as when it is gone.
    pub(crate) absent: u32,
    /// Creation of I/O queues beyond this one fails.
    pub(crate) creates: u16,
}

impl Default for Character {
    fn default() -> Self {
        Character {
            pairs: 2,
            interrupts: 3,
            aborts: false,
            starts: u32::MAX,
            changes: false,
            absent: u32::MAX,
            creates: u16::MAX,
        }
    }
}

#[derive(Clone, Copy)]
struct Submissions {
    phys: u64,
    entries: u16,
    head: u16,
    completions: u16,
}

#[derive(Clone, Copy)]
struct Completions {
    phys: u64,
    entries: u16,
    tail: u16,
    phase: bool,
    vector: usize,
}

#[derive(Default)]
pub(crate) struct State {
    registers: BTreeMap<usize, u32>,
    submissions: BTreeMap<u16, Submissions>,
    completions: BTreeMap<u16, Completions>,
    /// What the disk holds, its cache included.
    pub(crate) disk: Vec<u8>,
    /// What it holds without power: as it was at the last flush.
    medium: Vec<u8>,
    pub(crate) faults: Vec<Fault>,
    /// I/O commands that had no answer: queue and identifier.
    silenced: Vec<(u16, u16)>,
    /// An event that was asked for.
    event: Option<(u16, u16)>,
    pub(crate) starts: u32,
    pub(crate) flushes: u32,
    pub(crate) commands: u32,
    pub(crate) aborts: u32,
    is_master: bool,
    is_gone: bool,
}

/// The controller, shared by test and driver.
pub(crate) struct Fake {
    pub(crate) character: Character,
    pub(crate) state: SpinLock<State>,
    events: Vec<IrqEvent>,
}

/// The driver's end of it.
pub(crate) struct FakeBus(pub(crate) Arc<Fake>);

impl Fake {
    pub(crate) fn new(character: Character) -> Arc<Fake> {
        let events = (0..character.interrupts).map(|_| IrqEvent::new("fake").unwrap());
        Arc::new(Fake {
            events: events.collect(),
            character,
            state: SpinLock::new(State {
                disk: alloc::vec![0; BLOCK * BLOCKS],
                medium: alloc::vec![0; BLOCK * BLOCKS],
                ..State::default()
            }),
        })
    }

    /// Something is about to break.
    pub(crate) fn warn(&self) {
        let mut state = self.state.lock();
        let (queue, id) = state.event.take().unwrap();
        let vector = state.complete(queue, id, 0, 0x02_00_01);
        drop(state);
        self.raise(vector);
    }

    pub(crate) fn pull(&self) {
        self.state.lock().is_gone = true;
    }

    /// Takes its power away, and gives what it holds then. A cache empties itself in any
    /// order: of the blocks that were not flushed, those that `stay` picks are there.
    pub(crate) fn cut_power(&self, stay: impl Fn(usize) -> bool) -> Vec<u8> {
        let state = &mut *self.state.lock();
        state.is_gone = true;
        let cached = state.disk.chunks(BLOCK).enumerate();
        for (n, block) in cached.filter(|(n, _)| stay(*n)) {
            state.medium[n * BLOCK..][..BLOCK].copy_from_slice(block);
        }
        state.medium.clone()
    }

    fn raise(&self, vector: Option<usize>) {
        if let Some(v) = vector {
            self.events[v].raise();
        }
    }

    fn start(&self, state: &mut State) {
        state.starts += 1;
        if state.starts > self.character.starts {
            return;
        }
        let word = |at: usize| state.registers.get(&at).copied().unwrap_or(0);
        let address = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let entries = (word(AQA) & 0xfff) as u16 + 1;
        let submissions = Submissions {
            phys: address(ASQ),
            entries,
            head: 0,
            completions: 0,
        };
        let completions = Completions {
            phys: address(ACQ),
            entries,
            tail: 0,
            phase: true,
            vector: 0,
        };
        state.submissions.insert(0, submissions);
        state.completions.insert(0, completions);
        state.registers.insert(CSTS, 1);
    }

    fn stop(state: &mut State) {
        state.submissions.clear();
        state.completions.clear();
        state.silenced.clear();
        state.event = None;
        state.registers.insert(CSTS, 0);
    }

    /// Executes what came into submission queue `queue`; the interrupts of that.
    fn run(&self, state: &mut State, queue: u16, tail: u16) -> Vec<usize> {
        let mut raised = Vec::new();
        while let Some(s) = state.submissions.get_mut(&queue).filter(|s| s.head != tail) {
            assert!(tail < s.entries, "the doorbell is beyond the queue");
            let at = s.phys + u64::from(s.head) * 64;
            s.head = (s.head + 1) % s.entries;
            let mut bytes = [0; 64];
            assert!(device_read(at, &mut bytes));
            let words: Vec<u32> = bytes
                .chunks_exact(4)
                .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
                .collect();
            let vector = if queue == 0 {
                self.admin(state, &words)
            } else {
                self.io(state, queue, &words)
            };
            raised.extend(vector);
        }
        raised
    }

    fn admin(&self, state: &mut State, words: &[u32]) -> Option<usize> {
        let id = (words[0] >> 16) as u16;
        let data = u64::from(words[6]) | u64::from(words[7]) << 32;
        let (queue, entries) = (words[10] as u16, (words[10] >> 16) as u16);
        let (mut status, mut result) = (0, 0);
        match words[0] & 0xff {
            0x06 => self.identify(state, words[10], data),
            0x09 if words[10] == 7 => {
                let most = u32::from(self.character.pairs - 1);
                result = most << 16 | most;
            }
            0x09 => {}
            0x05 if queue > self.character.creates => status = 0x101,
            0x05 => {
                let completions = Completions {
                    phys: data,
                    entries: entries + 1,
                    tail: 0,
                    phase: true,
                    vector: (words[11] >> 16) as usize,
                };
                state.completions.insert(queue, completions);
            }
            0x01 => {
                let submissions = Submissions {
                    phys: data,
                    entries: entries + 1,
                    head: 0,
                    completions: (words[11] >> 16) as u16,
                };
                state.submissions.insert(queue, submissions);
            }
            0x08 => {
                state.aborts += 1;
                result = 1;
                let wanted = (words[10] as u16, (words[10] >> 16) as u16);
                let place = state.silenced.iter().position(|s| *s == wanted);
                if let Some(n) = place.filter(|_| self.character.aborts) {
                    state.silenced.remove(n);
                    let vector = state.complete(wanted.0, wanted.1, 0x007, 0);
                    self.raise(vector);
                    result = 0;
                }
            }
            0x0c => {
                state.event = Some((0, id));
                return None;
            }
            0x02 => {
                let mut log = [0u8; 512];
                log[0] = 1;
                log[1..3].copy_from_slice(&300u16.to_le_bytes());
                log[128] = 9;
                state.put(data, &log);
            }
            _ => status = 0x001,
        }
        state.complete(0, id, status, result)
    }

    fn identify(&self, state: &State, what: u32, data: u64) {
        let mut page = [0u8; PAGE_SIZE];
        match what {
            0 => {
                page[..8].copy_from_slice(&(BLOCKS as u64).to_le_bytes());
                page[130] = 9;
            }
            1 => {
                page[4..24].copy_from_slice(b"FAKE-1              ");
                if self.character.changes && state.starts > 1 {
                    page[9] = b'2';
                }
                page[77] = MDTS;
                page[516] = 1;
                page[520] = 0b1100;
                page[525] = 1;
            }
            _ => page[0] = 1,
        }
        state.put(data, &page);
    }

    fn io(&self, state: &mut State, queue: u16, words: &[u32]) -> Option<usize> {
        let id = (words[0] >> 16) as u16;
        state.commands += 1;
        let fault = (!state.faults.is_empty()).then(|| state.faults.remove(0));
        match fault {
            Some(Fault::Silence) => {
                state.silenced.push((queue, id));
                return None;
            }
            Some(Fault::Status(status)) => return state.complete(queue, id, status, 0),
            Some(Fault::Fatal) => {
                state.registers.insert(CSTS, 0b11);
                state.submissions.clear();
                return None;
            }
            Some(Fault::Stopped) => {
                Fake::stop(state);
                return None;
            }
            Some(Fault::Pulled) => {
                state.is_gone = true;
                return None;
            }
            _ => {}
        }
        let status = state.execute(words);
        match fault {
            Some(Fault::NoInterrupt) => {
                state.complete(queue, id, status, 0);
                None
            }
            Some(Fault::WrongId) => state.complete(queue, id ^ 0x7f, status, 0),
            Some(Fault::WrongTurn) => state.complete(queue, id ^ 0x80, status, 0),
            Some(Fault::WrongQueue) => state.complete_as(queue, queue + 1, 0, id, status),
            Some(Fault::WrongHead) => state.complete_as(queue, queue, u16::MAX, id, status),
            Some(Fault::Twice) => {
                state.complete(queue, id, status, 0);
                state.complete(queue, id, status, 0)
            }
            _ => state.complete(queue, id, status, 0),
        }
    }
}

impl State {
    fn put(&self, phys: u64, bytes: &[u8]) {
        if self.is_master {
            assert!(device_write(phys, bytes));
        }
    }

    fn complete(&mut self, queue: u16, id: u16, status: u16, result: u32) -> Option<usize> {
        let head = self.submissions.get(&queue)?.head;
        self.post(queue, [result, 0, head.into(), 0], queue, id, status)
    }

    fn complete_as(
        &mut self,
        on: u16,
        queue: u16,
        head: u16,
        id: u16,
        status: u16,
    ) -> Option<usize> {
        self.post(on, [0, 0, head.into(), 0], queue, id, status)
    }

    fn post(
        &mut self,
        on: u16,
        mut words: [u32; 4],
        queue: u16,
        id: u16,
        status: u16,
    ) -> Option<usize> {
        let number = self.submissions.get(&on)?.completions;
        let c = *self.completions.get(&number)?;
        words[2] |= u32::from(queue) << 16;
        words[3] = u32::from(id) | u32::from(status) << 17 | u32::from(c.phase) << 16;
        let at = c.phys + u64::from(c.tail) * 16;
        for (n, word) in words.iter().enumerate() {
            self.put(at + 4 * n as u64, &word.to_le_bytes());
        }
        let c = self.completions.get_mut(&number)?;
        c.tail += 1;
        if c.tail == c.entries {
            (c.tail, c.phase) = (0, !c.phase);
        }
        Some(c.vector)
    }

    /// Pages of a command's data, of `len` bytes from the start of a page on.
    fn pages(words: &[u32], len: usize) -> Vec<u64> {
        let at = |n: usize| u64::from(words[n]) | u64::from(words[n + 1]) << 32;
        let count = len.div_ceil(PAGE_SIZE);
        let mut pages = Vec::from([at(6)]);
        match count {
            0 | 1 => {}
            2 => pages.push(at(8)),
            _ => {
                let mut list = alloc::vec![0; (count - 1) * 8];
                let place = at(8);
                let end = place as usize % PAGE_SIZE + list.len();
                assert!(end <= PAGE_SIZE, "the list crosses a page");
                assert!(device_read(place, &mut list));
                let entries = list.chunks_exact(8);
                pages.extend(entries.map(|e| u64::from_le_bytes(e.try_into().unwrap())));
            }
        }
        assert!(pages.iter().all(|p| p.is_multiple_of(PAGE_SIZE as u64)));
        pages
    }

    fn execute(&mut self, words: &[u32]) -> u16 {
        let block = (u64::from(words[10]) | u64::from(words[11]) << 32) as usize;
        let count = (words[12] & 0xffff) as usize + 1;
        let range = block * BLOCK..(block + count) * BLOCK;
        if matches!(words[0] & 0xff, 1 | 2 | 8) && range.end > self.disk.len() {
            return 0x080;
        }
        match words[0] & 0xff {
            0 => {
                self.flushes += 1;
                self.medium.copy_from_slice(&self.disk);
            }
            8 => self.disk[range].fill(0),
            9 => {
                let mut bytes = [0; 16];
                let phys = u64::from(words[6]) | u64::from(words[7]) << 32;
                assert!(device_read(phys, &mut bytes));
                let blocks = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
                let start = u64::from_le_bytes(bytes[8..].try_into().unwrap()) as usize;
                self.disk[start * BLOCK..(start + blocks) * BLOCK].fill(0xdd);
            }
            opcode @ (1 | 2) => {
                let len = count * BLOCK;
                assert!(len <= PAGE_SIZE << MDTS, "more than the controller takes");
                let pages = State::pages(words, len);
                for (page, chunk) in pages.iter().zip(range.step_by(PAGE_SIZE)) {
                    let end = (chunk + PAGE_SIZE).min((block + count) * BLOCK);
                    if opcode == 2 {
                        self.put(*page, &self.disk[chunk..end]);
                    } else {
                        assert!(device_read(*page, &mut self.disk[chunk..end]));
                    }
                }
            }
            _ => return 0x001,
        }
        0
    }
}

impl Bus for FakeBus {
    fn read_u32(&self, offset: usize) -> u32 {
        let state = self.0.state.lock();
        if state.is_gone {
            return self.0.character.absent;
        }
        match offset {
            // 128 entries, half a second, NVM commands.
            CAP => 127 | 1 << 24,
            0x04 => 1 << 5,
            _ => state.registers.get(&offset).copied().unwrap_or(0),
        }
    }

    fn write_u32(&self, offset: usize, value: u32) {
        let fake = &self.0;
        let mut state = fake.state.lock();
        if state.is_gone {
            return;
        }
        let old = state.registers.insert(offset, value).unwrap_or(0);
        let mut raised = Vec::new();
        match offset {
            CC if value & 1 != 0 && old & 1 == 0 => fake.start(&mut state),
            CC if value & 1 == 0 => Fake::stop(&mut state),
            at if at >= DOORBELLS && (at - DOORBELLS).is_multiple_of(8) => {
                let queue = ((at - DOORBELLS) / 8) as u16;
                raised = fake.run(&mut state, queue, value as u16);
            }
            _ => {}
        }
        drop(state);
        for vector in raised {
            fake.raise(Some(vector));
        }
    }

    fn interrupts(&self) -> usize {
        self.0.events.len()
    }

    fn interrupt(&self, index: usize) -> &IrqEvent {
        &self.0.events[index.min(self.0.events.len() - 1)]
    }

    fn set_cpu(&self, _: usize, _: usize) {}

    fn is_wired(&self) -> bool {
        false
    }

    fn set_master(&self, on: bool) {
        self.0.state.lock().is_master = on;
    }

    fn is_present(&self) -> bool {
        !self.0.state.lock().is_gone
    }
}
