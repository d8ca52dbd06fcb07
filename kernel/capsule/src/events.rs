//! What happens on the node, numbered and handed to all sessions of the control
//! device.

use crate::session::Session;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use machine::sync::SpinLock;
use machine::time::Instant;
use skep_api::control::{Event, EventMask, EventRecord, Message, frame};

/// Where events come together.
#[derive(Default)]
pub struct Hub {
    inner: SpinLock<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The number of the last event.
    sequence: u64,
    sessions: Vec<Weak<Session>>,
}

/// The family of an event; `None` for those that everyone gets.
fn family(event: &Event) -> Option<EventMask> {
    match event {
        Event::CapsuleStarted { .. } | Event::CapsuleExited { .. } => Some(EventMask::CAPSULE),
        Event::CapsuleOom { .. } | Event::LimitHit { .. } | Event::BlobRefused { .. } => {
            Some(EventMask::TROUBLE)
        }
        Event::LogAvailable { .. } => Some(EventMask::LOG),
        Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::LinkMoved { .. }
        | Event::DeviceError { .. } => Some(EventMask::DEVICE),
        Event::ExecFinished { .. } | Event::Ping { .. } | Event::Lost { .. } => None,
    }
}

impl Hub {
    /// A hub that nobody listens to.
    #[must_use]
    pub fn new() -> Arc<Hub> {
        Arc::default()
    }

    /// Events so far.
    #[cfg(test)]
    pub(crate) fn emitted(&self) -> u64 {
        self.inner.lock().sequence
    }

    /// Lets `session` hear what it subscribes to.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn join(&self, session: &Arc<Session>) -> Result<(), machine::AllocError> {
        let mut inner = self.inner.lock();
        inner.sessions.retain(|s| s.strong_count() > 0);
        let room = inner.sessions.try_reserve(1);
        room.map_err(|_| machine::AllocError::OutOfMemory)?;
        inner.sessions.push(Arc::downgrade(session));
        Ok(())
    }

    /// Takes `session` out.
    pub(crate) fn leave(&self, session: &Session) {
        let is = |s: &Weak<Session>| core::ptr::eq(s.as_ptr(), session);
        self.inner.lock().sessions.retain(|s| !is(s));
    }

    /// Asks all sessions whether they are alive; whether one of them owes the answer
    /// to the ping before. With no session there is nobody to ask.
    pub(crate) fn ping(&self, token: u64) -> bool {
        let all: Vec<_> = self.inner.lock().sessions.clone();
        let greeted = || {
            all.iter()
                .filter_map(Weak::upgrade)
                .filter(|s| s.is_greeted())
        };
        if greeted().next().is_none() {
            return false;
        }
        let mut silent = false;
        for session in greeted() {
            silent |= session.ping(token);
        }
        self.emit(Event::Ping { token });
        silent
    }

    /// Whether somebody has said hello, and listens.
    pub(crate) fn has_listener(&self) -> bool {
        let sessions = self.inner.lock().sessions.clone();
        sessions
            .iter()
            .filter_map(Weak::upgrade)
            .any(|s| s.is_greeted())
    }

    /// Whether somebody would be told of `event`.
    pub(crate) fn is_heard(&self, event: &Event) -> bool {
        let family = family(event);
        let sessions = self.inner.lock().sessions.clone();
        let mut sessions = sessions.iter().filter_map(Weak::upgrade);
        sessions.any(|s| s.wants(family))
    }

    /// Tells everyone concerned of `event`, which happened just now.
    pub fn emit(&self, event: Event) {
        let family = family(&event);
        let mut heard: Vec<Arc<Session>> = Vec::new();
        let mut inner = self.inner.lock();
        inner.sequence += 1;
        let sequence = inner.sequence;
        let time_ns = Instant::now().0;
        let message = Message::Event(EventRecord {
            sequence,
            time_ns,
            event,
        });
        let mut encoded: Option<Arc<[u8]>> = None;
        // Queued under the lock, so that all sessions see the same order.
        for session in inner.sessions.iter().filter_map(Weak::upgrade) {
            if !session.wants(family) || heard.try_reserve(1).is_err() {
                continue;
            }
            if encoded.is_none() {
                encoded = frame::encode_message(0, &message).ok().map(Arc::from);
            }
            if let Some(frame) = &encoded {
                session.queue_event(frame, sequence, time_ns);
            }
            heard.push(session);
        }
        drop(inner);
        for session in heard {
            session.announce();
        }
    }
}
