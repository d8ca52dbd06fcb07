//! The list of areas against a plain sorted vector.

use super::*;
use crate::area::{AreaFlags, GUARD};
use core::sync::atomic::AtomicBool;
use machine::addr::PAGE_SIZE;
use machine::paging::Access;
use proptest::prelude::*;

fn area(start: usize, end: usize, flags: AreaFlags) -> Area {
    Area {
        start: start * PAGE_SIZE,
        end: end * PAGE_SIZE,
        backing: None,
        index: 0,
        access: Access::READ | Access::WRITE,
        max_access: Access::all(),
        flags,
        owned: AtomicBool::new(false),
    }
}

fn account() -> Arc<Account> {
    Arc::new(Account::new(usize::MAX).expect("fewer accounts than tests"))
}

/// The highest gap, found without any cleverness, page by page.
fn naive_gap(taken: &[(usize, usize)], len: usize, low: usize, high: usize) -> Option<usize> {
    (low..=high.checked_sub(len)?)
        .rev()
        .find(|s| taken.iter().all(|(a, b)| s + len <= *a || *s >= *b))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, usize),
    Remove(usize),
    Shrink(usize),
    Gap(usize, usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (16usize..1000, 1usize..6).prop_map(|(s, n)| Step::Insert(s, n)),
        3 => (16usize..1000).prop_map(Step::Remove),
        1 => (16usize..1000).prop_map(Step::Shrink),
        3 => (1usize..40, 16usize..200, prop_oneof![Just(900usize), Just(1100), 500usize..1100]).prop_map(|(n, l, h)| Step::Gap(n, l, h)),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_sorted_vector(steps in proptest::collection::vec(step(), 1..400)) {
        let account = account();
        let mut areas = Areas::new(account.clone());
        let mut model: Vec<(usize, usize)> = Vec::new();
        for s in steps {
            match s {
                Step::Insert(start, n) => {
                    let free = model.iter().all(|(a, b)| start + n <= *a || start >= *b);
                    if free {
                        areas.insert(area(start, start + n, AreaFlags::empty())).unwrap();
                        model.push((start, start + n));
                        model.sort_unstable();
                    }
                }
                Step::Remove(addr) => {
                    let at = areas.locate(addr * PAGE_SIZE);
                    let want = model.iter().position(|(_, b)| *b > addr);
                    let got = areas.remove(at).map(|a| a.start / PAGE_SIZE);
                    prop_assert_eq!(got, want.map(|i| model.remove(i).0));
                }
                Step::Shrink(addr) => {
                    let at = areas.locate(addr * PAGE_SIZE);
                    if let Some(m) = model.iter_mut().find(|(_, b)| *b > addr)
                        && m.1 - m.0 > 2
                    {
                        areas.update(at, |a| {
                            a.start += PAGE_SIZE;
                            a.end -= PAGE_SIZE;
                        });
                        *m = (m.0 + 1, m.1 - 1);
                    }
                }
                Step::Gap(n, low, high) => {
                    let got = areas.find_gap(n * PAGE_SIZE, low * PAGE_SIZE, high * PAGE_SIZE);
                    prop_assert_eq!(got.map(|g| g / PAGE_SIZE), naive_gap(&model, n, low, high));
                    let again = areas.search(n * PAGE_SIZE, low * PAGE_SIZE, high * PAGE_SIZE);
                    prop_assert_eq!(again, got);
                }
            }
            let all: Vec<_> = areas.iter().map(|a| (a.start / PAGE_SIZE, a.end / PAGE_SIZE)).collect();
            prop_assert_eq!(&all, &model);
            prop_assert_eq!(areas.totals().mapped, model.iter().map(|(a, b)| b - a).sum::<usize>());
            for addr in (10..1010).step_by(7) {
                let want = model.iter().find(|(a, b)| (*a..*b).contains(&addr)).map(|m| m.0);
                prop_assert_eq!(areas.find(addr * PAGE_SIZE).map(|a| a.start / PAGE_SIZE), want);
            }
        }
        drop(areas);
        prop_assert_eq!(account.used(), 0);
    }
}

#[test]
fn an_area_that_grows_keeps_its_guard() {
    let mut areas = Areas::new(account());
    let guard = GUARD / PAGE_SIZE;
    areas
        .insert(area(10_000, 10_010, AreaFlags::GROWS_DOWN))
        .unwrap();
    let got = areas.find_gap(PAGE_SIZE, 16 * PAGE_SIZE, 10_010 * PAGE_SIZE);
    assert_eq!(got, Some((10_000 - guard - 1) * PAGE_SIZE));
}

#[test]
fn the_number_of_areas_is_limited() {
    let mut areas = Areas::new(account());
    for i in 0..AREAS_MAX {
        let s = 16 + 2 * i;
        areas.insert(area(s, s + 1, AreaFlags::empty())).unwrap();
    }
    let one_more = areas.insert(area(8, 9, AreaFlags::empty()));
    assert_eq!(one_more, Err(Error::TooManyAreas));
    assert_eq!(areas.count(), AREAS_MAX);
}

#[test]
fn chunks_are_paid_for() {
    let account = Arc::new(Account::new(1).unwrap());
    let mut areas = Areas::new(account);
    for i in 0..CHUNK {
        areas
            .insert(area(16 + 2 * i, 17 + 2 * i, AreaFlags::empty()))
            .unwrap();
    }
    let refused = areas.insert(area(2000, 2001, AreaFlags::empty()));
    assert_eq!(refused, Err(Error::OverLimit));
}
