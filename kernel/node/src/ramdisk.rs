//! The ramdisk: what the node is to be.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use capsule::blobs::BlobStore;
use machine::boot::Ramdisk;
use skep_api::boot::Handover;
use skep_api::bundle::EntryKind;
use skep_api::node::{ENTRY_NAME, NodeConfig};

/// The ramdisk, and what the loader says beside it.
pub(crate) fn split() -> (Option<Ramdisk>, Option<Handover>) {
    let Some(handed) = machine::boot::ramdisk() else {
        return (None, None);
    };
    let (bytes, handover) = Handover::split(handed.bytes());
    let ramdisk = (!bytes.is_empty()).then_some(handed.first(bytes.len()));
    (ramdisk, handover)
}

/// The content of the ramdisk and the node's configuration in it; why not, in words.
#[inline(never)]
pub(crate) fn open(ramdisk: Option<Ramdisk>) -> Result<(Arc<BlobStore>, NodeConfig), String> {
    let ramdisk = ramdisk.ok_or_else(|| String::from("the boot medium has no ramdisk"))?;
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
