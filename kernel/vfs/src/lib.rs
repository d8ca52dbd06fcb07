//! To be described.
#![no_std]
extern crate alloc;
