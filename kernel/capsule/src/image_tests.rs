use super::*;
use crate::testing::{Bundle, Memory, config};
use alloc::vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use machine::Account;
use machine::io::Sink;
use vfs::mount::MountFlags;
use vfs::tmpfs::{Config, TmpFs};
use vfs::{At, Caller, Caps, Credentials, FsContext, Mount, OpenFlags};

fn image(damage: &[u8]) -> (Arc<Image>, Hash) {
    let mut bundle = Bundle::new(&config(&[]));
    let big = vec![0x5a; 40_000];
    let root = bundle.image(&[("etc/motd", b"hello\n"), ("bin/big", &big)]);
    let mut bytes = bundle.build();
    if let Some(at) = (!damage.is_empty())
        .then(|| bytes.windows(damage.len()).position(|w| w == damage))
        .flatten()
    {
        bytes[at] ^= 1;
    }
    let store = BlobStore::open(Memory::new(bytes)).unwrap();
    let hash = Hash::of(b"hello\n");
    (Image::open(&store, root).unwrap(), hash)
}

fn caller_over(lower: Arc<Lower>) -> FsContext {
    let account = Arc::new(Account::new(100).unwrap());
    let tree = TmpFs::tree_over(account, Config::default(), lower).unwrap();
    let mount = Mount::root(tree, MountFlags::empty(), "image");
    FsContext::new(mount.path())
}

fn read(fs: &FsContext, path: &str) -> vfs::Result<Vec<u8>> {
    let cred = Credentials::root(Caps::all());
    let caller = Caller { fs, cred: &cred };
    let how = vfs::open::How {
        flags: OpenFlags::empty(),
        ..Default::default()
    };
    let file = caller.open(
        At::Cwd,
        path.as_bytes(),
        &how,
        machine::FileCharge::kernel(),
    )?;
    let mut out = vec![0; 64];
    let n = file.read(&mut Sink::kernel(&mut out))?;
    out.truncate(n);
    Ok(out)
}

#[test]
fn a_tmpfs_shows_the_image() {
    let (image, _) = image(b"");
    let fs = caller_over(Lower::new(image, Box::new(|e| panic!("{e:?}"))));
    assert_eq!(read(&fs, "/etc/motd").unwrap(), b"hello\n");
    assert_eq!(read(&fs, "/bin/big").unwrap(), [0x5a; 64]);
    assert_eq!(read(&fs, "/bin/none"), Err(vfs::Error::NotFound));
}

#[test]
fn damage_gives_an_error_and_is_reported_once() {
    static REPORTS: AtomicUsize = AtomicUsize::new(0);
    let (image, hash) = image(b"hello\n");
    let report = move |e| {
        assert_eq!(e, BlobError::Corrupt(hash));
        REPORTS.fetch_add(1, Relaxed);
    };
    let fs = caller_over(Lower::new(image, Box::new(report)));
    for _ in 0..3 {
        assert_eq!(read(&fs, "/etc/motd"), Err(vfs::Error::Io));
    }
    assert_eq!(read(&fs, "/bin/big").unwrap(), [0x5a; 64]);
    assert_eq!(REPORTS.load(Relaxed), 1);
}

#[test]
fn a_damaged_tree_is_refused() {
    let mut bundle = Bundle::new(&config(&[]));
    let root = bundle.image(&[("name-in-the-tree", b"x")]);
    let mut bytes = bundle.build();
    let name = b"name-in-the-tree";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at] ^= 1;
    let store = BlobStore::open(Memory::new(bytes)).unwrap();
    assert_eq!(
        Image::open(&store, root).err(),
        Some(BlobError::Corrupt(root))
    );
    let other = Hash([3; 32]);
    assert_eq!(
        Image::open(&store, other).err(),
        Some(BlobError::Missing(other))
    );
}

#[test]
fn an_image_that_lost_a_file_is_refused() {
    let mut bundle = Bundle::new(&config(&[]));
    let files = [vec![1; 9000], vec![2; 9000], vec![3; 9000]];
    let root = bundle.image(&[("a", &files[0]), ("b", &files[1]), ("c", &files[2])]);
    let mut bytes = bundle.build();
    let view = skep_api::bundle::BundleView::parse(&bytes).unwrap();
    let end = |h: Hash| view.blob(h).unwrap().offset as usize + 3 * machine::addr::PAGE_SIZE;
    let lost = files
        .iter()
        .map(|f| Hash::of(f))
        .max_by_key(|h| end(*h))
        .unwrap();
    // The tree may lie behind it; then it is what is missing.
    let cut = end(lost) - 1;
    bytes.truncate(cut);
    let store = BlobStore::open(Memory::new(bytes)).unwrap();
    let missing = Image::open(&store, root).err();
    assert!(missing == Some(BlobError::Missing(lost)) || missing == Some(BlobError::Missing(root)));
}
