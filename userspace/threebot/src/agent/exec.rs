//! Waits for programs that run inside capsules.

use std::cell::RefCell;
use std::collections::BTreeMap;

use skep_api::control::{ExecId, ExitStatus};
use tokio::sync::oneshot;

/// Ends that nobody has asked for are remembered up to this number.
const UNCLAIMED_MAX: usize = 64;

/// A program's end, or the one who waits for it: the kernel may report the end before the asking
/// task has seen the reply that names the run.
#[derive(Debug)]
enum Slot {
    Waiting(oneshot::Sender<Option<ExitStatus>>),
    Finished(Option<ExitStatus>),
}

/// Programs under way.
#[derive(Debug, Default)]
pub(super) struct Execs(RefCell<BTreeMap<ExecId, Slot>>);

impl Execs {
    /// Waits for the end of one; `None`: it was killed.
    pub(super) async fn finished(&self, exec: ExecId) -> Option<ExitStatus> {
        let (sender, receiver) = oneshot::channel();
        if let Some(Slot::Finished(status)) = self.0.borrow_mut().remove(&exec) {
            return status;
        }
        self.0.borrow_mut().insert(exec, Slot::Waiting(sender));
        receiver.await.ok().flatten()
    }

    /// Reports the end of one.
    pub(super) fn finish(&self, exec: ExecId, status: Option<ExitStatus>) {
        let mut slots = self.0.borrow_mut();
        // Whoever gave up waiting is forgotten here.
        slots.retain(|_, slot| !matches!(slot, Slot::Waiting(sender) if sender.is_closed()));
        match slots.remove(&exec) {
            Some(Slot::Waiting(sender)) => drop(sender.send(status)),
            _ => {
                if slots.len() >= UNCLAIMED_MAX {
                    slots.pop_first();
                }
                slots.insert(exec, Slot::Finished(status));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_may_come_first_or_last() {
        let execs = Execs::default();
        execs.finish(ExecId(1), Some(ExitStatus::Code(3)));
        assert_eq!(execs.finished(ExecId(1)).await, Some(ExitStatus::Code(3)));
        let end = async {
            tokio::task::yield_now().await;
            execs.finish(ExecId(2), None);
        };
        let (status, ()) = tokio::join!(execs.finished(ExecId(2)), end);
        assert_eq!(status, None);
        assert!(execs.0.borrow().is_empty());
    }

    #[test]
    fn unclaimed_ends_are_bounded() {
        let execs = Execs::default();
        for number in 0..1000 {
            execs.finish(ExecId(number), None);
        }
        assert_eq!(execs.0.borrow().len(), UNCLAIMED_MAX);
    }
}
