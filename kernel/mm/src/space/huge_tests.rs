//! Who gets huge pages, and that nobody notices.

use super::{AddressSpace, Advice, MapRequest, Placement};
use crate::testing::{account, enter, leave};
use alloc::sync::Arc;
use machine::addr::{HUGE_PAGE_SIZE, PAGE_SIZE};
use machine::frame::HUGE_FRAMES;
use machine::paging::Access;
use machine::user;

const RW: Access = Access::READ.union(Access::WRITE);
/// Where a huge page may begin.
const AT: usize = 0x2000_0000;

/// A space with room for huge pages, and an area of `huge` of them and a page on either side,
/// which asks for them.
fn with_huge(huge: usize, access: Access) -> (Arc<AddressSpace>, usize) {
    let s = AddressSpace::new(account(8 * HUGE_FRAMES)).unwrap();
    enter(&s);
    let request = MapRequest::anonymous(huge * HUGE_PAGE_SIZE + 2 * PAGE_SIZE, access);
    s.map(request.at(Placement::Fixed(AT - PAGE_SIZE))).unwrap();
    let len = huge * HUGE_PAGE_SIZE + 2 * PAGE_SIZE;
    s.advise(AT - PAGE_SIZE, len, Advice::HugePage).unwrap();
    (s, AT)
}

#[test]
fn who_asks_for_huge_pages_gets_them_where_they_fit() {
    let (s, at) = with_huge(2, RW);
    // The ends are no whole one.
    user::write_value(at - 8, &1u64).unwrap();
    user::write_value(at + 2 * HUGE_PAGE_SIZE, &1u64).unwrap();
    assert_eq!(s.stats().resident, 2);
    user::write_value(at + HUGE_PAGE_SIZE + 12_345, &7u8).unwrap();
    assert_eq!(s.stats().resident, 2 + HUGE_FRAMES);
    assert_eq!(user::read_value::<u8>(at + HUGE_PAGE_SIZE + 12_345), Ok(7));
    assert_eq!(user::read_value::<u8>(at + 2 * HUGE_PAGE_SIZE - 1), Ok(0));
    // A part that goes leaves the rest.
    s.unmap(at + HUGE_PAGE_SIZE, PAGE_SIZE).unwrap();
    assert_eq!(s.stats().resident, 1 + HUGE_FRAMES);
    assert_eq!(user::read_value::<u8>(at + HUGE_PAGE_SIZE + 12_345), Ok(7));
    leave();
}

#[test]
fn huge_pages_are_not_for_everybody() {
    let touch = |s: &AddressSpace, at: usize| {
        user::write_value(at, &1u8).unwrap();
        let resident = s.stats().resident;
        leave();
        resident
    };
    // Whatever is there already stays.
    let (s, at) = with_huge(1, RW);
    s.advise(at, HUGE_PAGE_SIZE, Advice::NoHugePage).unwrap();
    user::read_value::<u8>(at + PAGE_SIZE).unwrap();
    s.advise(at, HUGE_PAGE_SIZE, Advice::HugePage).unwrap();
    assert_eq!(touch(&s, at), 2);
    // Who only reads gets one too, unless nobody may ever write.
    let (s, at) = with_huge(1, RW);
    user::read_value::<u8>(at).unwrap();
    assert_eq!(touch(&s, at + PAGE_SIZE), HUGE_FRAMES);
    let (s, at) = with_huge(1, Access::READ);
    user::read_value::<u8>(at).unwrap();
    assert_eq!(s.stats().resident, 1);
    leave();
    let (s, at) = with_huge(1, RW | Access::EXEC);
    assert_eq!(touch(&s, at), 1);
    let (s, at) = with_huge(1, RW);
    s.set_small_pages_only(true);
    assert_eq!(touch(&s, at), 1);
    assert!(s.fork().unwrap().small_pages_only());
    let (s, at) = with_huge(1, RW);
    s.advise(at, HUGE_PAGE_SIZE, Advice::NoHugePage).unwrap();
    assert_eq!(touch(&s, at), 1);
    // An account that has no room to spare pays for pages one by one.
    let (s, at) = with_huge(1, RW);
    s.account().charge(7 * HUGE_FRAMES).unwrap();
    assert_eq!(touch(&s, at), 1);
    s.account().uncharge(7 * HUGE_FRAMES);
}

#[test]
fn a_fork_shares_a_huge_page_until_one_side_writes() {
    let (s, at) = with_huge(1, RW);
    user::write_value(at + 5 * PAGE_SIZE, &1u64).unwrap();
    let child = s.fork().unwrap();
    user::write_value(at + 5 * PAGE_SIZE, &2u64).unwrap();
    leave();
    enter(&child);
    assert_eq!(user::read_value::<u64>(at + 5 * PAGE_SIZE), Ok(1));
    user::write_value(at, &3u64).unwrap();
    leave();
    enter(&s);
    assert_eq!(user::read_value::<u64>(at), Ok(0));
    leave();
}
