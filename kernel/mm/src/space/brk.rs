//! The heap: `brk`.

use super::AddressSpace;
use crate::area::{Area, AreaFlags};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use machine::addr::{PAGE_SHIFT, USER_END, USER_START, page_ceil};
use machine::paging::Access;

impl AddressSpace {
    /// Places the empty heap at `start` (`execve`), rounded up to a page.
    /// `image_data` is the size of the program's data in bytes, which counts
    /// towards `RLIMIT_DATA`.
    pub fn set_heap(&self, start: usize, image_data: usize) {
        let start = page_ceil(start).unwrap_or(USER_END).min(USER_END);
        let mut state = self.state.write();
        state.heap = start..start;
        state.image_data = image_data;
    }

    /// Moves the end of the heap to `end` if that is possible; where it is now.
    pub fn brk(&self, end: usize) -> usize {
        let mut state = self.state.write();
        let heap = state.heap.clone();
        if end < heap.start || end > USER_END || heap.start < USER_START {
            return heap.end;
        }
        let (Some(old), Some(new)) = (page_ceil(heap.end), page_ceil(end)) else {
            return heap.end;
        };
        let mut removed = None;
        if new < old {
            match state.take_out(&self.table, new..old) {
                Ok(areas) => removed = Some(areas),
                Err(_) => return heap.end,
            }
        } else if new > old {
            let used = (end - heap.start).saturating_add(state.image_data);
            if used > self.limits.data.load(Relaxed) {
                return heap.end;
            }
            let pages = (new - old) >> PAGE_SHIFT;
            let area = Area {
                start: old,
                end: new,
                backing: None,
                index: 0,
                access: Access::READ | Access::WRITE,
                max_access: Access::all(),
                flags: state.lock_future,
                owned: AtomicBool::new(false),
            };
            let locked = if area.is_locked() { pages } else { 0 };
            let refused = state.areas.search(new - old, old, new) != Some(old)
                || state.check_limits(&self.limits, pages, pages).is_err()
                || state.check_locked(&self.limits, locked).is_err()
                || state.insert_merged(area).is_err();
            if refused {
                return heap.end;
            }
        }
        state.heap.end = end;
        let populate = state.lock_future.contains(AreaFlags::LOCKED)
            && !state.lock_future.contains(AreaFlags::LOCK_ON_FAULT);
        drop(state);
        drop(removed);
        if populate && new > old {
            // As with `mmap`, what cannot be had now is tried again on touch.
            let _ = self.populate(old..new);
        }
        end
    }

    /// Start and current end of the heap.
    #[must_use]
    pub fn heap(&self) -> Range<usize> {
        self.state.read().heap.clone()
    }
}
