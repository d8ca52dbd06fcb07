//! Mapping of a program's segments.

use super::ExecFile;
use super::header::{Image, Kind, Segment};
use crate::{Error, Result};
use core::ops::Range;
use machine::addr::{PAGE_SIZE, USER_END, USER_START, page_ceil, page_floor};
use machine::paging::Access;
use mm::{AddressSpace, MapRequest, Placement};

/// A program file and its headers.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// The file.
    pub file: &'a dyn ExecFile,
    /// Its headers.
    pub image: &'a Image,
}

/// What `execve` has to know of a program that is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where the first thread starts: the interpreter's entry, if there is one.
    pub start: usize,
    /// The program's own entry (`AT_ENTRY`).
    pub entry: usize,
    /// Address of the program headers (`AT_PHDR`).
    pub headers: usize,
    /// Their number (`AT_PHNUM`).
    pub header_count: usize,
    /// Where the interpreter was loaded (`AT_BASE`); 0 without one.
    pub interpreter_base: usize,
    /// The executable part (`/proc/PID/stat`).
    pub code: Range<usize>,
    /// The writable part.
    pub data: Range<usize>,
    /// Rights of the stack.
    pub stack_access: Access,
}

/// Maps `program`, and its `interpreter` if it names one, into the new `space`,
/// and places the heap behind the program.
///
/// # Errors
/// [`Error::NotExecutable`] if the segments cannot be mapped as they are; memory
/// and limits.
pub fn load(
    space: &AddressSpace,
    program: Program<'_>,
    interpreter: Option<Program<'_>>,
) -> Result<Loaded> {
    let image = program.image;
    let bias = match image.kind {
        Kind::Fixed => 0,
        Kind::Movable => movable_bias(space, image)?,
    };
    map_segments(space, program, bias)?;
    let code = extent(image, bias, Access::EXEC);
    let data = extent(image, bias, Access::WRITE);
    let heap = (bias + image.end).saturating_add(space.layout().heap_gap);
    space.set_heap(heap, data.len());
    let entry = bias + image.entry;
    let (start, interpreter_base) = match interpreter {
        Some(i) => {
            let bias = interpreter_bias(space, i.image)?;
            map_segments(space, i, bias)?;
            (bias + i.image.entry, bias + i.image.start)
        }
        None => (entry, 0),
    };
    let exec = if image.executable_stack {
        Access::EXEC
    } else {
        Access::empty()
    };
    Ok(Loaded {
        start,
        entry,
        headers: match image.headers {
            0 => 0,
            h => bias + h,
        },
        header_count: image.header_count,
        interpreter_base,
        code,
        data,
        stack_access: Access::READ | Access::WRITE | exec,
    })
}

/// From the first to the last byte of the segments with `right`.
fn extent(image: &Image, bias: usize, right: Access) -> Range<usize> {
    let with = || image.segments.iter().filter(|s| s.access.contains(right));
    let start = with().map(|s| s.addr).min().unwrap_or(0);
    let end = with().map(Segment::end).max().unwrap_or(0);
    bias + start..bias + end
}

/// What to add to the addresses of a position-independent program.
fn movable_bias(space: &AddressSpace, image: &Image) -> Result<usize> {
    let wanted = space.layout().image_base & !(image.align - 1);
    let base = wanted
        .checked_add(image.end - image.start)
        .filter(|end| *end <= USER_END)
        .map(|_| wanted);
    let base = base.ok_or(Error::Memory(mm::Error::NoSpace))?;
    // The first segment need not start at 0; sums stay below 2^48 + 2^47.
    base.checked_sub(image.start & !(image.align - 1))
        .ok_or(Error::NotExecutable)
}

/// Finds room for the interpreter and makes it free; what to add to its addresses.
fn interpreter_bias(space: &AddressSpace, image: &Image) -> Result<usize> {
    if image.kind == Kind::Fixed {
        return Ok(0);
    }
    let slack = image.align - PAGE_SIZE;
    let len = (image.end - image.start).checked_add(slack);
    let len = len.ok_or(Error::NotExecutable)?;
    let room = space.map(MapRequest::anonymous(len, Access::empty()))?;
    // Nobody else uses this space yet, so what was found stays free.
    space.unmap(room, len)?;
    let base = (room + slack) & !(image.align - 1);
    base.checked_sub(image.start & !(image.align - 1))
        .ok_or(Error::NotExecutable)
}

fn map_segments(space: &AddressSpace, program: Program<'_>, bias: usize) -> Result<()> {
    let end = bias.checked_add(program.image.end);
    if end.is_none_or(|e| e > USER_END) || bias + program.image.start < USER_START {
        return Err(Error::NotExecutable);
    }
    let entry = bias.checked_add(program.image.entry);
    if entry.is_none_or(|e| e >= USER_END) {
        return Err(Error::NotExecutable);
    }
    for s in &program.image.segments {
        map_segment(space, program.file, s, bias)?;
    }
    Ok(())
}

/// Maps the file part of a segment and the zeros behind it.
fn map_segment(space: &AddressSpace, file: &dyn ExecFile, s: &Segment, bias: usize) -> Result<()> {
    let addr = bias + s.addr;
    let file_end = addr + s.file_size;
    let end = page_ceil(bias + s.end()).ok_or(Error::NotExecutable)?;
    let mut zeros = page_floor(addr);
    if s.file_size > 0 {
        let start = page_floor(addr);
        let offset = s.offset - (addr - start) as u64;
        zeros = page_ceil(file_end).ok_or(Error::NotExecutable)?;
        let request = MapRequest::object(file.backing(), offset, zeros - start, s.access)
            .at(Placement::Fixed(start));
        space.map(request)?;
        // What follows the file part in its last page belongs to the zeros, which
        // only a writable segment can have there.
        let tail = zeros.min(bias + s.end()).saturating_sub(file_end);
        if tail > 0 && s.memory_size > s.file_size && s.access.contains(Access::WRITE) {
            space.populate(file_end..file_end + tail)?;
            if space.zero(file_end, zeros - file_end) < zeros - file_end {
                return Err(Error::NotExecutable);
            }
        }
    }
    if zeros < end {
        let request = MapRequest::anonymous(end - zeros, s.access).at(Placement::Fixed(zeros));
        space.map(request)?;
    }
    Ok(())
}
