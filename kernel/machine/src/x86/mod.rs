//! The metal.

pub(crate) mod acpi;
pub(crate) mod apic;
pub(crate) mod clock;
pub(crate) mod ioapic;
pub(crate) mod pci;
pub(crate) mod port;
pub(crate) mod reference;
pub(crate) mod rtc;
pub(crate) mod uart;
pub(crate) mod vectors;

pub(crate) use apic::id_of as apic_id;
pub(crate) use clock::monotonic_ns;
pub(crate) use ioapic::{
    route_isa as irq_route, set_masked as irq_set_masked, wire_of as irq_wire,
};
pub(crate) use pci::{pci_read, pci_write};
