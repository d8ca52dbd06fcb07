//! The runtime behind a file descriptor: the kernel's `/dev/skep`, or on a Linux machine the
//! socket of `threebot-host`, which speaks the same frames.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use skep_api::control::frame::{self, FrameError, HEADER_BYTES};
use skep_api::control::{ControlError, EventRecord, FRAME_BYTES_MAX, Message, Reply};
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::runtime::{Call, Runtime};

/// `O_NONBLOCK` on x86-64 Linux.
const O_NONBLOCK: i32 = 0o4000;

/// The kernel, at the other end of a descriptor.
#[derive(Debug)]
pub struct KernelRuntime {
    device: File,
}

impl KernelRuntime {
    /// Opens the control device, or connects to it if the path is a socket.
    ///
    /// # Errors
    ///
    /// What opening gives.
    pub fn open(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.file_type().is_socket() {
            let socket = UnixStream::connect(path)?;
            socket.set_nonblocking(true)?;
            return Ok(Self {
                device: File::from(OwnedFd::from(socket)),
            });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_NONBLOCK);
        Ok(Self {
            device: options.open(path)?,
        })
    }
}

impl Runtime for KernelRuntime {
    async fn serve(
        self,
        mut calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<EventRecord>,
    ) -> io::Error {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types whose descriptor may change; \
                      that of a File does not"
        )]
        let device = AsyncFd::new(self.device);
        let mut line = match device {
            Ok(device) => Line::new(device),
            Err(error) => return error,
        };
        loop {
            tokio::select! {
                call = calls.recv() => match call {
                    Some(call) => line.queue(call),
                    None => return ErrorKind::BrokenPipe.into(),
                },
                ready = line.ready() => match ready {
                    Ok(ready) => {
                        if let Err(error) = line.transfer(ready, &events).await {
                            return error;
                        }
                    }
                    Err(error) => return error,
                },
            }
            if let Err(error) = line.write() {
                return error;
            }
        }
    }
}

/// The descriptor with what is on its way over it.
struct Line {
    device: AsyncFd<File>,
    next_id: u32,
    waiting: HashMap<u32, oneshot::Sender<Reply>>,
    outgoing: VecDeque<Vec<u8>>,
    /// Bytes read that are not a whole frame yet. The kernel gives whole frames; a socket may not.
    incoming: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Line {
    fn new(device: AsyncFd<File>) -> Self {
        Self {
            device,
            next_id: 1,
            waiting: HashMap::new(),
            outgoing: VecDeque::new(),
            incoming: Vec::new(),
            buffer: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
        }
    }

    fn queue(&mut self, call: Call) {
        let id = self.next_id;
        match frame::encode_request(id, &call.request) {
            Ok(bytes) => {
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                // Forgets who no longer waits, so that lost replies cannot pile up.
                self.waiting.retain(|_, reply| !reply.is_closed());
                self.waiting.insert(id, call.reply);
                self.outgoing.push_back(bytes);
            }
            Err(_) => {
                let error = ControlError::TooLarge("request".to_owned());
                let _ = call.reply.send(Reply::Error(error));
            }
        }
    }

    async fn ready(&self) -> io::Result<Ready> {
        let interest = if self.outgoing.is_empty() {
            tokio::io::Interest::READABLE
        } else {
            tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE
        };
        let guard = self.device.ready(interest).await?;
        Ok(guard.ready())
    }

    async fn transfer(
        &mut self,
        ready: Ready,
        events: &mpsc::Sender<EventRecord>,
    ) -> io::Result<()> {
        if ready.is_writable() {
            self.write()?;
        }
        if ready.is_readable() || ready.is_read_closed() {
            while self.read()? {
                self.deliver(events).await?;
            }
        }
        Ok(())
    }

    /// Writes what is waiting, as far as the device takes it.
    fn write(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.outgoing.front_mut() {
            let written = self
                .device
                .try_io(tokio::io::Interest::WRITABLE, |mut file| file.write(bytes));
            match written {
                Ok(count) if count < bytes.len() => drop(bytes.drain(..count)),
                Ok(_) => drop(self.outgoing.pop_front()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once; false when there is nothing more.
    fn read(&mut self) -> io::Result<bool> {
        let buffer = &mut self.buffer;
        let count = self
            .device
            .try_io(tokio::io::Interest::READABLE, |mut file| file.read(buffer));
        match count {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.incoming.extend_from_slice(&self.buffer[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Hands out the whole frames that have been read.
    async fn deliver(&mut self, events: &mpsc::Sender<EventRecord>) -> io::Result<()> {
        let mut done = 0;
        loop {
            let rest = &self.incoming[done..];
            let (head, body) = match frame::split(rest) {
                Ok((head, body, _)) => (head, body),
                Err(FrameError::Truncated) => break,
                Err(error) => return Err(io::Error::other(error)),
            };
            let message = frame::decode_message(&head, body).map_err(io::Error::other)?;
            done += HEADER_BYTES + head.body_bytes;
            match message {
                Message::Reply(reply) => {
                    if let Some(waiting) = self.waiting.remove(&head.id) {
                        let _ = waiting.send(reply); // whoever asked may have given up
                    }
                }
                Message::Event(event) => {
                    let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
                    events.send(event).await.map_err(gone)?;
                }
            }
        }
        self.incoming.drain(..done);
        Ok(())
    }
}
