use super::*;
use crate::Error;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use machine::time::Instant;
use machine::wait::Until;
use mm::FutexKey;
use std::sync::Arc as StdArc;
use std::thread;
use std::vec::Vec;

fn key(addr: usize) -> FutexKey {
    FutexKey::Private {
        space: 0x1000,
        addr,
    }
}

fn soon() -> Until {
    Until::deadline(Some(Instant::now().after(Duration::from_millis(30))))
}

fn wait_for(n: usize, k: FutexKey) {
    let there = bucket::bucket(bucket::number(&k));
    while there.entries.lock().iter().filter(|e| e.key == k).count() < n {
        thread::yield_now();
    }
}

#[test]
fn a_changed_word_is_not_waited_for() {
    let w = Waiter::default();
    let r = wait(&w, key(0x10), MATCH_ANY, Until::default(), || Ok(false));
    assert_eq!(r, Err(Error::TryAgain));
    let r = wait(&w, key(0x10), MATCH_ANY, soon(), || Ok(true));
    assert_eq!(r, Err(Error::TimedOut));
    assert_eq!(wake(&key(0x10), 9, MATCH_ANY), 0);
}

#[test]
fn a_wake_taken_in_passing_is_handed_on() {
    let k = key(0x20);
    let other = thread::spawn(move || {
        wait(&Waiter::default(), k, MATCH_ANY, Until::default(), || {
            Ok(true)
        })
    });
    wait_for(1, k);
    // This thread stands behind the other one, so two wakes reach both; its own
    // word has changed, so the second is given back and finds nobody.
    let w = Waiter::default();
    let r = wait(&w, k, MATCH_ANY, Until::default(), || {
        assert_eq!(wake(&k, 2, MATCH_ANY), 2);
        Ok(false)
    });
    assert_eq!(r, Err(Error::TryAgain));
    assert_eq!(other.join().unwrap(), Ok(()));
}

#[test]
fn bitsets_select_who_is_woken() {
    let k = key(0x30);
    let spawn = |bits: u32| {
        thread::spawn(move || wait(&Waiter::default(), k, bits, Until::default(), || Ok(true)))
    };
    let (a, b) = (spawn(1), spawn(2));
    wait_for(2, k);
    assert_eq!(wake(&k, 9, 4), 0);
    assert_eq!(wake(&k, 9, 2), 1);
    assert_eq!(b.join().unwrap(), Ok(()));
    assert_eq!(wake(&k, 9, MATCH_ANY), 1);
    assert_eq!(a.join().unwrap(), Ok(()));
}

#[test]
fn requeued_threads_wake_by_the_second_word_and_time_out_there() {
    let (from, to) = (key(0x40), key(0x1234_5678));
    let long = || {
        thread::spawn(move || {
            wait(
                &Waiter::default(),
                from,
                MATCH_ANY,
                Until::default(),
                || Ok(true),
            )
        })
    };
    let all: Vec<_> = (0..3).map(|_| long()).collect();
    wait_for(3, from);
    let moved = requeue(&from, &to, 1, 1).unwrap();
    assert_eq!((moved.woken, moved.requeued), (1, 1));
    assert_eq!(wake(&to, 9, MATCH_ANY), 1);
    assert_eq!(wake(&from, 9, MATCH_ANY), 1);
    for t in all {
        assert_eq!(t.join().unwrap(), Ok(()));
    }
    // Long enough to be seen waiting, whatever else the machine does.
    let until = Until::deadline(Some(Instant::now().after(Duration::from_secs(2))));
    let short =
        thread::spawn(move || wait(&Waiter::default(), from, MATCH_ANY, until, || Ok(true)));
    wait_for(1, from);
    assert_eq!(requeue(&from, &to, 0, 9).unwrap().requeued, 1);
    assert_eq!(short.join().unwrap(), Err(Error::TimedOut));
    assert_eq!(wake(&to, 9, MATCH_ANY), 0);
}

#[test]
fn waiting_for_several_words_tells_which_was_woken() {
    let keys = [key(0x50), key(0x54), key(0x58)];
    let t = thread::spawn(move || {
        let words = keys.map(|key| Watched {
            key,
            bitset: MATCH_ANY,
        });
        wait_any(&Waiter::default(), &words, Until::default(), |_| Ok(true))
    });
    wait_for(1, keys[2]);
    assert_eq!(wake(&keys[1], 1, MATCH_ANY), 1);
    assert_eq!(t.join().unwrap(), Ok(1));
    assert_eq!(
        wake(&keys[0], 1, MATCH_ANY) + wake(&keys[2], 1, MATCH_ANY),
        0
    );
}

/// A lock as programs build it: 0 free, 1 held, 2 held and waited for.
#[test]
fn a_mutex_made_of_it_excludes() {
    let word = StdArc::new(AtomicU32::new(0));
    let count = StdArc::new(AtomicU32::new(0));
    let k = key(0x60);
    let run = || {
        let (word, count) = (word.clone(), count.clone());
        thread::spawn(move || {
            let w = Waiter::default();
            for _ in 0..500 {
                if word.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
                    while word.swap(2, SeqCst) != 0 {
                        let same = || Ok(word.load(SeqCst) == 2);
                        let _ = wait(&w, k, MATCH_ANY, Until::default(), same);
                    }
                }
                let n = count.load(SeqCst);
                thread::yield_now();
                count.store(n + 1, SeqCst);
                if word.swap(0, SeqCst) == 2 {
                    wake(&k, 1, MATCH_ANY);
                }
            }
        })
    };
    let all: Vec<_> = (0..4).map(|_| run()).collect();
    for t in all {
        t.join().unwrap();
    }
    assert_eq!(count.load(SeqCst), 2_000);
}
