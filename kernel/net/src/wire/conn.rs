//! One connection over the wire.

mod info;

pub use info::Info;

use super::engine::{Engine, Port, clock};
use super::meter::Meter;
use super::sender::{Room, Sender};
use super::settings::{DATA_TIMEOUT, apply, timeout};
use super::sockets::{SocketPool, WireSocket};
use super::{Flow, limit, open::Handshake};
use crate::error::Error;
use crate::node::NetNode;
use crate::options::{Options, Switch};
use crate::ring::Ring;
use crate::stream::{Endpoint, Phase};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;
use machine::io::{Sink, Source};
use machine::sync::SpinLock;
use machine::time::Instant;
use smoltcp::iface::{Interface, PollResult};
use smoltcp::socket::tcp::{self, State};
use vfs::Events;

/// How long a connection whose program is gone waits for the peer's FIN.
const ORPHAN: Duration = Duration::from_secs(60);
/// Segments sent in one go before others get a chance.
const BURST: usize = 64;

/// A connection over the wire.
pub struct Conn {
    id: u64,
    me: Weak<Conn>,
    node: Arc<NetNode>,
    pool: Arc<SocketPool>,
    /// Whose it is.
    pub(crate) stack: u64,
    pub(super) flow: Flow,
    /// The engine's side of the rings.
    pub(super) wire: Endpoint,
    core: SpinLock<Core>,
    /// The program has said that more follows at once (`MSG_MORE`): until it sends that,
    /// the connection is as corked.
    pub(super) more: AtomicBool,
    /// Received bytes found no room in the ring.
    stalled: AtomicBool,
    /// When the timer's entry is due, `u64::MAX` for none.
    due: AtomicU64,
}

struct Core {
    /// None once the connection is over.
    socket: Option<WireSocket>,
    /// The accepting side, until the handshake is complete.
    handshake: Option<Handshake>,
    fin_queued: bool,
    aborting: bool,
    /// `TCP_CORK`: only whole segments leave.
    corked: bool,
    /// Until when less than a segment is held back by that.
    held_until: Option<Instant>,
    orphan_until: Option<Instant>,
    /// The engine's time limit while it has none, because nothing is to be acknowledged.
    lifted: Option<limit::Lifted>,
    /// Sequence and acknowledgement number of the last segment sent.
    last: (u32, u32),
    /// Packets came in that [`Conn::answer`] is to answer.
    has_heard: bool,
    meter: Meter,
}

/// What moved in one run.
#[derive(Default)]
struct Moved {
    /// Bytes for the program.
    arrived: bool,
    /// Room for the program.
    room: bool,
    /// Bytes from the network, and bytes for it.
    received: usize,
    taken: usize,
}

impl Conn {
    /// A connection that runs `socket`, and is not known to anybody yet.
    pub(super) fn new(
        node: Arc<NetNode>,
        pool: Arc<SocketPool>,
        stack: u64,
        flow: Flow,
        wire: Endpoint,
        socket: WireSocket,
    ) -> Arc<Conn> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new_cyclic(|me| Conn {
            id: NEXT.fetch_add(1, Relaxed),
            me: me.clone(),
            node,
            pool,
            stack,
            flow,
            wire,
            core: SpinLock::new(Core {
                socket: Some(socket),
                handshake: None,
                fin_queued: false,
                aborting: false,
                corked: false,
                held_until: None,
                lifted: None,
                orphan_until: None,
                last: (0, 0),
                has_heard: false,
                meter: Meter::default(),
            }),
            more: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            due: AtomicU64::new(u64::MAX),
        })
    }

    /// Its addresses on the wire.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// A packet of this connection came in.
    pub(crate) fn input(&self, packet: &[u8]) {
        self.run(&mut self.core.lock(), Some(packet), None);
    }

    /// A packet of this connection came in that only acknowledges or carries bytes. Whether it
    /// is the first one that waits for [`Conn::answer`].
    pub(super) fn hear(&self, packet: &[u8]) -> bool {
        let core = &mut *self.core.lock();
        let is_open = core.socket.as_mut().is_some_and(WireSocket::is_open);
        if !is_open || core.handshake.is_some() {
            self.run(core, Some(packet), None);
            return false;
        }
        let (Some(engines), Some(socket)) = (self.node.engines(), &mut core.socket) else {
            return false;
        };
        let mut engine = engines.here();
        let Engine { iface, room } = &mut *engine;
        core.meter.heard(packet);
        let mut port = self.port(Some(packet), room);
        port.out.meter = Some(&mut core.meter);
        iface.poll_ingress_single(clock(Instant::now()), &mut port, &mut socket.set);
        let sent = port.out.finish();
        drop(engine);
        // Only what is out of order is answered at once.
        if sent.count > 0 {
            self.node.flush();
        }
        core.last = sent.last.unwrap_or(core.last);
        !core::mem::replace(&mut core.has_heard, true)
    }

    /// Answers the packets that came in, unless that has been done meanwhile.
    pub(super) fn answer(&self) {
        let mut core = self.core.lock();
        if core.has_heard {
            self.run(&mut core, None, None);
        }
    }

    /// The link during one poll.
    fn port<'a>(&'a self, incoming: Option<&'a [u8]>, room: &'a mut Room) -> Port<'a> {
        Port {
            incoming,
            out: Sender::new(&self.node, self.flow.remote.ip(), room),
        }
    }

    /// The first packet of a connection that others open, or none for one that we
    /// open: the initial sequence number comes from a fresh interface.
    pub(super) fn begin(
        &self,
        packet: Option<&[u8]>,
        handshake: Option<Handshake>,
        mut fresh: Interface,
    ) {
        let mut core = self.core.lock();
        // The capsule may have ended meanwhile. A connection that is over must not refer to
        // itself by what would have been accepted.
        if core.socket.is_some() {
            core.handshake = handshake;
            self.run(&mut core, packet, Some(&mut fresh));
        }
    }

    /// The program wrote something or shut an end.
    pub fn kick(&self) {
        self.run(&mut self.core.lock(), None, None);
    }

    /// The program read something.
    #[inline]
    pub fn drained(&self) {
        if self.stalled.load(Acquire) && self.wire.outgoing().is_roomy() {
            self.kick();
        }
    }

    /// The link has room again.
    pub(super) fn unblocked(&self) {
        self.kick();
    }

    /// The timer's entry for `at` is due.
    pub(super) fn timer(&self, at: Instant) {
        // An entry that was moved meanwhile is not ours any more.
        if self
            .due
            .compare_exchange(at.0, u64::MAX, AcqRel, Acquire)
            .is_ok()
        {
            self.kick();
        }
    }

    /// Resets the connection.
    pub fn abort(&self) {
        let mut core = self.core.lock();
        self.abort_locked(&mut core);
    }

    fn abort_locked(&self, core: &mut Core) {
        core.aborting = true;
        if let Some(s) = &mut core.socket {
            s.tcp().abort();
        }
        self.run(core, None, None);
    }

    /// There were too many handshakes: forgets this one if it is not complete.
    /// Whether it was not.
    pub(super) fn give_up_handshake(&self) -> bool {
        let mut core = self.core.lock();
        let pending = core.handshake.is_some();
        if pending {
            self.finish(&mut core);
        }
        pending
    }

    /// Whether it is not complete.
    pub(super) fn is_handshaking(&self) -> bool {
        self.core.lock().handshake.is_some()
    }

    /// An ICMP message says that a packet did not arrive. Only an attempt to
    /// connect ends by it; an established connection goes on trying (RFC 5461).
    pub(crate) fn undelivered(&self, refused: bool) {
        if self.wire.phase() == Phase::Connecting {
            self.fail(if refused {
                Error::Refused
            } else {
                Error::HostUnreachable
            });
        }
    }

    /// The next hop does not answer.
    pub(super) fn no_route(&self) {
        self.undelivered(false);
    }

    fn fail(&self, error: Error) {
        let mut core = self.core.lock();
        self.over(&mut core, error);
    }

    /// Takes over the options that the engine looks at.
    pub fn configure(&self, options: &Options) {
        let mut core = self.core.lock();
        core.corked = options.on(Switch::Cork);
        let Some(s) = &mut core.socket else { return };
        apply(s.tcp(), options, self.wire.phase() == Phase::Connecting);
        self.run(&mut core, None, None);
    }

    /// Runs the engine: a packet in, bytes between rings and buffers, segments
    /// out, and then what that changed.
    fn run(&self, core: &mut Core, packet: Option<&[u8]>, fresh: Option<&mut Interface>) {
        let Some(engines) = self.node.engines() else {
            return;
        };
        let Some(socket) = &mut core.socket else {
            return;
        };
        core.has_heard = false;
        let now = Instant::now();
        let at = clock(now);
        let before = socket.tcp().state();
        let mut moved = Moved::default();
        let mut engine = engines.here();
        let Engine { iface, room } = &mut *engine;
        let iface = fresh.unwrap_or(iface);
        if let Some(packet) = packet {
            core.meter.heard(packet);
        }
        let mut port = self.port(packet, room);
        port.out.meter = Some(&mut core.meter);
        if packet.is_some() {
            iface.poll_ingress_single(at, &mut port, &mut socket.set);
        }
        self.move_in(socket.tcp(), &mut moved);
        let corked = core.corked || self.more.load(Relaxed);
        let may_leave = match corked {
            true => self.uncorked(&mut core.held_until, port.out.mtu(), now),
            false => usize::MAX,
        };
        core.fin_queued |= self.move_out(socket.tcp(), core.fin_queued, may_leave, &mut moved);
        limit::renew(socket.tcp(), &mut core.lifted, at);
        let more = loop {
            let result = iface.poll_egress(at, &mut port, &mut socket.set);
            if result == PollResult::None || port.out.sent.blocked {
                break false;
            }
            if port.out.sent.count >= BURST {
                break true;
            }
        };
        let due = iface.poll_at(at, &socket.set);
        let sent = port.out.finish();
        drop(engine);
        if sent.count > 0 {
            self.node.flush();
        }
        core.last = sent.last.unwrap_or(core.last);
        core.meter.figures.bytes_received += moved.received as u64;
        core.meter.figures.bytes_taken += moved.taken as u64;
        if moved.arrived {
            self.wire.notify_peer(Events::READABLE);
        }
        if moved.room {
            self.wire.notify_peer(Events::WRITABLE);
        }
        let blocked = sent.blocked;
        self.react(core, before, packet.is_some(), now);
        if core.socket.is_none() {
            return;
        }
        let is_told = blocked && self.wait_for_link();
        let due = match due {
            Some(_) if is_told => None,
            Some(_) if blocked => Some(now.after(Duration::from_millis(1))),
            Some(_) if more => Some(now),
            // Due now although the engine has just run: it waits for a moment of
            // its own clock, which counts milliseconds.
            Some(d) if d <= at => Some(now.after(Duration::from_millis(1))),
            Some(d) => Some(now.after(Duration::from_micros((d - at).total_micros()))),
            None => None,
        };
        let held = core.held_until.filter(|_| corked);
        self.arm(earlier(earlier(due, held), core.orphan_until));
    }

    /// Waits for room on the link; whether somebody will tell of it. Room that came
    /// between the engine's look and the entry in the list was told of already.
    fn wait_for_link(&self) -> bool {
        let is_listed = self.node.flows.wait_for_link(self.me.clone());
        is_listed && self.node.link().is_none_or(|link| link.room() == 0)
    }

    /// Received bytes go to the program's ring.
    fn move_in(&self, t: &mut tcp::Socket<'_>, moved: &mut Moved) {
        if t.recv_queue() == 0 {
            return;
        }
        let ring = self.wire.outgoing();
        if self.wire.is_peer_gone() {
            // Nobody will ever read this: RFC 2525, 2.17.
            t.abort();
            return;
        }
        let discard = self.wire.is_peer_deaf();
        if matches!(t.state(), State::TimeWait | State::Closed) {
            // The engine is about to go: what it holds must fit.
            ring.set_capacity(ring.capacity().saturating_add(t.recv_queue()));
        }
        while t.can_recv() {
            let took = t.recv(|bytes| {
                let n = if discard {
                    bytes.len()
                } else {
                    put(ring, bytes)
                };
                (n, n)
            });
            match took {
                Ok(n) if n > 0 => {
                    moved.arrived |= !discard;
                    moved.received += n;
                }
                _ => break,
            }
        }
        self.stalled.store(t.recv_queue() > 0, Release);
    }

    /// The program's bytes go to the engine, and its FIN after the last of them.
    /// Whether the FIN went.
    fn move_out(
        &self,
        t: &mut tcp::Socket<'_>,
        fin_queued: bool,
        mut may_leave: usize,
        moved: &mut Moved,
    ) -> bool {
        let ring = self.wire.incoming();
        let ends = self.wire.is_peer_done();
        let was_roomy = ring.is_roomy();
        while may_leave > 0 && !ring.is_empty() && t.can_send() {
            let took = t.send(|room| {
                let len = room.len().min(may_leave);
                let (room, _) = room.split_at_mut(len);
                let mut sink = Sink::kernel(room);
                let n = ring.read(&mut sink).map_or(0, |t| t.bytes);
                (n, n)
            });
            match took {
                Ok(n @ 1..) => {
                    may_leave -= n;
                    moved.taken += n;
                }
                _ => break,
            }
        }
        moved.room |= !was_roomy && ring.is_roomy();
        if ends && !fin_queued && ring.is_empty() {
            t.close();
            return true;
        }
        false
    }

    /// Tells the program what the run changed.
    fn react(&self, core: &mut Core, before: State, by_packet: bool, now: Instant) {
        let Some(socket) = &mut core.socket else {
            return;
        };
        let t = socket.tcp();
        let (state, unread) = (t.state(), t.recv_queue());
        match state {
            State::Closed => return self.closed(core, before, by_packet),
            // The packet was no SYN after all, or a reset took it back.
            State::Listen => return self.finish(core),
            State::SynSent | State::SynReceived => return,
            _ => {}
        }
        if core.handshake.is_some() {
            t.set_timeout(Some(timeout(DATA_TIMEOUT)));
            if !self.admit(core) {
                return self.abort_locked(core);
            }
        }
        if self.wire.phase() == Phase::Connecting {
            if let Some(s) = &mut core.socket {
                s.tcp().set_timeout(Some(timeout(DATA_TIMEOUT)));
            }
            self.wire.set_phase(Phase::Established);
            self.wire.notify_peer(Events::WRITABLE);
        }
        let fin = matches!(
            state,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if fin && unread == 0 {
            self.wire.shut_write();
        }
        if state == State::TimeWait {
            let (seq, ack) = core.last;
            self.node.flows.remember(self.flow, seq, ack);
            return self.finish(core);
        }
        if self.wire.is_peer_gone() {
            let until = *core.orphan_until.get_or_insert_with(|| now.after(ORPHAN));
            if state == State::FinWait2 && now >= until {
                self.finish(core);
            } else if now >= until {
                core.orphan_until = Some(now.after(ORPHAN));
            }
        }
    }

    /// The handshake is complete: the connection goes to the backlog. Whether
    /// there was room.
    fn admit(&self, core: &mut Core) -> bool {
        let Some(h) = core.handshake.take() else {
            return true;
        };
        h.complete()
    }

    fn closed(&self, core: &mut Core, before: State, by_packet: bool) {
        let error = match before {
            // Another thread may wait for it to be complete.
            _ if core.aborting && self.wire.phase() == Phase::Connecting => Some(Error::Aborted),
            _ if core.aborting => None,
            State::LastAck | State::Closing | State::TimeWait | State::Closed => None,
            State::SynSent if by_packet => Some(Error::Refused),
            State::CloseWait if by_packet => Some(Error::BROKEN_PIPE),
            _ if by_packet => Some(Error::Reset),
            // The program was gone and data came: the engine reset it itself.
            _ if self.wire.is_peer_gone() => None,
            _ => Some(Error::TIMED_OUT),
        };
        match error {
            Some(e) => self.over(core, e),
            None => {
                self.wire.hang_up();
                self.finish(core);
            }
        }
    }

    fn over(&self, core: &mut Core, error: Error) {
        if core.socket.is_none() {
            return;
        }
        // Whoever sees that it is over must find out why: the error comes first.
        self.wire.fail_peer(error);
        if self.wire.phase() == Phase::Connecting {
            self.wire.set_phase(Phase::Failed);
        }
        self.wire.hang_up();
        self.finish(core);
    }

    /// Lets go of everything but the rings.
    fn finish(&self, core: &mut Core) {
        core.handshake = None;
        if let Some(mut s) = core.socket.take() {
            s.tcp().abort();
            self.pool.give(s);
        }
        self.disarm();
        self.node.flows.remove(&self.flow, self);
    }

    fn arm(&self, due: Option<Instant>) {
        let Some(due) = due else { return };
        let old = self.due.load(Acquire);
        // An earlier entry is left: it finds nothing to do and arms this one.
        if old <= due.0 {
            return;
        }
        self.due.store(due.0, Release);
        let old = (old != u64::MAX).then_some(Instant(old));
        self.node.timers.set(self.id, &self.me, old, Some(due));
    }

    fn disarm(&self) {
        let old = self.due.swap(u64::MAX, AcqRel);
        if old != u64::MAX {
            let old = Some(Instant(old));
            self.node.timers.set(self.id, &self.me, old, None);
        }
    }
}

fn put(ring: &Ring, bytes: &[u8]) -> usize {
    ring.write(&mut Source::kernel(bytes), &mut None)
        .unwrap_or(0)
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
