//! Loading of ELF programs (`execve`).
//!
//! A program file is hostile input: [`Image::read`] checks its headers and keeps
//! what loading needs; [`load`] maps the segments of a program and of its
//! interpreter over the files' page cache, without copying; [`Arguments::place`]
//! builds the first stack. All work on a space of the new program's own, so that
//! until the caller switches to it nothing has happened.
//!
//! Sources: System V ABI and its AMD64 supplement, elf(5), getauxval(3).

mod arguments;
mod auxv;
mod header;
mod load;
mod script;
#[cfg(test)]
mod tests;
mod vdso;
mod vdso_image;

pub use arguments::{Arguments, Placed};
pub use auxv::{AuxInput, Credentials};
pub use header::{Image, Kind};
pub use load::{Loaded, Program, load};
pub use script::{Script, parse as parse_script};
pub use vdso::map as map_vdso;

use crate::Result;
use alloc::sync::Arc;
use mm::Backing;

/// A file to be executed.
pub trait ExecFile {
    /// Fills `out` from `offset` on; how many bytes there were before the end.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize>;

    /// The object to map the file's pages from.
    fn backing(&self) -> Arc<dyn Backing>;
}

/// Reads exactly `out.len()` bytes; a file that is too short is no program.
fn read_exact(file: &dyn ExecFile, offset: u64, out: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < out.len() {
        let at = offset.checked_add(done as u64);
        let at = at.ok_or(crate::Error::NotExecutable)?;
        match file.read_at(at, &mut out[done..])? {
            0 => return Err(crate::Error::NotExecutable),
            n => done += n.min(out.len() - done),
        }
    }
    Ok(())
}
