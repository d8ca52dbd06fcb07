//! The bus thread: the devices there are, as the ports say.

use crate::device::Device;
use crate::hub::{self, Hub};
use crate::storage::{
    Registry,
    transport::{self, Transport},
};
use crate::work::Task;
use crate::xhci::context::Place;
use crate::xhci::{Controller, Counters};
use crate::{Above, Path, PortState, Speed, UsbError, keyboard, sleep};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use machine::block::Trouble;
use machine::thread::Builder;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};

/// How long a connection must stay before it counts (USB 2.0, 7.1.7.3); and how long
/// after its start a controller may take to see what is connected.
const STEADY: Duration = Duration::from_millis(100);
/// A device may rest after its reset (7.1.7.5).
const REST: Duration = Duration::from_millis(10);
/// Times a device is set up before it is left alone.
const TRIES: u32 = 3;
/// Times a device may be reset within [`WHILE`] because it misbehaves, and a
/// controller; after that it is given up.
const RESETS: u32 = 6;
const RESTARTS: u32 = 4;
const WHILE: Duration = Duration::from_secs(60);

/// A bus and all that belongs to it.
pub struct Host {
    controller: Arc<Controller>,
    pub(crate) above: Arc<dyn Above>,
    pub(crate) disks: Registry,
    /// What is still being looked at that was there at the start: see
    /// [`Host::settle`].
    unsettled: AtomicUsize,
    settled: WaitQueue,
}

/// What a device is to us.
enum Role {
    Hub(Arc<Hub>),
    /// Disks, a keyboard, or nothing that there is a driver for.
    Other,
}

struct Node {
    device: Arc<Device>,
    role: Role,
}

/// Times something happened lately.
struct Lately {
    since: Instant,
    times: u32,
}

impl Lately {
    fn new() -> Lately {
        Lately {
            since: Instant::now(),
            times: 0,
        }
    }

    /// Once more; how often that was lately.
    fn count(&mut self) -> u32 {
        if Instant::now().since(self.since) > WHILE {
            *self = Lately::new();
        }
        self.times += 1;
        self.times
    }
}

/// The devices of a bus, in the hands of its thread.
struct Tree {
    host: Arc<Host>,
    nodes: BTreeMap<Path, Node>,
    /// Ports whose device cannot be set up: left alone until something changes.
    hopeless: BTreeSet<Path>,
    resets: BTreeMap<Path, Lately>,
    restarts: Lately,
}

impl Host {
    /// Starts the threads of a controller that was taken into use.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn start(
        controller: Arc<Controller>,
        above: Arc<dyn Above>,
    ) -> Result<Arc<Host>, UsbError> {
        controller.start()?;
        let host = Arc::new(Host {
            controller: controller.clone(),
            above,
            disks: Registry::default(),
            unsettled: AtomicUsize::new(1),
            settled: WaitQueue::new(),
        });
        let served = controller.clone();
        let events = Builder::new("usb-events").spawn(move || served.serve());
        let tree = Tree {
            host: host.clone(),
            nodes: BTreeMap::new(),
            hopeless: BTreeSet::new(),
            resets: BTreeMap::new(),
            restarts: Lately::new(),
        };
        let bus = events.and_then(|_| Builder::new("usb").spawn(move || tree.serve()));
        if bus.is_err() {
            controller.give_up();
            return Err(UsbError::NoMemory);
        }
        Ok(host)
    }

    pub(crate) fn number(&self) -> u8 {
        self.controller.number
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.controller.counters
    }

    /// Sleeps until all that is connected has been looked at and its disks are known,
    /// or until `deadline`; whether it has.
    pub fn settle(&self, deadline: Instant) -> bool {
        let until = Until {
            deadline: Some(deadline),
            interruptible: false,
        };
        let is_done = || (self.unsettled.load(SeqCst) == 0).then_some(());
        self.settled.wait_until(until, is_done).is_ok()
    }

    fn settled(&self) {
        self.unsettled.fetch_sub(1, SeqCst);
        self.settled.wake_all();
    }

    /// Gets to know the disks of a device while others are set up.
    fn start_probe(self: &Arc<Host>, transport: Arc<Transport>) -> Result<(), UsbError> {
        self.unsettled.fetch_add(1, SeqCst);
        let host = self.clone();
        let probe = Builder::new("usb-disk").spawn(move || {
            host.probe(&transport);
            host.settled();
        });
        probe.map(drop).map_err(|_| {
            self.settled();
            UsbError::NoMemory
        })
    }
}

impl Tree {
    fn serve(mut self) {
        self.look_at_all();
        self.host.settled();
        loop {
            match self.controller().work.wait() {
                Task::RootPort(port) => self.look(Path { port, route: 0 }, false),
                Task::Hub(hub, ports) => {
                    for port in (1..=15).filter(|port| ports & 1 << port != 0) {
                        if let Some(path) = hub.below(port) {
                            self.look(path, false);
                        }
                    }
                }
                Task::Reset(path) => self.reset(path),
                Task::Restart => {
                    if !self.restart() {
                        return;
                    }
                }
            }
        }
    }

    fn controller(&self) -> &Arc<Controller> {
        &self.host.controller
    }

    /// Looks at all root ports after the controller's start.
    fn look_at_all(&mut self) {
        let controller = self.controller().clone();
        let all = 1..=controller.ports();
        // Where nothing is connected, nothing has to be waited for after this.
        sleep(STEADY);
        for port in all {
            self.look(Path { port, route: 0 }, true);
        }
    }

    /// The hub a port belongs to, and its number there; no hub for a root port.
    fn port(&self, path: Path) -> Result<(Option<Arc<Hub>>, u8), UsbError> {
        let Some(depth) = path.depth().checked_sub(1) else {
            return Ok((None, path.port));
        };
        let shift = 4 * depth;
        let hub = Path {
            port: path.port,
            route: path.route & ((1 << shift) - 1),
        };
        match self.nodes.get(&hub).map(|n| &n.role) {
            Some(Role::Hub(hub)) => Ok((Some(hub.clone()), (path.route >> shift & 0xf) as u8)),
            _ => Err(UsbError::Gone),
        }
    }

    fn port_state(&self, path: Path) -> Result<PortState, UsbError> {
        match self.port(path)? {
            (None, port) => Ok(self.controller().port_state(port)),
            (Some(hub), port) => hub.port_state(port),
        }
    }

    /// Looks at a port: takes away what was pulled, sets up what was plugged in.
    fn look(&mut self, path: Path, is_steady: bool) {
        let state = match self.port_state(path) {
            Ok(state) => state,
            Err(UsbError::Gone) => return,
            Err(e) => {
                log::warn!("usb{}: port {path}: {e}", self.host.number());
                if let Ok((Some(hub), _)) = self.port(path) {
                    self.reset(hub.device().path());
                }
                return;
            }
        };
        if !state.is_connected || state.has_changed {
            self.hopeless.remove(&path);
            if self.nodes.contains_key(&path) {
                self.take_away(path);
                self.host.disks_gone(Some(path), Trouble::Pulled);
            }
        }
        if !state.is_connected || self.nodes.contains_key(&path) || self.hopeless.contains(&path) {
            return;
        }
        if !is_steady {
            sleep(STEADY);
        }
        self.set_up(path);
    }

    /// Takes away the device at `path` and all behind it, the farthest first.
    fn take_away(&mut self, path: Path) {
        let paths: Vec<Path> = {
            let all = self.nodes.keys().copied();
            all.filter(|p| p.is_within(path)).collect()
        };
        let mut nodes: Vec<_> = paths.iter().filter_map(|p| self.nodes.remove(p)).collect();
        nodes.sort_by_key(|n| core::cmp::Reverse(n.device.path().depth()));
        for node in nodes {
            self.controller().disable_slot(node.device.slot());
        }
    }

    /// Sets up what is connected at `path`.
    fn set_up(&mut self, path: Path) {
        for attempt in 0..TRIES {
            match self.try_set_up(path, attempt == 0) {
                Ok(()) => return,
                Err(UsbError::Gone) => return,
                Err(e) => log::warn!("usb{}: port {path}: {e}", self.host.number()),
            }
            if !self.controller().is_running() {
                return;
            }
            sleep(STEADY * (1 << attempt));
        }
        log::error!("usb{}: port {path} is left alone", self.host.number());
        self.hopeless.insert(path);
    }

    fn try_set_up(&mut self, path: Path, is_first: bool) -> Result<(), UsbError> {
        let speed = match self.port(path)? {
            (None, port) => self.controller().reset_port(port, is_first)?,
            (Some(hub), port) => hub.reset_port(port)?,
        };
        sleep(REST);
        let place = Place {
            path,
            speed,
            translator: self.translator(path, speed),
        };
        let slot = self.controller().enable_slot(place)?;
        let role = Device::open(self.controller(), &slot).and_then(|device| {
            let device = Arc::new(device);
            let role = self.give_role(&device)?;
            Ok(Node { device, role })
        });
        let node = match role {
            Ok(node) => node,
            Err(e) => {
                self.controller().disable_slot(&slot);
                return Err(e);
            }
        };
        let behind = match &node.role {
            Role::Hub(hub) => hub.ports(),
            Role::Other => 0,
        };
        self.nodes.insert(path, node);
        for port in 1..=behind {
            if let Some(path) = path.below(port) {
                self.look(path, true);
            }
        }
        Ok(())
    }

    /// The fast hub that translates for a slow device: its slot, and its port on the
    /// way to the device.
    fn translator(&self, path: Path, speed: Speed) -> Option<(u8, u8)> {
        if !matches!(speed, Speed::Low | Speed::Full) {
            return None;
        }
        (0..path.depth()).rev().find_map(|depth| {
            let shift = 4 * depth;
            let hub = Path {
                port: path.port,
                route: path.route & ((1 << shift) - 1),
            };
            let device = &self.nodes.get(&hub)?.device;
            let port = (path.route >> shift & 0xf) as u8;
            (device.speed() == Speed::High).then_some((device.slot().number, port))
        })
    }

    /// Finds the driver for a device.
    fn give_role(&self, device: &Arc<Device>) -> Result<Role, UsbError> {
        let (path, d) = (device.path(), device.descriptor);
        let (vendor, product) = (d.vendor, d.product);
        let tell = |what: &str| {
            let number = self.host.number();
            log::info!("usb{number}: {what} at port {path} ({vendor:04x}:{product:04x})");
        };
        if d.configurations == 0 {
            return Err(UsbError::Nonsense("no configuration"));
        }
        let configuration = device.configuration(0)?;
        let value = configuration.value;
        if let Some(interface) = hub::interface(&configuration) {
            let hub = Hub::start(device.clone(), value, interface)?;
            tell("hub");
            return Ok(Role::Hub(Arc::new(hub)));
        }
        if let Some(interface) = transport::interface(&configuration) {
            let transport = Transport::start(device.clone(), value, interface)?;
            tell("disk");
            self.host.start_probe(Arc::new(transport))?;
        } else if let Some(interface) = keyboard::interface(&configuration) {
            keyboard::start(device, value, interface, self.host.above.clone())?;
            tell("keyboard");
        } else {
            tell("nothing known");
        }
        Ok(Role::Other)
    }

    /// Resets a device that misbehaves. Its disks go on if it comes back as the same.
    fn reset(&mut self, path: Path) {
        if !self.nodes.contains_key(&path) {
            return;
        }
        let times = self.resets.entry(path).or_insert_with(Lately::new).count();
        let counters = &self.controller().counters;
        counters.device_resets.fetch_add(1, SeqCst);
        self.host.disks_away(Some(path));
        self.take_away(path);
        let mut why = Trouble::GivenUp;
        if times > RESETS {
            log::error!(
                "usb{}: the device at port {path} is given up",
                self.host.number()
            );
            self.hopeless.insert(path);
        } else {
            log::warn!(
                "usb{}: the device at port {path} is reset",
                self.host.number()
            );
            if self.set_up_again(path) == Err(UsbError::Gone) {
                // That is why it did not answer.
                why = Trouble::Pulled;
            }
        }
        if !self.nodes.contains_key(&path) && self.controller().is_running() {
            self.host.disks_gone(Some(path), why);
        }
    }

    fn set_up_again(&mut self, path: Path) -> Result<(), UsbError> {
        // The reset of the port comes with setting up; a USB 3 port has one too.
        for attempt in 1..=TRIES {
            match self.try_set_up(path, false) {
                Err(e) if e != UsbError::Gone => {
                    log::warn!("usb{}: port {path}: {e}", self.host.number());
                }
                ended => return ended,
            }
            if !self.controller().is_running() {
                break;
            }
            sleep(STEADY * attempt);
        }
        self.hopeless.insert(path);
        Err(UsbError::NoReset)
    }

    /// Starts the controller anew after it has failed; whether it works again.
    fn restart(&mut self) -> bool {
        self.nodes.clear();
        self.hopeless.clear();
        self.host.disks_away(None);
        if self.restarts.count() <= RESTARTS {
            for attempt in 0..TRIES {
                match self.controller().start() {
                    Ok(()) => {
                        self.look_at_all();
                        return true;
                    }
                    Err(e) => log::warn!("usb{}: the controller: {e}", self.host.number()),
                }
                sleep(STEADY * (1 << attempt));
            }
        }
        log::error!("usb{}: the controller is given up", self.host.number());
        self.controller().give_up();
        self.host.disks_gone(None, Trouble::GivenUp);
        false
    }
}
