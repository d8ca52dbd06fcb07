//! Block special files: a disk as a program sees it.
//!
//! There is no cache in between: a read asks the device, a write has reached the
//! device when it returns, and what the device says of either is what the program
//! gets. Durable is what was written before a successful fsync(2), or by a
//! descriptor with `O_DSYNC`. Bytes go through frames that are charged to the
//! capsule, zeroed when they are allocated and bounded in number by [`slots`].

mod file;
mod id;
mod ioctl;
mod slots;
#[cfg(test)]
mod tests;

use crate::devfs::DevNode;
use crate::error::Error;
use crate::inode::Kind;
use crate::pseudo::{PseudoFs, StaticDir, Text};
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};
use machine::Account;
use machine::block::{BlockDevice, BlockError, SECTOR};
use slots::Slots;

pub use id::DiskId;

/// A disk in the hands of a capsule.
pub struct Disk {
    id: DiskId,
    device: Arc<dyn BlockDevice>,
    /// Who pays for the memory of transfers.
    account: Arc<Account>,
    slots: Slots,
}

impl Disk {
    /// The disk called `id`, for the capsule of `account`.
    #[must_use]
    pub fn new(id: DiskId, device: Arc<dyn BlockDevice>, account: Arc<Account>) -> Arc<Disk> {
        Arc::new(Disk {
            id,
            device,
            account,
            slots: Slots::new(),
        })
    }

    /// Its node in `/dev`, which belongs to `owner` (user and group).
    #[must_use]
    pub fn node(self: &Arc<Disk>, owner: (u32, u32)) -> DevNode {
        let disk = self.clone();
        DevNode {
            name: String::from(self.id.name()).into(),
            kind: Kind::BlockDevice,
            number: self.id.number(),
            mode: 0o660,
            owner,
            opener: Arc::new(move |_| Ok(disk.clone())),
        }
    }

    /// Its length in bytes.
    fn size(&self) -> u64 {
        self.device.sectors().saturating_mul(SECTOR as u64)
    }
}

/// `/proc/partitions` of a capsule with these disks.
///
/// # Errors
/// No memory for the text.
pub fn partitions(disks: &[Arc<Disk>], out: &mut Text) -> fmt::Result {
    if disks.is_empty() {
        return Ok(());
    }
    writeln!(out, "major minor  #blocks  name\n")?;
    for disk in disks {
        let kib = disk.size() / 1024;
        let ((major, minor), name) = (disk.id.number(), disk.id.name());
        writeln!(out, "{major:4}  {minor:7} {kib:10} {name}")?;
    }
    Ok(())
}

/// What sysfs tells of these disks, below its root.
pub(crate) fn add_to_sysfs(disks: &[Arc<Disk>], fs: &PseudoFs, root: &StaticDir) {
    let flag = |on: bool| alloc::format!("{}", u8::from(on));
    for disk in disks {
        let device = &disk.device;
        let (block, physical) = (device.block_len(), device.physical_block_len());
        let (major, minor) = disk.id.number();
        let values = [
            ("dev", alloc::format!("{major}:{minor}")),
            ("size", alloc::format!("{}", device.sectors())),
            ("ro", flag(device.is_read_only())),
            ("removable", flag(false)),
            ("queue/logical_block_size", alloc::format!("{block}")),
            ("queue/hw_sector_size", alloc::format!("{block}")),
            ("queue/physical_block_size", alloc::format!("{physical}")),
        ];
        let name = disk.id.name();
        for (file, value) in values {
            let content = move |out: &mut Text| writeln!(out, "{value}");
            let path = alloc::format!("block/{name}/{file}");
            root.add_at(fs, &path, fs.file(0o444, Arc::new(content)));
        }
        let link = || fs.link(&alloc::format!("../../block/{name}"));
        root.add_at(fs, &alloc::format!("class/block/{name}"), link());
        let number = alloc::format!("dev/block/{major}:{minor}");
        root.add_at(fs, &number, link());
    }
    if disks.is_empty() {
        root.add_at(fs, "block", fs.dir());
        root.add_at(fs, "class/block", fs.dir());
    }
}

/// How a program is told of a failed transfer.
impl From<BlockError> for Error {
    fn from(e: BlockError) -> Error {
        match e {
            BlockError::Failed | BlockError::TimedOut | BlockError::Gone => Error::Io,
            BlockError::OutOfRange => Error::Invalid,
            BlockError::ReadOnly => Error::NotPermitted,
            BlockError::Unsupported => Error::Unsupported,
            BlockError::NoMemory => Error::NoMemory,
        }
    }
}
