//! Getting to know a disk before its first use.

use super::scsi::{self, Advice, Capacity, Command, Inquiry};
use super::transport::{Fault, Transport, segment};
use crate::{UsbError, limit, sleep};
use alloc::vec::Vec;
use core::time::Duration;
use machine::dma::{DmaBuffer, Segment};
use machine::time::Instant;

/// How long a disk may take for a question that moves little.
const QUESTION: Duration = limit(5000);
/// How long it may take to get ready: platters have to turn.
const READY: Duration = Duration::from_secs(15);
/// Between two questions whether it is ready.
const PAUSE: Duration = Duration::from_millis(200);
/// Times a question is put again because the disk wanted to tell something first.
const TRIES: usize = 6;

/// A disk as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Medium {
    pub(crate) inquiry: Inquiry,
    pub(crate) capacity: Capacity,
    pub(crate) is_read_only: bool,
}

/// Puts a question with an answer of `len` bytes; what came.
fn ask(transport: &Transport, unit: u8, command: Command, len: usize) -> Result<Vec<u8>, Fault> {
    let mut memory = Vec::new();
    if len > 0 {
        let buffer = DmaBuffer::new(len).map_err(|_| UsbError::NoMemory)?;
        memory = segment(buffer, len);
    }
    let mut moved = transport.command(unit, command, memory, QUESTION)?;
    let buffer = moved.memory.pop().and_then(Segment::into_buffer);
    let bytes = buffer.as_ref().map(DmaBuffer::bytes).unwrap_or_default();
    Ok(bytes.get(..moved.len).unwrap_or_default().to_vec())
}

/// As [`ask`], again while the disk only has something to tell.
fn ask_again(
    transport: &Transport,
    unit: u8,
    command: Command,
    len: usize,
) -> Result<Vec<u8>, Fault> {
    let mut answer = ask(transport, unit, command, len);
    for _ in 1..TRIES {
        match answer {
            Err(Fault::Sense(sense)) if sense.advice() == Advice::Again => {}
            // A new disk says that its medium is new.
            Err(Fault::Sense(sense)) if sense.is_news() => {}
            _ => break,
        }
        answer = ask(transport, unit, command, len);
    }
    answer
}

/// Waits until the disk is ready; whether it has a medium.
fn wait_ready(transport: &Transport, unit: u8) -> Result<bool, Fault> {
    let deadline = Instant::now().after(READY);
    loop {
        match ask_again(transport, unit, scsi::test_unit_ready(), 0) {
            Ok(_) => return Ok(true),
            Err(Fault::Sense(sense)) => match sense.advice() {
                Advice::Removed => return Ok(false),
                Advice::Later if Instant::now() < deadline => sleep(PAUSE),
                _ => return Err(Fault::Sense(sense)),
            },
            Err(e) => return Err(e),
        }
    }
}

impl Medium {
    /// Gets to know unit `unit`; `None` if it is no disk or has no medium.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn read(transport: &Transport, unit: u8) -> Result<Option<Medium>, Fault> {
        let said = ask_again(transport, unit, scsi::inquiry(), scsi::INQUIRY_LEN)?;
        let inquiry = Inquiry::parse(&said);
        if !inquiry.is_disk || !wait_ready(transport, unit)? {
            return Ok(None);
        }
        let wrong = Fault::Usb(UsbError::Nonsense("its size"));
        let said = ask_again(transport, unit, scsi::read_capacity(), scsi::CAPACITY_LEN)?;
        let capacity = match Capacity::parse(&said).map_err(|()| wrong)? {
            Some(capacity) => capacity,
            None => {
                let (question, len) = (scsi::read_capacity_16(), scsi::CAPACITY_16_LEN);
                let said = ask_again(transport, unit, question, len)?;
                Capacity::parse_16(&said).ok_or(wrong)?
            }
        };
        // Not all know the question; those that do not can be written.
        let is_read_only = match ask_again(transport, unit, scsi::mode_sense(), scsi::MODE_LEN) {
            Ok(said) => scsi::is_protected(&said),
            Err(Fault::Sense(_)) => false,
            Err(e) => return Err(e),
        };
        Ok(Some(Medium {
            inquiry,
            capacity,
            is_read_only,
        }))
    }
}
