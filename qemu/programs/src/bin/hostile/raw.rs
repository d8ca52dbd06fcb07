//! System calls without a library between: by number, whatever their arguments are.
//!
//! Nothing here takes a lock, allocates or touches `errno`, so that it works after
//! a fork among threads and in threads that no library knows.

use std::arch::asm;

/// Makes a system call; the kernel's answer, an error as its negative number.
pub(crate) fn call(number: u64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: there is none: the call may do to this process what it likes, and the
    // process exists to have it done.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// As [`call`] for what makes processes and threads. The child, on whatever stack it
/// has, goes on in `newborn` and never comes back.
pub(crate) fn call_clone(number: u64, arguments: [u64; 6], newborn: extern "C" fn() -> !) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: as in `call`. A child leaves this frame at once, and what it pushes lies
    // below it, so that the parent may share the stack while it waits for the child.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "and rsp, -16",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            in("r13") newborn,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Makes a system call with up to six arguments of any integer or pointer type.
macro_rules! sys {
    ($number:expr $(, $argument:expr)*) => {{
        let mut arguments = [0u64; 6];
        let given: &[u64] = &[$($argument as i64 as u64),*];
        arguments[..given.len()].copy_from_slice(given);
        $crate::raw::call($number as u64, arguments)
    }};
}
pub(crate) use sys;

#[cfg(test)]
mod tests {
    #[test]
    fn calls_reach_the_kernel() {
        let own = i64::from(std::process::id());
        assert_eq!(sys!(libc::SYS_getpid), own);
        assert_eq!(sys!(100_000), -i64::from(libc::ENOSYS));
        extern "C" fn newborn() -> ! {
            sys!(libc::SYS_exit_group, 9);
            std::process::abort()
        }
        // A child with a stack of its own, and one with a copy of ours.
        let mut stack = [0u128; 256];
        let top = stack.as_mut_ptr_range().end as u64;
        let flags = libc::SIGCHLD as u64;
        for stack in [top, 0] {
            let arguments = [flags, stack, 0, 0, 0, 0];
            let child = super::call_clone(libc::SYS_clone as u64, arguments, newborn);
            let mut status = 0;
            assert_eq!(sys!(libc::SYS_wait4, child, &raw mut status, 0, 0), child);
            assert_eq!(libc::WEXITSTATUS(status), 9);
        }
    }
}
