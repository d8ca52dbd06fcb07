//! What the firmware tells: formats only, over plain bytes, tested on the host.

pub(crate) mod acpi;
pub(crate) mod dmar;
pub(crate) mod mp;
pub(crate) mod resources;
pub(crate) mod rtc;
pub(crate) mod sleep;
pub(crate) mod smbios;
