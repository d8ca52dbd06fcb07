//! The node's disks: which there are, and which capsule holds which.
//!
//! A disk belongs to one running capsule at a time, from before its first process
//! until everything of it is gone.

use crate::events::Hub;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::Account;
use machine::block::{BlockDevice, BlockError, Trouble};
use machine::sync::SpinLock;
use machine::time::Instant;
use skep_api::control::{Event, Refusal};
use vfs::block::Disk;

/// Least time between two reports about a disk.
const REPORT_PAUSE_NS: u64 = 1_000_000_000;

/// The disks of a node.
#[derive(Default)]
pub struct Disks(Vec<Arc<NodeDisk>>);

struct NodeDisk {
    name: String,
    index: u32,
    device: Arc<dyn BlockDevice>,
    /// Name of the capsule that holds it.
    holder: SpinLock<Option<String>>,
}

/// A disk in a capsule's hands; dropping it takes it away.
pub(crate) struct Grant(Arc<NodeDisk>);

impl Disks {
    /// Adds the virtio block device that is number `index` of the machine, in the
    /// order of their PCI addresses: 0 is `vda`.
    pub fn add(&mut self, index: u32, device: Arc<dyn BlockDevice>) {
        let name = name(index);
        let kib = device.sectors() / 2;
        log::info!("disk {name}: {kib} KiB");
        self.0.push(Arc::new(NodeDisk {
            name,
            index,
            device,
            holder: SpinLock::new(None),
        }));
    }

    /// Gives the disks of these names to the capsule `holder`: all or none.
    ///
    /// # Errors
    /// [`Refusal::DeviceMissing`], [`Refusal::DeviceTaken`].
    pub(crate) fn grant(&self, names: &[String], holder: &str) -> Result<Vec<Grant>, Refusal> {
        names.iter().map(|name| self.take(name, holder)).collect()
    }

    fn take(&self, name: &str, holder: &str) -> Result<Grant, Refusal> {
        let found = self.0.iter().find(|d| d.name == name);
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
        Ok(Grant(disk.clone()))
    }

    /// Makes durable what was written, before the machine goes off.
    pub(crate) fn flush(&self) {
        for disk in &self.0 {
            match disk.device.flush() {
                Ok(()) | Err(BlockError::Unsupported) => {}
                Err(e) => log::error!("{}: flushing before the end: {e}", disk.name),
            }
        }
    }

    /// Has trouble with the disks told to `hub`.
    pub(crate) fn report_to(&self, hub: &Arc<Hub>) {
        for disk in &self.0 {
            let reporter = Reporter {
                name: disk.name.clone(),
                hub: hub.clone(),
                last: AtomicU64::new(0),
                untold: AtomicU64::new(0),
            };
            let tell = move |trouble| reporter.tell(trouble);
            disk.device.observe(alloc::boxed::Box::new(tell));
        }
    }
}

impl Grant {
    /// The disk as the capsule's programs see it; `account` pays for transfers.
    pub(crate) fn disk(&self, account: &Arc<Account>) -> Arc<Disk> {
        let (name, index) = (&self.0.name, self.0.index);
        Disk::new(name, index, self.0.device.clone(), account.clone())
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
        // A device that is given up says so once and nothing after it.
        let is_last = trouble == Trouble::GivenUp;
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

/// The name of disk number `index`, as Linux gives them: `vda` to `vdz`, `vdaa`, ...
fn name(index: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(b'a' + (rest % 26) as u8);
        if rest < 26 {
            break;
        }
        rest = rest / 26 - 1;
    }
    let letters = letters.iter().rev().map(|l| char::from(*l));
    "vd".chars().chain(letters).collect()
}

#[cfg(test)]
#[path = "disks_tests.rs"]
pub(crate) mod tests;
