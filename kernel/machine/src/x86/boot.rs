//! From the loader's hand-over to a running scheduler.
//!
//! The loader (any that speaks `bootloader_api`) maps the kernel, all memory at
//! [`kmap::DIRECT`], a stack and the ramdisk. Nothing of its tables is kept: the
//! kernel builds its own, moves to a stack of its own, and takes back what memory
//! the loader used.

use super::entry::{self, HUGE, NO_EXEC, PRESENT, WRITABLE, index};
use super::stacks;
use super::{
    acpi, apic, clock, control, crash, fpu, gdt, ioapic, kmap, percpu, smp, thread, trap, uart,
    usercopy,
};
use crate::addr::PAGE_SIZE;
use crate::boot::Loaded;
use crate::frame;
use crate::framebuffer::Framebuffer;
use crate::inventory::{MemoryKind, MemoryRange};
use crate::sync::Once;
use crate::thread::Builder;
use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::{FrameBufferInfo, MemoryRegionKind, Optional};
use bootloader_api::{BootInfo, entry_point};
use core::mem::size_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

static CONFIG: BootloaderConfig = {
    let mut c = BootloaderConfig::new_default();
    c.mappings.physical_memory = Some(Mapping::FixedAddress(kmap::DIRECT as u64));
    c.mappings.dynamic_range_start = Some(kmap::IMAGE as u64);
    c.kernel_stack_size = 128 << 10;
    c
};
entry_point!(start, config = &CONFIG);

unsafe extern "Rust" {
    /// What the kernel does once threads run; the `node` crate defines it.
    safe fn skep_main();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Free,
    /// The loader's; free once its leavings are sorted out.
    Loader,
    /// Firmware's: mapped, never allocated.
    Other,
}

#[derive(Clone, Copy)]
struct Region {
    start: usize,
    end: usize,
    kind: Kind,
    /// As the loader calls it.
    told: MemoryRegionKind,
}

const REGIONS_MAX: usize = 256;

/// What boot found, fixed from then on.
pub(crate) struct State {
    regions: [Region; REGIONS_MAX],
    regions_n: usize,
    rsdp: Option<u64>,
    /// Physical address and length.
    pub(crate) ramdisk: Option<(usize, usize)>,
    /// Physical address and length of the page with the VMM's command line.
    command_line: Option<(usize, usize)>,
    framebuffer: Option<(usize, usize, FrameBufferInfo)>,
    /// Early allocations: where they began and ended.
    early: (usize, usize),
    table: usize,
    table_len: usize,
    crash: Option<usize>,
    stack_top: usize,
}

static STATE: Once<State> = Once::new();
/// The TSC when the kernel was entered.
static ENTERED: AtomicU64 = AtomicU64::new(0);

/// What the TSC showed when the kernel was entered.
pub(crate) fn entered() -> u64 {
    ENTERED.load(Relaxed)
}

#[expect(
    clippy::unreachable,
    reason = "a kernel without its boot state cannot go on"
)]
pub(crate) fn state() -> &'static State {
    match STATE.get() {
        Some(s) => s,
        None => unreachable!("boot state is set before anything asks"),
    }
}

/// Where the screen's memory was mapped.
static MAPPED_FRAMEBUFFER: Once<(usize, FrameBufferInfo)> = Once::new();

/// Maps the boot framebuffer for the first who asks.
pub(crate) fn take_framebuffer() -> Option<Framebuffer> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let (phys, len, mut info) = state().framebuffer?;
    if TAKEN.swap(true, Relaxed) {
        return None;
    }
    info.byte_len = info.byte_len.min(len);
    let base = kmap::map_device(phys, len, kmap::Cache::WriteCombining)?;
    MAPPED_FRAMEBUFFER.call_once(|| (base.as_ptr() as usize, info));
    // SAFETY: just mapped, `byte_len` long, and nobody else's.
    unsafe { Framebuffer::over(base, info) }
}

/// The screen for the last words of a kernel that ends: who has it will not draw again.
/// `None` if nobody has it.
pub(super) fn last_framebuffer() -> Option<Framebuffer> {
    let (base, info) = *MAPPED_FRAMEBUFFER.get()?;
    // SAFETY: mapped for ever. Other CPUs are told to halt; should one draw a little
    // longer, pixels are wrong and nothing else.
    unsafe { Framebuffer::over(NonNull::new(base as *mut u8)?, info) }
}

/// The memory map as the firmware told it.
pub(crate) fn ranges() -> impl Iterator<Item = MemoryRange> {
    let s = state();
    s.regions[..s.regions_n].iter().map(|r| MemoryRange {
        start: r.start as u64,
        end: r.end as u64,
        kind: kind_of(r.told),
    })
}

/// Whether some of `start..end` is memory as the firmware told it.
pub(crate) fn is_ram(start: u64, end: u64) -> bool {
    ranges().any(|r| r.kind == MemoryKind::Usable && r.start < end && start < r.end)
}

/// What a region is (ACPI 6.5, table 15.4; UEFI 2.10, 7.2).
fn kind_of(told: MemoryRegionKind) -> MemoryKind {
    match told {
        MemoryRegionKind::Usable | MemoryRegionKind::Bootloader => MemoryKind::Usable,
        MemoryRegionKind::UnknownBios(3) | MemoryRegionKind::UnknownUefi(9) => MemoryKind::Tables,
        MemoryRegionKind::UnknownBios(4) | MemoryRegionKind::UnknownUefi(5 | 6 | 10) => {
            MemoryKind::Firmware
        }
        MemoryRegionKind::UnknownUefi(11 | 12) => MemoryKind::Devices,
        MemoryRegionKind::UnknownBios(5) | MemoryRegionKind::UnknownUefi(8) => MemoryKind::Broken,
        _ => MemoryKind::Reserved,
    }
}

static FRAME_TABLE: AtomicUsize = AtomicUsize::new(0);
static FRAME_TABLE_LEN: AtomicUsize = AtomicUsize::new(0);

/// The frame table; empty before boot has made it.
#[inline]
pub(crate) fn frame_table() -> &'static [frame::Meta] {
    let at = FRAME_TABLE.load(Relaxed) as *const frame::Meta;
    if at.is_null() {
        return &[];
    }
    // SAFETY: set once to zeroed memory of that length that stays for ever.
    unsafe { core::slice::from_raw_parts(at, FRAME_TABLE_LEN.load(Relaxed)) }
}

fn fail(why: &str) -> ! {
    uart::early_write(b"Skep cannot start: ");
    uart::early_write(why.as_bytes());
    uart::early_write(b"\n");
    loop {
        x86_64::instructions::hlt();
    }
}

/// The first Rust code of the kernel, on the loader's stack and tables.
fn start(info: &'static mut BootInfo) -> ! {
    ENTERED.store(clock::tsc(), Relaxed);
    control::init();
    percpu::install_boot();
    uart::early_write(b"Skep ");
    uart::early_write(env!("CARGO_PKG_VERSION").as_bytes());
    uart::early_write(b"\n");
    if info.physical_memory_offset.into_option() != Some(kmap::DIRECT as u64) {
        fail("the boot loader did not map physical memory where it was asked to");
    }
    STATE.call_once(|| survey(info));
    let top = state().stack_top;
    // SAFETY: the new tables map the kernel's image as the old ones do; nothing of
    // the old stack is used afterwards.
    unsafe {
        core::arch::asm!(
            "mov cr3, {root}",
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            root = in(reg) kmap::root(),
            top = in(reg) top,
            next = sym on_own_tables,
            options(noreturn),
        );
    }
}

/// Physical address that the loader's tables give `va`.
fn loader_translate(va: usize) -> Option<usize> {
    let mut t = loader_root();
    for level in (0..=3).rev() {
        // SAFETY: the loader's tables are in memory that is still theirs.
        let e = unsafe { entry::load(entry::table(t as u64), va, level) };
        if e & PRESENT == 0 {
            return None;
        }
        let span = 1usize << (12 + 9 * level);
        if level == 0 || e & HUGE != 0 {
            return Some((e & entry::ADDRESS) as usize & !(span - 1) | va & (span - 1));
        }
        t = (e & entry::ADDRESS) as usize;
    }
    None
}

fn loader_root() -> usize {
    let (frame, _) = x86_64::registers::control::Cr3::read();
    frame.start_address().as_u64() as usize
}

/// Reads the hand-over and builds tables, frame table and stack.
fn survey(info: &BootInfo) -> State {
    let (mut regions, regions_n) = regions(info);
    let crash = place_record(&mut regions[..regions_n]);
    let used = &regions[..regions_n];
    let ram_end = used
        .iter()
        .filter(|r| r.kind != Kind::Other)
        .map(|r| r.end)
        .max()
        .unwrap_or(0);
    // Firmware tables lie in regions of their own, below 4 GiB mostly; what is
    // named is mapped, up to 64 TiB.
    let map_end = used
        .iter()
        .map(|r| r.end)
        .filter(|e| *e <= 1 << 46)
        .max()
        .unwrap_or(0);
    let map_end = map_end.max(ram_end).next_multiple_of(2 << 20);
    let Some(home) = used
        .iter()
        .filter(|r| r.kind == Kind::Free && r.end <= 4 << 30)
        .max_by_key(|r| r.end - r.start)
    else {
        fail("no usable memory below 4 GiB");
    };
    let early_start = home.start.max(1 << 20);
    let mut next = early_start;
    let mut take = |bytes: usize| {
        let at = next;
        next += bytes.next_multiple_of(PAGE_SIZE);
        if next > home.end {
            fail("too little memory for page tables");
        }
        // SAFETY: usable memory that nothing else has been given.
        unsafe { super::phys_ptr(at).write_bytes(0, next - at) };
        at
    };
    let table_len = ram_end.div_ceil(PAGE_SIZE);
    let table = take(table_len * size_of::<frame::Meta>());
    let stack_top = kmap::DIRECT + take(stacks::STACK_SIZE) + stacks::STACK_SIZE;
    let root = take(PAGE_SIZE);
    let mut page = || take(PAGE_SIZE);
    let mut b = kmap::Builder {
        root,
        alloc: &mut page,
    };
    b.reserve_areas();
    b.direct_map(map_end);
    copy_image(&mut b);
    State {
        regions,
        regions_n,
        rsdp: info.rsdp_addr.into_option(),
        ramdisk: ramdisk(info),
        command_line: command_line_page(used),
        framebuffer: framebuffer_of(info),
        early: (early_start, next),
        table,
        table_len,
        crash,
        stack_top,
    }
}

fn regions(info: &BootInfo) -> ([Region; REGIONS_MAX], usize) {
    let mut out = [Region {
        start: 0,
        end: 0,
        kind: Kind::Other,
        told: MemoryRegionKind::UnknownBios(0),
    }; REGIONS_MAX];
    let mut n = 0;
    for r in info.memory_regions.iter() {
        let kind = match r.kind {
            MemoryRegionKind::Usable => Kind::Free,
            MemoryRegionKind::Bootloader => Kind::Loader,
            _ => Kind::Other,
        };
        let (start, end) = (r.start as usize, r.end as usize);
        // Only whole pages can be handed out.
        let (start, end) = match kind {
            Kind::Other => (start, end),
            _ => (start.next_multiple_of(PAGE_SIZE), end & !(PAGE_SIZE - 1)),
        };
        if start < end && n < REGIONS_MAX {
            out[n] = Region {
                start,
                end,
                kind,
                told: r.kind,
            };
            n += 1;
        }
    }
    (out, n)
}

/// Takes the crash record's place out of the free memory: where a record lies, or
/// the end of the highest free region below 4 GiB.
fn place_record(regions: &mut [Region]) -> Option<usize> {
    let size = crash::RECORD_BYTES;
    let fits = |r: &Region| {
        r.kind == Kind::Free
            && r.end <= 4 << 30
            && r.start >= 1 << 20
            && r.end - r.start >= 64 * size
    };
    let found = regions
        .iter()
        .position(|r| fits(r) && crash::is_at(r.end - size))
        .or_else(|| {
            let fitting = regions.iter().enumerate().filter(|(_, r)| fits(r));
            fitting.max_by_key(|(_, r)| r.end).map(|(i, _)| i)
        })?;
    regions[found].end -= size;
    Some(regions[found].end)
}

fn ramdisk(info: &BootInfo) -> Option<(usize, usize)> {
    let va = info.ramdisk_addr.into_option()? as usize;
    let len = info.ramdisk_len as usize;
    loader_translate(va)
        .filter(|_| len > 0)
        .map(|phys| (phys, len))
}

/// E820 type by which the PVH front end names the page of the command line; the same in
/// `boot/pvh`.
const COMMAND_LINE: u32 = 0xf053_4b43;

fn command_line_page(regions: &[Region]) -> Option<(usize, usize)> {
    let named = |r: &&Region| r.told == MemoryRegionKind::UnknownBios(COMMAND_LINE);
    let found = regions.iter().find(named)?;
    Some((found.start, found.end - found.start))
}

/// The VMM's command line, which ends at the first zero of its page.
pub(crate) fn command_line() -> &'static [u8] {
    let Some((phys, len)) = state().command_line else {
        return &[];
    };
    // SAFETY: memory that the front end has set apart and the kernel never hands out.
    let page: &'static [u8] = unsafe { core::slice::from_raw_parts(super::phys_ptr(phys), len) };
    page.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn framebuffer_of(info: &BootInfo) -> Option<(usize, usize, FrameBufferInfo)> {
    let Optional::Some(fb) = &info.framebuffer else {
        return None;
    };
    let phys = loader_translate(fb.buffer().as_ptr() as usize)?;
    Some((phys, fb.buffer().len(), fb.info()))
}

/// Maps the kernel's image page by page as the loader did, rights included.
fn copy_image(b: &mut kmap::Builder<'_>) {
    each_image_page(loader_root(), |va, e| {
        let rights = e & (PRESENT | WRITABLE | NO_EXEC);
        b.set(va, 0, e & entry::ADDRESS | rights | entry::GLOBAL);
    });
}

/// Calls `f` with address and entry of each page of the image under `root`.
fn each_image_page(root: usize, mut f: impl FnMut(usize, u64)) {
    let below = |t: u64| {
        // SAFETY: a present entry of the loader's or our own tables.
        unsafe { entry::table(t) }
    };
    let top = entry::load(below(root as u64), kmap::IMAGE, 3);
    if top & PRESENT == 0 {
        fail("the kernel is not where the boot loader was asked to put it");
    }
    for (i, pdpt) in below(top).iter().enumerate() {
        let pdpt = pdpt.load(Relaxed);
        if pdpt & PRESENT == 0 {
            continue;
        }
        for (j, pd) in below(pdpt).iter().enumerate() {
            let pd = pd.load(Relaxed);
            if pd & PRESENT == 0 {
                continue;
            }
            for (k, pt) in below(pd).iter().enumerate() {
                let pt = pt.load(Relaxed);
                if pt & PRESENT != 0 {
                    f(kmap::IMAGE + (i << 30 | j << 21 | k << 12), pt);
                }
            }
        }
    }
    debug_assert_eq!(index(kmap::IMAGE, 2), 0);
}

/// On the kernel's own tables and stack: memory, traps, clock, threads.
extern "C" fn on_own_tables() -> ! {
    let s = state();
    FRAME_TABLE_LEN.store(s.table_len, Relaxed);
    FRAME_TABLE.store(super::phys_ptr(s.table) as usize, Relaxed);
    free_memory(s);
    crate::klog::init();
    gdt::init();
    trap::init();
    fpu::init();
    usercopy::init();
    if let Some(phys) = s.crash {
        crash::init(phys);
    }
    let tables = acpi::init(s.rsdp);
    super::power::init();
    apic::init_cpu(0, tables.nmi_pin);
    ioapic::init();
    if let Err(e) = clock::init() {
        fail(e.why());
    }
    uart::use_interrupts();
    percpu::join();
    let ready = thread::adopt_idle(s.stack_top)
        .map(|()| smp::start())
        .and_then(|()| super::later::start())
        .and_then(|()| crate::timer::start())
        .and_then(|()| Builder::new("main").spawn(skep_main).map(|_| ()));
    if ready.is_err() {
        fail("too little memory to start threads");
    }
    super::sched::idle()
}

/// What a further CPU must be given before it is started: its data and a stack,
/// whose top is returned.
pub(super) fn prepare_cpu(index: usize) -> Option<usize> {
    let stack = stacks::KernelStack::new()?;
    percpu::prepare(index);
    let top = stack.top();
    // Never recycled: an idle thread lasts as long as the machine.
    Some(top)
}

/// Where a further CPU goes once it is in long mode, on the kernel's tables
/// ([`kmap::root`]) and on the stack that [`prepare_cpu`] made for it.
pub(super) extern "C" fn on_another_cpu(index: usize, stack_top: usize) -> ! {
    percpu::adopt(index);
    control::init();
    gdt::init();
    percpu::adopt(index);
    trap::init();
    apic::init_cpu(index, acpi::tables().nmi_pin);
    clock::init_cpu();
    smp::wait_for_turn(index);
    if thread::adopt_idle(stack_top).is_err() {
        fail("too little memory to start a CPU");
    }
    percpu::join();
    smp::ready();
    super::sched::idle()
}

/// Gives the allocator all memory that is free, the loader's included.
fn free_memory(s: &State) {
    for r in &s.regions[..s.regions_n] {
        let low = r.start.max(1 << 20);
        if r.kind != Kind::Free || low >= r.end {
            continue;
        }
        let (a, b) = s.early;
        for (start, end) in [(low, r.end.min(a)), (low.max(b), r.end)] {
            // The early pages lie in one region; the others are all on one side.
            let (start, end) = if b <= low || a >= r.end {
                (low, r.end)
            } else {
                (start, end)
            };
            if start < end {
                // SAFETY: usable memory that boot has not taken.
                unsafe { frame::add_range(start / PAGE_SIZE..end / PAGE_SIZE) };
            }
            if b <= low || a >= r.end {
                break;
            }
        }
    }
    free_loader(s);
}

/// Gives back the memory of what was loaded with the kernel, as far as the loader said that
/// it is memory.
pub(crate) fn free_loaded(loaded: Loaded) {
    let (phys, len) = loaded.place();
    let s = state();
    for r in &s.regions[..s.regions_n] {
        let start = phys.next_multiple_of(PAGE_SIZE).max(r.start).max(1 << 20);
        let end = (phys + len).next_multiple_of(PAGE_SIZE).min(r.end);
        if r.kind == Kind::Loader && start < end {
            // SAFETY: whole pages that the loader loaded it to, which were fixed until now.
            // Nobody has a reference to them: it would need `loaded`.
            unsafe { frame::unfix_range(start / PAGE_SIZE..end / PAGE_SIZE) };
        }
    }
}

/// Frees the loader's memory but for the kernel's image and the ramdisk.
fn free_loader(s: &State) {
    if let Some((phys, len)) = s.ramdisk {
        let pages = phys / PAGE_SIZE..(phys + len).div_ceil(PAGE_SIZE);
        // SAFETY: the loader's copy of the ramdisk; nothing writes it from here on.
        unsafe { frame::fix_range(pages) };
    }
    each_image_page(kmap::root(), |_, e| {
        // Marks the page as taken; image frames are never handed out.
        if let Some(n) = frame_table().get(entry::number_of(e)) {
            n.hold();
        }
    });
    for r in s.regions[..s.regions_n]
        .iter()
        .filter(|r| r.kind == Kind::Loader)
    {
        let mut n = r.start.max(1 << 20) / PAGE_SIZE;
        let end = r.end / PAGE_SIZE;
        while n < end {
            let free = |i: &usize| *i < end && frame_table().get(*i).is_some_and(|m| !m.is_held());
            let run = (n..).take_while(free).count();
            if run > 0 {
                // SAFETY: the loader's own pages: tables, stack, boot information
                // that was copied; nobody uses them now.
                unsafe {
                    // Its code, too: see `Block::zeroed`.
                    super::phys_ptr(n * PAGE_SIZE).write_bytes(0, run * PAGE_SIZE);
                    frame::add_range(n..n + run);
                }
            }
            n += run + 1;
        }
    }
}
