//! The ramdisk: what the node is to be.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use capsule::blobs::BlobStore;
use machine::boot::{Loaded, Ramdisk};
use skep_api::boot::Handover;
use skep_api::boot::packed::{Packed, PackedError, is_packed};
use skep_api::bundle::EntryKind;
use skep_api::node::{ENTRY_NAME, NodeConfig};

/// What was loaded with the kernel.
pub(crate) struct Found {
    loaded: Loaded,
    /// Bytes of it without what the loader says.
    len: usize,
}

impl Found {
    fn bytes(&self) -> &[u8] {
        self.loaded.bytes().get(..self.len).unwrap_or_default()
    }

    /// Whether it is packed.
    pub(crate) fn is_packed(&self) -> bool {
        is_packed(self.bytes())
    }
}

/// What was loaded with the kernel, and what the loader says beside it.
pub(crate) fn split() -> (Option<Found>, Option<Handover>) {
    let Some(loaded) = machine::boot::take_loaded() else {
        return (None, None);
    };
    let (bytes, handover) = Handover::split(loaded.bytes());
    let len = bytes.len();
    ((len > 0).then_some(Found { loaded, len }), handover)
}

/// The ramdisk that was loaded, unpacked; why there is none, in words.
#[inline(never)]
pub(crate) fn unpack(found: Option<Found>) -> Result<Ramdisk, String> {
    let found = found.ok_or_else(|| String::from("the boot medium has no ramdisk"))?;
    if !found.is_packed() {
        return Ok(found.loaded.keep(found.len));
    }
    let room = Packed::parse(found.bytes()).map_err(in_words)?.len();
    let Found { loaded, len } = found;
    let fill = |loaded: &[u8], room: &mut [u8]| {
        let packed = Packed::parse(loaded.get(..len).unwrap_or_default())?;
        packed.unpack(room, machine::thread::cond_resched)
    };
    let replaced = loaded.replace(room, fill);
    let replaced = replaced.unwrap_or(Err(PackedError::NoRoom(room as u64)));
    let (ramdisk, damaged) = replaced.map_err(in_words)?;
    log::debug!("the ramdisk is unpacked: {room} bytes of {len}");
    if damaged > 0 {
        // What that costs is found where it is used: content is known by its hash.
        log::warn!(
            "{damaged} parts of the packed ramdisk are damaged; what is whole is used. \
             Write the boot medium anew"
        );
    }
    Ok(ramdisk)
}

fn in_words(error: PackedError) -> String {
    format!("ramdisk: {error}")
}

/// The content of the ramdisk and the node's configuration in it; why not, in words.
#[inline(never)]
pub(crate) fn open(ramdisk: Ramdisk) -> Result<(Arc<BlobStore>, NodeConfig), String> {
    let store = BlobStore::open(Box::new(ramdisk)).map_err(|e| format!("ramdisk: {e}"))?;
    let bundle = store.bundle();
    if bundle.is_truncated() {
        log::warn!(
            "the ramdisk is cut short: {} bytes of {}; what is whole is used",
            ramdisk.bytes().len(),
            bundle.declared_len()
        );
    }
    let entry = bundle.entry(EntryKind::Node, ENTRY_NAME);
    let bytes = entry.map_err(|e| format!("node configuration: {e}"))?;
    let config = NodeConfig::decode(bytes).map_err(|e| format!("node configuration: {e}"))?;
    log::info!(
        "node {}: {} manifests, {} blobs",
        config.name,
        bundle
            .entries()
            .filter(|e| e.kind == EntryKind::Manifest)
            .count(),
        bundle.blobs().count()
    );
    Ok((store, config))
}
