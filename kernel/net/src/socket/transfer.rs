//! Sending and receiving (send(2), recv(2)).

use super::{Kind, Socket};
use crate::addr::{Address, UnixName};
use crate::ancillary::{Ancillary, Files, Identity};
use crate::error::{Error, Result};
use crate::message::{Message, Origin};
use crate::options::Switch;
use crate::stream::Endpoint;
use crate::udp::Header;
use crate::unix::{Style, Unix, check_loops};
use alloc::boxed::Box;
use alloc::sync::Arc;
use bitflags::bitflags;
use core::net::{IpAddr, SocketAddr};
use machine::Frame;
use machine::io::{Sink, Source};
use smallvec::SmallVec;
use vfs::{Events, OpenFile};

bitflags! {
    /// `MSG_*` flags with their numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MsgFlags: u32 {
        /// Urgent data.
        const OOB = 0x1;
        /// Leave what is read in place.
        const PEEK = 0x2;
        /// Only to neighbours.
        const DONTROUTE = 0x4;
        /// Out: control data was cut off.
        const CTRUNC = 0x8;
        /// In: tell a message's real length. Out: it was cut off.
        const TRUNC = 0x20;
        /// Do not wait.
        const DONTWAIT = 0x40;
        /// A record ends here.
        const EOR = 0x80;
        /// Wait until the buffer is full.
        const WAITALL = 0x100;
        /// The neighbour is alive.
        const CONFIRM = 0x800;
        /// The queue of errors.
        const ERRQUEUE = 0x2000;
        /// No `SIGPIPE`.
        const NOSIGNAL = 0x4000;
        /// More follows at once.
        const MORE = 0x8000;
        /// `recvmmsg`: wait for the first message only.
        const WAITFORONE = 0x1_0000;
        /// Descriptors that arrive are closed on `execve`.
        const CMSG_CLOEXEC = 0x4000_0000;
        const _ = !0;
    }
}

/// What goes with the bytes of a send.
#[derive(Default)]
pub struct Outgoing {
    /// Where to.
    pub to: Option<Address>,
    /// Files (`SCM_RIGHTS`).
    pub files: SmallVec<[Arc<OpenFile>; 4]>,
    /// Who sends (`SCM_CREDENTIALS`); the caller has checked that he may say so.
    pub sender: Option<Identity>,
    /// Fields of a datagram's header (`IP_TTL`, `IPV6_TCLASS` and the like).
    pub header: Header,
}

/// What a receive gave beside bytes.
#[derive(Default)]
pub struct Received {
    /// Bytes put into the sink.
    pub bytes: usize,
    /// Bytes the message had.
    pub full: usize,
    /// Who sent it.
    pub from: Option<Address>,
    /// Files that came with it.
    pub files: SmallVec<[Arc<OpenFile>; 4]>,
    /// The sender, if the socket wants to know (`SO_PASSCRED`).
    pub sender: Option<Identity>,
    /// When it arrived, in nanoseconds since 1970, if the socket wants to know.
    pub time: Option<i64>,
    /// Our address it was sent to, its time to live and type of service.
    pub packet: Option<(IpAddr, u8, u8)>,
    /// It is one whole record (`MSG_EOR`).
    pub record: bool,
}

const READ_READY: Events = Events::READABLE.union(Events::ALWAYS);
const WRITE_READY: Events = Events::WRITABLE.union(Events::ALWAYS);

impl Socket {
    /// Receives bytes only: what `read` does.
    #[inline]
    pub(super) fn receive_bytes(&self, sink: &mut Sink<'_>, nonblocking: bool) -> Result<usize> {
        if let Kind::Tcp(t) = &self.kind
            && let Ok(link) = t.link()
        {
            let n = self.read_stream(&link.endpoint, sink, nonblocking)?;
            link.drained();
            return Ok(n);
        }
        if let Kind::Unix(u) = &self.kind
            && let Some(e) = u.stream()
        {
            return self.read_stream(e, sink, nonblocking);
        }
        self.receive(sink, MsgFlags::empty(), nonblocking)
            .map(|r| r.bytes)
    }

    #[inline]
    fn read_stream(&self, e: &Endpoint, sink: &mut Sink<'_>, nonblocking: bool) -> Result<usize> {
        loop {
            match e.read(sink) {
                Err(Error::WOULD_BLOCK) if !nonblocking => {}
                other => return other.map(|t| t.bytes),
            }
            let ready = || e.poll().intersects(READ_READY).then_some(());
            self.wait(true, self.receive_until(), ready)?;
        }
    }

    /// Receives (recvmsg(2)), waiting unless `nonblocking` or the flags say not to.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`], [`Error::NotConnected`], a pending error, a fault.
    pub fn receive(
        &self,
        sink: &mut Sink<'_>,
        flags: MsgFlags,
        nonblocking: bool,
    ) -> Result<Received> {
        let nonblocking = nonblocking || flags.contains(MsgFlags::DONTWAIT);
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Error::WOULD_BLOCK);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Error::INVALID);
        }
        match &self.kind {
            Kind::Tcp(t) => loop {
                match t.link() {
                    Ok(link) => {
                        let r = self.receive_stream(&link.endpoint, sink, flags, nonblocking);
                        link.drained();
                        return r;
                    }
                    Err(Error::WOULD_BLOCK) if !nonblocking => {}
                    Err(e) => {
                        t.pending()?;
                        return Err(e);
                    }
                }
                let ready = || (!matches!(t.link(), Err(Error::WOULD_BLOCK))).then_some(());
                self.wait(false, self.receive_until(), ready)?;
            },
            Kind::Unix(u) => match u.stream() {
                Some(e) => {
                    let mut r = self.receive_stream(e, sink, flags, nonblocking)?;
                    self.add_sender(u, &mut r);
                    Ok(r)
                }
                None => {
                    let get = |peek| match (u.packets(), u.inbox()) {
                        (Some(e), _) => e.receive(peek),
                        (None, Some(inbox)) => inbox.receive(peek),
                        (None, None) => Err(Error::NotConnected),
                    };
                    let mut r = self.receive_message(sink, flags, nonblocking, get)?;
                    r.record = u.style() == Style::Packets && r.full > 0;
                    self.add_sender(u, &mut r);
                    Ok(r)
                }
            },
            Kind::Udp(u) => self.receive_message(sink, flags, nonblocking, |peek| u.receive(peek)),
            Kind::Raw(u) => self.receive_message(sink, flags, nonblocking, |peek| u.receive(peek)),
            Kind::Packet(p) => {
                self.receive_message(sink, flags, nonblocking, |peek| p.receive(peek))
            }
            Kind::Netlink(n) => self.receive_message(sink, flags, nonblocking, |peek| {
                n.receive(&self.stack, peek)
            }),
        }
    }

    /// A stream's peer is its sender, whoever wrote.
    fn add_sender(&self, u: &Unix, r: &mut Received) {
        if !self.options.on(Switch::PassCred) {
            r.sender = None;
        } else if r.sender.is_none() {
            r.sender = Some(u.peer_identity().unwrap_or_default());
        }
    }

    fn receive_stream(
        &self,
        e: &Endpoint,
        sink: &mut Sink<'_>,
        flags: MsgFlags,
        nonblocking: bool,
    ) -> Result<Received> {
        let mut r = Received::default();
        let until = self.receive_until();
        let all = flags.contains(MsgFlags::WAITALL);
        // MSG_TRUNC on a stream throws bytes away (tcp(7)); they still have to be
        // read, which is what the caller's buffer is for.
        loop {
            let step = if flags.contains(MsgFlags::PEEK) {
                e.peek(sink).map(|n| (n, None))
            } else {
                e.read(sink).map(|t| (t.bytes, t.note))
            };
            match step {
                Ok((n, note)) => {
                    r.bytes += n;
                    let carried = note.is_some();
                    if let Some(note) = note {
                        land(*note, &mut r);
                    }
                    let enough = !all || flags.contains(MsgFlags::PEEK) || carried;
                    if n == 0 || sink.left() == 0 || enough {
                        break;
                    }
                }
                Err(Error::WOULD_BLOCK) if r.bytes > 0 && (nonblocking || !all) => break,
                Err(Error::WOULD_BLOCK) if !nonblocking => {
                    let ready = || e.poll().intersects(READ_READY).then_some(());
                    match self.wait(true, until, ready) {
                        Err(_) if r.bytes > 0 => break,
                        other => other?,
                    }
                }
                Err(_) if r.bytes > 0 => break,
                Err(e) => return Err(e),
            }
        }
        r.full = r.bytes;
        Ok(r)
    }

    fn receive_message(
        &self,
        sink: &mut Sink<'_>,
        flags: MsgFlags,
        nonblocking: bool,
        get: impl Fn(bool) -> Result<Option<Message>>,
    ) -> Result<Received> {
        let until = self.receive_until();
        let message = loop {
            match get(flags.contains(MsgFlags::PEEK)) {
                Err(Error::WOULD_BLOCK) if !nonblocking => {}
                other => break other?,
            }
            let ready = || self.readiness().intersects(READ_READY).then_some(());
            self.wait(true, until, ready)?;
        };
        let mut r = Received::default();
        let Some(m) = message else { return Ok(r) };
        r.full = m.data.len();
        r.time = Some(m.time).filter(|time| *time != 0);
        let fits = m.data.len().min(sink.left());
        r.bytes = sink.put(m.data.get(..fits).unwrap_or(&[]))?;
        match m.origin {
            Origin::Peer => r.from = self.remote().ok(),
            Origin::Hardware(from) => r.from = Some(Address::Hardware(from)),
            Origin::Unix(name) => r.from = Some(Address::Unix(name)),
            Origin::Inet { from, to, ttl, tos } => {
                r.from = Some(Address::Inet(from));
                r.packet = Some((to, ttl, tos));
            }
        }
        // A sender without a name has no address here, not an empty one.
        r.from
            .take_if(|from| matches!(from, Address::Unix(UnixName::Unnamed)));
        if let Some(note) = m.note {
            land(*note, &mut r);
        }
        Ok(r)
    }

    /// Sends (sendmsg(2)), waiting for room unless `nonblocking` or the flags say
    /// not to. A stream's bytes that went before an error count.
    ///
    /// # Errors
    /// [`Error::BROKEN_PIPE`], [`Error::WOULD_BLOCK`], [`Error::MessageSize`],
    /// [`Error::NotConnected`], [`Error::DestinationRequired`].
    pub fn send(
        &self,
        src: &mut Source<'_>,
        what: Outgoing,
        flags: MsgFlags,
        nonblocking: bool,
    ) -> Result<usize> {
        let nonblocking = nonblocking || flags.contains(MsgFlags::DONTWAIT);
        if flags.contains(MsgFlags::OOB) {
            return Err(Error::NotSupported);
        }
        match &self.kind {
            Kind::Tcp(t) => {
                let link = self.connected(t, nonblocking)?;
                link.expect_more(flags.contains(MsgFlags::MORE));
                self.send_stream(&link.endpoint, src, None, nonblocking, || link.kick())
            }
            Kind::Unix(u) => self.send_unix(u, src, what, nonblocking),
            Kind::Udp(u) => {
                let to = inet(what.to.as_ref())?;
                if src.left() > crate::udp::DATAGRAM_MAX {
                    return Err(Error::MessageSize);
                }
                let message = Message::from_source(src)?;
                let more = flags.contains(MsgFlags::MORE);
                if !more && !u.is_joining() {
                    return u.send(&self.stack, &self.options, to, what.header, message);
                }
                let len = message.data.len();
                match u.join(&self.stack, (to, what.header, message), more)? {
                    None => Ok(len),
                    Some((to, header, whole)) => u
                        .send(&self.stack, &self.options, to, header, whole)
                        .map(|_| len),
                }
            }
            Kind::Raw(r) => {
                let to = inet(what.to.as_ref())?;
                if src.left() > crate::raw::PACKET_MAX {
                    return Err(Error::MessageSize);
                }
                let data = Message::from_source(src)?.data;
                r.send(&self.stack, &self.options, to, what.header, data)
            }
            Kind::Packet(p) => {
                let to = match &what.to {
                    None => None,
                    Some(Address::Hardware(to)) => Some(to),
                    Some(_) => return Err(Error::INVALID),
                };
                if src.left() > crate::udp::DATAGRAM_MAX {
                    return Err(Error::MessageSize);
                }
                p.send(&self.stack, to, &Message::from_source(src)?.data)
            }
            Kind::Netlink(n) => {
                if src.left() > self.options.sndbuf() {
                    return Err(Error::MessageSize);
                }
                let message = Message::from_source(src)?;
                let len = message.data.len();
                n.request(&self.stack, &message.data)?;
                self.hub.notify(Events::READABLE);
                Ok(len)
            }
        }
    }

    /// The connection of a TCP socket, once it is made.
    fn connected<'a>(
        &self,
        t: &'a crate::tcp::Tcp,
        nonblocking: bool,
    ) -> Result<crate::tcp::Link<'a>> {
        loop {
            match t.link() {
                Ok(link) => return Ok(link),
                Err(Error::NotConnected) => {
                    t.pending()?;
                    return Err(Error::BROKEN_PIPE);
                }
                Err(Error::WOULD_BLOCK) if !nonblocking => {}
                Err(e) => return Err(e),
            }
            let ready = || (!matches!(t.link(), Err(Error::WOULD_BLOCK))).then_some(());
            self.wait(false, self.send_until(), ready)?;
        }
    }

    #[inline]
    fn send_stream(
        &self,
        e: &Endpoint,
        src: &mut Source<'_>,
        mut note: Option<Box<Ancillary>>,
        nonblocking: bool,
        mut sent: impl FnMut(),
    ) -> Result<usize> {
        let mut done = 0;
        loop {
            let step = e.write(src, &mut note);
            match step {
                Ok(n) => {
                    done += n;
                    sent();
                    if src.left() == 0 {
                        return Ok(done);
                    }
                    // What is left found no room: go round and wait.
                    machine::thread::cond_resched();
                    continue;
                }
                Err(Error::WOULD_BLOCK) if nonblocking && done > 0 => return Ok(done),
                Err(Error::WOULD_BLOCK) if !nonblocking => {}
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
            let ready = || e.poll().intersects(WRITE_READY).then_some(());
            match self.wait(false, self.send_until(), ready) {
                Err(_) if done > 0 => return Ok(done),
                other => other?,
            }
        }
    }

    fn send_unix(
        &self,
        u: &Unix,
        src: &mut Source<'_>,
        what: Outgoing,
        nonblocking: bool,
    ) -> Result<usize> {
        let to = match &what.to {
            None | Some(Address::Unspecified) => None,
            Some(Address::Unix(name)) => Some(name),
            Some(_) => return Err(Error::INVALID),
        };
        let mark = match u.style() {
            Style::Datagrams => u.target_mark(&self.stack, to),
            Style::Stream | Style::Packets => u.outgoing_mark(),
        };
        let listed = what.files.clone();
        let note = self.note(what.files, what.sender)?;
        check_loops(&listed, mark, || match u.style() {
            Style::Stream => {
                let e = u.stream().ok_or(Error::NotConnected)?;
                if to.is_some() {
                    return Err(Error::IsConnected);
                }
                self.send_stream(e, src, note, nonblocking, || {})
            }
            Style::Packets => {
                let e = u.packets().ok_or(Error::NotConnected)?;
                self.send_packet(e, src, note, nonblocking)
            }
            Style::Datagrams => {
                if src.left() > self.options.sndbuf() {
                    return Err(Error::MessageSize);
                }
                let mut message = Message::from_source(src)?;
                message.note = note;
                let until = (!nonblocking).then(|| self.send_until());
                u.send_datagram(&self.stack, to, message, until)
            }
        })
    }

    fn send_packet(
        &self,
        e: &Endpoint<crate::message::MessageQueue>,
        src: &mut Source<'_>,
        note: Option<Box<Ancillary>>,
        nonblocking: bool,
    ) -> Result<usize> {
        if src.left() > self.options.sndbuf() {
            return Err(Error::MessageSize);
        }
        let mut message = Message::from_source(src)?;
        message.note = note;
        let len = message.data.len();
        loop {
            match e.send(message) {
                Ok(()) => return Ok(len),
                Err((Error::WOULD_BLOCK, back)) if !nonblocking => message = back,
                Err((error, _)) => return Err(error),
            }
            let ready = || e.poll().intersects(WRITE_READY).then_some(());
            self.wait(false, self.send_until(), ready)?;
        }
    }

    fn note(
        &self,
        files: SmallVec<[Arc<OpenFile>; 4]>,
        sender: Option<Identity>,
    ) -> Result<Option<Box<Ancillary>>> {
        let files = if files.is_empty() {
            None
        } else {
            Some(Files::new(files, self.stack.in_flight())?)
        };
        let note = Ancillary { files, sender };
        Ok((!note.is_empty()).then(|| Box::new(note)))
    }

    /// Sends part of a frame without copying it (`sendfile`), waiting for room
    /// unless `nonblocking`.
    ///
    /// # Errors
    /// As [`Socket::send`]; [`Error::INVALID`] for sockets that are no streams.
    pub fn send_frame(
        &self,
        frame: &Frame,
        start: usize,
        len: usize,
        nonblocking: bool,
    ) -> Result<usize> {
        let link = match &self.kind {
            Kind::Tcp(t) => {
                let link = self.connected(t, nonblocking)?;
                link.expect_more(false);
                Some(link)
            }
            _ => None,
        };
        let e = match (&link, &self.kind) {
            (Some(link), _) => &link.endpoint,
            (None, Kind::Unix(u)) => u.stream().ok_or(Error::INVALID)?,
            _ => return Err(Error::INVALID),
        };
        loop {
            match e.write_frame(frame, start, len) {
                Err(Error::WOULD_BLOCK) if !nonblocking => {}
                other => {
                    if let Some(link) = &link {
                        link.kick();
                    }
                    return other;
                }
            }
            let ready = || e.poll().intersects(WRITE_READY).then_some(());
            self.wait(false, self.send_until(), ready)?;
        }
    }
}

fn land(note: Ancillary, r: &mut Received) {
    if let Some(files) = note.files {
        r.files.extend(files.take());
    }
    r.sender = note.sender.or(r.sender);
}

fn inet(to: Option<&Address>) -> Result<Option<SocketAddr>> {
    match to {
        None | Some(Address::Unspecified) => Ok(None),
        Some(Address::Inet(a)) => Ok(Some(*a)),
        Some(_) => Err(Error::INVALID),
    }
}
