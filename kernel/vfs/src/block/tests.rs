//! Disks through the same calls a program makes, over a disk that can be broken.

use super::file::WINDOW;
use super::*;
use crate::Result;
use crate::context::FsContext;
use crate::cred::{Caps, Credentials};
use crate::devfs::{self, DevConfig};
use crate::file::{OpenFile, OpenFlags, Seek};
use crate::mount::{Mount, MountFlags, Path};
use crate::open::How;
use crate::sysfs;
use crate::walk::{At, Caller, LastLink};
use machine::Frame;
use machine::addr::PAGE_SIZE;
use machine::block::{self, Observer, Operation};
use machine::io::{Sink, Source};
use machine::paging::Access;
use proptest::prelude::*;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

/// A disk in memory.
struct Memory {
    block: usize,
    read_only: bool,
    bytes: Mutex<Vec<u8>>,
    /// What fails: an operation at a sector.
    broken: Mutex<Vec<(Operation, u64)>>,
    /// What was asked of it, with its bytes.
    asked: Mutex<Vec<(Operation, usize)>>,
}

impl Memory {
    fn new(len: usize, block: usize) -> Arc<Memory> {
        Memory::with(len, block, false)
    }

    fn with(len: usize, block: usize, read_only: bool) -> Arc<Memory> {
        let bytes = (0..len).map(|n| (n * 7 % 251) as u8).collect();
        Arc::new(Memory {
            block,
            read_only,
            bytes: Mutex::new(bytes),
            broken: Mutex::new(Vec::new()),
            asked: Mutex::new(Vec::new()),
        })
    }

    fn do_it(
        &self,
        what: Operation,
        sector: u64,
        len: usize,
    ) -> core::result::Result<(), BlockError> {
        self.asked.lock().unwrap().push((what, len));
        let sectors = sector..sector + (len / SECTOR).max(1) as u64;
        let broken = self.broken.lock().unwrap();
        let hit = |(op, at): &(Operation, u64)| *op == what && sectors.contains(at);
        if broken.iter().any(hit) {
            return Err(BlockError::Failed);
        }
        Ok(())
    }

    fn count(&self, what: Operation) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(op, _)| *op == what).count()
    }
}

impl BlockDevice for Memory {
    fn sectors(&self) -> u64 {
        (self.bytes.lock().unwrap().len() / SECTOR) as u64
    }

    fn block_len(&self) -> usize {
        self.block
    }

    fn physical_block_len(&self) -> usize {
        4096
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(
        &self,
        sector: u64,
        frames: &[Frame],
        len: usize,
    ) -> core::result::Result<(), BlockError> {
        block::check(self, sector, frames.len(), len)?;
        self.do_it(Operation::Read, sector, len)?;
        let start = sector as usize * SECTOR;
        let bytes = self.bytes.lock().unwrap();
        for (frame, part) in frames
            .iter()
            .zip(bytes[start..start + len].chunks(PAGE_SIZE))
        {
            frame.write(0, part);
        }
        Ok(())
    }

    fn write(
        &self,
        sector: u64,
        frames: &[Frame],
        len: usize,
    ) -> core::result::Result<(), BlockError> {
        block::check(self, sector, frames.len(), len)?;
        self.do_it(Operation::Write, sector, len)?;
        // Lets others in between reading and writing a part of a block.
        std::thread::yield_now();
        let start = sector as usize * SECTOR;
        let mut bytes = self.bytes.lock().unwrap();
        for (frame, part) in frames
            .iter()
            .zip(bytes[start..start + len].chunks_mut(PAGE_SIZE))
        {
            frame.read(0, part);
        }
        Ok(())
    }

    fn flush(&self) -> core::result::Result<(), BlockError> {
        self.do_it(Operation::Flush, 0, 0)
    }

    fn clear(
        &self,
        how: Operation,
        sector: u64,
        count: u64,
    ) -> core::result::Result<(), BlockError> {
        if how == Operation::Discard {
            return Err(BlockError::Unsupported);
        }
        let (start, len) = (sector as usize * SECTOR, count as usize * SECTOR);
        self.bytes.lock().unwrap()[start..start + len].fill(0);
        Ok(())
    }

    fn observe(&self, _: Observer) {}
}

struct World {
    fs: FsContext,
    cred: Credentials,
    disk: Arc<Disk>,
}

impl World {
    fn new(device: &Arc<Memory>) -> World {
        World::of(device, 4000)
    }

    /// A capsule of this many pages that holds `device` as its second disk.
    fn of(device: &Arc<Memory>, pages: usize) -> World {
        let account = Arc::new(Account::new(pages).unwrap());
        let disk = Disk::new(DiskId::virtio(1), device.clone(), account.clone());
        let tree = devfs::tree(DevConfig {
            account,
            console: None,
            nodes: vec![disk.node((33, 34))],
            terminals: None,
        });
        let root = Mount::root(tree.unwrap(), MountFlags::empty(), "dev");
        World {
            fs: FsContext::new(root.path()),
            cred: Credentials::root(Caps::all()),
            disk,
        }
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            fs: &self.fs,
            cred: &self.cred,
        }
    }

    fn open(&self, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        let how = How {
            flags,
            ..How::default()
        };
        self.caller()
            .open(At::Cwd, b"/vdb", &how, machine::FileCharge::kernel())
    }

    fn file(&self) -> Arc<OpenFile> {
        self.open(OpenFlags::READ_WRITE).unwrap()
    }

    fn path(&self) -> Path {
        let found = self.caller().lookup(At::Cwd, b"/vdb", LastLink::Follow);
        found.unwrap()
    }
}

fn read(file: &OpenFile, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    let n = file.pread(&mut Sink::kernel(&mut bytes), at)?;
    bytes.truncate(n);
    Ok(bytes)
}

fn write(file: &OpenFile, at: u64, bytes: &[u8]) -> Result<usize> {
    file.pwrite(&mut Source::kernel(bytes), at)
}

#[test]
fn stat_shows_a_block_device_without_a_size() {
    let device = Memory::new(1 << 20, 512);
    let world = World::new(&device);
    let stat = world.path().inode().unwrap().stat();
    assert_eq!(stat.mode, 0o060_660);
    assert_eq!((stat.uid, stat.gid), (33, 34));
    assert_eq!((stat.rdev, stat.size), (254 << 8 | 16, 0));
    assert_eq!(world.file().stat().size, 0);
}

#[test]
fn any_byte_can_be_read_and_written() {
    for block in [512, 4096] {
        let device = Memory::new(1 << 20, block);
        let world = World::new(&device);
        let file = world.file();
        let before = device.bytes.lock().unwrap().clone();
        assert_eq!(read(&file, 1, 3).unwrap(), before[1..4]);
        assert_eq!(write(&file, 513, b"abc"), Ok(3));
        let mut want = before.clone();
        want[513..516].copy_from_slice(b"abc");
        assert_eq!(*device.bytes.lock().unwrap(), want);
        // Over several windows, both ends within a block.
        let long: Vec<u8> = (0..3 * WINDOW / 2).map(|n| n as u8).collect();
        assert_eq!(write(&file, 1001, &long), Ok(long.len()));
        want[1001..1001 + long.len()].copy_from_slice(&long);
        assert_eq!(*device.bytes.lock().unwrap(), want);
        assert_eq!(read(&file, 5, 3 * WINDOW).unwrap(), want[5..5 + 3 * WINDOW]);
    }
}

#[test]
fn the_end_is_the_end() {
    let device = Memory::new(8192, 512);
    let world = World::new(&device);
    let file = world.file();
    assert_eq!(read(&file, 8190, 100).unwrap().len(), 2);
    assert_eq!(read(&file, 8192, 100).unwrap(), b"");
    assert_eq!(read(&file, u64::MAX >> 1, 1).unwrap(), b"");
    assert_eq!(write(&file, 8190, &[1; 100]), Ok(2));
    assert_eq!(write(&file, 8192, &[1]), Err(Error::NoSpace));
    assert_eq!(write(&file, 8192, &[]), Ok(0));
    assert_eq!(file.seek(Seek::End(0)), Ok(8192));
    assert_eq!(file.seek(Seek::End(-2)), Ok(8190));
    assert_eq!(file.seek(Seek::Set(8193)), Err(Error::Invalid));
    assert_eq!(file.seek(Seek::Data(8192)), Err(Error::NoDevice));
    assert_eq!(file.truncate(100), Err(Error::Invalid));
    let appends = world.open(OpenFlags::READ_WRITE | OpenFlags::APPEND);
    let appended = appends.unwrap().write(&mut Source::kernel(b"x"));
    assert_eq!(appended, Err(Error::NoSpace));
    assert!(matches!(
        file.ops().clone().mapping(&file, false),
        Err(Error::NotSuchDevice)
    ));
}

#[test]
fn direct_transfers_are_aligned_or_refused() {
    let device = Memory::new(1 << 20, 4096);
    let world = World::new(&device);
    let file = world
        .open(OpenFlags::READ_WRITE | OpenFlags::DIRECT)
        .unwrap();
    assert_eq!(read(&file, 4096, 8192).map(|b| b.len()), Ok(8192));
    assert_eq!(read(&file, 512, 4096), Err(Error::Invalid));
    assert_eq!(write(&file, 4097, &[0; 4096]), Err(Error::Invalid));
    let buffer = |addr, len| machine::io::UserBuf { addr, len };
    let crooked = [
        (0x10_0010, 4096, false),
        (0x10_0000, 512, false),
        (0x10_0000, 8192, true),
    ];
    for (addr, len, fits) in crooked {
        let sink = Sink::user(buffer(addr, len));
        assert_eq!(sink.is_aligned(4096), fits);
        let source = Source::user_vec(
            [buffer(0x20_0000, 4096), buffer(addr, len)]
                .into_iter()
                .collect(),
        );
        assert_eq!(source.is_aligned(4096), fits);
    }
    // At the end a read ends before its alignment matters.
    assert_eq!(read(&file, (1 << 20) + 1, 10).unwrap(), b"");
}

/// Whole pages of a program's memory are the device's; what is left is copied; pages
/// that the program shares or may not write are not touched.
#[test]
fn pages_of_a_program_are_the_devices_own() {
    const AT: usize = 0x10_0000;
    let table = machine::paging::PageTable::new().unwrap();
    machine::host::enter_space(table.clone());
    let frames: Vec<_> = (0..5)
        .map(|_| Frame::zeroed(Account::kernel()).unwrap())
        .collect();
    for (n, frame) in frames.iter().enumerate() {
        let access = Access::READ | Access::WRITE;
        table
            .map(AT + n * PAGE_SIZE, frame.clone(), access)
            .unwrap();
    }
    let device = Memory::new(1 << 20, 512);
    let world = World::new(&device);
    let file = world.file();
    let disk = device.bytes.lock().unwrap().clone();
    let buffer = |addr, len| machine::io::UserBuf { addr, len };
    let asked = || core::mem::take(&mut *device.asked.lock().unwrap());
    let memory = |at: usize, len: usize| {
        let mut bytes = vec![0; len];
        machine::user::read(at, &mut bytes).unwrap();
        bytes
    };
    // Three whole pages and a part of the next.
    let len = 3 * PAGE_SIZE + 100;
    let mut sink = Sink::user(buffer(AT, len));
    assert_eq!(file.pread(&mut sink, 1024), Ok(len));
    assert_eq!(
        memory(AT, len + 1),
        [&disk[1024..1024 + len], &[0]].concat()
    );
    let rest = (Operation::Read, 512);
    assert_eq!(asked(), [(Operation::Read, 3 * PAGE_SIZE), rest]);
    // A buffer or a place on the disk that is crooked.
    for (addr, offset) in [(AT + 8, 0), (AT, 8)] {
        let mut sink = Sink::user(buffer(addr, 2 * PAGE_SIZE));
        assert_eq!(file.pread(&mut sink, offset), Ok(2 * PAGE_SIZE));
        let start = offset as usize;
        assert_eq!(
            memory(addr, 2 * PAGE_SIZE),
            disk[start..start + 2 * PAGE_SIZE]
        );
        assert_eq!(asked().len(), 1);
    }
    // Written from several buffers.
    let bufs = [
        buffer(AT, PAGE_SIZE),
        buffer(AT + 2 * PAGE_SIZE, 2 * PAGE_SIZE),
    ];
    let mut source = Source::user_vec(bufs.into_iter().collect());
    assert_eq!(file.pwrite(&mut source, 4096), Ok(3 * PAGE_SIZE));
    let pages = [
        memory(AT, PAGE_SIZE),
        memory(AT + 2 * PAGE_SIZE, 2 * PAGE_SIZE),
    ]
    .concat();
    assert_eq!(device.bytes.lock().unwrap()[4096..][..3 * PAGE_SIZE], pages);
    assert_eq!(asked().len(), 2);
    // A page that may not be written ends the transfer, and keeps its bytes.
    let before = memory(AT + PAGE_SIZE, PAGE_SIZE);
    let second = AT + PAGE_SIZE..AT + 2 * PAGE_SIZE;
    table.protect(second.clone(), Access::READ, false);
    let mut sink = Sink::user(buffer(AT, 2 * PAGE_SIZE));
    assert_eq!(file.pread(&mut sink, 65536), Ok(PAGE_SIZE));
    assert_eq!(memory(second.start, PAGE_SIZE), before);
    // What is bad on the disk ends it too.
    table.protect(second, Access::READ | Access::WRITE, false);
    let bad = (Operation::Read, (65536 + 4096) / 512);
    device.broken.lock().unwrap().push(bad);
    let mut sink = Sink::user(buffer(AT, 3 * PAGE_SIZE));
    assert_eq!(file.pread(&mut sink, 65536), Ok(PAGE_SIZE));
    let mut sink = Sink::user(buffer(AT, PAGE_SIZE));
    assert_eq!(file.pread(&mut sink, 65536 + 4096), Err(Error::Io));
}

#[test]
fn errors_reach_the_program_and_no_further() {
    let device = Memory::new(1 << 20, 512);
    let world = World::new(&device);
    let file = world.file();
    device.broken.lock().unwrap().extend([
        (Operation::Read, 100),
        (Operation::Write, 200),
        (Operation::Flush, 0),
    ]);
    assert_eq!(read(&file, 100 * 512, 512), Err(Error::Io));
    assert_eq!(read(&file, 99 * 512, 512).map(|b| b.len()), Ok(512));
    // What is good before the bad page is given, then the error.
    let before = device.bytes.lock().unwrap().clone();
    let good = read(&file, 512, 1 << 19).unwrap();
    assert_eq!(good.len(), 12 * PAGE_SIZE);
    assert_eq!(good, before[512..512 + good.len()]);
    assert_eq!(write(&file, 200 * 512, &[1; 512]), Err(Error::Io));
    // Writing a part of what cannot be read.
    assert_eq!(write(&file, 100 * 512 + 1, &[1; 10]), Err(Error::Io));
    assert_eq!(write(&file, 100 * 512, &[1; 512]), Ok(512));
    assert_eq!(file.ops().sync(&file), Err(Error::Io));
    device.broken.lock().unwrap().clear();
    assert_eq!(file.ops().sync(&file), Ok(()));
    assert_eq!(read(&file, 100 * 512, 512).unwrap(), [1; 512]);
}

#[test]
fn synchronous_descriptors_flush_after_every_write() {
    let device = Memory::new(1 << 20, 512);
    let world = World::new(&device);
    write(&world.file(), 0, b"x").unwrap();
    assert_eq!(device.count(Operation::Flush), 0);
    let file = world
        .open(OpenFlags::READ_WRITE | OpenFlags::DSYNC)
        .unwrap();
    write(&file, 0, b"x").unwrap();
    assert_eq!(device.count(Operation::Flush), 1);
    device.broken.lock().unwrap().push((Operation::Flush, 0));
    assert_eq!(write(&file, 0, b"x"), Err(Error::Io));
}

#[test]
fn a_read_only_disk_can_be_opened_and_not_written() {
    let device = Memory::with(1 << 20, 512, true);
    let world = World::new(&device);
    let file = world.file();
    assert_eq!(write(&file, 0, b"x"), Err(Error::NotPermitted));
    let cleared = world.disk.clear_range(Operation::WriteZeroes, 0, 512);
    assert_eq!(cleared, Err(Error::NotPermitted));
    assert!(read(&file, 0, 1).is_ok());
}

#[test]
fn ranges_are_cleared_in_whole_blocks() {
    let device = Memory::new(8192, 512);
    let world = World::new(&device);
    let zero = |start, len| world.disk.clear_range(Operation::WriteZeroes, start, len);
    assert_eq!(zero(512, 1024), Ok(()));
    assert_eq!(device.bytes.lock().unwrap()[512..1536], [0; 1024]);
    assert_ne!(device.bytes.lock().unwrap()[1536..2048], [0; 512]);
    for (start, len) in [(1, 512), (0, 0), (0, 100), (8192, 512), (512, u64::MAX)] {
        assert_eq!(zero(start, len), Err(Error::Invalid), "{start} {len}");
    }
    let discard = world.disk.clear_range(Operation::Discard, 0, 512);
    assert_eq!(discard, Err(Error::Unsupported));
    let file = world.file();
    assert_eq!(file.ops().ioctl(&file, 0x5401, 0), Err(Error::NotTerminal));
}

#[test]
fn a_capsule_short_of_memory_transfers_in_small_steps() {
    let device = Memory::new(1 << 20, 512);
    let world = World::of(&device, 12);
    let file = world.file();
    let free = world.disk.account.limit() - world.disk.account.used();
    assert!(free < WINDOW / PAGE_SIZE, "{free}");
    let bytes = vec![5; WINDOW];
    assert_eq!(write(&file, 100, &bytes), Ok(WINDOW));
    assert_eq!(read(&file, 100, WINDOW).unwrap(), bytes);
    let used = world.disk.account.used();
    world.disk.account.set_limit(used);
    assert_eq!(read(&file, 0, 1), Err(Error::NoMemory));
}

#[test]
fn writers_of_the_same_block_keep_each_others_bytes() {
    let device = Memory::new(1 << 16, 512);
    let world = World::new(&device);
    std::thread::scope(|scope| {
        for part in 0..8u8 {
            let file = world.file();
            scope.spawn(move || {
                for round in 0..100u64 {
                    let at = round % 16 * 512 + u64::from(part) * 64;
                    assert_eq!(write(&file, at, &[part; 64]), Ok(64));
                }
            });
        }
    });
    let bytes = device.bytes.lock().unwrap();
    for (n, byte) in bytes[..16 * 512].iter().enumerate() {
        assert_eq!(usize::from(*byte), n % 512 / 64, "byte {n}");
    }
}

#[test]
fn proc_and_sys_know_the_disk() {
    let device = Memory::new(1 << 20, 4096);
    let world = World::new(&device);
    let disks = [world.disk.clone()];
    let mut text = Text::default();
    partitions(&disks, &mut text).unwrap();
    let text = std::string::String::from_utf8(text.0).unwrap();
    assert_eq!(
        text,
        "major minor  #blocks  name\n\n 254       16       1024 vdb\n"
    );
    let root = Mount::root(sysfs::tree(&disks, Vec::new()), MountFlags::empty(), "sys");
    let fs = FsContext::new(root.path());
    let caller = Caller {
        fs: &fs,
        cred: &world.cred,
    };
    for (path, want) in [
        ("/block/vdb/size", "2048\n"),
        ("/class/block/vdb/ro", "0\n"),
        ("/dev/block/254:16/queue/logical_block_size", "4096\n"),
    ] {
        let file = caller.open(
            At::Cwd,
            path.as_bytes(),
            &How::default(),
            machine::FileCharge::kernel(),
        );
        let mut bytes = [0; 100];
        let n = file.unwrap().read(&mut Sink::kernel(&mut bytes)).unwrap();
        assert_eq!(&bytes[..n], want.as_bytes(), "{path}");
    }
}

proptest! {
    /// Whatever is read and written where, the disk is what a plain file would be.
    #[test]
    fn a_disk_is_a_file_of_fixed_size(
        large in any::<bool>(),
        steps in proptest::collection::vec((any::<bool>(), 0u64..70_000, 0usize..20_000, any::<u8>()), 1..20),
    ) {
        let len = 64 << 10;
        let device = Memory::new(len, if large { 4096 } else { 512 });
        let world = World::new(&device);
        let file = world.file();
        let mut model = device.bytes.lock().unwrap().clone();
        for (writes, at, n, byte) in steps {
            let start = (at as usize).min(len);
            let end = (start + n).min(len);
            if writes {
                let bytes = vec![byte; n];
                let done = write(&file, at, &bytes);
                if start == len && n > 0 {
                    prop_assert_eq!(done, Err(Error::NoSpace));
                } else {
                    prop_assert_eq!(done, Ok(end - start));
                    model[start..end].fill(byte);
                }
            } else {
                prop_assert_eq!(read(&file, at, n).unwrap(), &model[start..end]);
            }
        }
        prop_assert_eq!(&*device.bytes.lock().unwrap(), &model);
    }
}
