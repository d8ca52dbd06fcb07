use super::*;
use crate::testing::{Bundle, Memory, config};
use alloc::vec;
use skep_api::blob::GROUP_LEN;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8 ^ (i >> 8) as u8).collect()
}

/// A store with one blob of `len` bytes, the medium changed by `damage`.
fn store(len: usize, damage: impl FnOnce(&mut Vec<u8>, usize)) -> (Arc<BlobStore>, Hash) {
    let mut bundle = Bundle::new(&config(&[]));
    let hash = bundle.0.add_blob(content(len)).unwrap();
    let mut bytes = bundle.build();
    let at = BundleView::parse(&bytes)
        .unwrap()
        .blob(hash)
        .unwrap()
        .offset;
    damage(&mut bytes, at as usize);
    (BlobStore::open(Memory::new(bytes)).unwrap(), hash)
}

fn page(store: &BlobStore, blob: &Blob, index: u64) -> Result<Vec<u8>, BlobError> {
    let mut out = vec![0; PAGE_SIZE];
    store.page(blob, index)?.read(0, &mut out);
    Ok(out)
}

#[test]
fn pages_are_the_content_and_zeros() {
    let len = 3 * GROUP_LEN + 5000;
    let (store, hash) = store(len, |_, _| {});
    let blob = store.get(hash).unwrap();
    let mut all = Vec::new();
    for index in 0..(len.div_ceil(PAGE_SIZE) as u64) {
        all.extend(page(&store, &blob, index).unwrap());
    }
    let mut expected = content(len);
    expected.resize(all.len(), 0);
    assert!(all == expected);
    assert_eq!(
        page(&store, &blob, len.div_ceil(PAGE_SIZE) as u64),
        Err(BlobError::PastEnd)
    );
    assert_eq!(page(&store, &blob, u64::MAX), Err(BlobError::PastEnd));
}

#[test]
fn a_flipped_byte_spoils_its_group_and_no_other() {
    let (store, hash) = store(4 * GROUP_LEN, |b, at| b[at + GROUP_LEN + 9000] ^= 4);
    let blob = store.get(hash).unwrap();
    for index in 0..16 {
        let expected = (4..8).contains(&index);
        let refused = page(&store, &blob, index) == Err(BlobError::Corrupt(hash));
        assert_eq!(refused, expected, "page {index}");
    }
    assert_eq!(blob.bytes(), Err(BlobError::Corrupt(hash)));
}

#[test]
fn only_what_is_read_is_hashed_and_only_once() {
    let (store, hash) = store(4 * GROUP_LEN, |_, _| {});
    let blob = store.get(hash).unwrap();
    page(&store, &blob, 5).unwrap();
    let good = |g| is_set(&blob.good, g);
    assert_eq!([0, 1, 2, 3].map(good), [false, true, false, false]);
    assert!(Arc::ptr_eq(&blob, &store.get(hash).unwrap()));
    // A wrong group is remembered as well.
    set(&blob.bad, 2);
    assert_eq!(page(&store, &blob, 8), Err(BlobError::Corrupt(hash)));
}

#[test]
fn a_small_blob_and_an_empty_one() {
    let (few, hash) = store(10, |_, _| {});
    let blob = few.get(hash).unwrap();
    assert_eq!(&page(&few, &blob, 0).unwrap()[..10], content(10));
    let (none, hash) = store(0, |_, _| {});
    let blob = none.get(hash).unwrap();
    assert!(blob.is_empty());
    assert_eq!(page(&none, &blob, 0), Err(BlobError::PastEnd));
    assert_eq!(blob.bytes(), Ok(&[][..]));
}

#[test]
fn what_was_cut_off_is_missing_and_the_rest_is_there() {
    let mut bundle = Bundle::new(&config(&[]));
    let hashes: Vec<Hash> = (0..4)
        .map(|n| bundle.0.add_blob(vec![n; 20_000]).unwrap())
        .collect();
    let whole = bundle.build();
    let view = BundleView::parse(&whole).unwrap();
    let last = hashes
        .iter()
        .max_by_key(|h| view.blob(**h).unwrap().offset)
        .copied()
        .unwrap();
    let cut = view.blob(last).unwrap().offset as usize + PAGE_SIZE;
    let mut bytes = whole.clone();
    bytes.truncate(cut);
    let store = BlobStore::open(Memory::new(bytes)).unwrap();
    for hash in hashes {
        let got = store.get(hash).and_then(|b| b.bytes());
        if hash == last {
            assert_eq!(got, Err(BlobError::Missing(hash)));
        } else if view.blob(hash).unwrap().offset < view.blob(last).unwrap().offset {
            // Outboards may lie behind what was cut.
            assert!(matches!(got, Ok(_) | Err(BlobError::Missing(_))));
        }
    }
    let nothing = Hash([9; 32]);
    assert_eq!(store.get(nothing).err(), Some(BlobError::Missing(nothing)));
}
