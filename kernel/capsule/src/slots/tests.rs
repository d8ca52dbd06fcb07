//! Updates on a disk whose power fails.

use super::*;
use alloc::vec;
use machine::Frame;
use machine::block::{Observer, Operation, SECTOR};
use machine::sync::SpinLock;
use proptest::prelude::*;
use skep_api::boot::release::Piece;
use skep_api::boot::{SLOT_TYPE, STATE_TYPE, crc32};
use skep_api::{Hash, KeyPair};

const SECTORS: u64 = 1024;
const STATE_START: u64 = 40;
const SLOT_STARTS: [u64; 2] = [64, 512];
const SLOT_SECTORS: u64 = 256;

/// A disk that keeps writes back until they are flushed, and loses power when told to.
#[derive(Default)]
struct Cut(SpinLock<Contents>);

#[derive(Default)]
struct Contents {
    durable: Vec<u8>,
    /// Sectors written and not flushed, in order.
    pending: Vec<(u64, Vec<u8>)>,
    /// Sectors that may yet be written before power fails.
    left: Option<usize>,
    /// How often it was read.
    reads: usize,
    /// Flushes fail.
    never_flushes: bool,
    /// Reads give this many bits wrong.
    rots: bool,
}

impl Cut {
    fn with(&self, work: impl FnOnce(&mut Contents)) {
        work(&mut self.0.lock());
    }

    /// Power is back. Of what was not flushed, each sector was kept if `keep` says so.
    fn restart(&self, mut keep: impl FnMut() -> bool) -> Arc<Cut> {
        let contents = self.0.lock();
        let mut durable = contents.durable.clone();
        for (sector, bytes) in &contents.pending {
            if keep() {
                put(&mut durable, *sector, bytes);
            }
        }
        Arc::new(Cut(SpinLock::new(Contents {
            durable,
            ..Contents::default()
        })))
    }
}

fn put(disk: &mut [u8], sector: u64, bytes: &[u8]) {
    let at = sector as usize * SECTOR;
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

impl BlockDevice for Cut {
    fn sectors(&self) -> u64 {
        SECTORS
    }
    fn block_len(&self) -> usize {
        SECTOR
    }
    fn physical_block_len(&self) -> usize {
        SECTOR
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        machine::block::check(self, sector, frames.len(), len)?;
        let mut contents = self.0.lock();
        contents.reads += 1;
        if contents.left == Some(0) {
            return Err(BlockError::Gone);
        }
        let at = sector as usize * SECTOR;
        let mut found = contents.durable[at..at + len].to_vec();
        for (other, bytes) in &contents.pending {
            let inside = other
                .checked_sub(sector)
                .filter(|at| (*at as usize) < len / SECTOR);
            if let Some(at) = inside {
                put(&mut found, at, bytes);
            }
        }
        for (page, frame) in found.chunks(4096).zip(frames) {
            let mut page = page.to_vec();
            if contents.rots && sector > STATE_START + 16 {
                page[7] ^= 1;
            }
            frame.write(0, &page);
        }
        Ok(())
    }
    fn write(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        machine::block::check(self, sector, frames.len(), len)?;
        let mut contents = self.0.lock();
        for index in 0..len / SECTOR {
            if contents.left == Some(0) {
                return Err(BlockError::Gone);
            }
            contents.left = contents.left.map(|left| left - 1);
            let mut bytes = vec![0; SECTOR];
            frames[index / 8].read(index % 8 * SECTOR, &mut bytes);
            contents.pending.push((sector + index as u64, bytes));
        }
        Ok(())
    }
    fn flush(&self) -> Result<(), BlockError> {
        let mut contents = self.0.lock();
        if contents.left == Some(0) || contents.never_flushes {
            return Err(BlockError::Gone);
        }
        for (sector, bytes) in core::mem::take(&mut contents.pending) {
            put(&mut contents.durable, sector, &bytes);
        }
        Ok(())
    }
    fn clear(&self, _: Operation, _: u64, _: u64) -> Result<(), BlockError> {
        Err(BlockError::Unsupported)
    }
    fn observe(&self, _: Observer) {}
}

fn key() -> KeyPair {
    KeyPair::from_seed([3; 32]).unwrap()
}

/// A release of that version, all its bytes.
fn release(version: u64, pages: usize, by: &KeyPair) -> Vec<u8> {
    let mut bytes = vec![version as u8; pages * 4096];
    bytes[4096] = 0x7f;
    let mut volume = skep_api::hash::Hasher::new();
    volume.update(&bytes[..HEAD_AT]);
    volume.update(&bytes[HEAD_END..]);
    let release = Release {
        version,
        len: bytes.len() as u64,
        kernel: Piece {
            offset: 4096,
            len: 4000,
            hash: Hash::of(&bytes[4096..8096]),
        },
        ramdisk: Piece {
            offset: 0,
            len: 0,
            hash: Hash::of(b""),
        },
        volume: volume.finish(),
        key: by.public(),
        health_seconds: 60,
        tries: 1,
        command_line: String::new(),
    };
    bytes[HEAD_AT..HEAD_END].copy_from_slice(&release.sign(by));
    bytes
}

/// A disk with release 1 in slot A, healthy.
fn disk() -> Arc<Cut> {
    let mut bytes = vec![0u8; SECTORS as usize * SECTOR];
    let mut entries = vec![0u8; ENTRIES_BYTES_MAX];
    let [a, b] = SLOT_STARTS;
    let partitions = [
        (STATE_TYPE, STATE_START, 16),
        (SLOT_TYPE, a, SLOT_SECTORS),
        (SLOT_TYPE, b, SLOT_SECTORS),
    ];
    for (entry, (kind, start, sectors)) in entries.chunks_mut(128).zip(partitions) {
        entry[..16].copy_from_slice(&kind);
        entry[32..40].copy_from_slice(&start.to_le_bytes());
        entry[40..48].copy_from_slice(&(start + sectors - 1).to_le_bytes());
    }
    let mut header = vec![0u8; SECTOR];
    header[..8].copy_from_slice(b"EFI PART");
    header[56..72].fill(7);
    header[72..80].copy_from_slice(&2u64.to_le_bytes());
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    let crc = crc32(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    put(&mut bytes, 1, &header);
    put(&mut bytes, 2, &entries);
    put(&mut bytes, STATE_START, &BootState::fresh(1).encode());
    put(&mut bytes, a, &release(1, 4, &key()));
    let cut = Cut::default();
    cut.with(|contents| contents.durable = bytes);
    Arc::new(cut)
}

/// A node on this disk.
struct Node {
    disks: Disks,
    slots: Slots,
}

impl Node {
    fn new(disk: &Arc<Cut>) -> Node {
        let disks = Disks::default();
        disks.add(vfs::block::DiskId::virtio(0), disk.clone());
        Node {
            disks,
            slots: Slots::new(Started::Untold),
        }
    }

    fn update(&self, release: &[u8]) -> Result<(), ControlError> {
        self.slots
            .begin_update(&self.disks, &release[HEAD_AT..HEAD_END])?;
        for (index, piece) in release.chunks(3 * 4096).enumerate() {
            let offset = index as u64 * 3 * 4096;
            self.slots.write_update(&self.disks, offset, piece)?;
        }
        loop {
            let (checked, total) = self.slots.check_update(&self.disks)?;
            if checked == total {
                break;
            }
        }
        self.slots.finish_update(&self.disks)
    }

    fn refusal(&self, release: &[u8]) -> UpdateRefusal {
        match self.update(release) {
            Err(ControlError::Update(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// What a loader would start: a slot with a release that verifies whole, after at most
/// one that does not.
fn start(disk: &Arc<Cut>) -> Option<(Slot, u64)> {
    let device: Arc<dyn BlockDevice> = disk.clone();
    let mut found = SlotDisk::open(&device)?;
    let (state, _) = found.state().ok()?;
    let mut choice = state.choose();
    for _ in Slot::BOTH {
        if let Some(new) = choice.store {
            found.store(new).ok()?;
        }
        let mut bytes = vec![0; found.room(choice.slot) as usize];
        found.read_slot(choice.slot, 0, &mut bytes).ok()?;
        let verified = Release::verify(&bytes[HEAD_AT..HEAD_END], &key().public());
        if let Ok(release) = verified {
            let kernel = &bytes[4096..8096];
            assert_eq!(Hash::of(kernel), release.kernel.hash);
            return Some((choice.slot, release.version));
        }
        let (state, _) = found.state().ok()?;
        choice = state.refuse(choice.slot);
    }
    None
}

#[test]
fn an_update_is_tried_once_and_stays_when_it_is_healthy() {
    let disk = disk();
    let node = Node::new(&disk);
    assert_eq!(node.slots.info(&node.disks).unwrap().version, 1);
    node.update(&release(2, 9, &key())).unwrap();
    assert_eq!(start(&disk), Some((Slot::B, 2)));
    let node = Node::new(&disk);
    assert_eq!(node.slots.trial_seconds(&node.disks), Some(60));
    assert_eq!(node.refusal(&release(3, 4, &key())), UpdateRefusal::OnTrial);
    assert_eq!(node.slots.confirm(&node.disks), Ok(true));
    assert_eq!(node.slots.confirm(&node.disks), Ok(false));
    assert_eq!(node.slots.trial_seconds(&node.disks), None);
    assert_eq!(start(&disk), Some((Slot::B, 2)));
    node.update(&release(3, 4, &key())).unwrap();
    assert_eq!(start(&disk), Some((Slot::A, 3)));
    // It never becomes healthy.
    assert_eq!(start(&disk), Some((Slot::B, 2)));
}

/// What could not be flushed is not reported as durable by whoever asks again.
#[test]
fn health_that_is_only_in_the_disks_cache_is_not_recorded() {
    let disk = disk();
    let node = Node::new(&disk);
    node.update(&release(2, 9, &key())).unwrap();
    assert_eq!(start(&disk), Some((Slot::B, 2)));
    let node = Node::new(&disk);
    assert_eq!(node.slots.trial_seconds(&node.disks), Some(60));
    disk.with(|contents| contents.never_flushes = true);
    for _ in 0..2 {
        node.slots.confirm(&node.disks).unwrap_err();
    }
    disk.with(|contents| contents.never_flushes = false);
    assert_eq!(node.slots.confirm(&node.disks), Ok(false));
    assert_eq!(start(&disk.restart(|| false)), Some((Slot::B, 2)));
}

/// Firmware may have left in the disk's cache what the loader wrote.
#[test]
fn a_try_that_the_loader_took_is_durable_before_anything_runs() {
    let disk = disk();
    let fresh = BootState::fresh(1);
    let taken = fresh.finish_update(2, 1).choose().store.unwrap();
    let (taken, bytes) = taken.store(&fresh);
    disk.with(|contents| {
        put(
            &mut contents.durable,
            SLOT_STARTS[1],
            &release(2, 4, &key()),
        );
        contents.pending.push((STATE_START + 8, bytes.to_vec()));
    });
    let node = Node::new(&disk);
    assert_eq!(node.slots.trial_seconds(&node.disks), Some(60));
    let device: Arc<dyn BlockDevice> = disk.restart(|| false);
    let (found, _) = SlotDisk::open(&device).unwrap().state().unwrap();
    assert_eq!(found, taken);
}

/// Health of what runs says nothing of what comes next.
#[test]
fn an_update_that_waits_is_not_confirmed_by_the_release_before_it() {
    let disk = disk();
    let node = Node::new(&disk);
    node.update(&release(2, 9, &key())).unwrap();
    assert_eq!(node.slots.confirm(&node.disks), Ok(false));
    let info = node.slots.info(&node.disks).unwrap();
    assert_eq!((info.running, info.version), (0, 1));
    assert_eq!(info.slots[1].status, SlotStatus::Trying { tries_left: 1 });
    // A better one may take its place.
    node.update(&release(3, 5, &key())).unwrap();
    assert_eq!(start(&disk), Some((Slot::B, 3)));
    assert_eq!(start(&disk), Some((Slot::A, 1)));
}

#[test]
fn what_is_not_to_be_taken_is_refused() {
    let disk = disk();
    let node = Node::new(&disk);
    let (running, offered) = (1, 1);
    assert_eq!(
        node.refusal(&release(1, 4, &key())),
        UpdateRefusal::Downgrade { running, offered }
    );
    let stranger = KeyPair::from_seed([9; 32]).unwrap();
    let refusal = node.refusal(&release(2, 4, &stranger));
    assert!(matches!(refusal, UpdateRefusal::Release(_)), "{refusal:?}");
    let refusal = node.refusal(&release(2, 33, &key()));
    assert!(
        matches!(refusal, UpdateRefusal::TooLarge { .. }),
        "{refusal:?}"
    );
    let mut changed = release(2, 9, &key());
    changed[30_000] ^= 1;
    let refusal = node.refusal(&changed);
    assert!(matches!(refusal, UpdateRefusal::Release(_)), "{refusal:?}");
    let mut first = release(2, 9, &key());
    first[3] ^= 1;
    assert!(matches!(node.refusal(&first), UpdateRefusal::Release(_)));
    assert_eq!(start(&disk), Some((Slot::A, 1)));
}

#[test]
fn bytes_that_the_disk_does_not_keep_are_found() {
    let disk = disk();
    let node = Node::new(&disk);
    assert!(node.slots.info(&node.disks).is_ok());
    disk.with(|contents| contents.rots = true);
    let refusal = node.refusal(&release(2, 9, &key()));
    assert!(matches!(refusal, UpdateRefusal::Release(_)), "{refusal:?}");
    disk.with(|contents| contents.rots = false);
    assert_eq!(start(&disk), Some((Slot::A, 1)));
}

#[test]
fn steps_come_in_order() {
    let node = Node::new(&disk());
    let bytes = release(2, 4, &key());
    let head = &bytes[HEAD_AT..HEAD_END];
    let (slots, disks) = (&node.slots, &node.disks);
    let refused = |refusal| Err(ControlError::Update(refusal));
    let not_begun = UpdateRefusal::NotBegun;
    assert_eq!(slots.finish_update(disks), refused(not_begun.clone()));
    assert_eq!(slots.write_update(disks, 0, &bytes), refused(not_begun));
    for (offset, len) in [
        (4096, 4096),
        (0, 0),
        (0, 100),
        (0, 5 * 4096),
        (u64::MAX, 4096),
    ] {
        slots.begin_update(disks, head).unwrap();
        let piece = vec![0; len];
        let answer = slots.write_update(disks, offset, &piece);
        assert_eq!(answer, refused(UpdateRefusal::OutOfOrder));
    }
    slots.begin_update(disks, head).unwrap();
    slots.write_update(disks, 0, &bytes[..8192]).unwrap();
    let whole = UpdateRefusal::NotWhole;
    assert_eq!(
        slots.check_update(disks),
        Err(ControlError::Update(whole.clone()))
    );
    slots.begin_update(disks, head).unwrap();
    slots.write_update(disks, 0, &bytes).unwrap();
    assert_eq!(slots.finish_update(disks), refused(whole));
    assert!(slots.begin_update(disks, &head[1..]).is_err());
}

#[test]
fn a_node_without_slots_says_so_and_the_disk_with_them_is_kept_from_capsules() {
    let empty = Cut::default();
    empty.with(|contents| contents.durable = vec![0; SECTORS as usize * SECTOR]);
    let node = Node::new(&Arc::new(empty));
    assert_eq!(node.slots.info(&node.disks), Err(ControlError::Unsupported));
    let names = [String::from("vda")];
    assert!(node.disks.grant(&names, "capsule").is_ok());
    let node = Node::new(&disk());
    node.slots.info(&node.disks).unwrap();
    assert!(node.disks.grant(&names, "capsule").is_err());
}

#[test]
fn a_disk_in_a_capsules_hands_is_not_asked_for_slots() {
    let disk = disk();
    let node = Node::new(&disk);
    let held = node.disks.grant(&[String::from("vda")], "web").unwrap();
    assert_eq!(node.slots.info(&node.disks), Err(ControlError::Unsupported));
    disk.with(|contents| assert_eq!(contents.reads, 0));
    let id = vfs::block::DiskId::virtio(0);
    assert!(!node.disks.reserve(&id, HOLDER));
    drop(held);
    assert!(node.slots.info(&node.disks).is_ok());
}

#[test]
fn the_disk_is_the_one_that_the_loader_named() {
    let disk = disk();
    let mut node = Node::new(&disk);
    let mut started = unknown([8; 16]);
    started.key = key().public();
    node.slots = Slots::new(Started::Slot(started));
    assert_eq!(node.slots.info(&node.disks), Err(ControlError::Unsupported));
    started.disk = [7; 16];
    node.slots = Slots::new(Started::Slot(started));
    assert!(node.slots.info(&node.disks).is_ok());
}

#[test]
fn what_came_from_the_network_is_not_what_is_on_a_disk() {
    let disk = disk();
    let mut node = Node::new(&disk);
    assert!(node.slots.info(&node.disks).is_ok());
    node.slots = Slots::new(Started::Network);
    assert_eq!(node.slots.info(&node.disks), Err(ControlError::Unsupported));
    assert_eq!(node.slots.trial_seconds(&node.disks), None);
}

/// The partitions other than slots and state of a test's disk.
fn with_files(disk: &Arc<Cut>) {
    disk.with(|contents| {
        let files = vec![0x5a; 8 * SECTOR];
        put(&mut contents.durable, 900, &files);
        let mut entries = contents.durable[1024..1024 + ENTRIES_BYTES_MAX].to_vec();
        entries[3 * 128..][..16].fill(9);
        entries[3 * 128 + 32..][..8].copy_from_slice(&900u64.to_le_bytes());
        entries[3 * 128 + 40..][..8].copy_from_slice(&907u64.to_le_bytes());
        let mut header = contents.durable[512..1024].to_vec();
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        header[16..20].fill(0);
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        put(&mut contents.durable, 1, &header);
        put(&mut contents.durable, 2, &entries);
    });
}

fn empty_disk() -> Arc<Cut> {
    let disk = Cut::default();
    disk.with(|contents| contents.durable = vec![0xee; SECTORS as usize * SECTOR]);
    Arc::new(disk)
}

fn install(node: &Node, name: &str) -> Result<(), ControlError> {
    node.slots.begin_install(&node.disks, name)?;
    loop {
        let (done, total) = node.slots.step_install(&node.disks)?;
        if done == total {
            return Ok(());
        }
    }
}

#[test]
fn another_disk_becomes_one_that_starts() {
    let (first, second) = (disk(), empty_disk());
    with_files(&first);
    let node = Node::new(&first);
    node.update(&release(2, 9, &key())).unwrap();
    assert_eq!(start(&first), Some((Slot::B, 2)));
    let node = Node::new(&first);
    node.slots.confirm(&node.disks).unwrap();
    node.disks
        .add(vfs::block::DiskId::virtio(1), second.clone());
    install(&node, "vdb").unwrap();
    // From the slot that ran to slot A, with the files beside it.
    assert_eq!(start(&second), Some((Slot::A, 2)));
    second.with(|contents| {
        assert_eq!(
            contents.durable[900 * SECTOR..908 * SECTOR],
            [0x5a; 8 * SECTOR]
        )
    });
    let device: Arc<dyn BlockDevice> = second.clone();
    let [first_guid, second_guid] =
        [first.clone() as Arc<dyn BlockDevice>, device].map(|d| SlotDisk::open(&d).unwrap().guid);
    assert_ne!(first_guid, second_guid);
    // The copy of the table at the end does too.
    second.with(|contents| contents.durable[512..1024].fill(0));
    assert_eq!(start(&second), Some((Slot::A, 2)));
    // And it is free again.
    assert!(node.disks.grant(&[String::from("vdb")], "capsule").is_ok());
    // It takes updates of its own.
    let node = Node::new(&second);
    node.update(&release(3, 5, &key())).unwrap();
    assert_eq!(start(&second), Some((Slot::B, 3)));
}

#[test]
fn disks_that_are_not_to_be_erased_are_refused() {
    let node = Node::new(&disk());
    node.disks.add(vfs::block::DiskId::virtio(1), empty_disk());
    let refused = |name: &str| {
        let refusal = node.slots.begin_install(&node.disks, name);
        assert!(
            matches!(refusal, Err(ControlError::Update(UpdateRefusal::Target(_)))),
            "{refusal:?}"
        );
    };
    refused("vda");
    refused("vdz");
    let held = node.disks.grant(&[String::from("vdb")], "capsule").unwrap();
    refused("vdb");
    drop(held);
    assert!(node.slots.begin_install(&node.disks, "vdb").is_ok());
}

#[test]
fn half_an_installation_starts_nothing() {
    let second = empty_disk();
    let node = Node::new(&disk());
    node.disks
        .add(vfs::block::DiskId::virtio(1), second.clone());
    node.slots.begin_install(&node.disks, "vdb").unwrap();
    second.with(|contents| contents.left = Some(20));
    while let Ok((done, total)) = node.slots.step_install(&node.disks) {
        assert!(done < total, "all of it was written");
    }
    let second = second.restart(|| true);
    assert!(SlotDisk::open(&(second as Arc<dyn BlockDevice>)).is_none());
}

proptest! {
    /// Power fails after any sector, and any part of what was not flushed is lost: the
    /// node starts the release it had or, once all of it is there, the new one, and
    /// takes the next update.
    #[test]
    fn power_may_fail_at_any_moment(
        at in 0usize..110,
        kept in proptest::collection::vec(any::<bool>(), 128),
        pages in 3usize..12,
    ) {
        let disk = disk();
        let node = Node::new(&disk);
        prop_assert!(node.slots.info(&node.disks).is_ok());
        disk.with(|contents| contents.left = Some(at));
        let done = node.update(&release(2, pages, &key()));
        let mut kept = kept.into_iter().cycle();
        let disk = disk.restart(|| kept.next().unwrap_or(true));
        let found = start(&disk);
        match done {
            Ok(()) => prop_assert_eq!(found, Some((Slot::B, 2))),
            Err(_) => prop_assert!(
                matches!(found, Some((Slot::A, 1) | (Slot::B, 2))),
                "{:?} after {:?}", found, done
            ),
        }
        let node = Node::new(&disk);
        prop_assert!(node.slots.confirm(&node.disks).is_ok());
        prop_assert_eq!(node.update(&release(3, 4, &key())), Ok(()));
        prop_assert_eq!(start(&disk).map(|(_, version)| version), Some(3));
    }
}
