//! The node's disks: which there are, and which capsule holds which.
//!
//! A disk belongs to one running capsule at a time, from before its first process
//! until everything of it is gone.

use crate::events::Hub;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use machine::Account;
use machine::block::{BlockDevice, BlockError, Health, SECTOR, Trouble};
use machine::sync::{Once, SpinLock};
use machine::time::Instant;
use skep_api::control::hardware::{DiskHealth, DiskReport};
use skep_api::control::{Event, Refusal};
use vfs::block::{Disk, DiskId};

/// Least time between two reports about a disk.
const REPORT_PAUSE_NS: u64 = 1_000_000_000;

/// The disks of a node. Disks may come and go while it runs.
#[derive(Default)]
pub struct Disks {
    all: SpinLock<Vec<Arc<NodeDisk>>>,
    hub: Once<Arc<Hub>>,
}

struct NodeDisk {
    id: DiskId,
    device: Arc<dyn BlockDevice>,
    /// Name of the capsule that holds it.
    holder: SpinLock<Option<String>>,
    /// What it last said of its health.
    health: SpinLock<Option<Health>>,
    /// Somebody was told that it fails.
    is_failure_told: AtomicBool,
}

/// A disk in a capsule's hands; dropping it takes it away.
pub(crate) struct Grant(Arc<NodeDisk>);

impl Disks {
    /// Adds a disk, whose name must not be taken.
    pub fn add(&self, id: DiskId, device: Arc<dyn BlockDevice>) {
        let disk = NodeDisk::new(id, device);
        self.all.lock().push(disk.clone());
        self.welcome(&disk);
    }

    /// Adds a SATA or USB disk under the first free name of such; the name, unless all
    /// are taken.
    pub fn add_scsi(&self, device: Arc<dyn BlockDevice>) -> Option<DiskId> {
        let mut all = self.all.lock();
        let is_free = |id: &DiskId| !all.iter().any(|d| d.id == *id);
        let id = (0..).map_while(DiskId::scsi).find(is_free)?;
        let disk = NodeDisk::new(id.clone(), device);
        all.push(disk.clone());
        drop(all);
        self.welcome(&disk);
        Some(id)
    }

    /// Tells of a disk; on a running node, to everybody.
    fn welcome(&self, disk: &Arc<NodeDisk>) {
        let name = disk.id.name();
        log::info!("disk {name}: {} KiB", disk.device.sectors() / 2);
        if let Some(hub) = self.hub.get() {
            disk.report_to(hub);
            hub.emit(Event::DeviceError {
                device: String::from(name),
                detail: String::from("it was plugged in"),
            });
        }
    }

    /// Forgets a disk that is not there any more. A capsule that holds it keeps what it
    /// has, which answers with errors.
    pub fn remove(&self, id: &DiskId) {
        let mut all = self.all.lock();
        let gone = all.iter().position(|d| d.id == *id);
        let gone = gone.map(|place| all.remove(place));
        drop(all);
        if gone.is_some() {
            log::warn!("disk {} is gone", id.name());
        }
    }

    /// The disks there are now, in the order in which they came.
    #[must_use]
    pub fn list(&self) -> Vec<(DiskId, Arc<dyn BlockDevice>)> {
        self.those(|_| true)
    }

    /// Those that nobody holds but `holder`.
    pub(crate) fn open_to(&self, holder: &str) -> Vec<(DiskId, Arc<dyn BlockDevice>)> {
        self.those(|disk| disk.holder.lock().as_ref().is_none_or(|h| h == holder))
    }

    fn those(&self, wanted: impl Fn(&NodeDisk) -> bool) -> Vec<(DiskId, Arc<dyn BlockDevice>)> {
        let mut all = self.snapshot();
        all.retain(|disk| wanted(disk));
        all.iter()
            .map(|d| (d.id.clone(), d.device.clone()))
            .collect()
    }

    /// Asks all disks how they are, and tells of those that have begun to fail. Sleeps as
    /// long as the disks take. Whether nothing is left to tell.
    pub(crate) fn look_after(&self) -> bool {
        let mut is_told = true;
        for disk in self.snapshot() {
            let health = disk.device.health().ok();
            let failing = health.as_ref().filter(|h| h.is_failing);
            let reason = failing.map(|h| h.reason.clone());
            let before = core::mem::replace(&mut *disk.health.lock(), health);
            if let (Some(reason), false) = (&reason, before.is_some_and(|h| h.is_failing)) {
                log::warn!("{}: the disk says that it fails: {reason}", disk.id.name());
            }
            is_told &= disk.tell_failure(reason, self.hub.get());
        }
        is_told
    }

    /// The disks, for the hardware report.
    pub(crate) fn report(&self) -> Vec<DiskReport> {
        self.snapshot().iter().map(|d| d.report()).collect()
    }

    fn snapshot(&self) -> Vec<Arc<NodeDisk>> {
        self.all.lock().clone()
    }

    /// Gives the disks of these names to the capsule `holder`: all or none.
    ///
    /// # Errors
    /// [`Refusal::DeviceMissing`], [`Refusal::DeviceTaken`].
    pub(crate) fn grant(&self, names: &[String], holder: &str) -> Result<Vec<Grant>, Refusal> {
        names.iter().map(|name| self.take(name, holder)).collect()
    }

    fn take(&self, name: &str, holder: &str) -> Result<Grant, Refusal> {
        let all = self.all.lock();
        let found = all.iter().find(|d| d.id.name() == name).cloned();
        drop(all);
        let disk = found.ok_or_else(|| Refusal::DeviceMissing(String::from(name)))?;
        let mut held = disk.holder.lock();
        if let Some(other) = &*held {
            return Err(Refusal::DeviceTaken {
                device: String::from(name),
                holder: other.clone(),
            });
        }
        *held = Some(String::from(holder));
        drop(held);
        Ok(Grant(disk))
    }

    /// Keeps a disk from capsules for good; `false` if one has it already, or it is gone.
    pub(crate) fn reserve(&self, id: &DiskId, holder: &str) -> bool {
        let all = self.snapshot();
        let disk = all.iter().find(|d| d.id == *id);
        disk.is_some_and(|disk| {
            let mut held = disk.holder.lock();
            held.get_or_insert_with(|| String::from(holder)) == holder
        })
    }

    /// What the disks said of their health when they were last asked, by name.
    pub(crate) fn health(&self) -> Vec<(String, Health)> {
        let known = self.snapshot();
        let known = known.iter().filter_map(|disk| {
            let health = disk.health.lock().clone()?;
            Some((String::from(disk.id.name()), health))
        });
        known.collect()
    }

    /// Makes durable what was written, before the machine goes off.
    pub(crate) fn flush(&self) {
        for disk in self.snapshot() {
            match disk.device.flush() {
                Ok(()) | Err(BlockError::Unsupported) => {}
                Err(e) => log::error!("{}: flushing before the end: {e}", disk.id.name()),
            }
        }
    }

    /// Has trouble with the disks, and with those that come later, told to `hub`.
    pub(crate) fn report_to(&self, hub: &Arc<Hub>) {
        self.hub.call_once(|| hub.clone());
        for disk in self.snapshot() {
            disk.report_to(hub);
        }
    }
}

impl NodeDisk {
    /// Tells once why it fails, if it does. A disk that fails from the start is found
    /// before anybody listens. Whether nothing is left to tell.
    fn tell_failure(&self, reason: Option<String>, hub: Option<&Arc<Hub>>) -> bool {
        let Some(reason) = reason else {
            self.is_failure_told.store(false, Relaxed);
            return true;
        };
        if self.is_failure_told.load(Relaxed) {
            return true;
        }
        let device = String::from(self.id.name());
        let detail = format!("the disk says that it fails: {reason}");
        let event = Event::DeviceError { device, detail };
        let Some(hub) = hub.filter(|hub| hub.is_heard(&event)) else {
            return false;
        };
        hub.emit(event);
        self.is_failure_told.store(true, Relaxed);
        true
    }

    fn new(id: DiskId, device: Arc<dyn BlockDevice>) -> Arc<NodeDisk> {
        Arc::new(NodeDisk {
            id,
            device,
            holder: SpinLock::new(None),
            health: SpinLock::new(None),
            is_failure_told: AtomicBool::new(false),
        })
    }

    fn report(&self) -> DiskReport {
        let identity = self.device.identity();
        DiskReport {
            name: String::from(self.id.name()),
            bytes: self.device.sectors().saturating_mul(SECTOR as u64),
            block_bytes: u32::try_from(self.device.block_len()).unwrap_or(u32::MAX),
            read_only: self.device.is_read_only(),
            model: identity.model,
            serial: identity.serial,
            firmware: identity.firmware,
            holder: self.holder.lock().clone(),
            health: self.health.lock().clone().map(health_report),
        }
    }

    fn report_to(&self, hub: &Arc<Hub>) {
        let reporter = Reporter {
            name: String::from(self.id.name()),
            hub: hub.clone(),
            last: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        };
        let tell = move |trouble| reporter.tell(trouble);
        self.device.observe(alloc::boxed::Box::new(tell));
    }
}

fn health_report(h: Health) -> DiskHealth {
    DiskHealth {
        failing: h.is_failing,
        reason: h.reason,
        temperature: h.temperature,
        power_on_hours: h.power_on_hours,
        unsafe_shutdowns: h.unsafe_shutdowns,
        used_percent: h.used_percent,
        spare_percent: h.spare_percent,
        media_errors: h.media_errors,
        read_bytes: h.read_bytes,
        written_bytes: h.written_bytes,
    }
}

impl Grant {
    /// The disk as the capsule's programs see it; `account` pays for transfers.
    pub(crate) fn disk(&self, account: &Arc<Account>) -> Arc<Disk> {
        Disk::new(self.0.id.clone(), self.0.device.clone(), account.clone())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        *self.0.holder.lock() = None;
    }
}

/// Tells of one disk's trouble, but not of each in a flood.
struct Reporter {
    name: String,
    hub: Arc<Hub>,
    /// When it told last, in nanoseconds since boot; 0: never.
    last: AtomicU64,
    /// Troubles since then.
    untold: AtomicU64,
}

impl Reporter {
    /// Called by one thread, the driver's.
    fn tell(&self, trouble: Trouble) {
        let (last, now) = (self.last.load(Relaxed), Instant::now().0);
        // A device that is given up or pulled says so once and nothing after it.
        let is_last = matches!(trouble, Trouble::GivenUp | Trouble::Pulled);
        if last != 0 && now.saturating_sub(last) < REPORT_PAUSE_NS && !is_last {
            self.untold.fetch_add(1, Relaxed);
            return;
        }
        self.last.store(now, Relaxed);
        let detail = match self.untold.swap(0, Relaxed) {
            0 => format!("{trouble}"),
            untold => format!("{trouble} (and {untold} times trouble before)"),
        };
        log::warn!("{}: {detail}", self.name);
        self.hub.emit(Event::DeviceError {
            device: self.name.clone(),
            detail,
        });
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
pub(crate) mod tests;
