//! The machine room under an ordinary operating system, for tests.
//!
//! Threads are the host's, physical memory is one large allocation, a page table
//! is a map. There is no user mode: a user thread runs the function given to
//! [`set_program`] in its place, and user copies go through the page table of the
//! space the thread has, faults included.

mod paging;
mod thread;

pub use paging::PageTable;
pub(crate) use thread::{
    ThreadState, current_thread, exit, expel, fpu_accepts, fpu_features, fpu_load, fpu_pop,
    fpu_push, fpu_reset, fpu_save, fpu_size, give_way, is_parked, kick, last_cpu, make_user, park,
    resched_due, run_ns, segment_bases, set_breakpoints, set_segment_bases, set_space,
    spawn_kernel, start, unpark, user_mapping, yield_now,
};
pub use thread::{breakpoints, enter_space, set_program};

use crate::addr::PAGE_SIZE;
use crate::error::Fault;
use crate::frame::{self, Meta};
use crate::paging::Access;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Instant;

/// Registers of a user thread, in the order of Linux's `struct user_regs_struct`
/// where it matters to nobody here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct UserRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The system call's number; all ones when it was no system call.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// "Physical memory": 256 MiB that the host backs as they are touched.
const FRAMES: usize = 64 << 10;

struct Memory {
    base: usize,
    table: &'static [Meta],
}

fn memory() -> &'static Memory {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    MEMORY.get_or_init(|| {
        let zeroed = |bytes: usize| {
            let layout = core::alloc::Layout::from_size_align(bytes, PAGE_SIZE).expect("constant");
            // SAFETY: the layout has a size.
            unsafe { std::alloc::alloc_zeroed(layout) }
        };
        let table = zeroed(FRAMES * size_of::<Meta>()).cast::<Meta>();
        // SAFETY: zero bytes are a valid `Meta`; the allocation is never freed.
        let table = unsafe { core::slice::from_raw_parts(table, FRAMES) };
        Memory {
            base: zeroed(FRAMES * PAGE_SIZE) as usize,
            table,
        }
    })
}

/// Hands the arena to the frame allocator, the first time.
pub(crate) fn ensure_memory() {
    static READY: std::sync::Once = std::sync::Once::new();
    READY.call_once(|| {
        // SAFETY: all of the arena is ours; number 0 stays out, as on a machine.
        unsafe { frame::add_range(1..FRAMES) };
    });
}

pub(crate) fn frame_table() -> &'static [Meta] {
    memory().table
}

pub(crate) fn phys_ptr(phys: usize) -> *mut u8 {
    (memory().base + phys) as *mut u8
}

/// The part of physical memory a device of a test reaches; `None` outside of it.
fn device_range(phys: u64, len: usize) -> Option<*mut u8> {
    let start = usize::try_from(phys).ok()?;
    let end = start.checked_add(len)?;
    (start >= PAGE_SIZE && end <= FRAMES * PAGE_SIZE).then(|| phys_ptr(start))
}

/// Bytes that a device reads or writes at once where they are aligned, as PCI does.
const AT_ONCE: usize = size_of::<u64>();

/// Reads physical memory as a device does, for fake devices; whether it exists.
/// Aligned eights of bytes are read at once.
pub fn device_read(phys: u64, out: &mut [u8]) -> bool {
    let Some(p) = device_range(phys, out.len()) else {
        return false;
    };
    let mut at = 0;
    while at < out.len() {
        // SAFETY: inside the arena, which lives for ever, as is all that is read below.
        let from = unsafe { p.add(at) };
        match out.get_mut(at..at + AT_ONCE) {
            Some(word) if from.addr().is_multiple_of(AT_ONCE) => {
                // SAFETY: aligned, and `out` has as many bytes left.
                let value = unsafe { AtomicU64::from_ptr(from.cast()) }.load(Ordering::Acquire);
                word.copy_from_slice(&value.to_ne_bytes());
                at += AT_ONCE;
            }
            _ => {
                // SAFETY: as above.
                out[at] = unsafe { from.read_volatile() };
                at += 1;
            }
        }
    }
    core::sync::atomic::fence(Ordering::SeqCst);
    true
}

/// Writes physical memory as a device does, for fake devices; whether it exists.
/// Aligned eights of bytes are written at once.
pub fn device_write(phys: u64, bytes: &[u8]) -> bool {
    let Some(p) = device_range(phys, bytes.len()) else {
        return false;
    };
    core::sync::atomic::fence(Ordering::SeqCst);
    let mut at = 0;
    while at < bytes.len() {
        // SAFETY: inside the arena, which lives for ever; as with a real device, that
        // nobody else has it is up to the driver under test.
        let to = unsafe { p.add(at) };
        match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(word) if to.addr().is_multiple_of(AT_ONCE) => {
                let value = u64::from_ne_bytes(*word);
                // SAFETY: aligned, and as many bytes are left.
                unsafe { AtomicU64::from_ptr(to.cast()) }.store(value, Ordering::Release);
                at += AT_ONCE;
            }
            _ => {
                // SAFETY: as above.
                unsafe { to.write_volatile(bytes[at]) };
                at += 1;
            }
        }
    }
    true
}

/// Devices of tests look into the CPUs' caches.
pub(crate) fn write_back(_start: core::ptr::NonNull<u8>, _len: usize) {}

/// There is no firmware.
pub(crate) fn tpm2() -> Option<crate::firmware::acpi::Tpm2> {
    None
}

pub(crate) fn dmar()
-> Option<&'static Result<crate::firmware::dmar::Dmar, crate::firmware::dmar::DmarError>> {
    None
}

pub(crate) fn memory_ranges() -> impl Iterator<Item = crate::inventory::MemoryRange> {
    core::iter::empty()
}

/// # Safety
/// `page` is a page nobody else uses.
pub(crate) unsafe fn zero_page(page: *mut u8) {
    // SAFETY: the caller's.
    unsafe { page.write_bytes(0, PAGE_SIZE) };
}

/// # Safety
/// `to` is a page nobody else uses, `from` another.
pub(crate) unsafe fn copy_page(to: *mut u8, from: *const u8) {
    // SAFETY: the caller's.
    unsafe { to.copy_from_nonoverlapping(from, PAGE_SIZE) };
}

#[derive(Clone, Copy)]
pub(crate) struct IrqState;

pub(crate) fn irq_save() -> IrqState {
    IrqState
}

pub(crate) fn irq_restore(_: IrqState) {}

pub(crate) fn cpu_count() -> usize {
    2
}

pub(crate) fn cpu_current() -> usize {
    0
}

pub(crate) fn apic_id(cpu: usize) -> Option<u32> {
    (cpu < cpu_count()).then_some(cpu as u32)
}

pub(crate) fn irq_wire(irq: u8) -> crate::irq::Wire {
    crate::irq::Wire {
        gsi: u32::from(irq),
        active_low: false,
        level: false,
    }
}

pub(crate) fn irq_route(_wire: crate::irq::Wire, _vector: u8) -> bool {
    true
}

pub(crate) fn irq_set_masked(_wire: u32, _masked: bool) {}

/// There are no devices, and what tests give out as registers is not asked about.
pub(crate) fn virtio_places() -> &'static [crate::virtio::Place] {
    &[]
}

pub(crate) fn is_ram(_start: u64, _end: u64) -> bool {
    false
}

/// There is no bus.
pub(crate) fn pci_read(_at: crate::pci::Address, _offset: u16) -> u32 {
    u32::MAX
}

pub(crate) fn pci_write(_at: crate::pci::Address, _offset: u16, _value: u32) {}

pub(crate) fn pci_read_part(_at: crate::pci::Address, _offset: u16, _len: u8) -> u32 {
    u32::MAX
}

pub(crate) fn pci_write_part(_at: crate::pci::Address, _offset: u16, _len: u8, _value: u32) {}

/// Nor are there ports.
pub(crate) fn port_read_u8(_port: u16) -> u8 {
    u8::MAX
}

pub(crate) fn port_read_u16(_port: u16) -> u16 {
    u16::MAX
}

pub(crate) fn port_read_u32(_port: u16) -> u32 {
    u32::MAX
}

pub(crate) fn port_write_u8(_port: u16, _value: u8) {}

pub(crate) fn port_write_u16(_port: u16, _value: u16) {}

pub(crate) fn port_write_u32(_port: u16, _value: u32) {}

pub(crate) fn map_mmio(_phys: usize, _len: usize) -> Option<core::ptr::NonNull<u8>> {
    None
}

/// There is no screen.
pub(crate) fn take_framebuffer() -> Option<crate::framebuffer::Framebuffer> {
    None
}

pub(crate) fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // Never zero, as on a machine that has been up for a moment.
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX) + 1
}

pub(crate) fn user_clock() -> Option<crate::vdso::UserClock> {
    None
}

pub(crate) fn cpu_number_by_tscp() -> bool {
    false
}

pub(crate) fn barrier() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

pub(crate) fn fsgsbase() -> bool {
    false
}

pub(crate) fn console_write(_: &[u8]) {}

pub(crate) fn console_receives() -> bool {
    false
}

pub(crate) fn entropy() -> [u8; 32] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        part.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    seed
}

/// Walks a user range page by page: `f` gets the page's bytes, the offset into
/// it, the offset into the range, and the length. Bytes done.
fn walk(
    addr: usize,
    len: usize,
    access: Access,
    mut f: impl FnMut(*mut u8, usize, usize),
) -> usize {
    let mut done = 0;
    while done < len {
        let at = addr + done;
        let n = (PAGE_SIZE - at % PAGE_SIZE).min(len - done);
        let Some(frame) = thread::resolve(at, access) else {
            break;
        };
        // SAFETY: inside the frame's page.
        f(unsafe { frame.ptr().add(at % PAGE_SIZE) }, done, n);
        done += n;
    }
    done
}

pub(crate) fn copy_from_user(src: usize, dst: &mut [u8]) -> usize {
    walk(src, dst.len(), Access::READ, |p, at, n| {
        // SAFETY: `walk` gives `n` bytes of a live frame.
        unsafe { p.copy_to_nonoverlapping(dst[at..].as_mut_ptr(), n) };
    })
}

/// See the metal's.
///
/// # Safety
/// `dst` has `max` bytes.
pub(crate) unsafe fn str_from_user(
    src: usize,
    dst: *mut u8,
    max: usize,
) -> Result<Option<usize>, Fault> {
    for at in 0..max {
        let mut byte = [0];
        if copy_from_user(src + at, &mut byte) == 0 {
            return Err(Fault);
        }
        // SAFETY: the caller's.
        unsafe { dst.add(at).write(byte[0]) };
        if byte == [0] {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

pub(crate) fn copy_to_user(dst: usize, src: &[u8]) -> usize {
    walk(dst, src.len(), Access::WRITE, |p, at, n| {
        // SAFETY: `walk` gives `n` bytes of a live frame.
        unsafe { p.copy_from_nonoverlapping(src[at..].as_ptr(), n) };
    })
}

fn word<R>(addr: usize, access: Access, f: impl FnOnce(&AtomicU32) -> R) -> Result<R, Fault> {
    let frame = thread::resolve(addr, access).ok_or(Fault)?;
    // SAFETY: the address is aligned (the caller checked) and in a live frame.
    Ok(f(unsafe {
        AtomicU32::from_ptr(frame.ptr().add(addr % PAGE_SIZE).cast())
    }))
}

pub(crate) fn user_load_u32(addr: usize) -> Result<u32, Fault> {
    word(addr, Access::READ, |w| w.load(Ordering::SeqCst))
}

pub(crate) fn user_cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<u32, Fault> {
    word(addr, Access::WRITE, |w| {
        w.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap_or_else(|v| v)
    })
}

/// There are no clock events to sample at.
pub(crate) fn begin_samples() {}

/// Programs do not run on the host; tests call what a system call does themselves.
pub(crate) fn set_syscall(_: crate::thread::Syscall) {}
