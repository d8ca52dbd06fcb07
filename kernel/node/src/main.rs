//! The kernel binary: the order of boot, read aloud.
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
#![no_main]

extern crate alloc;

mod console;
mod devices;
mod hardware;
mod network;
mod options;
mod platform;
mod ramdisk;
mod settings;
mod trust;
mod usb;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use capsule::{BootLog, Capsules, Guard, KERNEL, Setup, Started};
use core::time::Duration;
use machine::boot::Ramdisk;
use machine::thread::{self, Builder};
use machine::time::Instant;
use net::NetNode;
use options::Options;
use platform::Machine;
use ramdisk::Found;
use skep_api::boot::Handover;
use skep_api::node::{Console, LogLevel};
use trust::{NodeKey, Trust};

static BOOT: BootLog = BootLog::new();

/// How often a node that cannot do its work says why.
const REMINDER: Duration = Duration::from_secs(60);

/// How long the reason for going back to the release before stays on the screen.
const GOING_BACK: Duration = Duration::from_secs(5);

/// What the kernel does once threads run.
#[expect(
    unsafe_code,
    reason = "the machine room finds the kernel's main function by this name"
)]
#[unsafe(no_mangle)]
fn skep_main() {
    log::info!("{KERNEL} on {} CPUs", machine::cpu::count());
    platform::tell_of_crash();
    let (found, handover) = ramdisk::split();
    log_start(handover.as_ref());
    let slot = handover.as_ref().and_then(|said| said.slot);
    let started = Guard::start(skep_watchdog::find())
        .map_err(|_| no_memory())
        .and_then(|guard| start(guard, found, handover));
    match started {
        Ok(()) => {}
        Err(why) if slot.is_some_and(|slot| slot.is_trial) => go_back(&why),
        Err(why) => stay_idle(&why),
    }
}

/// Writes down what was before the kernel's threads: by the processor's counter, which begins
/// with its power and which a loader of ours has read too.
fn log_start(handover: Option<&Handover>) {
    let done = |name, counter| BOOT.done_at(name, machine::boot::ns_of_counter(counter));
    done("power on", 0);
    if let Some(times) = handover.and_then(|said| said.times) {
        done("firmware", times.started);
        done("release read and checked", times.checked);
    }
    done("kernel entered", machine::boot::entered());
    BOOT.done("machine");
}

/// Everything from the ramdisk to the 3Bot; why not, in words. Its steps are not inlined:
/// in one frame they would need the whole stack of the thread, each its part for ever.
fn start(
    guard: Arc<Guard>,
    found: Option<Found>,
    handover: Option<Handover>,
) -> Result<(), String> {
    let options = handover.as_ref().map(|said| said.command_line.as_str());
    let direct = core::str::from_utf8(machine::boot::command_line()).unwrap_or_else(|_| {
        log::warn!("the command line is no text");
        ""
    });
    let options = Options::parse(&[options.unwrap_or_default(), direct]);
    let is_packed = found.as_ref().is_some_and(Found::is_packed);
    let unpacked = ramdisk::unpack(found);
    if is_packed {
        BOOT.done("ramdisk unpacked");
    }
    let bytes = unpacked.as_ref().map_or(&[][..], Ramdisk::bytes);
    let opened = unpacked.and_then(ramdisk::open);
    match &opened {
        // The rest of it, when the owner's word on it is known.
        Ok((_, config)) => console::set_serial(&options.console(config.console.clone())),
        // Whoever stands before the machine is to see why it does nothing.
        Err(_) => console::set(&options.console(Console::default())),
    }
    let (store, mut config) = opened?;
    BOOT.done("ramdisk");
    let mut trust = Trust::find();
    trust.measure_start(bytes, handover.as_ref());
    BOOT.done("tpm");
    syscall::hooks::install();
    let net = NetNode::new();
    net.hold();
    machine::iommu::start();
    let devices = devices::start(&net, &options.devices);
    BOOT.done("devices");
    let mut bound = devices.bound;
    bound.extend(guard.device());
    let owners = settings::apply(&devices.disks, store.bundle(), &mut config);
    let settings = owners.settings.as_deref();
    trust.measure_owner(settings, &owners.manifests, &config.owner);
    let identity = NodeKey::of(&trust);
    BOOT.done("settings");
    config.console = options.console(config.console);
    console::set(&config.console);
    syscall::hooks::set_trace(config.console.level == LogLevel::Trace);
    net.release(config.vlan);
    network::configure(&net, &config.network);
    let setup = Setup {
        store,
        config,
        owners,
        net,
        disks: devices.disks,
        started: started_from(handover.as_ref()),
        platform: Box::new(Machine {
            bound,
            trust,
            identity,
        }),
        guard: Some(guard),
        boot: &BOOT,
    };
    let capsules = Capsules::new(setup).map_err(|_| no_memory())?;
    platform::watch_power_button(&capsules).map_err(|_| no_memory())?;
    platform::watch_iommu(&capsules).map_err(|_| no_memory())?;
    console::show_status(&capsules);
    capsules.begin();
    capsules.report_refusals();
    Ok(())
}

/// What the loader started this node from, as far as it says.
fn started_from(handover: Option<&Handover>) -> Started {
    match handover.map(|said| said.slot) {
        None => Started::Untold,
        Some(None) => Started::Network,
        Some(Some(slot)) => Started::Slot(slot),
    }
}

fn no_memory() -> String {
    String::from("there is not enough memory to start")
}

/// A new release that cannot do its work leaves the machine to the one before.
fn go_back(why: &str) {
    log::error!("this release is new and has nothing to run: {why}; going back");
    let _ = thread::sleep_until(Instant::now().after(GOING_BACK), false);
    machine::power::reboot();
}

/// Stays up for whoever comes to look, saying again and again what is wrong.
fn stay_idle(why: &str) {
    let button = Builder::new("power-button").spawn(platform::power_off_by_button);
    if button.is_err() {
        log::warn!("the power button does nothing: {}", no_memory());
    }
    loop {
        log::error!("this node has nothing to run: {why}");
        let _ = thread::sleep_until(Instant::now().after(REMINDER), false);
    }
}
