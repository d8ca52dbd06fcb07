use super::*;
use crate::session::Session;
use machine::Frame;
use machine::block::{BlockError, Observer, Operation};
use skep_api::control::EventMask;

/// A disk that does nothing but keep its observer and count its flushes, and says that it
/// fails.
#[derive(Default)]
pub(crate) struct Idle(SpinLock<Option<Observer>>, AtomicU64);

impl Idle {
    fn tell(&self, trouble: Trouble) {
        if let Some(observer) = &*self.0.lock() {
            observer(trouble);
        }
    }
}

impl BlockDevice for Idle {
    fn sectors(&self) -> u64 {
        2048
    }
    fn block_len(&self) -> usize {
        512
    }
    fn physical_block_len(&self) -> usize {
        512
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read(&self, _: u64, _: &[Frame], _: usize) -> Result<(), BlockError> {
        Ok(())
    }
    fn write(&self, _: u64, _: &[Frame], _: usize) -> Result<(), BlockError> {
        Ok(())
    }
    fn flush(&self) -> Result<(), BlockError> {
        self.1.fetch_add(1, Relaxed);
        Err(BlockError::Failed)
    }
    fn clear(&self, _: Operation, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }
    fn observe(&self, observer: Observer) {
        *self.0.lock() = Some(observer);
    }
    fn health(&self) -> Result<Health, BlockError> {
        Ok(Health {
            is_failing: true,
            ..Health::default()
        })
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|n| String::from(*n)).collect()
}

#[test]
fn before_the_end_every_disk_is_flushed() {
    let all: Vec<_> = (0..3).map(|_| Arc::new(Idle::default())).collect();
    let disks = Disks::default();
    for (index, disk) in (0..).zip(&all) {
        disks.add(DiskId::virtio(index), disk.clone());
    }
    disks.flush();
    assert!(all.iter().all(|d| d.1.load(Relaxed) == 1));
}

#[test]
fn a_disk_has_one_holder_and_goes_back() {
    let disks = Disks::default();
    disks.add(DiskId::virtio(0), Arc::new(Idle::default()));
    // Number 1 did not start.
    disks.add(DiskId::virtio(2), Arc::new(Idle::default()));
    let missing = disks.grant(&names(&["vda", "vdb"]), "one");
    let missing = missing.err().unwrap();
    assert_eq!(missing, Refusal::DeviceMissing("vdb".into()));
    let held = disks.grant(&names(&["vda", "vdc"]), "one").unwrap();
    let taken = disks.grant(&names(&["vdc"]), "two").err().unwrap();
    assert_eq!(
        taken,
        Refusal::DeviceTaken {
            device: "vdc".into(),
            holder: "one".into()
        }
    );
    drop(held);
    assert!(disks.grant(&names(&["vdc"]), "two").is_ok());
}

#[test]
fn disks_come_and_go() {
    let disks = Disks::default();
    let hub = Hub::new();
    disks.report_to(&hub);
    let late = Arc::new(Idle::default());
    let first = disks.add_scsi(late.clone()).unwrap();
    let second = disks.add_scsi(Arc::new(Idle::default())).unwrap();
    assert_eq!((first.name(), second.name()), ("sda", "sdb"));
    assert_eq!(hub.emitted(), 2, "on a running node it is told who comes");
    late.tell(Trouble::Reset);
    assert_eq!(hub.emitted(), 3, "who comes late is watched too");
    let held = disks.grant(&names(&["sda"]), "one").unwrap();
    disks.remove(&first);
    assert!(disks.grant(&names(&["sda"]), "two").is_err());
    let again = disks.add_scsi(Arc::new(Idle::default())).unwrap();
    assert_eq!(again, first, "its name is free again");
    assert!(disks.grant(&names(&["sda"]), "two").is_ok());
    drop(held);
    let there: Vec<_> = disks.list().into_iter().map(|(id, _)| id).collect();
    assert_eq!(there, [second, first]);
}

#[test]
fn a_flood_of_trouble_is_told_once() {
    let device = Arc::new(Idle::default());
    let disks = Disks::default();
    disks.add(DiskId::virtio(0), device.clone());
    let hub = Hub::new();
    disks.report_to(&hub);
    for _ in 0..1000 {
        device.tell(Trouble::Reset);
    }
    assert_eq!(hub.emitted(), 1);
    device.tell(Trouble::Pulled);
    device.tell(Trouble::GivenUp);
    assert_eq!(hub.emitted(), 3);
}

/// A disk that fails from the start is asked again until somebody hears of it.
#[test]
fn a_failing_disk_is_told_to_who_listens_later() {
    let disks = Disks::default();
    disks.add(DiskId::virtio(0), Arc::new(Idle::default()));
    assert!(!disks.look_after());
    let hub = Hub::new();
    disks.report_to(&hub);
    assert!(!disks.look_after());
    let session = Session::new().unwrap();
    hub.join(&session).unwrap();
    assert!(!disks.look_after());
    session.subscribe(EventMask::DEVICE);
    assert!(disks.look_after());
    assert!(disks.look_after());
    assert_eq!(hub.emitted(), 1);
}
