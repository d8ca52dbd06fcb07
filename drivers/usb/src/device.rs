//! A device that has an address: requests to it, and its configuration.

use crate::descriptor::{self, Configuration, Endpoint, Interface};
use crate::xhci::Controller;
use crate::xhci::context::EndpointShape;
use crate::xhci::slot::{Listener, Outcome, Slot};
use crate::xhci::transfer::Setup;
use crate::{Path, Speed, UsbError, limit};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::dma::{Direction, DmaBuffer, Segment};

/// How long a device may take for a control request.
const REQUEST: Duration = limit(2000);

/// Kinds of requests: the way of the data, whose request it is, whom it is for
/// (USB 2.0, 9.3).
pub(crate) mod kind {
    pub(crate) const TO_DEVICE: u8 = 0x00;
    pub(crate) const FROM_DEVICE: u8 = 0x80;
    pub(crate) const TO_INTERFACE: u8 = 0x01;
    pub(crate) const TO_ENDPOINT: u8 = 0x02;
    pub(crate) const CLASS_TO_INTERFACE: u8 = 0x21;
    pub(crate) const CLASS_FROM_INTERFACE: u8 = 0xa1;
    pub(crate) const CLASS_TO_DEVICE: u8 = 0x20;
    pub(crate) const CLASS_FROM_DEVICE: u8 = 0xa0;
    pub(crate) const CLASS_TO_OTHER: u8 = 0x23;
    pub(crate) const CLASS_FROM_OTHER: u8 = 0xa3;
}

/// Requests every device knows (USB 2.0, 9.4).
const CLEAR_FEATURE: u8 = 1;
const GET_DESCRIPTOR: u8 = 6;
const SET_CONFIGURATION: u8 = 9;
const SET_INTERFACE: u8 = 11;
/// The feature of an endpoint that it is halted.
const HALT: u16 = 0;
const ENGLISH: u16 = 0x0409;
/// Bytes of a string that are read.
const STRING_MAX: u16 = 255;

/// A device.
pub(crate) struct Device {
    controller: Arc<Controller>,
    slot: Arc<Slot>,
    pub(crate) descriptor: descriptor::Device,
    /// Its serial number as it says it; empty for none.
    pub(crate) serial: String,
}

/// Asks for `len` bytes of a descriptor.
fn read_descriptor(
    controller: &Controller,
    slot: &Arc<Slot>,
    what: (u8, u8),
    language: u16,
    len: u16,
) -> Result<Vec<u8>, UsbError> {
    let setup = Setup {
        kind: kind::FROM_DEVICE,
        request: GET_DESCRIPTOR,
        value: u16::from(what.0) << 8 | u16::from(what.1),
        index: language,
        len,
    };
    read(controller, slot, setup)
}

/// Makes a request whose data come from the device; what came.
fn read(controller: &Controller, slot: &Arc<Slot>, setup: Setup) -> Result<Vec<u8>, UsbError> {
    let len = usize::from(setup.len);
    let buffer = DmaBuffer::new(len.max(1)).map_err(|_| UsbError::NoMemory)?;
    let segment = Segment::buffer(buffer, 0..len, Direction::FromDevice);
    let mut outcome = controller.control(slot, setup, Some(segment), REQUEST);
    let came = outcome.result?.min(len);
    let buffer = outcome.memory.pop().and_then(Segment::into_buffer);
    let buffer = buffer.ok_or(UsbError::NoMemory)?;
    Ok(buffer.bytes().get(..came).unwrap_or_default().to_vec())
}

impl Device {
    /// Gets to know the device in `slot`, which has no address yet.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn open(controller: &Arc<Controller>, slot: &Arc<Slot>) -> Result<Device, UsbError> {
        let speed = slot.place.speed;
        let control = EndpointShape::control(speed.control_packet());
        let position = slot.add_endpoint(control)?;
        controller.check_reach(position)?;
        controller.address(slot, false)?;
        if matches!(speed, Speed::Full) {
            // Only its first bytes say how long its packets are.
            let first = (descriptor::DEVICE, 0);
            let start = read_descriptor(controller, slot, first, 0, 8)?;
            let said = start.get(7).copied().unwrap_or(0);
            let packet = descriptor::control_packet(speed, said)?;
            if packet != control.max_packet {
                controller.set_control_packet(slot, packet)?;
            }
        }
        let len = descriptor::DEVICE_LEN as u16;
        let bytes = read_descriptor(controller, slot, (descriptor::DEVICE, 0), 0, len)?;
        let descriptor = descriptor::Device::parse(&bytes)?;
        descriptor::control_packet(speed, descriptor.packet)?;
        let mut device = Device {
            controller: controller.clone(),
            slot: slot.clone(),
            descriptor,
            serial: String::new(),
        };
        device.serial = device.string(descriptor.serial);
        Ok(device)
    }

    pub(crate) fn path(&self) -> Path {
        self.slot.place.path
    }

    pub(crate) fn speed(&self) -> Speed {
        self.slot.place.speed
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.slot.is_gone()
    }

    /// String number `index`; empty if there is none. Devices stall on strings they
    /// should have: that is no reason to refuse them.
    pub(crate) fn string(&self, index: u8) -> String {
        if index == 0 {
            return String::new();
        }
        let what = (descriptor::STRING, index);
        let read = read_descriptor(&self.controller, &self.slot, what, ENGLISH, STRING_MAX);
        read.map_or_else(|_| String::new(), |bytes| descriptor::text(&bytes))
    }

    /// Its configuration number `index`, with all that belongs to it.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn configuration(&self, index: u8) -> Result<Configuration, UsbError> {
        let what = (descriptor::CONFIGURATION, index);
        let read = |len| read_descriptor(&self.controller, &self.slot, what, 0, len);
        let start = read(descriptor::CONFIGURATION_LEN as u16)?;
        let total = descriptor::configuration_len(&start)?;
        Configuration::parse(&read(total)?)
    }

    /// Takes one interface into use, with these endpoints.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn configure(
        &self,
        configuration: u8,
        interface: &Interface,
        endpoints: &[EndpointShape],
    ) -> Result<(), UsbError> {
        self.controller.configure(&self.slot, endpoints)?;
        let value = u16::from(configuration);
        self.ask(kind::TO_DEVICE, SET_CONFIGURATION, value, 0)?;
        if interface.setting != 0 {
            let (setting, number) = (interface.setting, interface.number);
            let (setting, number) = (u16::from(setting), u16::from(number));
            self.ask(kind::TO_INTERFACE, SET_INTERFACE, setting, number)?;
        }
        Ok(())
    }

    /// Makes a request without data.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn ask(
        &self,
        kind: u8,
        request: u8,
        value: u16,
        index: u16,
    ) -> Result<(), UsbError> {
        let setup = Setup {
            kind,
            request,
            value,
            index,
            len: 0,
        };
        let outcome = self.controller.control(&self.slot, setup, None, REQUEST);
        outcome.result.map(drop)
    }

    /// Makes a request whose data, `len` bytes at most, come from the device.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn read(
        &self,
        kind: u8,
        request: u8,
        value: u16,
        index: u16,
        len: u16,
    ) -> Result<Vec<u8>, UsbError> {
        let setup = Setup {
            kind,
            request,
            value,
            index,
            len,
        };
        read(&self.controller, &self.slot, setup)
    }

    /// Has the device let an endpoint go on that it halted.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn clear_halt(&self, endpoint: &Endpoint) -> Result<(), UsbError> {
        let address = u16::from(endpoint.address);
        self.ask(kind::TO_ENDPOINT, CLEAR_FEATURE, HALT, address)
    }

    /// Moves data by a bulk endpoint.
    pub(crate) fn transfer(
        &self,
        endpoint: &EndpointShape,
        memory: Vec<Segment>,
        limit: Duration,
    ) -> Outcome {
        let index = endpoint.index;
        self.controller.transfer(&self.slot, index, memory, limit)
    }

    /// Has `listener` hear of each packet of an interrupt endpoint.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn listen(
        &self,
        endpoint: &EndpointShape,
        len: usize,
        listener: Arc<Listener>,
    ) -> Result<(), UsbError> {
        let buffer = DmaBuffer::new(len).map_err(|_| UsbError::NoMemory)?;
        let memory = Segment::buffer(buffer, 0..len, Direction::FromDevice);
        self.controller
            .listen(&self.slot, endpoint.index, memory, listener)
    }
}
