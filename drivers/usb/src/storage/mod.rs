//! Disks on the bus.
//!
//! A [`UsbDisk`] outlives the connection to its device: when the device is reset and
//! comes back as the same, the disk goes on with it and requests are tried again. A
//! disk whose device is pulled is gone for good, and so is one whose device does not
//! come back, or as another.

mod medium;
mod requests;
mod scsi;
pub(crate) mod transport;

use crate::descriptor::Device;
use crate::tree::Host;
use crate::work::Task;
use crate::{Path, UsbError};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use core::time::Duration;
use machine::block::{BlockError, Observer, Trouble};
use machine::sync::{Once, SpinLock};
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};
use medium::Medium;
use transport::{Fault, Transport};

/// How long a device may take to come back from a reset.
const RETURN: Duration = Duration::from_secs(8);

/// What makes a disk the same after its device was reset.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nature {
    descriptor: Device,
    serial: String,
    medium: Medium,
}

/// Where a disk's device is.
enum Link {
    Up(Arc<Transport>),
    /// It is being reset, since then.
    Away(Instant),
    Gone,
}

/// A disk.
pub struct UsbDisk {
    path: Path,
    unit: u8,
    nature: Nature,
    link: SpinLock<Link>,
    /// Waits for a change of the link.
    changed: WaitQueue,
    /// It does not know how to flush, so has nothing that could be lost.
    cannot_flush: AtomicBool,
    observer: Once<Observer>,
    host: Weak<Host>,
}

impl UsbDisk {
    /// Where it hangs, such as `2.1` for port 1 of the hub at port 2.
    #[must_use]
    pub fn place(&self) -> String {
        alloc::format!("{}", self.path)
    }

    /// Whether it has been pulled or given up.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(*self.link.lock(), Link::Gone)
    }

    fn tell(&self, trouble: Trouble) {
        if let Some(observer) = self.observer.get() {
            observer(trouble);
        }
    }

    /// The way to the device; sleeps while it is being reset.
    fn transport(&self) -> Result<Arc<Transport>, BlockError> {
        let start = Instant::now();
        let deadline = match *self.link.lock() {
            Link::Away(since) => since.after(RETURN),
            _ => start.after(RETURN),
        };
        let until = Until {
            deadline: Some(deadline),
            interruptible: false,
        };
        let found = self.changed.wait_until(until, || match &*self.link.lock() {
            Link::Up(transport) if !transport.device().is_gone() => Some(Ok(transport.clone())),
            Link::Up(_) | Link::Away(_) => None,
            Link::Gone => Some(Err(BlockError::Gone)),
        });
        found.unwrap_or_else(|_| {
            log::warn!("usb: the disk at {} does not come back", self.path);
            self.forget(Trouble::GivenUp);
            Err(BlockError::Gone)
        })
    }

    /// It will not be used any more.
    fn forget(&self, why: Trouble) {
        if let Some(host) = self.host.upgrade() {
            host.forget_disk(self, why);
        }
    }

    /// Its device, reached by `transport`, misbehaves: it is to be reset.
    fn ask_reset(&self, transport: &Arc<Transport>) {
        {
            let mut link = self.link.lock();
            match &*link {
                Link::Up(now) if Arc::ptr_eq(now, transport) => {
                    *link = Link::Away(Instant::now());
                }
                // Somebody else has asked for it.
                _ => return,
            }
        }
        let work = &transport.device().controller().work;
        work.add(Task::Reset(self.path));
    }

    /// Its device is being reset.
    fn set_away(&self) {
        let mut link = self.link.lock();
        if let Link::Up(_) = *link {
            *link = Link::Away(Instant::now());
        }
    }

    /// The device has come back; whether that was in time.
    fn attach(&self, transport: &Arc<Transport>) -> bool {
        {
            let mut link = self.link.lock();
            if let Link::Gone = *link {
                return false;
            }
            *link = Link::Up(transport.clone());
        }
        self.changed.wake_all();
        true
    }

    /// Makes it gone for good because of `why`: whoever waits for it gets an error.
    /// Whether it was not before.
    fn set_gone(&self, why: Trouble) -> bool {
        let before = core::mem::replace(&mut *self.link.lock(), Link::Gone);
        self.changed.wake_all();
        let is_news = !matches!(before, Link::Gone);
        if is_news {
            self.tell(why);
        }
        is_news
    }
}

/// The disks of one bus.
#[derive(Default)]
pub(crate) struct Registry(SpinLock<Vec<Arc<UsbDisk>>>);

impl Registry {
    /// Takes the disks out that `choose` names.
    fn take(&self, choose: impl Fn(&UsbDisk) -> bool) -> Vec<Arc<UsbDisk>> {
        let mut all = self.0.lock();
        let (taken, kept) = all.drain(..).partition(|disk| choose(disk));
        *all = kept;
        taken
    }
}

impl Host {
    /// The devices at `path` and behind it are being reset.
    pub(crate) fn disks_away(&self, path: Option<Path>) {
        let all = self.disks.0.lock().clone();
        let is_there = |disk: &&Arc<UsbDisk>| path.is_none_or(|p| disk.path.is_within(p));
        for disk in all.iter().filter(is_there) {
            disk.set_away();
        }
    }

    /// The disks at `path` and behind it, or all, are gone for good because of `why`.
    pub(crate) fn disks_gone(&self, path: Option<Path>, why: Trouble) {
        let gone = self
            .disks
            .take(|d| path.is_none_or(|p| d.path.is_within(p)));
        self.tell_gone(&gone, why);
    }

    fn forget_disk(&self, disk: &UsbDisk, why: Trouble) {
        let gone = self.disks.take(|d| core::ptr::eq(d, disk));
        self.tell_gone(&gone, why);
    }

    fn tell_gone(&self, gone: &[Arc<UsbDisk>], why: Trouble) {
        for disk in gone {
            if disk.set_gone(why) {
                log::info!("usb{}: the disk at {} is gone", self.number(), disk.path);
                self.above.disk_gone(disk);
            }
        }
    }

    /// Gets to know the disks behind `transport`, on a thread of their own.
    pub(crate) fn probe(self: &Arc<Host>, transport: &Arc<Transport>) {
        let device = transport.device();
        let path = device.path();
        let trouble = |fault: Fault| match fault {
            Fault::Usb(UsbError::Gone) => {}
            Fault::Usb(e) => {
                log::warn!("usb{}: disk at {path}: {e}", self.number());
                device.controller().work.add(Task::Reset(path));
            }
            Fault::Sense(sense) => {
                log::warn!(
                    "usb{}: the disk at {path} cannot be used: {sense:?}",
                    self.number()
                );
            }
        };
        let last = match transport.last_unit() {
            Ok(last) => last,
            Err(e) => return trouble(Fault::Usb(e)),
        };
        for unit in 0..=last {
            match Medium::read(transport, unit) {
                Ok(Some(medium)) => self.register(transport, unit, medium),
                Ok(None) => {
                    log::info!("usb{}: no disk in unit {unit} at {path}", self.number());
                    self.units_gone(path, unit);
                }
                Err(fault @ Fault::Sense(_)) => {
                    trouble(fault);
                    self.units_gone(path, unit);
                }
                Err(fault) => return trouble(fault),
            }
        }
    }

    fn units_gone(&self, path: Path, unit: u8) {
        let gone = self.disks.take(|d| d.path == path && d.unit == unit);
        self.tell_gone(&gone, Trouble::Pulled);
    }

    /// A disk is there: one that was away, or a new one.
    fn register(self: &Arc<Host>, transport: &Arc<Transport>, unit: u8, medium: Medium) {
        let device = transport.device();
        let path = device.path();
        let nature = Nature {
            descriptor: device.descriptor,
            serial: device.serial.clone(),
            medium,
        };
        let is_back =
            |disk: &UsbDisk| disk.path == path && disk.unit == unit && disk.nature == nature;
        let back = self.disks.0.lock().iter().find(|d| is_back(d)).cloned();
        if back.is_some_and(|disk| {
            let attached = disk.attach(transport);
            if attached {
                disk.tell(Trouble::Reset);
            }
            attached
        }) {
            return;
        }
        self.units_gone(path, unit);
        let disk = Arc::new(UsbDisk {
            path,
            unit,
            nature,
            link: SpinLock::new(Link::Up(transport.clone())),
            changed: WaitQueue::new(),
            cannot_flush: AtomicBool::new(false),
            observer: Once::new(),
            host: Arc::downgrade(self),
        });
        {
            let mut all = self.disks.0.lock();
            // Who takes a device away marks it first and looks at this list then.
            if device.is_gone() {
                return;
            }
            all.push(disk.clone());
        }
        let medium = &disk.nature.medium;
        let (model, sectors) = (&medium.inquiry.model, medium.capacity.sectors());
        log::info!(
            "usb{}: disk at {path}: {model}, {sectors} sectors",
            self.number()
        );
        self.above.disk_added(disk);
    }
}

impl UsbDisk {
    fn set_cannot_flush(&self) {
        if !self.cannot_flush.swap(true, SeqCst) {
            log::info!("usb: the disk at {} has no cache to flush", self.path);
        }
    }
}
