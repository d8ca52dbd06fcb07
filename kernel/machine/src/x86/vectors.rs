//! Interrupt vectors: which there are, and where those of devices lead.
//!
//! | vectors | use |
//! | --- | --- |
//! | 0x00–0x1f | exceptions |
//! | 0x20–0x2f | strays of the 8259 before it is off |
//! | 0x30–0xef | devices, handed out by [`crate::irq`] |
//! | 0xf0–0xff | the fixed ones below |

use super::apic;
use crate::irq;

/// This CPU's one-shot timer.
pub(crate) const TIMER: u8 = 0xf0;
/// Another CPU wants this one to look at its run queue.
pub(crate) const RESCHEDULE: u8 = 0xf1;
/// Another CPU changed page tables.
pub(crate) const TLB_FLUSH: u8 = 0xf2;
/// The local APIC found an error.
pub(crate) const APIC_ERROR: u8 = 0xfe;
/// An interrupt that went away; it must not be acknowledged.
pub(crate) const SPURIOUS: u8 = 0xff;
/// First vector of the 8259 pair.
pub(crate) const LEGACY_FIRST: u8 = 0x20;

/// Serves a device's vector, with interrupts off: tells those who wait for it and
/// acknowledges it. The IDT's stubs call it for 0x20–0xef and for the two of the
/// APIC itself.
pub(crate) fn dispatch(vector: u8) {
    match vector {
        SPURIOUS => return,
        APIC_ERROR => apic::report_error(),
        _ => irq::signal(vector),
    }
    apic::eoi();
}
