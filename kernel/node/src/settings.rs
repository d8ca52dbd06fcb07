//! What the owner has written on the partition `SKEP`, of whatever disk has one.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use capsule::{Disks, OwnersFiles};
use machine::addr::PAGE_SIZE;
use machine::block::{BlockDevice, SECTOR};
use machine::{Account, Frame};
use skep_api::bundle::{BundleView, EntryKind};
use skep_api::control::{MANIFEST_BYTES_MAX, SettingsInfo};
use skep_api::manifest::SignedManifest;
use skep_api::node::NodeConfig;
use skep_api::settings::{self, Settings};
use skep_volume::{Error, Kind, ReadAt, Volume, Window, partitions};

/// Most manifests taken from the partition.
const MANIFESTS_MAX: usize = 64;

/// A disk as something to read from, whole pages at their places.
struct Disk(Arc<dyn BlockDevice>);

impl ReadAt for Disk {
    fn len(&self) -> u64 {
        self.0.sectors().saturating_mul(SECTOR as u64)
    }

    /// Called by a [`Window`], which asks for pages.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let frame = Frame::zeroed(Account::kernel()).map_err(|_| Error::NoMemory)?;
        let sector = offset / SECTOR as u64;
        if !offset.is_multiple_of(SECTOR as u64) || buffer.len() > PAGE_SIZE {
            return Err(Error::Read);
        }
        let len = buffer.len();
        self.0
            .read(sector, core::slice::from_ref(&frame), len)
            .map_err(|_| Error::Read)?;
        match frame.read(0, buffer) {
            read if read == len => Ok(()),
            _ => Err(Error::Read),
        }
    }
}

type Opened = Volume<Window<Disk>>;

/// Looks for the partition, puts what it says into `config`, and returns the rest. A
/// file that is wrong changes nothing, and why is told.
#[inline(never)]
pub(crate) fn apply(disks: &Disks, bundle: BundleView<'_>, config: &mut NodeConfig) -> OwnersFiles {
    let mut files = OwnersFiles {
        maker: config.owner,
        manifests: Vec::new(),
        settings: None,
        info: SettingsInfo::default(),
    };
    let Some((place, volume)) = find(disks, &granted(bundle)) else {
        return files;
    };
    files.info.place = Some(place.clone());
    let settings = match read(&volume) {
        Ok((settings, written)) => {
            files.settings = written;
            settings
        }
        Err(why) => {
            let problem = format!("{} on {place}: {why}", settings::FILE_NAME);
            log::error!("{problem}; the node starts as if there were none");
            files.info.problem = Some(problem);
            return files;
        }
    };
    settings.apply(config);
    files.manifests = manifests(&volume);
    if settings.start.is_none() {
        for (name, _) in &files.manifests {
            if !config.start.contains(name) && *name != config.system {
                config.start.push(name.clone());
            }
        }
    }
    log::info!(
        "settings from {place}: node {}, {} manifests",
        config.name,
        files.manifests.len()
    );
    files
}

/// Disks that the ramdisk's manifests give to capsules: what is on them is not the
/// owner's word.
fn granted(bundle: BundleView<'_>) -> Vec<String> {
    let manifests = bundle.entries().filter(|e| e.kind == EntryKind::Manifest);
    let signed = manifests.filter_map(|e| SignedManifest::decode(bundle.content(&e).ok()?).ok());
    let signed = signed.filter_map(|signed| signed.payload_unverified().ok());
    signed.flat_map(|manifest| manifest.devices).collect()
}

/// The first volume of that label on the disks, and where it is.
fn find(disks: &Disks, granted: &[String]) -> Option<(String, Opened)> {
    let all = disks.list().into_iter();
    let mut found = all
        .filter(|(id, _)| !granted.contains(&id.name().to_string()))
        .filter_map(|(id, device)| {
            let volume = volume_of(&device)?;
            Some((id.name().to_string(), volume))
        });
    let first = found.next()?;
    for (other, _) in found {
        log::warn!(
            "there is a partition {} on {other} too; that on {} is used",
            settings::VOLUME,
            first.0
        );
    }
    Some(first)
}

/// The volume of that label on one disk: in a partition, or the disk itself.
fn volume_of(device: &Arc<dyn BlockDevice>) -> Option<Opened> {
    let whole = Disk(device.clone());
    let len = whole.len();
    let places = match partitions(&Window::new(whole)) {
        Ok(list) => list,
        Err(e) => {
            log::debug!("a disk of {len} bytes: {e}");
            Vec::new()
        }
    };
    let places = places.iter().map(|p| (p.start, p.len)).chain([(0, len)]);
    places
        .filter_map(|(start, len)| {
            let disk = Window::new(Disk(device.clone()));
            Volume::open(disk, start, len).ok()
        })
        .find(|volume| volume.label().is_ok_and(|label| label == settings::VOLUME))
}

/// `skep.toml`, and its bytes; without one, nothing is said.
fn read(volume: &Opened) -> Result<(Settings, Option<Vec<u8>>), String> {
    match volume.read(settings::FILE_NAME, settings::MAX_LEN) {
        Ok(bytes) => {
            let settings = Settings::parse(&bytes).map_err(|e| e.to_string())?;
            Ok((settings, Some(bytes)))
        }
        Err(Error::NotFound) => Ok((Settings::default(), None)),
        Err(e) => Err(e.to_string()),
    }
}

/// The files in the folder of manifests, by name. Signatures are checked later.
fn manifests(volume: &Opened) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let entries = volume.list(settings::MANIFESTS).unwrap_or_default();
    for entry in entries {
        let Kind::File { .. } = entry.kind else {
            continue;
        };
        let Some(name) = entry.name.strip_suffix(settings::MANIFEST_END) else {
            continue;
        };
        if found.len() >= MANIFESTS_MAX {
            log::warn!("{name} and what follows it is beyond {MANIFESTS_MAX} manifests");
            break;
        }
        let path = format!("{}/{}", settings::MANIFESTS, entry.name);
        match volume.read(&path, MANIFEST_BYTES_MAX) {
            Ok(bytes) if skep_api::manifest::is_capsule_name(name) => {
                found.push((String::from(name), bytes));
            }
            Ok(_) => log::warn!("{path}: {name} is not a name"),
            Err(e) => log::warn!("{path}: {e}"),
        }
    }
    found
}
