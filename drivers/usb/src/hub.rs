//! Hubs (USB 2.0, 11; USB 3.2, 10).

use crate::descriptor::{Configuration, Interface};
use crate::device::{Device, kind};
use crate::work::Task;
use crate::xhci::context::{EndpointShape, HubShape};
use crate::xhci::slot::Outcome;
use crate::{PortState, Speed, UsbError, sleep};
use alloc::sync::Arc;
use core::time::Duration;
use machine::time::Instant;

const CLASS: u8 = 9;
/// Types of a hub's own descriptor.
const DESCRIPTOR: u8 = 0x29;
const DESCRIPTOR_USB3: u8 = 0x2a;

/// Requests (11.24.2; USB 3.2, 10.16.2).
const GET_STATUS: u8 = 0;
const CLEAR_FEATURE: u8 = 1;
const SET_FEATURE: u8 = 3;
const GET_DESCRIPTOR: u8 = 6;
const SET_DEPTH: u8 = 12;

/// Features of a port.
const PORT_RESET: u16 = 4;
const PORT_POWER: u16 = 8;

/// In a port's status.
const CONNECTED: u16 = 1 << 0;
const ENABLED: u16 = 1 << 1;
const OVER_CURRENT: u16 = 1 << 3;
const RESETTING: u16 = 1 << 4;
const LOW_SPEED: u16 = 1 << 9;
const HIGH_SPEED: u16 = 1 << 10;
/// In what has changed.
const CONNECT_CHANGE: u16 = 1 << 0;
const RESET_CHANGE: u16 = 1 << 4;
/// What has changed, with the feature whose clearing takes note of it.
const CHANGES: [(u16, u16); 8] = [
    (CONNECT_CHANGE, 16),
    (1 << 1, 17),
    (1 << 2, 18),
    (1 << 3, 19),
    (RESET_CHANGE, 20),
    (1 << 5, 29),
    (1 << 6, 25),
    (1 << 7, 26),
];

/// Ports a route string has room for.
const PORTS_MAX: u8 = 15;
/// Bytes of the longest message about ports: a bit for the hub and each port.
const MESSAGE: usize = 32;
/// How long a port may take to reset, and the pause between two looks.
const RESET_LIMIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// A hub.
pub(crate) struct Hub {
    device: Arc<Device>,
    ports: u8,
}

/// The interface by which a device is a hub.
pub(crate) fn interface(configuration: &Configuration) -> Option<&Interface> {
    let mut all = configuration.interfaces.iter();
    all.find(|i| i.class.0 == CLASS && i.setting == 0)
}

impl Hub {
    /// Takes a hub into use and switches its ports on.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn start(
        device: Arc<Device>,
        configuration: u8,
        interface: &Interface,
    ) -> Result<Hub, UsbError> {
        let endpoint = interface.interrupt();
        let endpoint = endpoint.ok_or(UsbError::Nonsense("a hub without an endpoint"))?;
        let endpoint = endpoint.shape(device.speed())?;
        device.configure(configuration, interface, &[endpoint])?;
        let is_usb3 = device.speed().is_usb3();
        let what = if is_usb3 { DESCRIPTOR_USB3 } else { DESCRIPTOR };
        let value = u16::from(what) << 8;
        let said = device.read(kind::CLASS_FROM_DEVICE, GET_DESCRIPTOR, value, 0, 12)?;
        let (ports, traits, power) = match said[..] {
            [_, kind, ports, traits, _, power, ..] if kind == what => (ports, traits, power),
            _ => return Err(UsbError::Nonsense("its hub descriptor")),
        };
        let ports = ports.min(PORTS_MAX);
        let shape = HubShape {
            ports,
            think_time: traits >> 5 & 3,
        };
        let (controller, slot) = (device.controller(), device.slot());
        controller.set_hub(slot, endpoint.index, shape)?;
        if is_usb3 {
            let depth = device.path().depth();
            device.ask(kind::CLASS_TO_DEVICE, SET_DEPTH, depth as u16, 0)?;
        }
        let hub = Hub { device, ports };
        for port in 1..=ports {
            hub.set(SET_FEATURE, PORT_POWER, port)?;
        }
        // In units of two milliseconds.
        sleep(Duration::from_millis(u64::from(power) * 2));
        hub.listen(&endpoint)?;
        Ok(hub)
    }

    /// Has the bus thread look at ports that change.
    fn listen(&self, endpoint: &EndpointShape) -> Result<(), UsbError> {
        let path = self.device.path();
        let controller = self.device.controller().clone();
        let heard = move |outcome: Outcome| {
            if let Err(e) = outcome.result {
                if e != UsbError::Gone {
                    controller.work.add(Task::Reset(path));
                }
                return None;
            }
            let buffer = outcome.memory.first().and_then(|s| s.as_buffer());
            let bytes = buffer.map(|b| b.bytes()).unwrap_or_default();
            let bytes = bytes.get(..outcome.result.unwrap_or(0).min(4));
            let bytes = bytes.unwrap_or_default().iter().rev();
            let ports = bytes.fold(0, |all, byte| all << 8 | u32::from(*byte));
            controller.work.add(Task::Hub(path, ports));
            Some(outcome.memory)
        };
        // Never more than a packet, which the hub ends by itself.
        let len = usize::from(endpoint.max_packet).min(MESSAGE);
        self.device.listen(endpoint, len, Arc::new(heard))
    }

    /// How many ports it has; they count from 1.
    pub(crate) fn ports(&self) -> u8 {
        self.ports
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    fn set(&self, request: u8, feature: u16, port: u8) -> Result<(), UsbError> {
        let port = u16::from(port);
        self.device
            .ask(kind::CLASS_TO_OTHER, request, feature, port)
    }

    /// A port's status and what has changed.
    fn status(&self, port: u8) -> Result<(u16, u16), UsbError> {
        let port = u16::from(port);
        let said = self
            .device
            .read(kind::CLASS_FROM_OTHER, GET_STATUS, 0, port, 4)?;
        match said[..] {
            [a, b, c, d] => Ok((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))),
            _ => Err(UsbError::Nonsense("the status of a port")),
        }
    }

    fn clear(&self, port: u8, changes: u16) -> Result<(), UsbError> {
        for (bit, feature) in CHANGES {
            if changes & bit != 0 {
                self.set(CLEAR_FEATURE, feature, port)?;
            }
        }
        Ok(())
    }

    /// A port's state; what has changed is taken note of and told once.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn port_state(&self, port: u8) -> Result<PortState, UsbError> {
        let (status, changes) = self.status(port)?;
        self.clear(port, changes)?;
        if status & OVER_CURRENT != 0 {
            let path = self.device.path();
            log::warn!("usb: port {port} of hub {path} draws too much current");
        }
        Ok(PortState {
            is_connected: status & CONNECTED != 0,
            has_changed: changes & CONNECT_CHANGE != 0,
        })
    }

    /// Resets a port; the speed of what is connected to it.
    ///
    /// # Errors
    /// [`UsbError::Gone`]: nothing is connected. [`UsbError::NoReset`].
    pub(crate) fn reset_port(&self, port: u8) -> Result<Speed, UsbError> {
        self.set(SET_FEATURE, PORT_RESET, port)?;
        let deadline = Instant::now().after(RESET_LIMIT);
        let status = loop {
            sleep(PAUSE);
            let (status, changes) = self.status(port)?;
            if status & CONNECTED == 0 {
                return Err(UsbError::Gone);
            }
            if status & RESETTING == 0 && changes & RESET_CHANGE != 0 {
                // The connection's change stays, so that it is seen.
                self.clear(port, changes & !CONNECT_CHANGE)?;
                break status;
            }
            if Instant::now() >= deadline {
                return Err(UsbError::NoReset);
            }
        };
        if status & ENABLED == 0 {
            return Err(UsbError::NoReset);
        }
        if self.device.speed().is_usb3() {
            return Ok(Speed::Super);
        }
        Ok(match status & (LOW_SPEED | HIGH_SPEED) {
            LOW_SPEED => Speed::Low,
            HIGH_SPEED => Speed::High,
            _ => Speed::Full,
        })
    }
}
