//! USB: its disks become the node's disks, its keys the console's.

use crate::devices::Parts;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use capsule::Disks;
use core::time::Duration;
use machine::keys::{self, Key};
use machine::pci::Device;
use machine::sync::SpinLock;
use machine::time::Instant;
use skep_usb::{Above, Host, UsbDisk};
use vfs::block::DiskId;

/// How long the boot waits for what is connected, in all.
const SETTLE: Duration = Duration::from_secs(2);

/// The node above the USB drivers.
struct Upper {
    disks: Arc<Disks>,
    /// What the disks that are there are called.
    names: SpinLock<Vec<(Arc<UsbDisk>, DiskId)>>,
}

impl Upper {
    fn forget(&self, disk: &Arc<UsbDisk>) {
        let mut names = self.names.lock();
        let place = names.iter().position(|(d, _)| Arc::ptr_eq(d, disk));
        // Whoever takes it out of the list is the one to take the name back.
        let gone = place.map(|place| names.swap_remove(place));
        drop(names);
        if let Some((_, id)) = gone {
            self.disks.remove(&id);
        }
    }
}

impl Above for Upper {
    fn disk_added(&self, disk: Arc<UsbDisk>) {
        let Some(id) = self.disks.add_scsi(disk.clone()) else {
            log::error!(
                "usb: there is no name left for the disk at {}",
                disk.place()
            );
            return;
        };
        self.names.lock().push((disk.clone(), id));
        // It may have been pulled before it had a name.
        if disk.is_gone() {
            self.forget(&disk);
        }
    }

    fn disk_gone(&self, disk: &Arc<UsbDisk>) {
        self.forget(disk);
    }

    fn key(&self, key: Key) {
        keys::press(key);
    }
}

/// Starts the driver of an xHCI controller.
pub(crate) fn start(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
    let upper = Upper {
        disks: parts.disks.clone(),
        names: SpinLock::new(Vec::new()),
    };
    let number = u8::try_from(parts.usb.len() + 1).unwrap_or(u8::MAX);
    let host = skep_usb::start(device, number, Arc::new(upper)).map_err(|e| e.to_string())?;
    parts.usb.push(host);
    Ok(())
}

/// Waits until the disks are known that were connected at the start, for a bounded
/// time: the node may want to read its configuration from one of them.
pub(crate) fn settle(hosts: &[Arc<Host>]) {
    let deadline = Instant::now().after(SETTLE);
    for host in hosts {
        if !host.settle(deadline) {
            log::warn!("usb: not all that is connected is known yet");
            return;
        }
    }
}
