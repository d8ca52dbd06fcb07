//! What the kernel reports, and the loop that waits for it.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use skep_api::control::{CapsuleId, Event, EventRecord, Request};

use super::{Agent, begin, words};
use crate::alarm::Alarm;
use crate::runtime::Events;
use crate::supervisor::{Input, Millis, RecordKind};

/// The same complaint is written into the journal once in this time.
const QUIET_MS: Millis = 60_000;
/// Complaints that are remembered for it.
const QUIET_MAX: usize = 256;

/// Remembers what was complained of lately.
#[derive(Debug, Default)]
pub(super) struct Quiet(BTreeMap<String, Millis>);

impl Quiet {
    /// Whether it is time to complain of this (again).
    fn is_news(&mut self, now: Millis, text: &str) -> bool {
        self.0.retain(|_, at| now.saturating_sub(*at) < QUIET_MS);
        if self.0.len() >= QUIET_MAX || self.0.contains_key(text) {
            return false;
        }
        self.0.insert(text.to_owned(), now);
        true
    }
}

impl Agent {
    /// Waits for events and deadlines, for ever; returns when the kernel is gone, or
    /// why deadlines cannot be waited for.
    pub async fn run(self: &Rc<Self>, mut events: Events) -> io::Error {
        let mut alarm = match Alarm::new() {
            Ok(alarm) => alarm,
            Err(error) => return error,
        };
        loop {
            let deadline = self.supervisor.borrow().deadline();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.happened(event),
                    None => return io::Error::other("the control device has closed"),
                },
                () = self.changed.notified() => {}
                rung = alarm.wait(self.clock.now(), deadline) => match rung {
                    Ok(()) => self.feed(Input::Tick),
                    Err(error) => return error,
                },
            }
        }
    }

    fn happened(self: &Rc<Self>, record: EventRecord) {
        match record.event {
            Event::CapsuleStarted { capsule, name } => {
                self.remember(capsule, &name);
                let at = record.time_ns / 1_000_000;
                self.feed(Input::Started {
                    name,
                    instance: capsule.0,
                    at,
                });
            }
            Event::CapsuleExited {
                capsule,
                name,
                exit,
            } => {
                let exit = words::exit(&exit);
                self.feed(Input::Exited {
                    name,
                    instance: capsule.0,
                    exit,
                });
            }
            Event::CapsuleOom { capsule, pid } => {
                let text = format!("out of memory: the kernel killed process {pid}");
                self.complain(RecordKind::Limit, Some(capsule), text);
            }
            Event::LimitHit { capsule, limit } => {
                let text = format!("at its limit of {}", words::limit(limit));
                self.complain(RecordKind::Limit, Some(capsule), text);
            }
            Event::BlobRefused { hash, capsule } => {
                let text = format!("a file of its image is corrupt: {}", words::short(&hash));
                self.complain(RecordKind::Refused, Some(capsule), text);
            }
            Event::LinkUp { interface } => {
                self.record(RecordKind::Device, None, format!("{interface}: link up"));
            }
            Event::LinkDown { interface } => {
                self.record(RecordKind::Device, None, format!("{interface}: link down"));
            }
            Event::LinkMoved { interface, device } => {
                self.record(
                    RecordKind::Device,
                    None,
                    format!("{interface}: moved to {device}"),
                );
            }
            Event::DeviceError { device, detail } => {
                self.complain(RecordKind::Device, None, format!("{device}: {detail}"));
            }
            Event::ExecFinished { exec, status } => self.execs.finish(exec, status),
            Event::Ping { token } => self.spawn(move |agent| async move {
                // If even this fails, the kernel does what is right: it restarts the 3Bot.
                let _ = agent.control.tell(Request::Pong { token }).await;
            }),
            Event::Lost { events } => {
                self.record(
                    RecordKind::Warning,
                    None,
                    format!("{events} events were lost"),
                );
                self.resync();
            }
            Event::LogAvailable { .. } => {} // logs are read when someone wants to see them
        }
    }

    /// Writes what may come in floods, once in a while.
    fn complain(&self, kind: RecordKind, capsule: Option<CapsuleId>, text: String) {
        let name = capsule.map(|id| {
            self.name_of(id)
                .unwrap_or_else(|| format!("capsule {}", id.0))
        });
        let key = format!("{} {text}", name.as_deref().unwrap_or_default());
        if self.quiet.borrow_mut().is_news(self.clock.now(), &key) {
            self.record(kind, name.as_deref(), text);
        }
    }

    /// Asks the kernel what is there and compares; at most one such question is under way.
    pub(super) fn resync(self: &Rc<Self>) {
        if self.resyncing.replace(true) {
            return;
        }
        self.spawn(|agent| async move {
            let list = agent.control.list().await;
            agent.resyncing.set(false);
            if let Ok(capsules) = list {
                let observed: Vec<_> = capsules.iter().map(begin::observed).collect();
                let mut actions = Vec::new();
                let now = agent.clock.now();
                agent
                    .supervisor
                    .borrow_mut()
                    .observe(now, &observed, &mut actions);
                agent.perform(actions);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_written_once_a_minute() {
        let mut quiet = Quiet::default();
        assert!(quiet.is_news(0, "a"));
        assert!(!quiet.is_news(QUIET_MS - 1, "a"));
        assert!(quiet.is_news(QUIET_MS, "a"));
        let news = (0..1000).filter(|n| quiet.is_news(QUIET_MS, &n.to_string()));
        assert_eq!(news.count(), QUIET_MAX - 1);
    }
}
