//! Seals of memfds, and the mappings that hold them off.

use super::*;
use crate::file::Mappable;
use crate::seals::{Seal, Seals};
use mm::Backing;

/// A sealable file of a page, open to read and write.
fn memfd() -> Arc<OpenFile> {
    let account = Arc::new(machine::Account::new(100).unwrap());
    let attr = NewAttr {
        kind: Kind::File,
        mode: 0o777,
        uid: 0,
        gid: 0,
    };
    let memfd = TmpFs::memfd(account, &attr, "m", true).unwrap();
    let kernel = machine::FileCharge::kernel();
    let file = OpenFile::new(memfd, OpenFlags::READ_WRITE, None, kernel);
    file.ops().truncate(&file, 4096).unwrap();
    file
}

fn seals(file: &OpenFile) -> &Seals {
    file.downcast::<TmpFile>().unwrap().seals().unwrap()
}

fn map(file: &OpenFile, to_write: bool) -> Result<Arc<dyn Backing>> {
    match file.ops().clone().mapping(file, to_write)? {
        Mappable::Object(mapping) => Ok(mapping),
        Mappable::Anonymous => panic!("no object"),
    }
}

#[test]
fn writing_is_sealed_once_no_mapping_may_write() {
    let file = memfd();
    let reads = map(&file, false).unwrap();
    let (one, other) = (map(&file, true).unwrap(), map(&file, true).unwrap());
    drop(one);
    assert_eq!(seals(&file).add(Seal::WRITE), Err(Error::Busy));
    assert_eq!(seals(&file).get(), Seal::empty());
    seals(&file).add(Seal::GROW | Seal::SHRINK).unwrap();
    drop(other);
    seals(&file).add(Seal::WRITE).unwrap();
    assert!(matches!(map(&file, true), Err(Error::NotPermitted)));
    map(&file, false).unwrap();
    drop(reads);
    let written = file.write(&mut Source::kernel(&[1]));
    assert_eq!(written, Err(Error::NotPermitted));
    let all = Seal::GROW | Seal::SHRINK | Seal::WRITE;
    assert_eq!(seals(&file).get(), all);
}

#[test]
fn what_may_write_already_goes_on_under_a_seal_of_the_future() {
    let file = memfd();
    let before = map(&file, true).unwrap();
    seals(&file).add(Seal::FUTURE_WRITE).unwrap();
    before.page(0, true).unwrap();
    assert!(matches!(map(&file, true), Err(Error::NotPermitted)));
    assert_eq!(seals(&file).add(Seal::WRITE), Err(Error::Busy));
    drop(before);
    seals(&file).add(Seal::WRITE | Seal::SEAL).unwrap();
    assert_eq!(seals(&file).add(Seal::GROW), Err(Error::NotPermitted));
}
