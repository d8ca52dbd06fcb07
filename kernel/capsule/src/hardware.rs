//! The hardware report: what the machine tells, with the disks and links that the room
//! knows.

use crate::room::Capsules;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;
use machine::thread::{self, Builder};
use machine::time::Instant;
use net::Link;
use skep_api::control::hardware::{HARDWARE_LIST_MAX, Hardware, LinkCounters, LinkReport, PCI_MAX};

/// How often disks are asked how they are.
const ASK_DISKS: Duration = Duration::from_secs(600);
/// The same while one fails and nobody has heard of it: the 3Bot starts later than disks.
const ASK_AGAIN: Duration = Duration::from_secs(5);

impl Capsules {
    /// What the machine is made of.
    pub(crate) fn hardware(&self) -> Hardware {
        let mut hardware = self.platform.hardware();
        hardware.disks = self.disks.report();
        let links = self.net.links();
        hardware.links = links.iter().map(|(name, l)| link(name, &**l)).collect();
        hardware.pci.truncate(PCI_MAX);
        hardware.memory.truncate(HARDWARE_LIST_MAX);
        hardware.memory_modules.truncate(HARDWARE_LIST_MAX);
        hardware.acpi.truncate(HARDWARE_LIST_MAX);
        hardware.iommu.faults.truncate(HARDWARE_LIST_MAX);
        hardware.disks.truncate(HARDWARE_LIST_MAX);
        hardware.links.truncate(HARDWARE_LIST_MAX);
        hardware
    }

    /// Has the disks asked now and then how they are. A disk may take seconds to answer,
    /// or never do, which is why nobody waits for it.
    ///
    /// # Errors
    /// No memory for the thread.
    pub(crate) fn watch_disks(self: &Arc<Self>) -> Result<(), machine::AllocError> {
        let disks = self.disks.clone();
        let watch = move || loop {
            let is_told = disks.look_after();
            let pause = if is_told { ASK_DISKS } else { ASK_AGAIN };
            // A sleep without interruption ends at its time only.
            let _ = thread::sleep_until(Instant::now().after(pause), false);
        };
        Builder::new("disk-health").spawn(watch).map(drop)
    }
}

fn link(name: &str, link: &dyn Link) -> LinkReport {
    let status = link.status();
    let [a, b, c, d, e, f] = link.mac();
    let counters = |c: net::LinkCounters| LinkCounters {
        frames: c.frames,
        bytes: c.bytes,
        errors: c.errors,
        dropped: c.dropped,
    };
    LinkReport {
        name: String::from(name),
        mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        up: link.is_up(),
        mtu: u32::try_from(link.mtu()).unwrap_or(u32::MAX),
        speed_mbit: status.speed_mbit,
        full_duplex: status.is_full_duplex,
        received: counters(status.received),
        sent: counters(status.sent),
        resets: status.resets,
    }
}
