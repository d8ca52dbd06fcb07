//! The first instructions: from the PVH entry state (32-bit protected mode,
//! paging off, `ebx` = start info; Xen's `docs/misc/pvh.pandoc`) to 64-bit code
//! on a stack, with the first 4 GiB mapped one to one by 2 MiB pages.

core::arch::global_asm!(
    r#"
.section .note.Xen, "a", @note
    .long 4, 4, 18              // name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

.section .text.pvh_start, "ax"
.code32
.global pvh_start
pvh_start:
    cld
    mov edi, ebx                // survives to be the argument of pvh_main
    mov eax, offset pvh_pdpt
    or eax, 3                   // present, writable
    mov [pvh_pml4], eax
    mov eax, offset pvh_pd
    or eax, 3
    xor ecx, ecx
1:  mov [pvh_pdpt + ecx*8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 1b
    mov eax, 0x83               // present, writable, 2 MiB page
    xor ecx, ecx
2:  mov [pvh_pd + ecx*8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne 2b
    mov eax, cr4
    or eax, 0x620               // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset pvh_pml4
    mov cr3, eax
    mov ecx, 0xc0000080         // EFER
    rdmsr
    or eax, 0x900               // LME, NXE
    wrmsr
    mov eax, cr0
    or eax, 0x80010003          // PG, WP, MP, PE
    and eax, 0xfffffffb         // EM off
    mov cr0, eax
    lgdt [pvh_gdtr]
    ljmp 8, offset pvh_start64
.code64
pvh_start64:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset pvh_stack_top
    mov edi, edi                // clears the upper half
    call pvh_main
    ud2

.section .data.pvh, "aw"
.balign 8
pvh_gdt:                        // null, 64-bit code, data
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
pvh_gdtr:
    .word 23
    .quad pvh_gdt

.section .bss.pvh, "aw", @nobits
.balign 4096
pvh_pml4: .skip 4096
pvh_pdpt: .skip 4096
pvh_pd:   .skip 16384
pvh_stack: .skip 65536
pvh_stack_top:
"#
);
