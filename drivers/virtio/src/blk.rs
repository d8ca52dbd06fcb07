//! Block devices (virtio 1.2, 5.2).
//!
//! A transfer is cut into requests, several of which are with the device before the
//! first is waited for. The driver's thread takes back what is finished and wakes
//! whoever waits for it. If the oldest request gets no answer in time, the device
//! is reset and everything under way is tried again: reading and writing the same
//! sectors twice does no harm. A request that was tried often enough has failed.

mod shape;
mod transfer;

use crate::request::Headers;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::block::{BlockError, Observer, Operation, Request, Trouble};
use machine::dma::Direction;
use machine::sync::{Once, SpinLock};
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::virtio::{Chain, Device, Found, Queue, VirtioError};
use machine::wait::{Until, WaitQueue};
use shape::{Raw, Shape, WANTED};

const QUEUE: usize = 128;
const REQUESTS: u16 = 0;
const SOURCE: u16 = 0;

/// Silence after which the device is reset. A host's disk may need seconds for a
/// flush; a reset then costs time and no data.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Times a request is given to the device before it counts as failed: so an answer
/// comes within [`TRIES`] times [`TIMEOUT`].
const TRIES: u32 = 3;

/// Counters since the driver started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests finished well.
    pub done: AtomicU64,
    /// Requests the device reported as failed.
    pub failed: AtomicU64,
    /// Times the device was reset because it hung or broke the rules.
    pub resets: AtomicU64,
}

/// A block device.
pub struct VirtioBlk {
    device: Device,
    features: u64,
    shape: Shape,
    inner: SpinLock<Inner>,
    /// Waits for descriptors.
    room: WaitQueue,
    is_gone: AtomicBool,
    /// The driver's thread waits for an interrupt and for no deadline.
    is_asleep: AtomicBool,
    counters: Counters,
    observer: Once<Observer>,
}

/// Which way the data of a request goes.
fn direction(operation: Operation) -> Direction {
    match operation {
        Operation::Read => Direction::FromDevice,
        _ => Direction::ToDevice,
    }
}

struct Inner {
    queue: Queue<QUEUE>,
    /// What the device has, by its number in the queue.
    under_way: Vec<Option<Arc<Request>>>,
    free: Vec<Headers>,
}

/// Takes the request of that number out of a list.
fn taken(requests: &mut [Option<Arc<Request>>], number: u16) -> Option<Arc<Request>> {
    requests.get_mut(usize::from(number))?.take()
}

impl Inner {
    /// Gives a request to the device; there is room for it.
    fn give(&mut self, chain: Chain, request: Arc<Request>) -> Result<Arc<Request>, BlockError> {
        match self.queue.submit(chain) {
            Ok(number) => {
                self.note(number, request.clone());
                self.queue.notify();
                Ok(request)
            }
            // The chain is sound and there was room: cannot be.
            Err(chain) => {
                let _ = self.keep_headers(chain);
                Err(BlockError::NoMemory)
            }
        }
    }

    /// The device has `request` as its number `number`.
    fn note(&mut self, number: u16, request: Arc<Request>) {
        // There is a place for every number that the queue gives out.
        if let Some(place) = self.under_way.get_mut(usize::from(number)) {
            *place = Some(request);
        }
    }

    /// Keeps what was around the data of a request for the next; what the device
    /// said.
    fn keep_headers(&mut self, chain: Chain) -> Result<(), BlockError> {
        match Headers::unframe(chain) {
            Ok((headers, answer)) => {
                self.free.push(headers);
                answer
            }
            Err(_) => Err(BlockError::Failed),
        }
    }
}

impl VirtioBlk {
    /// Takes the device into use and starts the driver's thread.
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn start(found: &Found) -> Result<Arc<VirtioBlk>, VirtioError> {
        let device = Device::open(found, "virtio-blk", 1)?;
        let features = device.negotiate(WANTED)?;
        let shape = Shape::new(features, device.config(Raw::read))?;
        let queue = device.queue(REQUESTS, Some(SOURCE))?;
        device.start();
        let blk = Arc::new(VirtioBlk {
            features,
            shape,
            inner: SpinLock::new(Inner {
                queue,
                under_way: (0..QUEUE).map(|_| None).collect(),
                free: Headers::many(device.reach(), QUEUE / 3)
                    .map_err(|_| VirtioError::NoMemory)?,
            }),
            room: WaitQueue::new(),
            is_gone: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            counters: Counters::default(),
            observer: Once::new(),
            device,
        });
        let served = blk.clone();
        Builder::new("blk")
            .spawn(move || served.serve())
            .map_err(|_| VirtioError::NoMemory)?;
        Ok(blk)
    }

    /// Counters since the driver started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn tell(&self, trouble: Trouble) {
        if let Some(observer) = self.observer.get() {
            observer(trouble);
        }
    }

    /// Gives a request to the device, waiting for room.
    fn submit(
        &self,
        operation: Operation,
        sector: u64,
        data: Chain,
    ) -> Result<Arc<Request>, BlockError> {
        let mut data = Some(data);
        let submitted = self.room.wait(|| {
            let mut inner = self.inner.lock();
            // Under the lock: who gives the device up ends all that are in the list
            // by then.
            if self.is_gone.load(SeqCst) {
                return Some(Err(BlockError::Gone));
            }
            let needed = data.as_ref().map_or(0, |d| d.len()) + 2;
            if inner.queue.free() < needed || inner.free.is_empty() {
                return None;
            }
            let headers = inner.free.pop()?;
            let chain = headers.frame(operation, sector, data.take()?);
            Some(inner.give(chain, Arc::new(Request::new(operation, sector))))
        });
        if self.is_asleep.load(SeqCst) {
            // From now on there is a deadline.
            self.device.event(usize::from(SOURCE)).raise();
        }
        submitted
    }

    fn serve(&self) {
        // Nothing was under way for a while: there is no deadline to keep.
        let mut is_idle = false;
        loop {
            let interrupted = self.sleep(is_idle);
            // Interrupt and deadline lead to the same look.
            let well = self.take_back().is_ok();
            let oldest = self.oldest();
            let is_late = oldest.is_some_and(|t| Instant::now().since(t) >= TIMEOUT);
            if (!well || is_late) && !self.recover() {
                return;
            }
            is_idle = !interrupted && oldest.is_none();
        }
    }

    /// Sleeps until an interrupt, or until the oldest request is due; whether it was
    /// an interrupt.
    fn sleep(&self, is_idle: bool) -> bool {
        let mut oldest = self.oldest();
        if is_idle && oldest.is_none() {
            self.is_asleep.store(true, SeqCst);
            // A request of just before did not see that.
            oldest = self.oldest();
        }
        let deadline = match oldest {
            Some(since) => Some(since.after(TIMEOUT)),
            None if is_idle => None,
            // A request that comes meanwhile is late then at the earliest.
            None => Some(Instant::now().after(TIMEOUT)),
        };
        let until = Until {
            deadline,
            interruptible: false,
        };
        let woken = self.device.wait(usize::from(SOURCE), until);
        self.is_asleep.store(false, SeqCst);
        woken.is_ok()
    }

    /// When the oldest request under way was given to the device.
    fn oldest(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let requests = inner.under_way.iter().flatten();
        requests.map(|r| r.since()).min()
    }

    /// Takes back what the device has finished.
    fn take_back(&self) -> Result<(), VirtioError> {
        let (mut any, mut trouble) = (false, None);
        let result = loop {
            let mut inner = self.inner.lock();
            let (number, chain) = match inner.queue.complete() {
                Ok(Some((number, chain, _))) => (number, chain),
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            };
            any = true;
            let request = taken(&mut inner.under_way, number);
            let answer = inner.keep_headers(chain);
            drop(inner);
            let counter = match answer {
                Ok(()) => &self.counters.done,
                Err(_) => &self.counters.failed,
            };
            counter.fetch_add(1, Relaxed);
            if let Some(r) = request {
                if answer == Err(BlockError::Failed) {
                    trouble.get_or_insert(r.failure());
                }
                r.finish(answer);
            }
        };
        if any {
            self.room.wake_all();
        }
        if let Some(trouble) = trouble {
            self.tell(trouble);
        }
        result
    }

    /// Resets the device and tries again what was under way; gives the device up if
    /// it does not come back. Whether it did.
    fn recover(&self) -> bool {
        for n in 0..5u32 {
            log::warn!("virtio-blk: the device hangs or misbehaves and is reset");
            self.counters.resets.fetch_add(1, Relaxed);
            match self.set_up_again() {
                Ok(()) => {
                    self.room.wake_all();
                    self.tell(Trouble::Reset);
                    return true;
                }
                Err(e) => log::warn!("virtio-blk: {e}"),
            }
            // A sleep without interruption ends at its time only.
            let pause = Instant::now().after(Duration::from_millis(100 << n));
            let _ = thread::sleep_until(pause, false);
        }
        log::error!("virtio-blk: given up");
        self.is_gone.store(true, SeqCst);
        let requests: Vec<_> = {
            let mut inner = self.inner.lock();
            inner
                .under_way
                .iter_mut()
                .filter_map(Option::take)
                .collect()
        };
        for r in requests {
            r.finish(Err(BlockError::Gone));
        }
        self.room.wake_all();
        self.tell(Trouble::GivenUp);
        false
    }

    fn set_up_again(&self) -> Result<(), VirtioError> {
        if self.device.negotiate(WANTED)? != self.features {
            return Err(VirtioError::Features);
        }
        let queue = self.device.queue(REQUESTS, Some(SOURCE))?;
        self.device.start();
        let mut inner = self.inner.lock();
        let mut old = core::mem::replace(&mut inner.queue, queue);
        let mut requests: Vec<Option<Arc<Request>>> = (0..QUEUE).map(|_| None).collect();
        core::mem::swap(&mut requests, &mut inner.under_way);
        for (number, chain) in old.abandoned() {
            let Some(request) = taken(&mut requests, number) else {
                continue;
            };
            let failed = if request.count_try() >= TRIES {
                Some((chain, BlockError::TimedOut))
            } else {
                match inner.queue.submit(chain) {
                    Ok(number) => {
                        inner.note(number, request.clone());
                        None
                    }
                    // As many descriptors as before are free: cannot be.
                    Err(chain) => Some((chain, BlockError::NoMemory)),
                }
            };
            if let Some((chain, why)) = failed {
                let _ = inner.keep_headers(chain);
                request.finish(Err(why));
            }
        }
        inner.queue.notify();
        Ok(())
    }
}
