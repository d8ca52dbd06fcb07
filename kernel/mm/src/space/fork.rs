//! `fork`: a copy of a space that shares its pages until one side writes.

use super::{AddressSpace, State};
use crate::Error;
use crate::area::{Area, AreaFlags};
use crate::mappings::same;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

impl AddressSpace {
    /// A copy for a child process, paid for by the same account. Private pages are
    /// copied on the next write of either side; shared ones stay shared. Locks on
    /// memory are not inherited.
    ///
    /// # Errors
    /// No memory; this space is unchanged then.
    pub fn fork(&self) -> Result<Arc<AddressSpace>, Error> {
        let child = Self::with_layout(self.account.clone(), self.layout, self.limits())?;
        child.set_small_pages_only(self.small_pages_only());
        // The writer's lock: no page may become writable meanwhile.
        let state = self.state.write();
        let mut copy = child.state.write();
        copy.heap = state.heap.clone();
        copy.image_data = state.image_data;
        let mut listed = None;
        for area in state.areas.iter() {
            if !area.flags.contains(AreaFlags::DONT_FORK) {
                // The areas of a file mostly lie side by side: one entry does.
                let list = area.backing.as_ref().and_then(|b| b.mappings());
                if let Some(list) = list.filter(|l| !listed.is_some_and(|s| same(s, l))) {
                    list.add(&child.me)?;
                    listed = Some(list);
                }
                self.fork_area(area, &child, &mut copy)?;
            }
        }
        copy.peak = copy.areas.totals().mapped;
        drop(copy);
        Ok(child)
    }

    fn fork_area(&self, area: &Area, child: &AddressSpace, copy: &mut State) -> Result<(), Error> {
        let wipe = area.flags.contains(AreaFlags::WIPE_ON_FORK);
        // Pages of an object come back by a fault; only pages of the space's own
        // have to be handed on now.
        let share = area.owned.load(Relaxed) && !wipe;
        let mut twin = area.clone();
        twin.flags -= AreaFlags::LOCKED | AreaFlags::LOCK_ON_FAULT;
        twin.owned = AtomicBool::new(share);
        copy.areas.insert(twin)?;
        if share {
            self.table.share_into(&child.table, area.range(), true)?;
        }
        Ok(())
    }
}
