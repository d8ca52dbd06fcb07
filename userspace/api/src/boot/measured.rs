//! What a start of the machine tells its TPM (TPM 2.0, registers of SHA-256).
//!
//! Loader and kernel agree here on the registers, and hosts on how to compute them again.
//! Registers 9, 12 and 14 are those of images, configuration and signing keys by the custom of
//! the TCG and of Linux.

/// What is started: the release, the ramdisk.
pub const PCR_IMAGE: u32 = 9;
/// How it is to be: command line, settings, manifests beside the ramdisk.
pub const PCR_CONFIGURATION: u32 = 12;
/// Who may say what is started: the release key and the owner.
pub const PCR_AUTHORITY: u32 = 14;

/// Registers of firmware: the loader's code, and the state of Secure Boot (TCG PC Client
/// Platform Firmware Profile 1.05, 3.3.4).
pub const PCR_LOADER: u32 = 4;
/// See [`PCR_LOADER`].
pub const PCR_SECURE_BOOT: u32 = 7;
