//! A socket as a file.

use super::{Kind, MsgFlags, Outgoing, Socket};
use core::any::Any;
use machine::io::{Sink, Source};
use vfs::{Error, Events, FileOps, OpenFile, PollHub, Result, Stat};

/// Type bits of a socket in `st_mode`, and all permissions.
const SOCKET_MODE: u32 = 0o140_777;
/// Device number of the file system that sockets seem to lie on.
const SOCKET_DEV: u64 = 8;

impl FileOps for Socket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    #[inline]
    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        self.receive_bytes(sink, file.nonblocking())
            .map_err(Error::from)
    }

    #[inline]
    fn write(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        self.send(
            source,
            Outgoing::default(),
            MsgFlags::empty(),
            file.nonblocking(),
        )
        .map_err(Error::from)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        self.readiness()
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.hub)
    }

    fn ioctl(&self, file: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        self.control(file, command, arg)
    }

    fn stat(&self) -> Stat {
        Stat {
            dev: SOCKET_DEV,
            ino: self.number,
            nlink: 1,
            mode: SOCKET_MODE,
            blksize: 4096,
            ..Stat::default()
        }
    }

    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = write!(out, "socket:[{}]", self.number);
    }

    fn info(&self, _: &OpenFile, out: &mut dyn core::fmt::Write) {
        let what = match &self.kind {
            Kind::Tcp(_) => "tcp",
            Kind::Udp(_) => "udp",
            Kind::Raw(r) if r.is_ping() => "ping",
            Kind::Raw(_) => "raw",
            Kind::Packet(_) => "packet",
            Kind::Unix(_) => "unix",
            Kind::Netlink(_) => "netlink",
        };
        let _ = writeln!(out, "socket:\t{what}");
    }
}
