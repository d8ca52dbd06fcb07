//! The bundle: round trips, damage, truncation.

mod common;

use skep_api::Hash;
use skep_api::blob::BlobError;
use skep_api::bundle::{BundleBuilder, BundleError, BundleView, EntryKind, PAGE_LEN};

#[test]
fn what_goes_in_comes_out_on_whole_pages() {
    let bytes = common::bundle();
    let view = BundleView::parse(&bytes).unwrap();
    assert!(!view.is_truncated());
    assert_eq!(view.declared_len(), bytes.len() as u64);
    let manifest = view.entry(EntryKind::Manifest, "web-1").unwrap();
    assert_eq!(manifest, common::signed_manifest());
    assert!(view.entry(EntryKind::Node, "node").is_ok());
    assert_eq!(
        view.entry(EntryKind::Node, "web-1"),
        Err(BundleError::NoSuchEntry)
    );
    assert_eq!(view.blobs().count(), common::blobs().len());
    for content in common::blobs() {
        let blob = view.blob(Hash::of(&content)).unwrap();
        assert_eq!(blob.verified_data().unwrap(), content);
        assert_eq!(blob.pages.len(), content.len().next_multiple_of(PAGE_LEN));
        assert_eq!(blob.offset % PAGE_LEN as u64, 0);
        let start = blob.offset as usize;
        assert_eq!(&bytes[start..start + content.len()], content);
    }
    let missing = Hash::of(b"never added");
    assert_eq!(
        view.blob(missing).unwrap_err(),
        BundleError::NoSuchBlob(missing)
    );
}

#[test]
fn the_same_set_gives_the_same_bytes() {
    let build = |order: &[&[u8]]| {
        let mut bundle = BundleBuilder::new();
        for content in order {
            bundle.add_blob(content.to_vec()).unwrap();
            let name = format!("m{}", content.len());
            bundle
                .add_entry(EntryKind::Manifest, &name, content.to_vec())
                .unwrap();
        }
        bundle.finish().unwrap()
    };
    assert_eq!(
        build(&[b"one", b"three"]),
        build(&[b"three", b"one", b"three"])
    );
    assert!(BundleView::parse(&BundleBuilder::new().finish().unwrap()).is_ok());
}

#[test]
fn a_cut_bundle_names_what_it_lost_and_gives_up_the_rest() {
    let bytes = common::bundle();
    let mut whole_seen = Vec::new();
    for len in (0..bytes.len()).step_by(307) {
        let view = match BundleView::parse(&bytes[..len]) {
            Ok(view) => view,
            Err(error) => {
                assert!(
                    matches!(error, BundleError::Truncated { .. }),
                    "{len}: {error:?}"
                );
                continue;
            }
        };
        assert!(view.is_truncated());
        let mut whole = 0;
        for content in common::blobs() {
            let hash = Hash::of(&content);
            match view.blob(hash) {
                Ok(blob) => {
                    assert_eq!(blob.verified_data().unwrap(), content);
                    whole += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(error, BundleError::BlobTruncated { hash: lost, .. } if lost == hash)
                    );
                }
            }
        }
        whole_seen.push(whole);
    }
    assert!(whole_seen.is_sorted());
    assert!(whole_seen.contains(&1) && whole_seen.contains(&2));
}

#[test]
fn bytes_behind_the_end_are_ignored() {
    let mut bytes = common::bundle();
    bytes.resize(bytes.len() + 5000, 0xAA);
    assert!(!BundleView::parse(&bytes).unwrap().is_truncated());
}

#[test]
fn damage_is_named() {
    let bytes = common::bundle();
    let content = &common::blobs()[3];
    let hash = Hash::of(content);
    let at = BundleView::parse(&bytes)
        .unwrap()
        .blob(hash)
        .unwrap()
        .offset as usize;

    let mut flipped = bytes.clone();
    flipped[at + 20_000] ^= 1;
    let blob = BundleView::parse(&flipped).unwrap().blob(hash).unwrap();
    let error = BlobError::GroupMismatch { index: 1 };
    assert_eq!(blob.verified_data(), Err(BundleError::Blob { hash, error }));
    assert_eq!(blob.verifier.verify_group(0, &blob.data()[..16384]), Ok(()));

    let mut leaking = bytes.clone();
    leaking[at + content.len()] = 1;
    let view = BundleView::parse(&leaking).unwrap();
    assert_eq!(view.blob(hash).unwrap_err(), BundleError::BadPadding(hash));

    let mut index = bytes.clone();
    index[100] ^= 1;
    assert_eq!(
        BundleView::parse(&index).unwrap_err(),
        BundleError::IndexMismatch
    );
    index[0] ^= 1;
    assert_eq!(
        BundleView::parse(&index).unwrap_err(),
        BundleError::BadMagic
    );
    let mut version = bytes;
    version[8] = 9;
    assert_eq!(
        BundleView::parse(&version).unwrap_err(),
        BundleError::UnknownVersion(9)
    );
}
