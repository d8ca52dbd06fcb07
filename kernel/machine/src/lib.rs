//! The machine room.
#![no_std]
extern crate alloc;
