# The first sector of the disk: reads the loader from the sectors that the image builder names
# at the end of this code, adds its words up, and goes there.
# Source: BIOS Enhanced Disk Drive Specification 3.0.

.code16
.section .boot_sector, "ax"
.global boot_sector

# The loader, and bytes and sectors read at a time: a part lies in one 64 KiB, and is within
# what every BIOS reads.
.set LOADER_SEGMENT, 0x800
.set PART_SECTORS, 64
.set PART_SEGMENTS, PART_SECTORS * 512 / 16
.set PART_WORDS, PART_SECTORS * 512 / 4
# The stack, as later on (memory.rs).
.set STACK_SEGMENT, 0x6000
.set STACK_TOP, 0xfff0
# Ten seconds in microseconds.
.set READING_TIME, 10000000

boot_sector:
    cli
    cld
    xor ax, ax
    ljmp 0, offset in_segment_0
in_segment_0:
    mov ds, ax
    mov ax, STACK_SEGMENT
    mov ss, ax
    mov sp, STACK_TOP
    sti
    mov [boot_drive], dl

    mov ah, 0x41                    # are there extensions, by which sectors have numbers?
    mov bx, 0x55aa
    int 0x13
    mov si, offset cannot_read
    jc fail
    cmp bx, 0xaa55
    jne fail

    mov ebx, [first_sector]
    mov bp, [part_count]
    mov di, LOADER_SEGMENT
    xor edx, edx                    # the sum so far
next_part:
    push edx
    xor ecx, ecx
    push ecx                        # the packet: number of the sector,
    push ebx
    push di                         # memory,
    push 0
    push PART_SECTORS               # how many, and its own length
    push 16
    mov si, sp
    push ss
    pop ds
    mov ah, 0x42
    mov dl, cs:[boot_drive]
    int 0x13
    mov si, offset cannot_read
    jc fail
    add sp, 16
    pop edx
    mov ds, di
    xor si, si
    mov cx, PART_WORDS
next_word:
    rol edx, 1
    add edx, [si]
    add si, 4
    loop next_word
    add ebx, PART_SECTORS
    add di, PART_SEGMENTS
    dec bp
    jnz next_part

    mov si, offset is_damaged
    cmp edx, cs:[sum]
    jne fail
    ljmp 0, offset loader_entry

# Says what is at cs:si on screen and first serial port, waits until it is read, and has the
# BIOS go on with its next boot device.
.global fail
fail:
    push cs
    pop ds
next_letter:
    lodsb
    test al, al
    jz said
    mov ah, 0x0e
    mov bx, 7
    push ax
    int 0x10
    pop ax
    mov bl, al
    mov dx, 0x3fd
    mov cx, 0xffff                  # there may be no port
wait_for_port:
    in al, dx
    test al, 0x20
    loopz wait_for_port
    mov al, bl
    mov dx, 0x3f8
    out dx, al
    jmp next_letter
said:
    mov ah, 0x86
    mov cx, READING_TIME >> 16
    mov dx, READING_TIME & 0xffff
    int 0x15
    int 0x18
stay:
    hlt
    jmp stay

cannot_read: .asciz "skep boot: the disk cannot be read by the BIOS\r\n"
is_damaged: .asciz "skep boot: the loader on this disk is damaged; write the disk anew\r\n"

.global boot_drive
boot_drive: .byte 0

# Filled in by the image builder, which knows the place (boot/image/src/bios.rs).
    .org boot_sector + 428
first_sector: .long 0
part_count: .long 0
sum: .long 0
# The disk's signature and the partition table.
    .org boot_sector + 510
    .byte 0x55, 0xaa
