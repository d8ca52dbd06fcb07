//! Queues against a device made of plain memory, honest and not.

use super::transport::{ModernPci, Registers};
use super::{Chain, Core, Found, Queue, VirtioError};
use crate::arch;
use crate::dma::{Direction, DmaBuffer, Segment};
use crate::mmio::Mmio;
use crate::pci::{Address, Device};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32};
use std::boxed::Box;

const SIZE: usize = 8;

/// The device's side of one queue.
struct Fake {
    registers: Mmio,
    doorbell: Mmio,
    seen: u16,
    used: u16,
}

fn plain_memory() -> Mmio {
    let memory = NonNull::from(Box::leak(Box::new([0u64; 16]))).cast();
    // SAFETY: leaked, and reached through this and its copies alone.
    unsafe { Mmio::over(memory, 128) }
}

/// A device whose queue has room for [`SIZE`] descriptors.
fn device() -> (Arc<Core>, Fake) {
    let (registers, doorbell) = (plain_memory(), plain_memory());
    registers.write_u16(0x18, SIZE as u16);
    doorbell.write_u16(0, 0xffff);
    let pci = Device {
        address: Address {
            bus: 0,
            device: 0,
            function: 0,
        },
        vendor: 0,
        device: 0,
        class: 0,
        subclass: 0,
        interface: 0,
        revision: 0,
        subsystem: (0, 0),
        bars: [None; 6],
        capabilities: Vec::new(),
    };
    let core = Core {
        found: Found::fake(pci),
        transport: SpinLock::new(Registers::Pci(ModernPci::fake(
            registers.clone(),
            doorbell.clone(),
        ))),
        is_loose: AtomicBool::new(false),
        resets: AtomicU32::new(0),
        reach: crate::sync::Once::new(),
    };
    let fake = Fake {
        registers,
        doorbell,
        seen: 0,
        used: 0,
    };
    (Arc::new(core), fake)
}

struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Fake {
    fn at<T>(&self, register: usize, offset: usize) -> *mut T {
        let low = u64::from(self.registers.read_u32(register));
        let phys = low | u64::from(self.registers.read_u32(register + 4)) << 32;
        arch::phys_ptr(phys as usize + offset).cast()
    }

    fn descriptor(&self, n: u16) -> Descriptor {
        let at = usize::from(n) * 16;
        // SAFETY: inside the queue's descriptor table.
        unsafe {
            Descriptor {
                addr: self.at::<u64>(0x20, at).read_volatile(),
                len: self.at::<u32>(0x20, at + 8).read_volatile(),
                flags: self.at::<u16>(0x20, at + 12).read_volatile(),
                next: self.at::<u16>(0x20, at + 14).read_volatile(),
            }
        }
    }

    /// The next request the driver made available.
    fn take(&mut self) -> Option<Vec<Descriptor>> {
        // SAFETY: inside the queue's available ring.
        let (idx, head) = unsafe {
            let slot = usize::from(self.seen) % SIZE;
            (
                self.at::<u16>(0x28, 2).read_volatile(),
                self.at::<u16>(0x28, 4 + 2 * slot).read_volatile(),
            )
        };
        if idx == self.seen {
            return None;
        }
        self.seen = self.seen.wrapping_add(1);
        let mut all = Vec::from([self.descriptor(head)]);
        while let Some(last) = all.last().filter(|d| d.flags & 1 != 0) {
            all.push(self.descriptor(last.next));
        }
        Some(all)
    }

    /// Says that request `id` is done, and so many bytes were written.
    fn finish(&mut self, id: u32, len: u32) {
        let slot = usize::from(self.used) % SIZE;
        self.used = self.used.wrapping_add(1);
        // SAFETY: inside the queue's used ring.
        unsafe {
            self.at::<u32>(0x30, 4 + 8 * slot).write_volatile(id);
            self.at::<u32>(0x30, 8 + 8 * slot).write_volatile(len);
            self.at::<u16>(0x30, 2).write_volatile(self.used);
        }
    }
}

fn queue() -> (Queue<SIZE>, Fake, Arc<Core>) {
    let (core, fake) = device();
    (Queue::new(&core, 0).unwrap(), fake, core)
}

fn segment(len: usize, direction: Direction) -> Segment {
    Segment::buffer(DmaBuffer::new(len).unwrap(), 0..len, direction)
}

fn request(question: &[u8], room: usize) -> Chain {
    let mut out = DmaBuffer::new(question.len()).unwrap();
    out.bytes_mut().copy_from_slice(question);
    let mut chain = Chain::new();
    chain.push(Segment::buffer(out, 0..question.len(), Direction::ToDevice));
    chain.push(segment(room, Direction::FromDevice));
    chain
}

#[test]
fn question_and_answer() {
    let (mut q, mut device, _) = queue();
    for round in 0..50u8 {
        let token = q.submit(request(&[round; 4], 16)).unwrap();
        q.notify();
        assert_eq!(device.doorbell.read_u16(0), 0);
        let chain = device.take().unwrap();
        let [ask, answer] = &chain[..] else {
            panic!("two segments")
        };
        assert_eq!((ask.len, answer.len, answer.flags & 2), (4, 16, 2));
        // SAFETY: memory the queue lent to the device.
        unsafe {
            assert_eq!(arch::phys_ptr(ask.addr as usize).read_volatile(), round);
            arch::phys_ptr(answer.addr as usize).write_volatile(round + 1);
        }
        assert!(q.complete().unwrap().is_none());
        device.finish(token.into(), 1);
        let (done, chain, written) = q.complete().unwrap().unwrap();
        assert_eq!((done, written), (token, 1));
        assert_eq!(chain[1].as_buffer().unwrap().bytes()[0], round + 1);
        assert_eq!(q.free(), SIZE);
    }
}

#[test]
fn requests_may_finish_in_any_order() {
    let (mut q, mut device, _) = queue();
    let tokens: Vec<u16> = (0..4)
        .map(|n| q.submit(request(&[n], 8)).unwrap())
        .collect();
    assert!(q.submit(request(&[9], 8)).is_err(), "the queue is full");
    for (n, token) in tokens.iter().enumerate().rev() {
        device.finish((*token).into(), 0);
        let (done, chain, _) = q.complete().unwrap().unwrap();
        assert_eq!(done, *token);
        assert_eq!(chain[0].as_buffer().unwrap().bytes(), [n as u8]);
    }
    assert_eq!(q.free(), SIZE);
}

#[test]
fn a_device_that_lies_is_not_believed() {
    // More written than there is room for.
    let (mut q, mut device, _) = queue();
    let token = q.submit(request(b"x", 16)).unwrap();
    device.finish(token.into(), u32::MAX);
    assert_eq!(q.complete().unwrap().unwrap().2, 16);
    // The same request twice.
    device.finish(token.into(), 1);
    assert_eq!(q.complete().err(), Some(VirtioError::Misbehaved));
    // Requests that never were.
    for id in [5, SIZE as u32, 0xffff, u32::MAX] {
        let (mut q, mut device, _) = queue();
        q.submit(request(b"x", 16)).unwrap();
        device.finish(id, 1);
        assert_eq!(q.complete().err(), Some(VirtioError::Misbehaved));
    }
}

#[test]
fn what_a_dead_device_had_comes_back_after_its_reset_only() {
    let (mut q, _, core) = queue();
    let token = q.submit(request(b"again", 8)).unwrap();
    assert_eq!(q.abandoned().count(), 0);
    core.reset().unwrap();
    let (number, chain) = q.abandoned().next().unwrap();
    assert_eq!(number, token);
    assert_eq!(chain[0].as_buffer().unwrap().bytes(), b"again");
    assert_eq!(q.abandoned().count(), 0);
}

#[test]
fn a_queue_that_goes_stops_its_device_once() {
    let (q, _, core) = queue();
    drop(q);
    assert_eq!(core.resets.load(core::sync::atomic::Ordering::SeqCst), 1);
    let (q, _, core) = queue();
    core.reset().unwrap();
    drop(q);
    assert_eq!(core.resets.load(core::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn unsound_chains_come_back() {
    let (mut q, _, _) = queue();
    assert!(q.submit(Chain::new()).is_err());
    let mut empty = Chain::new();
    let buffer = DmaBuffer::new(8).unwrap();
    empty.push(Segment::buffer(buffer, 8..8, Direction::ToDevice));
    assert!(q.submit(empty).is_err());
    let mut backwards = request(b"x", 8);
    backwards.reverse();
    assert!(q.submit(backwards).is_err());
    let long: Chain = (0..35).map(|_| segment(8, Direction::ToDevice)).collect();
    assert!(q.submit(long).is_err());
    // Many segments, but not too many for the queue.
    let many: Chain = (0..SIZE)
        .map(|_| segment(8, Direction::FromDevice))
        .collect();
    assert!(q.submit(many).is_ok());
    assert_eq!(q.free(), 0);
}

#[test]
fn interrupts_are_asked_for_and_not() {
    let (mut q, mut device, _) = queue();
    // SAFETY: the available ring's flags.
    let flags = |d: &Fake| unsafe { d.at::<u16>(0x28, 0).read_volatile() };
    q.mask();
    assert_eq!(flags(&device), 1);
    assert!(!q.unmask());
    assert_eq!(flags(&device), 0);
    let token = q.submit(request(b"x", 8)).unwrap();
    device.finish(token.into(), 0);
    assert!(q.unmask(), "what was done before must be seen");
}
