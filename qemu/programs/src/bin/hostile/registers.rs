//! Ways back to user mode that would fault in a careless kernel: registers that a tracer
//! or a signal handler has changed to what no processor takes.

use crate::process::{End, in_child};
use crate::random::Random;
use std::{mem, ptr::null_mut, time::Duration};

const LIMIT: Duration = Duration::from_secs(20);
/// Addresses at and beyond the edges of user memory.
const EDGES: [u64; 8] = [
    0,
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_8000_0000_0000,
    0xffff_ffff_8000_0000,
    0xdead_0000_0000_0000,
    u64::MAX,
];
/// Flags: all; those only a kernel may change; trap, nested task and alignment check.
const FLAGS: [u64; 4] = [u64::MAX, 0x1f_7200, 0x4_4100, 0];

/// Tries everything. How the child ends is its own matter, but it has to end.
pub(crate) fn run() -> Result<(), String> {
    for edge in EDGES {
        for flags in FLAGS {
            expect_end("a handler's frame", move || returned(edge, flags))?;
            expect_end("a tracer's registers", move || traced(edge, flags))?;
        }
        expect_end("a restartable sequence", move || sequence(edge))?;
    }
    for seed in 0..64 {
        expect_end("a tracer's vector state", move || vectors(seed))?;
    }
    match in_child(LIMIT, delayed)? {
        End::Status(0) => {}
        end => return Err(format!("break points at the kernel's door: {end:?}")),
    }
    // Each waits for the other when both are stopped: it is the kill that has to work.
    match in_child(Duration::from_secs(1), circle)? {
        End::Unkillable => Err("two tracers of each other cannot be killed".to_string()),
        _ => Ok(()),
    }
}

fn expect_end(name: &str, work: impl FnOnce() -> i32) -> Result<(), String> {
    match in_child(LIMIT, work)? {
        End::Status(_) | End::Signal(_) => Ok(()),
        end => Err(format!("{name}: {end:?}")),
    }
}

static mut WANTED: (u64, u64) = (0, 0);

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler such a structure; this process has one thread.
    unsafe {
        let (address, flags) = WANTED;
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = address as i64;
        registers[libc::REG_RSP as usize] = address as i64;
        registers[libc::REG_EFL as usize] = flags as i64;
        registers[libc::REG_CSGSFS as usize] = flags as i64;
        let state = context.uc_mcontext.fpregs.cast::<u32>();
        // MXCSR, and the header of an XSAVE image with its reserved bytes.
        state.add(6).write(flags as u32);
        for word in 128..144 {
            state.add(word).write(flags as u32);
        }
    }
}

/// Comes back from a handler to `address`, on a stack there.
fn returned(address: u64, flags: u64) -> i32 {
    // SAFETY: a valid handler; what it does may kill this process.
    unsafe {
        WANTED = (address, flags);
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGUSR1, &action, null_mut());
        libc::raise(libc::SIGUSR1);
    }
    0
}

/// A child that has stopped for this process.
fn tracee() -> i32 {
    // SAFETY: one thread; the child stops and then computes.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            libc::_exit(std::hint::black_box(1.5f64).sqrt() as i32);
        }
        libc::waitpid(child, null_mut(), 0);
        child
    }
}

/// Lets a tracee go on until it ends, without its signals.
fn finish(child: i32) -> i32 {
    // SAFETY: only the child's memory is touched.
    unsafe {
        for _ in 0..100 {
            let mut status = 0;
            libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0, 0);
            if libc::waitpid(child, &mut status, libc::__WALL) != child || !libc::WIFSTOPPED(status)
            {
                return 0;
            }
        }
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, null_mut(), libc::__WALL);
    }
    0
}

fn traced(address: u64, flags: u64) -> i32 {
    let child = tracee();
    // SAFETY: the structure is the one the requests want.
    unsafe {
        let mut registers: libc::user_regs_struct = mem::zeroed();
        libc::ptrace(libc::PTRACE_GETREGS, child, 0, &mut registers);
        (registers.rip, registers.rsp) = (address, address);
        (registers.eflags, registers.orig_rax) = (flags, address);
        (registers.cs, registers.ss, registers.ds) = (flags & 0xffff, 3, 8);
        libc::ptrace(libc::PTRACE_SETREGS, child, 0, &registers);
        // `struct user` has no more words than these.
        for at in (0..1024).step_by(8) {
            libc::ptrace(libc::PTRACE_POKEUSER, child, at as u64, address);
        }
    }
    finish(child)
}

/// What a tracee loads its stack segment from, while that is watched.
static mut SEGMENT: u16 = 0;

/// Watches what `mov ss` reads: the exception waits for one instruction more, and that one
/// enters the kernel (CVE-2018-8897).
fn delayed() -> i32 {
    const DEBUG_AT: u64 = 848;
    // Two bytes, read or written.
    const CONTROL: u64 = 1 | 3 << 16 | 1 << 18;
    // SAFETY: the selector is the one that is in force; the child runs nothing else.
    unsafe {
        std::arch::asm!("mov {:x}, ss", out(reg) SEGMENT);
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            for _ in 0..20 {
                let at = &raw const SEGMENT;
                std::arch::asm!("mov ss, word ptr [{}]", "syscall", in(reg) at,
                    inout("rax") libc::SYS_getpid => _, out("rcx") _, out("r11") _);
                std::arch::asm!("mov ss, word ptr [{}]", "int3", in(reg) at);
                // The kernel's own reading.
                libc::access(at.cast(), 0);
            }
            libc::_exit(0);
        }
        libc::waitpid(child, null_mut(), 0);
        let at = &raw const SEGMENT as u64;
        libc::ptrace(libc::PTRACE_POKEUSER, child, DEBUG_AT, at);
        let set = libc::ptrace(libc::PTRACE_POKEUSER, child, DEBUG_AT + 56, CONTROL);
        let (mut status, mut met) = (0, 0);
        loop {
            libc::ptrace(libc::PTRACE_CONT, child, 0, 0);
            if libc::waitpid(child, &mut status, libc::__WALL) != child || !libc::WIFSTOPPED(status)
            {
                break;
            }
            met += 1;
        }
        // How often it is met differs between processors.
        i32::from(set != 0 || met == 0 || !libc::WIFEXITED(status))
    }
}

/// Gives a tracee vector state at random, half of it with a likely header.
fn vectors(seed: u64) -> i32 {
    const XSTATE: u64 = 0x202;
    let child = tracee();
    let mut random = Random::new(seed);
    let mut image = vec![0u64; 1024];
    let mut part = libc::iovec {
        iov_base: image.as_mut_ptr().cast(),
        iov_len: image.len() * 8,
    };
    // SAFETY: the buffer is as long as the structure says.
    unsafe {
        libc::ptrace(libc::PTRACE_GETREGSET, child, XSTATE, &mut part);
        for word in &mut image {
            if random.below(8) == 0 {
                *word = random.next();
            }
        }
        if seed.is_multiple_of(2) {
            image[64..72].fill(0);
            image[64] = random.below(8) as u64;
            image[3] &= !(0xffff << 16);
        }
        libc::ptrace(libc::PTRACE_SETREGSET, child, XSTATE, &mut part);
        libc::ptrace(libc::PTRACE_SETFPREGS, child, 0, image.as_ptr());
    }
    finish(child)
}

unsafe extern "C" {
    /// Where glibc has the thread's structure of rseq(2), from the thread pointer.
    #[link_name = "__rseq_offset"]
    static RSEQ_OFFSET: isize;
}

extern "C" fn ignore(_: i32) {}

/// Says that a restartable sequence lies at `address`, and computes until that is seen.
fn sequence(address: u64) -> i32 {
    // SAFETY: glibc registers the structure for every thread; what is written there may
    // kill this process.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        action.sa_flags = libc::SA_NODEFER;
        libc::sigaction(libc::SIGSEGV, &action, null_mut());
        libc::sigaction(libc::SIGALRM, &action, null_mut());
        let thread: *mut u8;
        std::arch::asm!("mov {}, fs:0", out(reg) thread);
        let named = thread.offset(RSEQ_OFFSET + 8).cast::<u64>();
        let own = [0u64, address, 64, address];
        for at in [address, own.as_ptr() as u64] {
            named.write_volatile(at);
            libc::alarm(1);
            for _ in 0..200_000_000u64 {
                if named.read_volatile() != at {
                    break;
                }
            }
        }
    }
    0
}

/// Parent and child trace each other; the child ends.
fn circle() -> i32 {
    // SAFETY: one thread; the child only traces and waits.
    unsafe {
        let parent = libc::getpid();
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_SEIZE, parent, 0, 0);
            loop {
                libc::usleep(1000);
            }
        }
        libc::usleep(20_000);
        libc::ptrace(libc::PTRACE_SEIZE, child, 0, libc::PTRACE_O_EXITKILL);
        libc::ptrace(libc::PTRACE_INTERRUPT, child, 0, 0);
        libc::usleep(20_000);
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, null_mut(), libc::__WALL);
    }
    0
}
