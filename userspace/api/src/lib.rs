//! What the kernel, the 3Bot and the owner's command line say to each other.
//!
//! Everything that crosses a boundary of trust has its type and its wire format
//! here, once: the hash that names content ([`hash`]), content that proves
//! itself piece by piece ([`blob`]), the file tree of a capsule ([`tree`]), the
//! signed description of a capsule ([`manifest`]), the configuration of a node
//! ([`node`], and what its owner writes over it by hand: [`settings`]), the ramdisk that
//! carries them all ([`bundle`]), the messages of the control device ([`control`]), the
//! requests that an owner signs ([`owner`]), the key of a node ([`identity`]) and how a release of the system lies on a
//! disk ([`boot`]).
//!
//! Every parser takes its input as hostile: it returns a typed error or a view
//! whose accessors cannot fail, and it never panics. The byte layouts are
//! written down in `docs/reference/formats.md`.
#![no_std]

extern crate alloc;

pub mod blob;
pub mod boot;
pub mod bundle;
mod bytes;
pub mod control;
pub mod hash;
pub mod identity;
pub mod key;
pub mod manifest;
pub mod node;
pub mod owner;
pub mod settings;
pub mod tree;

pub use hash::Hash;
pub use key::{KeyPair, PublicKey, Signature};
