//! Sockets: unix sockets, TCP and UDP over loopback and over the wire.
//!
//! A capsule has one [`stack::NetStack`]: its own loopback, its own ports, its own
//! abstract names (design D5). All stacks of a machine share one [`node::NetNode`],
//! which has the link, the addresses and the routes.
//!
//! | what | where |
//! | --- | --- |
//! | bytes between two local sockets | [`ring`], [`stream`]: no protocol runs |
//! | messages between two local sockets | [`message`] |
//! | TCP over the wire | [`wire`]: smoltcp's socket between two rings |
//! | which port is whose | [`ports`], and the node's table of published ports |
//! | raw and ping sockets, packet sockets and their filters | [`raw`], [`packet`], [`filter`] |
//! | multicast groups | [`groups`] |
//! | packets in fragments | `fragments` |
//! | frames in and out, ARP, NDP, DHCP | [`node`] |
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod ancillary;
mod checksum;
pub mod class;
pub mod error;
pub mod filter;
mod fragments;
pub mod groups;
pub mod interfaces;
mod keyhash;
pub mod listener;
pub mod message;
pub mod netlink;
pub mod node;
pub mod options;
pub mod packet;
pub mod pool;
pub mod ports;
pub mod raw;
mod registry;
pub mod ring;
pub mod socket;
mod spares;
pub mod stack;
pub mod stream;
pub mod tables;
pub mod tcp;
pub mod udp;
pub mod unix;
mod watchers;
pub mod wire;

pub use addr::{Address, FileKey, UnixName};
pub use ancillary::Identity;
pub use checksum::{Joined, PartialChecksum, Transport, complete_checksum};
pub use error::{Error, Result};
pub use node::{
    Checked, Link, LinkCounters, LinkStatus, NetConfig, NetEvent, NetNode, Port, Protocol,
    Published, StaticConfig, Upper,
};
pub use socket::{MsgFlags, Outgoing, Received, Socket};
pub use stack::{NetStack, StackConfig};
