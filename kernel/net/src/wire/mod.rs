//! TCP over the wire: smoltcp's socket between two rings.
//!
//! smoltcp finds a packet's socket by asking each one; so every connection has a
//! socket set of its own, [`Flows`] finds it by hash, and only that connection is
//! locked and polled. An `Interface` holds nothing that belongs to a connection,
//! so there is one per CPU ([`Engines`]), not one per connection; only the packet
//! that makes an initial sequence number runs through a fresh one, because its
//! random numbers are seeded when it is made.
//!
//! The program reads and writes rings, as over loopback; a [`Conn`] moves bytes
//! between them and smoltcp's buffers whenever a packet, a timer or the program
//! gives it cause.

mod batch;
mod conn;
mod cork;
mod engine;
mod flows;
mod limit;
mod meter;
mod open;
mod sender;
mod settings;
mod sockets;
mod timers;

pub(crate) use batch::Batch;
pub use conn::{Conn, Info};
pub(crate) use engine::{Engines, clock};
pub use flows::Flow;
pub(crate) use flows::{Flows, Segment};
pub(crate) use open::{connect, open};
pub(crate) use sockets::SocketPool;
pub(crate) use timers::Timers;
