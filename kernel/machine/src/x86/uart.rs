//! The serial port COM1: a 16550 UART.
//!
//! Two ways out. [`early_write`] polls and takes no lock, so that it works from
//! the first instruction and in a panic. [`write`] puts bytes into a ring that
//! the transmit interrupt empties, so that nobody spins for a slow line; it
//! polls while interrupts are not set up ([`use_interrupts`]) and when the
//! ring is full and the caller is the only one who could empty it. What comes in goes to
//! [`crate::serial`], by interrupt only.
//!
//! Register names as in the data sheet of the PC16550D.

use super::{ioapic, port};
use crate::irq::{self, Wire};
use crate::serial;
use crate::sync::IrqLock;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

const COM1: u16 = 0x3f8;
/// ISA interrupt of COM1.
const COM1_IRQ: u8 = 4;

/// Transmitter holding register, receiver buffer; divisor low while DLAB is set.
const DATA: u16 = COM1;
/// Interrupt enable; divisor high while DLAB is set.
const IER: u16 = COM1 + 1;
/// Interrupt identification on reading.
const IIR: u16 = COM1 + 2;
/// FIFO control on writing.
const FCR: u16 = COM1 + 2;
const LCR: u16 = COM1 + 3;
const MCR: u16 = COM1 + 4;
const LSR: u16 = COM1 + 5;
const SCRATCH: u16 = COM1 + 7;

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
/// In the identification: no cause is left.
const IIR_NONE: u8 = 1 << 0;
const LCR_8N1: u8 = 0b11;
const LCR_DLAB: u8 = 1 << 7;
/// DTR, RTS, and OUT2, which lets the interrupt through on a PC.
const MCR_ON: u8 = 0b1011;
/// FIFOs on, both cleared, interrupt at 14 received bytes.
const FCR_ON: u8 = 0b1100_0111;
const LSR_RECEIVED: u8 = 1 << 0;
/// Parity or framing error, break: what came is noise.
const LSR_NOISE: u8 = 0b1_1100;
const LSR_TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes the transmitter takes at once when it is empty.
const FIFO: usize = 16;
/// Polls for an empty transmitter before a byte is given up: at 115,200 baud a
/// FIFO is out after 1.4 ms, and a port read takes about a microsecond.
const POLLS_MAX: u32 = 20_000;

const UNKNOWN: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;
/// Whether there is a UART at all; found out by the first write.
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

fn read(register: u16) -> u8 {
    // SAFETY: COM1's registers have no effect on memory.
    unsafe { port::read_u8(register) }
}

fn put(register: u16, value: u8) {
    // SAFETY: as above; the UART does no DMA.
    unsafe { port::write_u8(register, value) };
}

/// Sets 115,200 baud 8N1 and finds out whether the port exists: a scratch
/// register that keeps two different values is not a floating bus.
fn set_up() -> bool {
    let kept = |v: u8| {
        put(SCRATCH, v);
        read(SCRATCH) == v
    };
    let present = kept(0x5a) && kept(0xa5);
    if present {
        put(IER, 0);
        put(LCR, LCR_DLAB);
        put(DATA, 1);
        put(IER, 0);
        put(LCR, LCR_8N1);
        put(FCR, FCR_ON);
        put(MCR, MCR_ON);
    }
    STATE.store(if present { PRESENT } else { ABSENT }, Relaxed);
    present
}

fn present() -> bool {
    match STATE.load(Relaxed) {
        UNKNOWN => set_up(),
        s => s == PRESENT,
    }
}

/// Waits until the transmitter takes [`FIFO`] bytes; false if it never does.
fn wait_empty() -> bool {
    (0..POLLS_MAX).any(|_| read(LSR) & LSR_TRANSMITTER_EMPTY != 0)
}

fn poll_out(bytes: impl Iterator<Item = u8>) {
    let mut room = 0;
    for b in bytes {
        if room == 0 {
            if !wait_empty() {
                return;
            }
            room = FIFO;
        }
        put(DATA, b);
        room -= 1;
    }
}

/// Writes by polling, `\n` as `\r\n`. Takes no lock and needs nothing set up, so
/// it may be used from the first instruction, in interrupts and in a panic.
pub(crate) fn early_write(bytes: &[u8]) {
    if !present() {
        return;
    }
    poll_out(with_returns(bytes));
}

fn with_returns(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().flat_map(|b| {
        let cr = (*b == b'\n').then_some(b'\r');
        cr.into_iter().chain(core::iter::once(*b))
    })
}

/// Bytes on their way to the transmitter.
struct Ring {
    bytes: [u8; RING],
    /// Position of the next byte out, and how many there are.
    head: usize,
    len: usize,
}

const RING: usize = 16 << 10;

static RING_OUT: IrqLock<Ring> = IrqLock::new(Ring {
    bytes: [0; RING],
    head: 0,
    len: 0,
});
static INTERRUPTS: AtomicBool = AtomicBool::new(false);

impl Ring {
    fn push(&mut self, byte: u8) {
        self.bytes[(self.head + self.len) % RING] = byte;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        let byte = self.bytes[self.head];
        self.head = (self.head + 1) % RING;
        Some(byte)
    }

    /// Fills the transmitter if it is empty, and asks for an interrupt if bytes
    /// are left for the next time.
    fn feed(&mut self) {
        if read(LSR) & LSR_TRANSMITTER_EMPTY != 0 {
            for _ in 0..FIFO {
                let Some(b) = self.pop() else { break };
                put(DATA, b);
            }
        }
        let transmit = if self.len > 0 {
            IER_TRANSMITTER_EMPTY
        } else {
            0
        };
        put(IER, IER_RECEIVED | transmit);
    }

    fn flush(&mut self) {
        poll_out(core::iter::from_fn(|| self.pop()));
    }
}

/// Writes through the ring, `\n` as `\r\n`.
pub(crate) fn write(bytes: &[u8]) {
    if !INTERRUPTS.load(Relaxed) {
        // One writer at a time: two would find the same place in the FIFO.
        let _alone = RING_OUT.lock();
        return early_write(bytes);
    }
    // A long text is put in by pieces, so that interrupts are not off for long.
    for part in bytes.chunks(256) {
        let mut ring = RING_OUT.lock();
        for b in with_returns(part) {
            if ring.len == RING {
                ring.flush();
            }
            ring.push(b);
        }
        ring.feed();
    }
}

/// From here on [`write`] uses the interrupt, if it can be had.
pub(crate) fn use_interrupts() {
    if !present() {
        return;
    }
    let Some(vector) = irq::claim_call(interrupt) else {
        return;
    };
    if ioapic::route_to_first(Wire::isa(COM1_IRQ), vector) {
        INTERRUPTS.store(true, Relaxed);
        RING_OUT.lock().feed();
    }
}

/// The machine is about to stop, or a panic to write by polling: what is in the
/// ring goes out first, if the ring is not just being used.
pub(crate) fn drain() {
    INTERRUPTS.store(false, Relaxed);
    if let Some(mut ring) = RING_OUT.try_lock() {
        ring.flush();
    }
}

/// Whether received bytes are noticed: the interrupt could be had.
pub(crate) fn receives() -> bool {
    INTERRUPTS.load(Relaxed)
}

/// Causes served by one interrupt. Further ones come again; a port that has been pulled
/// reads as ones and must not hold a CPU.
const CAUSES_MAX: u32 = 64;

/// Serves the UART's interrupt. It comes when the first cause begins, so all must be gone
/// at the end.
fn interrupt() {
    let mut ring = RING_OUT.lock();
    let mut any = false;
    for _ in 0..CAUSES_MAX {
        // Reading the identification acknowledges the transmitter's cause.
        if read(IIR) & IIR_NONE != 0 {
            break;
        }
        any |= receive();
        ring.feed();
    }
    drop(ring);
    if any {
        serial::told();
    }
}

/// Takes what has come in; whether that was anything.
fn receive() -> bool {
    let mut any = false;
    for _ in 0..FIFO {
        let status = read(LSR);
        if status & LSR_RECEIVED == 0 {
            break;
        }
        let byte = read(DATA);
        if status & LSR_NOISE == 0 {
            serial::received(byte);
            any = true;
        }
    }
    any
}
