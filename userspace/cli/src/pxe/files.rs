//! What is served: the parts of a system, and each machine's ramdisk and image.

use super::dhcp::Mac;
use super::machines::Machine;
use super::offer::{BIOS_LOADER, RELEASE, UEFI_LOADER};
use crate::medium::make::System;
use anyhow::{Context, Result};
use bytes::Bytes;
use skep_image::release::Signing;
use skep_image::{Config, Contents, loaders::with_key, pack, write_image, write_release};
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

/// What machines of one kind boot.
pub(crate) struct Profile {
    /// Of which machine, in words.
    pub(crate) name: String,
    machine: Option<Machine>,
    /// The ramdisk, with its configuration.
    pub(crate) ramdisk: Vec<u8>,
    /// The release, made when it is first asked for.
    release: OnceCell<PathBuf>,
    /// The disk image, made when it is first asked for.
    image: OnceCell<PathBuf>,
}

impl Profile {
    fn new(name: String, machine: Option<Machine>, ramdisk: Vec<u8>) -> Self {
        Self {
            name,
            machine,
            ramdisk,
            release: OnceCell::new(),
            image: OnceCell::new(),
        }
    }
}

/// Everything that is served.
pub(crate) struct Release {
    system: System,
    /// For UEFI, with the key in it that it checks releases by.
    uefi_loader: Bytes,
    /// For a BIOS, from Debian's package of iPXE; absent where that is not installed.
    bios_loader: Option<Bytes>,
    /// The last one is for machines that nobody has named.
    profiles: Vec<Profile>,
    /// Signs what machines start.
    signing: Signing,
    /// Where releases and images are written, gone with this.
    folder: PathBuf,
}

/// Where Debian's package `ipxe` has the loader for a BIOS.
pub(crate) const IPXE: &str = "/usr/lib/ipxe/undionly.kpxe";

impl Release {
    /// Puts together what is served.
    ///
    /// # Errors
    /// Something cannot be read, or a machine's configuration does not fit its ramdisk.
    pub(crate) fn new(
        system: System,
        signing: Signing,
        ramdisk: Vec<u8>,
        machines: Vec<Machine>,
        folder: &Path,
    ) -> Result<Self> {
        let ramdisk = pack::unpack(&ramdisk)?.into_owned();
        let mut profiles = Vec::new();
        for machine in machines {
            let name = machine.name().to_string();
            let own = machine.ramdisk.as_ref().map(|path| {
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            });
            let own = own.transpose()?;
            let own = own.as_deref().map(pack::unpack).transpose()?;
            let changed = machine
                .apply(own.as_deref().unwrap_or(&ramdisk))
                .with_context(|| format!("machine {name}"))?;
            profiles.push(Profile::new(name, Some(machine), changed));
        }
        profiles.push(Profile::new("any machine".to_string(), None, ramdisk));
        Ok(Self {
            uefi_loader: with_key(&system.loaders.uefi, &signing)?.into(),
            system,
            bios_loader: fs::read(IPXE).ok().map(Bytes::from),
            profiles,
            signing,
            folder: folder.to_path_buf(),
        })
    }

    /// Whether there is something for a BIOS to load.
    pub(crate) fn has_bios_loader(&self) -> bool {
        self.bios_loader.is_some()
    }

    /// What the machine with these marks boots.
    pub(crate) fn profile(&self, mac: Option<Mac>, serial: Option<&str>) -> &Profile {
        let named = |profile: &&Profile| {
            let machine = profile.machine.as_ref();
            machine.is_none_or(|machine| machine.is(mac, serial))
        };
        let found = self.profiles.iter().find(named);
        // The last one takes every machine.
        found.unwrap_or(&self.profiles[self.profiles.len() - 1])
    }

    /// A file that firmware and boot loader fetch by TFTP.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn file(&self, profile: &Profile, name: &str) -> Result<Option<Bytes>> {
        Ok(match name {
            BIOS_LOADER => self.bios_loader.clone(),
            UEFI_LOADER => Some(self.uefi_loader()),
            RELEASE => {
                let path = self.release(profile)?;
                Some(fs::read(&path).context("cannot read the release")?.into())
            }
            _ => None,
        })
    }

    /// Our UEFI loader.
    pub(crate) fn uefi_loader(&self) -> Bytes {
        self.uefi_loader.clone()
    }

    /// The release of a profile.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn release(&self, profile: &Profile) -> Result<PathBuf> {
        self.made(profile, &profile.release, "release", |path| {
            let kernel = &self.system.kernel;
            let ramdisk = pack::pack(&profile.ramdisk)?;
            write_release(kernel, &ramdisk, &self.signing, path)
        })
    }

    /// The disk image of a profile.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn image(&self, profile: &Profile) -> Result<PathBuf> {
        self.made(profile, &profile.image, "img", |path| {
            let contents = Contents {
                kernel: self.system.kernel.clone(),
                ramdisk: Some(pack::pack(&profile.ramdisk)?.into_owned()),
                loaders: self.system.loaders.clone(),
                config: Config::default(),
                signing: self.signing.clone(),
            };
            write_image(&contents, path)
        })
    }

    /// A file of a profile, which `make` writes the first time.
    fn made(
        &self,
        profile: &Profile,
        place: &OnceCell<PathBuf>,
        end: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(path) = place.get() {
            return Ok(path.clone());
        }
        let number = self.profiles.iter().position(|p| std::ptr::eq(p, profile));
        let path = self.folder.join(format!("{}.{end}", number.unwrap_or(0)));
        make(&path)?;
        Ok(place.get_or_init(|| path).clone())
    }
}
