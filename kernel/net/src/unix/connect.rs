//! Making unix sockets and connecting them.

use super::datagram::Inbox;
use super::names::Target;
use super::{Connected, Link, Listener, Listening, Style, Unix};
use crate::addr::UnixName;
use crate::ancillary::Identity;
use crate::error::{Error, Result};
use crate::listener::AcceptQueue;
use crate::message::MessageQueue;
use crate::options::Options;
use crate::ring::Ring;
use crate::stack::NetStack;
use crate::stream::{Channel, Endpoint, Manners, Pair};
use alloc::sync::Arc;
use machine::sync::{Once, SpinLock};
use machine::wait::Until;
use vfs::PollHub;

/// What a connection is made for: the two kinds of channel differ only here.
trait Wire: Channel + Sized {
    fn pair(
        stack: &NetStack,
        hubs: [Arc<PollHub>; 2],
        sizes: [usize; 2],
    ) -> (Endpoint<Self>, Endpoint<Self>);
    fn connected(link: Link<Self>) -> Connected;
    fn listening(target: &Listener) -> Option<&Arc<Listening<Self>>>;
}

impl Wire for Ring {
    fn pair(stack: &NetStack, hubs: [Arc<PollHub>; 2], sizes: [usize; 2]) -> (Endpoint, Endpoint) {
        let pool = stack.pool();
        Pair::connect(Manners::Unix, hubs, [pool, pool], sizes)
    }

    fn connected(link: Link<Ring>) -> Connected {
        Connected::Stream(link)
    }

    fn listening(target: &Listener) -> Option<&Arc<Listening<Ring>>> {
        match target {
            Listener::Stream(l) => Some(l),
            Listener::Packets(_) => None,
        }
    }
}

impl Wire for MessageQueue {
    fn pair(
        stack: &NetStack,
        hubs: [Arc<PollHub>; 2],
        sizes: [usize; 2],
    ) -> (Endpoint<Self>, Endpoint<Self>) {
        Pair::connect_messages(hubs, stack.account(), sizes)
    }

    fn connected(link: Link<Self>) -> Connected {
        Connected::Packets(link)
    }

    fn listening(target: &Listener) -> Option<&Arc<Listening<Self>>> {
        match target {
            Listener::Packets(l) => Some(l),
            Listener::Stream(_) => None,
        }
    }
}

/// What a socket of this room is made of before it becomes one.
pub struct Accepted {
    /// The new socket's state.
    pub(crate) unix: Unix,
    /// The hub that its connection tells.
    pub(crate) hub: Arc<PollHub>,
    /// The address of the other side.
    pub peer: UnixName,
}

impl Unix {
    /// A new socket whose news go to `hub`.
    #[must_use]
    pub fn new(style: Style, stack: &NetStack, hub: &Arc<PollHub>) -> Unix {
        let inbox = (style == Style::Datagrams).then(|| Inbox::new(stack, hub.clone()));
        Unix {
            style,
            connected: Once::new(),
            listener: Once::new(),
            held: SpinLock::new(None),
            inbox,
            peer: SpinLock::new(None),
        }
    }

    /// Two sockets connected to each other (`socketpair`).
    #[must_use]
    pub fn pair(style: Style, stack: &NetStack, who: Identity) -> [(Unix, Arc<PollHub>); 2] {
        let hubs = [(); 2].map(|()| Arc::new(PollHub::new()));
        let [a, b] = [&hubs[0], &hubs[1]].map(|h| Unix::new(style, stack, h));
        let sizes = [crate::options::BUFFER_DEFAULT; 2];
        match style {
            Style::Stream => join_pair::<Ring>(&a, &b, stack, &hubs, sizes, who),
            Style::Packets => join_pair::<MessageQueue>(&a, &b, stack, &hubs, sizes, who),
            Style::Datagrams => {
                a.set_peer(b.inbox.as_ref(), UnixName::Unnamed);
                b.set_peer(a.inbox.as_ref(), UnixName::Unnamed);
            }
        }
        let [ha, hb] = hubs;
        [(a, ha), (b, hb)]
    }

    /// Binds it to a name; an empty one asks for any abstract name.
    ///
    /// # Errors
    /// [`Error::INVALID`] if it has a name, [`Error::AddressInUse`].
    pub fn bind(&self, stack: &NetStack, name: UnixName) -> Result<()> {
        let mut held = self.held.lock();
        if held.is_some() {
            return Err(Error::INVALID);
        }
        let target = match (&self.inbox, self.listener.get()) {
            (Some(inbox), _) => Target::Inbox(Arc::downgrade(inbox)),
            (None, Some(l)) => Target::Listener(l.clone()),
            (None, None) => Target::Silent,
        };
        *held = Some(if name == UnixName::Unnamed {
            stack.names().hold_any(&target)?
        } else {
            stack.names().hold(name, target)?
        });
        if let (Some(inbox), Some(h)) = (&self.inbox, held.as_ref()) {
            inbox.set_name(h.name().clone());
        }
        Ok(())
    }

    /// Lets others connect to it (`listen`).
    ///
    /// # Errors
    /// [`Error::INVALID`] without a name or when connected,
    /// [`Error::NotSupported`] for datagrams.
    pub fn listen(&self, hub: &Arc<PollHub>, backlog: usize, owner: Identity) -> Result<()> {
        if self.style == Style::Datagrams {
            return Err(Error::NotSupported);
        }
        let held = self.held.lock();
        let held = held.as_ref().ok_or(Error::INVALID)?;
        if self.connected.is_completed() {
            return Err(Error::INVALID);
        }
        fn new<C: Channel>(
            hub: &Arc<PollHub>,
            backlog: usize,
            owner: Identity,
            name: &UnixName,
        ) -> Arc<Listening<C>> {
            Arc::new(Listening {
                queue: AcceptQueue::new(hub.clone(), backlog),
                owner,
                name: name.clone(),
            })
        }
        let listener = self.listener.call_once(|| match self.style {
            Style::Packets => Listener::Packets(new(hub, backlog, owner, held.name())),
            _ => Listener::Stream(new(hub, backlog, owner, held.name())),
        });
        match listener {
            Listener::Stream(l) => l.queue.set_backlog(backlog),
            Listener::Packets(l) => l.queue.set_backlog(backlog),
        }
        held.set_target(Target::Listener(listener.clone()));
        Ok(())
    }

    /// Connects it to whoever is bound to `name`.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::WrongType`], [`Error::IsConnected`],
    /// [`Error::WOULD_BLOCK`] if the backlog is full and it must not wait.
    pub fn connect(
        &self,
        stack: &NetStack,
        hub: &Arc<PollHub>,
        name: &UnixName,
        who: Identity,
        options: &Options,
        nonblocking: bool,
    ) -> Result<()> {
        match self.style {
            Style::Stream => self.connect_as::<Ring>(stack, hub, name, who, options, nonblocking),
            Style::Packets => {
                self.connect_as::<MessageQueue>(stack, hub, name, who, options, nonblocking)
            }
            Style::Datagrams => self.connect_datagrams(stack, name),
        }
    }

    fn connect_as<C: Wire>(
        &self,
        stack: &NetStack,
        hub: &Arc<PollHub>,
        name: &UnixName,
        who: Identity,
        options: &Options,
        nonblocking: bool,
    ) -> Result<()> {
        if self.connected.is_completed() {
            return Err(Error::IsConnected);
        }
        if self.is_listening() {
            return Err(Error::INVALID);
        }
        let target = match stack.names().find(name)? {
            Target::Listener(l) => l,
            Target::Inbox(_) => return Err(Error::WrongType),
            Target::Silent => return Err(Error::Refused),
        };
        let listening = C::listening(&target).ok_or(Error::WrongType)?;
        let until = machine::time::Instant::now();
        let until = Options::timeout(&options.send_timeout).map(|t| until.after(t));
        let own_name = self.name();
        let (mine, theirs) = C::pair(
            stack,
            [hub.clone(), Arc::new(PollHub::new())],
            [options.sndbuf(), crate::options::BUFFER_DEFAULT],
        );
        let mut theirs = Link {
            endpoint: theirs,
            peer: who,
            peer_name: own_name.clone(),
            name: listening.name.clone(),
        };
        // The connection exists before it is offered: the first thing an acceptor
        // does may be to write.
        loop {
            match listening.queue.offer(theirs, false) {
                Ok(_) => break,
                Err(_) if listening.queue.is_closed() => return Err(Error::Refused),
                Err(_) if nonblocking => return Err(Error::WOULD_BLOCK),
                Err(back) => theirs = back,
            }
            match listening.queue.wait_room(Until::deadline(until)) {
                Err(Error::File(vfs::Error::TimedOut)) => return Err(Error::WOULD_BLOCK),
                other => other?,
            }
        }
        let mut fresh = false;
        self.connected.call_once(|| {
            fresh = true;
            C::connected(Link {
                endpoint: mine.clone(),
                peer: listening.owner,
                peer_name: listening.name.clone(),
                name: own_name,
            })
        });
        if !fresh {
            // Another thread connected the same socket meanwhile.
            mine.close(false);
            return Err(Error::IsConnected);
        }
        Ok(())
    }

    /// Takes the next connection without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`], [`Error::INVALID`] if it does not listen.
    pub fn accept(&self) -> Result<Accepted> {
        fn take<C: Wire>(l: &Listening<C>) -> Result<(Connected, Arc<PollHub>, UnixName)> {
            match l.queue.accept() {
                Some(link) => {
                    let hub = link.endpoint.hub().clone();
                    let peer = link.peer_name.clone();
                    Ok((C::connected(link), hub, peer))
                }
                None if l.queue.is_closed() => Err(Error::INVALID),
                None => Err(Error::WOULD_BLOCK),
            }
        }
        let (connected, hub, peer) = match self.listener.get().ok_or(Error::INVALID)? {
            Listener::Stream(l) => take(l)?,
            Listener::Packets(l) => take(l)?,
        };
        let unix = Unix {
            style: self.style,
            connected: Once::initialized(connected),
            listener: Once::new(),
            held: SpinLock::new(None),
            inbox: None,
            peer: SpinLock::new(None),
        };
        Ok(Accepted { unix, hub, peer })
    }

    /// Whether a connection waits to be accepted, or never will.
    pub(crate) fn may_accept(&self) -> bool {
        match self.listener.get() {
            Some(Listener::Stream(l)) => !l.queue.is_empty() || l.queue.is_closed(),
            Some(Listener::Packets(l)) => !l.queue.is_empty() || l.queue.is_closed(),
            None => true,
        }
    }

    /// Changes the sizes of its buffers.
    pub(crate) fn set_buffers(&self, receive: Option<usize>, send: Option<usize>) {
        match self.connected.get() {
            Some(Connected::Stream(l)) => {
                if let Some(n) = send {
                    l.endpoint.outgoing().set_capacity(n);
                }
            }
            Some(Connected::Packets(l)) => {
                if let Some(n) = send {
                    l.endpoint.outgoing().set_capacity(n);
                }
            }
            None => {}
        }
        if let (Some(inbox), Some(n)) = (&self.inbox, receive) {
            inbox.queue().set_capacity(n);
        }
    }
}

fn join_pair<C: Wire>(
    a: &Unix,
    b: &Unix,
    stack: &NetStack,
    hubs: &[Arc<PollHub>; 2],
    sizes: [usize; 2],
    who: Identity,
) {
    let (ea, eb) = C::pair(stack, hubs.clone(), sizes);
    for (socket, endpoint) in [(a, ea), (b, eb)] {
        socket.connected.call_once(|| {
            C::connected(Link {
                endpoint,
                peer: who,
                peer_name: UnixName::Unnamed,
                name: UnixName::Unnamed,
            })
        });
    }
}
