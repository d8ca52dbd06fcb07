//! Who looks after the completions of a queue.
//!
//! Of the threads that wait for requests of a queue one *leads*: it sleeps on the
//! interrupt and takes back what is finished, its own and the others'. When its own has
//! ended another leads. So a lone request costs one wake-up, and many cost one each.

use super::{BlockError, Request};
use crate::irq::IrqEvent;
use crate::time::Instant;
use crate::wait::Until;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use core::time::Duration;

/// Whether one of a queue's waiting threads leads.
#[derive(Debug, Default)]
pub struct Lead(AtomicBool);

impl Lead {
    /// Nobody leads.
    #[must_use]
    pub const fn new() -> Lead {
        Lead(AtomicBool::new(false))
    }

    /// Whether somebody does.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Sleeps until `request` has ended. If this thread has to lead meanwhile, it calls
    /// `look` at each interrupt `event`, and `check` whenever none came for `pause`;
    /// afterwards `wake_next` has one of the others look whether to lead, by
    /// [`Request::wake`]. Who ends a request otherwise raises `event`.
    ///
    /// # Errors
    /// The request's outcome.
    pub fn wait(
        &self,
        request: &Request,
        event: &IrqEvent,
        pause: Duration,
        mut look: impl FnMut(),
        mut check: impl FnMut(),
        wake_next: impl FnOnce(),
    ) -> Result<(), BlockError> {
        if let Some(outcome) = request.wait_or(|| !self.0.swap(true, SeqCst)) {
            return outcome;
        }
        let outcome = loop {
            let until = Until {
                deadline: Some(Instant::now().after(pause)),
                interruptible: false,
            };
            let ended = event.wait_until(until, || {
                look();
                request.outcome()
            });
            match ended {
                Ok(outcome) => break outcome,
                Err(_) => check(),
            }
        };
        self.0.store(false, SeqCst);
        wake_next();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Operation;
    use crate::sync::SpinLock;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    /// Eight threads wait; each interrupt brings one completion. All end, though each
    /// leader leaves with its own request.
    #[test]
    fn the_lead_is_handed_on() {
        let lead = Arc::new(Lead::new());
        let event = Arc::new(IrqEvent::new("lead").unwrap());
        let requests: Vec<_> = (0..8)
            .map(|n| Arc::new(Request::new(Operation::Read, n)))
            .collect();
        let finished = Arc::new(SpinLock::new(Vec::new()));
        let threads: Vec<_> = (0..8usize)
            .map(|n| {
                let (lead, event, requests) = (lead.clone(), event.clone(), requests.clone());
                let finished = finished.clone();
                std::thread::spawn(move || {
                    let mine: &Request = &requests[n];
                    let look = || {
                        let done: Vec<usize> = finished.lock().drain(..).collect();
                        done.into_iter().for_each(|d| requests[d].finish(Ok(())));
                    };
                    let wake = || {
                        let _ = requests.iter().any(|r| r.wake());
                    };
                    let pause = Duration::from_secs(60);
                    lead.wait(mine, &event, pause, look, || (), wake)
                })
            })
            .collect();
        for n in [3, 1, 4, 0, 5, 2, 6, 7] {
            std::thread::sleep(Duration::from_millis(5));
            finished.lock().push(n);
            event.raise();
        }
        assert!(threads.into_iter().all(|t| t.join().unwrap().is_ok()));
        assert!(!lead.is_taken());
    }
}
