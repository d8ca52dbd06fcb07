//! The metal.

pub(crate) mod port;
pub(crate) mod uart;
