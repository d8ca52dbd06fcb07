//! A full disk: what fails, what still works, and what is told.

use super::*;
use crate::file::Mappable;
use crate::inode::XattrSet;
use machine::addr::PAGE_SIZE;
use mm::BackingError;

const LIMIT: usize = 4096;
const KEPT: usize = 512;

fn world() -> World {
    let account = Arc::new(Account::new(LIMIT).unwrap());
    World::over(TmpFs::build(account, Config::default(), None))
}

fn stat(w: &World) -> FsStat {
    w.fs.root().mount.tree().fs().stat()
}

/// Writes to `/full` until there is no room; how many bytes it took.
fn fill(w: &World) -> usize {
    let file = w
        .open("/full", OpenFlags::CREATE | OpenFlags::WRITE_ONLY)
        .unwrap();
    let mut total = 0;
    loop {
        match file.write(&mut Source::kernel(&[7; 10_000])) {
            Ok(n) => total += n,
            Err(e) => {
                assert_eq!(e, Error::NoSpace);
                return total;
            }
        }
    }
}

#[test]
fn files_leave_room_to_programs() {
    let w = world();
    w.write("/old", b"something").unwrap();
    let before = stat(&w);
    let total = fill(&w);
    assert!(w.account.used() <= LIMIT - KEPT);
    assert!(w.account.used() > LIMIT - KEPT - 8);
    // What was told as free is what went in, but for the page cache's own nodes.
    let pages = total.div_ceil(PAGE_SIZE);
    assert!(pages <= before.blocks_free as usize);
    assert!(pages + pages / 8 > before.blocks_free as usize);
    let now = stat(&w);
    assert_eq!((now.blocks_free, now.blocks), (0, pages as u64 + 1));
    assert_eq!(w.mkdir("/dir"), Err(Error::NoSpace));
    assert_eq!(w.symlink("/old", "/link"), Err(Error::NoSpace));
    assert_eq!(w.write("/new", b"").unwrap_err(), Error::NoSpace);
    // A page that is there takes more bytes, and names move.
    let old = w.open("/old", OpenFlags::WRITE_ONLY).unwrap();
    assert_eq!(old.write(&mut Source::kernel(b"rest")), Ok(4));
    w.rename("/old", "/older", RenameFlags::empty()).unwrap();
    assert_eq!(w.read("/older").unwrap(), b"restthing");
    // Programs have the rest.
    let rest = w.account.hold(KEPT - 8).unwrap();
    w.unlink("/full").unwrap();
    drop(rest);
    w.mkdir("/dir").unwrap();
    assert!(fill(&w) > total - 16 * PAGE_SIZE);
}

#[test]
fn what_programs_take_is_not_there_for_files() {
    let w = world();
    let held = w.account.hold(2000).unwrap();
    let free = stat(&w).blocks_free as usize;
    assert!((LIMIT - KEPT - 2010..LIMIT - KEPT - 1999).contains(&free));
    let pages = fill(&w) / PAGE_SIZE;
    assert!((free - free / 8..=free).contains(&pages));
    drop(held);
    assert!(stat(&w).blocks_free >= 1990);
}

#[test]
fn space_that_is_asked_for_at_once_comes_as_a_whole_or_not_at_all() {
    let w = world();
    let file = w
        .open("/f", OpenFlags::CREATE | OpenFlags::READ_WRITE)
        .unwrap();
    let (used, free) = (w.account.used(), stat(&w).blocks_free);
    let allocate = |len: u64| file.ops().fallocate(&file, 0, 0, len);
    let page = PAGE_SIZE as u64;
    assert_eq!(allocate((free + 1) * page), Err(Error::NoSpace));
    assert_eq!(allocate(1 << 50), Err(Error::NoSpace));
    assert_eq!((w.account.used(), file.stat().size), (used, 0));
    allocate(free / 2 * page).unwrap();
    // The half that is there counts once.
    let more = free - free / 2 - 100;
    allocate((free / 2 + more) * page).unwrap();
    file.ops().truncate(&file, 1 << 40).unwrap();
    assert_eq!(allocate(1 << 40), Err(Error::NoSpace));
}

#[test]
fn a_mapping_without_space_is_an_error_of_the_bus() {
    let w = world();
    let file = w
        .open("/f", OpenFlags::CREATE | OpenFlags::READ_WRITE)
        .unwrap();
    file.ops().truncate(&file, 1 << 20).unwrap();
    let Mappable::Object(mapping) = file.ops().clone().mapping(&file, true).unwrap() else {
        panic!("no mapping");
    };
    mapping.page(0, true).unwrap();
    fill(&w);
    mapping.page(0, true).unwrap();
    assert!(matches!(mapping.page(1, true), Err(BackingError::Io)));
    w.unlink("/full").unwrap();
    mapping.page(1, true).unwrap();
}

#[test]
fn attributes_find_no_room_either() {
    let w = world();
    w.write("/f", b"").unwrap();
    fill(&w);
    let node = w.who().inode(At::Cwd, b"/f", LastLink::Follow).unwrap();
    let set = |node: &Arc<dyn Inode>| node.set_xattr(b"user.a", &[1; 5000], XattrSet::Any);
    assert_eq!(set(&node), Err(Error::NoSpace));
    w.unlink("/full").unwrap();
    set(&node).unwrap();
}

#[test]
fn the_files_of_an_image_are_found_on_a_full_disk() {
    let (w, _) = over_image();
    fill(&w);
    let names = w.list("/");
    assert!(names.len() > 1, "{names:?}");
    for name in names {
        w.who()
            .inode(At::Cwd, name.as_bytes(), LastLink::Stay)
            .unwrap();
    }
}

#[test]
fn a_memfd_is_memory_and_no_disk() {
    let account = Arc::new(Account::new(LIMIT).unwrap());
    let attr = NewAttr {
        kind: Kind::File,
        mode: 0o777,
        uid: 0,
        gid: 0,
    };
    let memfd = TmpFs::memfd(account.clone(), &attr, "m", false).unwrap();
    let flags = OpenFlags::READ_WRITE;
    let file = OpenFile::new(memfd, flags, None, machine::FileCharge::kernel());
    let end = loop {
        if let Err(e) = file.write(&mut Source::kernel(&[7; 10_000])) {
            break e;
        }
    };
    assert_eq!(end, Error::NoMemory);
    assert!(account.used() > LIMIT - 8);
}
