//! Which CPU a ready thread waits for: the busy give away, the idle take, and threads leave
//! CPUs that they may not run on any more.

use super::{
    IDLE, LOAD, Ready, advance, enqueue, insert, may_run, moved, notify, preempts, queue_of, rests,
};
use crate::ordered::Placed as _;
use crate::thread::Thread;
use crate::x86::{apic, percpu, thread, vectors};
use core::ptr;
use core::sync::atomic::{Ordering::AcqRel, Ordering::Relaxed};

/// Lets an idle CPU, if there is one, look for work that waits elsewhere.
pub(super) fn call_idle() {
    let idle = IDLE.load(Relaxed);
    if idle == 0 {
        return;
    }
    let cpu = idle.trailing_zeros() as usize;
    if IDLE.fetch_and(!(1 << cpu), AcqRel) >> cpu & 1 != 0
        && let Some(p) = percpu::of(cpu)
    {
        p.need_resched.store(true, Relaxed);
        apic::send_ipi(cpu, vectors::RESCHEDULE);
    }
}

/// Moves a waiting thread of this CPU to the CPU with the least to do, if that
/// makes the two more even.
pub(super) fn give_away(cpu: usize) {
    let load = |c: usize| LOAD.of(c).load(Relaxed);
    let Some(other) = (0..percpu::cpu_count())
        .filter(|c| *c != cpu)
        .min_by_key(|c| load(*c))
    else {
        return;
    };
    if load(cpu) < load(other) + 2 {
        return;
    }
    // What moves there keeps its distance to the time it is there.
    advance(&queue_of(other).lock(), other);
    let Some(t) = take_for(cpu, other) else {
        return;
    };
    // SAFETY: taken out of its queue, so it stays until it is queued again.
    let t = unsafe { &*t };
    let mut q = queue_of(other).lock();
    let running = advance(&q, other);
    insert(&mut q, t);
    notify(other, q, preempts(t.arch.vruntime.load(Relaxed), running));
}

/// Takes a thread that may run on CPU `to` out of the queue of CPU `from`; its
/// virtual time counts on `to` then.
fn take_for(from: usize, to: usize) -> Option<*const Thread> {
    let mut q = queue_of(from).lock();
    let (_, found) = q
        .ready
        .iter()
        // SAFETY: a queued thread is alive; the queue is locked.
        .map(|(key, r)| (key, r, unsafe { &*r.0 }))
        // One that gives way just now is not saved yet.
        .find(|(_, _, t)| may_run(t, to) && !thread::is_on_cpu(t))
        .map(|(key, r, _)| (key, r))?;
    q.ready.remove(found);
    // SAFETY: taken out of the queue, so nobody else runs or frees it.
    let t = unsafe { &*found.0 };
    t.arch.vruntime.store(moved(t, to), Relaxed);
    // Its distance is to this CPU's time from here on.
    thread::assign(t, to);
    Some(found.0)
}

/// A ready thread of another CPU's queue that may run here.
pub(super) fn steal(cpu: usize) -> Option<*const Thread> {
    (0..percpu::cpu_count())
        .filter(|c| *c != cpu)
        .find_map(|other| take_for(other, cpu))
}

/// The CPUs that `t` may run on have changed: it leaves the others, at once if it waits for its
/// turn, as soon as may be if it has it.
pub(crate) fn expel(t: &Thread) {
    let others = (0..percpu::cpu_count()).filter(|cpu| !may_run(t, *cpu));
    for cpu in others {
        let mut q = queue_of(cpu).lock();
        // A place is of whatever queue it waits in, which may be another one.
        let waits = Ready(t).place().and_then(|place| q.ready.at(place));
        if ptr::eq(q.running, t) {
            if let Some(p) = percpu::of(cpu) {
                p.need_resched.store(true, Relaxed);
            }
            drop(q);
            if cpu != percpu::cpu_current() {
                apic::send_ipi(cpu, vectors::RESCHEDULE);
            }
        } else if waits.is_some_and(|r| ptr::eq(r.0, t)) {
            q.ready.remove(Ready(t));
            drop(q);
            rests(t);
            enqueue(t, false);
        }
    }
}
