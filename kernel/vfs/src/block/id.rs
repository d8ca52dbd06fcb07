//! What a disk is called, and its device number: as on Linux
//! (Documentation/admin-guide/devices.txt), so that programs know them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Minor numbers of a disk: the disk's own and those of its partitions.
const MINORS: u32 = 16;
/// Major number of virtio disks: the first that Linux gives out dynamically, as
/// Debian's kernel does.
const VIRTIO: u32 = 254;
/// Major number of NVMe namespaces: that of all block devices without one of their own.
const EXTENDED: u32 = 259;
/// Major numbers of SCSI disks, sixteen disks each; SATA and USB disks count as such.
const SCSI: [u32; 16] = [
    8, 65, 66, 67, 68, 69, 70, 71, 128, 129, 130, 131, 132, 133, 134, 135,
];

/// A disk's name and device number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskId {
    name: String,
    number: (u32, u32),
}

impl DiskId {
    /// Virtio disk `index` of the machine, in the order of their PCI addresses: 0 is
    /// `vda`.
    #[must_use]
    pub fn virtio(index: u32) -> DiskId {
        DiskId {
            name: format!("vd{}", letters(index)),
            number: (VIRTIO, index.saturating_mul(MINORS)),
        }
    }

    /// SATA or USB disk `index`, in the order in which they were found: 0 is `sda`.
    /// `None` beyond the 256 that have numbers.
    #[must_use]
    pub fn scsi(index: u32) -> Option<DiskId> {
        let per_major = 256 / MINORS;
        let major = SCSI.get((index / per_major) as usize)?;
        Some(DiskId {
            name: format!("sd{}", letters(index)),
            number: (*major, index % per_major * MINORS),
        })
    }

    /// Namespace `namespace`, from 1, of NVMe controller `controller`, from 0:
    /// `nvme0n1`.
    #[must_use]
    pub fn nvme(controller: u32, namespace: u32) -> DiskId {
        let minor = controller.saturating_mul(MINORS);
        DiskId {
            name: format!("nvme{controller}n{namespace}"),
            number: (EXTENDED, minor.saturating_add(namespace.saturating_sub(1))),
        }
    }

    /// Its name in `/dev`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its major and minor number.
    #[must_use]
    pub fn number(&self) -> (u32, u32) {
        self.number
    }
}

/// `index` in letters, as Linux counts disks: `a` to `z`, `aa`, `ab`, ...
fn letters(index: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(b'a' + (rest % 26) as u8);
        if rest < 26 {
            break;
        }
        rest = rest / 26 - 1;
    }
    letters.iter().rev().map(|l| char::from(*l)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_linuxs() {
        let all = [0, 1, 25, 26, 27, 701, 702].map(|i| DiskId::virtio(i).name);
        assert_eq!(all, ["vda", "vdb", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
        assert_eq!(DiskId::nvme(1, 2).name(), "nvme1n2");
    }

    #[test]
    fn numbers_are_linuxs() {
        assert_eq!(DiskId::virtio(1).number(), (254, 16));
        let scsi = |index| DiskId::scsi(index).map(|id| (id.name, id.number));
        assert_eq!(scsi(15), Some(("sdp".into(), (8, 240))));
        assert_eq!(scsi(16), Some(("sdq".into(), (65, 0))));
        assert_eq!(scsi(255), Some(("sdiv".into(), (135, 240))));
        assert_eq!(scsi(256), None);
    }
}
