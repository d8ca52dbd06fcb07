//! To be described.
#![no_std]
extern crate alloc;

pub mod control;
pub mod owner;
