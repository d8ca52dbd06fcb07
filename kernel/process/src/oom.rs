//! Out of memory: somebody of the same capsule has to go (design D7).

use crate::signal::{Origin, SigInfo, Signal};
use crate::{Process, Thread, World};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use machine::time::Instant;

/// How long a fault waits for a victim's memory before it looks again.
const PATIENCE: Duration = Duration::from_millis(2);

/// Makes room for a fault of `me`: kills the largest process of its world, or
/// waits for one that is on its way out. Whether the fault may be tried again;
/// `false` means that the caller itself has to go.
pub(crate) fn make_room(me: &Thread) -> bool {
    if me.must_end() {
        return false;
    }
    let world = me.process().world();
    let processes = world.processes();
    let dying = |p: &Arc<Process>| p.exit_status().is_some() && p.thread_count() > 0;
    if !processes.iter().any(dying)
        && let Some(victim) = choose(world, &processes)
    {
        kill(world, &victim);
    }
    drop(processes);
    if me.must_end() {
        return false;
    }
    // Not to be cut short by signals: there is nothing to go back to.
    let _ = machine::thread::sleep_until(Instant::now().after(PATIENCE), false);
    !me.must_end()
}

/// The one whose end gives most memory back, as `oom_score_adj` weighs it: each
/// point stands for a thousandth of what the world may have.
fn choose(world: &World, processes: &[Arc<Process>]) -> Option<Arc<Process>> {
    let total = world.account().limit().min(machine::frame::stats().total);
    let score = |p: &Process| {
        let resident = p.resident_pages();
        let bonus = i128::from(p.oom_adjust()) * total as i128 / 1000;
        resident as i128 + bonus
    };
    let candidates = processes.iter().filter(|p| p.exit_status().is_none());
    candidates
        .filter(|p| p.oom_adjust() > -1000)
        .max_by_key(|p| score(p))
        .or_else(|| processes.first())
        .cloned()
}

fn kill(world: &World, victim: &Arc<Process>) {
    let name = victim
        .first_thread()
        .map_or_else(Default::default, |t| t.comm());
    log::warn!(
        "capsule {}: out of memory, {} ({name}) is killed with {} KiB resident",
        world.name(),
        victim.pid(),
        victim.resident_pages() * 4,
    );
    world.count_oom_kill();
    victim.unkillable.store(false, Relaxed);
    let info = SigInfo::kernel(Signal::KILL);
    // `SIGKILL` is never refused.
    let _ = victim.signal(Signal::KILL, info, Origin::Outside);
    world.events().out_of_memory(victim.pid(), &name);
}

impl Process {
    /// How likely it is to be chosen, 0 to about 2000 (`/proc/PID/oom_score`).
    #[must_use]
    pub fn oom_score(&self) -> usize {
        let limit = self.world().account().limit();
        let total = limit.min(machine::frame::stats().total).max(1);
        let share = (self.resident_pages() * 1000 / total) as i64;
        usize::try_from(1000 + share + i64::from(self.oom_adjust())).unwrap_or(0) * 2 / 3
    }

    /// Pages of its memory that are there now.
    #[must_use]
    pub fn resident_pages(&self) -> usize {
        let Some(thread) = self.first_thread() else {
            return 0;
        };
        let space = thread.space.get();
        space.map_or(0, |s| s.page_table().resident())
    }
}
