//! The metal.
