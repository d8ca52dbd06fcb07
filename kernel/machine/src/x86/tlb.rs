//! Forgetting translations: on this CPU by `invlpg` or a CR3 reload, on others by
//! an interrupt that they answer before the changer goes on.

use super::entry;
use super::paging::PageTable;
use super::{apic, percpu};
use crate::frame::Frame;
use crate::sync::SpinLock;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::tlb;

/// Pages forgotten one by one; more mean all of the space.
const PAGES_MAX: usize = 16;
const FRAMES_MAX: usize = 64;
const TABLES_MAX: usize = 8;

/// Changed entries of one space, and what they owned: forgotten first, let go
/// then, at the latest when it is dropped.
pub(super) struct Gather<'a> {
    space: &'a PageTable,
    pages: [usize; PAGES_MAX],
    pages_n: usize,
    frames: [u32; FRAMES_MAX],
    frames_n: usize,
    tables: [usize; TABLES_MAX],
    tables_n: usize,
}

impl<'a> Gather<'a> {
    #[inline]
    pub(super) fn new(space: &'a PageTable) -> Gather<'a> {
        Gather {
            space,
            pages: [0; PAGES_MAX],
            pages_n: 0,
            frames: [0; FRAMES_MAX],
            frames_n: 0,
            tables: [0; TABLES_MAX],
            tables_n: 0,
        }
    }

    /// The entry of `va` has changed.
    #[inline]
    pub(super) fn changed(&mut self, va: usize) {
        if self.pages_n < PAGES_MAX {
            self.pages[self.pages_n] = va;
        }
        self.pages_n += 1;
    }

    /// The entry of `va` was `old`, which owned a frame.
    #[inline]
    pub(super) fn leaf(&mut self, va: usize, old: u64) {
        if self.frames_n == FRAMES_MAX {
            self.flush();
        }
        self.changed(va);
        self.frames[self.frames_n] = entry::number_of(old) as u32;
        self.frames_n += 1;
    }

    /// The table at `phys`, which served `va`, is out of the tree.
    pub(super) fn table(&mut self, va: usize, phys: usize) {
        if self.tables_n == TABLES_MAX {
            self.flush();
        }
        self.changed(va);
        self.tables[self.tables_n] = phys;
        self.tables_n += 1;
    }

    fn flush(&mut self) {
        if self.pages_n > 0 {
            if self.pages_n <= PAGES_MAX {
                forget(self.space, &self.pages[..self.pages_n]);
            } else {
                forget(self.space, &[]);
            }
        }
        self.pages_n = 0;
        for n in &self.frames[..self.frames_n] {
            // SAFETY: each number came from a leaf that owned a reference and has
            // been replaced; no CPU remembers it any more.
            drop(unsafe { Frame::from_number(*n as usize) });
        }
        self.frames_n = 0;
        for phys in &self.tables[..self.tables_n] {
            // SAFETY: taken out of the tree, and no CPU remembers it any more.
            unsafe { entry::free_table(*phys) };
        }
        self.tables_n = 0;
    }
}

impl Drop for Gather<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.pages_n > 0 {
            self.flush();
        }
    }
}

/// Lets go what a leaf at `va` owned that has just been replaced.
#[inline]
pub(super) fn replaced(space: &PageTable, va: usize, old: u64) {
    forget(space, &[va]);
    // SAFETY: the leaf owned a reference, and no CPU remembers it any more.
    drop(unsafe { Frame::from_number(entry::number_of(old)) });
}

/// Makes every CPU forget `pages` of `space`, or all of it if there are none.
pub(super) fn forget(space: &PageTable, pages: &[usize]) {
    // The entries were changed before the mask is read: a CPU that starts to use
    // the space after that sees the new ones.
    core::sync::atomic::fence(Ordering::SeqCst);
    let active = space.active.load(Ordering::Relaxed);
    let me = 1u64 << percpu::cpu_current();
    if active & me != 0 {
        forget_here(pages);
    }
    if active & !me != 0 {
        shoot_down(active & !me, pages);
    }
}

fn forget_here(pages: &[usize]) {
    if pages.is_empty() {
        tlb::flush_all();
    }
    for va in pages {
        tlb::flush(VirtAddr::new_truncate(*va as u64));
    }
}

/// One request at a time; the mask says who has not answered yet.
static REQUEST: SpinLock<()> = SpinLock::new(());
static PENDING: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static PAGES: [AtomicUsize; PAGES_MAX] = [const { AtomicUsize::new(0) }; PAGES_MAX];

/// In [`COUNT`]: everything, the kernel's half too.
const ALL: usize = usize::MAX;

/// Makes every CPU forget the kernel's half.
///
/// # Panics
///
/// With interrupts off, where two CPUs might wait for each other for ever.
pub(super) fn forget_kernel() {
    assert!(x86_64::instructions::interrupts::are_enabled());
    let me = 1u64 << percpu::cpu_current();
    let all = u64::MAX >> (64 - percpu::cpu_count().clamp(1, 64));
    forget_global();
    if all & !me != 0 {
        request(all & !me, &[], ALL);
    }
}

/// Clearing and setting CR4.PGE forgets global entries as well (SDM vol. 3,
/// 4.10.4.1).
fn forget_global() {
    use x86_64::registers::control::{Cr4, Cr4Flags};
    let cr4 = Cr4::read();
    // SAFETY: only how long entries are remembered changes.
    unsafe {
        Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(cr4);
    }
}

impl PageTable {
    /// Has all who run in the space pass a full memory barrier, after which they
    /// also see new code: they forget their translations.
    pub fn barrier(&self) {
        forget(self, &[]);
    }
}

/// Has all CPUs pass a full memory barrier.
pub(crate) fn barrier() {
    core::sync::atomic::fence(Ordering::SeqCst);
    let me = 1u64 << percpu::cpu_current();
    let all = u64::MAX >> (64 - percpu::cpu_count().clamp(1, 64));
    if all & !me != 0 {
        request(all & !me, &[], 0);
    }
}

fn shoot_down(mask: u64, pages: &[usize]) {
    request(mask, pages, pages.len());
}

fn request(mask: u64, pages: &[usize], count: usize) {
    // Interrupts are on here (all room code runs so): whoever spins for this lock
    // still answers the request of the one who holds it.
    debug_assert!(x86_64::instructions::interrupts::are_enabled());
    let _one = REQUEST.lock();
    for (slot, va) in PAGES.iter().zip(pages) {
        slot.store(*va, Ordering::Relaxed);
    }
    COUNT.store(count, Ordering::Relaxed);
    PENDING.store(mask, Ordering::Release);
    let mut left = mask;
    while left != 0 {
        let cpu = left.trailing_zeros() as usize;
        left &= left - 1;
        apic::send_ipi(cpu, super::vectors::TLB_FLUSH);
    }
    while PENDING.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// Answers a request, from the interrupt handler.
pub(super) fn answer() {
    let me = 1u64 << percpu::cpu_current();
    if PENDING.load(Ordering::Acquire) & me == 0 {
        return;
    }
    let n = COUNT.load(Ordering::Relaxed);
    match n {
        ALL => forget_global(),
        0 => tlb::flush_all(),
        _ => {
            for slot in PAGES.iter().take(n) {
                tlb::flush(VirtAddr::new_truncate(slot.load(Ordering::Relaxed) as u64));
            }
        }
    }
    PENDING.fetch_and(!me, Ordering::AcqRel);
}
