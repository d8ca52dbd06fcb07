//! A TPM made of software, behind either interface, that breaks the rules on demand.

use crate::crb::{self, Buffer, Crb};
use crate::poll::Clock;
use crate::tis::{self, Tis};
use crate::transport::Registers;
use core::time::Duration;
use machine::time::Instant;
use std::boxed::Box;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Flaw {
    #[default]
    None,
    /// Another locality is never given up.
    Held,
    /// It never becomes ready.
    NeverReady,
    /// It never lets a byte pass.
    NoBurst,
    /// It lets one pass shortly before its time is over, each time.
    Trickles,
    /// It never answers.
    NeverAnswers,
    /// It wants more bytes than the command has.
    Insatiable,
    /// It has no more bytes in the middle of a response.
    StopsShort,
    /// It goes on after the response's end.
    GoesOn,
    /// It is torn out when it should answer.
    Dies,
    /// It says that it has failed.
    Fails,
}

/// Bytes that pass at once: small, so that commands come in parts.
const BURST: usize = 7;
const BUFFER: usize = 256;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) flaw: Flaw,
    /// Time, which passes by pauses only.
    pub(crate) now: Duration,
    pub(crate) pauses: u32,
    /// Commands it was sent.
    pub(crate) commands: Vec<Vec<u8>>,
    /// Responses it gives, the first one first; the last is repeated.
    pub(crate) responses: Vec<Vec<u8>>,
    is_active: bool,
    is_ready: bool,
    is_dead: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    taken: usize,
    memory: Vec<u8>,
    is_started: bool,
    looks: u32,
    pub(crate) was_cancelled: bool,
}

/// The fake, shared by all views of it.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn with(flaw: Flaw, responses: &[Vec<u8>]) -> Fake {
        let fake = Fake::default();
        let mut s = fake.state();
        s.flaw = flaw;
        s.responses = responses.to_vec();
        s.memory = vec![0; BUFFER];
        drop(s);
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn tis(&self) -> Box<Tis<Fake, Fake>> {
        let (registers, clock) = (self.clone(), self.clone());
        Box::new(Tis { registers, clock })
    }

    pub(crate) fn crb(&self) -> Box<Crb<View, Fake>> {
        let view = |part| View(self.clone(), part);
        let buffer = || Buffer {
            bytes: view(Part::Memory),
            len: BUFFER,
        };
        Box::new(Crb {
            locality: Some(view(Part::Locality)),
            control: view(Part::Control),
            command: buffer(),
            response: buffer(),
            clock: self.clone(),
        })
    }
}

impl Clock for Fake {
    fn now(&self) -> Instant {
        Instant(0).after(self.state().now)
    }

    fn pause(&self, time: Duration) {
        let mut s = self.state();
        assert!(!time.is_zero(), "it spins");
        s.now += time;
        s.pauses += 1;
    }
}

impl State {
    /// The command is complete: makes the response ready.
    fn run(&mut self, command: Vec<u8>) {
        self.commands.push(command);
        match self.flaw {
            Flaw::NeverAnswers => return,
            Flaw::Dies => {
                self.is_dead = true;
                return;
            }
            _ => {}
        }
        self.outgoing = match self.responses.len() {
            0 => Vec::new(),
            1 => self.responses[0].clone(),
            _ => self.responses.remove(0),
        };
        self.taken = 0;
        if self.flaw == Flaw::StopsShort {
            self.outgoing.truncate(12);
        }
        if self.flaw == Flaw::GoesOn {
            self.outgoing.push(0);
        }
    }

    fn expects(&self) -> bool {
        let want = match self.incoming.get(2..6) {
            Some(len) => u32::from_be_bytes(len.try_into().unwrap()) as usize,
            None => usize::MAX,
        };
        self.flaw == Flaw::Insatiable || self.incoming.len() < want
    }

    fn tis_status(&self) -> u8 {
        let mut status = tis::STATUS_VALID;
        if self.is_ready && self.incoming.is_empty() {
            status |= tis::COMMAND_READY;
        }
        if !self.incoming.is_empty() && self.expects() {
            status |= tis::EXPECT;
        }
        if self.taken < self.outgoing.len() {
            status |= tis::DATA_AVAILABLE;
        }
        status
    }
}

/// The FIFO.
impl Registers for Fake {
    fn read_u8(&self, at: usize) -> u8 {
        let mut s = self.state();
        if s.is_dead {
            return 0xff;
        }
        match at {
            tis::ACCESS if s.is_active => tis::ACCESS_VALID | tis::ACTIVE_LOCALITY,
            tis::ACCESS => tis::ACCESS_VALID,
            tis::STATUS => s.tis_status(),
            tis::BURST_LOW if s.flaw == Flaw::NoBurst => 0,
            tis::BURST_LOW if s.flaw == Flaw::Trickles => {
                s.looks += 1;
                u8::from(s.looks.is_multiple_of(60))
            }
            tis::BURST_LOW => match s.outgoing.len() - s.taken {
                0 => BURST as u8,
                left => left.min(BURST) as u8,
            },
            tis::BURST_HIGH => 0,
            tis::FIFO => {
                s.taken += 1;
                let at = s.taken - 1;
                *s.outgoing.get(at).expect("read beyond the response")
            }
            other => panic!("register {other:#x} is read"),
        }
    }

    fn write_u8(&self, at: usize, value: u8) {
        let mut s = self.state();
        match (at, value) {
            (tis::ACCESS, tis::REQUEST_USE) => s.is_active = s.flaw != Flaw::Held,
            (tis::ACCESS, tis::ACTIVE_LOCALITY) => s.is_active = false,
            (tis::STATUS, tis::COMMAND_READY) => {
                s.is_ready = s.flaw != Flaw::NeverReady;
                s.incoming.clear();
                s.outgoing.clear();
                s.taken = 0;
            }
            (tis::STATUS, tis::GO) => {
                let command = core::mem::take(&mut s.incoming);
                s.is_ready = false;
                s.run(command);
            }
            (tis::FIFO, byte) => {
                assert!(s.is_active && s.is_ready, "it was not asked");
                s.incoming.push(byte);
            }
            other => panic!("written {other:x?}"),
        }
    }

    fn read_u32(&self, _at: usize) -> u32 {
        unreachable!()
    }

    fn write_u32(&self, _at: usize, _value: u32) {
        unreachable!()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Locality,
    Control,
    Memory,
}

/// One part of a command response buffer.
pub(crate) struct View(Fake, Part);

impl Registers for View {
    fn read_u8(&self, at: usize) -> u8 {
        assert_eq!(self.1, Part::Memory);
        let s = self.0.state();
        s.memory.get(at).copied().unwrap_or(0xff)
    }

    fn write_u8(&self, at: usize, value: u8) {
        assert_eq!(self.1, Part::Memory);
        let mut s = self.0.state();
        assert!(s.is_active && s.is_ready, "it was not asked");
        s.memory[at] = value;
    }

    fn read_u32(&self, at: usize) -> u32 {
        let s = self.0.state();
        if s.is_dead {
            return u32::MAX;
        }
        match (self.1, at) {
            (Part::Locality, crb::LOCALITY_STATUS) => u32::from(s.is_active),
            (Part::Control, crb::REQUEST) if s.is_ready => 0,
            (Part::Control, crb::REQUEST) => crb::GET_READY,
            (Part::Control, crb::START) => u32::from(s.is_started),
            (Part::Control, crb::STATUS) if s.flaw == Flaw::Fails => crb::FATAL,
            (Part::Control, crb::STATUS) => 0,
            other => panic!("register {other:x?} is read"),
        }
    }

    fn write_u32(&self, at: usize, value: u32) {
        let mut s = self.0.state();
        match (self.1, at, value) {
            (Part::Locality, crb::LOCALITY_CONTROL, crb::REQUEST_ACCESS) => {
                s.is_active = s.flaw != Flaw::Held;
            }
            (Part::Locality, crb::LOCALITY_CONTROL, crb::RELINQUISH) => s.is_active = false,
            (Part::Control, crb::REQUEST, crb::GET_READY) => {
                s.is_ready = s.flaw != Flaw::NeverReady;
            }
            (Part::Control, crb::REQUEST, crb::GO_IDLE) => s.is_ready = false,
            (Part::Control, crb::START, 1) => {
                let len = u32::from_be_bytes(s.memory[2..6].try_into().unwrap()) as usize;
                let command = s.memory[..len].to_vec();
                s.outgoing.clear();
                s.run(command);
                s.is_started = s.flaw == Flaw::NeverAnswers;
                let response = core::mem::take(&mut s.outgoing);
                for (to, from) in s.memory.iter_mut().zip(response) {
                    *to = from;
                }
            }
            (Part::Control, crb::CANCEL, value) => {
                s.was_cancelled |= value == 1;
                s.is_started = false;
            }
            other => panic!("written {other:x?}"),
        }
    }
}
