//! An xHCI controller made of software, for tests: it does what the specification
//! says, but for the mischief it is told to do.

use alloc::boxed::Box;
use alloc::sync::Arc;
use machine::bus::Bus;
use machine::host::{device_read, device_write};
use machine::irq::IrqEvent;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;

/// What a device says to a packet.
pub(crate) enum Answer {
    /// It takes what came, or gives this.
    Done(Vec<u8>),
    Stall,
    /// Nothing, for ever or until the controller is asked again.
    Silence,
    /// The packet is lost on the wire.
    Error,
}

/// A device at a port.
pub(crate) trait Usb: Send {
    /// 3 for high speed, 4 for USB 3, as the controller numbers them.
    fn speed(&self) -> u32;
    /// The port was reset.
    fn reset(&mut self) {}
    fn control(&mut self, setup: [u8; 8], data: &[u8]) -> Answer;
    fn output(&mut self, endpoint: u8, bytes: &[u8]) -> Answer;
    fn input(&mut self, endpoint: u8, len: usize) -> Answer;
}

/// What the controller does wrong.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mischief {
    /// It never interrupts.
    pub(crate) no_interrupts: bool,
    /// Before each event it reports nonsense: of wrong blocks, slots and kinds.
    pub(crate) nonsense: bool,
    /// It reports more bytes left than there were.
    pub(crate) residue: bool,
    /// It does not answer commands.
    pub(crate) no_commands: bool,
    /// It does not halt, reset or say anything: its registers read all ones.
    pub(crate) gone: bool,
    /// It gives the same slot to everybody.
    pub(crate) same_slot: bool,
    /// It reports a host system error.
    pub(crate) host_error: bool,
}

/// Shape of the controller.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) ports: u8,
    pub(crate) context: usize,
    pub(crate) scratchpads: u32,
}

pub(crate) const SHAPE: Shape = Shape {
    ports: 4,
    context: 32,
    scratchpads: 0,
};

struct Port {
    device: Option<Box<dyn Usb>>,
    changes: u32,
    enabled: bool,
}

#[derive(Clone, Copy, Default)]
struct Cursor {
    at: u64,
    cycle: bool,
}

struct Slot {
    port: usize,
    /// Rings by their place in the device context.
    rings: HashMap<u8, Cursor>,
}

struct State {
    shape: Shape,
    mischief: Mischief,
    words: HashMap<usize, u32>,
    running: bool,
    commands: Cursor,
    event_at: u64,
    event_index: u64,
    event_cycle: bool,
    ports: Vec<Port>,
    slots: HashMap<u8, Slot>,
    resets: u32,
}

/// The controller; clones are the same one.
#[derive(Clone)]
pub(crate) struct Xhc(Arc<(Mutex<State>, IrqEvent)>);

const CAP_LEN: usize = 0x40;
const RUNTIME: usize = 0x1000;
const DOORBELLS: usize = 0x2000;
const EXTENDED: usize = 0x3000;
const PORTS: usize = CAP_LEN + 0x400;
const CHANGES: u32 = 0x7f << 17;

fn read_words(at: u64) -> [u32; 4] {
    let mut bytes = [0; 16];
    assert!(
        device_read(at, &mut bytes),
        "the controller was told {at:#x}"
    );
    core::array::from_fn(|n| u32::from_le_bytes(bytes[n * 4..n * 4 + 4].try_into().unwrap()))
}

fn wide(words: [u32; 4]) -> u64 {
    u64::from(words[0]) | u64::from(words[1]) << 32
}

impl Xhc {
    pub(crate) fn new(shape: Shape) -> Xhc {
        let port = |_| Port {
            device: None,
            changes: 0,
            enabled: false,
        };
        let state = State {
            shape,
            mischief: Mischief::default(),
            words: HashMap::new(),
            running: false,
            commands: Cursor::default(),
            event_at: 0,
            event_index: 0,
            event_cycle: true,
            ports: (0..shape.ports).map(port).collect(),
            slots: HashMap::new(),
            resets: 0,
        };
        let irq = IrqEvent::new("fake-xhci").expect("a vector");
        Xhc(Arc::new((Mutex::new(state), irq)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    pub(crate) fn set_mischief(&self, mischief: Mischief) {
        let mut state = self.state();
        state.mischief = mischief;
        if mischief.host_error {
            self.interrupt(&state);
        }
    }

    /// Times it was reset.
    pub(crate) fn resets(&self) -> u32 {
        self.state().resets
    }

    pub(crate) fn plug(&self, port: u8, device: Box<dyn Usb>) {
        let mut state = self.state();
        let p = &mut state.ports[usize::from(port) - 1];
        p.device = Some(device);
        self.port_changed(&mut state, port);
    }

    pub(crate) fn pull(&self, port: u8) {
        let mut state = self.state();
        let p = &mut state.ports[usize::from(port) - 1];
        p.device = None;
        p.enabled = false;
        self.port_changed(&mut state, port);
    }

    /// Takes another look at rings whose device was silent.
    pub(crate) fn poke(&self, slot: u8, endpoint: u8) {
        let mut state = self.state();
        self.run_transfers(&mut state, slot, endpoint);
    }

    fn port_changed(&self, state: &mut State, port: u8) {
        state.ports[usize::from(port) - 1].changes |= 1 << 17;
        self.event(state, [0, 0, 1 << 24, 34 << 10], u32::from(port) << 24);
    }

    fn interrupt(&self, state: &State) {
        if !state.mischief.no_interrupts {
            self.0.1.raise();
        }
    }

    /// Writes one event; `low` replaces the lowest word.
    fn event(&self, state: &mut State, mut words: [u32; 4], low: u32) {
        words[0] |= low;
        if !state.running {
            return;
        }
        if state.mischief.nonsense {
            for wrong in [
                [0xdead_bee0, 0xffff, 1 << 24, 32 << 10 | 3 << 16 | 1 << 24],
                [8, 0, 1 << 24, 32 << 10 | 31 << 16 | 255 << 24],
                [words[0] ^ 16, words[1], 1 << 24, 33 << 10],
                [u32::MAX; 4],
                [0, 0, 1 << 24, 34 << 10],
                [255 << 24, 0, 1 << 24, 34 << 10],
                [0, 0, 21 << 24, 37 << 10],
            ] {
                self.write_event(state, wrong);
            }
        }
        self.write_event(state, words);
        self.interrupt(state);
    }

    fn write_event(&self, state: &mut State, mut words: [u32; 4]) {
        words[3] = words[3] & !1 | u32::from(state.event_cycle);
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let at = state.event_at + state.event_index * 16;
        assert!(device_write(at, &bytes[..12]) && device_write(at + 12, &bytes[12..]));
        state.event_index += 1;
        if state.event_index == 256 {
            state.event_index = 0;
            state.event_cycle = !state.event_cycle;
        }
    }

    /// The next block of a ring, links followed.
    fn next(cursor: &mut Cursor) -> Option<(u64, [u32; 4])> {
        for _ in 0..2 {
            let words = read_words(cursor.at);
            if (words[3] & 1 != 0) != cursor.cycle {
                return None;
            }
            if words[3] >> 10 & 0x3f != 6 {
                let at = cursor.at;
                cursor.at += 16;
                return Some((at, words));
            }
            cursor.at = wide(words) & !0xf;
            if words[3] & 2 != 0 {
                cursor.cycle = !cursor.cycle;
            }
        }
        None
    }

    fn run_commands(&self, state: &mut State) {
        if state.mischief.no_commands {
            return;
        }
        let mut cursor = state.commands;
        while let Some((at, words)) = Self::next(&mut cursor) {
            state.commands = cursor;
            let slot = (words[3] >> 24) as u8;
            let endpoint = (words[3] >> 16 & 0x1f) as u8;
            let (code, slot) = self.carry_out(state, words, slot, endpoint);
            let control = 33 << 10 | u32::from(slot) << 24;
            let event = [at as u32, (at >> 32) as u32, code << 24, control];
            self.event(state, event, 0);
        }
    }

    fn endpoint_state(state: &State, slot: u8, endpoint: u8) -> u64 {
        let base = u64::from(state.words[&(CAP_LEN + 0x30)]);
        let base = base | u64::from(state.words[&(CAP_LEN + 0x34)]) << 32;
        let mut bytes = [0; 8];
        assert!(device_read(base + u64::from(slot) * 8, &mut bytes));
        let context = u64::from_le_bytes(bytes);
        context + u64::from(endpoint) * state.shape.context as u64
    }

    fn set_endpoint_state(state: &State, slot: u8, endpoint: u8, value: u32) {
        let at = Self::endpoint_state(state, slot, endpoint);
        assert!(device_write(at, &value.to_le_bytes()));
    }

    fn carry_out(&self, state: &mut State, words: [u32; 4], slot: u8, endpoint: u8) -> (u32, u8) {
        const OK: u32 = 1;
        let input = wide(words);
        match words[3] >> 10 & 0x3f {
            9 => {
                let free = (1..=8).find(|n| !state.slots.contains_key(n));
                let number = if state.mischief.same_slot {
                    Some(1)
                } else {
                    free
                };
                let Some(number) = number else { return (9, 0) };
                let slot = Slot {
                    port: usize::MAX,
                    rings: HashMap::new(),
                };
                state.slots.insert(number, slot);
                (OK, number)
            }
            10 => {
                let known = state.slots.remove(&slot).is_some();
                (if known { OK } else { 11 }, slot)
            }
            11..=13 => (Self::set_contexts(state, input, slot), slot),
            // Reset, stop an endpoint.
            what @ (14 | 15) => {
                if !state.slots.contains_key(&slot) {
                    return (11, slot);
                }
                let at = Self::endpoint_state(state, slot, endpoint);
                let now = read_words(at & !0xf)[0] & 7;
                let wanted = if what == 14 { 2 } else { 1 };
                if now != wanted {
                    return (19, slot);
                }
                Self::set_endpoint_state(state, slot, endpoint, 3);
                (OK, slot)
            }
            16 => {
                let Some(known) = state.slots.get_mut(&slot) else {
                    return (11, slot);
                };
                let cursor = Cursor {
                    at: input & !0xf,
                    cycle: input & 1 != 0,
                };
                known.rings.insert(endpoint, cursor);
                (OK, slot)
            }
            _ => (5, slot),
        }
    }

    /// Addresses a device, configures it or evaluates its contexts; the completion code.
    fn set_contexts(state: &mut State, input: u64, slot: u8) -> u32 {
        let context = state.shape.context as u64;
        let add = read_words(input)[1];
        let slot_words = read_words(input + context);
        let Some(known) = state.slots.get_mut(&slot) else {
            return 11;
        };
        if add & 1 != 0 {
            known.port = (slot_words[1] >> 16 & 0xff) as usize;
        }
        for n in (1..32u8).filter(|n| add & 1 << n != 0) {
            let words = read_words(input + context * (u64::from(n) + 1));
            let at = u64::from(words[2]) | u64::from(words[3]) << 32;
            let cursor = Cursor {
                at: at & !0xf,
                cycle: at & 1 != 0,
            };
            if words[1] >> 16 == 0 {
                return 17;
            }
            if at != 0 {
                known.rings.insert(n, cursor);
            }
        }
        for n in (1..32u8).filter(|n| add & 1 << n != 0) {
            Self::set_endpoint_state(state, slot, n, 1);
        }
        1
    }

    fn run_transfers(&self, state: &mut State, slot: u8, endpoint: u8) {
        let Some(known) = state.slots.get(&slot) else {
            return;
        };
        let port = known.port;
        let Some(mut cursor) = known.rings.get(&endpoint).copied() else {
            return;
        };
        let at = Self::endpoint_state(state, slot, endpoint);
        let now = read_words(at & !0xf)[0] & 7;
        if !matches!(now, 1 | 3) {
            return;
        }
        Self::set_endpoint_state(state, slot, endpoint, 1);
        while let Some(blocks) = Self::transfer(&mut cursor, endpoint == 1) {
            let Some(device) = state
                .ports
                .get_mut(port - 1)
                .and_then(|p| p.device.as_mut())
            else {
                return;
            };
            let reports = Self::talk(device.as_mut(), endpoint, &blocks);
            let Some(&(_, code, _)) = reports.last() else {
                return;
            };
            if let Some(known) = state.slots.get_mut(&slot) {
                known.rings.insert(endpoint, cursor);
            }
            if !matches!(code, 1 | 13) {
                Self::set_endpoint_state(state, slot, endpoint, 2);
            }
            for (index, code, left) in reports {
                let left = if state.mischief.residue {
                    left + 0x1_0000
                } else {
                    left
                };
                let control = 32 << 10 | u32::from(endpoint) << 16 | u32::from(slot) << 24;
                let at = blocks[index].0;
                let event = [at as u32, (at >> 32) as u32, code << 24 | left, control];
                self.event(state, event, 0);
            }
            if !matches!(code, 1 | 13) {
                return;
            }
        }
    }

    /// The blocks of the next transfer: a chain, or the stages of a request.
    fn transfer(cursor: &mut Cursor, is_control: bool) -> Option<Vec<(u64, [u32; 4])>> {
        let mut ahead = *cursor;
        let mut blocks = Vec::new();
        loop {
            let block = Self::next(&mut ahead)?;
            blocks.push(block);
            let kind = block.1[3] >> 10 & 0x3f;
            let is_last = if is_control {
                kind == 4
            } else {
                block.1[3] & 1 << 4 == 0
            };
            if is_last {
                *cursor = ahead;
                return Some(blocks);
            }
        }
    }

    /// What comes of a transfer: blocks to report, how, and what is left of each.
    fn talk(
        device: &mut dyn Usb,
        endpoint: u8,
        blocks: &[(u64, [u32; 4])],
    ) -> Vec<(usize, u32, u32)> {
        let len = |words: [u32; 4]| (words[2] & 0x1_ffff) as usize;
        let last = blocks.len() - 1;
        let data: Vec<_> = match endpoint {
            1 => blocks[1..last].to_vec(),
            _ => blocks.to_vec(),
        };
        let total: usize = data.iter().map(|b| len(b.1)).sum();
        let mut out = Vec::new();
        for (_, words) in &data {
            let mut bytes = vec![0; len(*words)];
            assert!(device_read(wide(*words), &mut bytes));
            out.extend(bytes);
        }
        let (answer, is_in) = if endpoint == 1 {
            let mut setup = [0; 8];
            setup.copy_from_slice(&wide(blocks[0].1).to_le_bytes());
            let is_in = setup[0] & 0x80 != 0;
            let out = if is_in { &[][..] } else { &out[..] };
            (device.control(setup, out), is_in)
        } else if endpoint % 2 == 1 {
            (device.input(endpoint / 2, total), true)
        } else {
            (device.output(endpoint / 2, &out), false)
        };
        let bytes = match answer {
            Answer::Done(bytes) => bytes,
            Answer::Stall => return vec![(0, 6, len(blocks[0].1) as u32)],
            Answer::Error => return vec![(0, 4, 0)],
            Answer::Silence => return Vec::new(),
        };
        if !is_in {
            return vec![(last, 1, 0)];
        }
        let mut rest = &bytes[..bytes.len().min(total)];
        for (n, (_, words)) in data.iter().enumerate() {
            let part = rest.len().min(len(*words));
            assert!(device_write(wide(*words), &rest[..part]));
            rest = &rest[part..];
            if part < len(*words) {
                let left = (len(*words) - part) as u32;
                return match endpoint {
                    1 => vec![(1, 13, left), (last, 1, 0)],
                    _ => vec![(n, 13, left)],
                };
            }
        }
        vec![(last, 1, 0)]
    }

    fn reset(state: &mut State) {
        state.resets += 1;
        state.running = false;
        state.slots.clear();
        state.event_index = 0;
        state.event_cycle = true;
        for port in &mut state.ports {
            port.enabled = false;
            port.changes = if port.device.is_some() { 1 << 17 } else { 0 };
        }
    }

    fn port_word(port: &Port) -> u32 {
        let device = port.device.as_ref();
        let connected = u32::from(device.is_some());
        let speed = device.filter(|_| port.enabled).map_or(0, |d| d.speed());
        connected | u32::from(port.enabled) << 1 | port.changes | 1 << 9 | speed << 10
    }

    fn write_port(&self, state: &mut State, number: usize, value: u32) {
        let port = &mut state.ports[number];
        port.changes &= !(value & CHANGES);
        if value & 1 << 4 != 0
            && let Some(device) = port.device.as_mut()
        {
            device.reset();
            port.enabled = true;
            port.changes |= 1 << 21;
            let low = (number as u32 + 1) << 24;
            self.event(state, [0, 0, 1 << 24, 34 << 10], low);
        }
    }
}

impl Bus for Xhc {
    fn read_u32(&self, offset: usize) -> u32 {
        let state = self.state();
        if state.mischief.gone {
            return u32::MAX;
        }
        let shape = state.shape;
        match offset {
            0 => CAP_LEN as u32 | 0x0100 << 16,
            4 => 8 | 1 << 8 | u32::from(shape.ports) << 24,
            8 => shape.scratchpads << 27,
            0x10 => 1 | u32::from(shape.context == 64) << 2 | (EXTENDED as u32 / 4) << 16,
            0x14 => DOORBELLS as u32,
            0x18 => RUNTIME as u32,
            // Owned by the firmware until it is asked for, then a protocol.
            EXTENDED => 1 | 4 << 8 | state.words.get(&EXTENDED).copied().unwrap_or(1 << 16),
            0x3010 => 2 | 2 << 24,
            0x3018 => 1 | u32::from(shape.ports) << 8,
            0x40 => u32::from(state.running),
            0x44 => u32::from(!state.running) | u32::from(state.mischief.host_error) << 2,
            0x48 => 1,
            _ if (PORTS..PORTS + 0x10 * usize::from(shape.ports)).contains(&offset) => {
                Self::port_word(&state.ports[(offset - PORTS) / 0x10])
            }
            _ => state.words.get(&offset).copied().unwrap_or(0),
        }
    }

    fn write_u32(&self, offset: usize, value: u32) {
        let mut state = self.state();
        let state = &mut *state;
        if state.mischief.gone {
            return;
        }
        state.words.insert(offset, value);
        let wide_at = |state: &State, at: usize| {
            let word = |at| u64::from(state.words.get(&at).copied().unwrap_or(0));
            word(at) | word(at + 4) << 32
        };
        match offset {
            0x40 if value & 2 != 0 => Self::reset(state),
            0x40 => state.running = value & 1 != 0,
            EXTENDED => drop(state.words.insert(EXTENDED, value & 1 << 24)),
            // The command ring's pointer; reading it shows that nothing runs.
            0x5c => {
                let at = wide_at(state, 0x58);
                state.words.insert(0x58, 0);
                state.commands = Cursor {
                    at: at & !0x3f,
                    cycle: at & 1 != 0,
                };
            }
            0x1034 => state.event_at = wide(read_words(wide_at(state, 0x1030))),
            _ if offset == DOORBELLS => self.run_commands(state),
            _ if (DOORBELLS..DOORBELLS + 0x400).contains(&offset) => {
                let slot = ((offset - DOORBELLS) / 4) as u8;
                self.run_transfers(state, slot, value as u8);
            }
            _ if (PORTS..PORTS + 0x10 * state.ports.len()).contains(&offset) => {
                self.write_port(state, (offset - PORTS) / 0x10, value);
            }
            _ => {}
        }
    }

    fn interrupts(&self) -> usize {
        1
    }

    fn interrupt(&self, _: usize) -> &IrqEvent {
        &self.0.1
    }

    fn set_cpu(&self, _: usize, _: usize) {}

    fn is_wired(&self) -> bool {
        false
    }

    fn set_master(&self, _: bool) {}

    fn is_present(&self) -> bool {
        !self.state().mischief.gone
    }
}
