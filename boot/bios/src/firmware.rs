//! Calls of the BIOS, and the memory that it and we both know.
//!
//! All of that lies below 1 MiB at fixed places (`bios.ld` has the rest):
//!
//! | from | to | |
//! | --- | --- | --- |
//! | 0x1000 | 0x7000 | page tables |
//! | 0x7c00 | 0x6c000 | boot sector and loader at most |
//! | 0x6c000 | 0x6d000 | registers and small things: the *shared page* |
//! | 0x6d000 | 0x70000 | the BIOS's stack while we call it |
//! | 0x70000 | 0x80000 | sectors on their way from and to the disk |

use core::{ptr, time::Duration};
use x86_64::instructions::{hlt, port::Port};

/// Where the shared page is, which is the data segment of each call.
const SHARED: usize = 0x6c000;
/// Its number as a segment.
pub(crate) const SHARED_SEGMENT: u16 = 0x6c00;
/// Bytes of the shared page.
const SHARED_BYTES: usize = 4096;
/// First byte of it that is not for [`Registers`].
const FREE_AT: usize = 0x100;
/// Where sectors pass through.
const TRANSIT: usize = 0x7_0000;
/// Its number as a segment.
pub(crate) const TRANSIT_SEGMENT: u16 = 0x7000;
/// Bytes that pass through at a time: whole pages, and within what every BIOS reads at once
/// (127 sectors).
pub(crate) const TRANSIT_BYTES: usize = 15 * 4096;
/// End of what the BIOS's pointers reach.
const LOW_END: usize = 1 << 20;

/// The carry flag, by which the BIOS tells of failure.
const CARRY: u16 = 1;

/// The registers of a call, as `modes.s` loads and stores them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) eax: u32,
    pub(crate) ebx: u32,
    pub(crate) ecx: u32,
    pub(crate) edx: u32,
    pub(crate) esi: u32,
    pub(crate) edi: u32,
    pub(crate) es: u16,
    pub(crate) flags: u16,
    pub(crate) number: u8,
}

impl Registers {
    /// Whether the call failed, of those that tell it by the carry flag.
    pub(crate) fn failed(&self) -> bool {
        self.flags & CARRY != 0
    }
}

unsafe extern "C" {
    /// Calls the BIOS with what the shared page says (`modes.s`).
    fn call_firmware();
}

/// Calls the BIOS's interrupt `number`, with [`SHARED_SEGMENT`] as `ds`.
pub(crate) fn call(number: u8, mut registers: Registers) -> Registers {
    registers.number = number;
    let shared = SHARED as *mut Registers;
    // SAFETY: the shared page is ours and holds nothing else there. The BIOS changes its own
    // memory, and ours where a caller in this crate tells it to: that is the shared page and
    // the transit. One CPU runs, and interrupts are off but inside of the call.
    unsafe {
        shared.write_volatile(registers);
        call_firmware();
        shared.read_volatile()
    }
}

/// Puts bytes into the shared page, from [`FREE_AT`] on; what does not fit is left out.
pub(crate) fn put(at: u16, bytes: &[u8]) {
    let at = usize::from(at);
    if at < FREE_AT || at + bytes.len() > SHARED_BYTES {
        return;
    }
    // SAFETY: inside the shared page, to which there are no references.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), (SHARED + at) as *mut u8, bytes.len()) }
}

/// Bytes of the shared page.
pub(crate) fn get<const N: usize>(at: u16) -> [u8; N] {
    low(SHARED + usize::from(at))
}

/// A copy of bytes below 1 MiB; zeroes for what is not all there.
pub(crate) fn low<const N: usize>(address: usize) -> [u8; N] {
    let mut bytes = [0; N];
    if address == 0 || address.saturating_add(N) > LOW_END {
        return bytes;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: this memory is mapped, reading it has no effect, and any byte is one.
        *byte = unsafe { ((address + n) as *const u8).read_volatile() };
    }
    bytes
}

/// Takes what the BIOS has read to the transit, at most [`TRANSIT_BYTES`].
pub(crate) fn from_transit(into: &mut [u8]) {
    let len = into.len().min(TRANSIT_BYTES);
    // SAFETY: the transit is ours, and there are no references to it.
    unsafe { ptr::copy_nonoverlapping(TRANSIT as *const u8, into.as_mut_ptr(), len) }
}

/// Puts what the BIOS is to write into the transit, at most [`TRANSIT_BYTES`].
pub(crate) fn to_transit(bytes: &[u8]) {
    let len = bytes.len().min(TRANSIT_BYTES);
    // SAFETY: as above.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), TRANSIT as *mut u8, len) }
}

/// Whether addresses reach above 1 MiB; turned on if they did not (the "A20 gate").
pub(crate) fn reaches_high_memory() -> bool {
    if high_is_not_low() {
        return true;
    }
    call(
        0x15,
        Registers {
            eax: 0x2401,
            ..Registers::default()
        },
    );
    if high_is_not_low() {
        return true;
    }
    let mut port = Port::<u8>::new(0x92);
    // SAFETY: bit 1 opens the gate on machines with this port; bit 0, which would restart
    // the machine, stays off.
    unsafe {
        let found = port.read();
        port.write((found | 2) & !1);
    }
    (0..1000).any(|_| high_is_not_low())
}

/// Whether a word in the shared page is another one than that 1 MiB above it.
fn high_is_not_low() -> bool {
    let low = (SHARED + SHARED_BYTES - 8) as *mut u32;
    let high = (SHARED + SHARED_BYTES - 8 + LOW_END) as *mut u32;
    // SAFETY: the shared page is ours; above 1 MiB nothing is anybody's yet.
    unsafe {
        low.write_volatile(1);
        high.write_volatile(2);
        low.read_volatile() == 1
    }
}

/// Has time pass, by the BIOS's clock.
pub(crate) fn wait(time: Duration) {
    /// A call's most: BIOSes count in 16 bits of their ticks.
    const PART: Duration = Duration::from_millis(500);
    for _ in 0..time.as_millis().div_ceil(PART.as_millis()) {
        let microseconds = PART.as_micros() as u32;
        call(
            0x15,
            Registers {
                eax: 0x8600,
                ecx: microseconds >> 16,
                edx: microseconds & 0xffff,
                ..Registers::default()
            },
        );
    }
}

/// Has the BIOS go on with its next boot device; if it comes back, the machine restarts.
pub(crate) fn next_device() -> ! {
    call(0x18, Registers::default());
    restart()
}

/// Starts the machine again.
pub(crate) fn restart() -> ! {
    // SAFETY: the keyboard controller pulls the processor's reset line, and where there is
    // none the chipset's register does; nothing is left to protect.
    unsafe {
        Port::<u8>::new(0x64).write(0xfe);
        Port::<u8>::new(0xcf9).write(0x06);
    }
    loop {
        hlt();
    }
}
