//! One opening of the control device: its queue of frames and its subscription.
//!
//! The queue is bounded on both kinds of frames. A reader that is too slow loses
//! events and is told how many; while it owes too many replies, no further request
//! is taken from it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use machine::AllocError;
use machine::sync::SpinLock;
use skep_api::control::{Event, EventMask, EventRecord, FRAME_BYTES_MAX, Message, Reply, frame};
use vfs::PollHub;

/// Most events waiting.
const EVENTS_MAX: usize = 512;
/// Most replies waiting.
const REPLIES_MAX: usize = 64;
/// Most bytes of replies waiting.
const REPLY_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

enum Queued {
    Reply(Arc<[u8]>),
    Event(Arc<[u8]>),
}

#[derive(Default)]
struct Queue {
    /// Never grows beyond what was reserved when it was made.
    frames: VecDeque<Queued>,
    events: usize,
    replies: usize,
    reply_bytes: usize,
    /// Events dropped since the last one that was queued.
    lost: u64,
    /// Sequence number and time of the last of them.
    lost_last: (u64, u64),
}

impl Queue {
    fn push_event(&mut self, frame: Arc<[u8]>) {
        self.frames.push_back(Queued::Event(frame));
        self.events += 1;
    }

    /// Says how many events were lost, once there is room for saying it.
    fn own_up(&mut self) {
        if self.lost == 0 || self.events + 1 >= EVENTS_MAX {
            return;
        }
        let message = Message::Event(EventRecord {
            sequence: self.lost_last.0,
            time_ns: self.lost_last.1,
            event: Event::Lost { events: self.lost },
        });
        if let Ok(frame) = frame::encode_message(0, &message) {
            self.push_event(Arc::from(frame));
            self.lost = 0;
        }
    }
}

/// One opening of the control device.
pub(crate) struct Session {
    queue: SpinLock<Queue>,
    mask: SpinLock<EventMask>,
    greeted: AtomicBool,
    /// Length of the first frame, so that a poll takes no lock.
    first: AtomicU32,
    /// Whether one more reply fits.
    has_room: AtomicBool,
    /// Token of a ping that was not answered yet, 0 for none.
    pinged: AtomicU64,
    /// It has answered a ping, and so is held to it.
    answers: AtomicBool,
    hub: PollHub,
}

impl Session {
    /// A session without frames.
    ///
    /// # Errors
    /// No memory for its queue.
    pub(crate) fn new() -> Result<Arc<Session>, AllocError> {
        let mut frames = VecDeque::new();
        frames
            .try_reserve_exact(EVENTS_MAX + REPLIES_MAX)
            .map_err(|_| AllocError::OutOfMemory)?;
        let queue = Queue {
            frames,
            ..Queue::default()
        };
        Ok(Arc::new(Session {
            queue: SpinLock::new(queue),
            mask: SpinLock::new(EventMask::NONE),
            greeted: AtomicBool::new(false),
            first: AtomicU32::new(0),
            has_room: AtomicBool::new(true),
            pinged: AtomicU64::new(0),
            answers: AtomicBool::new(false),
            hub: PollHub::new(),
        }))
    }

    /// Where its readiness is told.
    pub(crate) fn hub(&self) -> &PollHub {
        &self.hub
    }

    /// Whether it has said hello.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted.load(Relaxed)
    }

    /// It has.
    pub(crate) fn set_greeted(&self) {
        self.greeted.store(true, Relaxed);
    }

    /// Sets what it hears of.
    pub(crate) fn subscribe(&self, mask: EventMask) {
        *self.mask.lock() = mask;
    }

    /// Whether it hears of events of `family`.
    pub(crate) fn wants(&self, family: Option<EventMask>) -> bool {
        family.is_none_or(|f| self.mask.lock().contains(f))
    }

    /// Whether a frame is waiting.
    pub(crate) fn is_readable(&self) -> bool {
        self.first.load(Relaxed) != 0
    }

    /// Whether a request would be taken.
    pub(crate) fn is_writable(&self) -> bool {
        self.has_room.load(Relaxed)
    }

    /// Refreshes what polls look at.
    fn note(&self, queue: &Queue) {
        let first = match queue.frames.front() {
            Some(Queued::Reply(f) | Queued::Event(f)) => f.len() as u32,
            None => 0,
        };
        self.first.store(first, Relaxed);
        let room =
            queue.replies < REPLIES_MAX && queue.reply_bytes + FRAME_BYTES_MAX <= REPLY_BYTES_MAX;
        self.has_room.store(room, Relaxed);
    }

    /// Queues an event, or counts it as lost. [`Session::announce`] is to follow.
    pub(crate) fn queue_event(&self, frame: &Arc<[u8]>, sequence: u64, time_ns: u64) {
        let mut queue = self.queue.lock();
        queue.own_up();
        if queue.lost > 0 || queue.events >= EVENTS_MAX {
            queue.lost += 1;
            queue.lost_last = (sequence, time_ns);
        } else {
            queue.push_event(frame.clone());
        }
        self.note(&queue);
    }

    /// Queues the reply to request `id`. A reply that does not fit a frame, which
    /// the limits of all its parts rule out, becomes an error.
    pub(crate) fn reply(&self, id: u32, reply: Reply) {
        let encoded = frame::encode_message(id, &Message::Reply(reply)).or_else(|_| {
            let error = skep_api::control::ControlError::NoResources;
            frame::encode_message(id, &Message::Reply(Reply::Error(error)))
        });
        let Ok(frame) = encoded else { return };
        let frame: Arc<[u8]> = Arc::from(frame);
        let mut queue = self.queue.lock();
        // `is_writable` has kept room; two writers at once may share the last of it.
        if queue.frames.len() < queue.frames.capacity() {
            queue.replies += 1;
            queue.reply_bytes += frame.len();
            queue.frames.push_back(Queued::Reply(frame));
        }
        self.note(&queue);
        drop(queue);
        self.announce();
    }

    /// Wakes whoever waits for a frame.
    pub(crate) fn announce(&self) {
        self.hub.notify(vfs::Events::READABLE);
    }

    /// Takes the first frame if it has at most `max` bytes; `Err` with its length
    /// if it has more, `Ok(None)` if there is none.
    pub(crate) fn take(&self, max: usize) -> Result<Option<Arc<[u8]>>, usize> {
        let mut queue = self.queue.lock();
        let Some(Queued::Reply(front) | Queued::Event(front)) = queue.frames.front() else {
            return Ok(None);
        };
        if front.len() > max {
            return Err(front.len());
        }
        let had_room = self.is_writable();
        let frame = match queue.frames.pop_front() {
            Some(Queued::Reply(f)) => {
                queue.replies -= 1;
                queue.reply_bytes -= f.len();
                f
            }
            Some(Queued::Event(f)) => {
                queue.events -= 1;
                f
            }
            None => return Ok(None),
        };
        queue.own_up();
        self.note(&queue);
        drop(queue);
        if !had_room && self.is_writable() {
            self.hub.notify(vfs::Events::WRITABLE);
        }
        Ok(Some(frame))
    }

    /// Expects an answer to the ping `token`. Whether the one before is still to be
    /// answered by a client that has answered others.
    pub(crate) fn ping(&self, token: u64) -> bool {
        let open = self.pinged.swap(token, Relaxed);
        open != 0 && self.answers.load(Relaxed)
    }

    /// The client answers the ping `token`; whether it was that.
    pub(crate) fn pong(&self, token: u64) -> bool {
        let expected = token != 0
            && self
                .pinged
                .compare_exchange(token, 0, Relaxed, Relaxed)
                .is_ok();
        if expected {
            self.answers.store(true, Relaxed);
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Hub;
    use alloc::vec::Vec;
    use skep_api::control::CapsuleId;

    fn decode(frame: &[u8]) -> (u32, Message) {
        let (head, body, rest) = frame::split(frame).unwrap();
        assert!(rest.is_empty());
        (head.id, frame::decode_message(&head, body).unwrap())
    }

    fn drain(session: &Session) -> Vec<(u32, Message)> {
        let next = || session.take(FRAME_BYTES_MAX).unwrap();
        core::iter::from_fn(next).map(|f| decode(&f)).collect()
    }

    fn events(frames: &[(u32, Message)]) -> Vec<EventRecord> {
        let event = |(id, m): &(u32, Message)| match m {
            Message::Event(e) => {
                assert_eq!(*id, 0);
                Some(e.clone())
            }
            Message::Reply(_) => None,
        };
        frames.iter().filter_map(event).collect()
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_lost() {
        let hub = Hub::new();
        let session = Session::new().unwrap();
        hub.join(&session).unwrap();
        session.subscribe(EventMask::LOG);
        let total = EVENTS_MAX as u64 + 40;
        for n in 0..total {
            hub.emit(Event::LogAvailable {
                capsule: CapsuleId(n as u32),
            });
        }
        let got = events(&drain(&session));
        let lost: u64 = got
            .iter()
            .filter_map(|e| match e.event {
                Event::Lost { events } => Some(events),
                _ => None,
            })
            .sum();
        let delivered = got.len() as u64 - 1;
        assert_eq!(delivered + lost, total);
        assert!(lost > 0);
        assert!(got.is_sorted_by_key(|e| e.sequence));
        hub.emit(Event::LogAvailable {
            capsule: CapsuleId(1),
        });
        let after = events(&drain(&session));
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].sequence, total + 1);
    }

    #[test]
    fn unwanted_events_are_counted_but_not_delivered() {
        let hub = Hub::new();
        let session = Session::new().unwrap();
        hub.join(&session).unwrap();
        session.subscribe(EventMask::DEVICE);
        hub.emit(Event::LogAvailable {
            capsule: CapsuleId(1),
        });
        hub.emit(Event::LinkUp {
            interface: "eth0".into(),
        });
        hub.emit(Event::Ping { token: 5 });
        let got = events(&drain(&session));
        assert_eq!(got.iter().map(|e| e.sequence).collect::<Vec<_>>(), [2, 3]);
        hub.leave(&session);
        hub.emit(Event::Ping { token: 6 });
        assert!(!session.is_readable());
    }

    #[test]
    fn only_who_has_answered_a_ping_is_held_to_it() {
        let hub = Hub::new();
        let session = Session::new().unwrap();
        hub.join(&session).unwrap();
        assert!(!hub.ping(1));
        session.set_greeted();
        assert!(!hub.ping(2));
        assert!(!hub.ping(3));
        assert!(!session.pong(2));
        assert!(session.pong(3));
        assert!(!hub.ping(4));
        assert!(hub.ping(5));
        assert!(session.pong(5));
        assert!(!hub.ping(6));
    }

    #[test]
    fn replies_that_nobody_reads_stop_requests() {
        let session = Session::new().unwrap();
        let mut n = 0;
        while session.is_writable() {
            session.reply(n + 1, Reply::State(alloc::vec![0; 60 * 1024]));
            n += 1;
        }
        assert_eq!(n, 4);
        assert!(session.take(100).is_err());
        let first = session.take(FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(decode(&first).0, 1);
        assert!(session.is_writable());
        assert_eq!(drain(&session).len(), 3);
    }
}
