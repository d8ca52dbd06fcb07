//! What only a kernel may do: instructions, ports, addresses, and the calls that
//! open the machine. Each is tried in a child, and must end it or be refused.

use crate::process::{End, in_child};
use std::{arch::asm, io, time::Duration};

const LIMIT: Duration = Duration::from_secs(10);

/// An attempt, which must kill its process.
type Attempt = fn();

/// Everything that must end in a signal.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "nothing can be promised: each must kill the process, whose memory is nobody else's"
)]
const FATAL: [(&str, Attempt); 19] = [
    ("in from the exit device", || unsafe {
        asm!("in al, dx", in("dx") 0xf4u16, out("al") _)
    }),
    ("out to the exit device", || unsafe {
        asm!("out dx, al", in("dx") 0xf4u16, in("al") 1u8)
    }),
    ("out to the reset port", || unsafe {
        asm!("out dx, al", in("dx") 0xcf9u16, in("al") 6u8)
    }),
    ("out to PCI", || unsafe {
        asm!("out dx, eax", in("dx") 0xcf8u16, in("eax") 0x8000_0000u32)
    }),
    ("cli", || unsafe { asm!("cli") }),
    ("sti", || unsafe { asm!("sti") }),
    ("hlt", || unsafe { asm!("hlt") }),
    ("rdmsr", || unsafe {
        asm!("rdmsr", in("ecx") 0xc000_0080u32, out("eax") _, out("edx") _)
    }),
    ("wrmsr", || unsafe {
        asm!("wrmsr", in("ecx") 0xc000_0080u32, in("eax") 0, in("edx") 0)
    }),
    ("mov from cr3", || unsafe {
        asm!("mov {}, cr3", out(reg) _)
    }),
    ("mov to cr0", || unsafe {
        asm!("mov cr0, {}", in(reg) 0u64)
    }),
    ("lgdt", || unsafe { asm!("lgdt [{}]", in(reg) &[0u16; 8]) }),
    ("swapgs", || unsafe { asm!("swapgs") }),
    ("iretq to ring 0", || unsafe {
        asm!(
            "push 0",
            "push rsp",
            "push 2",
            "push 8",
            "push 0x1000",
            "iretq"
        )
    }),
    ("reading the kernel", || read(0xffff_ffff_8000_0000)),
    ("reading the direct map", || read(0xffff_8000_0000_0000)),
    ("writing to our own code", || unsafe {
        (read as *const () as *mut u8).write_volatile(0)
    }),
    ("running the stack", || {
        let code = [0xc3u8; 16];
        unsafe { asm!("call {}", in(reg) std::hint::black_box(&code), clobber_abi("C")) }
    }),
    ("jumping to the kernel", || unsafe {
        asm!("call {}", in(reg) 0xffff_ffff_8000_0000u64)
    }),
];

fn read(address: u64) {
    // SAFETY: none: the address is the kernel's, and this must be fatal.
    unsafe { (address as *const u8).read_volatile() };
}

/// Calls that would open the machine; the error must be one of refusal.
fn refused() -> Result<(), String> {
    const REBOOT_MAGIC: [u64; 2] = [0xfee1_dead, 672_274_793];
    let calls: [(&str, i64, [u64; 3]); 12] = [
        ("iopl", libc::SYS_iopl, [3, 0, 0]),
        ("ioperm", libc::SYS_ioperm, [0xf4, 4, 1]),
        (
            "reboot",
            libc::SYS_reboot,
            [REBOOT_MAGIC[0], REBOOT_MAGIC[1], 0x0123_4567],
        ),
        ("init_module", libc::SYS_init_module, [0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0]),
        ("swapon", libc::SYS_swapon, [c"/tmp".as_ptr() as u64, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0]),
        (
            "unshare",
            libc::SYS_unshare,
            [libc::CLONE_NEWNS as u64, 0, 0],
        ),
        ("setns", libc::SYS_setns, [0, 0, 0]),
        (
            "chroot out",
            libc::SYS_pivot_root,
            [c"/".as_ptr() as u64, c"/".as_ptr() as u64, 0],
        ),
    ];
    for (name, number, [a, b, c]) in calls {
        // SAFETY: the strings end with NUL; what the calls would do must be refused.
        let answer = unsafe { libc::syscall(number, a, b, c) };
        if answer >= 0 {
            return Err(format!("{name} answers {answer}"));
        }
    }
    device_node()
}

/// A made device node for the machine's memory either cannot be made or not opened.
fn device_node() -> Result<(), String> {
    let path = c"/tmp/memory-device";
    // SAFETY: the path ends with NUL.
    let opened = unsafe {
        libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 1));
        libc::open(path.as_ptr(), libc::O_RDWR)
    };
    match opened {
        ..0 => Ok(()),
        _ => Err("a made device node opens the machine's memory".to_string()),
    }
}

/// Tries everything.
pub(crate) fn run() -> Result<(), String> {
    // The attempts must fail because of what they are: this one harms nobody.
    let harmless = in_child(LIMIT, || 7)?;
    if harmless != End::Status(7) {
        return Err(format!("a child that does nothing ended with {harmless:?}"));
    }
    for (name, attempt) in FATAL {
        expect_death(name, attempt)?;
    }
    refused()
}

fn expect_death(name: &str, attempt: Attempt) -> Result<(), String> {
    let ended = in_child(LIMIT, || {
        attempt();
        0
    })?;
    match ended {
        End::Signal(libc::SIGSEGV | libc::SIGILL | libc::SIGBUS) => Ok(()),
        _ => Err(format!(
            "{name}: {ended:?} ({})",
            io::Error::last_os_error()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{FATAL, expect_death};

    /// What must be fatal is so on Linux too, whose judgement we trust.
    #[test]
    fn linux_kills_each_of_them() {
        for (name, attempt) in FATAL {
            assert_eq!(expect_death(name, attempt), Ok(()));
        }
    }

    #[test]
    fn what_is_harmless_is_not_taken_for_fatal() {
        assert!(expect_death("nothing", || ()).is_err());
    }
}
