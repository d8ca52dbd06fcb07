//! The scheduler: one queue of ready threads for each CPU.
//!
//! Fairness is by virtual run time: a thread's grows with the time it runs, the
//! faster the less its group weighs and the more threads of the group want to
//! run. Within a group it grows the slower the more a thread weighs by its nice value.
//! So capsules share the machine by weight, whatever number of threads they start and
//! whatever these are, with one flat queue and no walk over groups. The thread with the least
//! virtual time runs next; a turn ends after [`SLICE_NS`] if somebody waits. With
//! nobody waiting and no deadline there is no timer at all.
//!
//! Invariants: a thread is in at most one ready queue, and then its state is
//! [`READY`]; queues hold plain pointers, because a started thread is kept alive
//! until it has exited (`thread::finish_switch` lets it go); a queue's lock is the
//! innermost lock of the kernel and held with interrupts off.

mod balance;
mod look;

pub(crate) use balance::expel;

use super::group::use_quota;
use balance::{call_idle, give_away, steal};
use look::{change_rest, look, plan_look, skip_looks};

use super::thread::{MOVING, READY, RUNNING};
use super::{apic, clock, percpu, vectors};
use crate::cpu::{CPUS_MAX, PerCpu as Each};
use crate::error::AllocError;
use crate::nice::{WEIGHT_0, WEIGHT_SHIFT};
use crate::ordered::{Ordered, Placed};
use crate::sample::{self, Place};
use crate::sync::{IrqGuard, IrqLock};
use crate::thread::{Thread, WEIGHT_DEFAULT};
use crate::tick::Tick;
use crate::time::Instant;
use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};

/// A turn while others wait.
const SLICE_NS: u64 = 4_000_000;
/// How far a sleeper may lag behind, so that it runs soon but cannot hoard.
const CREDIT_NS: u64 = 3_000_000;
/// A woken thread pre-empts only one that is this far ahead of it.
const PREEMPT_NS: u64 = 500_000;
/// Busy CPUs compare their queues at most this often.
const SPREAD_NS: u64 = 10_000_000;
#[derive(Clone, Copy)]
pub(super) struct Ready(pub(super) *const Thread);
#[derive(Clone, Copy)]
pub(super) struct Sleeper(pub(super) *const Thread);

fn place(slot: &AtomicUsize) -> Option<usize> {
    slot.load(Relaxed).checked_sub(1)
}

fn set_place(slot: &AtomicUsize, place: Option<usize>) {
    slot.store(place.map_or(0, |p| p + 1), Relaxed);
}

impl Placed for Ready {
    fn set_place(self, p: Option<usize>) {
        // SAFETY: a queued thread is alive (see the module's invariants).
        set_place(unsafe { &(*self.0).arch.ready_place }, p);
    }
    fn place(self) -> Option<usize> {
        // SAFETY: as above.
        place(unsafe { &(*self.0).arch.ready_place })
    }
}

impl Placed for Sleeper {
    fn set_place(self, p: Option<usize>) {
        // SAFETY: as above: a parked thread is alive.
        set_place(unsafe { &(*self.0).arch.sleep_place }, p);
    }
    fn place(self) -> Option<usize> {
        // SAFETY: as above.
        place(unsafe { &(*self.0).arch.sleep_place })
    }
}

pub(super) struct Queue {
    ready: Ordered<Ready>,
    sleepers: Ordered<Sleeper>,
    running: *const Thread,
    idle: bool,
    /// What the clock event of this CPU is set to.
    armed: u64,
    slice_end: u64,
    /// When what this CPU runs is counted as user's or kernel's time.
    tick: Tick,
    /// When this CPU is to be sampled, if it is busy then.
    sample_at: u64,
    /// The first of both, or never while it rests and nobody is to be woken for that.
    look_at: u64,
    /// When this CPU may next give work away.
    spread_at: u64,
}

// SAFETY: the pointers are to living threads, followed under the lock.
unsafe impl Send for Queue {}

static QUEUES: Each<IrqLock<Queue>> = Each::new(
    [const {
        IrqLock::new(Queue {
            ready: Ordered::new(),
            sleepers: Ordered::new(),
            running: ptr::null(),
            idle: true,
            armed: u64::MAX,
            slice_end: u64::MAX,
            tick: Tick::new(),
            sample_at: u64::MAX,
            look_at: u64::MAX,
            spread_at: 0,
        })
    }; CPUS_MAX],
);

/// Virtual time each CPU has come to; never goes back. A thread that moves keeps
/// its distance to it. Written under the lock of the CPU's queue.
static FLOOR: Each<AtomicU64> = Each::new([const { AtomicU64::new(0) }; CPUS_MAX]);

/// Threads that run or wait on each CPU, as of its last look at its queue.
static LOAD: Each<AtomicUsize> = Each::new([const { AtomicUsize::new(0) }; CPUS_MAX]);

/// CPUs with nothing to do, bit by bit.
static IDLE: AtomicU64 = AtomicU64::new(0);
/// CPUs that take threads, bit by bit.
static ONLINE: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicUsize = AtomicUsize::new(0);

fn queue_of(cpu: usize) -> &'static IrqLock<Queue> {
    QUEUES.of(cpu)
}

/// Makes room for one more thread in every queue, so that queueing never needs
/// memory.
pub(super) fn admit() -> Result<(), AllocError> {
    let n = THREADS.fetch_add(1, Relaxed) + 1;
    // Room is made in steps, so that most threads need none.
    let want = n.next_power_of_two().max(64);
    for cpu in 0..percpu::cpu_count() {
        let mut q = queue_of(cpu).lock();
        if q.ready.reserve(want).is_err() || q.sleepers.reserve(want).is_err() {
            THREADS.fetch_sub(1, Relaxed);
            return Err(AllocError::OutOfMemory);
        }
    }
    Ok(())
}

/// A thread is gone.
pub(super) fn dismiss() {
    THREADS.fetch_sub(1, Relaxed);
}

/// This CPU takes threads from now on; it runs its idle thread.
pub(super) fn join(idle: *const Thread) -> Result<(), AllocError> {
    let cpu = percpu::cpu_current();
    let want = THREADS.load(Relaxed).next_power_of_two().max(64);
    let mut q = queue_of(cpu).lock();
    q.ready.reserve(want).map_err(|_| AllocError::OutOfMemory)?;
    q.sleepers
        .reserve(want)
        .map_err(|_| AllocError::OutOfMemory)?;
    q.running = idle;
    drop(q);
    ONLINE.fetch_or(1 << cpu, AcqRel);
    IDLE.fetch_or(1 << cpu, AcqRel);
    Ok(())
}

/// Adds the time `t` ran since its turn began to its accounts; its new virtual time.
fn charge(t: &Thread, now: u64) -> u64 {
    let ran = t.arch.turn.end(now, |ran| t.charge_run(ran));
    let group = t.group();
    if let Some(quota) = group.quota_per_mille() {
        use_quota(group, quota, now, ran);
    }
    let v = later(t, ran);
    t.arch.vruntime.store(v, Relaxed);
    v
}

/// The virtual time of `t` when it has run for `ran`.
fn later(t: &Thread, ran: u64) -> u64 {
    let group = t.group();
    // The thread itself is among them.
    let weights = group.arch.runnable.load(Relaxed) as u64;
    let weighed = match group.weight() {
        WEIGHT_DEFAULT => ran,
        w => ran.saturating_mul(WEIGHT_DEFAULT) / w,
    };
    let shared = weighed.saturating_mul(weights);
    let share = match t.weight() {
        WEIGHT_0 => shared >> WEIGHT_SHIFT,
        w => shared / u64::from(w),
    };
    t.arch.vruntime.load(Relaxed).saturating_add(share)
}

/// Brings the virtual time of `cpu` up to now, before another thread comes to it: who has run
/// there alone had what nobody else wanted, and is not to wait until a newcomer has had as
/// much. That of the running thread, if it is not the idle one.
fn advance(q: &Queue, cpu: usize) -> Option<u64> {
    if q.idle {
        return None;
    }
    // SAFETY: the running thread of a CPU is alive; the queue is locked.
    let running = unsafe { q.running.as_ref() }?;
    let ran = clock::monotonic_ns().saturating_sub(running.arch.turn.since());
    let v = later(running, ran);
    raise_floor(cpu, q.ready.first().map_or(v, |(k, _)| k.min(v)));
    Some(v)
}

fn raise_floor(cpu: usize, least: u64) {
    let floor = FLOOR.of(cpu);
    if least > floor.load(Relaxed) {
        floor.store(least, Relaxed);
    }
}

/// Puts a thread that was parked (or is new) into a queue.
pub(super) fn enqueue(t: &Thread, fresh: bool) {
    // It may just be falling asleep on another CPU, which saves it without waiting for
    // anybody; on this one that happens with interrupts off.
    while super::thread::is_on_cpu(t) {
        core::hint::spin_loop();
    }
    let weight = t.weight() as usize;
    t.group().arch.runnable.fetch_add(weight, Relaxed);
    let cpu = choose(t);
    // The next one is not to choose the same idle CPU before this one has woken it.
    if IDLE.load(Relaxed) >> cpu & 1 != 0 {
        IDLE.fetch_and(!(1 << cpu), AcqRel);
    }
    let mut q = queue_of(cpu).lock();
    let running = advance(&q, cpu);
    let floor = FLOOR.of(cpu).load(Relaxed);
    let start = if fresh {
        // A newcomer waits as if it had had a part of a turn already: starting
        // threads gains nothing.
        let threads = t.group().arch.runnable.load(Relaxed) as u64 >> WEIGHT_SHIFT;
        floor.saturating_add(SLICE_NS / 4 * threads.min(64))
    } else {
        moved(t, cpu).max(floor.saturating_sub(CREDIT_NS))
    };
    t.arch.vruntime.store(start, Relaxed);
    // Its virtual time counts on this CPU from here on, whoever takes it before it has run.
    super::thread::assign(t, cpu);
    insert(&mut q, t);
    notify(cpu, q, preempts(start, running));
}

/// The virtual time of `t` as it counts on `cpu`.
fn moved(t: &Thread, cpu: usize) -> u64 {
    let v = t.arch.vruntime.load(Relaxed);
    let last = t.arch.cpu.load(Relaxed) as usize;
    if last == cpu {
        return v;
    }
    let ahead = v.saturating_sub(FLOOR.of(last).load(Relaxed));
    FLOOR.of(cpu).load(Relaxed).saturating_add(ahead)
}

fn insert(q: &mut Queue, t: &Thread) {
    t.arch.state.store(READY, Relaxed);
    let pushed = q.ready.push(t.arch.vruntime.load(Relaxed), Ready(t));
    debug_assert!(pushed, "admit() makes room for every thread");
}

/// Whether a thread at virtual time `v` should take over from the running one, if there is one.
fn preempts(v: u64, running: Option<u64>) -> bool {
    running.is_none_or(|running| v.saturating_add(PREEMPT_NS) < running)
}

/// Tells `cpu` that its queue has grown.
fn notify(cpu: usize, mut q: IrqGuard<'_, Queue>, preempt: bool) {
    if cpu == percpu::cpu_current() {
        if preempt {
            percpu::here().need_resched.store(true, Relaxed);
        } else {
            limit_turn(&mut q);
        }
        return;
    }
    let ticking = q.slice_end != u64::MAX;
    drop(q);
    if preempt && let Some(p) = percpu::of(cpu) {
        p.need_resched.store(true, Relaxed);
    }
    if preempt || !ticking {
        apic::send_ipi(cpu, vectors::RESCHEDULE);
    }
}

/// The CPU a thread goes to: where it was if that is idle, else an idle one, else
/// where it was.
fn choose(t: &Thread) -> usize {
    let allowed = t.affinity() & ONLINE.load(Relaxed);
    let last = t.arch.cpu.load(Relaxed) as usize;
    let idle = allowed & IDLE.load(Relaxed);
    if allowed == 0 {
        return 0;
    }
    if idle >> last & 1 != 0 || (idle == 0 && allowed >> last & 1 != 0) {
        return last;
    }
    (if idle != 0 { idle } else { allowed }).trailing_zeros() as usize
}

/// Ends the running thread's turn after a slice, if its end is not set yet.
fn limit_turn(q: &mut Queue) {
    if q.slice_end == u64::MAX && !q.idle {
        q.slice_end = clock::monotonic_ns() + SLICE_NS;
        arm(q);
    }
}

/// Sets the CPU's clock event to what comes first.
///
/// While the CPU has work, one that comes too early is left: most deadlines are taken
/// back long before they pass, and a clock event that finds nothing to do costs less
/// than one that is moved for each of them. A CPU about to rest is not to be woken
/// for nothing.
fn arm(q: &mut Queue) {
    let due = q
        .sleepers
        .first()
        .map_or(u64::MAX, |(d, _)| d)
        .min(q.slice_end)
        .min(q.look_at);
    if due < q.armed || (q.idle && due != q.armed) {
        q.armed = due;
        clock::arm((due != u64::MAX).then_some(Instant(due)));
    }
}

/// The running thread will park; wake it at `due`.
pub(super) fn sleep(t: &Thread, due: Instant) {
    let cpu = percpu::cpu_current();
    let mut q = queue_of(cpu).lock();
    t.arch.sleep_cpu.store(cpu as u32, Relaxed);
    let pushed = q.sleepers.push(due.0, Sleeper(t));
    debug_assert!(pushed, "admit() makes room for every thread");
    arm(&mut q);
}

/// The thread is awake; forget its deadline.
pub(super) fn awake(t: &Thread) {
    let cpu = t.arch.sleep_cpu.load(Relaxed) as usize;
    queue_of(cpu).lock().sleepers.remove(Sleeper(t));
}

/// What a thread gives the CPU up for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// It is still ready, and goes on if it has had least.
    Ready,
    /// It is still ready, and lets another one run first, whatever each has had.
    Yield,
    /// It is parked (unless it was woken meanwhile).
    Park,
}

/// Puts a thread at virtual time `v` behind the one that waits at `first`; its new virtual
/// time. Who spins until somebody else has done something would otherwise spin until
/// what it had saved is used up.
fn stand_back(t: &Thread, v: u64, first: Option<u64>) -> u64 {
    let Some(behind) = first.map(|first| first.saturating_add(1)) else {
        return v;
    };
    let v = v.max(behind);
    t.arch.vruntime.store(v, Relaxed);
    v
}

/// Ends the turn of this CPU's running thread, which is ready or parked then; who is next.
fn end_turn(q: &mut Queue, me: &Thread, leave: Leave, now: u64) -> Option<*const Thread> {
    let mut v = charge(me, now);
    let first = q.ready.first().map(|(k, _)| k);
    if leave == Leave::Yield {
        v = stand_back(me, v, first);
    }
    let least = first.map_or(v, |k| k.min(v));
    let cpu = percpu::cpu_current();
    raise_floor(cpu, least);
    if leave == Leave::Park {
        rests(me);
        return pop(q);
    }
    if !may_run(me, cpu) {
        // Its next CPU may have it as soon as it is saved.
        rests(me);
        me.arch.state.store(MOVING, Relaxed);
        return pop(q);
    }
    if first.is_none_or(|k| k > v) {
        return Some(me);
    }
    me.arch.state.store(READY, Relaxed);
    let first = q.ready.exchange_first(v, Ready(me));
    first.map(|(_, r)| r.0)
}

fn pop(q: &mut Queue) -> Option<*const Thread> {
    q.ready.pop().map(|(_, r)| r.0)
}

/// A thread does not want to run for the moment.
fn rests(t: &Thread) {
    let weight = t.weight() as usize;
    t.group().arch.runnable.fetch_sub(weight, Relaxed);
}

fn may_run(t: &Thread, cpu: usize) -> bool {
    t.affinity() >> cpu & 1 != 0
}

/// Picks the next thread for this CPU and switches to it; interrupts are off.
pub(super) fn reschedule(leave: Leave) {
    let here = percpu::here();
    here.need_resched.store(false, Relaxed);
    let cpu = percpu::cpu_current();
    let now = clock::monotonic_ns();
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    let idle = here.idle.get();
    let mut q = queue_of(cpu).lock();
    let mut next = match ptr::eq(me, idle) {
        true => pop(&mut q),
        false => end_turn(&mut q, me, leave, now),
    };
    if next.is_none() {
        // Without the lock: two CPUs may steal from each other. What is queued
        // here meanwhile sets `need_resched` again.
        drop(q);
        next = steal(cpu);
        q = queue_of(cpu).lock();
    }
    let next = next.unwrap_or(idle);
    q.running = next;
    let rests = ptr::eq(next, idle);
    // Who does not rest is not among the idle ones.
    if rests || q.idle {
        change_rest(&mut q, cpu, rests, now);
    }
    let waiting = q.ready.len();
    let more = waiting > 0;
    // SAFETY: a thread from a queue, or the idle thread: alive.
    let next = unsafe { &*next };
    let turns = more || next.group().quota_per_mille().is_some();
    q.slice_end = if turns && !rests {
        now + SLICE_NS
    } else {
        u64::MAX
    };
    if q.look_at <= now {
        skip_looks(&mut q, now);
    }
    arm(&mut q);
    LOAD.of(cpu).store(waiting + usize::from(!rests), Relaxed);
    let spread = waiting > 1 && now >= q.spread_at;
    if spread {
        q.spread_at = now + SPREAD_NS;
    }
    drop(q);
    if more {
        call_idle();
    }
    if spread {
        give_away(cpu);
    }
    next.arch.turn.begin(now);
    next.arch.state.store(RUNNING, Relaxed);
    if !ptr::eq(me, next) {
        super::thread::switch(me, next);
    }
}

/// The clock event of this CPU, from its interrupt handler, with the place where it came.
pub(super) fn clock_event(place: Place) {
    let cpu = percpu::cpu_current();
    let now = clock::monotonic_ns();
    loop {
        let mut q = queue_of(cpu).lock();
        match q.sleepers.first() {
            Some((due, s)) if due <= now => {
                q.sleepers.remove(s);
                // SAFETY: in the queue, so it has not exited: a thread takes itself
                // out, under this lock, before it goes on.
                let t = unsafe { &*s.0 };
                let ours = super::thread::take_awake(t);
                drop(q);
                // A thread taken out of its sleep stays until it is queued.
                if ours {
                    enqueue(t, false);
                }
            }
            _ => {
                if now >= q.slice_end {
                    q.slice_end = u64::MAX;
                    percpu::here().need_resched.store(true, Relaxed);
                }
                if now >= q.look_at {
                    look(&mut q, place, now);
                }
                q.armed = u64::MAX;
                // Who takes over sets the next one.
                if !percpu::resched_due() {
                    arm(&mut q);
                }
                return;
            }
        }
    }
}

/// Another CPU asks this one to look at its queue, from the interrupt handler.
pub(super) fn asked() {
    let mut q = QUEUES.here().lock();
    if q.ready.first().is_some() {
        limit_turn(&mut q);
    }
    arm(&mut q);
}

/// Has every CPU sampled from now on. Those that are busy set their clocks at once.
pub(crate) fn begin_samples() {
    let now = clock::monotonic_ns();
    for cpu in 0..percpu::cpu_count() {
        let mut q = queue_of(cpu).lock();
        q.sample_at = sample::next(now);
        plan_look(&mut q);
        drop(q);
        if cpu != percpu::cpu_current() {
            apic::send_ipi(cpu, vectors::RESCHEDULE);
        }
    }
    asked();
}

/// What a CPU does when there is nothing to do.
pub(super) fn idle() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        if percpu::resched_due() {
            reschedule(Leave::Ready);
            x86_64::instructions::interrupts::enable();
            super::thread::let_go();
        } else {
            x86_64::instructions::interrupts::enable_and_hlt();
        }
    }
}
