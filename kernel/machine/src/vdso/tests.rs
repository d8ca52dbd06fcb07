//! Runs the code in place, beside a page of chosen numbers.

use super::{BY_TSC, Data, code, functions};
use core::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard};

unsafe extern "C" {
    static skep_vdso_test_page: u8;
}

fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// One test at a time: all share the page.
static TURN: Mutex<()> = Mutex::new(());

fn page() -> (&'static Data, MutexGuard<'static, ()>) {
    let turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: the label starts a page of zeros in a writable section.
    let data = unsafe { &*(&raw const skep_vdso_test_page).cast::<Data>() };
    data.source.store(0, SeqCst);
    data.sequence.store(0, SeqCst);
    data.cpu_by_tscp.store(0, SeqCst);
    (data, turn)
}

fn entry(name: &str) -> *const u8 {
    let f = functions().into_iter().find(|f| f.name == name).unwrap();
    &raw const code()[f.offset]
}

fn gettime(clock: i32) -> (i64, [i64; 2]) {
    type F = unsafe extern "C" fn(i32, *mut i64) -> i64;
    // SAFETY: the code is a function of this type, in an executable section.
    let f: F = unsafe { core::mem::transmute(entry("clock_gettime")) };
    let mut t = [-1; 2];
    // SAFETY: it writes two words.
    let r = unsafe { f(clock, t.as_mut_ptr()) };
    (r & 0xffff_ffff, t)
}

/// A clock that stands still at `ns`: a factor of zero.
fn stand_at(data: &Data, ns: u64, wall: i64) {
    data.tsc_base.store(0, SeqCst);
    data.factor.store(0, SeqCst);
    data.origin.store(ns, SeqCst);
    data.wall_offset.store(wall.cast_unsigned(), SeqCst);
    data.source.store(BY_TSC, SeqCst);
}

#[test]
fn seconds_and_nanoseconds() {
    let (data, _turn) = page();
    for ns in [
        0,
        1,
        999_999_999,
        1_000_000_000,
        86_400_123_456_789,
        u64::MAX / 2,
    ] {
        stand_at(data, ns, 0);
        let want = [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64];
        for clock in [0, 1, 4, 5, 6, 7, 11] {
            assert_eq!(gettime(clock), (0, want), "clock {clock} at {ns}");
        }
    }
}

#[test]
fn utc_is_offset_and_monotonic_time_is_not() {
    let (data, _turn) = page();
    stand_at(data, 5_000_000_000, 1_700_000_000_250_000_000);
    for clock in [0, 5, 11] {
        assert_eq!(gettime(clock).1, [1_700_000_005, 250_000_000]);
    }
    for clock in [1, 4, 6, 7] {
        assert_eq!(gettime(clock).1, [5, 0]);
    }
}

#[test]
fn ticks_become_nanoseconds() {
    let (data, _turn) = page();
    stand_at(data, 0, 0);
    let before = tsc();
    data.tsc_base.store(before, SeqCst);
    // Half a nanosecond for each tick.
    data.factor.store(1 << 31, SeqCst);
    let (_, t) = gettime(1);
    let after = tsc();
    let ns = t[0] * 1_000_000_000 + t[1];
    assert!(
        ns >= 0 && ns.cast_unsigned() <= (after - before) / 2,
        "{ns}"
    );
}

#[test]
fn other_clocks_and_other_sources_ask_the_kernel() {
    let (data, _turn) = page();
    stand_at(data, 1, 0);
    // The host answers: CPU time of the process, and an error for no clock.
    let (r, t) = gettime(2);
    assert!(r == 0 && t[1] >= 0);
    assert_eq!(gettime(12345).0, 0xffff_ffea);
    data.source.store(0, SeqCst);
    let (r, t) = gettime(0);
    assert!(r == 0 && t[0] > 1_600_000_000);
}

#[test]
fn a_reader_waits_for_the_writer() {
    let (data, _turn) = page();
    stand_at(data, 1, 0);
    data.sequence.store(1, SeqCst);
    let reader = std::thread::spawn(|| gettime(1).1);
    std::thread::sleep(core::time::Duration::from_millis(20));
    assert!(!reader.is_finished());
    data.origin.store(7_000_000_000, SeqCst);
    data.sequence.store(2, SeqCst);
    assert_eq!(reader.join().unwrap(), [7, 0]);
}

#[test]
fn the_other_functions() {
    let (data, _turn) = page();
    stand_at(data, 3_000_999_999, 1_000_000_000_000_000_000);
    type Two = unsafe extern "C" fn(*mut i64, *mut i64) -> i64;
    type Cpu = unsafe extern "C" fn(*mut u32, *mut u32) -> i64;
    type Resolution = unsafe extern "C" fn(i32, *mut i64) -> i64;
    let (mut tv, mut tz) = ([0i64; 2], 1i64);
    // SAFETY: as in `gettime`; each pointer is to what the function writes.
    unsafe {
        let f: Two = core::mem::transmute(entry("gettimeofday"));
        assert_eq!(f(tv.as_mut_ptr(), &mut tz), 0);
        assert_eq!((tv, tz), ([1_000_000_003, 999], 0));
        assert_eq!(f(core::ptr::null_mut(), core::ptr::null_mut()), 0);
        let f: Two = core::mem::transmute(entry("time"));
        assert_eq!(f(tv.as_mut_ptr(), core::ptr::null_mut()), 1_000_000_003);
        assert_eq!(tv[0], 1_000_000_003);
        let f: Resolution = core::mem::transmute(entry("clock_getres"));
        assert_eq!((f(1, tv.as_mut_ptr()), tv), (0, [0, 1]));
        assert_eq!(f(12345, tv.as_mut_ptr()) as i32, -22);
        let f: Cpu = core::mem::transmute(entry("getcpu"));
        let (mut cpu, mut node) = (u32::MAX, u32::MAX);
        assert_eq!(f(&mut cpu, &mut node), 0);
        assert!(cpu < 4096 && node < 4096);
    }
}

#[test]
fn the_functions_lie_in_the_code() {
    let len = code().len();
    assert!(len < 2048);
    for f in functions() {
        assert!(f.len > 0 && f.offset + f.len <= len, "{}", f.name);
    }
}
