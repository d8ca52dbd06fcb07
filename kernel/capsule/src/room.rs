//! All capsules of the node, and what they have in common.

use crate::blobs::BlobStore;
use crate::capsule::Capsule;
use crate::disks::Disks;
use crate::events::Hub;
use crate::guard::Guard;
use crate::image::Image;
use crate::keeper::{Job, Keeper};
use crate::log_ring::Log;
use crate::owners::OwnersFiles;
use crate::platform::{BootLog, Platform};
use crate::slots::{Slots, Started};
use crate::trial::Trial;
use crate::verify::{Manifests, brief, words};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use machine::sync::Mutex;
use machine::time::Instant;
use net::{NetEvent, NetNode};
use skep_api::Hash;
use skep_api::control::{
    CAPSULES_MAX, CapsuleId, ControlError, Event, ExecId, Refusal, SettingsInfo,
};
use skep_api::node::NodeConfig;

/// What the room is built from.
pub struct Setup {
    /// The content of the bundle.
    pub store: Arc<BlobStore>,
    /// The node's configuration.
    pub config: NodeConfig,
    /// What its owner wrote beside it.
    pub owners: OwnersFiles,
    /// The node's network.
    pub net: Arc<NetNode>,
    /// The node's disks, to be granted.
    pub disks: Arc<Disks>,
    /// What the node was started from.
    pub started: Started,
    /// The machine.
    pub platform: Box<dyn Platform>,
    /// What feeds the watchdog; `None` in tests.
    pub guard: Option<Arc<Guard>>,
    /// When the steps of the boot were done.
    pub boot: &'static BootLog,
}

/// The capsules of a node.
pub struct Capsules {
    pub(crate) store: Arc<BlobStore>,
    pub(crate) config: NodeConfig,
    pub(crate) settings: SettingsInfo,
    pub(crate) manifests: Manifests,
    pub(crate) net: Arc<NetNode>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) slots: Slots,
    pub(crate) trial: Trial,
    pub(crate) platform: Box<dyn Platform>,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) boot: &'static BootLog,
    pub(crate) boot_id: [u8; 16],
    pub(crate) hub: Arc<Hub>,
    pub(crate) keeper: Keeper,
    registry: Mutex<Registry>,
    /// Held while a capsule is being started: one at a time.
    pub(crate) starting: Mutex<()>,
    /// Images in use or used before; they are small beside their content, and
    /// checking them twice would delay every restart.
    images: Mutex<BTreeMap<Hash, Arc<Image>>>,
    /// What the 3Bot asked to be kept for its next life.
    pub(crate) saved: Mutex<Vec<u8>>,
    /// What was asked of the last profile.
    pub(crate) profile: Mutex<crate::profile::Asked>,
    /// How often the system capsule was started.
    pub(crate) agent_starts: AtomicU32,
    /// Whether the node has had an address in this boot.
    had_address: AtomicBool,
    /// The node goes down: nothing is started any more.
    pub(crate) closing: AtomicBool,
    pub(crate) past: Mutex<Past>,
    next_exec: AtomicU32,
    /// Openings of the control device.
    pub(crate) sessions: AtomicUsize,
    /// What was last said about the system capsule, and when.
    pub(crate) complaint: Mutex<Option<(String, Instant)>>,
}

#[derive(Default)]
struct Registry {
    capsules: BTreeMap<String, Arc<Capsule>>,
    logs: BTreeMap<String, Arc<Log>>,
    next_id: u32,
}

/// What capsules that are gone have used.
#[derive(Default)]
pub(crate) struct Past {
    /// CPU time in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// System calls that the kernel does not have, by number.
    pub(crate) unknown: BTreeMap<u32, u64>,
}

impl Capsules {
    /// The room, with no capsule yet, and its thread.
    ///
    /// # Errors
    /// No memory for the thread.
    #[inline(never)]
    pub fn new(setup: Setup) -> Result<Arc<Capsules>, machine::AllocError> {
        let mut boot_id = [0; 16];
        machine::random::fill(&mut boot_id);
        let OwnersFiles {
            maker,
            manifests: own,
            info: settings,
            ..
        } = setup.owners;
        let mut manifests = Manifests::new(setup.store.bundle(), &setup.config, maker);
        for (name, bytes) in own {
            manifests.add(name, bytes);
        }
        let room = Arc::new(Capsules {
            store: setup.store,
            config: setup.config,
            settings,
            manifests,
            net: setup.net,
            disks: setup.disks,
            slots: Slots::new(setup.started),
            trial: Trial::default(),
            platform: setup.platform,
            guard: setup.guard,
            boot: setup.boot,
            boot_id,
            hub: Hub::new(),
            keeper: Keeper::new(),
            registry: Mutex::new(Registry::default()),
            starting: Mutex::new(()),
            images: Mutex::new(BTreeMap::new()),
            saved: Mutex::new(Vec::new()),
            profile: Mutex::default(),
            agent_starts: AtomicU32::new(0),
            had_address: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            past: Mutex::new(Past::default()),
            next_exec: AtomicU32::new(1),
            sessions: AtomicUsize::new(0),
            complaint: Mutex::new(None),
        });
        Keeper::start(&room)?;
        Ok(room)
    }

    /// Lets the room work: it starts the system capsule and hears of the network
    /// and of the disks.
    #[inline(never)]
    pub fn begin(self: &Arc<Self>) {
        self.disks.report_to(&self.hub);
        if self.watch_disks().is_err() {
            log::warn!("no memory to watch over the disks' health");
        }
        let weak = Arc::downgrade(self);
        self.net.observe(move |event| {
            if let Some(room) = weak.upgrade() {
                room.network_changed(event);
            }
        });
        self.watch_trial();
        self.keeper.tell(Job::Begin);
    }

    /// Says on the console which manifests of the bundle are refused, and why.
    #[inline(never)]
    pub fn report_refusals(&self) {
        for entry in self.manifests.list() {
            if let Some(refusal) = entry.refusal {
                log::warn!("manifest {} is refused: {}", entry.name, words(&refusal));
            }
        }
    }

    fn network_changed(&self, event: NetEvent) {
        let interface = || String::from("eth0");
        match event {
            NetEvent::LinkUp => {
                log::info!("network link is up");
                let interface = interface();
                self.hub.emit(Event::LinkUp { interface });
            }
            NetEvent::LinkDown => {
                log::warn!("network link is down");
                let interface = interface();
                self.hub.emit(Event::LinkDown { interface });
            }
            NetEvent::LinkMoved => {
                let device = String::from(self.net.link_name().unwrap_or_default());
                log::info!("the network is reached by {device} now");
                let interface = interface();
                self.hub.emit(Event::LinkMoved { interface, device });
            }
            NetEvent::AddressAcquired(ip) => {
                log::info!("the node's address is {ip}");
                if !self.had_address.swap(true, Relaxed) {
                    self.boot.done("first address");
                }
            }
            NetEvent::AddressLost(ip) => log::warn!("the node has lost its address {ip}"),
        }
        self.keeper.tell(Job::NetworkChanged);
    }

    /// Where events come together.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The node's configuration.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The manifests of the bundle.
    #[must_use]
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Capsules alive and records of those that have ended, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Capsule>> {
        self.registry.lock().capsules.values().cloned().collect()
    }

    /// The capsule, or the record of one, of that number.
    #[must_use]
    pub fn by_id(&self, id: CapsuleId) -> Option<Arc<Capsule>> {
        let registry = self.registry.lock();
        registry.capsules.values().find(|c| c.id() == id).cloned()
    }

    /// The capsule, or the record of one, of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Capsule>> {
        self.registry.lock().capsules.get(name).cloned()
    }

    /// The log of the capsules of that name.
    #[must_use]
    pub fn log(&self, name: &str) -> Option<Arc<Log>> {
        self.registry.lock().logs.get(name).cloned()
    }

    pub(crate) fn exec_id(&self) -> ExecId {
        ExecId(self.next_exec.fetch_add(1, Relaxed))
    }

    /// A number for a capsule called `name`, and its log, if none of that name is
    /// alive and there is room for another.
    pub(crate) fn enrol(&self, name: &str) -> Result<(CapsuleId, Arc<Log>), ControlError> {
        let mut registry = self.registry.lock();
        match registry.capsules.get(name) {
            Some(old) if old.is_alive() => {
                return Err(ControlError::AlreadyRunning { capsule: old.id() });
            }
            Some(_) => {}
            None if registry.capsules.len() >= CAPSULES_MAX => {
                return Err(ControlError::NoResources);
            }
            None => {}
        }
        let id = registry.next_id.checked_add(1);
        registry.next_id = id.ok_or(ControlError::NoResources)?;
        let id = CapsuleId(registry.next_id);
        if !registry.logs.contains_key(name) && registry.logs.len() >= CAPSULES_MAX {
            return Err(ControlError::NoResources);
        }
        let log = registry
            .logs
            .entry(String::from(name))
            .or_insert_with(|| Log::new(self.hub.clone()))
            .clone();
        log.set_writer(id);
        Ok((id, log))
    }

    /// Puts `capsule` in the place of the last one of its name.
    pub(crate) fn record(&self, capsule: &Arc<Capsule>) {
        let mut registry = self.registry.lock();
        let name = String::from(capsule.name());
        let old = registry.capsules.insert(name, capsule.clone());
        drop(registry);
        drop(old);
    }

    /// The image of the tree `root`.
    pub(crate) fn image(&self, root: Hash) -> Result<Arc<Image>, ControlError> {
        let mut images = self.images.lock();
        if let Some(image) = images.get(&root) {
            return Ok(image.clone());
        }
        let image = Image::open(&self.store, root).map_err(|e| refused(&e))?;
        images.insert(root, image.clone());
        Ok(image)
    }
}

/// How trouble with a blob is told.
pub(crate) fn refused(error: &crate::blobs::BlobError) -> ControlError {
    use crate::blobs::BlobError;
    ControlError::Refused(match error {
        BlobError::Missing(hash) => Refusal::BlobMissing(hash.0),
        BlobError::Corrupt(hash) => Refusal::BlobCorrupt(hash.0),
        BlobError::PastEnd => Refusal::Malformed(brief("a file is longer than its blob")),
        BlobError::NoMemory => return ControlError::NoResources,
    })
}
