//! The code of the vDSO.
//!
//! Each function follows the C calling convention, uses no stack, and falls back
//! to the system call of the same name where the page does not tell the time. The
//! offsets are those of `super::Data`.

use super::Function;

// In tests the code runs in place: its section can be written and executed, and
// a page for the numbers lies where the code expects it.
#[cfg(all(test, not(target_os = "none")))]
core::arch::global_asm!(
    ".pushsection .skep_vdso, \"awx\", @progbits",
    ".balign 4096",
    ".global skep_vdso_test_page",
    "skep_vdso_test_page:",
    ".skip 4096 + 2048",
);
#[cfg(not(all(test, not(target_os = "none"))))]
core::arch::global_asm!(
    ".pushsection .rodata.skep_vdso, \"a\", @progbits",
    ".balign 64"
);

core::arch::global_asm!(
    ".global skep_vdso_start",
    "skep_vdso_start:",
    ".set .Ldata, skep_vdso_start - 2048 - 4096",
    // rax = nanoseconds since boot, plus the offset of UTC if carry is set by
    // `bt` of the mask in r9d with the bit in edi. Uses r8, r10, rdx, rcx.
    ".macro skep_read_clock kernel",
    "   lea r10, [rip + .Ldata]",
    "2: mov r8d, [r10]",
    "   test r8d, 1",
    "   jnz 4f",
    "   cmp dword ptr [r10 + 4], 1",
    "   jne \\kernel",
    "   lfence",
    "   rdtsc",
    "   shl rdx, 32",
    "   or rax, rdx",
    "   sub rax, [r10 + 8]",
    "   mul qword ptr [r10 + 16]",
    "   shrd rax, rdx, 32",
    "   add rax, [r10 + 24]",
    "   bt r9d, edi",
    "   jnc 3f",
    "   add rax, [r10 + 32]",
    "3: cmp r8d, [r10]",
    "   jne 2b",
    "   jmp 5f",
    "4: pause",
    "   jmp 2b",
    "5:",
    ".endm",
    // rdx = rax / 10^9, r8 = rax % 10^9. Uses rax, r9.
    ".macro skep_split_seconds",
    "   mov r8, rax",
    "   shr rax, 9",
    "   movabs r9, 0x44b82fa09b5a53",
    "   mul r9",
    "   shr rdx, 11",
    "   imul rax, rdx, 1000000000",
    "   sub r8, rax",
    ".endm",
    ".macro skep_system_call number",
    "   mov eax, \\number",
    "   syscall",
    "   ret",
    ".endm",
    // int clock_gettime(clockid_t edi, struct timespec *rsi): the clocks REALTIME,
    // MONOTONIC, MONOTONIC_RAW, both COARSE ones, BOOTTIME and TAI.
    ".balign 16",
    "skep_vdso_clock_gettime:",
    "   cmp edi, 32",
    "   jae 9f",
    "   mov eax, 0x8f3",
    "   bt eax, edi",
    "   jnc 9f",
    "   mov r9d, 0x821",
    "   skep_read_clock 9f",
    "   skep_split_seconds",
    "   mov [rsi], rdx",
    "   mov [rsi + 8], r8",
    "   xor eax, eax",
    "   ret",
    "9: skep_system_call 228",
    "skep_vdso_clock_gettime_end:",
    // int gettimeofday(struct timeval *rdi, struct timezone *rsi)
    ".balign 16",
    "skep_vdso_gettimeofday:",
    "   mov r11, rdi",
    "   xor edi, edi",
    "   mov r9d, 1",
    "   skep_read_clock 9f",
    "   skep_split_seconds",
    "   test r11, r11",
    "   jz 6f",
    "   mov [r11], rdx",
    // Nanoseconds below 10^9 to microseconds: times 2^38 / 1000, rounded up.
    "   imul r8, r8, 274877907",
    "   shr r8, 38",
    "   mov [r11 + 8], r8",
    "6: test rsi, rsi",
    "   jz 7f",
    "   mov qword ptr [rsi], 0",
    "7: xor eax, eax",
    "   ret",
    "9: mov rdi, r11",
    "   skep_system_call 96",
    "skep_vdso_gettimeofday_end:",
    // time_t time(time_t *rdi)
    ".balign 16",
    "skep_vdso_time:",
    "   mov r11, rdi",
    "   xor edi, edi",
    "   mov r9d, 1",
    "   skep_read_clock 9f",
    "   skep_split_seconds",
    "   mov rax, rdx",
    "   test r11, r11",
    "   jz 7f",
    "   mov [r11], rax",
    "7: ret",
    "9: mov rdi, r11",
    "   skep_system_call 201",
    "skep_vdso_time_end:",
    // int getcpu(unsigned *rdi, unsigned *rsi, void *)
    ".balign 16",
    "skep_vdso_getcpu:",
    "   cmp dword ptr [rip + .Ldata + 40], 1",
    "   jne 9f",
    "   rdtscp",
    "   test rdi, rdi",
    "   jz 6f",
    "   mov [rdi], ecx",
    "6: test rsi, rsi",
    "   jz 7f",
    "   mov dword ptr [rsi], 0",
    "7: xor eax, eax",
    "   ret",
    "9: skep_system_call 309",
    "skep_vdso_getcpu_end:",
    // int clock_getres(clockid_t edi, struct timespec *rsi)
    ".balign 16",
    "skep_vdso_clock_getres:",
    "   cmp edi, 32",
    "   jae 9f",
    "   mov eax, 0x8f3",
    "   bt eax, edi",
    "   jnc 9f",
    "   test rsi, rsi",
    "   jz 7f",
    "   mov qword ptr [rsi], 0",
    "   mov qword ptr [rsi + 8], 1",
    "7: xor eax, eax",
    "   ret",
    "9: skep_system_call 229",
    "skep_vdso_clock_getres_end:",
    ".global skep_vdso_end",
    "skep_vdso_end:",
    // Offset and length of each function.
    ".balign 8",
    ".global skep_vdso_functions",
    "skep_vdso_functions:",
    ".quad skep_vdso_clock_gettime - skep_vdso_start",
    ".quad skep_vdso_clock_gettime_end - skep_vdso_clock_gettime",
    ".quad skep_vdso_gettimeofday - skep_vdso_start",
    ".quad skep_vdso_gettimeofday_end - skep_vdso_gettimeofday",
    ".quad skep_vdso_time - skep_vdso_start",
    ".quad skep_vdso_time_end - skep_vdso_time",
    ".quad skep_vdso_getcpu - skep_vdso_start",
    ".quad skep_vdso_getcpu_end - skep_vdso_getcpu",
    ".quad skep_vdso_clock_getres - skep_vdso_start",
    ".quad skep_vdso_clock_getres_end - skep_vdso_clock_getres",
    ".popsection",
);

unsafe extern "C" {
    static skep_vdso_start: u8;
    static skep_vdso_end: u8;
    static skep_vdso_functions: [[u64; 2]; 5];
}

/// The code, to be mapped at [`super::CODE_OFFSET`] of an image.
#[must_use]
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const skep_vdso_start, &raw const skep_vdso_end);
    // SAFETY: the two labels enclose the code in one section, which nothing writes.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// The functions in [`code()`].
#[must_use]
pub fn functions() -> [Function; 5] {
    const NAMES: [&str; 5] = [
        "clock_gettime",
        "gettimeofday",
        "time",
        "getcpu",
        "clock_getres",
    ];
    // SAFETY: the label is followed by ten constant words.
    let table = unsafe { skep_vdso_functions };
    core::array::from_fn(|i| Function {
        name: NAMES[i],
        offset: table[i][0] as usize,
        len: table[i][1] as usize,
    })
}
