//! Rules of single calls.

use super::{
    AddressSpace, Advice, FutexKey, Limits, LockFuture, LockMode, MapRequest, OldRange, Placement,
    Populate, RegionName, RemapRequest, RemapTarget, SyncMode,
};
use crate::testing::{TestObject, account, enter, leave};
use crate::{AreaFlags, Backing as _, Error, FaultError, Layout, Randomize};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use machine::addr::{PAGE_SIZE, USER_END, USER_START};
use machine::paging::Access;
use machine::thread::PageFault;
use machine::user;

const RW: Access = Access::READ.union(Access::WRITE);
const AT: usize = 0x2000_0000;

fn space() -> Arc<AddressSpace> {
    let s = AddressSpace::new(account(1000)).unwrap();
    enter(&s);
    s
}

fn fixed(pages: usize, access: Access) -> MapRequest {
    MapRequest::anonymous(pages * PAGE_SIZE, access).at(Placement::Fixed(AT))
}

fn fault(addr: usize, access: Access) -> PageFault {
    PageFault {
        addr,
        access,
        from_user: true,
        present: false,
    }
}

fn limited(limits: Limits) -> Arc<AddressSpace> {
    let layout = Layout::new(Randomize::No, limits.stack);
    let s = AddressSpace::with_layout(account(1000), layout, limits).unwrap();
    enter(&s);
    s
}

#[test]
fn nonsense_is_refused() {
    let s = space();
    let map = |len, at| s.map(MapRequest::anonymous(len, RW).at(at));
    assert_eq!(map(0, Placement::Hint(0)), Err(Error::BadRange));
    assert_eq!(map(usize::MAX, Placement::Hint(0)), Err(Error::NoSpace));
    assert_eq!(map(USER_END, Placement::Hint(0)), Err(Error::NoSpace));
    assert_eq!(map(1, Placement::Fixed(AT + 1)), Err(Error::BadRange));
    assert_eq!(map(1, Placement::Fixed(USER_END)), Err(Error::NoSpace));
    assert_eq!(
        map(1, Placement::Fixed(usize::MAX & !4095)),
        Err(Error::NoSpace)
    );
    assert_eq!(map(1, Placement::Fixed(0)), Err(Error::NotPermitted));
    assert_eq!(s.unmap(AT + 1, 1), Err(Error::BadRange));
    assert_eq!(s.unmap(AT, 0), Err(Error::BadRange));
    assert_eq!(s.unmap(AT, usize::MAX), Err(Error::BadRange));
    assert_eq!(s.unmap(USER_END, PAGE_SIZE), Err(Error::BadRange));
    assert_eq!(s.protect(AT + 1, 1, RW), Err(Error::BadRange));
    assert_eq!(s.protect(AT, 1, RW), Err(Error::NotMapped));
    let object = TestObject::new(s.account(), 1);
    let far = MapRequest::object(object.clone(), (1 << 63) - 4096, 8192, RW);
    assert_eq!(s.map(far), Err(Error::Overflow));
    let odd = MapRequest::object(object, 5, 1, RW);
    assert_eq!(s.map(odd), Err(Error::BadRange));
    assert_eq!(s.stats().mapped, 0);
}

#[test]
fn fixed_without_replacing() {
    let s = space();
    s.map(fixed(4, RW)).unwrap();
    let at = |a| MapRequest::anonymous(PAGE_SIZE, RW).at(Placement::FixedNoReplace(a));
    assert_eq!(s.map(at(AT + 3 * PAGE_SIZE)), Err(Error::Exists));
    assert_eq!(s.map(at(AT + 4 * PAGE_SIZE)), Ok(AT + 4 * PAGE_SIZE));
    // The neighbour was alike, so it is one area.
    assert_eq!(s.stats().areas, 1);
}

#[test]
fn a_free_hint_is_honoured_and_a_taken_one_is_not() {
    let s = space();
    let hint = MapRequest::anonymous(PAGE_SIZE, RW).at(Placement::Hint(AT + 5));
    assert_eq!(s.map(hint.clone()), Ok(AT));
    let second = s.map(hint).unwrap();
    assert_ne!(second, AT);
    assert!(second < s.layout().mmap_base);
    let low = s
        .map(MapRequest::anonymous(PAGE_SIZE, RW).at(Placement::Low))
        .unwrap();
    assert!(low < 1 << 31);
    let hopeless = MapRequest::anonymous(PAGE_SIZE, RW).at(Placement::Hint(usize::MAX));
    assert!(s.map(hopeless).unwrap() < USER_END);
}

#[test]
fn rights_are_those_asked_for() {
    let s = space();
    s.map(fixed(1, Access::READ)).unwrap();
    assert_eq!(
        s.handle_fault(fault(AT, Access::WRITE)),
        Err(FaultError::Denied)
    );
    assert_eq!(
        s.handle_fault(fault(AT, Access::EXEC)),
        Err(FaultError::Denied)
    );
    assert_eq!(s.handle_fault(fault(AT, Access::READ)), Ok(()));
    assert_eq!(
        s.handle_fault(fault(AT - 1, Access::READ)),
        Err(FaultError::NotMapped)
    );
    // x86 cannot write without reading.
    s.protect(AT, PAGE_SIZE, Access::WRITE).unwrap();
    user::write_value(AT, &7u8).unwrap();
    assert_eq!(user::read_value::<u8>(AT), Ok(7));
    s.protect(AT, PAGE_SIZE, Access::empty()).unwrap();
    assert!(user::read_value::<u8>(AT).is_err());
    s.protect(AT, PAGE_SIZE, Access::READ).unwrap();
    assert_eq!(user::read_value::<u8>(AT), Ok(7));
}

#[test]
fn a_file_opened_for_reading_stays_so() {
    let s = space();
    let object = TestObject::new(s.account(), 2);
    let mut request = MapRequest::object(object, 0, PAGE_SIZE, Access::READ)
        .with(AreaFlags::SHARED)
        .at(Placement::Fixed(AT));
    request.max_access = Access::READ | Access::EXEC;
    s.map(request.clone()).unwrap();
    assert_eq!(s.protect(AT, PAGE_SIZE, RW), Err(Error::Denied));
    request.access = RW;
    assert_eq!(s.map(request), Err(Error::Denied));
}

#[test]
fn reads_share_one_page_of_zeros() {
    let s = space();
    s.map(fixed(10, RW)).unwrap();
    let used = s.account().used();
    for i in 0..10 {
        assert_eq!(user::read_value::<u64>(AT + i * PAGE_SIZE), Ok(0));
    }
    assert_eq!(s.account().used(), used);
    assert_eq!(s.stats().resident, 10);
    user::write_value(AT, &1u8).unwrap();
    assert_eq!(s.account().used(), used + 1);
    assert_eq!(user::read_value::<u8>(AT + PAGE_SIZE), Ok(0));
}

#[test]
fn the_account_bounds_what_is_touched() {
    let s = AddressSpace::new(account(4)).unwrap();
    enter(&s);
    s.map(fixed(100, RW)).unwrap();
    let written = (0..100).take_while(|i| user::write_value(AT + i * PAGE_SIZE, &1u8).is_ok());
    // One page of the four pays for the list of areas.
    assert_eq!(written.count(), 3);
    let refused = s.handle_fault(fault(AT + 50 * PAGE_SIZE, Access::WRITE));
    assert_eq!(refused, Err(FaultError::OutOfMemory));
}

#[test]
fn shared_anonymous_memory_outlives_a_fork() {
    let s = space();
    s.map(fixed(2, RW).with(AreaFlags::SHARED)).unwrap();
    let child = s.fork().unwrap();
    user::write_value(AT, &5u8).unwrap();
    enter(&child);
    assert_eq!(user::read_value::<u8>(AT), Ok(5));
    user::write_value(AT + PAGE_SIZE, &6u8).unwrap();
    assert_eq!(s.futex_key(AT), child.futex_key(AT));
    assert!(matches!(
        s.futex_key(AT),
        Ok(FutexKey::Shared { offset: 0, .. })
    ));
    enter(&s);
    assert_eq!(user::read_value::<u8>(AT + PAGE_SIZE), Ok(6));
    drop(child);
    let account = s.account().clone();
    drop(s);
    leave();
    assert_eq!(account.used(), 0);
}

#[test]
fn advice_about_fork() {
    let s = space();
    s.map(fixed(3, RW)).unwrap();
    for i in 0..3 {
        user::write_value(AT + i * PAGE_SIZE, &9u8).unwrap();
    }
    s.advise(AT, PAGE_SIZE, Advice::DontFork).unwrap();
    s.advise(AT + PAGE_SIZE, PAGE_SIZE, Advice::WipeOnFork)
        .unwrap();
    let child = s.fork().unwrap();
    enter(&child);
    assert!(user::read_value::<u8>(AT).is_err());
    assert_eq!(user::read_value::<u8>(AT + PAGE_SIZE), Ok(0));
    assert_eq!(user::read_value::<u8>(AT + 2 * PAGE_SIZE), Ok(9));
    s.advise(AT, 2 * PAGE_SIZE, Advice::DoFork).unwrap();
    s.advise(AT, 2 * PAGE_SIZE, Advice::KeepOnFork).unwrap();
    assert_eq!(s.stats().areas, 1);
}

#[test]
fn a_stack_grows_within_its_limit() {
    let limits = Limits {
        stack: 16 * PAGE_SIZE,
        ..Limits::default()
    };
    let s = limited(limits);
    let top = s.layout().stack_top;
    let stack = MapRequest::anonymous(PAGE_SIZE, RW)
        .at(Placement::Fixed(top - PAGE_SIZE))
        .with(AreaFlags::GROWS_DOWN);
    s.map(stack).unwrap();
    user::write_value(top - 16 * PAGE_SIZE, &1u8).unwrap();
    assert!(user::write_value(top - 17 * PAGE_SIZE, &1u8).is_err());
    assert_eq!(s.stats().stack, 16);
    assert!(matches!(
        s.regions().next().unwrap().name,
        RegionName::Stack
    ));
}

#[test]
fn a_stack_keeps_its_distance() {
    let limits = Limits {
        stack: usize::MAX,
        ..Limits::default()
    };
    let s = limited(limits);
    let top = 0x7000_0000_0000;
    let stack = MapRequest::anonymous(PAGE_SIZE, RW)
        .at(Placement::Fixed(top))
        .with(AreaFlags::GROWS_DOWN);
    s.map(stack).unwrap();
    let below = top - 300 * PAGE_SIZE;
    s.map(MapRequest::anonymous(PAGE_SIZE, RW).at(Placement::Fixed(below)))
        .unwrap();
    user::write_value(below + 257 * PAGE_SIZE, &1u8).unwrap();
    assert!(user::write_value(below + 256 * PAGE_SIZE, &1u8).is_err());
}

#[test]
fn the_heap_moves_within_its_limits() {
    let limits = Limits {
        data: 64 * PAGE_SIZE,
        ..Limits::default()
    };
    let s = limited(limits);
    assert_eq!(s.brk(AT), 0);
    s.set_heap(AT, 0);
    assert_eq!(s.brk(0), AT);
    assert_eq!(s.brk(AT + 5000), AT + 5000);
    user::write_value(AT + 8191, &1u8).unwrap();
    assert!(user::write_value(AT + 8192, &1u8).is_err());
    assert!(matches!(s.regions().next().unwrap().name, RegionName::Heap));
    assert_eq!(s.brk(AT + 10), AT + 10);
    assert!(user::read_value::<u8>(AT + 8191).is_err());
    assert_eq!(s.brk(AT + 65 * PAGE_SIZE), AT + 10);
    s.map(MapRequest::anonymous(1, RW).at(Placement::Fixed(AT + 4 * PAGE_SIZE)))
        .unwrap();
    assert_eq!(s.brk(AT + 5 * PAGE_SIZE), AT + 10);
    assert_eq!(s.brk(usize::MAX), AT + 10);
}

#[test]
fn limits_on_size() {
    let limits = Limits {
        address_space: 10 * PAGE_SIZE,
        data: 5 * PAGE_SIZE,
        ..Limits::default()
    };
    let s = limited(limits);
    assert_eq!(s.map(fixed(6, RW)), Err(Error::OverLimit));
    s.map(fixed(6, Access::READ)).unwrap();
    assert_eq!(s.protect(AT, 6 * PAGE_SIZE, RW), Err(Error::OverLimit));
    s.protect(AT, 5 * PAGE_SIZE, RW).unwrap();
    let more = MapRequest::anonymous(5 * PAGE_SIZE, Access::READ);
    assert_eq!(s.map(more), Err(Error::OverLimit));
    // What is replaced does not count twice.
    s.map(fixed(10, Access::READ)).unwrap();
    assert_eq!(s.stats().mapped, 10);
}

#[test]
fn past_the_end_of_a_file() {
    let s = space();
    let object = TestObject::new(s.account(), 1);
    s.map(MapRequest::object(object.clone(), 0, 3 * PAGE_SIZE, RW).at(Placement::Fixed(AT)))
        .unwrap();
    assert_eq!(
        s.handle_fault(fault(AT + PAGE_SIZE, Access::READ)),
        Err(FaultError::Bus)
    );
    assert_eq!(
        s.handle_fault(fault(AT + PAGE_SIZE, Access::WRITE)),
        Err(FaultError::Bus)
    );
    object.truncate(2);
    assert_eq!(s.handle_fault(fault(AT + PAGE_SIZE, Access::WRITE)), Ok(()));
    object.truncate(0);
    assert_eq!(
        s.handle_fault(fault(AT + PAGE_SIZE, Access::READ)),
        Err(FaultError::Bus)
    );
}

#[test]
fn one_read_maps_the_neighbours() {
    let s = space();
    let object = TestObject::new(s.account(), 64);
    for i in 0..40 {
        use crate::Backing;
        object.page(i, false).unwrap();
    }
    s.map(MapRequest::object(object, 0, 64 * PAGE_SIZE, Access::READ).at(Placement::Fixed(AT)))
        .unwrap();
    user::read_value::<u8>(AT + 5 * PAGE_SIZE).unwrap();
    assert_eq!(s.stats().resident, 16);
    // Pages that are not at hand are left alone.
    user::read_value::<u8>(AT + 33 * PAGE_SIZE).unwrap();
    assert_eq!(s.stats().resident, 24);
}

#[test]
fn first_writes_are_announced_where_the_object_asks() {
    let s = space();
    let object = TestObject::new(s.account(), 2);
    object.tracks.store(true, SeqCst);
    let request = MapRequest::object(object.clone(), 0, 2 * PAGE_SIZE, RW)
        .with(AreaFlags::SHARED)
        .at(Placement::Fixed(AT));
    s.map(request).unwrap();
    user::read_value::<u8>(AT).unwrap();
    assert_eq!(object.announced.load(SeqCst), 0);
    s.protect(AT, PAGE_SIZE, Access::READ).unwrap();
    s.protect(AT, PAGE_SIZE, RW).unwrap();
    user::write_value(AT, &1u8).unwrap();
    user::write_value(AT, &2u8).unwrap();
    assert_eq!(object.announced.load(SeqCst), 1);
}

#[test]
fn remap_rules() {
    let s = space();
    let object = TestObject::new(s.account(), 4);
    let shared = MapRequest::object(object, 0, 2 * PAGE_SIZE, RW)
        .with(AreaFlags::SHARED)
        .at(Placement::Fixed(AT));
    s.map(shared).unwrap();
    let request = |old: usize, new: usize, target| RemapRequest {
        addr: AT,
        old_len: old * PAGE_SIZE,
        new_len: new * PAGE_SIZE,
        target,
        old_range: OldRange::Unmap,
    };
    // A second mapping of shared memory.
    let second = s.remap(request(0, 2, RemapTarget::Anywhere)).unwrap();
    user::write_value(AT + PAGE_SIZE, &3u8).unwrap();
    assert_eq!(user::read_value::<u8>(second + PAGE_SIZE), Ok(3));
    s.map(fixed(2, RW)).unwrap();
    assert_eq!(
        s.remap(request(0, 2, RemapTarget::Anywhere)),
        Err(Error::BadRange)
    );
    assert_eq!(
        s.remap(request(2, 0, RemapTarget::Anywhere)),
        Err(Error::BadRange)
    );
    assert_eq!(
        s.remap(request(3, 4, RemapTarget::Anywhere)),
        Err(Error::NotMapped)
    );
    s.map(MapRequest::anonymous(1, Access::READ).at(Placement::Fixed(AT + 2 * PAGE_SIZE)))
        .unwrap();
    assert_eq!(
        s.remap(request(2, 3, RemapTarget::InPlace)),
        Err(Error::NoSpace)
    );
    // Keeping the old range leaves it empty.
    user::write_value(AT, &8u8).unwrap();
    let keep = RemapRequest {
        old_range: OldRange::Keep,
        ..request(2, 2, RemapTarget::Anywhere)
    };
    let moved = s.remap(keep).unwrap();
    assert_eq!(user::read_value::<u8>(moved), Ok(8));
    assert_eq!(user::read_value::<u8>(AT), Ok(0));
}

#[test]
fn locks_are_counted_and_bring_pages_in() {
    let limits = Limits {
        locked: 4 * PAGE_SIZE,
        ..Limits::default()
    };
    let s = limited(limits);
    s.map(fixed(8, RW)).unwrap();
    s.lock(AT + 10, PAGE_SIZE, LockMode::Now).unwrap();
    assert_eq!((s.stats().locked, s.stats().resident), (2, 2));
    s.lock(AT, 4 * PAGE_SIZE, LockMode::OnFault).unwrap();
    assert_eq!((s.stats().locked, s.stats().resident), (4, 2));
    assert_eq!(
        s.lock(AT, 5 * PAGE_SIZE, LockMode::Now),
        Err(Error::LockLimit)
    );
    assert_eq!(
        s.lock(AT, 9 * PAGE_SIZE, LockMode::Now),
        Err(Error::NotMapped)
    );
    let advice = s.advise(AT, PAGE_SIZE, Advice::DontNeed);
    assert_eq!(advice, Err(Error::Unsuitable));
    assert_eq!(
        s.lock_all(Some(LockMode::Now), LockFuture::No),
        Err(Error::LockLimit)
    );
    assert!(s.has_locked(AT, 1));
    assert_eq!(s.fork().unwrap().stats().locked, 0);
    s.unlock_all().unwrap();
    assert_eq!((s.stats().locked, s.stats().areas), (0, 1));
    s.lock_all(None, LockFuture::Yes(LockMode::Now)).unwrap();
    let addr = s.map(MapRequest::anonymous(2 * PAGE_SIZE, RW)).unwrap();
    assert_eq!(s.mincore(addr, 2 * PAGE_SIZE).unwrap(), [true, true]);
    let more = MapRequest::anonymous(3 * PAGE_SIZE, RW);
    assert_eq!(s.map(more), Err(Error::LockLimit));
}

#[test]
fn populate_brings_in_own_pages() {
    let s = space();
    let mut request = fixed(3, RW);
    request.populate = Populate::Now;
    s.map(request).unwrap();
    let used = s.account().used();
    for i in 0..3 {
        user::write_value(AT + i * PAGE_SIZE, &1u8).unwrap();
    }
    assert_eq!(s.account().used(), used);
}

#[test]
fn residency_sync_and_punching() {
    let s = space();
    s.map(fixed(3, RW).with(AreaFlags::SHARED)).unwrap();
    user::write_value(AT + PAGE_SIZE, &1u8).unwrap();
    assert_eq!(s.mincore(AT, 3 * PAGE_SIZE).unwrap(), [false, true, false]);
    assert_eq!(s.mincore(AT, 4 * PAGE_SIZE), Err(Error::NotMapped));
    assert_eq!(s.sync(AT, 3 * PAGE_SIZE, SyncMode::Wait), Ok(()));
    assert_eq!(
        s.sync(AT, 4 * PAGE_SIZE, SyncMode::Wait),
        Err(Error::NotMapped)
    );
    s.advise(AT, 3 * PAGE_SIZE, Advice::Remove).unwrap();
    assert_eq!(user::read_value::<u8>(AT + PAGE_SIZE), Ok(0));
    s.map(fixed(1, RW)).unwrap();
    assert_eq!(s.advise(AT, 1, Advice::Remove), Err(Error::Unsuitable));
    s.advise(AT, PAGE_SIZE, Advice::PopulateWrite).unwrap();
    let usage = s.usage(AT..AT + PAGE_SIZE);
    assert_eq!((usage.resident, usage.proportional), (PAGE_SIZE, PAGE_SIZE));
}

#[test]
fn another_space_can_be_read_and_written() {
    let s = space();
    s.map(fixed(2, RW)).unwrap();
    let child = s.fork().unwrap();
    leave();
    let text = b"across the page";
    assert_eq!(child.write(AT + PAGE_SIZE - 5, text), text.len());
    let mut got = [0; 15];
    assert_eq!(child.read(AT + PAGE_SIZE - 5, &mut got), 15);
    assert_eq!(&got, text);
    assert_eq!(s.read(AT + PAGE_SIZE - 5, &mut got), 15);
    assert_eq!(got, [0; 15]);
    assert_eq!(child.write(AT + 2 * PAGE_SIZE - 5, text), 5);
    assert_eq!(child.zero(AT + PAGE_SIZE - 5, 15), 15);
    assert_eq!(child.read(AT + PAGE_SIZE - 5, &mut got), 15);
    assert_eq!(got, [0; 15]);
    assert_eq!(child.read(usize::MAX - 4, &mut got), 0);
    assert_eq!(child.read(USER_START, &mut got), 0);
}

#[test]
fn threads_fault_on_the_same_pages() {
    let s = space();
    s.map(fixed(200, RW)).unwrap();
    let threads: std::vec::Vec<_> = (0..4u8)
        .map(|t| {
            let s = s.clone();
            std::thread::spawn(move || {
                enter(&s);
                for i in 0..200 {
                    let addr = AT + i * PAGE_SIZE + usize::from(t);
                    if t % 2 == 0 {
                        user::read_value::<u8>(addr).unwrap();
                    }
                    user::write_value(addr, &(t + 1)).unwrap();
                }
                leave();
            })
        })
        .collect();
    for t in threads {
        t.join().unwrap();
    }
    for i in 0..200 {
        let got = user::read_value::<[u8; 4]>(AT + i * PAGE_SIZE);
        assert_eq!(got, Ok([1, 2, 3, 4]));
    }
}

#[test]
fn a_debugger_never_writes_to_a_page_of_others() {
    let s = space();
    let object = TestObject::new(s.account(), 1);
    let request = MapRequest::object(object.clone(), 0, PAGE_SIZE, Access::READ);
    s.map(request.at(Placement::Fixed(AT))).unwrap();
    let byte = || {
        let mut b = [0];
        object.page(0, false).unwrap().read(0, &mut b);
        b[0]
    };
    let before = byte();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                s.advise(AT, PAGE_SIZE, Advice::DontNeed).unwrap();
                s.read(AT, &mut [0]);
            }
        });
        for _ in 0..20_000 {
            s.write_forced(AT, &[!before]);
        }
        over.store(true, Relaxed);
    });
    assert_eq!(byte(), before);
    leave();
}

#[test]
fn a_debugger_writes_where_the_program_may_not() {
    let s = space();
    let object = TestObject::new(s.account(), 1);
    let code = Access::READ | Access::EXEC;
    let request = MapRequest::object(object.clone(), 0, PAGE_SIZE, code);
    s.map(request.at(Placement::Fixed(AT))).unwrap();
    let other = s.fork().unwrap();
    assert_eq!(s.write(AT, &[0xcc]), 0);
    assert_eq!(s.write_forced(AT, &[0xcc]), 1);
    let byte = |s: &AddressSpace| {
        let mut b = [0];
        assert_eq!(s.read(AT, &mut b), 1);
        b[0]
    };
    assert_eq!(byte(&s), 0xcc);
    // Neither the object nor who else has it sees that, and the rights stay.
    assert_ne!(byte(&other), 0xcc);
    assert_eq!(s.page_table().query(AT).unwrap().access, code);
    assert_eq!(s.write_forced(AT + PAGE_SIZE, &[1]), 0);
    // Twice, and over two areas.
    s.map(fixed(1, Access::READ).at(Placement::Fixed(AT + PAGE_SIZE)))
        .unwrap();
    assert_eq!(s.write_forced(AT + PAGE_SIZE - 2, &[1, 2, 3, 4]), 4);
    let mut b = [0; 4];
    assert_eq!(s.read(AT + PAGE_SIZE - 2, &mut b), 4);
    assert_eq!(b, [1, 2, 3, 4]);
    // Shared memory is everybody's: it keeps its rights.
    let shared = MapRequest::object(object, 0, PAGE_SIZE, Access::READ).with(AreaFlags::SHARED);
    s.map(shared.at(Placement::Fixed(AT + 4 * PAGE_SIZE)))
        .unwrap();
    assert_eq!(s.write_forced(AT + 4 * PAGE_SIZE, &[1]), 0);
    leave();
}
