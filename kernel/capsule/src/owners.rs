//! What the owner wrote on the boot medium, beside the ramdisk that its maker built.

use alloc::string::String;
use alloc::vec::Vec;
use skep_api::PublicKey;
use skep_api::control::SettingsInfo;

/// The owner's files.
pub struct OwnersFiles {
    /// The owner that the ramdisk names: its own manifests may be signed by either.
    /// Who can replace the ramdisk replaces the kernel too.
    pub maker: PublicKey,
    /// Signed manifests by name, nothing of them checked yet.
    pub manifests: Vec<(String, Vec<u8>)>,
    /// The settings as they are written, if there are any.
    pub settings: Option<Vec<u8>>,
    /// What is told of the settings.
    pub info: SettingsInfo,
}

impl OwnersFiles {
    /// Of a node whose owner wrote nothing.
    #[must_use]
    pub fn none(maker: PublicKey) -> OwnersFiles {
        OwnersFiles {
            maker,
            manifests: Vec::new(),
            settings: None,
            info: SettingsInfo::default(),
        }
    }
}
