//! The machine as a whole: its last crash, its power.

use crate::trust::{NodeKey, Trust};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use capsule::{Capsules, KERNEL, Platform};
use machine::pci::Address;
use machine::power::{self, PowerButton};
use machine::sync::SpinLock;
use machine::thread::Builder;
use machine::{AllocError, crash};
use skep_api::Signature;
use skep_api::control::hardware::Hardware;
use skep_api::control::{CrashRecord, Event};
use skep_api::identity::Identity;

/// Whether the last crash has been taken note of.
static FORGOTTEN: SpinLock<bool> = SpinLock::new(false);

const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// The machine under the capsules.
pub(crate) struct Machine {
    /// Which driver has which device.
    pub(crate) bound: Vec<(Address, &'static str)>,
    /// Its TPM.
    pub(crate) trust: Trust,
    /// The node's own key.
    pub(crate) identity: NodeKey,
}

impl Platform for Machine {
    fn crash(&self) -> Option<CrashRecord> {
        if *FORGOTTEN.lock() {
            return None;
        }
        last_crash()
    }

    fn had_crash(&self) -> bool {
        crash::previous().is_some()
    }

    fn clear_crash(&self) {
        *FORGOTTEN.lock() = true;
    }

    fn hardware(&self) -> Hardware {
        crate::hardware::report(&self.bound, &self.trust)
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.told())
    }

    fn prove(&self, challenge: &[u8]) -> Option<Signature> {
        Some(self.identity.prove(challenge))
    }

    fn keep_identity(&self) -> bool {
        self.identity.keep(&self.trust)
    }

    fn can_power_off(&self) -> bool {
        true
    }

    fn restart(&self) {
        self.trust.shut_down();
        power::reboot();
    }

    fn power_off(&self) {
        self.trust.shut_down();
        power::power_off();
    }
}

/// What the machine room wrote down when the kernel last panicked.
fn last_crash() -> Option<CrashRecord> {
    let record = crash::previous()?;
    let text = record.text.trim_start();
    let (reason, detail) = text.split_once('\n').unwrap_or((text, ""));
    let wall_ms = u64::try_from(record.wall_ns / 1_000_000).ok();
    Some(CrashRecord {
        id: record.id,
        // A clock that nobody has set says little more than the uptime.
        unix_ms: wall_ms.filter(|ms| *ms > record.uptime_ns / 1_000_000 + YEAR_MS),
        uptime_ns: record.uptime_ns,
        cpu: u32::try_from(record.cpu).unwrap_or(u32::MAX),
        kernel: String::from(KERNEL),
        reason: String::from(reason),
        detail: String::from(detail),
    })
}

/// Says on the console that the last boot ended in a panic, and why.
#[inline(never)]
pub(crate) fn tell_of_crash() {
    if let Some(record) = last_crash() {
        let (id, reason) = (record.id, &record.reason);
        log::warn!("the last boot ended in a crash, record {id:08x}: {reason}");
    }
}

/// Has the power button stop the capsules and then the machine.
#[inline(never)]
pub(crate) fn watch_power_button(capsules: &Arc<Capsules>) -> Result<(), AllocError> {
    let capsules = capsules.clone();
    let watch = move || {
        while let Some(true) = PowerButton::open().map(|b| b.wait()) {
            if let Err(e) = capsules.begin_shutdown(true) {
                log::error!("the node cannot go down now: {e:?}");
            }
        }
    };
    Builder::new("power-button").spawn(watch).map(drop)
}

/// Has everybody hear of devices that try to reach memory that is not theirs.
#[inline(never)]
pub(crate) fn watch_iommu(capsules: &Arc<Capsules>) -> Result<(), AllocError> {
    let hub = capsules.hub().clone();
    machine::iommu::watch(move |tally| {
        let (device, count) = (tally.last.device.to_string(), tally.count);
        log::error!("device {device}: {}; {count} of them so far", tally.last);
        let detail = format!("{}; {count} of them so far", tally.last);
        hub.emit(Event::DeviceError { device, detail });
    })
}

/// Switches the machine off when its button is pressed: there is nothing to stop.
pub(crate) fn power_off_by_button() {
    if PowerButton::open().is_some_and(|b| b.wait()) {
        power::power_off();
    }
}
