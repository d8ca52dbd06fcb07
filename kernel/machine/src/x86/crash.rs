//! The end of the kernel: a panic writes a crash record into memory that survives
//! a reset, and resets the machine. The next boot finds the record.
//!
//! The record lies in the last pages of a usable region below 4 GiB. Firmware and
//! loaders of the next boot do not usually touch these; a checksum tells.

mod others;

pub(super) use others::lay_down;

use super::{apic, boot, percpu, phys_ptr, power, uart};
use crate::addr::PAGE_SIZE;
use crate::klog;
use crate::panic_screen::{self, Panic};
use crate::sync::Once;
use crate::time::{self, Instant};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

/// Bytes kept for the record.
pub(super) const RECORD_BYTES: usize = 4 * PAGE_SIZE;
const MAGIC: u64 = u64::from_le_bytes(*b"SKEPCRSH");
/// Magic, length, checksum, count of crashes in a row, uptime and UTC in nanoseconds,
/// CPU; the eighth word is free. The checksum is of the text.
const HEADER: usize = 64;
const TEXT_MAX: usize = RECORD_BYTES - HEADER;
const LOG_TAIL: usize = 8 << 10;

static PLACE: AtomicUsize = AtomicUsize::new(0);
/// One more than the number of the CPU that panics.
static PANICKING: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: Once<Option<Record>> = Once::new();

/// What the kernel left when it ended last time.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the screen called it.
    pub id: u32,
    /// Message and place in one line, then stack, where the other CPUs were, and the end of
    /// the log.
    pub text: String,
    /// Since the boot that crashed, in nanoseconds.
    pub uptime_ns: u64,
    /// UTC as that boot knew it, in nanoseconds since 1970.
    pub wall_ns: i64,
    /// The CPU that panicked.
    pub cpu: u64,
    /// Crashes without an orderly boot between them, this one included.
    pub in_a_row: u64,
}

/// The record of the boot before this one, if it ended in a panic.
#[must_use]
pub fn previous() -> Option<Record> {
    PREVIOUS.get()?.clone()
}

/// Whether a panic is under way.
pub(super) fn in_progress() -> bool {
    PANICKING.load(Ordering::SeqCst) != 0
}

/// FNV-1a: enough to tell a record from what RAM holds otherwise.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What people call a record: its checksum, folded to a length that can be read out.
fn id(checksum: u64) -> u32 {
    (checksum ^ checksum >> 32) as u32
}

fn word(phys: usize, i: usize) -> *mut u64 {
    phys_ptr(phys + 8 * i).cast()
}

/// Whether a whole record lies at `phys`, which is mapped RAM.
pub(super) fn is_at(phys: usize) -> bool {
    // SAFETY: the caller names RAM of `RECORD_BYTES` that is in the direct map.
    unsafe {
        let len = word(phys, 1).read_volatile() as usize;
        if word(phys, 0).read_volatile() != MAGIC || len > TEXT_MAX {
            return false;
        }
        let text = core::slice::from_raw_parts(phys_ptr(phys + HEADER), len);
        checksum(text) == word(phys, 2).read_volatile()
    }
}

/// Takes the place for this boot's record, reading the last one's first.
pub(super) fn init(phys: usize) {
    PREVIOUS.call_once(|| {
        if !is_at(phys) {
            return None;
        }
        // SAFETY: `is_at` has checked it; RAM that only this module uses.
        unsafe {
            let len = word(phys, 1).read_volatile() as usize;
            let mut text = Vec::new();
            text.try_reserve_exact(len).ok()?;
            text.extend_from_slice(core::slice::from_raw_parts(phys_ptr(phys + HEADER), len));
            let in_a_row = word(phys, 3).read_volatile();
            let uptime_ns = word(phys, 4).read_volatile();
            let wall_ns = word(phys, 5).read_volatile().cast_signed();
            let cpu = word(phys, 6).read_volatile();
            word(phys, 0).write_volatile(0);
            Some(Record {
                id: id(word(phys, 2).read_volatile()),
                text: String::from_utf8_lossy(&text).into_owned(),
                uptime_ns,
                wall_ns,
                cpu,
                in_a_row,
            })
        }
    });
    PLACE.store(phys, Ordering::Release);
}

/// Text written straight to its place, cut where that ends.
struct Text {
    phys: usize,
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

impl Text {
    fn bytes(&mut self, b: &[u8]) {
        uart::early_write(b);
        self.keep(b);
    }

    fn keep(&mut self, b: &[u8]) {
        let n = b.len().min(TEXT_MAX - self.len);
        if self.phys != 0 {
            // SAFETY: inside the record's own RAM.
            unsafe {
                phys_ptr(self.phys + HEADER + self.len).copy_from_nonoverlapping(b.as_ptr(), n);
            }
            self.len += n;
        }
    }

    fn seal(&self) {
        if self.phys == 0 {
            return;
        }
        let in_a_row = previous().map_or(1, |p| p.in_a_row + 1);
        // SAFETY: the record's own RAM.
        unsafe {
            let text = core::slice::from_raw_parts(phys_ptr(self.phys + HEADER), self.len);
            word(self.phys, 1).write_volatile(self.len as u64);
            word(self.phys, 2).write_volatile(checksum(text));
            word(self.phys, 3).write_volatile(in_a_row);
            word(self.phys, 4).write_volatile(Instant::now().0);
            word(self.phys, 5).write_volatile(time::wall().cast_unsigned());
            word(self.phys, 6).write_volatile(percpu::cpu_current() as u64);
            word(self.phys, 0).write_volatile(MAGIC);
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    let own = percpu::cpu_current() + 1;
    match PANICKING.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        // A panic in the panic.
        Err(first) if first == own => power::reset_now(),
        // Another CPU was faster, by the same interrupt perhaps: its record counts.
        Err(_) => halt(),
    }
    for cpu in (0..percpu::cpu_count()).filter(|c| *c != percpu::cpu_current()) {
        apic::send_nmi(cpu);
    }
    uart::drain();
    let mut text = Text {
        phys: PLACE.load(Ordering::Acquire),
        len: 0,
    };
    // Writing to a `Text` cannot fail.
    let _ = write!(text, "\nkernel panic: {}", info.message());
    if let Some(place) = info.location() {
        let _ = write!(text, ", {}:{}", place.file(), place.line());
    }
    let _ = write!(text, "\nstack:");
    walk_stack(own_frame(), |rip| {
        let _ = write!(text, " {:#x}", rip.wrapping_sub(super::kmap::IMAGE));
    });
    let _ = writeln!(text);
    others::tell(&mut text);
    text.keep(b"log:\n");
    let mut tail = [0; LOG_TAIL];
    let (_, n) = klog::read(klog::written().saturating_sub(LOG_TAIL as u64), &mut tail);
    text.keep(&tail[..n]);
    text.seal();
    show(&text);
    power::reset_now()
}

/// Shows the record for a while, where there is a screen and somebody who can draw.
fn show(text: &Text) {
    let Some(paint) = panic_screen::painter().filter(|_| text.phys != 0) else {
        return;
    };
    let Some(mut screen) = boot::last_framebuffer() else {
        return;
    };
    // SAFETY: the record's own RAM, of which `keep` has filled `len` bytes.
    let bytes = unsafe { core::slice::from_raw_parts(phys_ptr(text.phys + HEADER), text.len) };
    let panic = Panic {
        id: id(checksum(bytes)),
        text: bytes,
        cpu: percpu::cpu_current(),
        up: Duration::from_nanos(Instant::now().0),
    };
    paint(&mut screen, &panic);
    let end = Instant::now().after(panic_screen::SHOWN);
    while Instant::now() < end {
        core::hint::spin_loop();
    }
}

/// Ends this CPU's part.
pub(super) fn halt() -> ! {
    loop {
        x86_64::instructions::hlt();
    }
}

/// The frame pointer of whoever this is inlined into.
#[inline(always)]
fn own_frame() -> usize {
    let rbp: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack)) };
    rbp
}

/// Return addresses from the frame at `rbp` outwards, by frame pointers.
fn walk_stack(mut rbp: usize, mut f: impl FnMut(usize)) {
    for _ in 0..32 {
        // Only what is certainly mapped is followed: kernel addresses that
        // translate.
        let kernel = rbp >= super::kmap::DIRECT && rbp.is_multiple_of(8);
        if !kernel || super::kmap::translate(rbp).is_none() {
            return;
        }
        // SAFETY: mapped kernel memory; at worst the numbers are nonsense.
        let (next, rip) = unsafe {
            (
                (rbp as *const usize).read(),
                (rbp as *const usize).add(1).read(),
            )
        };
        if rip == 0 {
            return;
        }
        f(rip);
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}
