# Between the modes of the processor: from the boot sector to 64-bit code, and from there to the
# BIOS and back. Sources: Intel SDM volume 3, sections 10.8.5 and 10.9; the BIOS has its table of
# interrupts at 0, and is entered as if by an interrupt.
#
# Memory is mapped one to one, 4 GiB of it in pages of 2 MiB. Places are those of memory.rs.

.set TABLES, 0x1000                 # six pages of page tables
.set STACK_SEGMENT, 0x6000
.set STACK_TOP, 0xfff0
.set SHARED_SEGMENT, 0x6c00         # the page with what is told the BIOS and by it
.set SHARED, 0x6c000
# In that page: struct Registers of firmware.rs, and the stack of the 64-bit code.
.set EAX_AT, 0
.set EBX_AT, 4
.set ECX_AT, 8
.set EDX_AT, 12
.set ESI_AT, 16
.set EDI_AT, 20
.set ES_AT, 24
.set FLAGS_AT, 26
.set NUMBER_AT, 28
.set STACK_AT, 32

.set CODE_64, 8
.set DATA, 16
.set CODE_16, 24

.set EFER, 0xc0000080
.set LONG_MODE_ENABLE, 0x100
.set PAGING, 0x80000000
.set PROTECTION, 1
.set MONITOR_COPROCESSOR, 2
.set NO_COPROCESSOR, 4
.set TASK_SWITCHED, 8
.set PAE, 0x20
.set VECTORS, 0x600                 # hashing uses SSE where the processor has it

.code16
.section .real_mode, "ax"
.global loader_entry
loader_entry:
    # A processor with CPUID lets bit 21 of the flags be changed (Intel SDM volume 2, CPUID).
    pushfd
    pop eax
    mov ecx, eax
    xor eax, 0x200000
    push eax
    popfd
    pushfd
    pop eax
    xor eax, ecx
    mov si, offset no_long_mode
    test eax, 0x200000
    jz fail
    mov eax, 0x80000000
    cpuid
    mov si, offset no_long_mode
    cmp eax, 0x80000001
    jb fail
    mov eax, 0x80000001
    cpuid
    mov si, offset no_long_mode
    test edx, 1 << 29               # long mode
    jz fail

    # The tables: one of the fourth level, one of the third, four of the second.
    mov ax, TABLES >> 4
    mov es, ax
    xor di, di
    xor eax, eax
    mov cx, 6 * 1024
    rep stosd
    mov dword ptr es:[0], TABLES + 0x1003
    mov eax, TABLES + 0x2003        # present, writable
    mov di, 0x1000
    mov cx, 4
next_table:
    mov es:[di], eax
    add eax, 0x1000
    add di, 8
    loop next_table
    mov eax, 0x83                   # present, writable, 2 MiB
    mov di, 0x2000
    mov cx, 2048
next_page:
    mov es:[di], eax
    add eax, 0x200000
    add di, 8
    loop next_page

    mov ax, SHARED_SEGMENT
    mov ds, ax
    xor eax, eax
    mov [STACK_AT], eax             # none yet
    mov [STACK_AT + 4], eax

# With ds: the shared page.
to_long_mode:
    cli
    lgdt cs:[gdt_place]
    mov eax, cr4
    or eax, PAE | VECTORS
    mov cr4, eax
    mov eax, TABLES
    mov cr3, eax
    mov ecx, EFER
    rdmsr
    or eax, LONG_MODE_ENABLE
    wrmsr
    mov eax, cr0
    or eax, PAGING | PROTECTION | MONITOR_COPROCESSOR
    and eax, ~(NO_COPROCESSOR | TASK_SWITCHED)
    mov cr0, eax
    ljmp CODE_64, offset in_long_mode

.code64
in_long_mode:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lidt [idt_place]
    mov rsp, [SHARED + STACK_AT]
    test rsp, rsp
    jz first_time
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
first_time:
    mov edi, offset zeroes
    mov ecx, offset zeroes_end
    sub ecx, edi
    shr ecx, 3
    rep stosq
    mov esp, offset first_stack_top
    movzx edi, byte ptr [boot_drive]
    call bios_main
    ud2

# extern "C" fn(drive, started, stack, go_on) -> !: goes on with another stack.
.global with_stack
with_stack:
    mov rsp, rdx
    call rcx
    ud2

# extern "C" fn(): enters the BIOS with the registers in the shared page, and comes back when
# it returns from the interrupt.
.global call_firmware
call_firmware:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [SHARED + STACK_AT], rsp
    lea rax, [rip + leave_long_mode]
    push CODE_16
    push rax
    retfq

.code16
leave_long_mode:
    mov ax, DATA                    # its limit of 64 KiB and base 0 are those of real mode
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, cr0
    and eax, ~PAGING
    mov cr0, eax
    mov ecx, EFER
    rdmsr
    and eax, ~LONG_MODE_ENABLE
    wrmsr
    mov eax, cr4
    and eax, ~(PAE | VECTORS)
    mov cr4, eax
    mov eax, cr0
    and eax, ~PROTECTION
    mov cr0, eax
    ljmp 0, offset in_real_mode
in_real_mode:
    xor ax, ax
    mov fs, ax
    mov gs, ax
    mov es, ax
    mov ax, STACK_SEGMENT
    mov ss, ax
    mov sp, STACK_TOP
    mov ax, SHARED_SEGMENT
    mov ds, ax
    lidt cs:[real_idt_place]
    # What the BIOS returns to, with interrupts on, and what it is entered by.
    push 0x202
    push cs
    push offset returned
    movzx bx, byte ptr [NUMBER_AT]
    shl bx, 2
    push word ptr es:[bx + 2]
    push word ptr es:[bx]
    mov eax, [EAX_AT]
    mov ebx, [EBX_AT]
    mov ecx, [ECX_AT]
    mov edx, [EDX_AT]
    mov esi, [ESI_AT]
    mov edi, [EDI_AT]
    mov es, [ES_AT]
    .byte 0xcb                      # retf of 16 bits, which the assembler takes for one of 32
returned:
    cli                             # carry and the other results stay
    pushf
    push eax
    mov ax, SHARED_SEGMENT
    mov ds, ax
    pop dword ptr [EAX_AT]
    pop word ptr [FLAGS_AT]
    mov [EBX_AT], ebx
    mov [ECX_AT], ecx
    mov [EDX_AT], edx
    mov [ESI_AT], esi
    mov [EDI_AT], edi
    mov [ES_AT], es
    cld
    jmp to_long_mode

no_long_mode: .asciz "skep boot: this machine's processor has no 64-bit mode (x86-64)\r\n"

.balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 64-bit code
    .quad 0x000093000000ffff        # data, 64 KiB: what real mode has
    .quad 0x00009b000000ffff        # 16-bit code, 64 KiB
gdt_place:
    .word gdt_place - gdt - 1
    .quad gdt
real_idt_place:
    .word 0x3ff
    .quad 0

# Exceptions: each stub tells its number.
.code64
.balign 8
stubs:
.set vector, 0
.rept 32
    .balign 8
    push vector
    jmp exception
    .set vector, vector + 1
.endr
    .balign 8
exception:
    mov edi, [rsp]
    mov rsi, [rsp + 8]              # an error code or the place of the instruction
    mov rdx, [rsp + 16]
    and rsp, ~15
    call bios_exception
    ud2

.balign 8
idt:
.set vector, 0
.rept 32
    .word stubs + 8 * vector, CODE_64, 0x8e00, 0
    .quad 0
    .set vector, vector + 1
.endr
idt_place:
    .word idt_place - idt - 1
    .quad idt

.section .bss.stack, "aw", @nobits
.balign 4096
    .skip 16384
first_stack_top:
