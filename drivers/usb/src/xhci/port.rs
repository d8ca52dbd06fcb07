//! Root ports (xHCI 1.2, 4.19 and 5.4.8).

use super::Controller;
use super::registers::poll;
use crate::{PortState, Speed, UsbError};
use core::time::Duration;

const CONNECTED: u32 = 1 << 0;
/// A one written to it disables the port.
const ENABLED: u32 = 1 << 1;
const OVER_CURRENT: u32 = 1 << 3;
const RESET: u32 = 1 << 4;
const LINK_SHIFT: u32 = 5;
const POWER: u32 = 1 << 9;
const SPEED_SHIFT: u32 = 10;
/// Bits that keep what is written: power, indicator, wake-up.
const KEPT: u32 = POWER | 0b11 << 14 | 0b111 << 25;
const CONNECT_CHANGE: u32 = 1 << 17;
const RESET_CHANGE: u32 = 1 << 21;
/// All changes; ones clear them.
const CHANGES: u32 = 0x7f << 17;
const WARM_RESET: u32 = 1 << 31;

/// Link states of USB 3 that only a warm reset ends.
const LINK_INACTIVE: u32 = 6;
const LINK_COMPLIANCE: u32 = 10;

/// How long a port may take to reset: 50 ms and some for slow hardware.
const RESET_LIMIT: Duration = Duration::from_millis(500);

impl Controller {
    /// How many root ports there are; they count from 1.
    pub(crate) fn ports(&self) -> u8 {
        self.capabilities.ports
    }

    /// What devices at a port are called when they get a slot.
    pub(super) fn slot_type(&self, port: u8) -> u8 {
        let protocols = self.capabilities.protocols.iter();
        let mut ours = protocols.filter(|p| Self::has(p, port));
        ours.next().map_or(0, |p| p.slot_type)
    }

    fn has(protocol: &super::registers::Protocol, port: u8) -> bool {
        let end = u16::from(protocol.first) + u16::from(protocol.count);
        port >= protocol.first && u16::from(port) < end
    }

    fn is_usb3(&self, port: u8) -> bool {
        let protocols = self.capabilities.protocols.iter();
        protocols
            .filter(|p| p.major >= 3)
            .any(|p| Self::has(p, port))
    }

    /// Switches all ports on.
    pub(super) fn power_ports(&self) {
        for port in 1..=self.capabilities.ports {
            let now = self.registers.port(port);
            self.registers.set_port(port, now & KEPT | POWER);
        }
    }

    /// A port's state; what has changed is taken note of and told once.
    pub(crate) fn port_state(&self, port: u8) -> PortState {
        let now = self.registers.port(port);
        if now == u32::MAX {
            return PortState::default();
        }
        if now & CHANGES != 0 {
            self.registers.set_port(port, now & (KEPT | CHANGES));
        }
        if now & OVER_CURRENT != 0 {
            log::warn!("usb{}: port {port} draws too much current", self.number);
        }
        PortState {
            is_connected: now & CONNECTED != 0,
            has_changed: now & CONNECT_CHANGE != 0,
        }
    }

    /// Resets a port; the speed of what is connected to it.
    ///
    /// # Errors
    /// [`UsbError::Gone`]: nothing is connected. [`UsbError::NoReset`].
    pub(crate) fn reset_port(&self, port: u8, is_first: bool) -> Result<Speed, UsbError> {
        let r = &self.registers;
        let now = r.port(port);
        if now == u32::MAX || now & CONNECTED == 0 {
            return Err(UsbError::Gone);
        }
        let is_usb3 = self.is_usb3(port);
        // A USB 3 link comes up by itself.
        if !(is_usb3 && is_first && now & ENABLED != 0) {
            let link = now >> LINK_SHIFT & 0xf;
            let is_stuck = is_usb3 && matches!(link, LINK_INACTIVE | LINK_COMPLIANCE);
            let reset = if is_stuck { WARM_RESET } else { RESET };
            r.set_port(port, now & KEPT | reset);
            let ended = poll(RESET_LIMIT, || {
                let now = r.port(port);
                now & CONNECTED == 0 || now & (RESET | RESET_CHANGE) == RESET_CHANGE
            });
            let now = r.port(port);
            if now & CONNECTED == 0 {
                return Err(UsbError::Gone);
            }
            // The connection's change stays: whoever was pulled meanwhile is seen.
            let changes = now & CHANGES & !CONNECT_CHANGE;
            r.set_port(port, now & KEPT | changes);
            if !ended {
                return Err(UsbError::NoReset);
            }
        }
        let now = r.port(port);
        if now & ENABLED == 0 {
            return Err(UsbError::NoReset);
        }
        Speed::from_number(now >> SPEED_SHIFT & 0xf).ok_or(UsbError::Nonsense("its speed"))
    }
}
