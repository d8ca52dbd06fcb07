//! What is served: the parts of a system, and each machine's ramdisk and image.

use super::dhcp::Mac;
use super::machines::Machine;
use super::offer::{BIOS_LOADER, UEFI_LOADER};
use crate::key;
use crate::medium::make::System;
use anyhow::{Context, Result};
use bytes::Bytes;
use skep_image::release::Signing;
use skep_image::{Config, Contents, write_image};
use std::cell::OnceCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What machines of one kind boot.
pub(crate) struct Profile {
    /// Of which machine, in words.
    pub(crate) name: String,
    machine: Option<Machine>,
    /// The ramdisk, with its configuration.
    pub(crate) ramdisk: Bytes,
    /// The disk image, made when it is first asked for.
    image: OnceCell<PathBuf>,
}

/// Everything that is served.
pub(crate) struct Release {
    system: System,
    kernel: Bytes,
    /// For a BIOS, from Debian's package of iPXE; absent where that is not installed.
    bios_loader: Option<Bytes>,
    /// The last one is for machines that nobody has named.
    profiles: Vec<Profile>,
    /// Signs the releases in images. They are started from memory, where nothing updates
    /// them, so that nobody needs the key again.
    signing: Signing,
    /// Where images are written, gone with this.
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
        ramdisk: Vec<u8>,
        machines: Vec<Machine>,
        folder: &Path,
    ) -> Result<Self> {
        let mut profiles = Vec::new();
        for machine in machines {
            let name = machine.name().to_string();
            let own = machine.ramdisk.as_ref().map(|path| {
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            });
            let own = own.transpose()?;
            let changed = machine
                .apply(own.as_deref().unwrap_or(&ramdisk))
                .with_context(|| format!("machine {name}"))?;
            profiles.push(Profile {
                name,
                machine: Some(machine),
                ramdisk: changed.into(),
                image: OnceCell::new(),
            });
        }
        profiles.push(Profile {
            name: "any machine".to_string(),
            machine: None,
            ramdisk: ramdisk.into(),
            image: OnceCell::new(),
        });
        Ok(Self {
            kernel: Bytes::from(system.kernel.clone()),
            system,
            bios_loader: fs::read(IPXE).ok().map(Bytes::from),
            profiles,
            signing: Signing::new(key::passing()?, 1),
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
    pub(crate) fn file(&self, profile: &Profile, name: &str) -> Option<Bytes> {
        match name {
            BIOS_LOADER => self.bios_loader.clone(),
            UEFI_LOADER => Some(Bytes::from(self.system.stages.uefi.clone())),
            "kernel-x86_64" => Some(self.kernel.clone()),
            "ramdisk" => Some(profile.ramdisk.clone()),
            "boot.json" => Some(Bytes::from_static(
                skep_image::layout::BOOT_CONFIG.as_bytes(),
            )),
            _ => None,
        }
    }

    /// The disk image of a profile.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn image(&self, profile: &Profile) -> Result<File> {
        let path = match profile.image.get() {
            Some(path) => path.clone(),
            None => {
                let number = self.profiles.iter().position(|p| std::ptr::eq(p, profile));
                let path = self.folder.join(format!("{}.img", number.unwrap_or(0)));
                let contents = Contents {
                    kernel: self.kernel.to_vec(),
                    ramdisk: Some(profile.ramdisk.to_vec()),
                    stages: self.system.stages.clone(),
                    config: Config::default(),
                    signing: self.signing.clone(),
                };
                write_image(&contents, &path)?;
                profile.image.get_or_init(|| path).clone()
            }
        };
        File::open(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}
