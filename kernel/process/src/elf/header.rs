//! The headers of an ELF file: a checked view of its bytes, and what they mean.

use super::{ExecFile, read_exact};
use crate::{Error, Result};
use alloc::vec::Vec;
use machine::addr::{PAGE_SIZE, USER_END, page_ceil, page_floor};
use machine::paging::Access;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `Elf64_Ehdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FileHeader {
    pub(super) ident: [u8; 16],
    pub(super) kind: u16,
    pub(super) machine: u16,
    pub(super) version: u32,
    pub(super) entry: u64,
    pub(super) program_headers: u64,
    pub(super) section_headers: u64,
    pub(super) flags: u32,
    pub(super) header_size: u16,
    pub(super) program_header_size: u16,
    pub(super) program_header_count: u16,
    pub(super) section_header_size: u16,
    pub(super) section_header_count: u16,
    pub(super) section_names: u16,
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ProgramHeader {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) vaddr: u64,
    pub(super) paddr: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) align: u64,
}

/// Magic, 64 bits, little-endian, version 1.
pub(super) const IDENT: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
pub(super) const ET_EXEC: u16 = 2;
pub(super) const ET_DYN: u16 = 3;
pub(super) const EM_X86_64: u16 = 62;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
pub(super) const PF_X: u32 = 1;
const PF_W: u32 = 2;
pub(super) const PF_R: u32 = 4;

/// Most program headers a file may have (as Linux: what fits into 64 KiB).
const HEADERS_MAX: usize = 65536 / size_of::<ProgramHeader>();
/// Longest path of an interpreter, NUL included (`PATH_MAX`).
const INTERPRETER_MAX: usize = 4096;
/// Largest alignment of an image that is honoured.
const ALIGN_MAX: usize = 1 << 30;

/// Whether a program chooses its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At the addresses its headers name.
    Fixed,
    /// Anywhere: a position-independent program or an interpreter.
    Movable,
}

/// A part of the file to be mapped; all sums are known not to overflow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Address of the first byte, relative to the image's base.
    pub(super) addr: usize,
    /// Offset of that byte in the file.
    pub(super) offset: u64,
    pub(super) file_size: usize,
    pub(super) memory_size: usize,
    pub(super) access: Access,
}

impl Segment {
    /// End of its memory.
    pub(super) fn end(&self) -> usize {
        self.addr + self.memory_size
    }
}

/// What loading needs to know of a program file.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) kind: Kind,
    pub(super) entry: usize,
    pub(super) segments: Vec<Segment>,
    /// Whole pages from the first segment's start to the last one's end.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Alignment of the whole.
    pub(super) align: usize,
    /// Address and number of the program headers in memory; 0 if not mapped.
    pub(super) headers: usize,
    pub(super) header_count: usize,
    pub(super) executable_stack: bool,
    interpreter: Option<Vec<u8>>,
}

impl Image {
    /// Reads and checks the headers of `file`.
    ///
    /// # Errors
    /// [`Error::NotExecutable`] for anything but a well-formed 64-bit x86 program;
    /// no memory; the file's error.
    pub fn read(file: &dyn ExecFile) -> Result<Image> {
        let mut header = FileHeader::new_zeroed();
        read_exact(file, 0, header.as_mut_bytes())?;
        let kind = check(&header)?;
        let headers = read_headers(file, &header)?;
        let mut image = Image {
            kind,
            entry: user_address(header.entry)?,
            segments: Vec::new(),
            start: usize::MAX,
            end: 0,
            align: PAGE_SIZE,
            headers: 0,
            header_count: headers.len(),
            executable_stack: false,
            interpreter: None,
        };
        image.segments.try_reserve_exact(headers.len())?;
        for h in &headers {
            match h.kind {
                PT_LOAD if h.memory_size > 0 => image.add_segment(h)?,
                PT_INTERP if image.interpreter.is_none() => {
                    image.interpreter = Some(read_interpreter(file, h)?);
                }
                PT_PHDR => image.headers = user_address(h.vaddr)?,
                PT_GNU_STACK => image.executable_stack = h.flags & PF_X != 0,
                _ => {}
            }
        }
        if image.segments.is_empty() {
            return Err(Error::NotExecutable);
        }
        if image.headers == 0 {
            image.headers = image.find_headers(header.program_headers);
        }
        Ok(image)
    }

    /// Path of the interpreter that has to be loaded too, without the NUL.
    #[must_use]
    pub fn interpreter(&self) -> Option<&[u8]> {
        self.interpreter.as_deref()
    }

    /// Whether it chooses its address.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn add_segment(&mut self, h: &ProgramHeader) -> Result<()> {
        let addr = user_address(h.vaddr)?;
        let memory_size = user_address(h.memory_size)?;
        let file_size = user_address(h.file_size)?;
        let end = addr
            .checked_add(memory_size)
            .and_then(page_ceil)
            .filter(|e| *e <= USER_END)
            .ok_or(Error::NotExecutable)?;
        let in_file = h.offset.checked_add(h.file_size);
        let in_step = h.offset % PAGE_SIZE as u64 == (addr % PAGE_SIZE) as u64;
        if file_size > memory_size || in_file.is_none_or(|e| e > i64::MAX as u64) || !in_step {
            return Err(Error::NotExecutable);
        }
        self.start = self.start.min(page_floor(addr));
        self.end = self.end.max(end);
        if h.align.is_power_of_two() && h.align <= ALIGN_MAX as u64 {
            self.align = self.align.max(h.align as usize);
        }
        let right = |flag, access| {
            if h.flags & flag != 0 {
                access
            } else {
                Access::empty()
            }
        };
        self.segments.push(Segment {
            addr,
            offset: h.offset,
            file_size,
            memory_size,
            access: right(PF_R, Access::READ)
                | right(PF_W, Access::WRITE)
                | right(PF_X, Access::EXEC),
        });
        Ok(())
    }

    /// Where the program headers at `offset` of the file are mapped; 0 if nowhere.
    fn find_headers(&self, offset: u64) -> usize {
        let holds = |s: &&Segment| {
            offset
                .checked_sub(s.offset)
                .is_some_and(|at| at < s.file_size as u64)
        };
        self.segments
            .iter()
            .find(holds)
            .map_or(0, |s| s.addr + (offset - s.offset) as usize)
    }
}

/// An address or size that user space can hold.
fn user_address(n: u64) -> Result<usize> {
    usize::try_from(n)
        .ok()
        .filter(|n| *n <= USER_END)
        .ok_or(Error::NotExecutable)
}

fn check(h: &FileHeader) -> Result<Kind> {
    let known = h.ident.starts_with(&IDENT)
        && h.machine == EM_X86_64
        && usize::from(h.program_header_size) == size_of::<ProgramHeader>()
        && (1..=HEADERS_MAX).contains(&usize::from(h.program_header_count));
    match h.kind {
        ET_EXEC if known => Ok(Kind::Fixed),
        ET_DYN if known => Ok(Kind::Movable),
        _ => Err(Error::NotExecutable),
    }
}

fn read_headers(file: &dyn ExecFile, h: &FileHeader) -> Result<Vec<ProgramHeader>> {
    let count = usize::from(h.program_header_count);
    let mut headers = Vec::new();
    headers.try_reserve_exact(count)?;
    headers.resize(count, ProgramHeader::new_zeroed());
    read_exact(
        file,
        h.program_headers,
        headers.as_mut_slice().as_mut_bytes(),
    )?;
    Ok(headers)
}

fn read_interpreter(file: &dyn ExecFile, h: &ProgramHeader) -> Result<Vec<u8>> {
    let len = usize::try_from(h.file_size).unwrap_or(usize::MAX);
    if !(2..=INTERPRETER_MAX).contains(&len) {
        return Err(Error::NotExecutable);
    }
    let mut path = Vec::new();
    path.try_reserve_exact(len)?;
    path.resize(len, 0);
    read_exact(file, h.offset, &mut path)?;
    // It ends with a NUL; what follows an earlier one does not count.
    if path.last() != Some(&0) {
        return Err(Error::NotExecutable);
    }
    let end = path.iter().position(|b| *b == 0).unwrap_or(0);
    path.truncate(end);
    if path.is_empty() {
        return Err(Error::NotExecutable);
    }
    Ok(path)
}
