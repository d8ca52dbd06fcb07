//! A device made of plain memory, honest and not.

use super::wire;
use crate::family::{Family, MsiX, Shape};
use crate::regs::*;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::bus::Bus;
use machine::host::{device_read, device_write};
use machine::irq::IrqEvent;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Frames given to it do not leave.
    pub(super) keeps_frames: bool,
    /// It does not interrupt.
    pub(super) loses_interrupts: bool,
    /// It says that it wrote more than fits.
    pub(super) wrong_length: bool,
    /// What it says of a frame's checksums: bits of the status.
    pub(super) checks: u32,
    /// It says that it is done with contexts, as some chips do, without the frames.
    pub(super) reports_contexts: bool,
    /// It reports frames as damaged.
    pub(super) damages: bool,
    /// A reset never ends.
    pub(super) no_reset: bool,
    /// Nothing answers.
    pub(super) gone: bool,
}

/// What it was made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) mac: Option<[u8; 6]>,
    /// What the EEPROM says, and whether its register has the larger layout.
    pub(super) eeprom: Option<([u8; 6], bool)>,
    pub(super) port: u32,
}

pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

impl Default for Made {
    fn default() -> Made {
        Made {
            mac: Some(MAC),
            eeprom: None,
            port: 0,
        }
    }
}

#[derive(Default)]
struct State {
    registers: HashMap<usize, u32>,
    faults: Faults,
    is_master: bool,
    link: bool,
    causes: u32,
    mask: u32,
    /// Masks of vectors, 82576 and later.
    vectors: u32,
    sent: Vec<Vec<u8>>,
    /// The descriptors of a frame whose end has not come.
    parts: Vec<[u64; 2]>,
    /// The context that it was given last, its two words.
    context: Option<[u64; 2]>,
    /// How many it was given.
    contexts: usize,
    /// Interrupts for something else because of a frame.
    others: usize,
    resets: u32,
}

/// The device; copies are the same one.
#[derive(Clone)]
pub(super) struct Fake(Arc<Inner>);

struct Inner {
    family: &'static Family,
    made: Made,
    events: [IrqEvent; 2],
    state: Mutex<State>,
}

impl Fake {
    pub(super) fn new(family: &'static Family, made: Made) -> Fake {
        let event = || IrqEvent::new("fake").expect("a vector");
        let fake = Fake(Arc::new(Inner {
            family,
            made,
            events: [event(), event()],
            state: Mutex::new(State {
                link: true,
                ..State::default()
            }),
        }));
        fake.forget(&mut fake.state());
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("not poisoned")
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        let mut s = self.state();
        s.faults = faults;
        if !faults.keeps_frames {
            self.transmit(&mut s);
        }
    }

    pub(super) fn is_master(&self) -> bool {
        self.state().is_master
    }

    pub(super) fn resets(&self) -> u32 {
        self.state().resets
    }

    pub(super) fn register(&self, at: usize) -> u32 {
        self.state().registers.get(&at).copied().unwrap_or(0)
    }

    /// Whether something has left since then.
    pub(super) fn has_sent(&self) -> bool {
        !self.state().sent.is_empty()
    }

    /// What has left since the last call.
    pub(super) fn take_sent(&self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.state().sent)
    }

    /// How often frames interrupted for something else.
    pub(super) fn others(&self) -> usize {
        self.state().others
    }

    /// How many contexts it was given.
    pub(super) fn contexts(&self) -> usize {
        self.state().contexts
    }

    pub(super) fn set_link(&self, up: bool) {
        let mut s = self.state();
        s.link = up;
        self.cause(&mut s, CAUSE_LINK);
    }

    /// As after power-on.
    fn forget(&self, s: &mut State) {
        s.registers.clear();
        (s.mask, s.vectors, s.causes) = (0, 0, 0);
        s.context = None;
        s.parts.clear();
        if let Some([a, b, c, d, e, f]) = self.0.made.mac {
            s.registers.insert(RAL0, u32::from_le_bytes([a, b, c, d]));
            let high = u32::from_le_bytes([e, f, 0, 0]);
            s.registers.insert(RAH0, high | RAH_VALID);
        }
    }

    fn get(s: &State, register: usize) -> u32 {
        s.registers.get(&register).copied().unwrap_or(0)
    }

    fn descriptor(s: &State, block: usize) -> Option<u64> {
        let head = Self::get(s, block + RING_HEAD);
        if !s.is_master || head == Self::get(s, block + RING_TAIL) {
            return None;
        }
        let low = u64::from(Self::get(s, block + RING_BASE_LOW));
        let base = low | u64::from(Self::get(s, block + RING_BASE_HIGH)) << 32;
        Some(base + 16 * u64::from(head))
    }

    fn advance(s: &mut State, block: usize) {
        let count = Self::get(s, block + RING_LEN) / 16;
        let head = (Self::get(s, block + RING_HEAD) + 1) % count;
        s.registers.insert(block + RING_HEAD, head);
    }

    /// Sends what was given to it.
    fn transmit(&self, s: &mut State) {
        let block = self.0.family.transmit;
        let enabled = Self::get(s, TCTL) & TCTL_ENABLE != 0;
        let mut any = false;
        while enabled && s.link {
            let Some(at) = Self::descriptor(s, block) else {
                break;
            };
            let mut d = [0; 16];
            assert!(device_read(at, &mut d));
            let words = [&d[..8], &d[8..]].map(|w| u64::from_le_bytes(w.try_into().unwrap()));
            // The end of a frame, and whether it is to be told of.
            let (ends, told) = (words[1] >> 24 & 1 == 1, words[1] >> 27 & 1 == 1);
            if wire::is_context(self.0.family.layout, words) {
                s.context = Some(words);
                s.contexts += 1;
                if s.faults.reports_contexts {
                    assert!(device_write(at + 12, &TX_DONE.to_le_bytes()));
                }
                Self::advance(s, block);
                continue;
            }
            if s.faults.keeps_frames {
                break;
            }
            s.parts.push(words);
            if ends {
                let parts = core::mem::take(&mut s.parts);
                let mut frames = wire::frames(self.0.family.layout, &parts, s.context);
                s.sent.append(&mut frames);
            }
            if told {
                assert!(device_write(at + 12, &TX_DONE.to_le_bytes()));
            }
            Self::advance(s, block);
            any = true;
        }
        if any {
            self.cause(s, CAUSE_SENT);
        }
    }

    /// A frame comes in from the wire; whether there was a buffer.
    pub(super) fn receive(&self, frame: &[u8]) -> bool {
        self.receive_part(frame, true)
    }

    /// A part of a frame, the last one if `ends`.
    pub(super) fn receive_part(&self, frame: &[u8], ends: bool) -> bool {
        let mut s = self.state();
        let block = self.0.family.receive;
        if Self::get(&s, RCTL) & RCTL_ENABLE == 0 {
            return false;
        }
        let Some(at) = Self::descriptor(&s, block) else {
            return false;
        };
        let mut address = [0; 8];
        assert!(device_read(at, &mut address));
        assert!(device_write(u64::from_le_bytes(address), frame));
        let len = if s.faults.wrong_length {
            0xffff
        } else {
            frame.len() as u16
        };
        let end = if ends { RX_END } else { 0 };
        let errors = if s.faults.damages { 1 << 24 } else { 0 };
        let status = RX_DONE | end | errors | s.faults.checks;
        let [len0, len1] = len.to_le_bytes();
        let [s0, s1, s2, s3] = status.to_le_bytes();
        let words = match self.0.family.shape {
            Shape::Legacy => [len0, len1, 0, 0, s0, s3, 0, 0],
            Shape::Extended => [s0, s1, s2, s3, len0, len1, 0, 0],
        };
        if self.0.family.shape == Shape::Extended {
            assert!(device_write(at, &[0xee; 8]));
        }
        assert!(device_write(at + 8, &words));
        Self::advance(&mut s, block);
        self.cause(&mut s, CAUSE_RECEIVED);
        // Every frame is an acknowledgement here (82574, RFCTL, bit 12).
        if self.0.family.msix == MsiX::Causes && Self::get(&s, RFCTL) >> 12 & 1 == 0 {
            s.others += 1;
            self.cause(&mut s, 1 << 17);
        }
        true
    }

    /// Notes a cause and interrupts, if it is let.
    fn cause(&self, s: &mut State, cause: u32) {
        let (bits, vector) = match (self.0.family.msix, cause) {
            (MsiX::Causes, CAUSE_RECEIVED) => (CAUSE_RECEIVE_QUEUE, 0),
            (MsiX::Causes, CAUSE_SENT) => (CAUSE_TRANSMIT_QUEUE, 1),
            (MsiX::Causes, other) => (other | CAUSE_OTHER, 1),
            (MsiX::None, other) => (other, 0),
            (MsiX::Vectors, CAUSE_RECEIVED) => (cause, 0),
            (MsiX::Vectors, other) => (other, 1),
        };
        s.causes |= bits;
        let open = match (self.0.family.msix, cause) {
            (MsiX::Vectors, CAUSE_SENT) => {
                Self::get(s, IVAR0) & IVAR_VALID << 8 != 0 && s.vectors & 2 != 0
            }
            (MsiX::Vectors, CAUSE_RECEIVED) => s.vectors & 1 != 0,
            (MsiX::Vectors, _) => s.vectors & 2 != 0 && s.mask & cause != 0,
            _ => s.mask & bits != 0,
        };
        if open && !s.faults.loses_interrupts {
            self.0.events[vector].raise();
        }
    }

    fn written(&self, s: &mut State, register: usize, value: u32) {
        let family = self.0.family;
        if register == family.imc {
            s.mask &= !value;
        } else if register == family.ims {
            s.mask |= value;
            let pending = s.causes & s.mask & (CAUSE_LINK | CAUSE_RECEIVED | CAUSE_SENT);
            if pending != 0 {
                self.cause(s, pending);
            }
        } else if register == family.icr {
            s.causes &= !value;
        } else if register == EIMS && family.msix == MsiX::Vectors {
            s.vectors |= value;
        } else if register == EIMC && family.msix == MsiX::Vectors {
            s.vectors &= !value;
        } else {
            s.registers.insert(register, value);
        }
    }

    fn eeprom(&self, asked: u32) -> u32 {
        let Some((mac, is_large)) = self.0.made.eeprom else {
            return asked;
        };
        let (shift, done) = if is_large {
            (EERD_ADDRESS_LARGE, EERD_DONE_LARGE)
        } else {
            (EERD_ADDRESS_SMALL, EERD_DONE_SMALL)
        };
        let at = (asked >> shift & 0xff) as usize * 2;
        let word = u16::from_le_bytes([mac[at], mac[at + 1]]);
        u32::from(word) << EERD_DATA | done
    }
}

impl Bus for Fake {
    fn read_u32(&self, register: usize) -> u32 {
        let mut s = self.state();
        if s.faults.gone {
            return u32::MAX;
        }
        if register == self.0.family.icr {
            let causes = s.causes;
            if self.0.family.msix == MsiX::None {
                s.causes = 0;
            }
            return causes;
        }
        match register {
            STATUS => {
                let link = if s.link { STATUS_LINK_UP } else { 0 };
                2 << STATUS_SPEED_SHIFT
                    | STATUS_FULL_DUPLEX
                    | link
                    | self.0.made.port << STATUS_PORT_SHIFT
            }
            EERD => self.eeprom(Self::get(&s, EERD)),
            _ => Self::get(&s, register),
        }
    }

    fn write_u32(&self, register: usize, value: u32) {
        let mut s = self.state();
        if s.faults.gone {
            return;
        }
        self.written(&mut s, register, value);
        if register == CTRL && value & CTRL_RST != 0 {
            self.forget(&mut s);
            s.resets += 1;
            if s.faults.no_reset {
                s.registers.insert(CTRL, CTRL_RST);
            }
        }
        if register == self.0.family.transmit + RING_TAIL {
            self.transmit(&mut s);
        }
    }

    fn interrupts(&self) -> usize {
        if self.0.family.msix == MsiX::None {
            1
        } else {
            2
        }
    }

    fn interrupt(&self, index: usize) -> &IrqEvent {
        &self.0.events[index.min(self.interrupts() - 1)]
    }

    fn set_cpu(&self, _index: usize, _cpu: usize) {}

    fn is_wired(&self) -> bool {
        false
    }

    fn set_master(&self, on: bool) {
        self.state().is_master = on;
    }

    fn is_present(&self) -> bool {
        !self.state().faults.gone
    }
}
