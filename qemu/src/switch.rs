//! A switch between a node and its network, made by the scenario: it sees every frame.
//!
//! QEMU sends each frame of a network device as a datagram to a port of ours, and those
//! of its user network to another; in between a thread does what a switch with VLANs
//! does on a port that belongs to one (IEEE 802.1Q): the node's side is tagged, the
//! network's is not.

use anyhow::{Context as _, Result};
use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Ethertype of the tag, where it is, and its length.
const TPID: [u8; 2] = [0x81, 0x00];
const TAG_AT: usize = 12;
const TAG_BYTES: usize = 4;
const NUMBER: u16 = 0x0fff;
/// Longer than any frame.
const FRAME_MAX: usize = 64 << 10;

/// One cable between QEMU and the switch.
#[derive(Clone, Copy, Debug)]
pub struct Cable {
    /// Our port.
    ours: u16,
    /// QEMU's port.
    theirs: u16,
}

impl Cable {
    /// QEMU's network of that name at the other end.
    pub(crate) fn netdev(&self, id: &str) -> String {
        let Self { ours, theirs } = self;
        format!("socket,id={id},udp=127.0.0.1:{ours},localaddr=127.0.0.1:{theirs}")
    }
}

/// Both cables.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// To the node.
    pub node: Cable,
    /// To the network that it is in.
    pub network: Cable,
}

/// What passed.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames of the node with the right tag.
    pub tagged: AtomicUsize,
    /// Frames of the node with another tag, or none: they go nowhere.
    pub strange: AtomicUsize,
    /// Frames to the node.
    pub answers: AtomicUsize,
}

/// A switch that is at work until it is dropped.
pub struct Switch {
    /// Where QEMU is to be connected.
    pub ports: Ports,
    /// What passed.
    pub counts: Arc<Counts>,
    stopped: Arc<AtomicBool>,
}

impl Switch {
    /// A switch whose port to the node is tagged for VLAN `number`.
    pub fn start(number: u16) -> Result<Self> {
        let (node, to_node) = cable()?;
        let (network, to_network) = cable()?;
        let switch = Self {
            ports: Ports {
                node: to_node,
                network: to_network,
            },
            counts: Arc::default(),
            stopped: Arc::default(),
        };
        let counts = switch.counts.clone();
        let (from, to) = (node.try_clone()?, network.try_clone()?);
        switch.relay(from, to, to_network.theirs, move |frame| {
            let bare = untagged(frame, number);
            let counter = match &bare {
                Some(_) => &counts.tagged,
                None => &counts.strange,
            };
            counter.fetch_add(1, Relaxed);
            bare
        });
        let counts = switch.counts.clone();
        switch.relay(network, node, to_node.theirs, move |frame| {
            counts.answers.fetch_add(1, Relaxed);
            tagged(frame, number)
        });
        Ok(switch)
    }

    fn relay(
        &self,
        from: UdpSocket,
        to: UdpSocket,
        port: u16,
        change: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) {
        let stopped = self.stopped.clone();
        thread::spawn(move || {
            let mut frame = vec![0; FRAME_MAX];
            while !stopped.load(Relaxed) {
                // The wait ends now and then to look whether to stop.
                let Ok(len) = from.recv(&mut frame) else {
                    continue;
                };
                if let Some(changed) = frame.get(..len).and_then(&change) {
                    // A frame may be lost, as on any cable.
                    let _ = to.send_to(&changed, (Ipv4Addr::LOCALHOST, port));
                }
            }
        });
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
    }
}

/// Our end of a cable, and its ports. QEMU's is free now, and only QEMU will take it.
fn cable() -> Result<(UdpSocket, Cable)> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("the host has no free port");
    let (ours, theirs) = (bind()?, bind()?);
    let cable = Cable {
        ours: ours.local_addr()?.port(),
        theirs: theirs.local_addr()?.port(),
    };
    ours.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok((ours, cable))
}

fn untagged(frame: &[u8], number: u16) -> Option<Vec<u8>> {
    let (tag, rest) = frame.get(TAG_AT..)?.split_at_checked(TAG_BYTES)?;
    let found = u16::from_be_bytes([tag[2], tag[3]]) & NUMBER;
    (tag[..2] == TPID && found == number).then(|| [&frame[..TAG_AT], rest].concat())
}

fn tagged(frame: &[u8], number: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(TAG_AT)?;
    Some([addresses, &TPID, &number.to_be_bytes(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::{tagged, untagged};

    #[test]
    fn a_tag_is_put_in_and_taken_out() {
        let frame: Vec<u8> = (0..60).collect();
        let with = tagged(&frame, 12).unwrap();
        assert_eq!(with[12..16], [0x81, 0, 0, 12]);
        assert_eq!(untagged(&with, 12), Some(frame.clone()));
        assert_eq!(untagged(&with, 13), None);
        assert_eq!(untagged(&frame, 12), None);
        assert_eq!(untagged(&frame[..13], 12), None);
    }
}
