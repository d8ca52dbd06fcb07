//! The parts of memory that a core file holds, and its ELF headers (elf(5)).

use super::Writer;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use machine::addr::PAGE_SIZE;
use machine::paging::Access;
use mm::{AddressSpace, AreaFlags, Region, RegionName};

const EHDR: usize = 64;
const PHDR: usize = 56;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Program headers that the header can count (`PN_XNUM` less one for the notes).
const SEGMENTS_MAX: usize = 0xfffe - 1;
const PAGE: u64 = PAGE_SIZE as u64;

/// What of an area goes into the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing: it is in a file that debuggers have.
    Nothing,
    /// Pages that are there; the rest is zeros.
    Present,
    /// All pages, those of its file too.
    All,
    /// The first page: the header of an ELF file, by which debuggers tell it.
    Header,
}

struct Segment {
    range: Range<usize>,
    access: Access,
    content: Content,
}

impl Segment {
    fn size(&self) -> u64 {
        match self.content {
            Content::Nothing => 0,
            Content::Header => PAGE,
            Content::Present | Content::All => self.range.len() as u64,
        }
    }
}

/// A file that is mapped, for the note that says where (`NT_FILE`).
pub(super) struct Mapped {
    pub(super) range: Range<usize>,
    pub(super) page: u64,
    pub(super) path: String,
}

/// What the file will hold.
pub(super) struct Plan {
    segments: Vec<Segment>,
    pub(super) files: Vec<Mapped>,
}

impl Plan {
    /// Of all areas of `space`; nothing without memory for it.
    pub(super) fn of(space: &AddressSpace) -> Option<Plan> {
        let mut plan = Plan {
            segments: Vec::new(),
            files: Vec::new(),
        };
        for region in space.regions().take(SEGMENTS_MAX) {
            plan.segments.try_reserve(1).ok()?;
            plan.segments.push(Segment {
                content: content(space, &region),
                range: region.range.clone(),
                access: region.access,
            });
            if let RegionName::Object(object) = &region.name
                && !region.flags.contains(AreaFlags::SPECIAL)
            {
                plan.files.try_reserve(1).ok()?;
                plan.files.push(Mapped {
                    page: region.offset / PAGE,
                    path: object.describe().path,
                    range: region.range,
                });
            }
            machine::thread::cond_resched();
        }
        Some(plan)
    }

    /// Where the notes lie: behind the headers.
    pub(super) fn notes_at(&self) -> u64 {
        (EHDR + (self.segments.len() + 1) * PHDR) as u64
    }

    /// Where the memory begins.
    fn memory_at(&self, notes: usize) -> u64 {
        (self.notes_at() + notes as u64).next_multiple_of(PAGE)
    }

    /// The ELF header and the program headers, for notes of that many bytes.
    pub(super) fn headers(&self, notes: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let len = usize::try_from(self.notes_at()).ok()?;
        out.try_reserve_exact(len).ok()?;
        let count = u16::try_from(self.segments.len() + 1).ok()?;
        // 64 bits, little endian, version 1, System V.
        out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        let halves = |out: &mut Vec<u8>, all: &[u16]| {
            for v in all {
                out.extend_from_slice(&v.to_le_bytes());
            }
        };
        let words = |out: &mut Vec<u8>, all: &[u64]| {
            for v in all {
                out.extend_from_slice(&v.to_le_bytes());
            }
        };
        halves(&mut out, &[ET_CORE, EM_X86_64, 1, 0]);
        words(&mut out, &[0, EHDR as u64, 0]);
        halves(&mut out, &[0, 0, EHDR as u16, PHDR as u16, count, 0, 0, 0]);
        let mut header = |kind: u32, flags: u32, fields: [u64; 6]| {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&flags.to_le_bytes());
            words(&mut out, &fields);
        };
        header(PT_NOTE, 0, [self.notes_at(), 0, 0, notes as u64, 0, 4]);
        let mut at = self.memory_at(notes);
        for s in &self.segments {
            let bit = |access, value| if s.access.contains(access) { value } else { 0 };
            let flags = bit(Access::READ, 4) | bit(Access::WRITE, 2) | bit(Access::EXEC, 1);
            let (start, len) = (s.range.start as u64, s.range.len() as u64);
            header(PT_LOAD, flags, [at, start, 0, s.size(), len, PAGE]);
            at += s.size();
        }
        Some(out)
    }

    /// Writes the memory behind the notes.
    pub(super) fn write(
        &self,
        space: &AddressSpace,
        notes: usize,
        out: &mut Writer<'_>,
    ) -> Option<()> {
        let mut page = Vec::new();
        page.try_reserve_exact(PAGE_SIZE).ok()?;
        page.resize(PAGE_SIZE, 0);
        let mut at = self.memory_at(notes);
        for s in &self.segments {
            match s.content {
                Content::Nothing => {}
                Content::Present => present(space, s, at, out, &mut page)?,
                Content::All => all(space, s.range.clone(), at, out, &mut page)?,
                Content::Header => {
                    let first = s.range.start..s.range.start + PAGE_SIZE;
                    all(space, first, at, out, &mut page)?;
                }
            }
            at += s.size();
        }
        out.finish(at)
    }
}

/// Writes what is there of private memory. Pages of zeros stay holes.
fn present(
    space: &AddressSpace,
    s: &Segment,
    at: u64,
    out: &mut Writer<'_>,
    page: &mut [u8],
) -> Option<()> {
    let mut done = Some(());
    space.page_table().for_each(s.range.clone(), |va, found| {
        if done.is_none() {
            return;
        }
        let at = at + (va - s.range.start) as u64;
        done = out.goes_on(at);
        if done.is_none() {
            return;
        }
        found.frame.read(0, page);
        if page.iter().any(|b| *b != 0) {
            done = out.put(at, page);
        }
        machine::thread::cond_resched();
    });
    done
}

/// Writes all of `range`, as the program reads it.
fn all(
    space: &AddressSpace,
    range: Range<usize>,
    at: u64,
    out: &mut Writer<'_>,
    page: &mut [u8],
) -> Option<()> {
    for va in range.clone().step_by(PAGE_SIZE) {
        let at = at + (va - range.start) as u64;
        out.goes_on(at)?;
        // Past the end of its file there is nothing to read.
        let n = space.read(va, page);
        let read = page.get(..n)?;
        if read.iter().any(|b| *b != 0) {
            out.put(at, read)?;
        }
        machine::thread::cond_resched();
    }
    Some(())
}

/// As the filter of Linux has it that nobody has changed (`coredump_filter`, 0x33):
/// anonymous memory, pages of its own, shared memory without a file, and the headers of
/// ELF files.
fn content(space: &AddressSpace, region: &Region) -> Content {
    let flags = region.flags;
    let RegionName::Object(object) = &region.name else {
        return match flags.contains(AreaFlags::DONT_DUMP) {
            true => Content::Nothing,
            false => Content::Present,
        };
    };
    if flags.contains(AreaFlags::SPECIAL) {
        // The code of the vDSO is in no file; what it reads is the kernel's.
        return match region.access.contains(Access::EXEC) {
            true => Content::All,
            false => Content::Nothing,
        };
    }
    let readable = region.access.contains(Access::READ);
    if flags.contains(AreaFlags::DONT_DUMP) || !readable {
        return Content::Nothing;
    }
    // Whoever has no name left: shared memory, and files that are unlinked.
    let anonymous = || object.describe().path.ends_with(" (deleted)");
    if flags.contains(AreaFlags::SHARED) {
        return match anonymous() {
            true => Content::All,
            false => Content::Nothing,
        };
    }
    if region.owned {
        return Content::All;
    }
    let mut magic = [0; 4];
    let is_elf = region.offset == 0 && space.read(region.range.start, &mut magic) == 4;
    match is_elf && magic == *b"\x7fELF" {
        true => Content::Header,
        false => Content::Nothing,
    }
}
