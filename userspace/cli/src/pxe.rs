//! `skep pxe serve`: boots the machines of a network.
//!
//! A DHCP server, beside the network's own or instead of it, tells firmware what to
//! boot; TFTP and HTTP give it to them. UEFI loads our boot loader, which fetches the release
//! in the same way as it came; a BIOS loads iPXE, which starts from the disk image over HTTP.

mod body;
mod dhcp;
mod files;
mod http;
mod interface;
mod lease;
mod listen;
mod machines;
mod offer;
mod tftp;
mod watch;

use crate::key;
use crate::medium::make::System;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use dhcp::Mac;
use files::Release;
use interface::Interface;
use lease::Pool;
use listen::{Listeners, converse};
use offer::{Network, Offers, Port};
use skep_image::release::Signing;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::rc::Rc;
use tokio::task::{LocalSet, spawn_local};
use watch::{Console, Watch};

/// Boot machines over the network.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PxeAction {
    /// Serve the machines of a network until interrupted
    Serve(ServeArgs),
}

/// What to serve, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Network interface on which the machines are [default: the only one with an address]
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// Give addresses too, from this range: only where no other DHCP server is
    #[arg(long, value_name = "FIRST-LAST")]
    dhcp: Option<String>,
    /// The router that machines with our addresses use
    #[arg(long, value_name = "ADDRESS", requires = "dhcp")]
    router: Option<Ipv4Addr>,
    /// A name server that machines with our addresses use (repeat for more)
    #[arg(long, value_name = "ADDRESS", requires = "dhcp")]
    dns: Vec<Ipv4Addr>,
    /// Configurations of single machines, by hardware address or serial number
    #[arg(long, value_name = "FILE")]
    machines: Option<PathBuf>,
    /// Folder of the system: skep-kernel and loaders [default: where this program is]
    #[arg(long, value_name = "FOLDER", env = "SKEP_SYSTEM")]
    system: Option<PathBuf>,
    /// The nodes' ramdisk, made by 'skep bundle' [default: ramdisk in the system's folder]
    #[arg(long, value_name = "FILE")]
    ramdisk: Option<PathBuf>,
    /// The owner's secret key, which signs what machines start: a TPM that keeps a node's key
    /// opens it to whatever this key has signed [default: a key that is forgotten at the end]
    #[arg(short, long, value_name = "FILE", env = "SKEP_KEY")]
    key: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    command_line: String,
    /// Port of the web server
    #[arg(long, value_name = "PORT", default_value_t = 8067)]
    http_port: u16,
}

/// Serves until it is interrupted.
pub(crate) fn run(action: &PxeAction) -> Result<()> {
    let PxeAction::Serve(args) = action;
    let interface = interface::find(args.interface.as_deref())?;
    let offers = offers(args, &interface)?;
    let system = System::load(args.system.as_deref())?;
    let path = args
        .ramdisk
        .clone()
        .unwrap_or_else(|| system.folder.join("ramdisk"));
    let ramdisk = fs::read(&path).with_context(|| {
        format!(
            "cannot read {}; 'skep bundle' makes a ramdisk",
            path.display()
        )
    })?;
    let machines = args.machines.as_deref().map(machines::read).transpose()?;
    let folder = tempfile::tempdir().context("no place for images")?;
    let key = match &args.key {
        Some(path) => key::load(path)?,
        None => key::passing()?,
    };
    let mut signing = Signing::new(key, 1);
    signing.command_line.clone_from(&args.command_line);
    let machines = machines.unwrap_or_default();
    let release = Release::new(system, signing, ramdisk, machines, folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    LocalSet::new().block_on(&runtime, serve(interface, offers, release))
}

/// What is offered to whom.
fn offers(args: &ServeArgs, interface: &Interface) -> Result<Offers> {
    let network = match &args.dhcp {
        None => None,
        Some(range) => Some(Network {
            pool: Pool::parse(range, interface.address)?,
            prefix: interface.prefix,
            router: args.router,
            dns: args.dns.clone(),
        }),
    };
    ensure!(args.dns.len() <= 8, "at most 8 name servers");
    Ok(Offers {
        server: interface.address,
        http_port: args.http_port,
        network,
    })
}

/// Serves until an interrupt.
async fn serve(interface: Interface, offers: Offers, release: Release) -> Result<()> {
    let listeners = Listeners::open(&interface, offers.http_port).await?;
    let root = offers.url("");
    let release = Rc::new(release);
    let clients = Rc::new(Clients::default());
    let watch: Rc<dyn Watch> = Rc::new(Console::new(clients.clone(), release.clone()));
    let way = match offers.network {
        Some(_) => "giving addresses",
        None => "beside the network's DHCP server",
    };
    let (name, address) = (&interface.name, interface.address);
    eprintln!(
        "serving {name} ({address}), {way}; for a BIOS {root}/{}, for UEFI {root}/{}",
        offer::IMAGE,
        offer::UEFI_LOADER
    );
    if !release.has_bios_loader() {
        eprintln!("machines with a BIOS cannot start: install Debian's package ipxe");
    }
    let offers = Rc::new(RefCell::new(offers));
    let server = || (offers.clone(), clients.clone(), watch.clone());
    spawn_local(converse(listeners.dhcp, Port::Dhcp, server()));
    spawn_local(converse(listeners.boot, Port::Boot, server()));
    let files = Rc::new(Shelf {
        release: release.clone(),
        clients: clients.clone(),
        watch: watch.clone(),
    });
    spawn_local(tftp::serve(
        listeners.tftp,
        interface.address,
        files,
        watch.clone(),
    ));
    let site = http::Site {
        release,
        clients,
        watch,
        root,
    };
    spawn_local(http::serve(listeners.http, Rc::new(site)));
    tokio::signal::ctrl_c()
        .await
        .context("cannot wait for an interrupt")
}

/// Files by TFTP, for whoever asks.
struct Shelf {
    release: Rc<Release>,
    clients: Rc<Clients>,
    watch: Rc<dyn Watch>,
}

impl tftp::Files for Shelf {
    fn open(&self, client: Ipv4Addr, name: &str) -> Option<Bytes> {
        let mac = self.clients.mac(client.into());
        let file = self.release.file(self.release.profile(mac, None), name);
        file.unwrap_or_else(|error| {
            self.watch.note(client.into(), &format!("{error:#}"));
            None
        })
    }
}

/// Which machine has which address.
#[derive(Debug, Default)]
pub(crate) struct Clients(RefCell<HashMap<Ipv4Addr, Mac>>);

/// Machines kept in mind at most.
const CLIENTS_MAX: usize = 4096;

impl Clients {
    /// A machine said, or was told, its address.
    fn note(&self, address: Ipv4Addr, mac: Mac) {
        let mut known = self.0.borrow_mut();
        if !address.is_unspecified() && (known.len() < CLIENTS_MAX || known.contains_key(&address))
        {
            known.insert(address, mac);
        }
    }

    /// The hardware address of a client: what the kernel knows of its neighbours counts
    /// more than what was said.
    fn mac(&self, client: IpAddr) -> Option<Mac> {
        let IpAddr::V4(client) = client else {
            return None;
        };
        let table = fs::read_to_string("/proc/net/arp").unwrap_or_default();
        interface::neighbour(&table, client).or_else(|| self.0.borrow().get(&client).copied())
    }
}
