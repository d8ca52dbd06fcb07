//! `/dev/skep` as a file: a request a write, whole frames a read.

use crate::room::Capsules;
use crate::session::Session;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use machine::io::{Sink, Source};
use machine::sync::Mutex;
use machine::wait::Until;
use skep_api::control::frame::{self, HEADER_BYTES};
use skep_api::control::{FRAME_BYTES_MAX, Reply};
use vfs::{Error, Events, FileOps, OpenFile, PollHub, Result};

/// `EMSGSIZE`: the buffer is shorter than the next frame.
const MESSAGE_SIZE: Error = Error::Foreign(90);

/// An open control device.
pub struct Device {
    control: Arc<Capsules>,
    session: Arc<Session>,
    /// Held by a reader, so that frames reach several of them whole and in order.
    reading: Mutex<()>,
}

impl Device {
    /// A new opening of the device.
    ///
    /// # Errors
    /// [`Error::Busy`] with as many openings as there may be; [`Error::NoMemory`].
    pub fn open(control: &Arc<Capsules>) -> Result<Arc<Device>> {
        Ok(Arc::new(Device {
            session: control.open_session()?,
            control: control.clone(),
            reading: Mutex::new(()),
        }))
    }

    fn until(file: &OpenFile) -> Option<Until> {
        (!file.nonblocking()).then_some(Until::INTERRUPTED)
    }

    /// Waits until a request would be taken.
    fn wait_for_room(&self, file: &OpenFile) -> Result<()> {
        let room = || self.session.is_writable().then_some(());
        match Self::until(file) {
            None => room().ok_or(Error::WouldBlock),
            Some(until) => self.session.hub().wait_writable(until, room),
        }
    }
}

/// The whole frame that a write carries.
fn read_frame(source: &mut Source<'_>) -> Result<Vec<u8>> {
    let len = source.left();
    if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&len) {
        return Err(Error::Invalid);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    if source.take(&mut bytes)? != len {
        return Err(Error::BadAddress);
    }
    Ok(bytes)
}

impl FileOps for Device {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        let _one = self.reading.lock();
        let mut next = match Self::until(file) {
            None => self.session.take(sink.left()).transpose(),
            Some(until) => {
                let first = || self.session.take(sink.left()).transpose();
                Some(self.session.hub().wait_readable(until, first)?)
            }
        };
        if next.is_none() {
            return Err(Error::WouldBlock);
        }
        while let Some(Ok(frame)) = next {
            // Where the program's buffer is not there, the frame is lost to it.
            sink.put(&frame)?;
            next = self.session.take(sink.left()).transpose();
        }
        if sink.moved() == 0 {
            return Err(MESSAGE_SIZE);
        }
        Ok(sink.moved())
    }

    fn write(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        let bytes = read_frame(source)?;
        let head = frame::header(&bytes).map_err(|_| Error::Invalid)?;
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if head.id == 0 || body.len() != head.body_bytes {
            return Err(Error::Invalid);
        }
        self.wait_for_room(file)?;
        let reply = match frame::decode_request(&head, body) {
            Ok(request) => self.control.answer(&self.session, request),
            Err(error) => Reply::Error(error),
        };
        self.session.reply(head.id, reply);
        Ok(bytes.len())
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let mut events = Events::empty();
        if self.session.is_readable() {
            events |= Events::READABLE;
        }
        if self.session.is_writable() {
            events |= Events::WRITABLE;
        }
        events
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(self.session.hub())
    }

    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = out.write_str("/dev/skep");
    }

    fn release(&self, _: &OpenFile) {
        self.control.close_session(&self.session);
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
