# Real mode, in a segment of its own that begins with this code; what the code calls
# memory is that segment. The second stage is entered as if by a call from the boot
# sector: at ss:sp a return address of 32 bits, then the number of the disk.
# Source for the disk services: BIOS Enhanced Disk Drive Specification 3.0.

.code16
.section .selector, "ax"
.global selector

# Places in the boot state (skep_api::boot::state).
.set ACTIVE, 12
.set GENERATION, 16
.set SLOTS, 24
.set SLOT_BYTES, 16
.set CRC, 508
# Status of a slot.
.set TRYING, 1
.set GOOD, 2
.set BAD, 3
# The two copies of the state, in memory behind the code.
.set COPY_0, 0x400
.set COPY_1, 0x600
# Where the boot sector has its partition table, and the second entry's place in it.
.set TABLE_ENTRY, 0x7c00 + 446 + 16
.set STAGE_2, 0x7e00
# The stack that the boot sector sets up ends where its code begins, in the same page. An
# emulator that translates code looks at every write to such a page, so the second stage
# has its stack in the pages below. (The third has its own: skep-image, stack.rs.)
.set OLD_STACK, 0x7c00
.set NEW_STACK, 0x7000
# Functions of interrupt 0x13.
.set READ, 0x4200
.set WRITE, 0x4300

selector:
    jmp begin

# Filled in by the image builder, which knows them by this word in front.
.balign 4
    .ascii "selector"
state_block:    .long 0, 0          # sectors of the two copies
slot_places:    .long 0, 0, 0, 0    # first sector and length of slot A and B
stage_2_begins: .byte 0, 0, 0, 0, 0 # the bytes that the jump here replaces
disk:           .byte 0
function:       .word 0

.balign 4
packet:
    .byte 16, 0
    .word 1                         # one sector
packet_offset:  .word 0
packet_segment: .word 0
packet_sector:  .long 0, 0

begin:
    mov bp, sp
    mov dl, [bp + 4]                # of the stack: bp goes by ss
    mov ax, cs
    mov ds, ax
    mov es, ax
    mov [disk], dl

    mov word ptr [function], READ
    mov eax, [state_block]
    mov bx, COPY_0
    call transfer
    mov eax, [state_block + 4]
    mov bx, COPY_1
    call transfer

    # bx: the copy that counts. The other one, di, is written if anything changes.
    mov bx, COPY_0
    call is_whole
    jc first_is_damaged
    mov bx, COPY_1
    call is_whole
    mov bx, COPY_0
    jc first_counts
    mov eax, [COPY_0 + GENERATION + 4]
    cmp eax, [COPY_1 + GENERATION + 4]
    ja first_counts
    jb second_counts
    mov eax, [COPY_0 + GENERATION]
    cmp eax, [COPY_1 + GENERATION]
    jae first_counts
    jmp second_counts
first_is_damaged:
    mov bx, COPY_1
    call is_whole
    jc leave_table                  # no state: slot A, as the table on the disk says
second_counts:
    mov bx, COPY_1
    mov eax, [state_block]          # the change goes to the first copy
    jmp choose
first_counts:
    mov bx, COPY_0
    mov eax, [state_block + 4]

choose:
    mov [packet_sector], eax
    call active_slot                # si
    cmp byte ptr [si], GOOD
    je name_slot
    cmp byte ptr [si], TRYING
    jne fall_back
    cmp byte ptr [si + 1], 0
    je fall_back
    dec byte ptr [si + 1]
    jmp store
fall_back:
    mov word ptr [si], BAD          # and no tries
    xor byte ptr [bx + ACTIVE], 1

store:
    add dword ptr [bx + GENERATION], 1
    adc dword ptr [bx + GENERATION + 4], 0
    call checksum
    mov [bx + CRC], eax
    mov word ptr [function], WRITE
    mov eax, [packet_sector]
    call transfer
    jnc name_slot
    # A new release whose tries cannot be counted is not started while the other slot
    # is good: it might be started for ever.
    call active_slot
    cmp byte ptr [si], TRYING
    jne name_slot
    xor byte ptr [bx + ACTIVE], 1
    call active_slot
    cmp byte ptr [si], GOOD
    je name_slot
    xor byte ptr [bx + ACTIVE], 1

name_slot:
    movzx si, byte ptr [bx + ACTIVE]
    shl si, 3
    mov eax, [si + slot_places]
    mov ecx, [si + slot_places + 4]
    xor dx, dx
    mov es, dx
    mov es:[TABLE_ENTRY + 8], eax
    mov es:[TABLE_ENTRY + 12], ecx

leave_table:
    xor dx, dx
    mov es, dx
    cld
    mov si, offset stage_2_begins
    mov di, STAGE_2
    mov cx, 5
    rep movsb
    mov ds, dx
    mov si, sp
    mov cx, OLD_STACK
    sub cx, si
    lea di, [si - (OLD_STACK - NEW_STACK)]
    mov ax, di
    rep movsb
    mov sp, ax
    # As the boot sector found it, but for the place of the stack and registers that a
    # callee may use.
    ljmp 0, STAGE_2

# Reads or writes one sector: eax its number, bx the memory. Carry: it failed.
transfer:
    mov [packet_sector], eax
    mov [packet_offset], bx
    mov ax, cs
    mov [packet_segment], ax
    mov ax, [function]
    mov dl, [disk]
    mov si, offset packet
    push bx
    int 0x13
    pop bx
    ret

# si: the state's entry of the active slot.
active_slot:
    movzx si, byte ptr [bx + ACTIVE]
    shl si, 4
    lea si, [bx + si + SLOTS]
    ret

# Carry: the copy at bx is not a whole state.
is_whole:
    cmp dword ptr [bx], 0x50454b53      # SKEP
    jne damaged
    cmp dword ptr [bx + 4], 0x544f4f42  # BOOT
    jne damaged
    cmp dword ptr [bx + 8], 1           # version
    jne damaged
    cmp byte ptr [bx + ACTIVE], 1
    ja damaged
    call checksum
    cmp eax, [bx + CRC]
    jne damaged
    clc
    ret
damaged:
    stc
    ret

# eax: CRC-32 of the copy at bx.
checksum:
    mov eax, 0xffffffff
    mov si, bx
    mov cx, CRC
next_byte:
    xor al, [si]
    inc si
    mov dx, 8
next_bit:
    shr eax, 1
    jnc no_carry
    xor eax, 0xedb88320
no_carry:
    dec dx
    jnz next_bit
    loop next_byte
    not eax
    ret
