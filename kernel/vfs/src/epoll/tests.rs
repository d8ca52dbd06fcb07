use super::*;
use crate::eventfd::EventFd;
use crate::file::OpenFlags;
use crate::pipe::pipe;
use core::time::Duration;
use machine::io::{Sink, Source};
use std::thread;
use std::vec;

const NOW: Option<Instant> = Some(Instant(0));
const IN: u32 = Events::IN.bits();

fn event() -> Arc<OpenFile> {
    OpenFile::new(
        Arc::new(EventFd::new(0, false)),
        OpenFlags::READ_WRITE,
        None,
        machine::FileCharge::kernel(),
    )
}

fn raise(f: &OpenFile) {
    f.write(&mut Source::kernel(&1u64.to_ne_bytes())).unwrap();
}

fn lower(f: &OpenFile) {
    f.read(&mut Sink::kernel(&mut [0; 8])).unwrap();
}

fn epoll() -> Arc<Epoll> {
    Epoll::new(Arc::new(Account::new(100).unwrap()))
}

fn ready(e: &Epoll) -> Vec<u64> {
    let mut out = ReadyList::new();
    e.wait(&mut out, 100, NOW).unwrap();
    out.iter().map(|r| r.data).collect()
}

fn open(e: &Arc<Epoll>) -> Arc<OpenFile> {
    OpenFile::new(
        e.clone(),
        OpenFlags::READ_WRITE,
        None,
        machine::FileCharge::kernel(),
    )
}

#[test]
fn levels_edges_and_single_shots() {
    let (level, edge, once) = (event(), event(), event());
    let e = epoll();
    e.add(1, &level, IN, 1).unwrap();
    e.add(2, &edge, IN | Mode::EDGE.bits(), 2).unwrap();
    e.add(3, &once, IN | Mode::ONESHOT.bits(), 3).unwrap();
    assert_eq!(ready(&e), []);
    for f in [&level, &edge, &once] {
        raise(f);
    }
    assert_eq!(ready(&e), [1, 2, 3]);
    assert_eq!(ready(&e), [1]);
    raise(&edge);
    raise(&once);
    assert_eq!(ready(&e), [1, 2]);
    e.modify(3, &once, IN, 33).unwrap();
    lower(&level);
    assert_eq!(ready(&e), [33]);
    e.remove(3, &once).unwrap();
    assert_eq!(ready(&e), []);
    assert_eq!(e.remove(3, &once), Err(Error::NotFound));
    assert_eq!(e.add(1, &level, IN, 1), Err(Error::Exists));
}

#[test]
fn what_is_ready_already_is_told() {
    let f = event();
    raise(&f);
    let e = epoll();
    e.add(1, &f, IN | Mode::EDGE.bits(), 7).unwrap();
    assert_eq!(ready(&e), [7]);
    assert_eq!(ready(&e), []);
}

#[test]
fn a_closed_file_leaves() {
    let e = epoll();
    let f = event();
    raise(&f);
    e.add(1, &f, IN, 1).unwrap();
    drop(f);
    assert_eq!(ready(&e), []);
    assert_eq!(e.items.lock().all.len(), 0);
}

#[test]
fn a_pipe_ends_although_it_is_watched() {
    let account = Arc::new(machine::Account::new(100).unwrap());
    let (r, w) = pipe(account, OpenFlags::empty()).unwrap();
    let e = epoll();
    e.add(1, &r, IN, 1).unwrap();
    e.add(2, &w, Events::OUT.bits() | Mode::EDGE.bits(), 2)
        .unwrap();
    assert_eq!(ready(&e), [2]);
    drop(w);
    let mut out = ReadyList::new();
    e.wait(&mut out, 10, NOW).unwrap();
    assert_eq!(out[0].events, Events::HUP);
}

#[test]
fn epolls_nest_without_loops() {
    let (a, b, c) = (epoll(), epoll(), epoll());
    let (fa, fb, fc) = (open(&a), open(&b), open(&c));
    let f = event();
    a.add(1, &fb, IN, 10).unwrap();
    b.add(1, &fc, IN, 20).unwrap();
    c.add(1, &f, IN, 30).unwrap();
    assert_eq!(c.add(2, &fa, IN, 0), Err(Error::TooManyLinks));
    assert_eq!(a.add(2, &fa, IN, 0), Err(Error::Invalid));
    assert_eq!(ready(&a), []);
    raise(&f);
    assert_eq!((ready(&a), ready(&c)), (vec![10], vec![30]));
    lower(&f);
    assert_eq!(ready(&a), []);
    let mut row = vec![fc];
    for _ in 0..2 {
        let next = epoll();
        next.add(1, row.last().unwrap(), IN, 0).unwrap();
        row.push(open(&next));
    }
    drop((fa, fb));
}

#[test]
fn regular_waits_wake_up() {
    let e = epoll();
    let files: Vec<_> = (0..64).map(|_| event()).collect();
    for (i, f) in files.iter().enumerate() {
        e.add(i as i32, f, IN | Mode::EDGE.bits(), i as u64)
            .unwrap();
    }
    let waiter = e.clone();
    let t = thread::spawn(move || {
        let mut seen = [false; 64];
        while seen.contains(&false) {
            let mut out = ReadyList::new();
            waiter.wait(&mut out, 8, None).unwrap();
            for r in &out {
                seen[r.data as usize] = true;
            }
        }
    });
    for f in &files {
        raise(f);
    }
    t.join().unwrap();
    let mut out = ReadyList::new();
    let soon = Instant::now().after(Duration::from_millis(5));
    e.wait(&mut out, 8, Some(soon)).unwrap();
    assert!(out.is_empty());
}

#[test]
fn exclusive_entries_wake_one_epoll() {
    let f = event();
    let all: Vec<_> = (0..3).map(|_| epoll()).collect();
    for e in &all {
        e.add(1, &f, IN | Mode::EXCLUSIVE.bits(), 1).unwrap();
    }
    raise(&f);
    let woken = all.iter().filter(|e| e.core.count.load(SeqCst) > 0);
    assert_eq!(woken.count(), 1);
}

#[test]
fn an_ended_epoll_leaves_nothing_behind() {
    let f = event();
    let e = epoll();
    e.add(1, &f, IN, 1).unwrap();
    raise(&f);
    let core = Arc::downgrade(&e.core);
    drop(e);
    raise(&f);
    assert!(core.upgrade().is_none());
}

#[test]
fn entries_are_paid_for() {
    let account = Arc::new(Account::new(2).unwrap());
    let e = Epoll::new(account.clone());
    let f = event();
    let refused = (0..).find(|fd| e.add(*fd, &f, IN, 0) == Err(Error::NoMemory));
    let made = usize::try_from(refused.unwrap()).unwrap();
    assert!((3 * 4096 / ITEM_BYTES - 1..=3 * 4096 / ITEM_BYTES).contains(&made));
    assert_eq!(account.used(), 2);
    for fd in 0..made {
        e.remove(fd as i32, &f).unwrap();
    }
    assert_eq!(account.used(), 0);
    e.add(0, &f, IN, 0).unwrap();
    for fd in 1..40 {
        e.add(fd, &f, IN, 0).unwrap_or_default();
    }
    assert!(account.used() > 0);
    drop(e);
    assert_eq!(account.used(), 0);
}

/// Epolls that all watch all of the next layer: few of them, and ever so many ways
/// through them.
#[test]
fn the_search_for_loops_ends() {
    let layers: Vec<Vec<_>> = (0..4)
        .map(|_| (0..60).map(|_| open(&epoll())).collect())
        .collect();
    for pair in layers.windows(2) {
        for upper in &pair[0] {
            let upper = upper.downcast::<Epoll>().unwrap();
            for (fd, lower) in pair[1].iter().enumerate() {
                upper.add(fd as i32, lower, IN, 0).unwrap();
            }
        }
    }
    let top = epoll();
    assert!(top.add(0, &layers[0][0], IN, 0).is_ok());
    let bottom = layers[3][0].downcast::<Epoll>().unwrap();
    let loops = bottom.add(9, &layers[0][0], IN, 0);
    assert_eq!(loops, Err(Error::TooManyLinks));
}

#[test]
fn entries_that_come_and_go_do_not_pile_up() {
    let (stays, comes) = (event(), event());
    raise(&stays);
    raise(&comes);
    let e = epoll();
    e.add(1, &stays, IN, 1).unwrap();
    for _ in 0..1000 {
        e.add(2, &comes, IN, 2).unwrap();
        e.remove(2, &comes).unwrap();
    }
    let kept = e.core.ready.lock().len();
    assert!(kept <= REMOVED_MAX + 5, "{kept}");
    assert_eq!(ready(&e), [1]);
}
