//! What the bus thread has to look at.

use crate::Path;
use alloc::collections::{BTreeMap, BTreeSet};
use machine::sync::SpinLock;
use machine::wait::WaitQueue;

/// One thing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The controller has failed and is to be set up again.
    Restart,
    /// A root port has changed.
    RootPort(u8),
    /// Ports of the hub at this place have changed, bit by bit.
    Hub(Path, u32),
    /// The device at this place misbehaves and is to be set up again.
    Reset(Path),
}

#[derive(Default)]
struct Waiting {
    restart: bool,
    ports: BTreeSet<u8>,
    hubs: BTreeMap<Path, u32>,
    resets: BTreeSet<Path>,
}

/// The tasks of one bus. Each is there once, however often it was asked for, so that
/// a device can make no more of them than there are places.
#[derive(Default)]
pub(crate) struct Work {
    waiting: SpinLock<Waiting>,
    news: WaitQueue,
}

impl Work {
    /// Asks for `task`.
    pub(crate) fn add(&self, task: Task) {
        let mut waiting = self.waiting.lock();
        match task {
            Task::Restart => waiting.restart = true,
            Task::RootPort(port) => drop(waiting.ports.insert(port)),
            Task::Hub(path, ports) => *waiting.hubs.entry(path).or_default() |= ports,
            Task::Reset(path) => drop(waiting.resets.insert(path)),
        }
        drop(waiting);
        self.news.wake_all();
    }

    /// The next task, if there is one: what is pulled comes before what misbehaves.
    pub(crate) fn take(&self) -> Option<Task> {
        let mut waiting = self.waiting.lock();
        if core::mem::take(&mut waiting.restart) {
            // All else was about what is gone now.
            *waiting = Waiting::default();
            return Some(Task::Restart);
        }
        if let Some(port) = waiting.ports.pop_first() {
            return Some(Task::RootPort(port));
        }
        if let Some((path, ports)) = waiting.hubs.pop_first() {
            return Some(Task::Hub(path, ports));
        }
        waiting.resets.pop_first().map(Task::Reset)
    }

    /// Sleeps until there is a task.
    pub(crate) fn wait(&self) -> Task {
        self.news.wait(|| self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_merged_and_ordered() {
        let work = Work::default();
        let hub = Path { port: 1, route: 2 };
        for task in [
            Task::Reset(hub),
            Task::Hub(hub, 0b10),
            Task::RootPort(3),
            Task::RootPort(3),
            Task::Hub(hub, 0b100),
        ] {
            work.add(task);
        }
        assert_eq!(work.wait(), Task::RootPort(3));
        assert_eq!(work.wait(), Task::Hub(hub, 0b110));
        assert_eq!(work.wait(), Task::Reset(hub));
        assert_eq!(work.take(), None);
        work.add(Task::RootPort(3));
        work.add(Task::Restart);
        assert_eq!(work.wait(), Task::Restart);
        assert_eq!(work.take(), None);
    }
}
