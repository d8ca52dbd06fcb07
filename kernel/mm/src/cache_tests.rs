//! The page cache against a map.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn account() -> Arc<Account> {
    Arc::new(Account::new(usize::MAX).expect("fewer accounts than tests"))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Get(u64),
    Remove(u64, u64),
    First(u64),
}

fn index() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..200, 4000u64..4200, (0u32..51).prop_map(|b| 1 << b)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => index().prop_map(Step::Insert),
        2 => index().prop_map(Step::Get),
        1 => (index(), 0u64..5000).prop_map(|(i, n)| Step::Remove(i, n)),
        1 => index().prop_map(Step::First),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_map(steps in proptest::collection::vec(step(), 1..150)) {
        let account = account();
        let cache = PageCache::new(account.clone());
        let mut model: BTreeMap<u64, usize> = BTreeMap::new();
        for s in steps {
            match s {
                Step::Insert(i) => {
                    let f = cache.get_or_try_insert_with::<Error>(i, || Ok(Frame::zeroed(&account)?)).unwrap();
                    prop_assert_eq!(f.number(), *model.entry(i).or_insert(f.number()));
                }
                Step::Get(i) => {
                    prop_assert_eq!(cache.get(i).map(|f| f.number()), model.get(&i).copied());
                }
                Step::Remove(i, n) => {
                    cache.remove(i..i + n);
                    model.retain(|k, _| !(i..i + n).contains(k));
                }
                Step::First(i) => {
                    let want = model.range(i..).next().map(|(k, f)| (*k, *f));
                    prop_assert_eq!(cache.first_from(i).map(|(k, f)| (k, f.number())), want);
                }
            }
            prop_assert_eq!(cache.len(), model.len());
        }
        cache.truncate(0);
        prop_assert!(cache.is_empty());
        prop_assert_eq!(account.used(), 0);
    }
}

#[test]
fn what_is_dropped_is_credited() {
    let account = account();
    let cache = PageCache::new(account.clone());
    for i in [0, 1, 1 << 20, 1 << 40] {
        cache.insert(i, Frame::zeroed(&account).unwrap()).unwrap();
    }
    assert!(account.used() > 4);
    drop(cache);
    assert_eq!(account.used(), 0);
}

#[test]
fn the_first_frame_stays() {
    let account = account();
    let cache = PageCache::new(account.clone());
    let a = cache.insert(3, Frame::zeroed(&account).unwrap()).unwrap();
    let b = cache.insert(3, Frame::zeroed(&account).unwrap()).unwrap();
    assert_eq!(a, b);
    assert_eq!(cache.insert(INDEX_END, a), Err(Error::BadRange));
}

#[test]
fn nodes_are_paid_for() {
    let account = Arc::new(Account::new(1).unwrap());
    let frame = Frame::zeroed(&account).unwrap();
    let cache = PageCache::new(account);
    assert_eq!(cache.insert(0, frame), Err(Error::OverLimit));
}

#[test]
fn removal_works_without_a_batch() {
    let account = account();
    let cache = PageCache::new(account.clone());
    for i in [0, 5, 70, 5000] {
        cache.insert(i, Frame::zeroed(&account).unwrap()).unwrap();
    }
    cache.remove_unbatched(5..5000);
    assert_eq!(cache.len(), 2);
    assert!(cache.get(0).is_some() && cache.get(5000).is_some());
}
