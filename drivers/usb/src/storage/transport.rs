//! Bulk-Only Transport: a command, its data, its status (USB Mass Storage Class,
//! Bulk-Only Transport 1.0).

use super::scsi::{self, Command, Sense};
use crate::descriptor::{Configuration, Endpoint, Interface};
use crate::device::{Device, kind};
use crate::xhci::context::EndpointShape;
use crate::{UsbError, limit};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::dma::{Direction, DmaBuffer, Segment};
use machine::sync::Mutex;

/// Mass storage, SCSI commands, bulk-only.
const CLASS: (u8, u8, u8) = (8, 6, 0x50);

/// Requests of the class (3).
const RESET: u8 = 0xff;
const GET_MAX_LUN: u8 = 0xfe;
const LUN_MAX: u8 = 15;

/// Command and status wrappers (5).
const COMMAND_LEN: usize = 31;
const STATUS_LEN: usize = 13;
const COMMAND_MARK: u32 = 0x4342_5355;
const STATUS_MARK: u32 = 0x5342_5355;

/// How long a device may take for the wrappers: it only has to take or give a few
/// bytes, but may still be at work on what was before.
const WRAPPER: Duration = limit(5000);

/// Why a command did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk says that it failed.
    Sense(Sense),
    /// The transport.
    Usb(UsbError),
}

impl From<UsbError> for Fault {
    fn from(e: UsbError) -> Fault {
        Fault::Usb(e)
    }
}

/// What a command moved, and the memory it was moved by.
pub(crate) struct Moved {
    pub(crate) len: usize,
    pub(crate) memory: Vec<Segment>,
}

/// An endpoint as device and controller know it.
#[derive(Clone, Copy)]
struct Pipe {
    endpoint: Endpoint,
    shape: EndpointShape,
}

/// What is used again and again; nothing of it while a command is under way.
struct State {
    tag: u32,
    command: Option<DmaBuffer>,
    status: Option<DmaBuffer>,
}

/// The way to a device's disks. One command is under way at a time.
pub(crate) struct Transport {
    device: Arc<Device>,
    interface: u8,
    input: Pipe,
    output: Pipe,
    state: Mutex<State>,
}

/// The interface by which a device has disks.
pub(crate) fn interface(configuration: &Configuration) -> Option<&Interface> {
    let mut all = configuration.interfaces.iter();
    all.find(|i| i.class == CLASS && i.setting == 0)
}

fn bytes_of(buffer: &DmaBuffer, len: usize) -> &[u8] {
    buffer.bytes().get(..len).unwrap_or_default()
}

/// A status wrapper: what was not moved, and how it ended.
fn parse_status(bytes: &[u8], tag: u32) -> Option<(u32, u8)> {
    let (words, [ending]) = bytes.split_at_checked(12)? else {
        return None;
    };
    let mut words = words.chunks_exact(4).map(|word| match *word {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    });
    let is_ours = words.next() == Some(STATUS_MARK) && words.next() == Some(tag);
    let residue = words.next()?;
    is_ours.then_some((residue, *ending))
}

impl Transport {
    /// Takes the interface into use.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn start(
        device: Arc<Device>,
        configuration: u8,
        interface: &Interface,
    ) -> Result<Transport, UsbError> {
        let pipe = |is_in| {
            let endpoint = interface.bulk(is_in);
            let endpoint = endpoint.ok_or(UsbError::Nonsense("a disk without endpoints"))?;
            let shape = endpoint.shape(device.speed())?;
            Ok::<_, UsbError>(Pipe { endpoint, shape })
        };
        let (input, output) = (pipe(true)?, pipe(false)?);
        device.configure(configuration, interface, &[input.shape, output.shape])?;
        let buffer = |len| DmaBuffer::new(len).map_err(|_| UsbError::NoMemory);
        Ok(Transport {
            interface: interface.number,
            input,
            output,
            state: Mutex::new(State {
                tag: 0,
                command: Some(buffer(COMMAND_LEN)?),
                // Room for a packet: a device that says too much is found out.
                status: Some(buffer(usize::from(input.shape.max_packet))?),
            }),
            device,
        })
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The highest number of a unit. Devices that have only one may refuse to say.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn last_unit(&self) -> Result<u8, UsbError> {
        let (kind, number) = (kind::CLASS_FROM_INTERFACE, u16::from(self.interface));
        match self.device.read(kind, GET_MAX_LUN, 0, number, 1) {
            Ok(said) => Ok(said.first().copied().unwrap_or(0).min(LUN_MAX)),
            Err(UsbError::Stalled) => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Has unit `unit` carry out a command, whose data are in `memory`; the device may
    /// take `limit` for them.
    ///
    /// # Errors
    /// [`Fault`]; after one of the transport only [`Transport::recover`] or a reset of
    /// the port lets it go on.
    pub(crate) fn command(
        &self,
        unit: u8,
        command: Command,
        memory: Vec<Segment>,
        limit: Duration,
    ) -> Result<Moved, Fault> {
        let mut state = self.state.lock();
        if let Some(moved) = self.attempt(&mut state, unit, command, memory, limit)? {
            return Ok(moved);
        }
        // It has failed; why is the next question.
        let buffer = DmaBuffer::new(scsi::SENSE_LEN).map_err(|_| UsbError::NoMemory)?;
        let memory = segment(buffer, scsi::SENSE_LEN);
        let question = scsi::request_sense();
        let answer = self.attempt(&mut state, unit, question, memory, WRAPPER)?;
        let sense = answer.map_or(Sense::default(), |mut moved| {
            let buffer = moved.memory.pop().and_then(Segment::into_buffer);
            buffer.map_or(Sense::default(), |b| Sense::parse(bytes_of(&b, moved.len)))
        });
        Err(Fault::Sense(sense))
    }

    /// One command; `None` if the device says that it failed.
    fn attempt(
        &self,
        state: &mut State,
        unit: u8,
        command: Command,
        memory: Vec<Segment>,
        limit: Duration,
    ) -> Result<Option<Moved>, UsbError> {
        state.tag = state.tag.wrapping_add(1);
        let wanted: usize = memory.iter().map(Segment::len).sum();
        let is_in = memory
            .first()
            .is_some_and(|s| s.direction() == Direction::FromDevice);
        self.send(state, unit, command, wanted, is_in)?;
        let mut memory = memory;
        let mut came = 0;
        if wanted > 0 {
            let pipe = if is_in { self.input } else { self.output };
            let outcome = self.device.transfer(&pipe.shape, memory, limit);
            memory = outcome.memory;
            match outcome.result {
                Ok(len) => came = len,
                // It has no more data, or wants none: the status says why.
                Err(UsbError::Stalled) => {
                    self.device.clear_halt(&pipe.endpoint)?;
                    came = outcome.before;
                }
                Err(e) => return Err(e),
            }
        }
        let limit = if wanted > 0 { WRAPPER } else { limit };
        let (residue, ending) = self.status(state, limit)?;
        let residue = usize::try_from(residue).ok().filter(|r| *r <= wanted);
        let residue = residue.ok_or(UsbError::Nonsense("more left than there was"))?;
        match ending {
            0 => Ok(Some(Moved {
                len: came.min(wanted - residue),
                memory,
            })),
            1 => Ok(None),
            _ => Err(UsbError::Nonsense("a phase error")),
        }
    }

    fn send(
        &self,
        state: &mut State,
        unit: u8,
        command: Command,
        wanted: usize,
        is_in: bool,
    ) -> Result<(), UsbError> {
        let (bytes, len) = command.bytes();
        let mut buffer = match state.command.take() {
            Some(buffer) => buffer,
            None => DmaBuffer::new(COMMAND_LEN).map_err(|_| UsbError::NoMemory)?,
        };
        let words = [COMMAND_MARK, state.tag, wanted as u32].map(u32::to_le_bytes);
        let rest = [u8::from(is_in) << 7, unit, len];
        let all = words.as_flattened().iter().chain(&rest).chain(bytes);
        for (to, from) in buffer.bytes_mut().iter_mut().zip(all) {
            *to = *from;
        }
        let memory = Segment::buffer(buffer, 0..COMMAND_LEN, Direction::ToDevice);
        let memory = Vec::from([memory]);
        let mut outcome = self.device.transfer(&self.output.shape, memory, WRAPPER);
        state.command = outcome.memory.pop().and_then(Segment::into_buffer);
        match outcome.result? {
            COMMAND_LEN => Ok(()),
            _ => Err(UsbError::Nonsense("half a command taken")),
        }
    }

    /// What the device says of the command.
    fn status(&self, state: &mut State, limit: Duration) -> Result<(u32, u8), UsbError> {
        // A halted endpoint, or a packet of nothing that ends the data: once more.
        for _ in 0..2 {
            let room = usize::from(self.input.shape.max_packet);
            let buffer = match state.status.take() {
                Some(buffer) => buffer,
                None => DmaBuffer::new(room).map_err(|_| UsbError::NoMemory)?,
            };
            let memory = segment(buffer, room);
            let mut outcome = self.device.transfer(&self.input.shape, memory, limit);
            state.status = outcome.memory.pop().and_then(Segment::into_buffer);
            let len = match outcome.result {
                Ok(0) => continue,
                Ok(len) => len,
                Err(UsbError::Stalled) => {
                    self.device.clear_halt(&self.input.endpoint)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let buffer = state.status.as_ref().ok_or(UsbError::NoMemory)?;
            let said = bytes_of(buffer, len);
            let said = Some(said).filter(|s| s.len() == STATUS_LEN);
            let parsed = said.and_then(|s| parse_status(s, state.tag));
            return parsed.ok_or(UsbError::Nonsense("the status of a command"));
        }
        Err(UsbError::Nonsense("no status of a command"))
    }

    /// Brings device and driver to the same point again, without a reset of the port
    /// (3.1, 5.3.4).
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn recover(&self) -> Result<(), UsbError> {
        let _state = self.state.lock();
        let (kind, number) = (kind::CLASS_TO_INTERFACE, u16::from(self.interface));
        self.device.ask(kind, RESET, 0, number)?;
        self.device.clear_halt(&self.input.endpoint)?;
        self.device.clear_halt(&self.output.endpoint)?;
        let (controller, slot) = (self.device.controller(), self.device.slot());
        controller.renew(slot, &[self.input.shape, self.output.shape])
    }
}

/// A buffer for the device to fill.
pub(super) fn segment(buffer: DmaBuffer, len: usize) -> Vec<Segment> {
    Vec::from([Segment::buffer(buffer, 0..len, Direction::FromDevice)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(mark: u32, tag: u32, residue: u32, ending: u8) -> Vec<u8> {
        let words = [mark, tag, residue].map(u32::to_le_bytes);
        let mut all = words.as_flattened().to_vec();
        all.push(ending);
        all
    }

    #[test]
    fn only_the_status_of_this_command_counts() {
        let good = status(STATUS_MARK, 7, 512, 1);
        assert_eq!(parse_status(&good, 7), Some((512, 1)));
        assert_eq!(parse_status(&good, 8), None);
        assert_eq!(parse_status(&good[..12], 7), None);
        assert_eq!(parse_status(&status(COMMAND_MARK, 7, 0, 0), 7), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_status_or_not(bytes in prop::collection::vec(any::<u8>(), 0..40), tag: u32) {
            if parse_status(&bytes, tag).is_some() {
                prop_assert_eq!(bytes.len(), STATUS_LEN);
            }
        }
    }
}
